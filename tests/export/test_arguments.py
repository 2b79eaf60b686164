"""What an export refuses, before anything is converted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from edgepose_trainer.data import load_data_config
from edgepose_trainer.export.arguments import check_arguments
from edgepose_trainer.export.calibration import load_calibration
from edgepose_trainer.export.formats import engine, paddle
from edgepose_trainer.export.registry import Format, find_format, format_table, formats, markdown_table
from edgepose_trainer.model import PoseModel

from edgepose.cli import main
from edgepose.command.registry import TRAINER_FILES

DOCS = Path(__file__).parents[2] / "docs"


def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Format, "missing", lambda self, precision="": [])


@pytest.mark.parametrize(
    ("format", "arguments", "message"),
    [
        ("onxx", {}, "did you mean 'onnx'"),
        ("onnx", {"int9": True}, "did you mean 'int8'"),
        ("tflite", {"dynamic": True}, "dynamic=True does not fit format=tflite.*fits onnx, openvino"),
        ("openvino", {"opset": 17}, "opset fits onnx"),
        ("torchscript", {"int8": True}, "int8=True does not fit format=torchscript"),
        ("edgetpu", {"layout": "ultralytics"}, "layout=ultralytics does not fit format=edgetpu"),
        ("onnx", {"half": True, "int8": True}, "choose one precision"),
        ("onnx", {"int8": "dynamic"}, "comes in float32, float16, int8, not in dynamic"),
        ("onnx", {"int8": True, "layout": "ultralytics"}, "the scores collapse"),
        ("onnx", {"dynamic": True, "batch": 2}, "leave batch=2 out"),
        ("onnx", {"fraction": 0.5}, "int8=true calibrates on"),
        ("onnx", {"int8": True, "fraction": 1.5}, "above 0, at most 1"),
        ("onnx", {"int8": True, "calibration": "mse"}, "expected one of auto, minmax, percentile"),
        ("onnx", {"int8": "mixed"}, "comes in float32, float16, int8, not in mixed"),
        ("tflite", {"int8": "most"}, "expected true, false, mixed or dynamic"),
        ("tflite", {"int8": "mixed", "layout": "ultralytics"}, "the scores collapse"),
        ("onnx", {"batch": 0}, "expected 1 to"),
        ("onnx", {"imgsz": (64, 0)}, "expected 1 to"),
    ],
)
def test_wrong_arguments_are_told(format: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        check_arguments(format, arguments)


@pytest.mark.parametrize("value", ["640", 64.5, True, (64, 64, 64)])
def test_a_size_that_is_none_is_told(value: object) -> None:
    with pytest.raises((ValueError, TypeError), match="imgsz="):
        check_arguments("onnx", {"imgsz": value, "half": False})


def test_a_size_between_the_strides_names_the_nearest(person: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch)
    with pytest.raises(ValueError, match="multiples of 16, such as imgsz=96,64"):
        PoseModel(person).export("onnx", imgsz=(100, 64))


def test_int8_without_any_data_asks_for_data(person: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch)
    with pytest.raises(ValueError, match="pass data="):
        PoseModel(person).export("tflite", int8=True, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_converter_names_the_extra(person: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Format, "missing", lambda self, precision="": ["litert_torch"])
    with pytest.raises(ImportError, match=r"needs litert_torch, which is not installed.*edgepose\[export\]"):
        PoseModel(person).export("tflite")


def test_paddle_is_not_imported_after_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "paddle", raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow", ModuleType("tensorflow"))
    with pytest.raises(ImportError, match="import paddle` first"):
        paddle._check_order()


def test_every_extra_that_is_named_is_there() -> None:
    extras = metadata("edgepose").get_all("Provides-Extra")
    assert extras is not None
    assert {entry.extra for entry in formats().values()} <= set(extras)


def test_broken_calibration_pictures_are_left_out_and_named(people_data: Path, tmp_path: Path) -> None:
    data, pictures = copied(people_data, tmp_path)
    pictures[0].write_bytes(pictures[0].read_bytes()[:200])
    pictures[1].write_text("no picture")
    calibration = load_calibration(load_data_config(data), (64, 64))
    assert len(calibration) == 4
    assert sorted(problem.split(":")[0] for problem in calibration.problems) == [str(path) for path in pictures[:2]]


def test_int8_with_nothing_but_broken_pictures_is_told_before_it_converts(
    person: Path, people_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _installed(monkeypatch)
    data, pictures = copied(people_data, tmp_path)
    for path in pictures:
        path.write_text("no picture")
    with pytest.raises(ValueError, match="train"):
        PoseModel(person).export("onnx", int8=True, data=data, out=tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def copied(people_data: Path, folder: Path) -> tuple[Path, list[Path]]:
    """The YAML of a copy of the pictures, and its training pictures."""
    root = shutil.copytree(people_data.parent, folder / "people")
    data = root / "people.yaml"
    data.write_text(data.read_text().replace(str(people_data.parent), str(root)))
    return data, sorted((root / "images" / "train").iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize(("device", "message"), [("cpu", "NVIDIA's GPUs alone"), (None, "sees 0 CUDA GPUs")])
def test_a_device_that_is_no_gpu_is_told(device: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        engine._gpu(device)


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is here")
def test_without_tensorrt_the_extra_is_named(person: Path, tmp_path: Path) -> None:
    with pytest.raises(ImportError, match=r"needs .*tensorrt.*edgepose\[export-tensorrt\]"):
        PoseModel(person).export("engine", out=tmp_path)


def test_a_folder_that_cannot_be_made_is_told(person: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        PoseModel(person).export("onnx", out=tmp_path / "file" / "out")


def test_a_folder_that_is_not_writable_is_told(person: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write anywhere
    with pytest.raises(PermissionError, match="not writable: pass out=FOLDER"):
        PoseModel(person).export("onnx", out=tmp_path)


def test_an_exported_model_is_not_exported_again(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(ValueError, match="nothing to export"):
        PoseModel(tmp_path / "model.onnx").export("onnx")


def test_a_checkpoint_that_is_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "best.pt").write_text("not a checkpoint")
    assert main(["export", f"model={tmp_path / 'best.pt'}"]) == 1
    assert "best.pt" in capsys.readouterr().err


def test_a_converter_that_fails_leaves_a_log_and_nothing_else(
    person: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    _installed(monkeypatch)

    def fail(job: Any) -> Any:
        (job.folder / "half done.onnx").write_text("")
        print("chatter on standard output")
        print("chatter on standard error", file=sys.stderr)
        raise RuntimeError("no such operator")

    entry = find_format("onnx")
    broken = Format(**{name: getattr(entry, name) for name in entry.__slots__} | {"convert": fail})
    monkeypatch.setitem(formats(), "onnx", broken)
    with pytest.raises(RuntimeError, match=r"no such operator.*best_onnx\.log"):
        PoseModel(person).export("onnx", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["best_onnx.log"]
    said = (tmp_path / "best_onnx.log").read_text()
    assert "chatter on standard output" in said
    assert "chatter on standard error" in said
    assert "chatter" not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_exports_side_by_side_do_not_disturb_each_other(person: Path, tmp_path: Path) -> None:
    def export(size: int) -> Path:
        return PoseModel(person).export("torchscript", imgsz=size, out=tmp_path / str(size))

    sizes = [64, 96, 128]
    with ThreadPoolExecutor(3) as pool:
        paths = list(pool.map(export, sizes))
    for size, path in zip(sizes, paths, strict=True):
        assert [file.name for file in path.parent.iterdir()] == ["best.torchscript"]
        assert PoseModel(path).runner().spec.input.resize.size == (size, size)


@pytest.mark.slow
def test_two_commands_at_once_leave_one_whole_file(person: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgepose.cli", "export", f"model={person}", "format=torchscript", "verify=false"]
    running = [
        subprocess.Popen([*command, f"out={tmp_path}", f"imgsz={size}"], stdout=subprocess.PIPE, text=True)
        for size in (64, 96)
    ]
    for process in running:
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0
        assert said.splitlines()[-1] == str(tmp_path / "best.torchscript")
    assert [file.name for file in tmp_path.iterdir()] == ["best.torchscript"]
    side = PoseModel(tmp_path / "best.torchscript").runner().spec.input.resize.size
    assert side in ((64, 64), (96, 96))


def test_the_command_prints_the_table_of_formats(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export"]) == 0
    assert capsys.readouterr().out.strip() == format_table().strip()
    assert all(name in format_table() for name in formats())


def test_the_table_of_the_docs_is_the_registry_s() -> None:
    page = (DOCS / "export.md").read_text()
    table = page.split("<!-- formats -->\n")[1].split("\n<!-- end -->")[0]
    assert table == markdown_table(), "run: python docs/format_table.py"


def test_the_command_gives_the_trainer_every_file_that_it_alone_runs() -> None:
    for entry in formats().values():
        if entry.open is not None:
            assert entry.read_spec is not None
            assert all(suffix.endswith(TRAINER_FILES) for suffix in entry.suffixes.values())


def test_every_format_says_what_it_is_and_names_differ() -> None:
    suffixes: list[str] = []
    for entry in formats().values():
        assert entry.variants
        assert entry.proven_by
        suffixes += entry.suffixes.values()
    assert len(suffixes) == len(set(suffixes))
