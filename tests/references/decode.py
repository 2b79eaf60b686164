"""Decoding and NMS one candidate at a time.

Places are computed in float64 but for what NMS compares: there the core's float32 formula decides ties the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Detections = tuple[Array, Array, Array, Array, Array]


@dataclass(frozen=True)
class Rules:
    """The options that every decoder has; see edgepose/_core.pyi."""

    num_classes: int = 1
    kpt_shape: tuple[int, int] = (17, 3)
    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    max_candidates: int = 30000
    nms: str = "iou"
    sigmas: tuple[float, ...] = ()
    agnostic: bool = False
    clip: bool = True

    def but(self, **changes: Any) -> Rules:
        return replace(self, **changes)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def real(tensor: Array, scale: float, zero_point: int) -> Array:
    """The numbers that a tensor stands for, float32."""
    if tensor.dtype in (np.int8, np.uint8):
        return (tensor.astype(np.int32) - zero_point).astype(np.float32) * np.float32(scale)
    return tensor.astype(np.float32)


def overlaps(a: Array, b: Array, threshold: float) -> bool:
    """IoU > threshold, of float32 boxes (x1, y1, x2, y2)."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    zero = np.float32(0)
    width = max(min(a[2], b[2]) - max(a[0], b[0]), zero)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), zero)
    inter = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return bool(inter > np.float32(threshold) * union)


def oks(a: Array, area_a: float, b: Array, area_b: float, sigmas: tuple[float, ...]) -> float:
    """COCO's object keypoint similarity of two poses (K, 2), all points counted, s^2 the mean of the two areas."""
    d2 = ((a.astype(np.float64) - b) ** 2).sum(1)
    area = max((float(area_a) + float(area_b)) / 2, 1e-6)
    return float(np.exp(-d2 / (2 * (2 * np.asarray(sigmas)) ** 2 * area)).mean())


def order(scores: Array) -> Array:
    """Score descending, then index ascending."""
    return np.lexsort((np.arange(len(scores)), -scores))


def greedy_nms(boxes: Array, points: Array, scores: Array, classes: Array, rules: Rules) -> list[int]:
    """Indices kept, best first."""
    kept: list[int] = []
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])

    def suppresses(j: int, i: int) -> bool:
        if not rules.agnostic and classes[i] != classes[j]:
            return False
        if rules.nms == "iou":
            return overlaps(boxes[i], boxes[j], rules.iou)
        return oks(points[i], areas[i], points[j], areas[j], rules.sigmas) > rules.iou

    for i in order(scores)[: rules.max_candidates]:
        if np.isfinite(boxes[i]).all() and not any(suppresses(j, i) for j in kept):
            kept.append(int(i))
        if len(kept) == rules.max_det:
            break
    return kept


def to_source(
    boxes: Array,
    scores: Array,
    classes: Array,
    points: Array,
    visibility: Array,
    transform: tuple[float, float, float, float],
    size: tuple[int, int],
    clip: bool,
) -> Detections:
    scale, pad = np.array(transform[:2]), np.array(transform[2:])
    known = np.isfinite(points).all(-1) & ~np.isnan(visibility)
    boxes = ((boxes.reshape(-1, 2, 2) - pad) / scale).reshape(-1, 4)
    points = (np.where(known[..., None], points, 0) - pad) / scale
    if clip:
        boxes = np.clip(boxes, 0, size * 2)
        points = np.clip(points, 0, size)
    points = np.where(known[..., None], points, 0)
    visibility = np.where(known, np.clip(visibility, 0, 1), 0)
    return boxes, np.clip(scores, 0, 1), classes, points, visibility


def decode_yolo(
    output: Array,
    transform: tuple[float, float, float, float],
    size: tuple[int, int],
    rules: Rules,
    scale: float = 1.0,
    zero_point: int = 0,
) -> Detections:
    """The single decoded tensor (1, 4 + C + D*K, N)."""
    values = real(output, scale, zero_point)[0]
    classes_end = 4 + rules.num_classes
    class_scores = np.where(np.isnan(values[4:classes_end]), -np.inf, values[4:classes_end])
    classes = class_scores.argmax(0)
    scores = class_scores.max(0)
    passing = np.flatnonzero((scores > np.float32(rules.conf)) & np.isfinite(scores))
    half = np.where(values[2:4] < 0, 0, values[2:4]) * np.float32(0.5)
    boxes = np.concatenate([values[:2] - half, values[:2] + half]).T[passing]
    k, d = rules.kpt_shape
    keypoints = values[classes_end:].T.reshape(-1, k, d)[passing]
    visibility = keypoints[..., 2] if d == 3 else np.ones(keypoints.shape[:2], np.float32)
    return _suppressed(boxes, scores[passing], classes[passing], keypoints[..., :2], visibility, transform, size, rules)


def channels_last(tensor: Array, layout: str) -> Array:
    """Any head layout as (cells, channels)."""
    if layout in ("NCHW", "NCA"):
        return tensor.reshape(tensor.shape[1], -1).T
    return tensor.reshape(-1, tensor.shape[-1])


