"""Augmentation: boxes and keypoints move with the pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import edgepose_trainer.data.augment as aug
import numpy as np
import pytest
from edgepose_trainer.data import AugmentConfig, BatchKey, PoseDataset, build_dataset, load_data_config
from edgepose_trainer.data.augment import People
from hypothesis import given, settings
from hypothesis import strategies as st

SIZE = 128
SIDES = 4  # keypoints, in two mirrored pairs
FLIP = [1, 0, 3, 2]
# what the dots look like: far apart in RGB, none of them the padding's or the background's colour
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
BODY = np.array([90, 0, 90], np.uint8)
OFF = dict.fromkeys(AugmentConfig.__slots__, 0.0)

geometry = st.fixed_dictionaries(
    {
        "mosaic": st.sampled_from([0.0, 1.0]),
        "degrees": st.sampled_from([0.0, 30.0, 180.0]),
        "translate": st.sampled_from([0.0, 0.2]),
        "scale": st.sampled_from([0.0, 0.3]),
        "shear": st.sampled_from([0.0, 10.0]),
        "aspect": st.sampled_from([0.0, 0.3]),
        "fliplr": st.sampled_from([0.0, 1.0]),
        "flipud": st.sampled_from([0.0, 1.0]),
    }
)


def config(**changes: float) -> AugmentConfig:
    return AugmentConfig(**{**OFF, **changes})


def draw_scene(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray[Any, Any], list[list[float]]]:
    """A picture with two people: a plain rectangle as the box, a dot for each keypoint. Rows of labels with it."""
    height, width = size
    picture, rows = np.zeros((height, width, 3), np.uint8), []
    for x0 in (0.08, 0.55):
        box = np.array([x0, rng.uniform(0.05, 0.15), x0 + 0.36, rng.uniform(0.85, 0.95)])
        pixels = np.rint(box * [width, height, width, height]).astype(int)
        picture[pixels[1] : pixels[3], pixels[0] : pixels[2]] = BODY
        spots = [(0.25, 0.2), (0.75, 0.2), (0.25, 0.75), (0.75, 0.75)]
        row = [0.0, *((pixels[:2] + pixels[2:]) / 2 / [width, height]), *((pixels[2:] - pixels[:2]) / [width, height])]
        for (u, v), colour in zip(spots, COLOURS.tolist(), strict=True):
            x, y = (pixels[:2] + (u, v) * (pixels[2:] - pixels[:2])).astype(int)
            cv2.circle(picture, (int(x), int(y)), min(size) // 18, colour, -1)
            row += [(x + 0.5) / width, (y + 0.5) / height, 2]  # the dot's middle is the middle of its pixel
        rows.append([float(v) for v in row])
    return picture, rows


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> PoseDataset:
    """Pictures of several sizes, some larger than SIZE, with dots where the keypoints are."""
    folder = tmp_path_factory.mktemp("dots")
    rng = np.random.default_rng(0)
    for i, size in enumerate([(120, 160), (150, 110), (300, 420), (128, 128), (700, 500), (100, 240)]):
        picture, rows = draw_scene(rng, size)
        for kind in ("images", "labels"):
            (folder / kind / "train").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"images/train/{i}.png"), picture[..., ::-1])
        text = "\n".join(" ".join(f"{v:.9g}" for v in row) for row in rows)
        (folder / f"labels/train/{i}.txt").write_text(text)
    data = {"path": str(folder), "train": "images/train", "names": ["p"], "kpt_shape": [SIDES, 3], "flip_idx": FLIP}
    return build_dataset(load_data_config(data), "train", SIZE, config())


def sample(dataset: PoseDataset, changes: dict[str, float], index: int, seed: int) -> dict[str, Any]:
    dataset.augment = config(**changes)
    batch = dataset[BatchKey((index,), (SIZE, SIZE), epoch=seed)]
    return {k: v.numpy() for k, v in batch.items() if hasattr(v, "numpy")}


def image_of(batch: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(batch["images"][0].transpose(1, 2, 0))


def colour_near(picture: np.ndarray[Any, Any], x: float, y: float, colour: np.ndarray[Any, Any]) -> bool:
    """Whether some pixel within 2 of the place has about this colour."""
    x0, y0 = max(int(x) - 2, 0), max(int(y) - 2, 0)
    around = picture[y0 : int(y) + 3, x0 : int(x) + 3].reshape(-1, 3).astype(int)
    return bool((np.abs(around - colour).max(1) < 90).any())


@given(changes=geometry, index=st.integers(0, 5), seed=st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_keypoints_stay_on_their_dots(changes: dict[str, float], index: int, seed: int, dots: PoseDataset) -> None:
    batch = sample(dots, changes, index, seed)
    picture = image_of(batch)
    mirrored = (changes["fliplr"] == 1) != (changes["flipud"] == 1)
    for points in batch["keypoints"]:
        for k, (x, y, v) in enumerate(points):
            if v == 0:
                assert (x, y) == (0, 0)
                continue
            assert 0 <= x <= 1
            assert 0 <= y <= 1
            # after a mirroring the point of that name is the dot of its counterpart
            assert colour_near(picture, x * SIZE, y * SIZE, COLOURS[FLIP[k] if mirrored else k])


@given(changes=geometry.map(lambda c: {**c, "mosaic": 0.0}), index=st.integers(0, 5), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_keypoints_are_their_dots_middles_to_half_a_pixel(
    changes: dict[str, float], index: int, seed: int, dots: PoseDataset
) -> None:
    batch = sample(dots, changes, index, seed)
    picture = image_of(batch).astype(int)
    mirrored = (changes["fliplr"] == 1) != (changes["flipud"] == 1)
    rows, columns = np.indices((SIZE, SIZE)) + 0.5
    for points in batch["keypoints"]:
        for k, (x, y, v) in enumerate(points * [SIZE, SIZE, 1]):
            reach = 12
            if v == 0 or min(x, y) < reach or max(x, y) > SIZE - reach:
                continue
            colour = COLOURS[FLIP[k] if mirrored else k].astype(float)
            # how much of the dot's colour each pixel near it holds, by projection on the line from body to dot
            part = ((picture - BODY) @ (colour - BODY) / ((colour - BODY) @ (colour - BODY))).clip(0, 1)
            dot = part * (np.hypot(columns - x, rows - y) < reach) * (part > 0.5)
            middle = (dot * columns).sum() / dot.sum(), (dot * rows).sum() / dot.sum()
            np.testing.assert_allclose(middle, (x, y), atol=0.5)


@given(changes=geometry, index=st.integers(0, 5), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_boxes_hold_their_keypoints_and_lie_in_the_picture(
    changes: dict[str, float], index: int, seed: int, dots: PoseDataset
) -> None:
    batch = sample(dots, changes, index, seed)
    low = batch["boxes"][:, :2] - batch["boxes"][:, 2:] / 2
    high = batch["boxes"][:, :2] + batch["boxes"][:, 2:] / 2
    assert (low >= -1e-6).all()
    assert (high <= 1 + 1e-6).all()
    points, seen = batch["keypoints"][..., :2], batch["keypoints"][..., 2] > 0
    inside = ((points >= low[:, None] - 1e-5) & (points <= high[:, None] + 1e-5)).all(-1)
    assert inside[seen].all()


@given(
    changes=geometry.map(lambda c: {**c, "degrees": 0.0, "shear": 0.0}),
    index=st.integers(0, 5),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_boxes_fit_the_bodies_without_rotation(
    changes: dict[str, float], index: int, seed: int, dots: PoseDataset
) -> None:
    """The colours of bodies and dots fill the boxes of the labels, and nothing outside them."""
    batch = sample(dots, changes, index, seed)
    picture = image_of(batch).astype(int)
    body = (np.abs(picture - BODY).max(-1) < 25) | (np.abs(picture[:, :, None] - COLOURS).max(-1) < 60).any(-1)
    boxes = (
        np.c_[batch["boxes"][:, :2] - batch["boxes"][:, 2:] / 2, batch["boxes"][:, :2] + batch["boxes"][:, 2:] / 2]
        * SIZE
    )
    outside = body.copy()
    for x0, y0, x1, y1 in boxes:
        inner = body[math.ceil(y0) + 1 : int(y1) - 1, math.ceil(x0) + 1 : int(x1) - 1]
        if inner.size > 20:
            assert inner.mean() > 0.8
        outside[max(int(y0) - 1, 0) : math.ceil(y1) + 1, max(int(x0) - 1, 0) : math.ceil(x1) + 1] = False
    # people of whom too little is left keep their pixels and lose their label
    assert outside.mean() < 0.06


def test_warping_is_opencvs_letterbox_when_nothing_is_random(dots: PoseDataset) -> None:
    """With all gains 0 a picture is resized, centred and padded, up to bilinear rounding at half pixels."""
    batch = sample(dots, {}, 3, 0)
    source = cv2.imread(dots.paths[3])[..., ::-1]
    np.testing.assert_array_equal(image_of(batch), source)
    batch = sample(dots, {}, 0, 0)
    source = cv2.resize(cv2.imread(dots.paths[0])[..., ::-1], (128, 96), interpolation=cv2.INTER_LINEAR)
    difference = np.abs(image_of(batch)[17:111, 1:127].astype(int) - source[1:95, 1:127])
    assert difference.max() <= 12  # warpAffine steps by 1/32 pixel
    assert (image_of(batch)[:15] == aug.PAD_VALUE).all()


@given(seed=st.integers(0, 10_000), changes=geometry)
@settings(max_examples=50, deadline=None)
def test_transform_people_is_the_matrix_for_each_place(seed: int, changes: dict[str, float]) -> None:
    rng = np.random.default_rng(seed)
    matrix = aug.random_affine(rng, config(**changes), 100)
    boxes = np.sort(rng.uniform(0, 100, (3, 2, 2)), axis=1).reshape(3, 4).astype(np.float32)
    points = rng.uniform(0, 100, (3, SIDES, 3)).astype(np.float32)
    people = People(np.zeros(3, np.int32), boxes, points, np.ones((3, SIDES), np.bool_))
    moved = aug.transform_people(people, np.repeat(matrix[None], 3, 0))

    def move(x: float, y: float) -> tuple[float, float]:
        (a, b, c), (d, e, f) = matrix
        return a * x + b * y + c, d * x + e * y + f

    for i in range(3):
        x0, y0, x1, y1 = boxes[i].tolist()
        xs, ys = zip(*(move(x, y) for x in (x0, x1) for y in (y0, y1)), strict=True)
        np.testing.assert_allclose(moved.boxes[i], [min(xs), min(ys), max(xs), max(ys)], atol=1e-3)
        for k in range(SIDES):
            np.testing.assert_allclose(moved.keypoints[i, k, :2], move(*points[i, k, :2].tolist()), atol=1e-3)
            assert moved.keypoints[i, k, 2] == points[i, k, 2]


def test_flipping_twice_gives_the_labels_back() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 9, (5, SIDES, 3)).astype(np.float32)
    people = People(np.zeros(5, np.int32), np.zeros((5, 4), np.float32), points, rng.random((5, SIDES)) < 0.5)
    mirrored = np.array([True, False, True, True, False])
    once = aug.swap_sides(people, mirrored, np.array(FLIP))
    twice = aug.swap_sides(once, mirrored, np.array(FLIP))
    np.testing.assert_array_equal(once.keypoints[0, 0], points[0, 1])
    np.testing.assert_array_equal(once.keypoints[1], points[1])
    np.testing.assert_array_equal(once.known[0, 0], people.known[0, 1])
    np.testing.assert_array_equal(twice.keypoints, points)
    np.testing.assert_array_equal(twice.known, people.known)


def one_person(points: list[list[float]], box: tuple[float, ...] = (10, 10, 30, 30)) -> People:
    places = np.array([points], np.float32)
    return People(np.zeros(1, np.int32), np.array([box], np.float32), places, np.ones(places.shape[:2], np.bool_))


def test_a_patch_hides_visible_points_and_leaves_the_rest() -> None:
    people = one_person([[12, 12, 2], [28, 28, 2], [13, 13, 1], [0, 0, 0]])
    covered = aug.cover(people, (10, 10, 20, 20))
    np.testing.assert_array_equal(covered.keypoints[0], [[12, 12, 1], [28, 28, 2], [13, 13, 1], [0, 0, 0]])
    np.testing.assert_array_equal(covered.boxes, people.boxes)


def test_somebody_behind_a_patch_is_dropped() -> None:
    assert len(aug.cover(one_person([[12, 12, 2]]), (9, 9, 31, 31))) == 0
    assert len(aug.cover(one_person([[12, 12, 2]]), (10, 10, 30, 25))) == 1


@given(index=st.integers(0, 5), seed=st.integers(0, 500))
@settings(max_examples=40, deadline=None)
def test_occlusion_hides_exactly_the_covered_dots(index: int, seed: int, dots: PoseDataset) -> None:
    """Places stay; v is 1 where the dot's colour went, 2 where it can still be seen."""
    plain, covered = sample(dots, {}, index, seed), sample(dots, {"occlusion": 1.0}, index, seed)
    before, after = image_of(plain).astype(int), image_of(covered).astype(int)
    changed = (before != after).any(-1)
    if len(plain["keypoints"]) != len(covered["keypoints"]):
        return
    np.testing.assert_array_equal(plain["keypoints"][..., :2], covered["keypoints"][..., :2])
    for x, y, v in covered["keypoints"].reshape(-1, 3):
        if changed[int(y * SIZE), int(x * SIZE)]:
            assert v == 1
    assert set(np.unique(covered["keypoints"][..., 2])) <= {0, 1, 2}


