"""The evaluator against pycocotools and slow references."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from edgepose_trainer.metrics import Evaluator, Found, Truth, box_iou, oks, torso_points

NAMES = ("person", "dog")
COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
    0.089,
)  # fmt: skip


def people(rng: np.random.Generator, count: int, k: int) -> Truth:
    low = rng.uniform(0, 300, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(15, 250, (count, 2))], 1)
    sides = boxes[:, None, 2:] - boxes[:, None, :2]
    points = np.concatenate([low[:, None] + rng.uniform(0, 1, (count, k, 2)) * sides, np.zeros((count, k, 1))], 2)
    points[..., 2] = rng.integers(0, 3, (count, k))
    points[rng.uniform(size=count) < 0.15, :, 2] = 0
    return Truth(boxes, rng.integers(0, len(NAMES), count), points, crowd=rng.uniform(size=count) < 0.05)


def guesses(rng: np.random.Generator, truth: Truth, extra: int) -> Found:
    """The labelled people moved a little, and some that are not there; distinct scores."""
    other = people(rng, extra, truth.keypoints.shape[1])
    boxes = np.concatenate([truth.boxes + rng.normal(0, 6, truth.boxes.shape), other.boxes])
    near = truth.keypoints[..., :2] + rng.normal(0, 5, (*truth.keypoints.shape[:2], 2))
    points = np.concatenate([near, other.keypoints[..., :2]])
    classes = np.concatenate([truth.class_ids, other.class_ids])
    return Found(
        boxes, rng.permutation(len(boxes)) / 100 + rng.uniform(0, 1e-3, len(boxes)), classes, points, points[..., 0]
    )


def filled(k: int, sigmas: tuple[float, ...], pictures: int = 25, seed: int = 0) -> Evaluator:
    rng = np.random.default_rng(seed)
    evaluator = Evaluator(k, sigmas, NAMES)
    for _ in range(pictures):
        truth = people(rng, int(rng.integers(0, 8)), k)
        evaluator.add(guesses(rng, truth, int(rng.integers(0, 30))), truth)
    return evaluator


def by_pycocotools(evaluator: Evaluator, kind: str) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO()
    found: list[dict[str, Any]] = []
    images, annotations = [], []
    for image, (guess, labels) in enumerate(evaluator.pictures, 1):
        images.append({"id": image})
        for i, box in enumerate(labels.boxes):
            w, h = float(box[2] - box[0]), float(box[3] - box[1])
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image, "category_id": int(labels.class_ids[i]) + 1,
                    "bbox": [float(box[0]), float(box[1]), w, h], "area": 0.53 * w * h,
                    "iscrowd": int(labels.crowd[i]) if labels.crowd is not None else 0,
                    "keypoints": labels.keypoints[i].ravel().tolist(),
                    "num_keypoints": int((labels.keypoints[i, :, 2] > 0).sum()),
                }
            )  # fmt: skip
        for i, box in enumerate(guess.boxes):
            points = np.concatenate([guess.keypoints[i], np.ones((evaluator.num_keypoints, 1))], 1)
            found.append(
                {
                    "image_id": image, "category_id": int(guess.class_ids[i]) + 1, "score": float(guess.scores[i]),
                    "bbox": [*box[:2].tolist(), float(box[2] - box[0]), float(box[3] - box[1])],
                    "keypoints": points.ravel().tolist(),
                }
            )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1}, {"id": 2}]}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), kind)
        evaluation.params.kpt_oks_sigmas = evaluator.sigmas
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


@pytest.mark.parametrize(("k", "sigmas"), [(17, COCO_SIGMAS), (4, (0.1, 0.05, 0.2, 0.08))])
def test_keypoint_averages_equal_those_of_pycocotools(k: int, sigmas: tuple[float, ...]) -> None:
    evaluator = filled(k, sigmas)
    ap, ap50, ap75, medium, large, ar, *_ = by_pycocotools(evaluator, "keypoints")
    pose = evaluator.result().pose
    ours = (pose.map, pose.map50, pose.map75, pose.map_medium, pose.map_large, pose.ar)
    assert ours == pytest.approx((ap, ap50, ap75, medium, large, ar), abs=1e-9)
    assert np.mean(pose.maps) == pytest.approx(pose.map)


def test_box_averages_equal_those_of_pycocotools() -> None:
    evaluator = filled(17, COCO_SIGMAS)
    stats = by_pycocotools(evaluator, "bbox")
    box = evaluator.result().box
    ours = (box.map, box.map50, box.map75, box.map_medium, box.map_large, box.ar)
    assert ours == pytest.approx((*stats[:3], *stats[4:6], stats[8]), abs=1e-9)


def test_precision_recall_and_f1_equal_a_count_at_each_threshold() -> None:
    evaluator = filled(17, COCO_SIGMAS, pictures=6)
    curves = evaluator.result().curves
    for index in range(0, len(curves.scores), 7):
        hits, wrong, total = count_at(evaluator, float(curves.scores[index]))
        assert curves.precision[index] == pytest.approx(hits / (hits + wrong))
        assert curves.recall[index] == pytest.approx(hits / total)


def count_at(evaluator: Evaluator, threshold: float) -> tuple[int, int, int]:
    """Right, wrong and countable people at a threshold, with loops."""
    hits = wrong = total = 0
    for found, truth in evaluator.pictures:
        labelled = [(p[:, 2] > 0).any() for p in truth.keypoints]
        crowd = truth.crowd if truth.crowd is not None else [False] * len(labelled)
        wanted = [j for j, has in enumerate(labelled) if has and not crowd[j]]
        total += len(wanted)
        areas = (truth.boxes[:, 2:] - truth.boxes[:, :2]).prod(1) * 0.53
        similarity = oks(found.keypoints, truth.keypoints, areas, evaluator.sigmas)
        overlap, taken = box_iou(found.boxes, truth.boxes), set()
        for i in sorted(range(len(found.scores)), key=lambda i: -found.scores[i]):
            if found.scores[i] < threshold:
                continue
            same = [j for j in range(len(labelled)) if truth.class_ids[j] == found.class_ids[i]]
            near = [j for j in same if j in wanted and j not in taken and similarity[i, j] >= 0.5]
            if near:
                taken.add(max(near, key=lambda j: similarity[i, j]))
                hits += 1
            elif not any(j not in wanted and overlap[i, j] >= 0.5 for j in same):
                wrong += 1
    return hits, wrong, total


def test_oks_equals_its_formula() -> None:
    rng = np.random.default_rng(1)
    truth = people(rng, 3, 17)
    found = truth.keypoints[:2, :, :2] + rng.normal(0, 10, (2, 17, 2))
    areas = np.array([900.0, 2500.0, 10000.0])
    table = oks(found, truth.keypoints, areas, np.array(COCO_SIGMAS))
    for i in range(2):
        for j in range(3):
            terms = [
                np.exp(-((found[i, k] - truth.keypoints[j, k, :2]) ** 2).sum() / (2 * areas[j] * (2 * sigma) ** 2))
                for k, sigma in enumerate(COCO_SIGMAS)
                if truth.keypoints[j, k, 2] > 0
            ]
            assert table[i, j] == pytest.approx(np.mean(terms) if terms else 0.0)


def one_person(shift: float) -> tuple[Found, Truth]:
    """Shoulders and hips at the corners of a 30 x 40 torso (diagonal 50); the left shoulder is found `shift` off."""
    points = np.array([[30.0, 0, 2], [0, 0, 2], [30, 40, 2], [0, 40, 0]])
    box = np.array([[0.0, 0, 200, 200]])
    found = points[None, :, :2].copy()
    found[0, 0, 0] += shift
    return Found(box, np.array([0.9]), np.zeros(1, int), found, np.ones((1, 4))), Truth(
        box, np.zeros(1, int), points[None]
    )


@pytest.mark.parametrize(("shift", "share"), [(9.9, 1.0), (10.1, 2 / 3)])
def test_pck_counts_points_within_a_fifth_of_the_torso_diagonal(shift: float, share: float) -> None:
    evaluator = Evaluator(4, (0.2,) * 4, torso=(0, 1, 2, 3))
    evaluator.add(*one_person(shift))
    metrics = evaluator.result()
    assert metrics.pck == pytest.approx(share)
    assert metrics.keypoint_error[:3] == pytest.approx([shift / 50, 0, 0])
    assert np.isnan(metrics.keypoint_error[3])


def test_torso_is_found_by_names_in_any_order() -> None:
    names = ["Right Hip", "left-shoulder", "right_shoulder", "tail", "left_hip"]
    assert torso_points(5, names) == (1, 2, 4, 0)
    assert torso_points(5, ["a", "b", "c", "d", "e"]) is None


def nobody(k: int) -> Found:
    return Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), np.zeros((0, k, 2)), np.zeros((0, k)))


def test_finding_nobody_is_zero_and_labelling_nobody_is_undefined() -> None:
    evaluator = Evaluator(4, (0.1,) * 4)
    found, truth = one_person(0)
    evaluator.add(nobody(4), truth)
    assert evaluator.result().pose.map == evaluator.result().f1 == 0.0
    empty = Evaluator(4, (0.1,) * 4)
    empty.add(found, Truth(np.zeros((0, 4)), np.zeros(0, int), np.zeros((0, 4, 3))))
    assert np.isnan(empty.result().pose.map)


def test_a_wrong_number_of_sigmas_is_refused() -> None:
    with pytest.raises(ValueError, match="3 sigmas for 4 keypoints"):
        Evaluator(4, (0.1,) * 3)
