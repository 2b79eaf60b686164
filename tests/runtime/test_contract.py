from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose import coco
from edgepose.contract import SCHEMA_VERSION, InputSpec, ModelSpec, Quantization

RELEASED = Path(__file__).parent / "data"


@pytest.fixture
def document() -> dict[str, Any]:
    """Raw heads of one stride, five keypoints, two classes."""
    loaded: dict[str, Any] = json.loads((RELEASED / "artifact_schema_1.0.json").read_text())
    return loaded


def test_the_document_of_every_released_schema_loads() -> None:
    released = sorted(RELEASED.glob("artifact_schema_*.json"))
    assert released
    for path in released:
        spec = ModelSpec.from_dict(json.loads(path.read_text()))
        assert spec.decoder.kpt_shape == (5, 3)


def test_every_field_of_schema_1_0_is_read(document: dict[str, Any]) -> None:
    spec = ModelSpec.from_dict(document)
    assert spec.schema == "1.0"
    assert spec.input.quantization == Quantization(0.0039215689, -128)
    assert spec.input.resize.size == (256, 320)
    assert [output.role for output in spec.outputs] == ["box", "score", "keypoints", "visibility"]
    assert spec.outputs[0].quantization == Quantization(0.125, 7)
    assert spec.decoder.num_classes == 2
    assert (spec.decoder.nms, spec.decoder.iou) == ("oks", 0.5)
    assert spec.people.class_names == ("cat", "dog")
    assert spec.people.flip == (0, 2, 1, 4, 3)
    assert spec.origin["parity"]["ap"] == 0.341


def test_to_dict_gives_back_the_whole_document(document: dict[str, Any]) -> None:
    assert ModelSpec.from_dict(document).to_dict() == document


def test_a_spec_survives_json(document: dict[str, Any]) -> None:
    spec = ModelSpec.from_dict(document)
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_defaults_are_those_of_the_specs() -> None:
    short = {
        "schema": "1.0",
        "input": {"name": "images"},
        "outputs": [{"name": "output0", "role": "detections"}],
        "decoder": {"type": "yolo"},
    }
    assert ModelSpec.from_dict(short).input == InputSpec("images")


def test_gray_input_has_one_mean_and_std_by_default(document: dict[str, Any]) -> None:
    document["input"] |= {"color": "GRAY"}
    del document["input"]["mean"], document["input"]["std"]
    assert ModelSpec.from_dict(document).input.mean == (0.0,)


def test_classes_without_names_are_numbered(document: dict[str, Any]) -> None:
    del document["people"]["class_names"]
    assert ModelSpec.from_dict(document).people.class_names == ("class0", "class1")


@pytest.mark.parametrize("schema", ["2.0", "0.9", "99.1"])
def test_an_unknown_major_schema_is_refused(document: dict[str, Any], schema: str) -> None:
    document["schema"] = schema
    with pytest.raises(ValueError, match=rf"got version {schema}, this edgepose reads 1.x"):
        ModelSpec.from_dict(document)


@pytest.mark.parametrize("schema", [None, 1, 1.0, "1", "1.0.0", "one.two", "1.x", "", "1." + "0" * 40, "\u0661.0"])
def test_a_schema_that_is_no_version_is_refused(document: dict[str, Any], schema: object) -> None:
    document["schema"] = schema
    with pytest.raises(ValueError, match=r"schema: got .* expected a version"):
        ModelSpec.from_dict(document)


def test_fields_that_a_later_minor_added_are_passed_over(document: dict[str, Any]) -> None:
    document |= {"schema": "1.7", "future": {"a": 1}}
    document["input"]["exposure"] = "auto"
    spec = ModelSpec.from_dict(document)
    assert spec.schema == "1.7"
    assert spec.input.name == "images"


def test_an_unknown_field_of_this_schema_names_the_nearest(document: dict[str, Any]) -> None:
    document["input"]["colour"] = "RGB"
    with pytest.raises(ValueError, match=r"input: got 'colour', expected 'color'\?"):
        ModelSpec.from_dict(document)


