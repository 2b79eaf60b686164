"""The pictures that a static int8 export learns its ranges from, fed as the device will feed them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepose._core import Letterbox
from edgepose.pictures import load_picture
from edgepose_trainer.data import DataConfig, build_dataset
from edgepose_trainer.data.files import cache_dir, write_whole

PICTURES = 200
"""How many are taken unless `fraction` says so: 32 do nearly as well, more gain nothing."""

PERCENTILE = 99.99

CALIBRATED = ("int8", "mixed")
"""The precisions whose ranges are found on pictures."""


@dataclass(frozen=True)
class Calibration:
    """levels: (N, H, W, 3) uint8 RGB, letterboxed by the device's own letterbox; what a float input takes is
    levels / 255. key: a name for these very pictures at this size. problems: pictures that were left out, and why."""

    levels: NDArray[np.uint8]
    split: str
    source: str
    key: str
    method: str
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.levels)

    def batches(self, layout: str = "NCHW", batch: int = 1) -> Iterator[NDArray[np.float32]]:
        """Float32 inputs in 0..1; the last batch is filled up with the first pictures."""
        for start in range(0, len(self), batch):
            index = np.arange(start, start + batch) % len(self)
            images: NDArray[np.float32] = self.levels[index].astype(np.float32) / np.float32(255)
            yield np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if layout == "NCHW" else images

    def cache(self, model: bytes, ending: str) -> Path:
        """Where ranges that this model has on these pictures are kept between exports."""
        key = hashlib.blake2b(model, digest_size=16, key=f"{self.key} {self.method}".encode()[:64]).hexdigest()
        path = cache_dir() / "calibration" / f"{key}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def describe(self) -> dict[str, Any]:
        """For the artifact's origin."""
        return {"data": self.source, "split": self.split, "pictures": len(self), "method": self.method, "key": self.key}


def load_calibration(
    data: DataConfig,
    size: tuple[int, int],
    fraction: float | None = None,
    method: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """The training pictures (the validation pictures where there are none) evenly picked, always the same.

    Raises FileNotFoundError or ValueError where no picture is usable.
    """
    split = next((s for s in ("train", "val", "test") if data.has_split(s)), "train")
    dataset = build_dataset(data, split, max(size))
    count = round(len(dataset) * fraction) if fraction is not None else min(PICTURES, len(dataset))
    picked = np.linspace(0, len(dataset) - 1, max(count, 1)).round().astype(int)
    paths = [dataset.paths[i] for i in picked]
    key = hashlib.blake2b(repr(size).encode(), digest_size=16)
    for index in picked:
        key.update(dataset.digests[index])
    levels = _letterboxed(paths, size, key.hexdigest(), progress)
    problems = tuple(str(problem) for problem in dataset.problems if problem.left_out)
    return Calibration(levels, split, Path(data.source).name, key.hexdigest(), method, problems)


def _letterboxed(
    paths: list[str], size: tuple[int, int], key: str, progress: Callable[[int, int], None] | None
) -> NDArray[np.uint8]:
    """The pictures as levels, kept in the cache by their content and size."""
    path = cache_dir() / "calibration" / f"{key}.npy"
    shape = (len(paths), *size, 3)
    if path.is_file():
        try:
            kept: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        except (ValueError, OSError):
            kept = np.empty(0, np.uint8)
        if kept.shape == shape and kept.dtype == np.uint8:
            return kept
    levels = np.empty(shape, np.uint8)
    letterbox = Letterbox(layout="NHWC", std=(1.0, 1.0, 1.0))
    for i, name in enumerate(paths):
        image, color = load_picture(name)
        letterbox(image, levels[i : i + 1], format=color)
        if progress is not None:
            progress(i + 1, len(paths))
    write_whole(path, lambda file: np.save(file, levels))
    return levels
