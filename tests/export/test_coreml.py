"""Core ML packages: their program, its inputs and outputs, and their metadata. Only a Mac runs them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepose_trainer.export.formats.coreml import read_spec
from edgepose_trainer.model import PoseModel

from edgepose.cli import main


@pytest.fixture(autouse=True, scope="module")
def _converter(needs: Callable[[str], None]) -> None:
    needs("coreml")


Export = Callable[..., Path]


@pytest.fixture(scope="module")
def export(person: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    folder = tmp_path_factory.mktemp("coreml")
    return lambda **arguments: PoseModel(person).export("coreml", imgsz=(64, 96), out=folder, **arguments)


@pytest.fixture(scope="module")
def exported(export: Export) -> Path:
    return export()


def program(path: Path) -> Any:
    import coremltools

    return coremltools.utils.load_spec(str(path))


def weight_bytes(path: Path) -> int:
    return (path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin").stat().st_size


def test_the_program_is_fed_and_read_as_the_metadata_say(exported: Path) -> None:
    spec, description = read_spec(exported), program(exported).description
    assert [tuple(i.type.multiArrayType.shape) for i in description.input] == [(1, 3, 64, 96)]
    assert [i.name for i in description.input] == [spec.input.name]
    assert [o.name for o in description.output] == [o.name for o in spec.outputs]
    assert {o.role for o in spec.outputs} == {"box", "score", "keypoints", "visibility"}
    assert program(exported).WhichOneof("Type") == "mlProgram"
    parity = spec.origin["parity"]
    assert (parity["verified"], parity["reason"]) == (False, "Core ML runs on a Mac alone")


def test_weights_take_half_and_a_quarter(export: Export, exported: Path) -> None:
    half, quarter = export(half=True), export(int8=True)
    assert [path.name for path in (half, quarter)] == ["best_float16.mlpackage", "best_int8.mlpackage"]
    assert weight_bytes(half) == pytest.approx(weight_bytes(exported) / 2, rel=0.05)
    assert weight_bytes(quarter) < 0.35 * weight_bytes(exported)
    assert read_spec(quarter).origin["precision"] == "dynamic"


@pytest.mark.skipif(sys.platform == "darwin", reason="it runs here")
def test_running_it_elsewhere_says_that_it_needs_a_mac(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="runs on a Mac alone"):
        PoseModel(exported).runner()
    assert main(["info", f"model={exported}"]) == 1
    assert "runs on a Mac alone" in capsys.readouterr().out


def test_a_damaged_package_is_told(exported: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(exported, tmp_path / exported.name)
    model = broken / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged Core ML package"):
        read_spec(broken)
    (broken / "Manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="not a Core ML package"):
        read_spec(broken)
