"""TFLite exports: the same people in float32, and an int8 graph without a float in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepose_trainer.export import export_model, verify
from edgepose_trainer.export.formats import edgetpu, tflite
from edgepose_trainer.export.ranges import METHODS
from edgepose_trainer.export.sensitive import Finding
from edgepose_trainer.model import PoseModel
from exporting import assert_same_people, people_of_artifact, people_of_checkpoint

from edgepose.artifact import read_spec

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _converter(needs: Callable[[str], None]) -> None:
    needs("tflite")


def test_four_points_of_three_classes_by_twos(make_checkpoint: Callable[..., Path], pictures: list[Any]) -> None:
    checkpoint = make_checkpoint(kpt_shape=(4, 2), nc=3)
    path = PoseModel(checkpoint).export("tflite", imgsz=(64, 96), batch=2)
    assert path.name == "best_float32.tflite"
    expected = people_of_checkpoint(checkpoint, pictures, (64, 96))
    assert_same_people(people_of_artifact(path, pictures), expected, 0.02, 2e-4)


def test_the_decoded_tensor_tells_places_as_fractions(person: Path, pictures: list[Any], tmp_path: Path) -> None:
    path = PoseModel(person).export("tflite", layout="ultralytics", imgsz=(64, 96), out=tmp_path)
    expected = people_of_checkpoint(person, pictures, (64, 96))
    assert_same_people(people_of_artifact(path, pictures), expected, 0.02, 2e-4)


@pytest.fixture(scope="module")
def int8(
    needs: Callable[[str], None], person: Path, people_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    needs("tflite")  # made before the fixture of each test
    folder = tmp_path_factory.mktemp("int8")
    return PoseModel(person).export("tflite", int8=True, data=people_data, out=folder, verify=False)


def test_int8_has_no_float_tensor_and_takes_and_gives_int8(int8: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(int8))
    kinds = {np.dtype(entry["dtype"]).name for entry in interpreter.get_tensor_details()}
    assert kinds <= {"int8", "int32"}
    spec = read_spec(int8)
    assert spec is not None
    assert spec.input.dtype == "int8"
    assert {output.dtype for output in spec.outputs} == {"int8"}


def test_int8_is_reproducible_and_its_ranges_are_cached(int8: Path, person: Path, people_data: Path) -> None:
    from edgepose_trainer.data.files import cache_dir

    kept = sorted((cache_dir() / "calibration").glob("*.tflite.npz"))
    assert kept
    again = PoseModel(person).export("tflite", int8=True, data=people_data, verify=False, out=int8.parent / "again")
    assert sorted((cache_dir() / "calibration").glob("*.tflite.npz")) == kept
    assert again.read_bytes() == int8.read_bytes()


def test_int8_finds_mostly_the_same(int8: Path, person: Path, people_data: Path) -> None:
    parity = verify(int8, person, people_data)
    assert parity.matched > 0.5  # a network of noise has no clear people to keep
    assert parity.score_p50 < 0.15


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_each_way_to_find_ranges_is_its_own_in_file_and_cache(
    method: str, int8: Path, person: Path, people_data: Path, tmp_path: Path
) -> None:
    path = PoseModel(person).export(
        "tflite", int8=True, calibration=method, data=people_data, verify=False, out=tmp_path
    )
    spec = read_spec(path)
    assert spec is not None
    assert spec.origin["calibration"]["method"] == method
    assert spec.origin["quantization"]["ranges"] == METHODS[method]
    default = read_spec(int8)
    assert default is not None
    assert [output.quantization for output in spec.outputs] != [output.quantization for output in default.outputs]


def test_pictures_are_taken_without_rounding(int8: Path) -> None:
    spec = read_spec(int8)
    assert spec is not None
    assert spec.input.quantization is not None
    assert spec.input.quantization.scale == pytest.approx(1 / 255, rel=1e-6)
    assert spec.input.quantization.zero_point == -128


def makers_of_outputs(path: Path) -> dict[str, str]:
    """The kind of the operator that gives each output."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    graph = model.subgraphs[0]
    makers = {op.outputs[0]: flatbuffer_utils.opcode_to_name(model, op.opcodeIndex) for op in graph.operators}
    return {graph.tensors[index].name.decode(): str(makers[index]) for index in graph.outputs}


def test_mixed_keeps_the_last_convolutions_in_float_of_roles_where_that_pays(
    person: Path, people_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keypoints_alone(roles: tuple[str, ...], *people: Any) -> list[Finding]:
        assert [len(results) for results in people] == [6, 6, 6]  # of each calibration picture
        return [Finding(role, 1.0, 0.5 if role == "keypoints" else 1.0) for role in roles]

    monkeypatch.setattr(tflite, "find_sensitive", keypoints_alone)
    lines: list[str] = []
    checkpoint = PoseModel(person).exportable()
    path = export_model(
        checkpoint, person, "tflite", int8="mixed", data=people_data, out=tmp_path, verify=False, report=lines.append
    )
    assert path.name == "best_mixed.tflite"
    assert [line.split()[0] for line in lines if line.endswith("kept in float")] == ["keypoints"]
    spec = read_spec(path)
    assert spec is not None
    assert spec.input.dtype == "int8"
    makers = makers_of_outputs(path)
    assert {makers[output.name] for output in spec.outputs if output.role == "keypoints"} == {"CONV_2D"}
    assert {makers[output.name] for output in spec.outputs if output.role != "keypoints"} == {"DEQUANTIZE"}


COMPILER = """#!/bin/sh
if [ "$1" = --version ]; then echo "Edge TPU Compiler version 16.0"; exit 0; fi
[ "$1 $2 $3" = "-s -a -o" ] || exit 7
name=$(basename "$5" .tflite)
cp "$5" "$4/${name}_edgetpu.tflite"
echo "$@" > "$EDGETPU_ARGUMENTS"
"""


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for edgetpu_compiler on the PATH that writes down its arguments."""
    path = tmp_path / "bin" / edgetpu.COMPILER
    path.parent.mkdir()
    path.write_text(COMPILER)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("EDGETPU_ARGUMENTS", str(tmp_path / "arguments"))
    return tmp_path / "arguments"


def test_the_compiler_is_called_and_its_file_carries_the_metadata(
    compiler: Path, person: Path, people_data: Path, tmp_path: Path
) -> None:
    path = PoseModel(person).export("edgetpu", data=people_data, out=tmp_path / "out", verify=False)
    assert path.name == "best_int8_edgetpu.tflite"
    assert sorted(file.name for file in path.parent.iterdir()) == ["best_int8.tflite", "best_int8_edgetpu.tflite"]
    words = compiler.read_text().split()
    assert words[:3] == ["-s", "-a", "-o"]
    assert words[4].endswith("/best_int8.tflite")
    spec = read_spec(path)
    assert spec is not None
    assert spec.origin["edgetpu"]["compiler"] == "Edge TPU Compiler version 16.0"


def test_without_the_compiler_the_file_is_ready_and_the_command_told(
    person: Path, people_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    lines: list[str] = []
    checkpoint = PoseModel(person).exportable()
    path = export_model(
        checkpoint, person, "edgetpu", data=people_data, out=tmp_path, verify=False, report=lines.append
    )
    assert path.name == "best_int8.tflite"
    said = "\n".join(lines)
    assert "edgetpu_compiler -s -a -o . best_int8.tflite" in said
    rows = edgetpu.operator_report(path)
    assert {row["operator"] for row in rows if not row["maps"]} == set()
    assert f"Edge TPU: {sum(row['count'] for row in rows)} of " in said
