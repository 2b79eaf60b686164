"""What every converter starts from: a network to trace, an input to trace it with, names for what comes out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgepose.contract import OutputSpec
from edgepose_trainer.nn import PoseNetwork
from edgepose_trainer.nn.export import HeadTensors

INPUT = "images"


class Decoded(nn.Module):
    """The network with its decoding: images (B, 3, H, W) to (B, 4 + nc + K * D, N), as Ultralytics' exports give it.

    normalized: boxes and keypoints as fractions of the input's width and height, as their TFLite exports have them.
    """

    def __init__(self, network: PoseNetwork, *, normalized: bool = False) -> None:
        super().__init__()
        self.network = network.folded()
        self.normalized = normalized

    def forward(self, images: Tensor) -> Tensor:
        decoded = self.network.decode(self.network.raw(images))
        if not self.normalized:
            return decoded
        height, width = images.shape[2:]
        points, values = self.network.kpt_shape
        place = [1 / width, 1 / height, 1.0][:values]
        unit = [1 / width, 1 / height] * 2 + [1.0] * self.network.nc + place * points
        return decoded * torch.tensor(unit, dtype=decoded.dtype).view(1, -1, 1)


class ChannelsLast(nn.Module):
    """A module whose pictures, and those of its outputs that are maps, are (B, H, W, C)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        found = self.module(images.permute(0, 3, 1, 2))
        return found if isinstance(found, Tensor) else tuple(tensor.permute(0, 2, 3, 1) for tensor in found)


@dataclass(frozen=True)
class Traced:
    """A module in eval mode, an input for it (zeros), and what its outputs are, named as the artifact shall name them.

    The layouts of `outputs` are those of the module as it stands: NCHW.
    """

    module: nn.Module
    example: Tensor
    outputs: tuple[OutputSpec, ...]


def prepare(
    network: PoseNetwork,
    size: tuple[int, int],
    *,
    batch: int = 1,
    layout: str = "edgepose",
    half: bool = False,
    normalized: bool = False,
) -> Traced:
    """The network ready to be traced, in float32 or float16, batch norm folded, on the CPU."""
    module: nn.Module
    if layout == "ultralytics":
        module = Decoded(network, normalized=normalized)
        outputs: tuple[OutputSpec, ...] = (OutputSpec("output0", "detections"),)
    else:
        heads = HeadTensors(network)
        module = heads
        outputs = tuple(OutputSpec(f"{role}_{stride}", role, stride, "NCHW") for role, stride in heads.outputs)
    module = module.float().cpu().eval().requires_grad_(False)
    example = torch.zeros(batch, 3, *size)
    if half:
        module, example = module.half(), example.half()
        outputs = tuple(o._replace(dtype="float16") if o.role != "detections" else o for o in outputs)
    return Traced(module, example, outputs)
