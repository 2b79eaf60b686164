"""Label files beside the pictures: YOLO-pose text, or a pickle of arrays."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np

import edgepose_trainer.safe_pickle as safe_pickle
from edgepose_trainer.data.files import write_whole
from edgepose_trainer.data.labels import (
    PictureLabels,
    check_labels,
    empty_labels,
    format_text,
    label_stem,
    make_labels,
    parse_text,
)

# Far more than any real picture needs; a bigger file is a mistake or an attack.
MAX_LABEL_BYTES = 16 << 20
PICKLE_KEYS = ("cls", "boxes", "keypoints")


def find_label_file(picture: Path) -> Path | None:
    """The .txt, else the .pkl, of a picture; None where it has neither."""
    stem = label_stem(picture)
    return next((Path(stem + ending) for ending in (".txt", ".pkl") if os.path.lexists(stem + ending)), None)


def read_label_file(path: Path, kpt_shape: tuple[int, int], num_classes: int) -> PictureLabels:
    """Labels from a text or pickle file. Raises ValueError with the reason where they are broken."""
    if not path.is_file():
        raise ValueError(f"the labels {path} are a folder, or a link that leads nowhere")
    if os.path.getsize(path) > MAX_LABEL_BYTES:
        raise ValueError(f"the label file is larger than {MAX_LABEL_BYTES >> 20} MiB")
    if path.suffix == ".pkl":
        return read_pickle(path, kpt_shape, num_classes)
    try:
        return parse_text(path.read_text(encoding="utf-8-sig"), kpt_shape, num_classes)
    except UnicodeDecodeError:
        raise ValueError("the label file is not text") from None


def read_pickle(path: Path, kpt_shape: tuple[int, int], num_classes: int) -> PictureLabels:
    """A pickled dict of arrays: cls (n,), boxes (n, 4) relative cx cy w h, keypoints (n, K, 2 or 3).

    Read by a restricted unpickler that builds arrays and plain data only. Raises ValueError.
    """
    try:
        document = safe_pickle.load(path, max_bytes=MAX_LABEL_BYTES)
    except ValueError as error:
        raise ValueError(f"not a pickle of plain arrays: {error}") from None
    if not isinstance(document, dict) or set(document) != set(PICKLE_KEYS):
        raise ValueError(f"the pickle must hold a dict with {', '.join(PICKLE_KEYS)}")
    cls, boxes, points = (_numbers(document[key], key) for key in PICKLE_KEYS)
    count = cls.size
    expected = ((count,), (count, 4), (count, *kpt_shape))
    for key, array, shape in zip(PICKLE_KEYS, (cls, boxes, points), expected, strict=True):
        if array.shape != shape:
            raise ValueError(f"{key} has shape {array.shape}, expected {shape}")
    if not count:
        return empty_labels(kpt_shape[0])
    check_labels(cls, boxes, points, num_classes)
    return make_labels(cls, boxes, points)


def _numbers(value: Any, key: str) -> np.ndarray[Any, np.dtype[Any]]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{key} must be an array of numbers: {error}") from None
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{key} must be an array of numbers, got {array.dtype}")
    return array


def write_text(path: Path, labels: PictureLabels, dims: int) -> None:
    write_whole(path, format_text(labels, dims).encode(), sync=False)


def write_pickle(path: Path, labels: PictureLabels, dims: int) -> None:
    document = {"cls": labels.cls, "boxes": labels.boxes, "keypoints": labels.keypoints[..., :dims].copy()}
    write_whole(path, pickle.dumps(document, protocol=4), sync=False)