@pytest.mark.parametrize("kind", ["hsv_h", "hsv_s", "hsv_v", "blur", "jpeg", "noise"])
def test_colour_and_camera_change_pixels_and_no_label(kind: str, dots: PoseDataset) -> None:
    plain, changed = sample(dots, {}, 0, 5), sample(dots, {kind: 1.0}, 0, 5)
    for key in ("boxes", "keypoints", "keypoint_known", "cls"):
        np.testing.assert_array_equal(plain[key], changed[key])
    assert changed["images"].shape == plain["images"].shape
    assert (changed["images"] != plain["images"]).any()


def test_hsv_turns_hue_by_its_gain() -> None:
    class Fixed:
        def uniform(self, low: float, high: float, count: int) -> np.ndarray[Any, Any]:
            return np.array([1.0, 0.0, 0.0])

    picture = np.full((4, 4, 3), (255, 0, 0), np.uint8)
    rng: Any = Fixed()
    turned = aug.jitter_hsv(rng, config(hsv_h=1 / 3), picture)
    np.testing.assert_array_equal(turned[0, 0], [0, 255, 0])  # a third of the circle from red is green


def test_low_light_is_darker_and_noisy_in_every_channel() -> None:
    picture = np.full((64, 64, 3), 120, np.uint8)
    dark = aug.camera_low_light(np.random.default_rng(0), picture)
    assert dark.mean() < 115
    assert (dark.reshape(-1, 3).std(0) > 1).all()


