"""Box overlap and the distance distributions' loss."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-7


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """Complete IoU of boxes a and b, (P, 4) x1, y1, x2, y2 each: (P,), at most 1 (Zheng et al., 2020).

    IoU - centre distance² / enclosing diagonal² - alpha v, with v the difference of the aspect angles; as in the
    paper, alpha passes no gradient.
    """
    ax1, ay1, ax2, ay2 = a.unbind(-1)
    bx1, by1, bx2, by2 = b.unbind(-1)
    aw, ah, bw, bh = ax2 - ax1, ay2 - ay1 + EPS, bx2 - bx1, by2 - by1 + EPS
    across = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp_min(0)
    down = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp_min(0)
    inter = across * down
    iou = inter / (aw * ah + bw * bh - inter + EPS)
    width = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    height = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    apart = ((bx1 + bx2 - ax1 - ax2) ** 2 + (by1 + by2 - ay1 - ay2) ** 2) / 4
    v = (torch.atan(bw / bh) - torch.atan(aw / ah)) ** 2 * (4 / math.pi**2)
    with torch.no_grad():
        alpha = v / (v - iou + (1 + EPS))
    return iou - apart / (width**2 + height**2 + EPS) - alpha * v


def expected_distances(logits: Tensor, reg_max: int) -> Tensor:
    """Distances left, top, right, bottom in strides, (R, 4), from their distributions' logits (R, 4 * reg_max)."""
    bins = torch.arange(reg_max, dtype=logits.dtype, device=logits.device)
    return logits.view(-1, 4, reg_max).softmax(2) @ bins


def boxes_around(centres: Tensor, distances: Tensor) -> Tensor:
    """x1, y1, x2, y2 (R, 4) of boxes that reach `distances` (left, top, right, bottom) from their centres (R, 2)."""
    return torch.cat((centres - distances[:, :2], centres + distances[:, 2:]), 1)


def distances_to_sides(centres: Tensor, boxes: Tensor) -> Tensor:
    """Left, top, right, bottom (R, 4): what `boxes_around` makes the boxes (R, 4) of; negative outside of them."""
    return torch.cat((centres - boxes[:, :2], boxes[:, 2:] - centres), 1)


def distribution_focal_loss(logits: Tensor, distances: Tensor, reg_max: int) -> Tensor:
    """Distribution focal loss (Li et al., 2020), mean of the four sides: (R,).

    logits: (R, 4 * reg_max); distances: (R, 4) in strides, cut to what the bins can say. Cross-entropy with the two
    bins beside each distance, weighted by nearness.
    """
    target = distances.clamp(0, reg_max - 1 - 0.01)
    low = target.floor()
    upper = target - low
    log_p = F.log_softmax(logits.view(-1, 4, reg_max), 2)
    index = low.long().unsqueeze(2)
    below = log_p.gather(2, index).squeeze(2)
    above = log_p.gather(2, index + 1).squeeze(2)
    return -(below * (1 - upper) + above * upper).mean(1)
