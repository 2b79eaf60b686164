"""The blocks of YOLOv8 networks. Parameter names are the ones that checkpoints of the field carry (`cv1.conv.weight`).

Every tensor is (B, C, H, W); all blocks keep the channels_last memory format.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

BATCH_NORM_EPS = 1e-3
BATCH_NORM_MOMENTUM = 0.03

# In place only where the backward pass reads the output: the others would copy their input first.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,
    "relu": partial(nn.ReLU, inplace=True),
    "relu6": partial(nn.ReLU6, inplace=True),
    "hardswish": nn.Hardswish,
}


class Conv(nn.Module):
    """Convolution, batch norm, activation; `fold` turns the first two into one convolution with a bias."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, activation: str = "silu") -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(c2, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_MOMENTUM)
        self.act = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y

    def fold(self) -> None:
        """Folds the running statistics into the convolution; does nothing the second time."""
        if isinstance(self.bn, nn.BatchNorm2d):
            training = self.training
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.bn.eval())
            self.bn = nn.Identity()
            self.train(training)


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, with the input added where `shortcut` asks."""

    def __init__(self, c: int, shortcut: bool, activation: str = "silu") -> None:
        super().__init__()
        self.cv1 = Conv(c, c, 3, 1, activation)
        self.cv2 = Conv(c, c, 3, 1, activation)
        self.add = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C2f(nn.Module):
    """Cross-stage partial block whose n bottlenecks each send their output on to the last convolution."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = False, activation: str = "silu") -> None:
        super().__init__()
        self.c = c2 // 2
        self.cv1 = Conv(c1, 2 * self.c, 1, 1, activation)
        self.cv2 = Conv((2 + n) * self.c, c2, 1, 1, activation)
        self.m = nn.ModuleList(Bottleneck(self.c, shortcut, activation) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).split(self.c, 1))
        for bottleneck in self.m:
            parts.append(bottleneck(parts[-1]))
        y: Tensor = self.cv2(torch.cat(parts, 1))
        return y


class C2(nn.Module):
    """Cross-stage partial block: one half passes n bottlenecks, the other none."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, activation: str = "silu") -> None:
        super().__init__()
        self.c = c2 // 2
        self.cv1 = Conv(c1, 2 * self.c, 1, 1, activation)
        self.cv2 = Conv(2 * self.c, c2, 1, 1, activation)
        self.m = nn.Sequential(*(Bottleneck(self.c, shortcut, activation) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        worked, passed = self.cv1(x).split(self.c, 1)
        y: Tensor = self.cv2(torch.cat((self.m(worked), passed), 1))
        return y


class SPPF(nn.Module):
    """Spatial pyramid pooling: three max pools of size k in a row see what one of 1, k, 2k-1 and 3k-2 each would."""

    def __init__(self, c1: int, c2: int, k: int = 5, activation: str = "silu") -> None:
        super().__init__()
        self.cv1 = Conv(c1, c1 // 2, 1, 1, activation)
        self.cv2 = Conv(c1 // 2 * 4, c2, 1, 1, activation)
        self.m = nn.MaxPool2d(k, 1, k // 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(self.m(parts[-1]))
        y: Tensor = self.cv2(torch.cat(parts, 1))
        return y


class Concat(nn.Module):
    """Joins feature maps of one size along the channels."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat(maps, 1)


class Upsample(nn.Upsample):
    """Nearest-neighbour enlargement by a whole factor."""

    def __init__(self, factor: int = 2) -> None:
        super().__init__(scale_factor=float(factor), mode="nearest")
