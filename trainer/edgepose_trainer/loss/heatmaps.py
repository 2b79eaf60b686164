"""The keypoints' heatmaps: what they are to show, and their loss.

Each keypoint of every person is a Gaussian bump in that keypoint's map (Tompson et al., 2014); where people overlap
the larger value counts. The loss is the quality focal loss (Li et al., 2020, eq. 4), for targets of any number in 0..1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SHARE_OF_SIGMA = 0.5  # a bump's deviation, of the one at which OKS calls the point as good as exp(-1/2)
MIN_DEVIATION, MAX_DEVIATION = 1.0, 3.0  # in cells
WINDOW = 13  # cells to each side of a bump's middle; beyond, it is below 0.0001


def heatmap_targets(
    keypoints: Tensor, visible: Tensor, area: Tensor, pictures: Tensor, sigmas: Tensor, shape: tuple[int, int, int]
) -> Tensor:
    """(B, K, H, W) in 0..1. keypoints: (M, K, 2) in cells of the map, 0 at the first cell's edge; visible: (M, K) bool;
    area: (M,) in cells; pictures: (M,) each person's picture; sigmas: (K,); shape: (B, H, W)."""
    batch, height, width = shape
    count = keypoints.shape[1]
    person, point = visible.nonzero(as_tuple=True)
    deviation = SHARE_OF_SIGMA * 2 * sigmas[point] * area[person].sqrt()
    spread = deviation.clamp(MIN_DEVIATION, MAX_DEVIATION).square()[:, None] * 2
    place = keypoints[person, point]
    columns, across = _span(place[:, :1], spread, width)
    rows, down = _span(place[:, 1:], spread, height)
    bumps = (-down).exp()[:, :, None] * (-across).exp()[:, None]
    cells = ((pictures[person] * count + point)[:, None] * height + rows)[:, :, None] * width + columns[:, None]
    target = keypoints.new_zeros(batch * count * height * width)
    target.scatter_reduce_(0, cells.flatten(), bumps.flatten(), "amax")
    return target.view(batch, count, height, width)


def _span(middle: Tensor, spread: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The cells of one axis near `middle` (P, 1), and their squared distances from it over `spread` (P, 1). Both (P,
    2 * WINDOW + 1); cells that would lie outside are the nearest ones inside, at their own distance."""
    cell = (middle.floor() + torch.arange(-WINDOW, WINDOW + 1, device=middle.device)).clamp(0, side - 1)
    return cell.long(), (cell + 0.5 - middle).square() / spread


def heatmap_weights(
    boxes: Tensor, known: Tensor, pictures: Tensor, background: Tensor | None, shape: tuple[int, int, int]
) -> Tensor:
    """(B, K, H, W): 0 in the boxes of people whose point is unknown, elsewhere 1 in the boxes of people whose point is
    known, and outside all boxes the picture's background weight. boxes: (M, 4) x1, y1, x2, y2 in cells; known: (M, K)
    bool; pictures: (M,); background: (B,) or None, which is 1 everywhere."""
    batch, height, width = shape
    number = (pictures[:, None] == pictures).tril(-1).sum(1)  # of each person among those of the same picture
    most = int(number.max()) + 1 if len(number) else 0

    def spread(rows: Tensor) -> Tensor:
        """(M, C) as (B, most, C), 0 where a picture has fewer people."""
        return rows.new_zeros(batch, most, rows.shape[1]).index_put_((pictures, number), rows)

    down, across = spread(_inside(boxes[:, 1::2], height)), spread(_inside(boxes[:, 0::2], width))

    def covered(points: Tensor) -> Tensor:
        """Cells in the box of anybody with that point."""
        chosen = spread(points.float())
        columns = (chosen[:, :, :, None] * down[:, :, None]).flatten(2).transpose(1, 2)
        return (columns @ across).view(batch, -1, height, width) > 0

    weights = boxes.new_ones(batch, known.shape[1], height, width)
    if background is not None:
        weights = torch.where(covered(known), weights, background[:, None, None, None])
    return weights.masked_fill_(covered(~known), 0)


def _inside(spans: Tensor, side: int) -> Tensor:
    """(M, side): 1 for the cells that the spans (M, 2) begin, end touch."""
    cell = torch.arange(side, device=spans.device)
    return ((cell >= spans[:, :1].floor()) & (cell < spans[:, 1:].ceil())).float()


def heatmap_loss(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of |target - p|² BCE(p, target) over all cells. All (B, K, H, W)."""
    distance = (target - logits.sigmoid()).square()
    return (weights * distance * F.binary_cross_entropy_with_logits(logits, target, reduction="none")).sum()
