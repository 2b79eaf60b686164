"""NCNN exports give, run by NCNN, the people that the checkpoint gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepose_trainer.export import verify
from edgepose_trainer.model import PoseModel
from exporting import OPTIONS, assert_same_people, people_of_checkpoint

from edgepose.cli import main


@pytest.fixture(autouse=True, scope="module")
def _converter(needs: Callable[[str], None]) -> None:
    needs("ncnn")


@pytest.fixture(scope="module")
def exported(person: Path, people_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ncnn")
    return PoseModel(person).export("ncnn", imgsz=(64, 96), data=people_data, out=folder)


def test_float32_finds_the_same_people_and_is_verified(exported: Path, person: Path, pictures: list[Any]) -> None:
    assert sorted(file.name for file in exported.iterdir()) == ["edgepose.json", "model.ncnn.bin", "model.ncnn.param"]
    assert [file.name for file in exported.parent.iterdir()] == ["best_ncnn_model"]
    model = PoseModel(f"{exported}/")
    expected = people_of_checkpoint(person, pictures, (64, 96))
    assert_same_people(model.runner(**OPTIONS).predict(pictures), expected, 0.05, 1e-3)
    parity = model.runner().spec.origin["parity"]
    assert parity["passed"]
    assert parity["pictures"] == 4


def test_the_command_takes_the_folder(
    exported: Path, people_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", f"model={exported}/"]) == 0
    said = capsys.readouterr().out
    assert "(ncnn, " in said
    assert "runs in:    ncnn" in said
    picture = next((people_data.parent / "images" / "val").iterdir())
    assert main(["predict", f"model={exported}/", f"source={picture}", f"project={tmp_path}"]) == 0
    assert main(["val", f"model={exported}", f"data={people_data}", "plots=false"]) == 0


@pytest.fixture(scope="module")
def four_points(make_checkpoint: Callable[..., Path]) -> tuple[Path, Path]:
    """The checkpoint of three classes of four points, and its export."""
    checkpoint = make_checkpoint(kpt_shape=(4, 2), nc=3)
    return checkpoint, PoseModel(checkpoint).export("ncnn", imgsz=(64, 96))


def test_three_classes_of_four_points(four_points: tuple[Path, Path], pictures: list[Any]) -> None:
    checkpoint, path = four_points
    expected = people_of_checkpoint(checkpoint, pictures, (64, 96))
    assert_same_people(PoseModel(path).runner(**OPTIONS).predict(pictures), expected, 0.05, 1e-3)


@pytest.mark.slow
def test_float16_is_half_as_large_and_finds_nearly_the_same(exported: Path, person: Path, people_data: Path) -> None:
    path = PoseModel(person).export("ncnn", half=True, imgsz=(64, 96), out=exported.parent, verify=False)
    assert path.name == "best_float16_ncnn_model"
    sizes = [(folder / "model.ncnn.bin").stat().st_size for folder in (path, exported)]
    assert sizes[0] == pytest.approx(sizes[1] / 2, rel=0.05)
    parity = verify(path, person, people_data)
    assert parity.precision == "float16"
    assert parity.matched > 0.95


@pytest.mark.parametrize("name", ["model.ncnn.param", "model.ncnn.bin", "edgepose.json"])
def test_a_folder_with_a_file_missing_is_told(name: str, exported: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(exported, tmp_path / exported.name)
    (broken / name).unlink()
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        PoseModel(broken).runner()


def test_metadata_of_another_model_are_refused(
    exported: Path, four_points: tuple[Path, Path], pictures: list[Any], tmp_path: Path
) -> None:
    broken = shutil.copytree(exported, tmp_path / exported.name)
    shutil.copy(four_points[1] / "edgepose.json", broken)
    with pytest.raises(ValueError, match="the metadata mean a shape of"):
        PoseModel(broken).predict(pictures[0])


def test_other_devices_than_the_cpu_are_refused(exported: Path) -> None:
    with pytest.raises(ValueError, match="expected one of auto, cpu for NCNN"):
        PoseModel(exported).runner(device="cuda")


def test_pnnx_that_fails_is_told_with_a_log(person: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pnnx

    monkeypatch.setattr(pnnx, "EXEC_PATH", shutil.which("false"))
    with pytest.raises(RuntimeError, match=r"pnnx ended with 1.*best_ncnn\.log"):
        PoseModel(person).export("ncnn", out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["best_ncnn.log"]
