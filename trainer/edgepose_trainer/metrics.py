"""Accuracy of a pose model: COCO's AP and AR of keypoints and boxes, and what a person asks beyond them.

COCO's evaluation (cocodataset.org/#keypoints-eval) is computed by faster-coco-eval, the C++ form of pycocotools. The
curves over the score threshold, the error of each keypoint and PCK come from one greedy matching at OKS 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

BOX_AREA_SHARE = 0.53
"""A person's area as a share of the box, where no outline is labelled: the mean over COCO's people."""

COCO_TORSO = (5, 6, 11, 12)

MATCH_OKS = 0.5
PCK_SHARE = 0.2
MAX_PEOPLE = 20
MAX_BOXES = 100


@dataclass(frozen=True, slots=True)
class Truth:
    """The labelled people of one picture, in its pixels.

    boxes (M, 4) xyxy; class_ids (M,); keypoints (M, K, 3) x, y, v with v = 0 not labelled; areas (M,) or None for
    0.53 of the box; crowd (M,) bool or None: groups that count neither as found nor as missed.
    """

    boxes: Floats
    class_ids: NDArray[np.integer[Any]]
    keypoints: Floats
    areas: Floats | None = None
    crowd: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The predicted people of one picture, in its pixels: boxes (N, 4) xyxy, scores (N,), class_ids (N,), keypoints
    (N, K, 2), keypoint_scores (N, K)."""

    boxes: Floats
    scores: Floats
    class_ids: NDArray[np.integer[Any]]
    keypoints: Floats
    keypoint_scores: Floats


@dataclass(frozen=True, slots=True)
class APs:
    """COCO's averages: map over thresholds 0.50 to 0.95, map50, map75, maps of each class, ar (average recall)."""

    map: float
    map50: float
    map75: float
    ar: float
    maps: tuple[float, ...]
    map_medium: float
    map_large: float


@dataclass(frozen=True, slots=True)
class Curves:
    """Over falling score thresholds: scores, precision, recall, f1, all (T,), of people matched at OKS 0.5."""

    scores: Floats
    precision: Floats
    recall: Floats
    f1: Floats


@dataclass(frozen=True, slots=True)
class Metrics:
    """What validation found. speed: milliseconds a picture of each stage.

    precision, recall and f1 are those at `threshold`, the score of the best F1; pck is the share of keypoints of
    matched people there within 0.2 torso diagonals; keypoint_error (K,) is their mean distance as a share of the torso
    diagonal, keypoint_pck (K,) the same share by keypoint; nan where a keypoint was never labelled.
    """

    pose: APs
    box: APs
    precision: float
    recall: float
    f1: float
    threshold: float
    pck: float
    keypoint_error: Floats = field(repr=False)
    keypoint_pck: Floats = field(repr=False)
    curves: Curves = field(repr=False)
    images: int
    people: int
    keypoint_names: tuple[str, ...] = ()
    speed: dict[str, float] = field(default_factory=dict)

    @property
    def fitness(self) -> float:
        """What "best" means: 0.9 AP + 0.1 AP50 of the keypoints."""
        return 0.9 * self.pose.map + 0.1 * self.pose.map50

    def table(self) -> str:
        """The numbers for a person to read."""
        pose, box = self.pose, self.box
        lines = [
            f"{self.images} pictures, {self.people} people",
            f"keypoints  AP {pose.map:.3f}  AP50 {pose.map50:.3f}  AP75 {pose.map75:.3f}  APm {pose.map_medium:.3f}  "
            f"APl {pose.map_large:.3f}  AR {pose.ar:.3f}",
            f"boxes      mAP {box.map:.3f}  mAP50 {box.map50:.3f}  mAP75 {box.map75:.3f}",
            f"at score {self.threshold:.3f}: precision {self.precision:.3f}  recall {self.recall:.3f}  "
            f"F1 {self.f1:.3f}  PCK@0.2 {self.pck:.3f}",
        ]
        if self.speed:
            lines.append("a picture: " + "  ".join(f"{stage} {ms:.2f} ms" for stage, ms in self.speed.items()))
        return "\n".join(lines)

    def to_dict(self) -> dict[str, float]:
        """The numbers of the table and the CSV by name."""
        return {
            "pose/AP": self.pose.map, "pose/AP50": self.pose.map50, "pose/AP75": self.pose.map75,
            "pose/APm": self.pose.map_medium, "pose/APl": self.pose.map_large, "pose/AR": self.pose.ar,
            "box/mAP": self.box.map, "box/mAP50": self.box.map50, "box/mAP75": self.box.map75,
            "precision": self.precision, "recall": self.recall, "f1": self.f1, "threshold": self.threshold,
            "pck": self.pck,
        }  # fmt: skip


