"""Which last convolutions of an int8 model are sensitive: what their rounding costs the people found, role by role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgepose.result import PoseResult
from edgepose_trainer.export.parity import box_iou, match

PAYS = 0.1
"""A role's last convolutions are kept in float where that takes away at least this share of its error."""

UNITS = {
    "box": "of the box missed",
    "score": "of score",
    "keypoints": "px",
    "visibility": "of keypoint score",
    "heatmap": "px",
}
"""Of each role's error; heatmaps move keypoints."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The median error of what a role says of people: in int8, and with its last convolutions in float."""

    role: str
    int8: float
    finer: float

    @property
    def pays(self) -> bool:
        return self.int8 - self.finer >= PAYS * self.int8 > 0

    def line(self) -> str:
        """For the report."""
        kept = "kept in float" if self.pays else "left in int8"
        return f"  {self.role:<11}{self.int8:8.4f} → {self.finer:.4f} {UNITS[self.role]}: {kept}"


def find_sensitive(
    roles: Sequence[str], float_people: Sequence[PoseResult], int8: Sequence[PoseResult], finer: Sequence[PoseResult]
) -> list[Finding]:
    """How far the int8 model, and the one with all last convolutions in float, are from the float model's people."""
    before, after = _errors(float_people, int8), _errors(float_people, finer)
    return [Finding(role, before[role], after[role]) for role in dict.fromkeys(roles)]


def _errors(expected: Sequence[PoseResult], found: Sequence[PoseResult]) -> dict[str, float]:
    """The median error of each role over the people whom both find; 0 where there is nobody."""
    pairs = [(a, b, i, j) for a, b in zip(expected, found, strict=True) for i, j in match(a, b)]
    seen = [a.keypoint_scores[i] >= 0.5 for a, b, i, j in pairs]
    far = [np.linalg.norm(a.keypoints[i] - b.keypoints[j], axis=1) for a, b, i, j in pairs]
    keypoints = _median([distance[points] for distance, points in zip(far, seen, strict=True)])
    return {
        "box": _median([1 - box_iou(a.boxes[i], b.boxes[[j]]) for a, b, i, j in pairs]),
        "score": _median([np.abs(a.scores[[i]] - b.scores[[j]]) for a, b, i, j in pairs]),
        "keypoints": keypoints,
        "visibility": _median([np.abs(a.keypoint_scores[i] - b.keypoint_scores[j]) for a, b, i, j in pairs]),
        "heatmap": keypoints,
    }


def _median(errors: Sequence[NDArray[np.floating]]) -> float:
    values = np.concatenate([*errors, np.zeros(0)])
    return float(np.median(values)) if len(values) else 0.0
