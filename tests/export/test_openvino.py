"""OpenVINO exports give, through PoseRunner, the people that the checkpoint gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepose_trainer.model import PoseModel
from exporting import assert_same_people, people_of_artifact, people_of_checkpoint

from edgepose.artifact import read_spec

EXACT = {"precision": "f32"}


@pytest.fixture(autouse=True)
def _converter(needs: Callable[[str], None]) -> None:
    needs("openvino")


@pytest.mark.slow
def test_four_points_of_three_classes_by_twos_and_any_size(
    make_checkpoint: Callable[..., Path], pictures: list[Any]
) -> None:
    checkpoint = make_checkpoint(kpt_shape=(4, 2), nc=3)
    expected = people_of_checkpoint(checkpoint, pictures, (64, 96))
    path = PoseModel(checkpoint).export("openvino", imgsz=(64, 96), batch=2)
    assert_same_people(people_of_artifact(path, pictures, **EXACT), expected, 0.01, 1e-4)
    path = PoseModel(checkpoint).export("openvino", dynamic=True)
    assert_same_people(people_of_artifact(path, pictures, imgsz=(64, 96), **EXACT), expected, 0.01, 1e-4)


@pytest.mark.slow
def test_the_decoded_tensor_is_read_by_its_ultralytics_metadata(
    person: Path, pictures: list[Any], tmp_path: Path
) -> None:
    path = PoseModel(person).export("openvino", layout="ultralytics", out=tmp_path)
    assert sorted(file.name for file in path.iterdir()) == ["best.bin", "best.xml", "metadata.yaml"]
    xml = path / "best.xml"
    start, end = xml.read_text().rsplit("<edgepose value=", 1)
    xml.write_text(start + end.partition("/>")[2])
    assert read_spec(path) is None
    expected = people_of_checkpoint(person, pictures, (64, 64))
    assert_same_people(people_of_artifact(path, pictures, **EXACT), expected, 0.01, 1e-4)


@pytest.mark.slow
def test_int8_takes_levels_and_finds_the_same_people(
    needs: Callable[[str], None], person: Path, people_data: Path, tmp_path: Path
) -> None:
    needs("nncf")
    for name in ("openvino", "onnx"):
        path = PoseModel(person).export(name, int8=True, data=people_data, out=tmp_path, verify=False)
        assert "_int8" in path.name
        spec = read_spec(path)
        assert spec is not None
        assert spec.input.dtype == "uint8"
        assert spec.origin["calibration"]["pictures"] == 6
        parity = compare_with(path, person, people_data)
        assert parity.matched > 0.5  # a network of noise has no clear people to keep
        assert parity.score_p50 < 0.1


def compare_with(path: Path, checkpoint: Path, data: Path) -> Any:
    from edgepose_trainer.export import verify

    return verify(path, checkpoint, data)
