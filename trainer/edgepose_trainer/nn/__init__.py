"""Networks: model YAMLs, blocks, the pose head, and what they cost."""

from __future__ import annotations

from edgepose_trainer.nn.export import HeadOutput, HeadTensors
from edgepose_trainer.nn.head import RawHeads
from edgepose_trainer.nn.info import model_info
from edgepose_trainer.nn.network import PoseNetwork, build_model

__all__ = ["HeadOutput", "HeadTensors", "PoseNetwork", "RawHeads", "build_model", "model_info"]
