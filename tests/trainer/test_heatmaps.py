"""Keypoint heatmaps: targets, weights and loss against plain loops, and networks that have them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from edgepose_trainer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint  # noqa: E402
from edgepose_trainer.loss import PoseLoss  # noqa: E402
from edgepose_trainer.loss.heatmaps import heatmap_loss, heatmap_targets, heatmap_weights  # noqa: E402
from edgepose_trainer.loss.poses import MIN_PEAK, REACH, WINDOW, poses_at_peaks  # noqa: E402
from edgepose_trainer.model import PoseModel  # noqa: E402
from edgepose_trainer.nn import HeadTensors, PoseNetwork, build_model  # noqa: E402

TINY = {
    "nc": 1,
    "kpt_shape": [3, 3],
    "scale": [0.33, 0.125, 64],
    "backbone": {"stem": 64, "stages": [[64, 1], [64, 1], [64, 1]]},
    "neck": {"levels": 2},
    "head": {"reg_max": 8},
    "heatmap": True,
}
SIGMAS = torch.tensor([0.03, 0.1, 0.4])


def tiny(**changes: object) -> PoseNetwork:
    torch.manual_seed(0)
    return build_model(TINY | changes)


def batch_of(people: int) -> dict[str, torch.Tensor]:
    centre = torch.rand(people, 2) * 0.6 + 0.2
    points = torch.cat((centre[:, None] + torch.rand(people, 3, 2) * 0.2 - 0.1, torch.full((people, 3, 1), 2.0)), 2)
    return {
        "batch_idx": torch.arange(people) % 2,
        "cls": torch.zeros(people),
        "boxes": torch.cat((centre, torch.full((people, 2), 0.3)), 1),
        "keypoints": points,
    }


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.integers(0, 6), st.integers(0, 1000))
def test_a_target_is_the_largest_of_its_peoples_gaussians(people: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(people, 3, 2, generator=generator) * torch.tensor([40.0, 8.0])
    visible = torch.rand(people, 3, generator=generator) < 0.6
    area = torch.rand(people, generator=generator) * 100
    pictures = torch.randint(0, 2, (people,), generator=generator)
    found = heatmap_targets(points, visible, area, pictures, SIGMAS, (2, 8, 40))
    expected = np.zeros((2, 3, 8, 40))
    for person, point, row, column in np.ndindex(people, 3, 8, 40):
        if visible[person, point]:
            deviation = min(max(float(SIGMAS[point]) * math.sqrt(area[person]), 1), 3)
            x, y = points[person, point].tolist()
            value = math.exp(-((column + 0.5 - x) ** 2 + (row + 0.5 - y) ** 2) / (2 * deviation**2))
            cell = (int(pictures[person]), point, row, column)
            expected[cell] = max(expected[cell], value)
    near = expected > 1e-4  # those farther off are left out
    np.testing.assert_allclose(np.where(near, found, 0), np.where(near, expected, 0), atol=1e-6)
    assert bool((found[torch.from_numpy(~near)] <= 1e-4).all())


def test_weights_are_0_where_a_persons_point_is_unknown_and_the_backgrounds_outside() -> None:
    boxes = torch.tensor([[1.0, 1.0, 3.0, 3.0], [2.5, 2.5, 9.0, 9.0]])
    known = torch.tensor([[True, True], [True, False]])
    weights = heatmap_weights(boxes, known, torch.tensor([0, 1]), torch.tensor([1.0, 0.25]), (2, 6, 6))
    assert bool((weights[0] == 1).all())
    assert weights[1, 0].unique().tolist() == [0.25, 1]
    assert bool((weights[1, 0, 2:, 2:] == 1).all())
    assert bool((weights[1, 1, 2:, 2:] == 0).all())
    assert bool((weights[1, 1, :2] == 0.25).all())


def test_the_loss_is_the_papers_formula_and_least_at_its_target() -> None:
    target = torch.rand(1, 2, 4, 4)
    logits = torch.randn(1, 2, 4, 4)
    p = logits.sigmoid()
    by_hand = -((target - p).abs() ** 2) * ((1 - target) * (1 - p).log() + target * p.log())
    weights = torch.rand(1, 2, 4, 4)
    torch.testing.assert_close(heatmap_loss(logits, target, weights), (by_hand * weights).sum())
    assert heatmap_loss(target.logit(), target, weights) == pytest.approx(0, abs=1e-9)


def nearness(dx: float, dy: float, reach: float) -> float:
    return math.exp(-(dx**2 + dy**2) / (2 * reach**2))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 1000), st.floats(4, 25))
def test_a_keypoint_moves_to_a_peak_as_strong_as_any_near_it(seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(2, 3, 16, 24, generator=generator) ** 8
    points = torch.rand(4, 3, 2, generator=generator) * torch.tensor([30.0, 22.0]) - 3
    pictures = torch.tensor([0, 1, 1, 0])
    moved = poses_at_peaks(points, torch.full((4,), size**2), maps, pictures)
    reach = REACH * size
    step = 2 * WINDOW * reach / 30
    for person, point in np.ndindex(4, 3):
        x, y = points[person, point].tolist()
        heat = maps[pictures[person], point]
        weighed = [
            float(heat[row, column]) * nearness(column + 0.5 - x, row + 0.5 - y, reach)
            for row, column in np.ndindex(16, 24)
            if heat[row, column] > MIN_PEAK and max(abs(column + 0.5 - x), abs(row + 0.5 - y)) < WINDOW * reach - step
        ]
        at = moved[person, point]
        if torch.equal(at, points[person, point]):
            assert not weighed
            continue
        column, row = (int(side) for side in at)
        assert heat[row, column] > MIN_PEAK
        # The grid weighs a cell by a place in it, up to 0.71 from its middle, for this one and for the others.
        far, off = WINDOW * math.sqrt(2) * reach, math.sqrt(0.5)
        slack = nearness(far + off, 0, reach) / nearness(far, 0, reach)
        found = float(heat[row, column]) * nearness(column + 0.5 - x, row + 0.5 - y, reach)
        assert found >= slack**2 * max(weighed, default=0)


def test_scores_learn_how_good_the_pose_at_the_peaks_is() -> None:
    """The target is read off the gradient: of a binary cross-entropy it is the probability less the target."""
    network = tiny()
    images, batch = torch.rand(2, 3, 64, 64), batch_of(2)
    batch["boxes"] = torch.tensor([[0.5, 0.5, 0.9, 0.9]]).expand(2, 4)  # all its peaks are within reach
    batch["keypoints"][:, :, :2] = torch.rand(2, 3, 2) * 0.2 + 0.3
    with torch.no_grad():
        raw = network.raw(images)
    side = 2 * raw.heatmap.shape[3]
    sharp = torch.full((2, 3, side, side), -8.0)
    for person in range(2):
        for point in range(3):
            x, y = (batch["keypoints"][person, point, :2] * side).floor().long().tolist()
            sharp[person, point, y, x] = 8.0

    def targets(heatmap: torch.Tensor | None) -> float:
        scores = [level.clone().requires_grad_() for level in raw.score]
        PoseLoss(network, sigmas=[0.05] * 3)(raw._replace(score=scores, heatmap=heatmap), batch)[0].backward()
        p = torch.cat([level.detach().sigmoid().flatten() for level in scores])
        gradient = torch.cat([level.grad.flatten() for level in scores])
        gain = (gradient / p).max()  # of the cells that learn that nobody is there
        return float((p - gradient / gain).sum())

    published = targets(None)
    right = targets(torch.nn.functional.pixel_unshuffle(sharp, 2))
    wrong = targets(torch.nn.functional.pixel_unshuffle(sharp.flip(2, 3), 2))
    assert 0 < wrong < 0.5 * right
    assert 0.9 * published < right <= published


def test_people_too_large_for_the_bins_of_a_level_are_left_to_the_coarser() -> None:
    """The fine level says boxes of 112 pixels, the best that its bins can, the coarse one of 32; the person has 230."""
    network = tiny()
    batch = batch_of(1) | {"boxes": torch.tensor([[0.5, 0.5, 0.9, 0.9]])}
    with torch.no_grad():
        raw = network.raw(torch.rand(1, 3, 256, 256))
    for level, distance in zip(raw.box, (7, 1), strict=True):
        level.view(1, 4, 8, *level.shape[2:])[:, :, distance] = 20.0

    def taught(heatmap: torch.Tensor | None) -> list[bool]:
        boxes = [level.clone().requires_grad_() for level in raw.box]
        PoseLoss(network, sigmas=[0.05] * 3)(raw._replace(box=boxes, heatmap=heatmap), batch)[0].backward()
        return [bool(level.grad.any()) for level in boxes]

    assert taught(None) == [True, False]  # as published
    assert taught(raw.heatmap) == [False, True]


def test_pictures_without_people_have_a_loss() -> None:
    network = tiny()
    loss, _ = PoseLoss(network)(network.raw(torch.rand(2, 3, 64, 64)), batch_of(0))
    loss.backward()
    assert math.isfinite(float(loss.detach()))


def test_training_on_one_batch_puts_the_peaks_on_the_keypoints() -> None:
    network = tiny()
    batch = batch_of(2)
    images = torch.rand(2, 3, 64, 64)
    criterion = PoseLoss(network, {"heatmap": 8.0})
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        criterion(network.raw(images), batch)[0].backward()
        optimizer.step()
    maps = torch.nn.functional.pixel_shuffle(network.raw(images).heatmap, 2)
    for person in range(2):
        for point in range(3):
            row, column = divmod(int(maps[person, point].argmax()), maps.shape[3])
            found = (torch.tensor([column, row]) + 0.5) / maps.shape[3]
            assert float((found - batch["keypoints"][person, point, :2]).abs().max()) < 1.5 / maps.shape[3]


def test_a_network_without_heatmaps_has_none_of_their_parameters() -> None:
    with_maps, without = tiny(), tiny(heatmap=False)
    more = set(with_maps.state_dict()) - set(without.state_dict())
    assert more
    assert {name.split(".")[2] for name in more} == {"heatmap", "context"}
    assert without.raw(torch.zeros(1, 3, 32, 32)).heatmap is None


def test_a_new_context_adds_nothing_and_one_that_learned_reaches_both_maps() -> None:
    head = tiny().eval().head
    maps = [torch.rand(1, 8, 8, 8), torch.rand(1, 8, 4, 4)]
    assert all(torch.equal(a, b) for a, b in zip(head.in_context(maps), maps, strict=True))
    for last in (head.context.to_fine, head.context.to_coarse):
        torch.nn.init.normal_(last.weight)
    more = torch.zeros_like(maps[0])
    more[:, :, 0, 0] = 1
    before, after = head.in_context(maps), head.in_context([maps[0] + more, maps[1]])
    fine, coarse = (((a - b) != 0).any(1)[0] for a, b in zip(after, before, strict=True))
    assert bool(fine[4, 4])  # far from what changed
    assert bool(coarse[2, 2])


@pytest.mark.parametrize("split", [True, False])
def test_the_exporters_last_tensor_is_the_heatmap(split: bool) -> None:
    network = tiny().eval()
    module = HeadTensors(network, split_visibility=split)
    images = torch.rand(1, 3, 64, 64)
    assert module.outputs[-1] == ("heatmap", 8)
    torch.testing.assert_close(module(images)[-1], network.raw(images).heatmap, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_keeps_its_heatmaps(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "maps.pt", Checkpoint(tiny().eval()))
    kept = load_checkpoint(tmp_path / "maps.pt").model
    assert kept.head.heatmap is not None
    assert PoseModel(tmp_path / "maps.pt").runner().spec.outputs[-1].role == "heatmap"


def test_heatmap_must_be_true_or_false() -> None:
    with pytest.raises(TypeError, match="heatmap must be true or false, got 'yes'"):
        tiny(heatmap="yes")
