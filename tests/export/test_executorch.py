"""ExecuTorch exports give, run by ExecuTorch, the people that the checkpoint gives."""

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
    needs("executorch")


@pytest.fixture(scope="module")
def exported(person: Path, people_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("executorch")
    return PoseModel(person).export("executorch", imgsz=(64, 96), data=people_data, out=folder)


def test_it_finds_the_same_people_and_is_verified(exported: Path, person: Path, pictures: list[Any]) -> None:
    assert sorted(file.name for file in exported.parent.iterdir()) == ["best.pte", "best.pte.edgepose.json"]
    runner = PoseModel(exported).runner(**OPTIONS)
    assert_same_people(runner.predict(pictures), people_of_checkpoint(person, pictures, (64, 96)), 0.05, 1e-3)
    assert runner.spec.origin["parity"]["passed"]


def test_the_command_takes_it(
    exported: Path, people_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", f"model={exported}"]) == 0
    assert "(executorch, " in capsys.readouterr().out
    picture = next((people_data.parent / "images" / "val").iterdir())
    assert main(["predict", f"model={exported}", f"source={picture}", f"project={tmp_path}"]) == 0
    assert main(["val", f"model={exported}", f"data={people_data}", "plots=false"]) == 0


@pytest.mark.slow
def test_a_batch_of_three_classes_of_four_points(make_checkpoint: Callable[..., Path], pictures: list[Any]) -> None:
    checkpoint = make_checkpoint(kpt_shape=(4, 2), nc=3)
    path = PoseModel(checkpoint).export("executorch", imgsz=(64, 96), batch=3)
    expected = people_of_checkpoint(checkpoint, pictures, (64, 96))
    assert_same_people(PoseModel(path).runner(**OPTIONS).predict(pictures), expected, 0.05, 1e-3)


@pytest.mark.parametrize("keep", [0, 100, 100_000])
def test_a_cut_off_file_is_told(keep: int, exported: Path, tmp_path: Path) -> None:
    broken = shutil.copy(exported, tmp_path)
    shutil.copy(f"{exported}.edgepose.json", tmp_path)
    Path(broken).write_bytes(exported.read_bytes()[:keep])
    with pytest.raises(ValueError, match="ExecuTorch"):
        PoseModel(broken).runner()


def test_a_file_without_its_metadata_is_told(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"best\.pte\.edgepose\.json"):
        PoseModel(shutil.copy(exported, tmp_path)).runner()
