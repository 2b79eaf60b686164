"""The training loss of pose networks.

A batch is a dict of tensors:

    images              (B, 3, H, W) uint8 or float; not read here
    batch_idx           (M,) picture of each labelled instance
    cls                 (M,) its class
    boxes               (M, 4) x centre, y centre, width, height as parts of the picture's size
    keypoints           (M, K, 3) x, y as parts of the picture's size, and v, 0 where the point is not labelled; or
                        (M, K, 2) where kpt_shape is [K, 2] and each point is labelled
    keypoint_known      (M, K) bool; False: neither place nor visibility of this point is learned. Optional: all True
    background_weight   (B,) float; how much a cell outside all labelled boxes of the picture learns that nothing is
                        there: 1 in fully labelled pictures, less where people may be unlabelled. Optional: 1
    background_ignore   (B,) float; cells outside all labelled boxes with a predicted score above this learn nothing:
                        there may be an unlabelled person. Optional: 1, which ignores none
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from edgepose_trainer.loss.assigner import Assignment, Cells, assign, make_cells
from edgepose_trainer.loss.boxes import (
    boxes_around,
    ciou,
    distances_to_sides,
    distribution_focal_loss,
    expected_distances,
)
from edgepose_trainer.loss.heatmaps import heatmap_loss, heatmap_targets, heatmap_weights
from edgepose_trainer.loss.keypoints import (
    default_sigmas,
    keypoint_distance_loss,
    keypoint_similarity_loss,
    visibility_loss,
)
from edgepose_trainer.loss.poses import poses_at_peaks
from edgepose_trainer.nn.head import RawHeads
from edgepose_trainer.nn.network import PoseNetwork

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Gains:
    """What each part of the loss counts."""

    box: float = 7.5
    pose: float = 12.0
    kobj: float = 1.0
    cls: float = 0.5
    dfl: float = 1.5
    pose_l1: float = 0.0
    heatmap: float = 2.0


class PoseLoss:
    """Box (CIoU), pose (OKS, and L1 distance where that has a gain), keypoint visibility, class and distance
    distribution (DFL) losses.

    `loss, items = criterion(raw_heads, batch)`: items are the five parts with their gains, detached scalars in the
    order box, pose, kobj, cls, dfl; loss is their sum x pictures in the batch, to call backward on.

    A network with heatmaps learns in its class targets also how good the pose is that the decoder makes of them: they
    are the published ones x OKS² (RTMO, Lu et al., 2024, learns the OKS). And only cells whose distributions reach all
    sides of a box, reg_max - 1 strides, learn it: training that begins with small pictures can leave every person to
    the finest level, and the coarser ones, which would hold the large people of large pictures, never win any back.

    box, cls and dfl are divided by the sum of the target scores (at least 1), pose by the positives, kobj by their
    known keypoints. sigmas: (K,) of the keypoints; None: COCO's for 17, else 1 / K.
    distributed: divide by the sums over all processes of torch.distributed, with one all_reduce a call. The gradients
    that DDP averages are then those of one process with the whole batch, and the mean of the processes' items is its
    items. Every process must make the call.
    """

    def __init__(
        self,
        model: PoseNetwork,
        gains: Gains | Mapping[str, float] | None = None,
        sigmas: Sequence[float] | None = None,
        *,
        distributed: bool = False,
    ) -> None:
        self.gains = gains if isinstance(gains, Gains) else Gains(**(gains or {}))
        self.nc, self.reg_max, self.strides = model.nc, model.reg_max, model.strides
        self.kpt_shape = model.kpt_shape
        sigmas = default_sigmas(self.kpt_shape[0]) if sigmas is None else sigmas
        if len(sigmas) != self.kpt_shape[0] or not all(sigma > 0 for sigma in sigmas):
            raise ValueError(f"expected {self.kpt_shape[0]} positive sigmas, one a keypoint, got {list(sigmas)}")
        self.sigmas = torch.tensor(sigmas, dtype=torch.float32)
        self.distributed = distributed
        self._kept_cells: dict[tuple[object, ...], Cells] = {}

    def __call__(self, raw: RawHeads, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        cells = self._cells(raw)
        targets = _Targets(batch, raw, self.strides[0], self.nc, self.kpt_shape)
        logits = torch.cat([_rows(level).float() for level in raw.score])
        found = assign(
            targets.boxes,
            targets.classes,
            targets.pictures,
            cells,
            logits.detach().sigmoid(),
            lambda rows: self._predicted_boxes(raw, rows, cells),
            reach=None if raw.heatmap is None or self.reg_max == 1 else self.reg_max - 1,
        )
        place = _Place(found, targets, cells)
        box, dfl = self._box_sums(raw, found, place, cells)
        pose, kobj, instances, points = self._keypoint_sums(raw, found, place, targets, cells)
        wanted = found.scores
        if raw.heatmap is not None:
            maps = F.pixel_shuffle(raw.heatmap.float(), 2)
            pose = pose + self.gains.heatmap * self._heatmap_mean(maps, targets) * instances
            # Squared, as the decoder takes the root of score x support by the peaks.
            wanted = wanted * self._pose_qualities(raw, maps, found, targets, cells).square()
        cls = _class_sum(logits, found, wanted, targets, cells)
        scores, instances, points, pictures = self._normalizers(found, instances, points, len(raw.score[0]))
        items = {
            "box": self.gains.box * box / scores,
            "pose": pose / instances,
            "kobj": self.gains.kobj * kobj / points,
            "cls": self.gains.cls * cls / scores,
            "dfl": self.gains.dfl * dfl / scores,
        }
        loss = torch.stack(list(items.values())).sum() * pictures
        return loss, {name: item.detach() for name, item in items.items()}

    def _cells(self, raw: RawHeads) -> Cells:
        sizes = [(level.shape[2], level.shape[3]) for level in raw.box]
        batch, device = len(raw.box[0]), raw.box[0].device
        key = (tuple(sizes), batch, device)
        if key not in self._kept_cells:
            self._kept_cells = {key: make_cells(sizes, self.strides, batch, device)}
            self.sigmas = self.sigmas.to(device)
        return self._kept_cells[key]

    @torch.no_grad()
    def _predicted_boxes(self, raw: RawHeads, rows: Tensor, cells: Cells) -> Tensor:
        """(T, 4) x1, y1, x2, y2 in pixels."""
        cell = cells.cell[rows]
        distances = expected_distances(_pick(raw.box, rows, cells), self.reg_max)
        return boxes_around(cells.index[cell] + 0.5, distances) * cells.stride[cell, None]

    def _box_sums(self, raw: RawHeads, found: Assignment, place: _Place, cells: Cells) -> tuple[Tensor, Tensor]:
        """CIoU and DFL losses, summed with the target scores as weights."""
        logits = _pick(raw.box, found.rows, cells)
        centres = place.index + 0.5
        overlap = ciou(boxes_around(centres, expected_distances(logits, self.reg_max)), place.boxes)
        spread = distribution_focal_loss(logits, distances_to_sides(centres, place.boxes), self.reg_max)
        return ((1 - overlap) * found.scores).sum(), (spread * found.scores).sum()

    def _keypoint_sums(
        self, raw: RawHeads, found: Assignment, place: _Place, targets: _Targets, cells: Cells
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pose losses with their gains, visibility losses, then the instances and keypoints that they are sums over."""
        points = _pick(raw.keypoints, found.rows, cells).view(-1, *self.kpt_shape)
        visible, known = targets.visible[found.labels], targets.known[found.labels]
        places = points[:, :, :2] * 2 + place.index[:, None]
        area = (place.boxes[:, 2:] - place.boxes[:, :2]).prod(1)
        pose = self.gains.pose * keypoint_similarity_loss(places, place.keypoints, visible, area, self.sigmas).sum()
        if self.gains.pose_l1:
            pose = pose + self.gains.pose_l1 * keypoint_distance_loss(places, place.keypoints, visible, area).sum()
        instances = known.any(1).sum()
        if self.kpt_shape[1] == 2:
            return pose, pose.new_zeros(()), instances, instances
        kobj, count = visibility_loss(points[:, :, 2], visible, known)
        return pose, kobj, instances, count

    @torch.no_grad()
    def _pose_qualities(
        self, raw: RawHeads, maps: Tensor, found: Assignment, targets: _Targets, cells: Cells
    ) -> Tensor:
        """(F,) OKS of the pose that each positive's label is found with, by the label's best positive. maps: logits
        (B, K, H, W) of half the finest stride."""
        best = _best_positives(found)
        labels = found.labels[best]
        rows, cell = found.rows[best], self.strides[0] / 2
        number = cells.cell[rows]
        points = _pick(raw.keypoints, rows, cells).view(-1, *self.kpt_shape)[:, :, :2]
        points = (points * 2 + cells.index[number, None]) * (cells.stride[number, None, None] / cell)
        boxes = targets.boxes[labels] / cell
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        poses = poses_at_peaks(points, area, maps.sigmoid(), targets.pictures[labels])
        visible = targets.visible[labels]
        loss = keypoint_similarity_loss(poses, targets.keypoints[labels] / cell, visible, area, self.sigmas)
        quality = torch.ones(len(targets.boxes), device=loss.device)
        quality[labels] = 1 - loss
        return quality[found.labels]

    def _heatmap_mean(self, logits: Tensor, targets: _Targets) -> Tensor:
        """The heatmaps' loss over the batch, divided by the keypoints that they show. logits: (B, K, H, W)."""
        shape = (len(logits), *logits.shape[2:])
        cell = self.strides[0] / 2
        boxes = targets.boxes / cell
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        wanted = heatmap_targets(targets.keypoints / cell, targets.visible, area, targets.pictures, self.sigmas, shape)
        weights = heatmap_weights(boxes, targets.known, targets.pictures, targets.background_weight, shape)
        return heatmap_loss(logits, wanted, weights.maximum(wanted)) / targets.visible.sum().clamp_min(1)

    def _normalizers(self, found: Assignment, instances: Tensor, points: Tensor, pictures: int) -> list[Tensor]:
        """What the sums are divided by (at least 1 each), and the pictures that the loss counts."""
        total = found.scores.new_tensor
        values = torch.stack((found.scores.sum(), total(0) + instances, total(0) + points, total(float(pictures))))
        if not self.distributed:
            return list(values.clamp_min(1))
        dist.all_reduce(values)
        *divisors, all_pictures = values.clamp_min(1)
        return [*(divisor / dist.get_world_size() for divisor in divisors), all_pictures]


