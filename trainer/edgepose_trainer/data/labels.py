"""The labels of one picture, and their YOLO-pose text form."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Labels drawn to the very edge of a picture are rounded over it; more than this is a mistake.
TOLERANCE = 0.01

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PictureLabels:
    """n people of one picture, all places relative to its (EXIF-turned) width and height.

    cls: (n,) int32. boxes: (n, 4) float32 centre x, centre y, width, height.
    keypoints: (n, K, 3) float32 x, y, v with v = 0 not labelled, 1 hidden, 2 visible. Sets without visibility
    (kpt_shape [K, 2]) have v = 2, and v = 0 for a point at (0, 0) or below.
    """

    cls: NDArray[np.int32]
    boxes: FloatArray
    keypoints: FloatArray

    def __len__(self) -> int:
        return len(self.cls)


def empty_labels(num_keypoints: int) -> PictureLabels:
    """Nobody: a background picture."""
    zeros = np.zeros
    return PictureLabels(zeros(0, np.int32), zeros((0, 4), np.float32), zeros((0, num_keypoints, 3), np.float32))


def make_labels(cls: NDArray[np.generic], boxes: NDArray[np.generic], keypoints: NDArray[np.generic]) -> PictureLabels:
    """keypoints (n, K, 2 or 3) to `PictureLabels`; points that are not labelled are put to (0, 0, 0)."""
    with np.errstate(over="ignore"):  # a point without a label may lie anywhere
        points = np.asarray(keypoints, np.float32)
    if points.shape[-1] == 2:
        labelled = (points > 0).any(-1) & (points >= 0).all(-1)
        points = np.concatenate([points, np.where(labelled, 2.0, 0.0)[..., None].astype(np.float32)], -1)
    points = np.where(points[..., 2:] == 0, np.float32(0), points)
    return PictureLabels(
        np.asarray(cls, np.float64).astype(np.int32), np.asarray(boxes, np.float32), points.astype(np.float32)
    )


def check_labels(
    cls: NDArray[np.generic], boxes: NDArray[np.generic], keypoints: NDArray[np.generic], num_classes: int
) -> None:
    """Raises ValueError with the first thing that is wrong; rows are counted from 1."""
    numbers = np.concatenate([np.reshape(a, (len(cls), -1)).astype(np.float64) for a in (cls, boxes, keypoints)], 1)
    _refuse(~np.isfinite(numbers).all(1), "a number is NaN or infinite")
    box, points, kind = numbers[:, 1:5], np.asarray(keypoints, np.float64), numbers[:, 0]
    _refuse(
        (kind != np.floor(kind)) | (kind < 0) | (kind >= num_classes), f"the class is not one of 0 to {num_classes - 1}"
    )
    _refuse((box[:, 2:] <= 0).any(1), "the box has no width or height")
    _refuse(
        (box < -TOLERANCE).any(1) | (box > 1 + TOLERANCE).any(1),
        "the box is not relative to the picture: a number is outside 0 to 1",
    )
    if points.shape[-1] == 3:
        v = points[..., 2]
        _refuse(((v != 0) & (v != 1) & (v != 2)).any(1), "a visibility is not 0, 1 or 2")
        points = np.where(v[..., None] > 0, points, 0)
        _refuse((points[..., :2] < -TOLERANCE).any((1, 2)), "a keypoint is outside the picture")
    _refuse((points[..., :2] > 1 + TOLERANCE).any((1, 2)), "a keypoint is outside the picture")


def _refuse(wrong: Any, reason: str) -> None:
    if wrong.any():
        raise ValueError(f"row {int(np.argmax(wrong)) + 1}: {reason}")


def drop_duplicates(labels: PictureLabels) -> tuple[PictureLabels, int]:
    """Labels without repeated rows, in their order, and how many were dropped."""
    if len(labels) < 2:
        return labels, 0
    rows = np.concatenate([labels.cls[:, None], labels.boxes, labels.keypoints.reshape(len(labels), -1)], 1)
    keep = np.sort(np.unique(rows, axis=0, return_index=True)[1])
    if len(keep) == len(labels):
        return labels, 0
    return PictureLabels(labels.cls[keep], labels.boxes[keep], labels.keypoints[keep]), len(labels) - len(keep)


def parse_text(text: str, kpt_shape: tuple[int, int], num_classes: int) -> PictureLabels:
    """YOLO-pose text, one person a line: `class cx cy w h` and K times `x y [v]`. Raises ValueError."""
    lines = [line.split() for line in text.splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        return empty_labels(kpt_shape[0])
    _check_columns([len(line) for line in lines], kpt_shape)
    try:
        rows = np.array(lines, np.float64)
    except ValueError as error:
        raise ValueError(f"not a number: {error}") from None
    points = rows[:, 5:].reshape(len(rows), *kpt_shape)
    check_labels(rows[:, 0], rows[:, 1:5], points, num_classes)
    return make_labels(rows[:, 0], rows[:, 1:5], points)


def _check_columns(counts: Sequence[int], kpt_shape: tuple[int, int]) -> None:
    count, dims = kpt_shape
    expected = 5 + count * dims
    for row, got in enumerate(counts, 1):
        if got == expected:
            continue
        points = (got - 5) / dims
        found = f"{points:g} keypoints" if points >= 0 and points == int(points) else "no whole number of keypoints"
        fits = f"; kpt_shape: [{count}, {5 - dims}] would fit" if got == 5 + count * (5 - dims) else ""
        raise ValueError(
            f"row {row}: {got} numbers ({found}), expected {expected} (5 and {count} x {dims}, kpt_shape){fits}"
        )


def format_text(labels: PictureLabels, dims: int) -> str:
    """The text form. dims: 3, or 2 for a set without visibility. Reading it back gives equal float32 numbers."""
    lines = []
    for cls, box, points in zip(labels.cls, labels.boxes, labels.keypoints, strict=True):
        numbers = [str(int(cls)), *(_shortest(v) for v in box)]
        for x, y, v in points:
            numbers += [_shortest(x), _shortest(y), *([str(int(v))] if dims == 3 else [])]
        lines.append(" ".join(numbers))
    return "".join(line + "\n" for line in lines)


def _shortest(value: np.float32) -> str:
    return np.format_float_positional(value, unique=True, trim="-")


def label_stem(picture: str | os.PathLike[str]) -> str:
    """Where the labels of a picture lie, without the ending: the last folder `images` becomes `labels`."""
    text = os.path.splitext(os.fspath(picture))[0]
    before, found, after = f"{os.sep}{text}".rpartition(f"{os.sep}images{os.sep}")
    return f"{before}{os.sep}labels{os.sep}{after}"[1:] if found else text
