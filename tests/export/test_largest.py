"""The largest network, and every shape of input, export to the three runtimes of the device half and decode right."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepose_trainer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgepose_trainer.model import PoseModel
from edgepose_trainer.nn import build_model
from exporting import assert_same_people, excited, people_of_artifact, people_of_checkpoint

pytestmark = pytest.mark.slow

FORMATS = ("onnx", "openvino", "tflite")
EXACT: dict[str, dict[str, Any]] = {"openvino": {"precision": "f32"}}
WIDE = (256, 448)


@pytest.fixture(scope="module")
def largest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YOLOv8x-pose-p6, whole, with random weights."""
    torch.manual_seed(4)
    network = excited(build_model("yolov8x-pose-p6.yaml"), (128, 128))
    path = tmp_path_factory.mktemp("largest") / "x-p6.pt"
    save_checkpoint(path, Checkpoint(network.eval()))
    return path


@pytest.mark.parametrize("format", FORMATS)
def test_x_p6(format: str, largest: Path, pictures: list[Any], tmp_path: Path, needs: Callable[[str], None]) -> None:
    needs(format)
    path = PoseModel(largest).export(format, imgsz=128, out=tmp_path)
    expected = people_of_checkpoint(largest, pictures, (128, 128))
    # Random weights put points hundreds of pixels away at stride 64: 0.07 to 0.13 px there is float32's last digits.
    assert_same_people(people_of_artifact(path, pictures, **EXACT.get(format, {})), expected, 0.25, 5e-4)


def calm(path: Path) -> Path:
    """Brings the scores of noise down from 1.0, where they are all equal and their order is chance."""
    checkpoint = load_checkpoint(path)
    with torch.no_grad():
        for branch in checkpoint.model.head.cv3:
            last: Any = branch[-1]  # type: ignore[index]
            last.weight.mul_(0.25)
            last.bias.mul_(0.25)
    save_checkpoint(path, checkpoint)
    return path


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("kpt_shape", "classes"), [((4, 2), 1), ((17, 3), 3)])
def test_four_wide_pictures_at_once(
    format: str,
    kpt_shape: tuple[int, int],
    classes: int,
    make_checkpoint: Callable[..., Path],
    needs: Callable[[str], None],
) -> None:
    needs(format)
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (*size, 3), np.uint8) for size in (WIDE, (200, 500), (300, 300), (64, 96))]
    checkpoint = calm(make_checkpoint(kpt_shape=kpt_shape, nc=classes))
    path = PoseModel(checkpoint).export(format, imgsz=WIDE, batch=4)
    expected = people_of_checkpoint(checkpoint, pictures, WIDE)
    assert_same_people(people_of_artifact(path, pictures, **EXACT.get(format, {})), expected, 0.02, 2e-4)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_one_dynamic_file_takes_wide_and_tall_ones_alone_and_four_at_once(
    format: str, person: Path, pictures: list[Any], tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs(format)
    person = calm(Path(shutil.copy(person, tmp_path)))
    path = PoseModel(person).export(format, dynamic=True)
    for size in (WIDE, (320, 96)):
        for given in (pictures[:1] * 2, [*pictures, pictures[0]]):
            expected = people_of_checkpoint(person, given, size)
            found = people_of_artifact(path, given, imgsz=size, **EXACT.get(format, {}))
            assert_same_people(found, expected, 0.02, 2e-4)


def test_tflite_of_any_size_is_refused_with_the_formats_that_can(person: Path) -> None:
    with pytest.raises(ValueError, match="dynamic fits onnx, openvino"):
        PoseModel(person).export("tflite", dynamic=True)