def test_blur_kernels_keep_the_light(dots: PoseDataset) -> None:
    picture = np.full((64, 64, 3), 120, np.uint8)
    for seed in range(40):
        blurred = aug.camera_blur(np.random.default_rng(seed), picture)
        np.testing.assert_allclose(blurred, 120, atol=1)


def test_the_pictures_of_a_mosaic_meet_in_one_point() -> None:
    layouts = aug.mosaic_layout(np.random.default_rng(0), [(30, 40), (40, 30), (20, 20), (50, 60)], 100)
    corners = [(40, 30), (0, 40), (20, 0), (0, 0)]  # the inner corner of each tile, in its own pixels
    meet = [m[:, :2] @ c + m[:, 2] for m, c in zip(layouts, corners, strict=True)]
    for other in meet[1:]:
        np.testing.assert_allclose(other, meet[0], atol=1e-9)
    assert np.abs(meet[0]).max() <= 50


def test_a_source_picture_is_never_changed(dots: PoseDataset) -> None:
    """Cached pictures are handed out without a copy: what augmentation does must not show in them."""
    dots.augment = config(hsv_s=0.9, hsv_v=0.9, blur=1, jpeg=1, noise=1, occlusion=1, mosaic=1)
    stored = dots._stored("ram")
    before = [stored(i).copy() for i in range(len(dots))]
    original, dots._read = dots._read, stored
    try:
        for epoch in range(5):
            dots[BatchKey((0, 1, 2), (SIZE, SIZE), epoch)]
    finally:
        dots._read = original
    for i, picture in enumerate(before):
        np.testing.assert_array_equal(stored(i), picture)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mosaic": 1.5}, "mosaic must be a number from 0 to 1, got 1.5"),
        ({"degrees": -1}, "degrees must be a number from 0 to 180"),
        ({"scale": 1}, "scale must be a number from 0 to 0.95"),
        ({"blur": "often"}, "blur must be a number"),
        ({"jpeg": float("nan")}, "jpeg must be a number"),
    ],
)
def test_a_setting_out_of_range_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_without_flip_idx_nothing_is_mirrored(
    make_dataset: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    data = make_dataset({"a": None})
    del data["flip_idx"]
    dataset = build_dataset(load_data_config(data), "train", SIZE, AugmentConfig(fliplr=1.0, flipud=1.0))
    assert dataset.augment is not None
    assert (dataset.augment.fliplr, dataset.augment.flipud) == (0, 0)
    assert "no flip_idx" in caplog.text


def test_real_people_stay_labelled(photos: Path) -> None:
    """On real photos: the default augmentation keeps most people, and finite labels."""
    data = {"path": str(photos / "coco"), "train": "images/train", "names": ["p"], "kpt_shape": [17, 3]}
    dataset = build_dataset(load_data_config(data), "train", SIZE, AugmentConfig())
    batches = [dataset[BatchKey(tuple(range(12)), (SIZE, SIZE), epoch)] for epoch in range(4)]
    people = sum(len(b["cls"]) for b in batches)
    assert people > len(dataset.cls)
    assert all(bool(b["keypoints"].isfinite().all()) for b in batches)
