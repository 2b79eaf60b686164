"""Pictures of labelled people, for looking at data."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgepose_trainer.data.config import DataConfig
from edgepose_trainer.data.dataset import Batch, PoseDataset
from edgepose_trainer.data.files import write_whole

UInt8 = NDArray[np.uint8]

BOX = (80, 220, 80)
LIMB = (235, 160, 60)
POINT = {1: (250, 220, 0), 2: (230, 40, 40)}  # hidden, visible


def draw_people(
    picture: UInt8,
    boxes: NDArray[np.floating],
    keypoints: NDArray[np.floating],
    skeleton: Sequence[tuple[int, int]] = (),
) -> UInt8:
    """A copy of the (H, W, 3) RGB picture with boxes (n, 4) cx, cy, w, h and keypoints (n, K, 3), both relative.

    Visible points are red, hidden ones yellow, points with v = 0 are not drawn.
    """
    out: UInt8 = np.ascontiguousarray(picture).copy()
    height, width = out.shape[:2]
    thick = max(1, round(max(height, width) / 500))
    for (cx, cy, w, h), points in zip(boxes, keypoints, strict=True):
        low = (round(float((cx - w / 2) * width)), round(float((cy - h / 2) * height)))
        high = (round(float((cx + w / 2) * width)), round(float((cy + h / 2) * height)))
        cv2.rectangle(out, low, high, BOX, thick)
        places = [(int(x * width), int(y * height)) for x, y in points[:, :2]]
        for a, b in skeleton:
            if points[a, 2] and points[b, 2]:
                cv2.line(out, places[a], places[b], LIMB, thick, cv2.LINE_AA)
        for place, v in zip(places, points[:, 2], strict=True):
            if v:
                cv2.circle(out, place, thick + 1, POINT[int(v)], -1, cv2.LINE_AA)
    return out


def save_batch_picture(batch: Batch, path: str | os.PathLike[str], data: DataConfig, most: int = 16) -> None:
    """Writes the first pictures of a batch, as the network sees them, with their labels, as one .jpg or .png."""
    pictures = batch["images"][:most].permute(0, 2, 3, 1).numpy()
    owner = batch["batch_idx"].numpy()
    boxes, points = batch["boxes"].numpy(), batch["keypoints"].numpy()
    drawn = [draw_people(p, boxes[owner == i], points[owner == i], data.skeleton) for i, p in enumerate(pictures)]
    write_picture(Path(path), tile(drawn))


def contact_sheet(dataset: PoseDataset, count: int = 16, side: int = 320) -> UInt8:
    """Labelled pictures, evenly picked, each in a square of `side` pixels with its file name."""
    picked = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int))
    drawn = []
    for index in picked.tolist():
        labels = dataset.labels(index)
        picture = draw_people(dataset.picture(index), labels.boxes, labels.keypoints, dataset.data.skeleton)
        drawn.append(_captioned(picture, Path(dataset.paths[index]).name, side))
    return tile(drawn)


def _captioned(picture: UInt8, text: str, side: int) -> UInt8:
    height, width = picture.shape[:2]
    ratio = side / max(height, width)
    size = (max(round(width * ratio), 1), max(round(height * ratio), 1))
    cell = np.full((side, side, 3), 114, np.uint8)
    cell[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(cell, text, (4, side - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, thick, cv2.LINE_AA)
    return cell


def tile(pictures: Sequence[UInt8]) -> UInt8:
    """Pictures of one size in a grid that is about square."""
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    height, width = pictures[0].shape[:2]
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = i // columns * height, i % columns * width
        sheet[y : y + height, x : x + width] = picture
    return sheet


def write_picture(path: Path, picture: UInt8) -> None:
    """RGB to a file whose ending says the format."""
    done, content = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise ValueError(f"cannot write pictures as {path.suffix!r}")
    write_whole(path, content.tobytes())