def oks(found: Floats, truth: Floats, areas: Floats, sigmas: Floats) -> NDArray[np.float64]:
    """Object keypoint similarity (N, M) of found (N, K, 2) and truth (M, K, 3): the mean over labelled points of
    exp(-d^2 / (2 area (2 sigma)^2)); 0 for people without a labelled point."""
    labelled = truth[:, :, 2] > 0
    squared = ((found[:, None].astype(np.float64) - truth[None, :, :, :2]) ** 2).sum(-1)
    spread = 2.0 * (2.0 * np.asarray(sigmas)) ** 2 * (areas[:, None] + np.spacing(1))
    similarity = np.exp(-squared / spread[None]) * labelled[None]
    means: NDArray[np.float64] = similarity.sum(-1) / np.maximum(labelled.sum(-1), 1)[None]
    return means


def box_iou(a: Floats, b: Floats) -> NDArray[np.float64]:
    """(N, M) intersection over union of xyxy boxes."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    inner = np.clip(np.minimum(a[:, None, 2:], b[None, :, 2:]) - low, 0, None).astype(np.float64).prod(-1)
    whole = (a[:, 2:] - a[:, :2]).prod(-1)[:, None] + (b[:, 2:] - b[:, :2]).prod(-1)[None] - inner
    iou: NDArray[np.float64] = inner / np.maximum(whole, 1e-9)
    return iou


class Evaluator:
    """Collects pictures with `add`, then `result` computes `Metrics`.

    sigmas (K,): of OKS; torso: indices of (left shoulder, right shoulder, left hip, right hip), or None, where the
    torso's diagonal is taken as half the diagonal of the box.
    """

    def __init__(
        self,
        num_keypoints: int,
        sigmas: Sequence[float],
        class_names: Sequence[str] = ("person",),
        keypoint_names: Sequence[str] = (),
        torso: Sequence[int] | None = None,
    ) -> None:
        self.num_keypoints, self.class_names = num_keypoints, tuple(class_names)
        self.sigmas = np.asarray(sigmas, np.float64)
        if len(self.sigmas) != num_keypoints:
            raise ValueError(f"got {len(self.sigmas)} sigmas for {num_keypoints} keypoints")
        self.keypoint_names = tuple(keypoint_names)
        self.torso = tuple(torso) if torso else torso_points(num_keypoints, keypoint_names)
        self.pictures: list[tuple[Found, Truth]] = []

    def add(self, found: Found, truth: Truth) -> None:
        """One picture."""
        self.pictures.append((found, truth))

    def result(self, speed: dict[str, float] | None = None) -> Metrics:
        """Everything over the pictures so far."""
        curves, threshold, matches = self._curves()
        best = int(np.argmax(curves.f1)) if len(curves.f1) else None
        errors, distances = self._keypoint_errors(matches, threshold)
        return Metrics(
            pose=self._coco("keypoints"),
            box=self._coco("bbox"),
            precision=0.0 if best is None else float(curves.precision[best]),
            recall=0.0 if best is None else float(curves.recall[best]),
            f1=0.0 if best is None else float(curves.f1[best]),
            threshold=threshold,
            pck=_share_within(distances.ravel()),
            keypoint_error=errors,
            keypoint_pck=np.array([_share_within(column) for column in distances.T]),
            curves=curves,
            images=len(self.pictures),
            people=sum(len(truth.boxes) for _, truth in self.pictures),
            keypoint_names=self.keypoint_names,
            speed=speed or {},
        )

    def _coco(self, kind: str) -> APs:
        from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped]

        truth = COCO(self._truth_document())
        people = self._found_list(MAX_PEOPLE if kind == "keypoints" else MAX_BOXES, kind)
        labelled = any(a["num_keypoints"] or kind == "bbox" for a in truth.dataset["annotations"])
        if not people or not labelled:
            return _no_aps(len(self.class_names), labelled)
        evaluation = COCOeval_faster(truth, truth.loadRes(people), kind, kpt_oks_sigmas=list(self.sigmas))
        evaluation.evaluate()
        evaluation.accumulate()
        return _averages(evaluation.eval, kind)

    def _truth_document(self) -> dict[str, Any]:
        names = [str(i) for i in range(self.num_keypoints)]
        categories = [
            {"id": i + 1, "name": name, "keypoints": names, "skeleton": []} for i, name in enumerate(self.class_names)
        ]
        annotations: list[dict[str, Any]] = []
        for image_id, (_, truth) in enumerate(self.pictures, 1):
            annotations += _annotations(truth, image_id, len(annotations) + 1)
        images = [{"id": i + 1, "width": 1, "height": 1, "file_name": ""} for i in range(len(self.pictures))]
        return {"images": images, "annotations": annotations, "categories": categories, "info": {}}

    def _found_list(self, most: int, kind: str) -> list[dict[str, Any]]:
        """COCO's evaluation reads the best `most` of each class and picture alone, so only they are passed on."""
        rows = []
        for image_id, (found, _) in enumerate(self.pictures, 1):
            for index in _best_of_each_class(found, most):
                x0, y0, x1, y1 = (float(v) for v in found.boxes[index])
                row: dict[str, Any] = {
                    "image_id": image_id,
                    "category_id": int(found.class_ids[index]) + 1,
                    "score": float(found.scores[index]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                }
                if kind == "keypoints":
                    points = np.ones((self.num_keypoints, 3))
                    points[:, :2] = found.keypoints[index]
                    row["keypoints"] = points.ravel().tolist()
                rows.append(row)
        return rows

    def _curves(self) -> tuple[Curves, float, list[_Match]]:
        matches = [self._match(index) for index in range(len(self.pictures))]
        scores = np.concatenate([m.scores for m in matches] or [np.zeros(0)])
        hits = np.concatenate([m.hits for m in matches] or [np.zeros(0, bool)])
        total = sum(m.countable for m in matches)
        order = np.argsort(-scores, kind="stable")
        true_positives = np.cumsum(hits[order])
        precision = true_positives / np.arange(1, len(order) + 1)
        recall = true_positives / max(total, 1)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-16)
        threshold = float(scores[order][np.argmax(f1)]) if len(order) else 0.0
        return Curves(scores[order], precision, recall, f1), threshold, matches

    def _match(self, index: int) -> _Match:
        """Greedy, best score first, each labelled person once, as COCO's evaluation does at one threshold."""
        found, truth = self.pictures[index]
        order = np.argsort(-found.scores, kind="stable")
        similarity = self._similarity(found, truth)
        ignored = _ignored(truth)
        free = np.ones(len(truth.boxes), bool)
        partner = np.full(len(found.scores), -1)
        counted = np.ones(len(found.scores), bool)
        for i in order if len(truth.boxes) else ():
            candidates = np.where(free & ~ignored, similarity[i], -1.0)
            best = int(candidates.argmax())
            if candidates[best] >= MATCH_OKS:
                partner[i], free[best] = best, False
            elif (similarity[i][ignored] >= MATCH_OKS).any():
                counted[i] = False
        return _Match(index, partner, found.scores[counted], partner[counted] >= 0, int((~ignored).sum()))

    def _similarity(self, found: Found, truth: Truth) -> NDArray[np.float64]:
        """OKS, or box IoU with people who are ignored; 0 across classes."""
        by_points = oks(found.keypoints, truth.keypoints, _areas(truth), self.sigmas)
        similarity = np.where(_ignored(truth)[None], box_iou(found.boxes, truth.boxes), by_points)
        same: NDArray[np.float64] = np.where(found.class_ids[:, None] == truth.class_ids[None], similarity, 0.0)
        return same

    def _keypoint_errors(self, matches: list[_Match], threshold: float) -> tuple[Floats, Floats]:
        """Mean error (K,) and all errors (P, K) of matched people at or above the threshold, in torso diagonals."""
        rows = []
        for match in matches:
            found, truth = self.pictures[match.picture]
            for i in np.flatnonzero((match.partner >= 0) & (found.scores >= threshold)):
                j = match.partner[i]
                distance = np.linalg.norm(found.keypoints[i] - truth.keypoints[j, :, :2], axis=1)
                distance = np.where(truth.keypoints[j, :, 2] > 0, distance, np.nan)
                rows.append(distance / self._torso_diagonal(truth, j))
        errors = np.array(rows).reshape(-1, self.num_keypoints)
        known = ~np.isnan(errors)
        sums, counts = np.where(known, errors, 0.0).sum(0), known.sum(0)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan), errors

    def _torso_diagonal(self, truth: Truth, person: int) -> float:
        """The longer of left shoulder to right hip and right shoulder to left hip; half the box's where unlabelled."""
        points = truth.keypoints[person]
        if self.torso is not None:
            left_shoulder, right_shoulder, left_hip, right_hip = self.torso
            pairs = ((left_shoulder, right_hip), (right_shoulder, left_hip))
            lengths = [np.linalg.norm(points[a, :2] - points[b, :2]) for a, b in pairs if points[a, 2] and points[b, 2]]
            if lengths and max(lengths) > 0:
                return float(max(lengths))
        box = truth.boxes[person]
        return max(float(np.linalg.norm(box[2:] - box[:2])) / 2, 1e-6)


