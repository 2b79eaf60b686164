"""The network that a model YAML describes."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgepose_trainer.nn.blocks import C2, SPPF, C2f, Concat, Conv, Upsample
from edgepose_trainer.nn.config import MAX_CHANNELS, LayerSpec, NetworkConfig, check_int, read_config
from edgepose_trainer.nn.head import Pose, RawHeads


class PoseNetwork(nn.Module):
    """A YOLOv8 pose network.

    In training mode `model(images)` gives the `RawHeads`; in eval mode the decoded (B, 4 + nc + K * D, N) tensor.
    `raw` and `decode` are the two halves, in either mode. images: (B, 3, H, W) in 0..1, RGB, H and W multiples of
    `stride`, the largest of any layer; `strides` are those of the maps that the head reads.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.nc, self.kpt_shape, self.reg_max = config.nc, config.kpt_shape, config.reg_max
        self.sources, layers, self.stride = _build(config)
        self.model = nn.ModuleList(layers)
        self.strides: list[int] = self.head.strides
        self._kept = {s for index, sources in enumerate(self.sources) for s in sources if s != index - 1}

    @property
    def head(self) -> Pose:
        head = self.model[-1]
        assert isinstance(head, Pose)
        return head

    def forward(self, images: Tensor) -> RawHeads | Tensor:
        raw = self.raw(images)
        return raw if self.training else self.decode(raw)

    def raw(self, images: Tensor) -> RawHeads:
        """The raw heads of a batch, in either mode."""
        return self.head(self.features(images))  # type: ignore[no-any-return]

    def features(self, images: Tensor) -> list[Tensor]:
        """The feature maps that the head reads, finest level first."""
        kept = {-1: images}
        x = images
        for index, (sources, layer) in enumerate(zip(self.sources, self.model, strict=True)):
            inputs = [x if source == index - 1 else kept[source] for source in sources]
            if layer is self.head:
                return inputs
            x = layer(inputs if isinstance(layer, Concat) else inputs[0])
            if index in self._kept:
                kept[index] = x
        raise AssertionError("the head is the last layer")

    def decode(self, raw: RawHeads) -> Tensor:
        """Raw heads as (B, 4 + nc + K * D, N): cx, cy, w, h, scores, keypoints, in input pixels."""
        return self.head.decode(raw)

    def folded(self) -> PoseNetwork:
        """A copy in eval mode with every batch norm folded into its convolution, for inference and export."""
        network = copy.deepcopy(self).eval()
        network.fold()
        return network

    def fold(self) -> None:
        """Folds every batch norm into its convolution, in place: the network can no longer be trained as before."""
        for module in self.modules():
            if isinstance(module, Conv):
                module.fold()


def build_model(
    model: str | Path | Mapping[str, Any],
    kpt_shape: Sequence[int] | None = None,
    nc: int | None = None,
    scale: str | Sequence[float] | None = None,
) -> PoseNetwork:
    """A new network with fresh weights (torch's global generator) from a model YAML, its name or the dict it holds.

    kpt_shape [K, 2 or 3], nc and scale (a letter, or [depth, width, max_channels]) replace what the YAML says.
    Raises FileNotFoundError, ValueError or TypeError, saying what is wrong with the YAML.
    """
    return PoseNetwork(read_config(model, nc=nc, kpt_shape=kpt_shape, scale=scale))


def _build(config: NetworkConfig) -> tuple[list[tuple[int, ...]], list[nn.Module], int]:
    """Each layer's sources as absolute indices (-1: the picture), the layers, and the largest stride of any."""
    sources: list[tuple[int, ...]] = []
    layers: list[nn.Module] = []
    shapes: list[tuple[int, int]] = []  # channels and stride of each layer's output
    for index, spec in enumerate(config.layers):
        read = tuple(s if s >= 0 else index + s for s in spec.source)
        inputs = [shapes[s] if s >= 0 else (3, 1) for s in read]
        if (spec.module == "Pose") != (index == len(config.layers) - 1):
            raise ValueError(f"layer {index}: the Pose head must be the last layer, and only the last")
        try:
            layer, shape = _layer(spec, inputs, config)
        except (TypeError, ValueError) as error:
            raise type(error)(f"layer {index} ({spec.module}): {error}") from None
        sources.append(read)
        layers.append(layer)
        shapes.append(shape)
    if not layers:
        raise ValueError("the model YAML has no layers")
    return sources, layers, max(stride for _, stride in shapes)


