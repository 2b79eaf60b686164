"""The loss against Ultralytics' numbers, the papers' formulas in plain loops, and the corner cases."""

from __future__ import annotations

import math
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from edgepose_trainer.checkpoint import load_checkpoint  # noqa: E402
from edgepose_trainer.loss import PoseLoss  # noqa: E402
from edgepose_trainer.loss.assigner import assign, cells_in_boxes, make_cells  # noqa: E402
from edgepose_trainer.loss.boxes import ciou, distribution_focal_loss, expected_distances  # noqa: E402
from edgepose_trainer.loss.keypoints import (  # noqa: E402
    default_sigmas,
    keypoint_distance_loss,
    keypoint_similarity_loss,
)
from edgepose_trainer.nn import PoseNetwork, RawHeads, build_model  # noqa: E402

SHARED = Path(__file__).resolve().parents[3] / "shared"
CHECKPOINT = SHARED / "models" / "yolov8n-pose.pt"
REFERENCE = SHARED / "reference" / "yolov8n-pose_320.npz"

CPU = torch.device("cpu")


def tiny(kpt_shape: tuple[int, int] = (3, 3), nc: int = 2) -> PoseNetwork:
    """Two levels of strides 4 and 8, distances up to 7 strides."""
    torch.manual_seed(0)
    document = {
        "nc": nc,
        "kpt_shape": list(kpt_shape),
        "scale": [0.33, 0.125, 64],
        "backbone": {"stem": 64, "stages": [[64, 1], [64, 1]]},
        "neck": {"levels": 2},
        "head": {"reg_max": 8},
    }
    return build_model(document)


