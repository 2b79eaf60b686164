"""ONNX exports give, through PoseRunner, the people that the checkpoint gives."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepose_trainer.model import PoseModel
from exporting import assert_same_people, people_of_artifact, people_of_checkpoint

from edgepose.artifact import read_spec


@pytest.fixture(autouse=True)
def _converter(needs: Callable[[str], None]) -> None:
    needs("onnx")


def test_three_classes_of_four_points_in_a_flat_input_by_twos(
    make_checkpoint: Callable[..., Path], pictures: list[Any]
) -> None:
    checkpoint = make_checkpoint(kpt_shape=(4, 2), nc=3)
    path = PoseModel(checkpoint).export("onnx", imgsz=(64, 96), batch=2)
    expected = people_of_checkpoint(checkpoint, pictures, (64, 96))
    assert_same_people(people_of_artifact(path, pictures), expected, 0.01, 1e-4)
    assert {int(i) for result in expected for i in result.class_ids} == {0, 1, 2}


def test_nms_joins_what_it_joined_where_the_checkpoint_was_validated(
    make_checkpoint: Callable[..., Path], pictures: list[Any]
) -> None:
    checkpoint = make_checkpoint(settings={"imgsz": 64, "iou": 0.3, "nms": "iou"})
    path = PoseModel(checkpoint).export("onnx")
    spec = read_spec(path)
    assert spec is not None
    assert spec.decoder.iou == PoseModel(checkpoint).runner().spec.decoder.iou == 0.3
    few, many = (people_of_artifact(path, pictures, **options) for options in ({}, {"iou": 0.7}))
    assert sum(map(len, few)) < sum(map(len, many))


@pytest.mark.slow
def test_any_size_and_batch(person: Path, pictures: list[Any]) -> None:
    path = PoseModel(person).export("onnx", dynamic=True)
    for size in ((64, 64), (96, 160)):
        expected = people_of_checkpoint(person, pictures, size)
        assert_same_people(people_of_artifact(path, pictures, imgsz=size), expected, 0.01, 1e-4)
    own = people_of_checkpoint(person, pictures, (64, 64))  # the size of its training, which both remember
    assert_same_people(people_of_artifact(path, pictures), own, 0.01, 1e-4)


@pytest.mark.slow
def test_float16_within_a_pixel(person: Path, pictures: list[Any]) -> None:
    path = PoseModel(person).export("onnx", half=True)
    spec = read_spec(path)
    assert spec is not None
    assert spec.input.dtype == "float16"
    assert len(people_of_artifact(path, pictures)[0]) > 0


@pytest.mark.slow
def test_the_decoded_tensor_is_read_by_its_ultralytics_metadata(
    person: Path, pictures: list[Any], tmp_path: Path
) -> None:
    import onnx

    path = PoseModel(person).export("onnx", layout="ultralytics", out=tmp_path)
    model = onnx.load(path)
    kept = [entry for entry in model.metadata_props if entry.key != "edgepose"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, path)
    assert read_spec(path) is None
    expected = people_of_checkpoint(person, pictures, (64, 64))
    assert_same_people(people_of_artifact(path, pictures), expected, 0.01, 1e-4)


@pytest.mark.slow
def test_the_example_of_the_page_runs(person: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(person, tmp_path)
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "docs/export.md", "exec"), {})
    assert (tmp_path / "best.onnx").is_file()