class _Targets:
    """A batch's labels, checked, in input pixels."""

    def __init__(self, batch: Batch, raw: RawHeads, stride: int, nc: int, kpt_shape: tuple[int, int]) -> None:
        height, width = (side * stride for side in raw.box[0].shape[2:])
        pictures, device = len(raw.box[0]), raw.box[0].device
        size = torch.tensor((width, height), dtype=torch.float32, device=device)
        _check_range(batch["cls"], nc, "cls")
        _check_range(batch["batch_idx"], pictures, "batch_idx")
        self.pictures = batch["batch_idx"].to(device).long().flatten()
        self.classes = batch["cls"].to(device).long().flatten()
        boxes, keypoints = batch["boxes"].to(device).float(), batch["keypoints"].to(device).float()
        count = len(self.pictures)
        shapes = ((count, kpt_shape[0], 3), (count, *kpt_shape))
        if len(self.classes) != count or boxes.shape != (count, 4) or keypoints.shape not in shapes:
            raise ValueError(
                f"a batch of {count} labels for keypoints {kpt_shape} needs cls ({count},), boxes ({count}, 4) and "
                f"keypoints ({count}, {kpt_shape[0]}, {kpt_shape[1]}); got {tuple(batch['cls'].shape)}, "
                f"{tuple(boxes.shape)} and {tuple(keypoints.shape)}"
            )
        half = boxes[:, 2:] / 2
        self.boxes = torch.cat((boxes[:, :2] - half, boxes[:, :2] + half), 1) * size.repeat(2)
        self.keypoints = keypoints[:, :, :2] * size
        known = batch.get("keypoint_known")
        every = torch.ones(count, kpt_shape[0], dtype=torch.bool, device=device)
        self.known = every if known is None else known.to(device).bool()
        self.visible = self.known & (keypoints[:, :, 2] != 0) if keypoints.shape[2] == 3 else self.known
        self.background_weight = _partly(batch.get("background_weight"), device)
        self.background_ignore = _partly(batch.get("background_ignore"), device)


