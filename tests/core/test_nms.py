"""NMS by box IoU and by OKS against slow references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references import decode as slow

from edgepose import _core

COCO_SIGMAS = tuple(np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000)

property_test = settings(deadline=None, derandomize=True, max_examples=60)


def people(seed: int, n: int, k: int = 17) -> dict[str, np.ndarray]:
    """A crowd: boxes on a half-pixel grid, scores with ties, three classes."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 80, (n, 2)) / 2
    boxes = np.concatenate([corner, corner + rng.integers(0, 40, (n, 2))], 1).astype(np.float32)
    return {
        "boxes": boxes,
        "points": rng.uniform(0, 60, (n, k, 2)).astype(np.float32),
        "areas": ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).astype(np.float32),
        "scores": (rng.integers(-8, 33, n) / 32).astype(np.float32),
        "classes": rng.integers(0, 3, n).astype(np.int32),
    }


def kept_slowly(crowd: dict[str, np.ndarray], **rules: Any) -> list[int]:
    return slow.greedy_nms(crowd["boxes"], crowd["points"], crowd["scores"], crowd["classes"], slow.Rules(**rules))


@property_test
@given(
    st.integers(0, 300),
    st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]),
    st.booleans(),
    st.sampled_from([1, 5, 2**40]),
    st.integers(0, 2**32),
)
def test_boxes_kept_equal_the_slow_reference(n: int, iou: float, agnostic: bool, max_det: int, seed: int) -> None:
    crowd = people(seed, n)
    classes = None if agnostic else crowd["classes"]
    kept = _core.nms(crowd["boxes"], crowd["scores"], iou=iou, class_ids=classes, max_det=max_det)
    assert kept.tolist() == kept_slowly(crowd, iou=iou, agnostic=agnostic, max_det=max_det)


@property_test
@given(
    st.integers(0, 120),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.05, 0.2, 0.5, 1.0]),
    st.booleans(),
    st.sampled_from([1, 5, 2**40]),
    st.integers(0, 2**32),
)
def test_poses_kept_equal_the_slow_reference(
    n: int, k: int, threshold: float, agnostic: bool, max_det: int, seed: int
) -> None:
    crowd = people(seed, n, k)
    sigmas = tuple(np.random.default_rng(seed).uniform(0.05, 1, k))
    classes = None if agnostic else crowd["classes"]
    kept = _core.oks_nms(
        crowd["points"],
        crowd["areas"],
        crowd["scores"],
        sigmas=sigmas,
        threshold=threshold,
        class_ids=classes,
        max_det=max_det,
    )
    rules = {"nms": "oks", "sigmas": sigmas, "iou": threshold, "agnostic": agnostic, "max_det": max_det}
    assert kept.tolist() == kept_slowly(crowd, **rules)


def test_oks_equals_the_formula(level: str) -> None:
    a, b = people(0, 23), people(1, 37)
    matrix = _core.oks(a["points"], a["areas"], b["points"], b["areas"], sigmas=COCO_SIGMAS)
    expected = [
        [slow.oks(p, s, q, t, COCO_SIGMAS) for q, t in zip(b["points"], b["areas"], strict=True)]
        for p, s in zip(a["points"], a["areas"], strict=True)
    ]
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-6)


def test_oks_of_a_pose_with_itself_is_1(level: str) -> None:
    crowd = people(2, 40)
    matrix = _core.oks(crowd["points"], crowd["areas"], crowd["points"], crowd["areas"], sigmas=COCO_SIGMAS)
    np.testing.assert_array_equal(np.diag(matrix), 1)
    np.testing.assert_array_equal(matrix, matrix.T)


def test_oks_equals_the_coco_evaluation() -> None:
    """pycocotools divides by the labelled person's area; with equal areas that is the mean of the two."""
    pytest.importorskip("pycocotools")
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(0)
    truth = rng.uniform(10, 90, (5, 17, 2))
    found = truth + rng.normal(0, 4, truth.shape)
    area = 1500.0
    evaluation = COCOeval(iouType="keypoints")
    visible = np.full((5, 17, 1), 2.0)
    evaluation._gts[1, 1] = [
        {
            "keypoints": np.concatenate([points, flags], 1).ravel().tolist(),
            "area": area,
            "bbox": [0, 0, 100, 100],
            "ignore": 0,
            "_ignore": 0,
        }
        for points, flags in zip(truth, visible, strict=True)
    ]
    evaluation._dts[1, 1] = [
        {"keypoints": np.concatenate([points, flags], 1).ravel().tolist(), "score": 1.0 - i / 10}
        for i, (points, flags) in enumerate(zip(found, visible, strict=True))
    ]
    expected = evaluation.computeOks(1, 1)
    areas = np.full(5, area, np.float32)
    ours = _core.oks(found.astype(np.float32), areas, truth.astype(np.float32), areas, sigmas=COCO_SIGMAS)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


