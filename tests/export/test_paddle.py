"""Paddle exports give, run by Paddle Inference, the people that the checkpoint gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepose_trainer.model import PoseModel
from exporting import OPTIONS, assert_same_people, people_of_checkpoint

from edgepose.cli import main


@pytest.fixture(autouse=True, scope="module")
def _converter(needs: Callable[[str], None]) -> None:
    needs("paddle")


@pytest.fixture(scope="module")
def exported(person: Path, people_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("paddle")
    return PoseModel(person).export("paddle", imgsz=(64, 96), data=people_data, out=folder)


def test_it_finds_the_same_people_and_is_verified(exported: Path, person: Path, pictures: list[Any]) -> None:
    assert [folder.name for folder in exported.parent.iterdir()] == ["best_paddle_model"]
    assert sorted(file.name for file in exported.iterdir()) == ["edgepose.json", "model.json", "model.pdiparams"]
    runner = PoseModel(exported).runner(**OPTIONS)
    assert_same_people(runner.predict(pictures), people_of_checkpoint(person, pictures, (64, 96)), 0.05, 1e-3)
    assert runner.spec.origin["parity"]["passed"]


def test_an_export_leaves_paddle_as_it_was(exported: Path) -> None:
    import paddle

    assert paddle.in_dynamic_mode()


def test_the_command_takes_the_folder(
    exported: Path, people_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", f"model={exported}/"]) == 0
    assert "runs in:    paddle" in capsys.readouterr().out
    picture = next((people_data.parent / "images" / "val").iterdir())
    assert main(["predict", f"model={exported}", f"source={picture}", f"project={tmp_path}"]) == 0
    assert main(["val", f"model={exported}", f"data={people_data}", "plots=false"]) == 0


@pytest.fixture(scope="module")
def four_points(make_checkpoint: Callable[..., Path]) -> tuple[Path, Path]:
    """The checkpoint of three classes of four points, and its export for three pictures at once."""
    checkpoint = make_checkpoint(kpt_shape=(4, 2), nc=3)
    return checkpoint, PoseModel(checkpoint).export("paddle", imgsz=(64, 96), batch=3)


def test_a_batch_of_three_classes_of_four_points(four_points: tuple[Path, Path], pictures: list[Any]) -> None:
    checkpoint, path = four_points
    expected = people_of_checkpoint(checkpoint, pictures, (64, 96))
    assert_same_people(PoseModel(path).runner(**OPTIONS).predict(pictures), expected, 0.05, 1e-3)


@pytest.mark.parametrize("name", ["model.json", "model.pdiparams", "edgepose.json"])
@pytest.mark.parametrize("keep", [None, 0, 1000])
def test_a_damaged_folder_is_told(name: str, keep: int | None, exported: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(exported, tmp_path / exported.name)
    content = (broken / name).read_bytes()
    (broken / name).unlink()
    if keep is not None:
        (broken / name).write_bytes(content[:keep])
    with pytest.raises(ValueError, match="best_paddle_model"):
        PoseModel(broken).runner()


def test_metadata_of_another_model_are_refused(exported: Path, four_points: tuple[Path, Path], tmp_path: Path) -> None:
    broken = shutil.copytree(exported, tmp_path / exported.name)
    shutil.copy(four_points[1] / "edgepose.json", broken)
    with pytest.raises(ValueError, match="the metadata name the tensors"):
        PoseModel(broken).runner()


def test_other_devices_than_the_cpu_are_refused(exported: Path) -> None:
    with pytest.raises(ValueError, match="expected one of auto, cpu for Paddle"):
        PoseModel(exported).runner(device="cuda")
