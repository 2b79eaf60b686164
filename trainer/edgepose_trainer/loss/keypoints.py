"""The keypoints' losses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from edgepose.coco import SIGMAS

EPS = 1e-9


def default_sigmas(keypoints: int) -> tuple[float, ...]:
    """COCO's for its 17 keypoints, else the field's habit, 1 / K for each of K keypoints."""
    return SIGMAS if keypoints == len(SIGMAS) else (1 / keypoints,) * keypoints


def keypoint_similarity_loss(found: Tensor, wanted: Tensor, visible: Tensor, area: Tensor, sigmas: Tensor) -> Tensor:
    """1 - OKS of each instance, (F,): the mean of 1 - exp(-d² / (2 area (2 sigma)²)) over its visible keypoints.

    found, wanted: (F, K, 2) in one unit; visible: (F, K) bool; area: (F,) in that unit squared; sigmas: (K,).
    0 where an instance has no visible keypoint.
    """
    distance = (found - wanted).square().sum(2)
    error = distance / ((2 * sigmas).square() * (area[:, None] + EPS) * 2)
    each = (1 - (-error).exp()) * visible
    return each.sum(1) / (visible.sum(1) + EPS)


def keypoint_distance_loss(found: Tensor, wanted: Tensor, visible: Tensor, area: Tensor) -> Tensor:
    """L1 distance of each instance, (F,): the mean of |dx| + |dy| over its visible keypoints, in shares of sqrt(area).

    1 - OKS is flat where a point is many sigma away; this pulls there as much as anywhere (ED-Pose, arXiv 2302.01593,
    trains with both). Arguments as for `keypoint_similarity_loss`.
    """
    distance = (found - wanted).abs().sum(2) * visible
    return distance.sum(1) / ((visible.sum(1) + EPS) * (area + EPS).sqrt())


def visibility_loss(logits: Tensor, visible: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the binary cross-entropies of the known keypoints, and their number. logits, visible, known: (F, K)."""
    each = F.binary_cross_entropy_with_logits(logits, visible.to(logits.dtype), reduction="none")
    return (each * known).sum(), known.sum()
