"""The pose head: boxes as distance distributions, class logits and keypoints at every cell of every level.

Generalized Focal Loss (Li et al., 2020) for the boxes' distributions; the keypoints are read as
x = (2 raw_x + column) * stride, y likewise, visibility = sigmoid(raw_v).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from edgepose_trainer.nn.blocks import Conv, Upsample


class RawHeads(NamedTuple):
    """What the network says before decoding, one tensor a level, finest level first.

    box: (B, 4 * reg_max, H, W) logits of the distances left, top, right, bottom;
    score: (B, nc, H, W) class logits; keypoints: (B, K * D, H, W), x, y (and visibility logit) interleaved.
    heatmap: (B, 4 * K, H, W) of the finest level, where the network has one, else None: logits that keypoint k lies in
    the quarter (dy, dx) of a cell, at channel 4 k + 2 dy + dx (`pixel_shuffle` makes them K maps of half the stride).
    """

    box: list[Tensor]
    score: list[Tensor]
    keypoints: list[Tensor]
    heatmap: Tensor | None = None

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them: box, score and keypoints of each level, then the heatmap, if there is one."""
        heatmap = () if self.heatmap is None else (self.heatmap,)
        return (*self.box, *self.score, *self.keypoints, *heatmap)


class DFL(nn.Module):
    """Expectation of each side's distance distribution: (B, 4 * reg_max, N) logits to (B, 4, N) in strides."""

    def __init__(self, reg_max: int) -> None:
        super().__init__()
        self.reg_max = reg_max
        self.conv = nn.Conv2d(reg_max, 1, 1, bias=False).requires_grad_(False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.arange(reg_max, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        batch, _, cells = x.shape
        weights = x.view(batch, 4, self.reg_max, cells).transpose(1, 2).softmax(1)
        distances: Tensor = self.conv(weights)
        return distances.view(batch, 4, cells)


class Context(nn.Module):
    """The two finest maps, each with what both together show of their wider surroundings added: which knee is the left
    one is seen far from the knee. A new one adds nothing, so a trained network can be given one.

    fine, coarse: their channels; ratio: of their strides.
    """

    def __init__(self, fine: int, coarse: int, ratio: int, activation: str) -> None:
        super().__init__()
        self.down, self.up = Conv(fine, fine, 3, ratio, activation), Upsample(ratio)
        self.mix = nn.Sequential(
            Conv(fine + coarse, coarse, 3, 1, activation),
            Conv(coarse, coarse, 3, 1, activation),
            Conv(coarse, coarse, 3, 1, activation),
        )
        self.to_fine, self.to_coarse = nn.Conv2d(coarse, fine, 1), nn.Conv2d(coarse, coarse, 1)
        for last in (self.to_fine, self.to_coarse):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, fine: Tensor, coarse: Tensor) -> list[Tensor]:
        wide = self.mix(torch.cat((self.down(fine), coarse), 1))
        return [fine + self.up(self.to_fine(wide)), coarse + self.to_coarse(wide)]


class Pose(nn.Module):
    """The head's three branches a level: cv2 for boxes, cv3 for scores, cv4 for keypoints; and where heatmaps are asked
    for, one at the finest level for these, and before all branches a `Context`.

    channels, strides: of the feature maps, finest first. The box branch is made to hold its 4 * reg_max logits, the
    score branch the finest map's channels, as published.
    """

    def __init__(
        self,
        nc: int,
        kpt_shape: tuple[int, int],
        channels: list[int],
        strides: list[int],
        reg_max: int = 16,
        activation: str = "silu",
        heatmap: bool = False,
    ) -> None:
        super().__init__()
        self.nc, self.kpt_shape, self.reg_max, self.strides = nc, kpt_shape, reg_max, list(strides)
        points = kpt_shape[0] * kpt_shape[1]
        box_width = max(16, channels[0] // 4, 4 * reg_max)
        score_width = max(channels[0], min(nc, 100))
        point_width = max(channels[0] // 4, points)
        self.cv2 = nn.ModuleList(_branch(c, box_width, 4 * reg_max, activation) for c in channels)
        self.cv3 = nn.ModuleList(_branch(c, score_width, nc, activation) for c in channels)
        self.cv4 = nn.ModuleList(_branch(c, point_width, points, activation) for c in channels)
        self.heatmap = _branch(channels[0], channels[0], 4 * kpt_shape[0], activation) if heatmap else None
        self.context = None
        if heatmap and len(channels) > 1:
            self.context = Context(channels[0], channels[1], strides[1] // strides[0], activation)
        self.dfl = DFL(reg_max)
        self._set_priors()

    def _set_priors(self) -> None:
        """Biases that make the first epochs calm: short equal distances, and a score of some 5 people a picture."""
        with torch.no_grad():
            for box, score, stride in zip(self.cv2, self.cv3, self.strides, strict=True):
                _last_bias(box).fill_(1.0)
                _last_bias(score).fill_(math.log(5 / self.nc / (640 / stride) ** 2))
            if self.heatmap is not None:
                _last_bias(self.heatmap).fill_(math.log(0.01 / 0.99))

    def in_context(self, maps: list[Tensor]) -> list[Tensor]:
        """The maps that the branches read."""
        return maps if self.context is None else [*self.context(*maps[:2]), *maps[2:]]

    def forward(self, maps: list[Tensor]) -> RawHeads:
        maps = self.in_context(maps)
        return RawHeads(
            [branch(x) for branch, x in zip(self.cv2, maps, strict=True)],
            [branch(x) for branch, x in zip(self.cv3, maps, strict=True)],
            [branch(x) for branch, x in zip(self.cv4, maps, strict=True)],
            self.heatmap(maps[0]) if self.heatmap is not None else None,
        )

    def decode(self, raw: RawHeads) -> Tensor:
        """(B, 4 + nc + K * D, N) in input pixels: cx, cy, w, h, class scores, keypoints (visibility as a probability).

        N counts the cells of all levels, finest level first, row by row.
        """
        cells, strides = self._cells(raw.box)
        distances = self.dfl(_flat(raw.box))
        low, high = cells + 0.5 - distances[:, :2], cells + 0.5 + distances[:, 2:]
        box = torch.cat(((low + high) / 2, high - low), 1) * strides
        points = _flat(raw.keypoints)
        batch, _, count = points.shape
        points = points.view(batch, *self.kpt_shape, count)
        places = (points[:, :, :2] * 2.0 + cells) * strides
        if self.kpt_shape[1] == 3:
            places = torch.cat((places, points[:, :, 2:].sigmoid()), 2)
        return torch.cat((box, _flat(raw.score).sigmoid(), places.reshape(batch, -1, count)), 1)

    def _cells(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Column and row of each cell (1, 2, N), and its stride (1, 1, N)."""
        cells, strides = [], []
        for x, stride in zip(maps, self.strides, strict=True):
            height, width = x.shape[2:]
            column = torch.arange(width, device=x.device, dtype=torch.float32).expand(height, width)
            row = torch.arange(height, device=x.device, dtype=torch.float32).unsqueeze(1).expand(height, width)
            cells.append(torch.stack((column, row)).reshape(1, 2, height * width))
            strides.append(torch.full((1, 1, height * width), float(stride), device=x.device))
        return torch.cat(cells, 2), torch.cat(strides, 2)


def _branch(c: int, width: int, out: int, activation: str) -> nn.Sequential:
    return nn.Sequential(
        Conv(c, width, 3, 1, activation), Conv(width, width, 3, 1, activation), nn.Conv2d(width, out, 1)
    )


def _last_bias(branch: nn.Module) -> Tensor:
    assert isinstance(branch, nn.Sequential)
    last = branch[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    return last.bias


def _flat(maps: list[Tensor]) -> Tensor:
    """Maps (B, C, H, W) to one float32 (B, C, N)."""
    return torch.cat([x.float().flatten(2) for x in maps], 2)