def decode_heads(
    outputs: list[Array],
    heads: list[dict[str, Any]],
    reg_max: int,
    input_size: tuple[int, int],
    transform: tuple[float, float, float, float],
    size: tuple[int, int],
    rules: Rules,
) -> Detections:
    """Raw YOLOv8-pose heads, every cell decoded. With a heatmap the keypoints of those kept are moved to its peaks, and
    the score is the geometric mean of the class's and of the peaks' mean."""
    found: list[list[Array]] = []
    k = rules.kpt_shape[0]
    heatmap = next((head for head in heads if head["role"] == "heatmap"), None)
    for stride in sorted({head["stride"] for head in heads}):
        of_role = {
            head["role"]: channels_last(
                real(outputs[head["index"]], head.get("scale", 1.0), head.get("zero_point", 0)), head["layout"]
            ).astype(np.float64)
            for head in heads
            if head["stride"] == stride and head is not heatmap
        }
        rows, columns = input_size[0] // stride, input_size[1] // stride
        y, x = (axis.ravel() for axis in np.mgrid[:rows, :columns])
        cell = np.stack([x, y], -1)
        box = of_role["box"].reshape(-1, 4, reg_max)
        weights = np.exp(box - box.max(-1, keepdims=True))
        distances = (weights * np.arange(reg_max)).sum(-1) / weights.sum(-1) if reg_max > 1 else box[..., 0]
        corners = [cell + 0.5 - distances[:, :2], cell + 0.5 + distances[:, 2:]]
        corners[1] = np.maximum(corners[0], corners[1])
        boxes = np.concatenate(corners, 1) * stride
        raw = of_role["keypoints"].reshape(rows * columns, k, -1)
        points = (raw[..., :2] * 2 + cell[:, None]) * stride
        logits = of_role.get("visibility", raw[..., 2] if raw.shape[-1] == 3 else None)
        visibility = np.ones((len(cell), k)) if logits is None else sigmoid(logits)
        found.append([of_role["score"], boxes, points, visibility])
    logits, boxes, points, visibility = (np.concatenate(part) for part in zip(*found, strict=True))
    best = logits.max(1).astype(np.float32)
    with np.errstate(divide="ignore"):
        threshold = np.float32(np.log(rules.conf) - np.log1p(-rules.conf))
    passing = np.flatnonzero(best > threshold)
    scores = sigmoid(best)[passing].astype(np.float32)
    classes = logits.argmax(1)[passing]
    points = points[passing]
    support = None
    if heatmap is not None:
        values = real(outputs[heatmap["index"]], heatmap.get("scale", 1.0), heatmap.get("zero_point", 0))
        maps = heatmaps(channels_last(values, heatmap["layout"]), input_size, heatmap["stride"])
        quarter = heatmap["stride"] / 2
        moved = [refined(maps, box / quarter, pose / quarter) for box, pose in zip(boxes[passing], points, strict=True)]
        points = np.array([pose * quarter for pose, _ in moved]).reshape(points.shape)
        support = np.array([peaks.mean() for _, peaks in moved])
    return _suppressed(boxes[passing], scores, classes, points, visibility[passing], transform, size, rules, support)


def heatmaps(cells: Array, input_size: tuple[int, int], stride: int) -> Array:
    """(cells, 4 * K) logits as probabilities (K, 2 * rows, 2 * columns)."""
    rows, columns = input_size[0] // stride, input_size[1] // stride
    quarters = sigmoid(cells.astype(np.float64)).reshape(rows, columns, -1, 2, 2)
    return quarters.transpose(2, 0, 3, 1, 4).reshape(-1, 2 * rows, 2 * columns)


def refined(maps: Array, box: Array, pose: Array) -> tuple[Array, Array]:
    """Each point at the centre of mass around the peak of probability x exp(-distance² / (2 reach²)), where reach is a
    fifth of the box's root area, and the peak's probability, 0.05 where there is none; all in cells of the maps."""
    result = pose.astype(np.float64).copy()
    peaks = np.full(len(pose), 0.05)
    sides = box[2:] - box[:2]
    reach = 0.2 * np.sqrt(max(sides.prod(), 0))
    if not reach > 0:
        return result, peaks
    rows, columns = maps.shape[1:]
    middles = np.stack(np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5), -1)
    inside = ((middles >= box[:2] - 0.1 * sides) & (middles <= box[2:] + 0.1 * sides)).all(-1)
    for k, (point, each) in enumerate(zip(result, maps, strict=True)):
        away = middles - point
        near = inside & (abs(away) <= 2.5 * reach).all(-1) & (each > 0.1)
        if not near.any():
            continue
        weighted = np.where(near, each * np.exp(-(away**2).sum(-1) / (2 * reach**2)), -1)
        row, column = np.unravel_index(weighted.argmax(), weighted.shape)
        peaks[k] = each[row, column]
        window = (slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2))
        point[:] = (each[window][..., None] * middles[window]).sum((0, 1)) / each[window].sum()
    return result, peaks


def _suppressed(
    boxes: Array,
    scores: Array,
    classes: Array,
    points: Array,
    visibility: Array,
    transform: tuple[float, float, float, float],
    size: tuple[int, int],
    rules: Rules,
    support: Array | None = None,
) -> Detections:
    finite_points = np.where(np.isfinite(points).all(-1, keepdims=True), points, 0)
    kept = greedy_nms(boxes, finite_points, scores, classes, rules)
    if support is not None:
        scores = np.sqrt(scores * support)
        kept = [i for i in sorted(kept, key=lambda i: -scores[i]) if scores[i] > rules.conf]
    return to_source(
        boxes[kept], scores[kept], classes[kept], points[kept], visibility[kept], transform, size, rules.clip
    )
