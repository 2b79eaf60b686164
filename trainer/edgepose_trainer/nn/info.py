"""What a network costs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgepose_trainer.nn.network import PoseNetwork


def model_info(network: PoseNetwork, imgsz: int | None = None) -> dict[str, Any]:
    """Plain data about a network as it runs, batch norm folded.

    parameters: their number; flops: 2 x multiply-adds of the convolutions and of the decoding for one square picture
    of imgsz (640, or 1280 for networks of stride 64, where none is given), an integer; layers: one row for each layer
    of the YAML.
    """
    if imgsz is None:
        imgsz = 1280 if network.stride >= 64 else 640
    if imgsz < 1 or imgsz % network.stride:
        raise ValueError(f"imgsz must be a positive multiple of the largest stride {network.stride}, got {imgsz}")
    with torch.device("meta"):
        copy = PoseNetwork(network.config).eval()
    copy.fold()
    flops = _layer_flops(copy, imgsz)
    rows = [
        {
            "index": index,
            "from": list(sources),
            "module": type(layer).__name__,
            "parameters": _parameters(layer),
            "flops": flops[index],
        }
        for index, (sources, layer) in enumerate(zip(copy.sources, copy.model, strict=True))
    ]
    return {
        "model": network.config.name,
        "nc": network.nc,
        "kpt_shape": list(network.kpt_shape),
        "strides": list(network.strides),
        "imgsz": imgsz,
        "parameters": _parameters(copy),
        "flops": sum(flops),
        "layers": rows,
    }


def _parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _layer_flops(network: PoseNetwork, imgsz: int) -> list[int]:
    """FLOPs of each layer, counted while a batch of one without data passes through."""
    flops = [0] * len(network.model)
    hooks = [
        module.register_forward_hook(_counter(flops, index))
        for index, layer in enumerate(network.model)
        for module in layer.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        network(torch.empty(1, 3, imgsz, imgsz, device="meta"))
    for hook in hooks:
        hook.remove()
    flops[-1] += 2 * _decode_multiply_adds(network, imgsz)
    return flops


def _decode_multiply_adds(network: PoseNetwork, imgsz: int) -> int:
    """One for each side of a cell's box (times stride), two for each coordinate (2 raw + cell, times stride)."""
    cells = sum((imgsz // stride) ** 2 for stride in network.strides)
    return cells * (4 + 2 * 2 * network.kpt_shape[0])


def _counter(flops: list[int], index: int) -> Any:
    def count(module: nn.Conv2d, _: Any, output: torch.Tensor) -> None:
        per_place = module.weight.numel() // module.out_channels
        flops[index] += 2 * per_place * output.numel()

    return count
