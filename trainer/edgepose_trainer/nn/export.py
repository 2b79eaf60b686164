"""The network as an exporter wants it: one output tensor for each role and level."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from edgepose_trainer.nn.head import Pose
from edgepose_trainer.nn.network import PoseNetwork


class HeadOutput(NamedTuple):
    """Role in the artifact contract ("box", "score", "keypoints", "visibility", "heatmap") and stride of an output."""

    role: str
    stride: int


class HeadTensors(nn.Module):
    """A folded copy of a network whose forward gives a flat tuple of raw heads, described by `outputs`.

    split_visibility: keypoint places (K * 2 channels, x, y interleaved) and visibility logits (K) come from two
    convolutions, so that an int8 artifact has a scale for each. The numbers are those of the network's raw heads.
    """

    def __init__(self, network: PoseNetwork, *, split_visibility: bool = True) -> None:
        super().__init__()
        self.network = network.folded()
        head = self.network.head
        split = split_visibility and head.kpt_shape[1] == 3
        roles = ("box", "score", "keypoints", "visibility") if split else ("box", "score", "keypoints")
        outputs = [HeadOutput(role, stride) for role in roles for stride in head.strides]
        if head.heatmap is not None:
            outputs.append(HeadOutput("heatmap", head.strides[0]))
        self.outputs = tuple(outputs)
        self.visibility = _split_visibility(head) if split else None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.visibility is None:
            return self.network.raw(images).tensors()
        head = self.network.head
        maps = head.in_context(self.network.features(images))
        shared = [branch[:-1](x) for branch, x in zip(_sequences(head.cv4), maps, strict=True)]
        return (
            *(branch(x) for branch, x in zip(head.cv2, maps, strict=True)),
            *(branch(x) for branch, x in zip(head.cv3, maps, strict=True)),
            *(branch[-1](x) for branch, x in zip(_sequences(head.cv4), shared, strict=True)),
            *(conv(x) for conv, x in zip(self.visibility, shared, strict=True)),
            *([head.heatmap(maps[0])] if head.heatmap is not None else []),
        )


def _sequences(branches: nn.ModuleList) -> list[nn.Sequential]:
    return [branch for branch in branches if isinstance(branch, nn.Sequential)]


def _split_visibility(head: Pose) -> nn.ModuleList:
    """Takes the visibility channels out of the head's last keypoint convolutions, into convolutions of their own."""
    channel = torch.arange(head.kpt_shape[0] * 3)
    parts = nn.ModuleList()
    for branch in _sequences(head.cv4):
        conv = branch[-1]
        assert isinstance(conv, nn.Conv2d)
        parts.append(_selected(conv, channel[channel % 3 == 2]))
        branch[-1] = _selected(conv, channel[channel % 3 != 2])
    return parts


def _selected(conv: nn.Conv2d, channels: Tensor) -> nn.Conv2d:
    """A 1x1 convolution that gives some of conv's output channels."""
    assert conv.bias is not None
    part = nn.Conv2d(conv.in_channels, len(channels), 1)
    with torch.no_grad():
        part.weight.copy_(conv.weight[channels])
        part.bias.copy_(conv.bias[channels])  # type: ignore[union-attr]
    return part
