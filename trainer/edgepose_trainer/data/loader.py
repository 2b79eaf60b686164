"""Batches in a fixed order, made by worker processes."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from edgepose_trainer.data.dataset import Batch, BatchKey, PoseDataset


class BatchSampler(Sampler[BatchKey]):
    """The keys of an epoch's batches for one rank.

    The order is a function of (seed, epoch). Each global batch is cut into world_size equal shares, so that N ranks
    together see the batches of a single process.
    """

    def __init__(
        self,
        dataset: PoseDataset,
        batch: int,
        seed: int,
        rank: int,
        world_size: int,
        shuffle: bool,
        drop_last: bool,
        multi_scale: float,
        stride: int,
    ) -> None:
        self.dataset, self.batch, self.seed = dataset, batch, seed
        self.rank, self.world_size = rank, world_size
        self.shuffle, self.drop_last = shuffle, drop_last
        self.multi_scale, self.stride = multi_scale, stride
        self.epoch, self.start_batch, self.imgsz, self.mosaic = 0, 0, dataset.imgsz, True

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        count = len(self.dataset)
        return count // self.batch if self.drop_last else -(-count // self.batch)

    def __iter__(self) -> Iterator[BatchKey]:
        order = self.dataset.order()
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(order)
        for number in range(self.start_batch, len(self)):
            indices = self._share(order[number * self.batch : (number + 1) * self.batch])
            if len(indices):
                shape = self.dataset.batch_shape(indices, self._size(number), self.stride)
                yield BatchKey(tuple(indices.tolist()), shape, self.epoch, self.seed, self.mosaic)

    def _share(self, indices: Any) -> Any:
        if self.shuffle and len(indices) % self.world_size:  # equal shares: ranks must take as many steps
            indices = np.resize(indices, -(-len(indices) // self.world_size) * self.world_size)
        return np.array_split(indices, self.world_size)[self.rank]

    def _size(self, number: int) -> int:
        if not self.multi_scale:
            return self.imgsz
        factor = np.random.default_rng((self.seed, self.epoch, number)).uniform(
            1 - self.multi_scale, 1 + self.multi_scale
        )
        return max(round(self.imgsz * factor / self.stride), 1) * self.stride


class Loader:
    """Iterates over the batches of the epoch that `set_epoch` chose; its length is a whole epoch's.

    `close` ends its workers. They outlive a SIGTERM, so a loader that somebody still holds would keep the interpreter
    from ending.
    """

    def __init__(self, sampler: BatchSampler, workers: int, pin_memory: bool) -> None:
        self.dataset, self.sampler = sampler.dataset, sampler
        # Forked workers share the picture store and start at once; elsewhere they are spawned, as is the habit there.
        context = "fork" if workers and sys.platform == "linux" else None
        with _calm():
            self._loader: DataLoader[Batch] | None = DataLoader(
                self.dataset,
                batch_size=None,
                sampler=sampler,
                num_workers=workers,
                collate_fn=_as_it_is,
                pin_memory=pin_memory,
                worker_init_fn=_start_worker,
                persistent_workers=workers > 0,
                prefetch_factor=4 if workers else None,
                multiprocessing_context=context,
                generator=torch.Generator(),  # of its own, so that iterating does not disturb the training's
            )

    def set_epoch(self, epoch: int, start_batch: int = 0, *, imgsz: int | None = None, mosaic: bool = True) -> None:
        """Chooses the next epoch, to begin at batch `start_batch` (a run that is resumed).

        imgsz: another size for this epoch, at most the dataset's; None for the dataset's. mosaic: False closes it.
        """
        if not 0 <= start_batch <= len(self.sampler):
            raise ValueError(f"start_batch must be 0 to {len(self.sampler)}, got {start_batch}")
        self.sampler.epoch, self.sampler.start_batch = epoch, start_batch
        self.sampler.imgsz, self.sampler.mosaic = imgsz or self.dataset.imgsz, mosaic

    def close(self) -> None:
        """Ends the workers; the loader cannot be iterated over again."""
        self._loader = None

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        if self._loader is None:
            raise ValueError("this loader was closed")
        with _calm():
            return iter(self._loader)


def build_loader(
    dataset: PoseDataset,
    batch: int,
    workers: int = 0,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    shuffle: bool = False,
    drop_last: bool = False,
    *,
    multi_scale: float = 0.0,
    stride: int = 32,
    pin_memory: bool = False,
) -> Loader:
    """batch: pictures of all ranks together. multi_scale: sizes vary by this fraction, in steps of `stride`.

    Raises ValueError for a batch that does not divide among the ranks, or an empty epoch.
    """
    if batch < 1 or batch % world_size:
        raise ValueError(f"batch must be a positive multiple of the {world_size} processes, got {batch}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be 0 to {world_size - 1}, got {rank}")
    if drop_last and len(dataset) < batch:
        raise ValueError(f"{len(dataset)} pictures do not fill one batch of {batch}: use a smaller batch")
    sampler = BatchSampler(dataset, batch, seed, rank, world_size, shuffle, drop_last, multi_scale, stride)
    return Loader(sampler, workers, pin_memory)


@contextmanager
def _calm() -> Iterator[None]:
    """Without two warnings that ask for nothing: Python's (3.12) of a fork in a process with threads (the workers use
    NumPy and OpenCV alone), and torch's of more workers than cores, which is the user's setting."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        yield


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_worker(worker: int) -> None:
    # Both reach the whole process group; the training process answers at a safe point, and then stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)