@dataclass(frozen=True, slots=True)
class _Match:
    """picture: its index; partner (N,): the labelled person of each found one or -1; scores and hits of those that
    count; countable: labelled people that should be found."""

    picture: int
    partner: NDArray[np.intp]
    scores: Floats
    hits: NDArray[np.bool_]
    countable: int


def torso_points(num_keypoints: int, names: Sequence[str]) -> tuple[int, ...] | None:
    """Indices of left and right shoulder, left and right hip by their names, or COCO's of 17; None without them."""
    plain = [name.lower().replace(" ", "_").replace("-", "_") for name in names]
    wanted = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")
    if all(name in plain for name in wanted):
        return tuple(plain.index(name) for name in wanted)
    return COCO_TORSO if num_keypoints == 17 and not names else None


def _ignored(truth: Truth) -> NDArray[np.bool_]:
    """Groups, and people without a labelled keypoint: as in COCO's evaluation, neither to be found nor false."""
    crowd = np.zeros(len(truth.boxes), bool) if truth.crowd is None else truth.crowd
    ignored: NDArray[np.bool_] = crowd | ~(truth.keypoints[:, :, 2] > 0).any(1)
    return ignored


def _areas(truth: Truth) -> Floats:
    if truth.areas is not None:
        return truth.areas
    sides = (truth.boxes[:, 2:] - truth.boxes[:, :2]).astype(np.float64)
    areas: Floats = sides[:, 0] * sides[:, 1] * BOX_AREA_SHARE
    return areas


