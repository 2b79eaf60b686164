"""How an export is held against its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from edgepose_trainer.model import PoseModel

from edgepose import PoseRunner
from edgepose.result import PoseResult

OPTIONS: dict[str, Any] = {"conf": 0.5, "max_det": 20, "clip": False}


def assert_same_people(found: list[PoseResult], expected: list[PoseResult], pixels: float, score: float) -> None:
    """The same people, best first; places within `pixels` of the source picture, scores within `score`."""
    assert sum(len(result) for result in expected) >= 5
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=score)
        np.testing.assert_array_equal(a.class_ids, b.class_ids)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=pixels)
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=pixels)
        np.testing.assert_allclose(a.keypoint_scores, b.keypoint_scores, atol=score)


def people_of_checkpoint(path: Path, pictures: list[Any], imgsz: Any = None) -> list[PoseResult]:
    options = OPTIONS if imgsz is None else {**OPTIONS, "imgsz": imgsz}
    found: list[PoseResult] = PoseModel(path).runner(**options).predict(pictures)
    return found


def people_of_artifact(path: Path, pictures: list[Any], **options: Any) -> list[PoseResult]:
    with PoseRunner(path, **OPTIONS, **options) as runner:
        return runner.predict(pictures)
