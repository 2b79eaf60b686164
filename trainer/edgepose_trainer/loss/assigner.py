"""Task-aligned assignment (TOOD, Feng et al., 2021): which cells learn which labelled person.

Only cells whose centre lies in a labelled box can be chosen, so the work is done on those (label, cell) pairs, not on
the full labels x cells table of every picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from edgepose_trainer.loss.boxes import ciou, distances_to_sides

EPS = 1e-9


@dataclass(frozen=True)
class Assignment:
    """F positives in ascending order of row, each row once.

    rows: cell among all pictures' cells (see `Cells`); labels: label learned there; scores: target score in 0..1.
    touched: all rows, ascending, whose centre lies in some labelled box.
    """

    rows: Tensor
    labels: Tensor
    scores: Tensor
    touched: Tensor


@dataclass(frozen=True)
class Cells:
    """The N cells of one picture, finest level first, and the R rows that those of a whole batch make.

    Rows count level by level, within a level picture by picture, so that one level's rows are one piece.
    index: (N, 2) column and row in the level's grid; stride: (N,); start, count: (N,) with the row of cell n in
    picture b = start + b * count; cell, picture: (R,) of each row; bounds: first row of each level, and R;
    sizes, strides: (height, width) and stride of each level.
    """

    index: Tensor
    stride: Tensor
    start: Tensor
    count: Tensor
    cell: Tensor
    picture: Tensor
    bounds: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]
    strides: tuple[int, ...]


def make_cells(sizes: list[tuple[int, int]], strides: list[int], batch: int, device: torch.device) -> Cells:
    """The cells of levels of the given (height, width)."""
    numbers = [torch.arange(height * width, device=device) for height, width in sizes]
    bounds = [0]
    for number in numbers:
        bounds.append(bounds[-1] + batch * len(number))
    before = [bound // batch for bound in bounds]
    picture = torch.arange(batch, device=device)
    return Cells(
        index=torch.cat([torch.stack((n % w, n // w), 1) for n, (_, w) in zip(numbers, sizes, strict=True)]).float(),
        stride=torch.cat([torch.full_like(n, s) for n, s in zip(numbers, strides, strict=True)]).float(),
        start=torch.cat([n + bound for n, bound in zip(numbers, bounds, strict=False)]),
        count=torch.cat([torch.full_like(n, len(n)) for n in numbers]),
        cell=torch.cat([(n + first).repeat(batch) for n, first in zip(numbers, before, strict=False)]),
        picture=torch.cat([picture.repeat_interleave(len(n)) for n in numbers]),
        bounds=tuple(bounds),
        sizes=tuple(sizes),
        strides=tuple(strides),
    )


def cells_in_boxes(cells: Cells, boxes: Tensor) -> Tensor:
    """(M, N): whether the centre of cell n lies inside box m, (M, 4) x1, y1, x2, y2 in pixels; borders are outside."""
    x1, y1, x2, y2 = (side.unsqueeze(1) for side in boxes.unbind(1))
    levels = []
    for (height, width), stride in zip(cells.sizes, cells.strides, strict=True):
        x = (torch.arange(width, device=boxes.device) + 0.5) * stride
        y = (torch.arange(height, device=boxes.device) + 0.5) * stride
        across = (x - x1 > EPS) & (x2 - x > EPS)
        down = (y - y1 > EPS) & (y2 - y > EPS)
        levels.append((down.unsqueeze(2) & across.unsqueeze(1)).flatten(1))
    return torch.cat(levels, 1)


@torch.no_grad()
def assign(
    boxes: Tensor,
    classes: Tensor,
    pictures: Tensor,
    cells: Cells,
    scores: Tensor,
    predict_boxes: Callable[[Tensor], Tensor],
    *,
    topk: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
    reach: float | None = None,
) -> Assignment:
    """Chooses the positives of a batch.

    boxes: (M, 4) labelled boxes in input pixels; classes, pictures: (M,) their class and picture; scores: (R, nc)
    predicted probabilities of all rows; predict_boxes: predicted boxes (T, 4) in pixels of the T rows it is given.

    The alignment of label and cell is score^alpha * CIoU^beta. Each label takes the `topk` best aligned cells inside
    its box; a cell that several take goes to the label it overlaps most. The target score is the alignment, scaled so
    that each label's best one is its best overlap.

    reach: the most strides from a cell's centre to a side of its label's box; farther cells are left to coarser levels,
    of which the last takes any box. None: no limit, as published.
    """
    label, cell = cells_in_boxes(cells, boxes).nonzero(as_tuple=True)
    row = cells.start[cell] + pictures[label] * cells.count[cell]
    touched, place = _distinct(row, len(scores))
    if reach is not None:
        near = _within_reach(cells, cell, boxes[label], reach)
        label, cell, row, place = label[near], cell[near], row[near], place[near]
    overlap = ciou(boxes[label], predict_boxes(touched)[place]).clamp_min(0)
    alignment = scores[row, classes[label]] ** alpha * overlap**beta

    chosen = _best_of_each_label(label, cell, alignment, len(boxes), len(cells.stride), topk)
    kept = _one_label_a_cell(label, place, overlap, chosen, len(touched))
    label, row, overlap, alignment = label[kept], row[kept], overlap[kept], alignment[kept]
    best_alignment = _largest(alignment, label, len(boxes))
    best_overlap = _largest(overlap, label, len(boxes))
    target = alignment * best_overlap[label] / (best_alignment[label] + EPS)
    order = row.argsort()
    return Assignment(row[order], label[order], target[order], touched)


def _within_reach(cells: Cells, cell: Tensor, boxes: Tensor, reach: float) -> Tensor:
    """(P,): whether no side of the box (P, 4) is more than `reach` strides from the cell's centre, or its level is the
    coarsest."""
    stride = cells.stride[cell]
    farthest = distances_to_sides(cells.index[cell] + 0.5, boxes / stride[:, None]).amax(1)
    return (farthest <= reach) | (stride == cells.stride[-1])


def _distinct(row: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """The distinct rows in ascending order, and the place of each row among them."""
    seen = torch.zeros(total, dtype=torch.bool, device=row.device)
    seen[row] = True
    return seen.nonzero().squeeze(1), (seen.cumsum(0) - 1)[row]


def _best_of_each_label(label: Tensor, cell: Tensor, alignment: Tensor, labels: int, cells: int, topk: int) -> Tensor:
    """Which pairs are among the topk best of their label; a pair without any alignment never is."""
    table = alignment.new_zeros(labels, cells)
    table[label, cell] = alignment
    values, best = table.topk(min(topk, cells), 1)
    chosen = torch.zeros(labels, cells, dtype=torch.bool, device=label.device)
    chosen.scatter_(1, best, values > 0)
    return chosen[label, cell]


def _one_label_a_cell(label: Tensor, place: Tensor, overlap: Tensor, chosen: Tensor, places: int) -> Tensor:
    """Pairs that remain when a cell chosen more than once goes to the label it overlaps most (of equals, the first)."""
    times = torch.zeros(places, dtype=torch.long, device=place.device).index_add_(0, place, chosen.long())[place]
    most = overlap == _largest(overlap, place, places)[place]
    unused = torch.iinfo(torch.long).max
    first = torch.full((places,), unused, device=place.device)
    first = first.scatter_reduce(0, place, torch.where(most, label, unused), "amin")[place]
    return torch.where(times > 1, label == first, chosen)


def _largest(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """The largest of the non-negative values in each group, 0 where there is none."""
    return values.new_zeros(groups).scatter_reduce(0, group, values, "amax")