def random_heads(model: PoseNetwork, pictures: int = 2, side: int = 64, seed: int = 0) -> RawHeads:
    generator = torch.Generator().manual_seed(seed)
    points = model.kpt_shape[0] * model.kpt_shape[1]
    sizes = [side // stride for stride in model.strides]

    def level(channels: int, n: int) -> torch.Tensor:
        return torch.randn(pictures, channels, n, n, generator=generator).requires_grad_()

    channels = (4 * model.reg_max, model.nc, points)
    return RawHeads(*([level(c, n) for n in sizes] for c in channels))


def random_batch(labels: int, model: PoseNetwork, pictures: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    count, dimensions = model.kpt_shape
    centre = torch.rand(labels, 2, generator=generator)
    size = torch.rand(labels, 2, generator=generator) * 0.6 + 0.02
    keypoints = centre[:, None] + (torch.rand(labels, count, 2, generator=generator) - 0.5) * size[:, None]
    if dimensions == 3:
        v = torch.randint(0, 3, (labels, count, 1), generator=generator)
        keypoints = torch.cat((keypoints, v), 2)
    return {
        "batch_idx": torch.randint(0, pictures, (labels,), generator=generator),
        "cls": torch.randint(0, model.nc, (labels,), generator=generator),
        "boxes": torch.cat((centre, size), 1),
        "keypoints": keypoints,
    }


def gradients(raw: RawHeads) -> list[torch.Tensor]:
    levels = raw.tensors()
    assert all(level.grad is not None for level in levels), "DDP needs a gradient for every output"
    return [level.grad for level in levels]


@pytest.mark.skipif(not REFERENCE.is_file(), reason="needs ../shared/reference")
def test_loss_items_and_gradients_equal_the_reference() -> None:
    reference = np.load(REFERENCE)
    model = load_checkpoint(CHECKPOINT).model
    batch = {
        "batch_idx": torch.from_numpy(reference["batch_idx"]),
        "cls": torch.from_numpy(reference["cls"]),
        "boxes": torch.from_numpy(reference["bboxes_xywhn"]),
        "keypoints": torch.from_numpy(reference["keypoints_xyn_v"]),
    }
    images = torch.from_numpy(reference["images_u8_rgb_nchw"]).float() / 255
    loss, items = PoseLoss(model)(model.raw(images), batch)
    loss.backward()
    np.testing.assert_allclose([float(v) for v in items.values()], reference["loss_items"], rtol=1e-4)
    assert [f"{name}_loss" for name in items] == list(reference["loss_names"])
    assert float(loss.detach()) == pytest.approx(float(reference["loss_sum"]), rel=1e-4)
    weights = dict(model.named_parameters())
    norms = [float(weights[name].grad.norm()) for name in reference["grad_names"]]
    np.testing.assert_allclose(norms, reference["grad_norms"], rtol=1e-3)


def ciou_by_hand(a: list[float], b: list[float]) -> float:
    """Zheng et al. 2020, equations 6 to 11, of boxes that are no lines."""
    wa, ha, wb, hb = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    inter = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    iou = inter / (wa * ha + wb * hb - inter)
    rho2 = ((a[0] + a[2] - b[0] - b[2]) / 2) ** 2 + ((a[1] + a[3] - b[1] - b[3]) / 2) ** 2
    c2 = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    v = 4 / math.pi**2 * (math.atan(wb / hb) - math.atan(wa / ha)) ** 2
    alpha = v / (1 - iou + v) if v else 0
    return iou - rho2 / c2 - alpha * v


BOX = st.tuples(st.floats(-50, 50), st.floats(-50, 50), st.floats(0.5, 80), st.floats(0.5, 80)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(BOX, BOX), min_size=1, max_size=8))
def test_ciou_equals_the_formula_box_by_box(pairs: list[tuple[list[float], list[float]]]) -> None:
    a, b = (torch.tensor([pair[i] for pair in pairs], dtype=torch.float64) for i in (0, 1))
    np.testing.assert_allclose(ciou(a, b).numpy(), [ciou_by_hand(*pair) for pair in pairs], atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(a=BOX, b=BOX)
def test_ciou_has_a_finite_gradient_and_its_own_box_as_optimum(a: list[float], b: list[float]) -> None:
    box = torch.tensor([a], requires_grad=True)
    other = torch.tensor([b])
    value = ciou(box, other)
    value.sum().backward()
    assert torch.isfinite(box.grad).all()
    assert value.item() <= ciou(other, other).item() + 1e-6
    assert ciou(other, other).item() == pytest.approx(1, abs=1e-5)


def test_ciou_of_lines_and_points_is_finite() -> None:
    flat = torch.tensor([[0.0, 0, 0, 0], [0, 0, 5, 0], [0, 0, 0, 5], [3, 3, 1, 1]], requires_grad=True)
    value = ciou(flat, torch.tensor([[0.0, 0, 4, 4]]).expand(4, 4))
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(flat.grad).all()


def test_distances_are_the_expectation_of_their_distribution() -> None:
    logits = torch.randn(5, 4 * 8, dtype=torch.float64)
    p = np.exp(logits.numpy().reshape(5, 4, 8))
    expected = (p / p.sum(2, keepdims=True) * np.arange(8)).sum(2)
    np.testing.assert_allclose(expected_distances(logits, 8).numpy(), expected, rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(distance=st.floats(-2, 12), seed=st.integers(0, 99))
def test_dfl_is_the_cross_entropy_with_the_two_nearest_bins(distance: float, seed: int) -> None:
    logits = torch.randn(1, 4 * 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    target = min(max(distance, 0), 8 - 1 - 0.01)
    low, part = int(target), target - int(target)
    p = np.exp(logits.numpy().reshape(4, 8))
    p /= p.sum(1, keepdims=True)
    expected = np.mean([-(1 - part) * math.log(row[low]) - part * math.log(row[low + 1]) for row in p])
    found = distribution_focal_loss(logits, torch.full((1, 4), distance, dtype=torch.float64), 8)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_keypoint_loss_is_one_minus_coco_oks() -> None:
    rng = np.random.default_rng(0)
    found, wanted = rng.uniform(0, 20, (2, 6, 17, 2))
    wanted = found + rng.normal(0, 1, found.shape)
    visible = rng.random((6, 17)) < 0.6
    visible[5] = False
    area = rng.uniform(20, 200, 6)
    sigmas = np.array(default_sigmas(17))
    expected = []
    for i in range(6):
        squared = ((found[i] - wanted[i]) ** 2).sum(1)
        oks = np.exp(-squared / (2 * area[i] * (2 * sigmas) ** 2))
        expected.append(1 - oks[visible[i]].mean() if visible[i].any() else 0)
    got = keypoint_similarity_loss(*(torch.from_numpy(np.asarray(x)) for x in (found, wanted, visible, area, sigmas)))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6)


def test_distance_loss_is_the_mean_l1_distance_in_shares_of_the_objects_side() -> None:
    found = torch.tensor([[[1.0, 2.0], [50.0, 0.0], [5.0, 5.0]], [[0.0, 0.0], [9.0, 9.0], [0.0, 0.0]]])
    wanted = torch.tensor([[[4.0, 6.0], [0.0, 0.0], [4.0, 4.0]], [[8.0, 8.0], [9.0, 9.0], [0.0, 0.0]]])
    visible = torch.tensor([[True, False, True], [False, False, False]])
    got = keypoint_distance_loss(found, wanted, visible, torch.tensor([100.0, 100.0]))
    assert got.tolist() == pytest.approx([(7 + 2) / 2 / 10, 0], abs=1e-6)


def test_distance_loss_pulls_where_the_similarity_loss_is_flat() -> None:
    wanted, visible, area = torch.zeros(1, 1, 2), torch.ones(1, 1, dtype=torch.bool), torch.tensor([100.0])
    slopes = []
    for loss in (
        lambda found: keypoint_similarity_loss(found, wanted, visible, area, torch.tensor([0.05])),
        lambda found: keypoint_distance_loss(found, wanted, visible, area),
    ):
        found = torch.full((1, 1, 2), 10.0, requires_grad=True)
        loss(found).sum().backward()
        assert found.grad is not None
        slopes.append(found.grad.abs().max().item())
    assert slopes[0] < 1e-9
    assert slopes[1] == pytest.approx(0.1)


def assign_by_loops(
    boxes: list[list[float]],
    classes: list[int],
    pictures: list[int],
    cells: Any,
    scores: np.ndarray,
    predicted: np.ndarray,
    topk: int,
    reach: float | None,
) -> dict[int, tuple[int, float]]:
    """Task-aligned assignment label by label: {row: (label, target score)}."""
    alignment: dict[tuple[int, int], float] = {}
    overlap: dict[tuple[int, int], float] = {}
    chosen: dict[int, list[int]] = {}
    for m, (x1, y1, x2, y2) in enumerate(boxes):
        for n in range(len(cells.stride)):
            x, y = ((cells.index[n] + 0.5) * cells.stride[n]).tolist()
            if not (x1 < x < x2 and y1 < y < y2):
                continue
            farthest = max(x - x1, y - y1, x2 - x, y2 - y) / float(cells.stride[n])
            if reach is not None and farthest > reach and cells.stride[n] < cells.stride.max():
                continue
            row = int(cells.start[n] + pictures[m] * cells.count[n])
            overlap[m, row] = max(ciou_by_hand(predicted[row].tolist(), boxes[m]), 0)
            alignment[m, row] = scores[row, classes[m]] ** 0.5 * overlap[m, row] ** 6
        best = sorted((row for k, row in alignment if k == m), key=lambda row: -alignment[m, row])[:topk]
        for row in best:
            if alignment[m, row] > 0:
                chosen.setdefault(row, []).append(m)
    label = {}
    for row, takers in chosen.items():
        everyone = [m for m, r in overlap if r == row]
        label[row] = takers[0] if len(takers) == 1 else max(everyone, key=lambda m: overlap[m, row])
    result = {}
    for row, m in label.items():
        mine = [r for r, k in label.items() if k == m]
        top, top_overlap = max(alignment[m, r] for r in mine), max(overlap[m, r] for r in mine)
        result[row] = (m, alignment[m, row] * top_overlap / (top + 1e-9))
    return result


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    labels=st.integers(0, 8),
    topk=st.sampled_from([1, 3, 10]),
    reach=st.sampled_from([None, 2.0, 1.0]),
)
def test_assignment_equals_the_slow_reference(seed: int, labels: int, topk: int, reach: float | None) -> None:
    rng = np.random.default_rng(seed)
    cells = make_cells([(8, 8), (4, 4)], [4, 8], 2, CPU)
    rows = len(cells.cell)
    centre, size = rng.uniform(0, 32, (labels, 2)), rng.uniform(2, 24, (labels, 2))
    boxes = np.concatenate((centre - size / 2, centre + size / 2), 1)
    pictures, classes = rng.integers(0, 2, labels), rng.integers(0, 3, labels)
    scores = rng.random((rows, 3))
    middle = ((cells.index + 0.5) * cells.stride[:, None])[cells.cell].numpy()
    predicted = np.concatenate((middle - rng.uniform(1, 12, (rows, 2)), middle + rng.uniform(1, 12, (rows, 2))), 1)
    found = assign(
        torch.from_numpy(boxes),
        torch.from_numpy(classes),
        torch.from_numpy(pictures),
        cells,
        torch.from_numpy(scores),
        lambda r: torch.from_numpy(predicted)[r],
        topk=topk,
        reach=reach,
    )
    lists = boxes.tolist(), classes.tolist(), pictures.tolist()
    expected = assign_by_loops(*lists, cells, scores, predicted, topk, reach)
    assert found.rows.tolist() == sorted(expected)
    assert found.labels.tolist() == [expected[row][0] for row in sorted(expected)]
    np.testing.assert_allclose(found.scores.numpy(), [expected[row][1] for row in sorted(expected)], atol=1e-5)
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert (cells.picture[found.rows].numpy() == pictures[found.labels.numpy()]).all()


def test_rows_name_their_cell_and_picture() -> None:
    cells = make_cells([(2, 3), (1, 2)], [8, 16], 3, CPU)
    assert cells.bounds == (0, 18, 24)
    for cell in range(8):
        for picture in range(3):
            row = int(cells.start[cell] + picture * cells.count[cell])
            assert (cells.cell[row], cells.picture[row]) == (cell, picture)
    assert (cells.index[5].tolist(), cells.stride[5]) == ([2, 1], 8)
    assert (cells.index[7].tolist(), cells.stride[7]) == ([1, 0], 16)


def test_a_cell_on_the_border_of_a_box_is_outside() -> None:
    boxes = torch.tensor([[4.0, 4, 16, 16], [3.9, 3.9, 16, 16], [4, 3.9, 20.1, 16]])
    found = cells_in_boxes(make_cells([(1, 3)], [8], 1, CPU), boxes)
    assert found.tolist() == [[False, False, False], [True, True, False], [False, True, True]]


@pytest.mark.parametrize("kpt_shape", [(3, 3), (3, 2), (1, 3)])
@pytest.mark.parametrize("labels", [0, 1, 12])
def test_the_loss_is_finite_and_every_output_has_a_gradient(kpt_shape: tuple[int, int], labels: int) -> None:
    model = tiny(kpt_shape)
    raw = random_heads(model)
    loss, items = PoseLoss(model)(raw, random_batch(labels, model))
    loss.backward()
    assert list(items) == ["box", "pose", "kobj", "cls", "dfl"]
    assert all(torch.isfinite(g).all() for g in gradients(raw))
    assert torch.isfinite(loss)
    assert not any(item.requires_grad for item in items.values())
    if labels == 0:
        assert [items[name].item() for name in ("box", "pose", "kobj", "dfl")] == [0, 0, 0, 0]
        assert items["cls"] > 0
    if kpt_shape[1] == 2:
        assert items["kobj"] == 0


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    labels=st.integers(0, 6),
    logit=st.sampled_from([0.0, 30.0, -30.0, 90.0]),
    size=st.sampled_from([0.0, 1e-6, 0.5, 4.0]),
)
def test_gradients_are_finite_for_extreme_predictions_and_boxes(
    seed: int, labels: int, logit: float, size: float
) -> None:
    model = tiny()
    raw = random_heads(model, side=32, seed=seed)
    raw = RawHeads(*([(x.detach() * (1 + abs(logit)) + logit).requires_grad_() for x in role] for role in raw[:3]))
    batch = random_batch(labels, model, seed=seed)
    batch["boxes"][:, 2:] = size
    loss, _ = PoseLoss(model)(raw, batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in gradients(raw))


def test_the_memory_format_changes_nothing() -> None:
    model = tiny()
    batch = random_batch(6, model)
    values = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        heads = random_heads(model)[:3]
        raw = RawHeads(*([x.detach().to(memory_format=memory_format) for x in role] for role in heads))
        values.append(PoseLoss(model)(raw, batch)[0].item())
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_unknown_keypoints_teach_neither_place_nor_visibility() -> None:
    model = tiny()
    batch = random_batch(8, model)
    batch["keypoint_known"] = torch.ones(8, 3, dtype=torch.bool)
    batch["keypoint_known"][:, 1] = False
    outcomes = []
    for _ in range(2):
        raw = random_heads(model)
        loss, _ = PoseLoss(model)(raw, batch)
        loss.backward()
        assert all((level.grad[:, 3:6] == 0).all() for level in raw.keypoints)
        assert any((level.grad[:, 6:] != 0).any() for level in raw.keypoints)
        outcomes.append(loss.item())
        batch["keypoints"][:, 1] = 7.0
    assert outcomes[0] == outcomes[1]


def test_an_instance_without_a_known_keypoint_does_not_dilute_the_others() -> None:
    model = tiny()
    one = {name: value[:1] for name, value in random_batch(1, model).items()}
    one |= {"batch_idx": torch.zeros(1, dtype=torch.long), "boxes": torch.tensor([[0.5, 0.5, 0.6, 0.6]])}
    two = {name: torch.cat((value, value)) for name, value in one.items()}
    two["batch_idx"] = torch.tensor([0, 1])
    two["keypoint_known"] = torch.tensor([[True] * 3, [False] * 3])
    raw = random_heads(model)
    same = RawHeads(*([x[:1].repeat(2, 1, 1, 1) for x in role] for role in raw[:3]))
    alone = PoseLoss(model)(same, one)[1]
    together = PoseLoss(model)(same, two)[1]
    assert together["pose"].item() == pytest.approx(alone["pose"].item(), rel=1e-6)
    assert together["kobj"].item() == pytest.approx(alone["kobj"].item(), rel=1e-6)


def class_gradient(model: PoseNetwork, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    raw = random_heads(model)
    PoseLoss(model)(raw, batch)[0].backward()
    return [level.grad for level in raw.score]


def inside(batch: dict[str, torch.Tensor], model: PoseNetwork, side: int) -> list[torch.Tensor]:
    """(B, H, W) a level: cells whose centre is in a labelled box."""
    masks = []
    for stride in model.strides:
        n = side // stride
        mask = torch.zeros(2, n, n, dtype=torch.bool)
        for picture, (cx, cy, w, h) in zip(batch["batch_idx"], (batch["boxes"] * side).tolist(), strict=True):
            centre = (torch.arange(n) + 0.5) * stride
            across, down = (centre - cx).abs() < w / 2, (centre - cy).abs() < h / 2
            mask[picture] |= down[:, None] & across[None]
        masks.append(mask)
    return masks


def test_background_weight_counts_only_outside_labelled_boxes_of_its_picture() -> None:
    model = tiny()
    batch = random_batch(3, model)
    full = class_gradient(model, batch)
    assert all(
        torch.equal(a, b)
        for a, b in zip(full, class_gradient(model, {**batch, "background_weight": torch.ones(2)}), strict=True)
    )
    part = class_gradient(model, {**batch, "background_weight": torch.tensor([0.25, 1.0])})
    for whole, partly, mask in zip(full, part, inside(batch, model, 64), strict=True):
        torch.testing.assert_close(partly[1], whole[1])
        known = mask[0].expand_as(whole[0])
        torch.testing.assert_close(partly[0][known], whole[0][known])
        torch.testing.assert_close(partly[0][~known], whole[0][~known] * 0.25)


def test_confident_finds_outside_labelled_boxes_are_ignored_where_asked() -> None:
    model = tiny()
    batch = random_batch(3, model)
    full = class_gradient(model, batch)
    part = class_gradient(model, {**batch, "background_ignore": torch.tensor([0.6, 1.0])})
    scores = [level.detach().sigmoid().amax(1) for level in random_heads(model).score]
    for whole, partly, mask, score in zip(full, part, inside(batch, model, 64), scores, strict=True):
        torch.testing.assert_close(partly[1], whole[1])
        ignored = ((score[0] > 0.6) & ~mask[0]).expand_as(whole[0])
        assert ignored.any()
        assert (partly[0][ignored] == 0).all()
        torch.testing.assert_close(partly[0][~ignored], whole[0][~ignored])


def test_gains_scale_their_items() -> None:
    model = tiny()
    raw, batch = random_heads(model), random_batch(5, model)
    plain = PoseLoss(model)(raw, batch)[1]
    loss, doubled = PoseLoss(model, {"box": 15.0, "cls": 1.0})(raw, batch)
    assert [doubled[n].item() / plain[n].item() for n in plain] == pytest.approx([2, 1, 1, 2, 1], rel=1e-6)
    assert loss.item() == pytest.approx(sum(v.item() for v in doubled.values()) * 2, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": torch.zeros(4, 5)}, "needs cls"),
        ({"keypoints": torch.zeros(4, 3, 2)}, r"got \(4,\), \(4, 4\) and \(4, 3, 2\)"),
        ({"cls": torch.full((4,), 2)}, r"cls must be in 0\.\.1, got 2\.\.2"),
        ({"batch_idx": torch.tensor([0, 1, 2, 0])}, r"batch_idx must be in 0\.\.1, got 0\.\.2"),
    ],
)
def test_a_batch_that_does_not_fit_the_network_is_refused(change: dict[str, torch.Tensor], message: str) -> None:
    model = tiny()
    with pytest.raises(ValueError, match=message):
        PoseLoss(model)(random_heads(model), {**random_batch(4, model), **change})


def test_sigmas_must_be_one_positive_number_a_keypoint() -> None:
    for sigmas in ([0.1, 0.1], [0.1, 0.0, 0.1], [0.1, float("nan"), 0.1]):
        with pytest.raises(ValueError, match="expected 3 positive sigmas"):
            PoseLoss(tiny(), sigmas=sigmas)


def halves(batch: dict[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    mine = batch["batch_idx"] == rank
    return {name: value[mine] for name, value in batch.items()} | {"batch_idx": batch["batch_idx"][mine] * 0}


def run_rank(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2, timeout=timedelta(minutes=10)
    )
    model = tiny()
    raw = RawHeads(*([x[rank : rank + 1].detach().requires_grad_() for x in role] for role in random_heads(model)[:3]))
    loss, items = PoseLoss(model, distributed=True)(raw, halves(random_batch(7, model), rank))
    loss.backward()
    torch.save((items, gradients(raw)), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_items_and_gradients_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(run_rank, (port, str(tmp_path)), nprocs=2, daemon=True)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    model = tiny()
    raw = random_heads(model)
    loss, items = PoseLoss(model)(raw, random_batch(7, model))
    loss.backward()
    for name, item in items.items():
        assert sum(r[0][name].item() for r in ranks) / 2 == pytest.approx(item.item(), rel=1e-5)
    for level, *parts in zip(gradients(raw), *(r[1] for r in ranks), strict=True):
        torch.testing.assert_close(torch.cat(parts) / 2, level, rtol=1e-4, atol=1e-6)