class _Place:
    """Where the positives are and what they learn, in units of their cell's stride."""

    def __init__(self, found: Assignment, targets: _Targets, cells: Cells) -> None:
        cell = cells.cell[found.rows]
        stride = cells.stride[cell, None]
        self.index = cells.index[cell]
        self.boxes = targets.boxes[found.labels] / stride
        self.keypoints = targets.keypoints[found.labels] / stride[:, :, None]


def _check_range(values: Tensor, count: int, name: str) -> None:
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < count:
        raise ValueError(f"{name} must be in 0..{count - 1}, got {int(values.min())}..{int(values.max())}")


def _partly(values: Tensor | None, device: torch.device) -> Tensor | None:
    """(B,) of a batch where some picture is partly labelled, None where none is."""
    if values is None or bool((values == 1).all()):
        return None
    return values.to(device).float()


def _rows(level: Tensor) -> Tensor:
    """(B, C, H, W) as (B * H * W, C): a view where the memory format is channels_last."""
    return level.permute(0, 2, 3, 1).reshape(-1, level.shape[1])


def _pick(levels: list[Tensor], rows: Tensor, cells: Cells) -> Tensor:
    """float32 values (F, C) at ascending rows. Every level is read, so that each gets its (zero) gradient."""
    edges = torch.tensor(cells.bounds, device=rows.device)
    ends = torch.searchsorted(rows, edges).tolist()
    picked = [
        _rows(level).index_select(0, rows[begin:end] - bound)
        for level, begin, end, bound in zip(levels, ends, ends[1:], cells.bounds, strict=False)
    ]
    return torch.cat(picked).float()


