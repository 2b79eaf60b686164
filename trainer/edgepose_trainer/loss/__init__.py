"""The training loss: task-aligned assignment, CIoU, DFL, OKS, keypoint visibility."""

from __future__ import annotations

from edgepose_trainer.loss.pose_loss import Gains, PoseLoss

__all__ = ["Gains", "PoseLoss"]
