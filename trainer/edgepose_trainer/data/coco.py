"""COCO keypoint JSON, https://cocodataset.org/#format-data: read into `PictureLabels`, and written."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgepose_trainer.data.files import write_whole
from edgepose_trainer.data.labels import PictureLabels, check_labels, empty_labels, make_labels


@dataclass(frozen=True, slots=True)
class CocoPicture:
    """One picture of the JSON. labels is None where they are broken, for `reason`."""

    width: int
    height: int
    labels: PictureLabels | None
    reason: str = ""


def read_document(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON with its three lists checked to be there. Raises ValueError."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise ValueError(f"{path} is not COCO keypoint JSON: it has no list {key!r}")
        if not all(isinstance(item, dict) for item in document[key]):
            raise ValueError(f"{path} is not COCO keypoint JSON: {key!r} must hold objects")
    return dict(document)


def read_coco(
    path: str | os.PathLike[str], kpt_shape: tuple[int, int], names: Sequence[str], keypoint_names: Sequence[str] = ()
) -> dict[str, CocoPicture]:
    """file_name (with slashes, normalised) -> picture with its labels. Categories are matched to `names`; a single one
    may be called otherwise.

    Crowd regions (iscrowd) are left out. People without labelled keypoints are kept: they are people all the same.
    Boxes are clipped to the picture, as COCO's own run over it by rounding. Annotations of an image that the JSON does
    not list stand under `image_id ID`, broken.
    Raises ValueError for categories with keypoints that are not among `names`, and for keypoints in another order than
    `keypoint_names`.
    """
    document = read_document(path)
    try:
        _check_order(document["categories"], keypoint_names, path)
        return _pictures(document, kpt_shape, names, path)
    except TypeError as error:  # an id or a name that is a list or an object
        raise ValueError(f"{path} is not COCO keypoint JSON: {error}") from None


def _pictures(
    document: Mapping[str, Any], kpt_shape: tuple[int, int], names: Sequence[str], path: object
) -> dict[str, CocoPicture]:
    classes = _classes(document["categories"], names, path)
    by_picture: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in document["annotations"]:
        if not annotation.get("iscrowd") and annotation.get("category_id") in classes:
            by_picture[annotation.get("image_id")].append(annotation)
    pictures: dict[str, CocoPicture] = {}
    for image in document["images"]:
        name = image.get("file_name")
        if not isinstance(name, str):
            raise ValueError(f"{path}: an image has no file_name: {image!r:.80}")
        picture = _picture(image, by_picture.pop(image.get("id"), []), classes, kpt_shape)
        add_picture(pictures, os.path.normpath(name.replace("\\", "/")), picture)
    for number in by_picture:
        pictures[f"image_id {number}"] = CocoPicture(0, 0, None, "the JSON lists no image of this id")
    return pictures


def add_picture(pictures: dict[str, CocoPicture], name: str, picture: CocoPicture) -> None:
    """Adds a picture; of two that go by one name the one with labels stays, and where both have some it is broken."""
    other = pictures.get(name)
    if other is not None and (other.labels is None or len(other.labels)):
        both = picture.labels is None or len(picture.labels)
        picture = CocoPicture(0, 0, None, "it is in the JSON twice, with labels each time") if both else other
    pictures[name] = picture


def _classes(categories: Sequence[Mapping[str, Any]], names: Sequence[str], path: object) -> dict[Any, int]:
    known = {name: i for i, name in enumerate(names)}
    classes = {c.get("id"): known[c["name"]] for c in categories if c.get("name") in known}
    if not classes and len(categories) == len(names) == 1:
        return {categories[0].get("id"): 0}
    others = [c.get("name") for c in categories if c.get("name") not in known and (c.get("keypoints") or not classes)]
    if others or not classes:  # of other categories with keypoints what is labelled would count as background
        raise ValueError(f"{path}: its categories {others} are not among names {list(names)}: call both the same")
    return classes


def _check_order(categories: Sequence[Mapping[str, Any]], keypoint_names: Sequence[str], path: object) -> None:
    for category in categories:
        given = category.get("keypoints")
        if isinstance(given, list) and sorted(map(str, given)) == sorted(keypoint_names) and given != [*keypoint_names]:
            raise ValueError(
                f"{path}: the keypoints of {category.get('name')!r} are in the order {given}, keypoint_names in the "
                f"order {list(keypoint_names)}: give them in that of the JSON"
            )


def _picture(
    image: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    classes: Mapping[Any, int],
    kpt_shape: tuple[int, int],
) -> CocoPicture:
    size = image.get("width"), image.get("height")
    if not all(isinstance(side, (int, float)) and 1 <= side < 1 << 31 for side in size):
        return CocoPicture(
            0, 0, None, f"its width and height in the JSON must be pixels, got {size[0]!r} and {size[1]!r}"
        )
    width, height = map(int, size)  # type: ignore[arg-type]
    try:
        return CocoPicture(width, height, _labels(annotations, classes, kpt_shape, width, height))
    except (ValueError, TypeError, OverflowError) as error:
        return CocoPicture(width, height, None, str(error))


def _labels(
    annotations: Sequence[Mapping[str, Any]],
    classes: Mapping[Any, int],
    kpt_shape: tuple[int, int],
    width: int,
    height: int,
) -> PictureLabels:
    count, dims = kpt_shape
    if not annotations:
        return empty_labels(count)
    for row, annotation in enumerate(annotations, 1):
        _check_lengths(row, annotation, count)
    size = np.array([width, height], np.float64)
    boxes = np.array([a["bbox"] for a in annotations], np.float64)
    corner = np.clip(boxes[:, :2], 0, size)
    far = np.clip(boxes[:, :2] + boxes[:, 2:], 0, size)
    relative = np.concatenate([(corner + far) / 2 / size, (far - corner) / size], 1)
    points = np.array([a["keypoints"] for a in annotations], np.float64).reshape(len(annotations), count, 3)
    points[..., :2] /= size
    cls = np.array([classes[a["category_id"]] for a in annotations])
    check_labels(cls, relative, points, max(classes.values()) + 1)
    labels = make_labels(cls, relative, points)
    if dims == 3:
        return labels
    return make_labels(labels.cls, labels.boxes, labels.keypoints[..., :2])


def _check_lengths(row: int, annotation: Mapping[str, Any], count: int) -> None:
    box, points = annotation.get("bbox"), annotation.get("keypoints")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"row {row}: bbox must be 4 numbers x, y, width, height")
    if not isinstance(points, list) or len(points) != 3 * count:
        got = f"{len(points) / 3:g} keypoints" if isinstance(points, list) else "no keypoints"
        raise ValueError(f"row {row}: {got}, expected {count} x (x, y, v)")


def write_coco(
    path: Path,
    pictures: Iterable[tuple[str, int, int, PictureLabels]],
    names: Sequence[str],
    keypoint_names: Sequence[str],
    skeleton: Sequence[tuple[int, int]],
) -> None:
    """pictures: (file name, width, height, labels). The area of a person is 0.53 of the box, the evaluators' habit
    where there is no mask."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (file_name, width, height, labels) in enumerate(pictures, 1):
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for i in range(len(labels)):
            annotations.append(_annotation(len(annotations) + 1, image_id, labels, i, width, height))
    extra = {"keypoints": list(keypoint_names), "skeleton": [[a + 1, b + 1] for a, b in skeleton]}
    categories = [{"id": i, "name": name, "supercategory": name, **extra} for i, name in enumerate(names, 1)]
    write_whole(path, json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode())


def _annotation(number: int, image_id: int, labels: PictureLabels, i: int, width: int, height: int) -> dict[str, Any]:
    cx, cy, w, h = (labels.boxes[i].astype(np.float64) * [width, height, width, height]).tolist()
    points = labels.keypoints[i].astype(np.float64) * [width, height, 1]
    return {
        "id": number,
        "image_id": image_id,
        "category_id": int(labels.cls[i]) + 1,
        "iscrowd": 0,
        "bbox": [cx - w / 2, cy - h / 2, w, h],
        "area": 0.53 * w * h,
        "num_keypoints": int((points[:, 2] > 0).sum()),
        "keypoints": [v for x, y, s in points.tolist() for v in (x, y, int(s))],
    }
