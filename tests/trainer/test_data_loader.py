"""Datasets and loaders: what a batch holds, and that it depends on nothing but its key."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import edgepose_trainer.data.pictures as pictures_module
import numpy as np
import pytest
import torch
from edgepose_trainer.data import (
    AugmentConfig,
    Batch,
    BatchKey,
    PoseDataset,
    build_dataset,
    build_loader,
    load_data_config,
)
from edgepose_trainer.data.loader import Loader

Make = Callable[..., dict[str, Any]]
ROW = [0, 0.5, 0.5, 0.25, 0.5, 0.4, 0.3, 2, 0.6, 0.7, 1, 0, 0, 0]
COUNT = 11


@pytest.fixture
def data(make_dataset: Make) -> dict[str, Any]:
    return make_dataset({f"{i:02}": [ROW] * (i % 3 > 0) for i in range(COUNT)})


def build(data: dict[str, Any], augment: bool = True, imgsz: int = 64, **options: Any) -> PoseDataset:
    return build_dataset(load_data_config(data), "train", imgsz, AugmentConfig() if augment else None, **options)


def assert_equal(a: list[Batch], b: list[Batch]) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        for key, value in one.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(value, other[key], rtol=0, atol=0, equal_nan=True)
            else:
                assert value == other[key]


def order(loader: Loader) -> list[int]:
    return [int(i) for batch in loader for i in batch["index"]]


def test_a_batch_has_the_shapes_and_types_it_promises(data: dict[str, Any]) -> None:
    batch = build(data)[BatchKey((1, 2, 4), (64, 64))]
    people = len(batch["cls"])
    expected = {
        "images": ((3, 3, 64, 64), torch.uint8),
        "batch_idx": ((people,), torch.int64),
        "cls": ((people,), torch.float32),
        "boxes": ((people, 4), torch.float32),
        "keypoints": ((people, 3, 3), torch.float32),
        "keypoint_known": ((people, 3), torch.bool),
        "background_weight": ((3,), torch.float32),
        "shapes": ((3, 2), torch.int64),
        "index": ((3,), torch.int64),
        "transforms": ((3, 4), torch.float64),
    }
    assert {k: (tuple(v.shape), v.dtype) for k, v in batch.items() if isinstance(v, torch.Tensor)} == expected
    assert [Path(p).stem for p in batch["paths"]] == ["01", "02", "04"]
    assert batch["images"].is_contiguous(memory_format=torch.channels_last)
    assert batch["transforms"].isnan().all()


def test_a_batch_of_background_is_empty_but_whole(data: dict[str, Any]) -> None:
    batch = build(data, augment=False)[BatchKey((0, 3), (64, 64))]
    assert batch["boxes"].shape == (0, 4)
    assert batch["keypoints"].shape == (0, 3, 3)
    assert batch["images"].shape[0] == 2


def test_letterboxed_pictures_and_labels_follow_the_field_formula(data: dict[str, Any]) -> None:
    """Against the letterbox written out with OpenCV: r = min(S/h, S/w), rounded size, centred by round(x - 0.1)."""
    dataset = build(data, augment=False, imgsz=50)  # sources are 64 x 48
    batch = dataset[BatchKey((1,), (50, 50))]
    source = cv2.imread(dataset.paths[1])[..., ::-1]
    width, height = 50, round(48 * 50 / 64)
    top = round((50 - height) / 2 - 0.1)
    expected = np.full((50, 50, 3), 114, np.uint8)
    expected[top : top + height] = cv2.resize(source, (width, height), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(batch["images"][0].permute(1, 2, 0).numpy(), expected)
    scale_x, scale_y, pad_x, pad_y = batch["transforms"][0].tolist()
    assert (scale_x, scale_y, pad_x, pad_y) == (width / 64, height / 48, 0, top)
    fed = batch["keypoints"][0, :2, :2].numpy() * 50
    np.testing.assert_allclose(
        (fed - [pad_x, pad_y]) / [scale_x, scale_y], [[0.4 * 64, 0.3 * 48], [0.6 * 64, 0.7 * 48]], rtol=1e-5
    )
    np.testing.assert_allclose(
        batch["boxes"][0].numpy() * 50, [25, height / 2 + top, 0.25 * 50, 0.5 * height], rtol=1e-5
    )


def test_rect_batches_keep_the_aspect_and_the_transform(make_dataset: Make) -> None:
    make_dataset({"wide1": [ROW], "wide2": [ROW]}, size=(40, 100))
    data = make_dataset({"tall": [ROW], "square": [ROW], "other": [ROW]}, size=(100, 40))
    dataset = build(data, augment=False, rect=True)
    batches = list(build_loader(dataset, 2))
    assert [tuple(b["images"].shape[2:]) for b in batches] == [(32, 64), (64, 32), (64, 32)]
    for batch in batches:
        height, width = batch["images"].shape[2:]
        for i, points in enumerate(batch["keypoints"].numpy()):
            scale_x, scale_y, pad_x, pad_y = batch["transforms"][i].tolist()
            h, w = batch["shapes"][i].tolist()
            back = (points[0, :2] * [width, height] - [pad_x, pad_y]) / [scale_x, scale_y]
            np.testing.assert_allclose(back, [0.4 * w, 0.3 * h], rtol=1e-5)


def test_workers_make_the_same_batches(data: dict[str, Any]) -> None:
    dataset = build(data)
    alone, two = (build_loader(dataset, 4, workers, seed=3, shuffle=True) for workers in (0, 2))
    for epoch in (0, 1):
        for loader in (alone, two):
            loader.set_epoch(epoch)
        assert_equal(list(alone), list(two))


def test_epochs_and_seeds_differ_and_repeat(data: dict[str, Any]) -> None:
    dataset = build(data)

    def first(seed: int, epoch: int) -> Batch:
        loader = build_loader(dataset, COUNT, seed=seed, shuffle=True)
        loader.set_epoch(epoch)
        return next(iter(loader))

    assert_equal([first(1, 2)], [first(1, 2)])
    assert (first(1, 2)["images"] != first(1, 3)["images"]).any()
    assert (first(1, 2)["images"] != first(2, 2)["images"]).any()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_in_the_middle(workers: int, data: dict[str, Any]) -> None:
    loader = build_loader(build(data), 4, workers, seed=3, shuffle=True)
    loader.set_epoch(1)
    whole = list(loader)
    loader.set_epoch(1, start_batch=2)
    assert len(loader) == len(whole) == 3
    assert_equal(list(loader), whole[2:])


def test_every_picture_comes_once_an_epoch(data: dict[str, Any]) -> None:
    loader = build_loader(build(data), 4, shuffle=True)
    assert sorted(order(loader)) == list(range(COUNT))
    assert order(loader) != list(range(COUNT))
    assert order(build_loader(build(data, augment=False), 4)) == list(range(COUNT))
    assert len(order(build_loader(build(data), 4, shuffle=True, drop_last=True))) == 8


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_the_single_processs_batches(world_size: int, data: dict[str, Any]) -> None:
    dataset = build(data)
    options: dict[str, Any] = {"seed": 5, "shuffle": True, "drop_last": True}
    single = list(build_loader(dataset, 4, **options))
    ranks = [list(build_loader(dataset, 4, rank=r, world_size=world_size, **options)) for r in range(world_size)]
    for number, whole in enumerate(single):
        shares = [ranks[r][number] for r in range(world_size)]
        torch.testing.assert_close(torch.cat([s["images"] for s in shares]), whole["images"], rtol=0, atol=0)
        torch.testing.assert_close(torch.cat([s["keypoints"] for s in shares]), whole["keypoints"], rtol=0, atol=0)


def test_ranks_take_as_many_steps_and_pictures(data: dict[str, Any]) -> None:
    """The last batch, of 3 pictures, is filled up for 2 ranks when training, and not when validating."""
    shares = [order(build_loader(build(data), 4, rank=r, world_size=2, shuffle=True)) for r in (0, 1)]
    assert [len(s) for s in shares] == [6, 6]
    shares = [order(build_loader(build(data, augment=False), 4, rank=r, world_size=2)) for r in (0, 1)]
    assert sorted(shares[0] + shares[1]) == list(range(COUNT))


def test_sizes_vary_by_batch_alike_in_every_run(data: dict[str, Any]) -> None:
    def sizes() -> list[int]:
        loader = build_loader(build(data, imgsz=160), 1, shuffle=True, multi_scale=0.5)
        return [batch["images"].shape[-1] for batch in loader]

    assert sizes() == sizes()
    assert len(set(sizes())) > 1
    assert all(size % 32 == 0 and 80 <= size <= 256 for size in sizes())


def test_an_epoch_has_its_size_and_can_close_the_mosaic(data: dict[str, Any]) -> None:
    dataset = build(data)
    loader = build_loader(dataset, COUNT)
    loader.set_epoch(0, imgsz=32, mosaic=False)
    (batch,) = loader
    assert batch["images"].shape[-1] == 32
    assert len(batch["cls"]) <= len(dataset.cls)  # no people of other pictures


def test_iterating_leaves_torchs_random_numbers_alone(data: dict[str, Any]) -> None:
    state = torch.get_rng_state()
    for _ in build_loader(build(data), 4, 2, shuffle=True):
        pass
    assert torch.equal(state, torch.get_rng_state())


def test_close_ends_the_workers(data: dict[str, Any]) -> None:
    before = set(multiprocessing.active_children())
    loader = build_loader(build(data), 4, 2)
    list(loader)
    assert len(set(multiprocessing.active_children()) - before) == 2
    loader.close()
    assert set(multiprocessing.active_children()) <= before
    with pytest.raises(ValueError, match="closed"):
        list(loader)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 3, "world_size": 2}, "multiple of the 2 processes, got 3"),
        ({"batch": 0}, "got 0"),
        ({"batch": 4, "rank": 1}, "rank must be 0 to 0"),
        ({"batch": 16, "drop_last": True}, "11 pictures do not fill one batch of 16"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(options: dict[str, Any], message: str, data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        build_loader(build(data), **options)


def test_a_start_beyond_the_epoch_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="start_batch must be 0 to 3, got 4"):
        build_loader(build(data), 4).set_epoch(0, start_batch=4)


# --- sets


def two_sets(make_dataset: Make, tmp_path: Path) -> dict[str, Any]:
    """Eight fully labelled pictures, and eight where other people may be and point 2 is never labelled."""
    data = make_dataset({f"full{i}": [ROW] for i in range(8)})
    for kind, ending in (("images", "png"), ("labels", "txt")):
        folder = tmp_path / "part" / kind / "train"
        folder.mkdir(parents=True)
        for i in range(8):
            content = (tmp_path / kind / "train" / f"full{i}.{ending}").read_bytes()
            (folder / f"part{i}.{ending}").write_bytes(content + (b"" if kind == "labels" else bytes([i])))
    part = {"path": "part", "partly_labelled": True, "unknown_keypoints": [2]}
    return {**data, "sets": [{"path": "."}, part]}


def test_sets_carry_their_settings_into_the_batch(make_dataset: Make, tmp_path: Path) -> None:
    dataset = build(two_sets(make_dataset, tmp_path), augment=False)
    batch = dataset[BatchKey((0, 8), (64, 64))]
    assert batch["background_weight"].tolist() == [1, 0]
    # v = 0 at point 2: known to be hidden in the first set, unknown in the second
    assert batch["keypoint_known"].tolist() == [[True, True, True], [True, True, False]]


def test_a_repeated_set_is_seen_that_often_and_each_time_augmented_anew(make_dataset: Make, tmp_path: Path) -> None:
    data = two_sets(make_dataset, tmp_path)
    data["sets"][1]["repeat"] = 3
    dataset = build(data)
    assert len(dataset) == 8 + 3 * 8
    first, again = dataset[BatchKey((8, 16), (64, 64))]["images"]
    assert dataset.paths[8] == dataset.paths[16]
    assert not torch.equal(first, again)
    assert len(build(data, augment=False)) == 16


def test_a_mosaic_stays_within_sets_of_one_background_weight(make_dataset: Make, tmp_path: Path) -> None:
    dataset = build(two_sets(make_dataset, tmp_path))
    read: list[int] = []
    original = dataset._read
    dataset._read = lambda i: (read.append(i), original(i))[1]
    for index in (0, 9):
        for epoch in range(5):
            read.clear()
            dataset[BatchKey((index,), (64, 64), epoch)]
            assert 1 <= len(read) <= 4
            assert {i // 8 for i in read} == {index // 8}


def test_a_person_without_any_point_says_nothing_about_points(make_dataset: Make) -> None:
    row = [0, 0.5, 0.5, 0.25, 0.5, *([0] * 9)]
    batch = build(make_dataset({"a": [row, ROW]}), augment=False)[BatchKey((0,), (64, 64))]
    assert batch["keypoint_known"].tolist() == [[False] * 3, [True] * 3]


def test_a_set_without_visibility_has_all_its_points_visible(make_dataset: Make, tmp_path: Path) -> None:
    data = {**make_dataset({"a": []}), "kpt_shape": [3, 2]}
    (tmp_path / "labels/train/a.txt").write_text("0 0.5 0.5 0.5 0.5 0.4 0.4 0 0 0.6 0.6\n")
    batch = build(data, augment=False)[BatchKey((0,), (64, 64))]
    assert batch["keypoints"][0, :, 2].tolist() == [2, 0, 2]


def test_a_fraction_takes_evenly_from_each_set(make_dataset: Make, tmp_path: Path) -> None:
    dataset = build(two_sets(make_dataset, tmp_path), fraction=0.25)
    assert [Path(p).stem for p in dataset.paths] == ["full0", "full4", "part0", "part4"]


# --- the picture store


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_cached_pictures_give_the_same_batches(cache: str, data: dict[str, Any]) -> None:
    plain = list(build_loader(build(data), 4, shuffle=True))
    loader = build_loader(build(data, cache=cache), 4, 2, shuffle=True)
    assert_equal(list(loader), plain)
    assert_equal(list(loader), plain)


@pytest.mark.parametrize("cache", ["ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_cached_picture_is_decoded_once(
    cache: str, workers: int, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dataset = build(data, augment=False, cache=cache)
    list(build_loader(dataset, 4, workers))
    for path in dataset.paths:
        Path(path).unlink()
    assert len(order(build_loader(dataset, 4, workers))) == COUNT


def test_a_disk_cache_serves_the_next_run_and_notices_changes(
    data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    list(build_loader(build(data, cache="disk"), 4))
    again = build(data, cache="disk")
    assert again._read.filled.all()
    Path(again.paths[0]).write_bytes(Path(again.paths[1]).read_bytes() + b" ")
    assert not build(data, cache="disk")._read.filled.any()


def test_a_dataset_with_a_cache_can_be_sent_to_a_spawned_worker(data: dict[str, Any]) -> None:
    dataset = build(data, cache="ram")
    key = BatchKey((1, 2), (64, 64))
    assert_equal([pickle.loads(pickle.dumps(dataset))[key]], [dataset[key]])


def test_a_cache_that_does_not_fit_is_refused(data: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures_module, "_free_memory", lambda: 1000)
    with pytest.raises(ValueError, match=r"GiB of RAM, .* use cache=disk"):
        build(data, cache="ram")


def test_an_unknown_cache_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cache must be 'ram', 'disk' or False, got 'tape'"):
        build(data, cache="tape")


def test_large_pictures_are_decoded_reduced_for_training_and_whole_for_validation(make_dataset: Make) -> None:
    data = make_dataset({"a": [ROW]}, size=(301, 403))
    train, val = build(data, imgsz=96), build(data, augment=False, imgsz=96)
    assert train._load(0).shape == (76, 101, 3)  # a quarter, rounded up; an eighth would be below 96
    source = cv2.imread(val.paths[0])[..., ::-1]
    height = round(301 * 96 / 403)
    expected = cv2.resize(source, (96, height), interpolation=cv2.INTER_LINEAR)
    top = round((96 - height) / 2 - 0.1)
    picture = val[BatchKey((0,), (96, 96))]["images"][0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(picture[top : top + height], expected)


def test_workers_keep_opencv_to_one_thread_and_leave_ctrl_c_to_the_training(
    data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgepose_trainer.data.loader import _start_worker

    before, on_interrupt = cv2.getNumThreads(), signal.getsignal(signal.SIGINT)
    try:
        _start_worker(0)
        assert cv2.getNumThreads() == 1
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        cv2.setNumThreads(before)
        signal.signal(signal.SIGINT, on_interrupt)


def test_problems_are_told_by_the_dataset(make_dataset: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = build(make_dataset({"a": [ROW], "b": [[1, 2]]}))
    assert [Path(p.path).name for p in dataset.problems] == ["b.png"]
    assert "b.png" in caplog.text
