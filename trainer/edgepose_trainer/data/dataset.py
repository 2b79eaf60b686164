"""A split as a torch dataset whose items are whole batches.

What a batch holds depends on (seed, epoch, picture indices, size) and on nothing else, so that any worker, any number
of workers, and a run that was resumed make the same batch.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from edgepose_trainer.data import augment as aug
from edgepose_trainer.data.augment import AugmentConfig, People
from edgepose_trainer.data.config import DataConfig
from edgepose_trainer.data.download import download_dataset
from edgepose_trainer.data.labels import PictureLabels
from edgepose_trainer.data.pictures import CacheMode, PictureStore, read_picture
from edgepose_trainer.data.progress import progress_bar
from edgepose_trainer.data.scan import Problem, SplitScan, scan_split

log = logging.getLogger(__name__)

UInt8 = NDArray[np.uint8]


class Batch(TypedDict):
    """B pictures with M people of K keypoints. Boxes and keypoints are relative to the picture as fed (0..1).

    images: (B, 3, H, W) uint8 RGB, channels_last in memory. batch_idx: (M,) int64, the picture of each person.
    cls: (M,) float32. boxes: (M, 4) float32 cx, cy, w, h. keypoints: (M, K, 3) float32 x, y, v, also where kpt_shape
    is [K, 2]; v = 0 not labelled (x = y = 0), 1 hidden, 2 visible. keypoint_known: (M, K) bool, False where v = 0 says
    nothing, so that visibility may not be learned there. background_weight: (B,) float32.
    paths: B strings. shapes: (B, 2) int64, height and width of the file's picture. index: (B,) int64, its number in
    the dataset. transforms: (B, 4) float64 scale_x, scale_y, pad_x, pad_y with fed = source * scale + pad, in pixels;
    NaN for augmented pictures, which have none.
    """

    images: torch.Tensor
    batch_idx: torch.Tensor
    cls: torch.Tensor
    boxes: torch.Tensor
    keypoints: torch.Tensor
    keypoint_known: torch.Tensor
    background_weight: torch.Tensor
    paths: list[str]
    shapes: torch.Tensor
    index: torch.Tensor
    transforms: torch.Tensor


@dataclass(frozen=True, slots=True)
class BatchKey:
    """Everything that decides a batch: the pictures, its (height, width), and where its randomness comes from."""

    indices: tuple[int, ...]
    shape: tuple[int, int]
    epoch: int = 0
    seed: int = 0
    mosaic: bool = True


class PoseDataset(torch.utils.data.Dataset[Batch]):
    """See `build_dataset`. Labels lie in flat arrays; those of picture i are rows offsets[i] to offsets[i + 1]."""

    def __init__(
        self,
        data: DataConfig,
        scans: Sequence[SplitScan],
        imgsz: int,
        augment: AugmentConfig | None,
        cache: CacheMode | None,
        rect: bool = False,
    ) -> None:
        self.data, self.imgsz, self.rect = data, imgsz, rect
        self.augment = _without_flips(augment) if augment and not data.flip_idx else augment
        self.paths = [str(p) for scan in scans for p in scan.pictures]
        self.problems: list[Problem] = [p for scan in scans for p in scan.problems]
        answers = [a for scan in scans for a in scan.checked]
        self.orientations = [a.orientation for a in answers]
        self.digests = [a.digest for a in answers]
        self.sizes = np.array([(a.height, a.width) for a in answers], np.int64).reshape(-1, 2)
        self._set_labels([a.labels for a in answers if a.labels is not None])
        counts = [len(scan.pictures) for scan in scans]
        self.set_of = np.repeat(np.arange(len(scans)), counts)
        self.background_weight = np.array([s.background_weight for s in data.sets], np.float32)[self.set_of]
        self._set_known()
        self._set_mosaic_partners()
        self.flip_idx = np.array(data.flip_idx or range(data.num_keypoints), np.int64)
        self._reduce = [self._reduction(max(size)) for size in self.sizes.tolist()]
        self._size = [self._stored_size(i) for i in range(len(self))]
        self._read = self._stored(cache) if cache else self._load

    def _set_labels(self, labels: Sequence[PictureLabels]) -> None:
        self.offsets = np.concatenate([[0], np.cumsum([len(p) for p in labels])]).astype(np.int64)
        self.cls = np.concatenate([p.cls for p in labels])
        self.boxes = np.concatenate([p.boxes for p in labels])
        self.keypoints = np.concatenate([p.keypoints for p in labels])

    def _set_known(self) -> None:
        unknown = np.zeros((len(self.data.sets), self.data.num_keypoints), np.bool_)
        for row, part in zip(unknown, self.data.sets, strict=True):
            row[list(part.unknown_keypoints)] = True
        per_person = unknown[np.repeat(self.set_of, np.diff(self.offsets))]
        nothing = ~(self.keypoints[..., 2] > 0).any(1, keepdims=True)  # a box alone says nothing about its points
        self.known = ~((per_person | nothing) & (self.keypoints[..., 2] == 0))

    def _set_mosaic_partners(self) -> None:
        """Pictures share a mosaic with others of the same background weight, which then holds for the whole of it."""
        weights, self._group = np.unique(self.background_weight, return_inverse=True)
        self._members = [np.flatnonzero(self._group == i) for i in range(len(weights))]

    def _stored(self, mode: CacheMode) -> PictureStore:
        sizes = np.array(self._size, np.int64).reshape(-1, 2)
        key = hashlib.blake2b(repr((self.paths, sizes.tolist(), self.augment is None)).encode(), digest_size=16)
        for path in self.paths:
            key.update(str(Path(path).stat().st_mtime_ns).encode())
        return PictureStore(sizes, self._load, mode, key.hexdigest())

    def __len__(self) -> int:
        """Pictures, not batches."""
        return len(self.paths)

    def labels(self, index: int) -> PictureLabels:
        """The labels of a picture, relative to the file's picture."""
        part = slice(self.offsets[index], self.offsets[index + 1])
        return PictureLabels(self.cls[part], self.boxes[part], self.keypoints[part])

    def picture(self, index: int) -> UInt8:
        """The whole picture of the file, (H, W, 3) RGB."""
        return read_picture(self.paths[index], self.orientations[index])

    def order(self) -> NDArray[np.int64]:
        """Picture numbers in the order they are fed when nothing is shuffled: as found, or by aspect for `rect`."""
        if not self.rect:
            return np.arange(len(self))
        return np.argsort(self.sizes[:, 0] / self.sizes[:, 1], kind="stable")

    def batch_shape(self, indices: Sequence[int], imgsz: int, stride: int) -> tuple[int, int]:
        """(height, width): a square, or, for `rect`, the smallest multiples of `stride` that hold these pictures."""
        if not self.rect:
            return imgsz, imgsz
        height, width = np.max([_fit(tuple(self.sizes[i].tolist()), imgsz) for i in indices], axis=0).tolist()
        return -(-height // stride) * stride, -(-width // stride) * stride

    # --- pictures

    def _reduction(self, long_side: int) -> int:
        """Augmented pictures are decoded at the smallest power of two that keeps the long side >= imgsz."""
        if self.augment is None:
            return 1
        return next((r for r in (8, 4, 2) if long_side >= r * self.imgsz), 1)

    def _stored_size(self, index: int) -> tuple[int, int]:
        """(height, width) of a picture as `_read` gives it."""
        height, width = self.sizes[index].tolist()
        if self.augment is None:
            return _fit((height, width), self.imgsz)
        reduce = self._reduce[index]
        return -(-height // reduce), -(-width // reduce)

    def _load(self, index: int) -> UInt8:
        picture = read_picture(self.paths[index], self.orientations[index], self._reduce[index])
        height, width = self._size[index]
        if picture.shape[:2] != (height, width):
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
        return picture

    # --- samples

    def __getitem__(self, key: BatchKey) -> Batch:
        count = len(key.indices)
        images = np.empty((count, *key.shape, 3), np.uint8)
        transforms = np.full((count, 4), np.nan)
        people = []
        for slot, index in enumerate(key.indices):
            if self.augment is None:
                found, transforms[slot] = self._letterboxed(index, images[slot])
            else:
                found = self._augmented(index, key, images[slot])
            people.append(found)
        return self._collate(key, images, people, transforms)

    def _people(self, indices: Sequence[int]) -> tuple[People, NDArray[np.int64]]:
        """Everybody in these pictures in pixels of the picture as stored, and whose position in `indices` they are."""
        rows = np.concatenate([np.arange(self.offsets[i], self.offsets[i + 1]) for i in indices])
        owner = np.repeat(np.arange(len(indices)), [self.offsets[i + 1] - self.offsets[i] for i in indices])
        sizes = np.array([self._size[i][::-1] for i in indices], np.float32)[owner]
        half, middle = self.boxes[rows, 2:] / 2, self.boxes[rows, :2]
        boxes = np.concatenate([middle - half, middle + half], 1).clip(0, 1) * np.tile(sizes, 2)
        points = self.keypoints[rows]
        points[..., :2] *= sizes[:, None]
        return People(self.cls[rows], boxes, points, self.known[rows]), owner

    def _letterboxed(self, index: int, canvas: UInt8) -> tuple[People, tuple[float, float, float, float]]:
        """The picture as a device feeds it: the long side fitted, bilinear, centred, padded."""
        size = max(canvas.shape[:2])
        picture = self._read(index)
        source_height, source_width = self.sizes[index].tolist()
        height, width = _fit((source_height, source_width), size)
        if picture.shape[:2] != (height, width):
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
        left, top = round((canvas.shape[1] - width) / 2 - 0.1), round((canvas.shape[0] - height) / 2 - 0.1)
        canvas[...] = aug.PAD_VALUE
        canvas[top : top + height, left : left + width] = picture
        people, _ = self._people([index])
        stored_height, stored_width = self._size[index]
        place = np.array([[width / stored_width, 0, left], [0, height / stored_height, top]])
        people = aug.transform_people(people, np.repeat(place[None], len(people), 0))
        return people, (width / source_width, height / source_height, left, top)

    def _augmented(self, index: int, key: BatchKey, canvas: UInt8) -> People:
        assert self.augment is not None
        config, size = self.augment, key.shape[0]
        rng = np.random.default_rng((key.seed, key.epoch, index))
        place = aug.random_affine(rng, config, size)
        indices, layouts = self._layout(rng, index, size, key.mosaic)
        matrices = np.stack([aug.compose(place, layout) for layout in layouts])
        canvas[...] = aug.PAD_VALUE
        for tile, matrix in zip(indices, matrices, strict=True):
            x0, y0, x1, y1 = aug.reach(matrix, self._size[tile], size)
            if x0 < x1 and y0 < y1:  # a tile that is out of sight need not be decoded
                aug.warp_into(canvas, self._read(tile), matrix)
        people, owner = self._people(indices)
        people = aug.transform_people(people, matrices[owner])
        if aug.is_mirrored(place):
            people = aug.swap_sides(people, np.ones(len(people), np.bool_), self.flip_idx)
        people = aug.clip_people(people, size)
        if rng.random() < config.occlusion:
            people = aug.occlude(rng, canvas, people)
        aug.jitter_hsv(rng, config, canvas)
        degraded = aug.degrade(rng, config, canvas)
        if degraded is not canvas:
            canvas[...] = degraded
        return people

    def _layout(
        self, rng: np.random.Generator, index: int, size: int, mosaic: bool
    ) -> tuple[list[int], list[aug.Matrix]]:
        assert self.augment is not None
        if not mosaic or rng.random() >= self.augment.mosaic:
            return [index], [aug.single_layout(self._size[index], size)]
        members = self._members[self._group[index]]
        tiles = [index, *members[rng.integers(0, len(members), 3)].tolist()]
        rng.shuffle(tiles)
        return tiles, aug.mosaic_layout(rng, [self._size[i] for i in tiles], size)

    def _collate(self, key: BatchKey, images: UInt8, people: Sequence[People], transforms: Any) -> Batch:
        indices = np.array(key.indices, np.int64)
        size = np.array(key.shape[::-1], np.float32)
        boxes = np.concatenate([p.boxes for p in people]) / np.tile(size, 2)
        points = np.concatenate([p.keypoints for p in people])
        points[..., :2] /= size
        return Batch(
            images=torch.from_numpy(images).permute(0, 3, 1, 2),
            batch_idx=torch.from_numpy(np.repeat(np.arange(len(people)), [len(p) for p in people])),
            cls=torch.from_numpy(np.concatenate([p.cls for p in people]).astype(np.float32)),
            boxes=torch.from_numpy(np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)),
            keypoints=torch.from_numpy(points),
            keypoint_known=torch.from_numpy(np.concatenate([p.known for p in people])),
            background_weight=torch.from_numpy(self.background_weight[indices]),
            paths=[self.paths[i] for i in key.indices],
            shapes=torch.from_numpy(self.sizes[indices]),
            index=torch.from_numpy(indices),
            transforms=torch.from_numpy(transforms),
        )


def _fit(picture_size: tuple[int, int], size: int) -> tuple[int, int]:
    """(height, width) of a picture whose long side is fitted to `size`."""
    height, width = picture_size
    ratio = min(size / height, size / width)
    return max(round(height * ratio), 1), max(round(width * ratio), 1)


def _without_flips(augment: AugmentConfig) -> AugmentConfig:
    if augment.fliplr or augment.flipud:
        log.warning("no flip_idx in the dataset YAML: pictures are not flipped")
    return replace(augment, fliplr=0.0, flipud=0.0)


def build_dataset(
    data: DataConfig,
    split: str = "train",
    imgsz: int = 640,
    augment: AugmentConfig | None = None,
    cache: CacheMode | bool | None = None,
    verbose: bool = False,
    fraction: float = 1.0,
    rect: bool = False,
) -> PoseDataset:
    """Scans a split (remembered, see scan.py) and makes its dataset.

    imgsz: the largest size that will be asked for; pictures are decoded and cached for it. augment: None for
    letterboxed pictures (validation). cache: "ram" (or True), "disk", or False. Problems are in `.problems`.
    verbose: bars for the download and the check, on a terminal. fraction: this share of each set's pictures, evenly
    picked. rect: letterboxed batches keep the pictures' aspect, padded to the stride.
    A dataset that is not there and says where it can be had is downloaded first.
    Raises FileNotFoundError or ValueError where the split is not there or nothing in it is usable.
    """
    download_dataset(data, progress_bar("downloading", "B", verbose))
    if rect and augment is not None:
        raise ValueError("rect is for letterboxed pictures: augmented ones are square")
    scans = [
        _share(scan, fraction)
        for scan in scan_split(data, split, progress_bar(f"checking {split}", " pictures", verbose))
    ]
    _tell([problem for scan in scans for problem in scan.problems], split)
    if augment is not None:
        scans = [_repeated(scan, part.repeat) for scan, part in zip(scans, data.sets, strict=True)]
    return PoseDataset(data, scans, imgsz, augment, "ram" if cache is True else cache or None, rect)


def _repeated(scan: SplitScan, times: int) -> SplitScan:
    return SplitScan(scan.pictures * times, scan.checked * times, scan.problems)


def _tell(problems: Sequence[Problem], split: str, most: int = 10) -> None:
    if problems:
        more = f"\n  and {len(problems) - most} more: see edgepose check" if len(problems) > most else ""
        lines = "".join(f"\n  {problem}" for problem in problems[:most])
        log.warning("%s: %d problems in pictures and labels:%s%s", split, len(problems), lines, more)


def _share(scan: SplitScan, fraction: float) -> SplitScan:
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, got {fraction!r}")
    count = math.ceil(len(scan.pictures) * fraction)
    picked = [i * len(scan.pictures) // count for i in range(count)]
    return SplitScan([scan.pictures[i] for i in picked], [scan.checked[i] for i in picked], scan.problems)