def _layer(spec: LayerSpec, inputs: list[tuple[int, int]], config: NetworkConfig) -> tuple[nn.Module, tuple[int, int]]:
    """One layer and the (channels, stride) of its output, from those of its inputs."""
    channels, stride = inputs[0]
    args = spec.args
    if spec.module == "Pose":
        return _pose(spec, inputs, config), (0, 0)
    if spec.module == "Concat":
        if args not in ((), (1,)) or any(s != stride for _, s in inputs):
            raise ValueError(f"joins maps of one stride along dimension 1, got args {list(args)}, strides {inputs}")
        return Concat(), (sum(c for c, _ in inputs), stride)
    if len(inputs) != 1:
        raise ValueError(f"reads one layer, got {list(spec.source)}")
    if spec.module == "Upsample":
        factor = _upsample_factor(args)
        if stride % factor:
            raise ValueError(f"enlarges by {factor} what has stride {stride}")
        return Upsample(factor), (channels, stride // factor)
    if not args:
        raise ValueError("args must begin with the number of channels")
    out = _channels(args[0], config)
    if spec.module == "Conv":
        k = check_int(_at(args, 1, 1, 3), "kernel size", 1, 15)
        s = check_int(_at(args, 2, 1, 3), "stride", 1, 4)
        if spec.repeats != 1 or k % 2 == 0:
            raise ValueError(f"takes an odd kernel size and 1 repeat, got {k} and {spec.repeats}")
        return Conv(channels, out, k, s, config.activation), (out, stride * s)
    if spec.module == "SPPF":
        k = check_int(_at(args, 1, 5, 2), "kernel size", 1, 31)
        return SPPF(channels, out, k, config.activation), (out, stride)
    n = max(round(spec.repeats * config.depth), 1) if spec.repeats > 1 else 1
    block = C2f if spec.module == "C2f" else C2
    shortcut = bool(_at(args, 1, spec.module == "C2", 2))
    return block(channels, out, n, shortcut, config.activation), (out, stride)


def _pose(spec: LayerSpec, inputs: list[tuple[int, int]], config: NetworkConfig) -> Pose:
    known = {"nc": config.nc, "kpt_shape": list(config.kpt_shape)}
    given = [known.get(a, a) if isinstance(a, str) else a for a in spec.args]
    if given not in ([], [config.nc], [config.nc, list(config.kpt_shape)]):
        raise ValueError(f"args must be [nc, kpt_shape], got {list(spec.args)}")
    strides = [stride for _, stride in inputs]
    if strides != sorted(set(strides)):
        raise ValueError(f"reads maps of growing stride, got strides {strides}")
    return Pose(
        config.nc, config.kpt_shape, [c for c, _ in inputs], strides, config.reg_max, config.activation, config.heatmap
    )


def _upsample_factor(args: tuple[Any, ...]) -> int:
    """[2] in the compact form, [None, 2, "nearest"] in the field's."""
    if len(args) == 3 and args[0] in (None, "None") and args[2] == "nearest":
        args = args[1:2]
    if len(args) != 1 or not isinstance(args[0], (int, float)) or args[0] % 1 != 0:
        raise ValueError(f'args must be [factor] or [None, factor, "nearest"], got {list(args)}')
    return check_int(int(args[0]), "factor", 1, 16)


def _at(args: tuple[Any, ...], index: int, default: Any, most: int) -> Any:
    if len(args) > most:
        raise ValueError(f"takes at most {most} args, got {list(args)}")
    return args[index] if index < len(args) else default


def _channels(value: Any, config: NetworkConfig) -> int:
    """Channels after scaling: a multiple of 8, as published."""
    channels: int = min(check_int(value, "channels", 1, MAX_CHANNELS), config.max_channels)
    return math.ceil(channels * config.width / 8) * 8
