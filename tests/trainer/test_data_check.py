"""Looking a dataset over."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from edgepose_trainer.data import AugmentConfig, BatchKey, build_dataset, load_data_config
from edgepose_trainer.data.check import check_dataset, label_statistics
from edgepose_trainer.data.draw import draw_people, save_batch_picture
from edgepose_trainer.data.progress import progress_bar

Make = Callable[..., dict[str, Any]]
ROW = [0, 0.5, 0.5, 0.25, 0.5, 0.4, 0.3, 2, 0.6, 0.7, 1, 0, 0, 0]


def test_check_writes_sheets_plots_and_a_report(make_dataset: Make, tmp_path: Path) -> None:
    make_dataset({"a": [ROW, ROW[:5] + [0.5, 0.5, 2] * 3], "b": None, "broken": [[1]]})
    data = {**make_dataset({"v": [ROW]}, split="val"), "train": "images/train"}
    report = check_dataset(data, tmp_path / "out")
    assert [p.name for p in report.files] == [
        "report.json", "problems.txt", "train_pictures.jpg", "train_labels.png", "val_pictures.jpg", "val_labels.png",
    ]  # fmt: skip
    assert all(cv2.imread(str(p)) is not None for p in report.files[2:])
    saved = json.loads((tmp_path / "out/report.json").read_text())
    assert saved["statistics"]["train"]["people"] == 2
    assert "broken.png" in (tmp_path / "out/problems.txt").read_text()
    summary = report.summary()
    assert "train: 2 pictures (1 without people), 2 people, 1 problems" in summary
    assert "broken.png: row 1: 1 numbers" in summary


def test_a_sheet_without_pictures_is_refused(make_dataset: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"count must be at least 1 .* got 0"):
        check_dataset(make_dataset({"a": [ROW]}), tmp_path / "out", count=0)


def test_statistics_count_what_the_labels_say(make_dataset: Make) -> None:
    data = {**make_dataset({"a": [ROW, [*ROW[:2], 0.4, *ROW[3:]]], "b": [ROW], "c": None}), "unknown_keypoints": [2]}
    numbers = label_statistics(build_dataset(load_data_config(data), "train", 64))
    assert (numbers["pictures"], numbers["background"], numbers["people"]) == (3, 1, 3)
    assert numbers["people_per_picture"] == {"0": 1, "1": 1, "2": 1}
    assert numbers["classes"] == {"thing": 3}
    assert numbers["box_side"]["50"] == pytest.approx(np.sqrt(0.25 * 0.5), abs=1e-4)
    assert numbers["box_pixels"]["50"] == pytest.approx(np.sqrt(0.25 * 64 * 0.5 * 48), abs=1e-3)
    assert numbers["keypoints"]["0"] == {"visible": 3, "hidden": 0, "not_labelled": 0, "unknown": 0}
    assert numbers["keypoints"]["1"] == {"visible": 0, "hidden": 3, "not_labelled": 0, "unknown": 0}
    assert numbers["keypoints"]["2"] == {"visible": 0, "hidden": 0, "not_labelled": 0, "unknown": 3}


def test_a_picture_in_two_splits_is_reported(make_dataset: Make, tmp_path: Path) -> None:
    make_dataset({"a": [ROW]})
    data = {**make_dataset({"b": [ROW]}, split="val"), "train": "images/train"}
    report = check_dataset(data, tmp_path / "out")
    assert len(report.problems["val"]) == 1
    assert "the same picture as" in report.problems["val"][0]


def test_people_are_drawn_where_they_are() -> None:
    picture = np.zeros((100, 200, 3), np.uint8)
    drawn = draw_people(
        picture, np.array([[0.5, 0.5, 0.5, 0.8]]), np.array([[[0.5, 0.5, 2], [0.3, 0.3, 1], [0, 0, 0]]])
    )
    assert (picture == 0).all()
    assert tuple(drawn[50, 100]) == (230, 40, 40)
    assert tuple(drawn[30, 60]) == (250, 220, 0)
    assert tuple(drawn[50, 50]) == (80, 220, 80)
    assert (drawn[0, 0] == 0).all()


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_a_picture_of_an_augmented_batch_is_saved(ending: str, make_dataset: Make, tmp_path: Path) -> None:
    config = load_data_config(make_dataset({name: [ROW] for name in "abcde"}))
    dataset = build_dataset(config, "train", 64, AugmentConfig())
    save_batch_picture(dataset[BatchKey((0, 1, 2, 3, 4), (64, 64))], tmp_path / f"batch{ending}", config)
    sheet = cv2.imread(str(tmp_path / f"batch{ending}"))
    assert sheet is not None
    assert sheet.shape == (128, 192, 3)


def test_a_background_dataset_is_looked_over_too(make_dataset: Make, tmp_path: Path) -> None:
    report = check_dataset(make_dataset({"a": None, "b": []}), tmp_path / "out")
    assert report.statistics["train"]["people"] == 0


def test_a_bar_reaches_its_end_and_can_start_again(capsys: pytest.CaptureFixture[str]) -> None:
    progress = progress_bar("checking", " pictures", show=True)
    assert progress is not None
    for done in (3, 10, 4, 10):
        progress(done, 10)
    assert capsys.readouterr().out == ""
    assert progress_bar("checking", " pictures", show=False) is None