def test_every_instruction_set_keeps_the_same() -> None:
    crowd = people(3, 900)
    before = _core.simd_level()
    boxes, poses, matrices = [], [], []
    for name in _core.available_simd_levels():
        _core.set_simd_level(name)
        boxes.append(_core.nms(crowd["boxes"], crowd["scores"], iou=0.5).tolist())
        args = (crowd["points"], crowd["areas"])
        poses.append(_core.oks_nms(*args, crowd["scores"], sigmas=COCO_SIGMAS, threshold=0.1).tolist())
        matrices.append(_core.oks(*args, *args, sigmas=COCO_SIGMAS))
    _core.set_simd_level(before)
    assert all(kept == boxes[0] for kept in boxes)
    assert all(kept == poses[0] for kept in poses)
    for matrix in matrices:
        np.testing.assert_array_equal(matrix, matrices[0])


def test_what_is_not_finite_is_left_out() -> None:
    boxes = np.array([[0, 0, 9, 9]] * 4, np.float32) + np.arange(4, dtype=np.float32)[:, None] * 100
    boxes[1, 2] = np.nan
    boxes[2, 0] = -np.inf
    scores = np.array([0.1, 0.9, 0.8, np.nan], np.float32)
    assert _core.nms(boxes, scores, iou=0.5).tolist() == [0]
    points, areas = boxes.reshape(4, 2, 2), np.array([1, 1, 1, 1], np.float32)
    assert _core.oks_nms(points, areas, scores, sigmas=(0.1, 0.1), threshold=0.5).tolist() == [0]


def test_equal_scores_come_in_the_order_of_their_indices() -> None:
    boxes = np.arange(1000, dtype=np.float32)[:, None] * 100 + np.array([0, 0, 9, 9], np.float32)
    scores = np.where(np.arange(1000) % 2, 0.0, -0.0).astype(np.float32)
    assert _core.nms(boxes, scores, iou=0.5).tolist() == list(range(1000))


def test_nothing_in_gives_nothing_out() -> None:
    nothing = np.zeros(0, np.float32)
    assert _core.nms(nothing.reshape(0, 4), nothing, iou=0.5).tolist() == []
    assert _core.oks_nms(nothing.reshape(0, 2, 2), nothing, nothing, sigmas=(1, 1), threshold=0.5).tolist() == []
    empty = _core.oks(nothing.reshape(0, 2, 2), nothing, np.ones((3, 2, 2), np.float32), np.ones(3), sigmas=(1, 1))
    assert empty.shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": np.zeros((3, 5), np.float32)}, r"boxes has shape \(3, 5\), expected \(N, 4\)"),
        ({"scores": np.zeros(2, np.float32)}, r"scores has shape \(2,\)"),
        ({"iou": 1.5}, "iou is 1.5"),
        ({"iou": float("nan")}, "iou is nan"),
        ({"max_det": 0}, "max_det is 0"),
        ({"class_ids": np.zeros(4, np.int32)}, r"class_ids has shape \(4,\)"),
        ({"class_ids": np.array([0, -1, 0], np.int32)}, "class_ids are expected within 0"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"boxes": np.zeros((3, 4), np.float32), "scores": np.zeros(3, np.float32), "iou": 0.5}
    with pytest.raises(ValueError, match=message):
        _core.nms(**good | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigmas": (0.1,)}, r"keypoints has shape \(3, 2, 2\), expected \(N, K, 2\), K sigmas"),
        ({"sigmas": (0.1, 0.0)}, "sigma is 0"),
        ({"areas": np.zeros(2, np.float32)}, r"areas has shape \(2,\)"),
        ({"threshold": -1}, "threshold is -1"),
    ],
)
def test_bad_arguments_of_oks_nms_are_named(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "keypoints": np.zeros((3, 2, 2), np.float32),
        "areas": np.ones(3, np.float32),
        "scores": np.zeros(3, np.float32),
        "sigmas": (0.1, 0.1),
        "threshold": 0.5,
    }
    with pytest.raises(ValueError, match=message):
        _core.oks_nms(**good | change)
