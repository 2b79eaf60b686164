"""Which last convolutions are kept in float: those whose rounding moves the people found."""

from __future__ import annotations

import numpy as np
import pytest
from edgepose_trainer.export.sensitive import Finding, find_sensitive
from numpy.typing import NDArray

from edgepose.contract import PeopleSpec
from edgepose.result import PoseResult

ROLES = ("box", "score", "keypoints", "visibility")


def people(
    shift: float = 0.0, score: float = 0.9, widening: float = 0.0, keypoint_scores: float = 0.8
) -> list[PoseResult]:
    """One person of two points; shift: of the points, in pixels; widening: of the box of 100 x 100 pixels."""
    boxes = np.array([[50, 50, 150 + widening, 150]], np.float32)
    points: NDArray[np.float32] = np.array([[[60, 60], [90, 120]]], np.float32) + np.float32(shift)
    scores = np.array([score], np.float32)
    point_scores = np.full((1, 2), keypoint_scores, np.float32)
    return [
        PoseResult(boxes, scores, np.zeros(1, np.int64), points, point_scores, people=PeopleSpec(), size=(320, 320))
    ]


def test_errors_are_those_of_each_role() -> None:
    int8 = people(shift=3.0, score=0.7, widening=25.0, keypoint_scores=0.6)
    box, score, keypoints, visibility = find_sensitive(ROLES, people(), int8, people())
    assert (box.int8, box.finer) == pytest.approx((0.2, 0.0))  # 100 of 125 pixels
    assert (score.int8, score.finer) == pytest.approx((0.2, 0.0))
    assert (keypoints.int8, keypoints.finer) == pytest.approx((3 * 2**0.5, 0.0))
    assert (visibility.int8, visibility.finer) == pytest.approx((0.2, 0.0))


def test_heatmap_is_held_to_the_keypoints_that_it_moves() -> None:
    keypoints, heatmap = find_sensitive(["keypoints", "heatmap"], people(), people(shift=3.0), people(shift=1.0))
    assert (heatmap.int8, heatmap.finer) == (keypoints.int8, keypoints.finer)
    assert heatmap.finer == pytest.approx(2**0.5)


def test_role_that_a_network_lacks_is_not_asked() -> None:
    assert [finding.role for finding in find_sensitive(ROLES[:3], people(), people(), people())] == list(ROLES[:3])


@pytest.mark.parametrize(("int8", "finer", "pays"), [(1.0, 0.89, True), (1.0, 0.91, False), (0.0, 0.0, False)])
def test_float_pays_where_it_takes_a_tenth_of_the_error(int8: float, finer: float, pays: bool) -> None:
    finding = Finding("keypoints", int8, finer)
    assert finding.pays is pays
    assert finding.line().endswith("kept in float" if pays else "left in int8")


def test_nobody_found_leaves_all_in_int8() -> None:
    empty = [PoseResult.empty((320, 320), people=PeopleSpec(), num_keypoints=2)]
    assert not any(finding.pays for finding in find_sensitive(ROLES, empty, empty, empty))
