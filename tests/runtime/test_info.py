"""`describe` and `edgepose info`: real models, a model whose runtime is missing, and what is no model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgepose import cli
from edgepose.command.info import info_text
from edgepose.info import describe

ROOT = Path(__file__).parents[2]


def test_onnx_of_ultralytics_is_described(shared: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = shared / "models" / "yolov8n-pose_320.onnx"
    info = describe(path)
    assert (info.format, info.metadata, info.runtime, info.problem) == ("onnx", "ultralytics", "onnxruntime", None)
    assert info.size_bytes == path.stat().st_size
    assert info.spec.decoder.kpt_shape == (17, 3)
    assert info.tensors["outputs"][0]["shape"] == [1, 56, 2100]
    text = info_text(info)
    for part in ("RGB 320x320", "letterboxed centred", "value = (level - 0) / 255", "AGPL-3.0", "left_shoulder"):
        assert part in text


def test_openvino_folder_is_weighed_whole(shared: Path) -> None:
    pytest.importorskip("openvino")
    folder = shared / "models" / "yolov8n-pose_int8_openvino_model"
    info = describe(folder)
    assert info.size_bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert info.runtime == "openvino"


def test_model_without_metadata_is_known_by_its_tensors(shared: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    info = describe(shared / "models" / "movenet_single_pose_lightning_ptq.tflite")
    assert info.metadata == "tensors"
    assert "stretched; value = (level - 0) / 1" in info_text(info)


def test_json_is_one_object_and_nothing_else_on_standard_output(shared: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    model = shared / "models" / "movenet_single_pose_lightning_ptq.tflite"
    command = [sys.executable, "-m", "edgepose.cli", "info", f"model={model}", "json=true"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    document = json.loads(done.stdout)
    assert document["spec"]["input"]["resize"]["size"] == [192, 192]
    assert document["tensors"]["inputs"][0]["dtype"] == "uint8"


def test_model_whose_runtime_is_missing_is_described_by_its_metadata(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    from edgepose.artifact import write_spec

    path = tmp_path / "model.onnx"
    path.write_bytes((shared / "models" / "yolov8n-pose_320.onnx").read_bytes())
    write_spec(path, describe(path).spec)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert cli.main(["info", f"model={path}"]) == 1
    text = capsys.readouterr().out
    assert "nothing here" in text
    assert "edgepose[onnx]" in text
    assert "RGB 320x320" in text


def test_what_is_no_model_is_an_error_that_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    assert cli.main(["info", f"model={tmp_path / 'notes.txt'}"]) == 1
    assert "notes.txt" in capsys.readouterr().err
    assert cli.main(["info", f"model={tmp_path / 'nowhere.onnx'}"]) == 1
    assert "nowhere.onnx" in capsys.readouterr().err