def _best_positives(found: Assignment) -> Tensor:
    """Which positive is the best of its label: for each label that has some, its place among them, ascending."""
    order = found.scores.argsort(descending=True)
    order = order[found.labels[order].argsort(stable=True)]
    labels = found.labels[order]
    first = torch.ones_like(labels, dtype=torch.bool)
    first[1:] = labels[1:] != labels[:-1]
    return order[first].sort().values


def _class_sum(logits: Tensor, found: Assignment, wanted: Tensor, targets: _Targets, cells: Cells) -> Tensor:
    """Binary cross-entropy of all cells and classes, summed: softplus(x) - x * target, as few targets are not 0.
    wanted: (F,) targets of the positives."""
    background = F.softplus(logits).sum(1)
    weight = _background_weights(logits, found, targets, cells)
    total = background.sum() if weight is None else (background * weight).sum()
    return total - (logits[found.rows, targets.classes[found.labels]] * wanted).sum()


@torch.no_grad()
def _background_weights(logits: Tensor, found: Assignment, targets: _Targets, cells: Cells) -> Tensor | None:
    """(R,) weight of each row, None where all are 1. Cells inside a labelled box are known: they weigh 1."""
    if targets.background_weight is None and targets.background_ignore is None:
        return None
    weight = torch.ones(len(logits), device=logits.device)
    if targets.background_weight is not None:
        weight = targets.background_weight[cells.picture]
    if targets.background_ignore is not None:
        confident = logits.amax(1).sigmoid() > targets.background_ignore[cells.picture]
        weight = weight.masked_fill(confident, 0)
    return weight.index_fill(0, found.touched, 1)
