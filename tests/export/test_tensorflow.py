"""SavedModels and frozen graphs give, run by TensorFlow, the people that the checkpoint gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepose_trainer.model import PoseModel
from exporting import OPTIONS, assert_same_people, people_of_checkpoint

from edgepose.cli import main

FORMATS = ("saved_model", "pb")


@pytest.fixture(autouse=True, scope="module")
def _converter(needs: Callable[[str], None]) -> None:
    needs("saved_model")


@pytest.fixture(scope="module")
def exported(person: Path, people_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tensorflow")
    return {
        name: PoseModel(person).export(name, imgsz=(64, 96), data=people_data, out=folder / name) for name in FORMATS
    }


@pytest.mark.parametrize("name", FORMATS)
def test_it_finds_the_same_people_and_is_verified(
    name: str, exported: dict[str, Path], person: Path, pictures: list[Any]
) -> None:
    runner = PoseModel(exported[name]).runner(**OPTIONS)
    assert_same_people(runner.predict(pictures), people_of_checkpoint(person, pictures, (64, 96)), 0.05, 1e-3)
    assert runner.spec.origin["parity"]["passed"]
    left = {file.name for file in exported[name].parent.iterdir()}
    assert left == ({"best_saved_model"} if name == "saved_model" else {"best.pb", "best.pb.edgepose.json"})


@pytest.mark.parametrize("name", FORMATS)
def test_the_command_takes_it(name: str, exported: dict[str, Path], people_data: Path, tmp_path: Path) -> None:
    assert main(["info", f"model={exported[name]}"]) == 0
    picture = next((people_data.parent / "images" / "val").iterdir())
    assert main(["predict", f"model={exported[name]}", f"source={picture}", f"project={tmp_path}"]) == 0
    assert main(["val", f"model={exported[name]}", f"data={people_data}", "plots=false"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_batch_of_three_classes_of_four_points(
    name: str, make_checkpoint: Callable[..., Path], pictures: list[Any]
) -> None:
    checkpoint = make_checkpoint(kpt_shape=(4, 2), nc=3)
    path = PoseModel(checkpoint).export(name, imgsz=(64, 96), batch=3)
    expected = people_of_checkpoint(checkpoint, pictures, (64, 96))
    assert_same_people(PoseModel(path).runner(**OPTIONS).predict(pictures), expected, 0.05, 1e-3)


def test_a_damaged_graph_is_told(exported: dict[str, Path], tmp_path: Path) -> None:
    broken = Path(shutil.copy(exported["pb"], tmp_path))
    with pytest.raises(ValueError, match=r"best\.pb\.edgepose\.json"):
        PoseModel(broken).runner()
    shutil.copy(f"{exported['pb']}.edgepose.json", tmp_path)
    broken.write_bytes(broken.read_bytes()[:5000])
    with pytest.raises(ValueError, match="TensorFlow does not take it"):
        PoseModel(broken).runner()


def test_a_damaged_saved_model_is_told(exported: dict[str, Path], tmp_path: Path) -> None:
    broken = shutil.copytree(exported["saved_model"], tmp_path / "best_saved_model")
    (broken / "saved_model.pb").write_bytes(b"\x0a\xff\xff")
    with pytest.raises(ValueError, match="TensorFlow does not take it"):
        PoseModel(broken).runner()