def _set(document: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    target: Any = document
    for key in parents:
        target = target[int(key)] if key.isdigit() else target[key]
    target[int(last) if last.isdigit() else last] = value


BAD_FIELDS = [
    ("input", [], "input: got"),
    ("input.name", "", "input.name"),
    ("input.name", "x" * 1001, "input.name"),
    ("input.name", "a\x1b[31m", "input.name"),
    ("input.name", 3, "input.name"),
    ("input.layout", "CHW", "input.layout"),
    ("input.layout", ["NCHW"], "input.layout"),
    ("input.dtype", "int32", "input.dtype"),
    ("input.batch", 0, "input.batch"),
    ("input.batch", True, "input.batch"),
    ("input.batch", 1.0, "input.batch"),
    ("input.quantization", None, "input.quantization"),
    ("input.quantization.scale", 0, "input.quantization.scale"),
    ("input.quantization.scale", -1.0, "input.quantization.scale"),
    ("input.quantization.scale", float("nan"), "input.quantization.scale"),
    ("input.quantization.scale", float("inf"), "input.quantization.scale"),
    ("input.quantization.scale", 10**400, "input.quantization.scale"),
    ("input.quantization.scale", "0.1", "input.quantization.scale"),
    ("input.quantization.zero_point", 128, "input.quantization.zero_point"),
    ("input.quantization.zero_point", 1.5, "input.quantization.zero_point"),
    ("input.color", "YUV", "input.color"),
    ("input.mean", [0, 0], "input.mean"),
    ("input.mean", [0, 0, float("nan")], r"input.mean\[2\]"),
    ("input.std", [1, 0, 1], r"input.std\[1\]"),
    ("input.resize.mode", "crop", "input.resize.mode"),
    ("input.resize.size", [0, 64], r"input.resize.size\[0\]"),
    ("input.resize.size", [64], "input.resize.size"),
    ("input.resize.size", [64, 10**6], r"input.resize.size\[1\]"),
    ("input.resize.size", 640, "input.resize.size"),
    ("input.resize.stride", 0, "input.resize.stride"),
    ("input.resize.pad_value", 256, "input.resize.pad_value"),
    ("input.resize.center", 1, "input.resize.center"),
    ("outputs", [], "outputs"),
    ("outputs", "output0", "outputs"),
    ("outputs.0", None, r"outputs\[0\]"),
    ("outputs.0.name", "score", "outputs"),
    ("outputs.0.role", "boxes", r"outputs\[0\].role"),
    ("outputs.0.role", "detections", "outputs"),
    ("outputs.0.stride", 0, r"outputs\[0\].stride"),
    ("outputs.0.stride", None, r"outputs\[0\].stride"),
    ("outputs.0.stride", 16, "outputs"),
    ("outputs.0.layout", "HWC", r"outputs\[0\].layout"),
    ("outputs.0.layout", None, r"outputs\[0\].layout"),
    ("outputs.0.dtype", "int64", r"outputs\[0\].dtype"),
    ("outputs.0.dtype", "float32", r"outputs\[0\].quantization"),
    ("decoder.type", "ssd", "decoder.type"),
    ("decoder.type", "movenet", "outputs"),
    ("decoder.num_classes", 0, "decoder.num_classes"),
    ("decoder.num_classes", 10_001, "decoder.num_classes"),
    ("decoder.num_classes", 3, "people.class_names"),
    ("decoder.kpt_shape", [5], "decoder.kpt_shape"),
    ("decoder.kpt_shape", [1001, 3], r"decoder.kpt_shape\[0\]"),
    ("decoder.kpt_shape", [5, 4], r"decoder.kpt_shape\[1\]"),
    ("decoder.kpt_shape", [5, 2], "outputs"),
    ("decoder.reg_max", 0, "decoder.reg_max"),
    ("decoder.normalized", True, "decoder.normalized"),
    ("decoder.iou", 1.5, "decoder.iou"),
    ("decoder.iou", -0.1, "decoder.iou"),
    ("decoder.iou", None, "decoder.iou"),
    ("decoder.nms", "soft", "decoder.nms"),
    ("people.class_names", ["cat", 7], r"people.class_names\[1\]"),
    ("people.class_names", ["cat", "do\ng"], r"people.class_names\[1\]"),
    ("people.keypoint_names", ["a"], "people.keypoint_names"),
    ("people.skeleton", [[0, 5]], r"people.skeleton\[0\]"),
    ("people.skeleton", [[0, -1]], r"people.skeleton\[0\]"),
    ("people.skeleton", [[0, 1, 2]], r"people.skeleton\[0\]"),
    ("people.flip", [0, 0, 1, 2, 3], "people.flip"),
    ("people.flip", [0, 1, 2, 3, 5], r"people.flip\[4\]"),
    ("people.sigmas", [0.1] * 4, "people.sigmas"),
    ("people.sigmas", [0.1, 0.1, 0.1, 0.1, 0.0], r"people.sigmas\[4\]"),
    ("people.sigmas", [0.1, 0.1, 0.1, 0.1, float("inf")], r"people.sigmas\[4\]"),
    ("origin", [], "origin"),
    ("origin.data", {1, 2}, "origin.data"),
    ("origin.loss", float("nan"), "origin.loss"),
]


@pytest.mark.parametrize(("field", "value", "message"), BAD_FIELDS, ids=lambda value: str(value)[:30])
def test_a_bad_field_is_an_error_that_names_it(
    document: dict[str, Any], field: str, value: object, message: str
) -> None:
    _set(document, field, value)
    with pytest.raises(ValueError, match=f"artifact metadata: {message}.*expected"):
        ModelSpec.from_dict(document)


@pytest.mark.parametrize("field", ["input", "outputs", "decoder", "input.name", "outputs.0.role", "decoder.type"])
def test_a_missing_field_is_an_error_that_names_it(document: dict[str, Any], field: str) -> None:
    *parents, last = field.split(".")
    target: Any = document
    for key in parents:
        target = target[int(key)] if key.isdigit() else target[key]
    del target[last]
    with pytest.raises(ValueError, match=rf"{last}: got None, expected this field to be there"):
        ModelSpec.from_dict(document)


def test_normalized_places_need_a_fixed_input_size() -> None:
    document = {
        "schema": SCHEMA_VERSION,
        "input": {"name": "images"},
        "outputs": [{"name": "output0", "role": "detections"}],
        "decoder": {"type": "yolo", "normalized": True},
    }
    with pytest.raises(ValueError, match=r"input.resize.size: got None"):
        ModelSpec.from_dict(document)


def test_a_deeply_nested_origin_is_refused(document: dict[str, Any]) -> None:
    nested: Any = 1
    for _ in range(5000):
        nested = [nested]
    document["origin"] = {"a": nested}
    with pytest.raises(ValueError, match="levels deep"):
        ModelSpec.from_dict(document)


def test_an_error_shows_a_long_value_shortened(document: dict[str, Any]) -> None:
    document["input"]["layout"] = "x" * 100_000
    with pytest.raises(ValueError, match=r"input.layout") as caught:
        ModelSpec.from_dict(document)
    assert len(str(caught.value)) < 300


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(json_values)
def test_any_json_is_a_spec_or_a_value_error(value: object) -> None:
    with pytest.raises(ValueError, match="artifact metadata"):
        ModelSpec.from_dict(value)


@given(st.data())
def test_any_field_replaced_by_any_json_loads_or_is_a_value_error(data: st.DataObject) -> None:
    document = json.loads((RELEASED / "artifact_schema_1.0.json").read_text())
    changed = copy.deepcopy(document)
    target: Any = changed
    while True:
        keys = list(target) if isinstance(target, dict) else list(range(len(target)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(target[key], (dict, list)) or not target[key] or data.draw(st.booleans()):
            break
        target = target[key]
    target[key] = data.draw(json_values)
    try:
        spec = ModelSpec.from_dict(changed)
    except ValueError as error:
        assert str(error).startswith("artifact metadata: ")  # noqa: PT017 - either outcome is right
    else:
        assert ModelSpec.from_dict(spec.to_dict()) == spec


def test_coco_mirrors_left_and_right() -> None:
    for index, name in enumerate(coco.KEYPOINT_NAMES):
        mirrored = name.replace("left", "*").replace("right", "left").replace("*", "right")
        assert coco.KEYPOINT_NAMES[coco.FLIP[index]] == mirrored


def test_coco_sigmas_are_those_of_pycocotools() -> None:
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    assert pytest.approx(evaluation.Params("keypoints").kpt_oks_sigmas) == coco.SIGMAS
