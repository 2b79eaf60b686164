"""Networks with keypoint heatmaps: an export's one tensor more moves the keypoints as the checkpoint's does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepose_trainer.checkpoint import load_checkpoint
from edgepose_trainer.model import PoseModel
from exporting import OPTIONS, assert_same_people, people_of_artifact, people_of_checkpoint

from edgepose.artifact import read_spec

SIZE = (64, 96)


@pytest.fixture(scope="module")
def heatmaps(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(yaml={"heatmap": True})


def test_without_the_heatmap_keypoints_lie_elsewhere(heatmaps: Path, pictures: list[Any]) -> None:
    checkpoint = load_checkpoint(heatmaps)
    checkpoint.model.head.heatmap = None
    without = PoseModel.of_checkpoint(checkpoint, "without").runner(**OPTIONS, imgsz=SIZE).predict(pictures)
    for a, b in zip(without, people_of_checkpoint(heatmaps, pictures, SIZE), strict=True):
        same = [(i, j) for i in range(len(a)) for j in range(len(b)) if np.array_equal(a.boxes[i], b.boxes[j])]
        assert same
        assert all(np.abs(a.keypoints[i] - b.keypoints[j]).max() > 1 for i, j in same)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "openvino", "tflite"])
def test_it_finds_the_same_people(
    format: str, heatmaps: Path, pictures: list[Any], tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs(format)
    path = PoseModel(heatmaps).export(format, imgsz=SIZE, out=tmp_path)
    spec = read_spec(path)
    assert spec is not None
    assert [output.stride for output in spec.outputs if output.role == "heatmap"] == [8]
    options = {"precision": "f32"} if format == "openvino" else {}
    expected = people_of_checkpoint(heatmaps, pictures, SIZE)
    assert_same_people(people_of_artifact(path, pictures, **options), expected, 0.02, 2e-4)


@pytest.mark.slow
def test_int8_tflite_spends_no_step_on_heatmaps_that_are_nothing(
    heatmaps: Path, people_data: Path, tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("tflite")
    path = PoseModel(heatmaps).export("tflite", int8=True, imgsz=SIZE, data=people_data, out=tmp_path, verify=False)
    spec = read_spec(path)
    assert spec is not None
    for output in spec.outputs:
        if output.role in ("score", "heatmap"):
            assert output.quantization is not None
            scale, zero_point = output.quantization
            assert scale * (-128 - zero_point) == pytest.approx(-8, abs=scale)


def test_the_decoded_tensor_has_no_place_for_heatmaps(heatmaps: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"layout=ultralytics: .* heatmaps"):
        PoseModel(heatmaps).export("torchscript", layout="ultralytics", out=tmp_path)
    assert not list(tmp_path.iterdir())
