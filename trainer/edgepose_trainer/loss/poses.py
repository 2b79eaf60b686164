"""How good the pose is that a person is found with, once its keypoints have moved to the heatmaps' peaks."""

from __future__ import annotations

import torch
from torch import Tensor

# As edgepose's decoder moves them (csrc/core/heatmap.cpp): how far, in shares of the square root of the box's area,
# and the probability that a peak has at least.
REACH, WINDOW, MIN_PEAK = 0.2, 2.5, 0.1
STEPS = 31  # places a side that are looked at


def poses_at_peaks(keypoints: Tensor, area: Tensor, heatmap: Tensor, pictures: Tensor) -> Tensor:
    """(M, K, 2): each keypoint at its heatmap's strongest peak, weighed by a Gaussian of how far off that is.

    keypoints: (M, K, 2) in cells of the map, 0 at the first cell's edge; area: (M,) of the boxes, in cells; heatmap:
    (B, K, H, W) probabilities; pictures: (M,) each person's picture. A keypoint without a peak stays. Looks at a grid
    of STEPS² places, which for a large person leaves out some cells: the decoder itself looks at all, and then takes
    the peak's centre of mass.
    """
    people, count = keypoints.shape[:2]
    height, width = heatmap.shape[2:]
    steps = torch.linspace(-WINDOW, WINDOW, STEPS, device=keypoints.device)
    nearness = (-steps.square() / 2).exp()
    offsets = steps * (REACH * area.clamp_min(0).sqrt())[:, None, None]
    columns = (keypoints[:, :, :1] + offsets).floor()
    rows = (keypoints[:, :, 1:] + offsets).floor()
    inside = ((rows >= 0) & (rows < height))[:, :, :, None] & ((columns >= 0) & (columns < width))[:, :, None]
    rows, columns = rows.clamp(0, height - 1).long(), columns.clamp(0, width - 1).long()
    places = (rows[:, :, :, None] * width + columns[:, :, None]).flatten(2)
    number = pictures[:, None] * count + torch.arange(count, device=pictures.device)
    peaks = heatmap.take(number[:, :, None] * (height * width) + places) * inside.flatten(2)
    weighed = torch.where(peaks > MIN_PEAK, peaks, 0) * torch.outer(nearness, nearness).flatten()
    best, at = weighed.max(2)
    place = places.gather(2, at[:, :, None]).view(people, count)
    moved = torch.stack((place % width, place // width), 2) + 0.5
    return torch.where(best[:, :, None] > 0, moved, keypoints)