def _annotations(truth: Truth, image_id: int, first_id: int) -> list[dict[str, Any]]:
    areas, rows = _areas(truth), []
    for i, (box, points) in enumerate(zip(truth.boxes, truth.keypoints, strict=True)):
        x0, y0, x1, y1 = (float(v) for v in box)
        rows.append(
            {
                "id": first_id + i,
                "image_id": image_id,
                "category_id": int(truth.class_ids[i]) + 1,
                "iscrowd": int(truth.crowd is not None and truth.crowd[i]),
                "area": float(areas[i]),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "keypoints": points.astype(np.float64).ravel().tolist(),
                "num_keypoints": int((points[:, 2] > 0).sum()),
            }
        )
    return rows


def _best_of_each_class(found: Found, most: int) -> NDArray[np.intp]:
    order = np.argsort(-found.scores, kind="stable")
    classes = np.unique(found.class_ids)
    return np.concatenate([order[found.class_ids[order] == c][:most] for c in classes] or [order])


def _averages(document: dict[str, Any], kind: str) -> APs:
    """precision is (thresholds, recalls, classes, areas, most) and -1 where a class has no labelled person."""
    precision, recall = document["precision"], document["recall"]
    areas = {"keypoints": (0, 1, 2), "bbox": (0, 2, 3)}[kind]
    whole = precision[:, :, :, 0, -1]
    return APs(
        map=_mean(whole),
        map50=_mean(whole[0]),
        map75=_mean(whole[5]),
        ar=_mean(recall[:, :, 0, -1]),
        maps=tuple(_mean(whole[:, :, c]) for c in range(whole.shape[2])),
        map_medium=_mean(precision[:, :, :, areas[1], -1]),
        map_large=_mean(precision[:, :, :, areas[2], -1]),
    )


def _mean(values: Floats) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")


def _no_aps(classes: int, labelled: bool) -> APs:
    value = 0.0 if labelled else float("nan")
    return APs(value, value, value, value, (value,) * classes, value, value)


def _share_within(errors: Floats) -> float:
    known = errors[~np.isnan(errors)]
    return float((known <= PCK_SHARE).mean()) if known.size else float("nan")
