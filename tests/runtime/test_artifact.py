from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgepose import coco
from edgepose.artifact import open_artifact, read_spec, sidecar_path, write_spec
from edgepose.contract import DecoderSpec, InputSpec, ModelSpec, OutputSpec, PeopleSpec, Quantization, ResizeSpec

Make = Callable[..., Path]

# What Ultralytics writes, as the values that it means.
METADATA: dict[str, Any] = {
    "description": "Ultralytics YOLOv8n-pose model",
    "author": "Ultralytics",
    "version": "8.4.190",
    "license": "AGPL-3.0",
    "stride": 32,
    "task": "pose",
    "batch": 1,
    "imgsz": [64, 96],
    "names": {0: "person"},
    "args": {"data": None, "nms": None},
    "channels": 3,
    "end2end": False,
    "kpt_shape": [17, 3],
}
PROPERTIES = {key: str(value) for key, value in METADATA.items()}


@pytest.fixture
def yolo_spec() -> ModelSpec:
    return ModelSpec(
        input=InputSpec("images", resize=ResizeSpec(size=(64, 96), stride=16, pad_value=0, center=False)),
        outputs=(OutputSpec("output0", "detections"),),
        decoder=DecoderSpec("yolo", num_classes=2, kpt_shape=(4, 2)),
        people=PeopleSpec(("cat", "dog"), ("a", "b", "c", "d"), ((0, 1),), (1, 0, 2, 3), (0.1, 0.1, 0.2, 0.2)),
        origin={"license": "Apache-2.0", "parity": {"ap": 0.3}},
    )


@pytest.fixture
def written(request: pytest.FixtureRequest, yolo_spec: ModelSpec, heads_spec: ModelSpec) -> tuple[Path, ModelSpec]:
    """A model of each format with edgepose's own metadata in it."""
    if request.param == "tflite":
        path, spec = request.getfixturevalue("make_tflite")({"box": 64, "score": 1, "keypoints": 6}), heads_spec
    else:
        path, spec = request.getfixturevalue(f"make_{request.param}")({"output0": (1, 14, 126)}), yolo_spec
    write_spec(path, spec)
    return path, spec


formats = pytest.mark.parametrize("written", ["onnx", "openvino", "tflite"], indirect=True)


@formats
def test_metadata_written_into_a_model_is_read_back(written: tuple[Path, ModelSpec]) -> None:
    path, spec = written
    assert read_spec(path) == spec


@formats
def test_a_model_with_edgepose_metadata_opens_as_they_say(written: tuple[Path, ModelSpec]) -> None:
    path, spec = written
    artifact = open_artifact(path)
    assert artifact.source == "edgepose"
    assert artifact.spec == spec
    artifact.close()


@formats
def test_only_the_model_file_itself_is_changed_by_writing(written: tuple[Path, ModelSpec]) -> None:
    path, _ = written
    assert not Path(sidecar_path(path)).exists()
    assert not [name for name in path.parent.iterdir() if name.name.endswith(".tmp")]


def test_a_format_without_a_place_gets_a_sidecar(tmp_path: Path, yolo_spec: ModelSpec) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(b"\x00\x01binary\xff")
    write_spec(path, yolo_spec)
    assert path.read_bytes() == b"\x00\x01binary\xff"
    assert ModelSpec.from_dict(json.loads((tmp_path / "model.pte.edgepose.json").read_text())) == yolo_spec


def test_a_sidecar_speaks_for_a_model_that_says_nothing(make_onnx: Make, yolo_spec: ModelSpec) -> None:
    path = make_onnx({"output0": (1, 14, 126)})
    Path(sidecar_path(path)).write_text(json.dumps(yolo_spec.to_dict()))
    assert open_artifact(path).spec == yolo_spec


def test_metadata_in_the_file_go_before_a_sidecar(make_onnx: Make, yolo_spec: ModelSpec) -> None:
    path = make_onnx({"output0": (1, 14, 126)})
    write_spec(path, yolo_spec)
    Path(sidecar_path(path)).write_text(json.dumps(yolo_spec._replace(origin={}).to_dict()))
    assert open_artifact(path).spec.origin == yolo_spec.origin


def test_a_broken_sidecar_is_an_error_that_names_the_model(make_onnx: Make) -> None:
    path = make_onnx({"output0": (1, 14, 126)})
    Path(sidecar_path(path)).write_text('{"schema": NaN}')
    with pytest.raises(ValueError, match=r"model.onnx: edgepose metadata: not a JSON document: NaN"):
        open_artifact(path)


def test_writing_checks_the_spec_first(make_onnx: Make, yolo_spec: ModelSpec) -> None:
    path = make_onnx({"output0": (1, 14, 126)})
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"decoder.num_classes"):
        write_spec(path, yolo_spec._replace(decoder=DecoderSpec("yolo", num_classes=0)))
    assert path.read_bytes() == before


# Ultralytics' metadata


def _assert_ultralytics(path: Path, **options: Any) -> ModelSpec:
    artifact = open_artifact(path, **options)
    assert artifact.source == "ultralytics"
    spec = artifact.spec
    assert spec.people.class_names == ("person",)
    assert spec.people.keypoint_names == coco.KEYPOINT_NAMES
    assert spec.people.sigmas == coco.SIGMAS
    assert spec.decoder.kpt_shape == (17, 3)
    assert spec.input.std == (255.0, 255.0, 255.0)
    assert spec.input.color == "RGB"
    assert spec.origin["license"] == "AGPL-3.0"
    artifact.close()
    return spec


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_ultralytics_onnx_properties(make_onnx: Make, backend: str) -> None:
    pytest.importorskip(backend)
    path = make_onnx({"output0": (1, 56, 126)}, properties=PROPERTIES)
    spec = _assert_ultralytics(path, backend=backend)
    assert spec.input.resize == ResizeSpec("letterbox", (64, 96), 32, 114, True)
    assert spec.decoder == DecoderSpec("yolo")


def test_ultralytics_openvino_yaml(make_openvino: Make) -> None:
    path = make_openvino({"output0": (1, 56, 126)})
    (path.parent / "metadata.yaml").write_text(yaml.safe_dump(METADATA))
    assert _assert_ultralytics(path.parent).decoder == DecoderSpec("yolo")


@pytest.mark.parametrize("form", ["metadata.json", "temp_meta.txt", "trailer"])
def test_ultralytics_tflite_metadata(make_tflite: Make, form: str) -> None:
    path = make_tflite({"output0": 57}, dtype="float32")  # the end-to-end form: (1, 1, 6 + 51)
    as_json = json.dumps(METADATA, indent=2)
    if form == "trailer":
        path.write_bytes(path.read_bytes() + as_json.encode())
    else:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(form, as_json if form.endswith("json") else str(METADATA))
    spec = _assert_ultralytics(path)
    assert spec.input.layout == "NHWC"
    assert spec.decoder == DecoderSpec("yolo_end2end", normalized=True)


def test_ultralytics_end_to_end_form_is_told_by_its_shape(make_onnx: Make) -> None:
    path = make_onnx({"output0": (1, 300, 57)}, properties=PROPERTIES | {"end2end": "True"})
    assert open_artifact(path).spec.decoder.type == "yolo_end2end"


def test_ultralytics_dynamic_export_takes_any_size(make_onnx: Make) -> None:
    path = make_onnx({"output0": (1, 56, 126)}, ("batch", 3, "height", "width"), properties=PROPERTIES)
    spec = open_artifact(path).spec
    assert spec.input.resize.size is None
    assert spec.input.batch is None


def test_ultralytics_own_keypoints_and_classes(make_onnx: Make) -> None:
    properties = PROPERTIES | {
        "names": "{0: 'cat', 1: \"dog's\"}",
        "kpt_shape": "[4, 2]",
        "kpt_names": "{0: ['a', 'b', 'c', 'd']}",
    }
    people = open_artifact(make_onnx({"output0": (1, 14, 126)}, properties=properties)).spec.people
    assert people.class_names == ("cat", "dog's")
    assert people.keypoint_names == ("a", "b", "c", "d")
    assert people.sigmas == ()


def test_an_ultralytics_model_of_another_task_is_refused(make_onnx: Make) -> None:
    path = make_onnx({"output0": (1, 84, 126)}, properties=PROPERTIES | {"task": "detect"})
    with pytest.raises(ValueError, match="task 'detect', expected a pose model"):
        open_artifact(path)


def test_ultralytics_metadata_that_do_not_fit_the_output(make_onnx: Make) -> None:
    path = make_onnx({"output0": (1, 57, 126)}, properties=PROPERTIES)
    with pytest.raises(ValueError, match=r"do not fit .* got shapes \[\(1, 57, 126\)\], expected one of \(1, 56, N\)"):
        open_artifact(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("names", "__import__('os').getcwd()"),
        ("names", "[" * 9999),
        ("names", "{1: 'person'}"),
        ("names", "{}"),
        ("kpt_shape", "[17]"),
        ("kpt_shape", "17"),
        ("kpt_shape", "['17', 3]"),
        ("kpt_shape", "[1000000000, 3]"),
        ("stride", "open('x')"),
    ],
)
def test_hostile_ultralytics_metadata_are_a_value_error(make_onnx: Make, key: str, value: str) -> None:
    path = make_onnx({"output0": (1, 56, 126)}, properties=PROPERTIES | {key: value})
    with pytest.raises(ValueError, match=r"metadata|fit"):
        open_artifact(path)


def test_hostile_yaml_builds_nothing(make_openvino: Make, tmp_path: Path) -> None:
    path = make_openvino({"output0": (1, 56, 126)})
    (path.parent / "metadata.yaml").write_text(f"task: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    with pytest.raises(ValueError, match=r"metadata.yaml: not a YAML document"):
        open_artifact(path)
    assert not (tmp_path / "made").exists()


def test_deeply_nested_yaml_is_a_value_error(make_openvino: Make) -> None:
    path = make_openvino({"output0": (1, 56, 126)})
    (path.parent / "metadata.yaml").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"metadata.yaml"):
        open_artifact(path)


def test_yaml_aliases_are_not_expanded(make_openvino: Make) -> None:
    path = make_openvino({"output0": (1, 56, 126)})
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    bomb = "\n".join(lines) + "\ntask: pose\nstride: 32\nimgsz: *a9\nkpt_shape: *a9\nnames: *a9\nlicense: *a9\n"
    (path.parent / "metadata.yaml").write_text(bomb)
    with pytest.raises(ValueError, match=r"kpt_shape|names"):
        open_artifact(path)


# Models without metadata


def test_movenet_is_known_by_its_tensors(movenet: Path, tmp_path: Path) -> None:
    path = tmp_path / "yolov8n-pose.onnx"  # a name that says something else
    shutil.copy(movenet, path)
    artifact = open_artifact(path)
    assert artifact.source == "tensors"
    assert artifact.spec.decoder.type == "movenet"
    assert artifact.spec.input.resize.mode == "stretch"
    assert artifact.spec.input.std == (1.0, 1.0, 1.0)
    assert artifact.spec.people.keypoint_names == coco.KEYPOINT_NAMES


def test_a_lone_56_row_tensor_is_not_enough_and_the_error_shows_a_spec(make_onnx: Make) -> None:
    path = make_onnx({"output0": (1, 56, 126)}, name="yolov8n-pose.onnx")
    with pytest.raises(ValueError, match=r"says nothing of how it is fed and read") as caught:
        open_artifact(path)
    form = json.loads(str(caught.value).split("\n", 1)[1])
    assert open_artifact(path, spec=form).spec.decoder == DecoderSpec("yolo")


def test_the_form_for_raw_tensors_names_each_of_them(make_onnx: Make) -> None:
    path = make_onnx({"box": (1, 64, 96), "score": (1, 1, 96)})
    with pytest.raises(ValueError, match=r"says nothing") as caught:
        open_artifact(path)
    form = json.loads(str(caught.value).split("\n", 1)[1])
    assert [output["name"] for output in form["outputs"]] == ["box", "score"]
    assert form["input"]["resize"]["size"] == [64, 96]


@pytest.mark.parametrize(("name", "shape"), [("yolov8-pose", (1, 56, 126)), ("yolo26-pose", (1, 300, 57))])
def test_a_named_spec(make_onnx: Make, name: str, shape: tuple[int, ...]) -> None:
    artifact = open_artifact(make_onnx({"output0": shape}), spec=name)
    assert artifact.source == "user"
    assert artifact.spec.people.sigmas == coco.SIGMAS


def test_a_named_spec_that_does_not_fit(make_onnx: Make) -> None:
    with pytest.raises(ValueError, match=r"mean a shape of \(1, 56, any\), the model has \(1, 57, 126\)"):
        open_artifact(make_onnx({"output0": (1, 57, 126)}), spec="yolov8-pose")


def test_an_unknown_spec_names_the_nearest(make_onnx: Make) -> None:
    with pytest.raises(ValueError, match=r"did you mean 'movenet'\?"):
        open_artifact(make_onnx({"output0": (1, 56, 126)}), spec="movenett")


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_spec_from_a_file(make_onnx: Make, yolo_spec: ModelSpec, tmp_path: Path, suffix: str) -> None:
    dump = json.dumps if suffix == "json" else yaml.safe_dump
    file = tmp_path / f"spec.{suffix}"
    file.write_text(dump(yolo_spec.to_dict()))
    assert open_artifact(make_onnx({"output0": (1, 14, 126)}), spec=file).spec == yolo_spec


def test_a_spec_of_the_user_overrules_the_metadata(make_onnx: Make, yolo_spec: ModelSpec) -> None:
    path = make_onnx({"output0": (1, 14, 126)}, properties=PROPERTIES)
    assert open_artifact(path, spec=yolo_spec).spec == yolo_spec


def test_a_spec_of_the_wrong_type(make_onnx: Make) -> None:
    with pytest.raises(TypeError, match="a spec of type int"):
        open_artifact(make_onnx({"output0": (1, 14, 126)}), spec=3)  # type: ignore[arg-type]


# Metadata against the model


def test_a_17_keypoint_model_with_names_of_its_own_keeps_them(make_onnx: Make, yolo_spec: ModelSpec) -> None:
    names = tuple(f"point{i}" for i in range(17))
    spec = yolo_spec._replace(decoder=DecoderSpec("yolo"), people=PeopleSpec(keypoint_names=names))
    people = open_artifact(make_onnx({"output0": (1, 56, 126)}), spec=spec).spec.people
    assert people.keypoint_names == names
    assert people.skeleton == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": InputSpec("image", resize=ResizeSpec(size=(64, 96)))}, "name it 'image', the model 'images'"),
        (
            {"input": InputSpec("images", dtype="uint8", resize=ResizeSpec(size=(64, 96)))},
            "uint8, the model",
        ),
        (
            {"input": InputSpec("images", resize=ResizeSpec(size=(96, 64)))},
            r"\(1, 3, 96, 64\), the model has",
        ),
        ({"input": InputSpec("images")}, "any size, the model takes"),
        ({"outputs": (OutputSpec("out", "detections"),)}, "name the output 'out', the model has 'output0'"),
        ({"outputs": (OutputSpec("output0", "detections", dtype="float16"),)}, "float16, the model gives float32"),
        ({"decoder": DecoderSpec("yolo", 2, (5, 2))}, r"a shape of \(1, 16, any\), the model has \(1, 14, 126\)"),
    ],
)
def test_a_model_that_does_not_fit_its_metadata(
    make_onnx: Make, yolo_spec: ModelSpec, change: dict[str, Any], message: str
) -> None:
    people = yolo_spec.people if change.get("decoder") is None else PeopleSpec(("cat", "dog"))
    path = make_onnx({"output0": (1, 14, 126)})
    with pytest.raises(ValueError, match=f"does not fit its metadata: .*{message}"):
        open_artifact(path, spec=yolo_spec._replace(people=people, **change))


def test_raw_heads_of_the_wrong_width_are_refused(make_tflite: Make, heads_spec: ModelSpec) -> None:
    path = make_tflite({"box": 64, "score": 1, "keypoints": 7})
    with pytest.raises(ValueError, match=r"output 'keypoints': .* \(1, 1, 6\), the model has \(1, 1, 7\)"):
        open_artifact(path, spec=heads_spec)


def test_quantization_that_contradicts_the_model_is_refused(make_tflite: Make, heads_spec: ModelSpec) -> None:
    path = make_tflite({"box": 64, "score": 1, "keypoints": 6})
    wrong = heads_spec.outputs[1]._replace(quantization=Quantization(0.1, 3))
    outputs = (heads_spec.outputs[0], wrong, heads_spec.outputs[2])
    with pytest.raises(ValueError, match=r"output 'score': the metadata say Quantization\(scale=0.1"):
        open_artifact(path, spec=heads_spec._replace(outputs=outputs))


def test_quantization_comes_from_the_model_where_the_metadata_have_none(
    make_tflite: Make, heads_spec: ModelSpec
) -> None:
    path = make_tflite({"box": 64, "score": 1, "keypoints": 6})
    bare = tuple(output._replace(quantization=None) for output in heads_spec.outputs)
    spec = open_artifact(path, spec=heads_spec._replace(outputs=bare)).spec
    assert spec.outputs[1].quantization == Quantization(pytest.approx(0.05), 3)


def test_outputs_are_found_by_name_and_those_without_a_role_left_out(make_tflite: Make, heads_spec: ModelSpec) -> None:
    path = make_tflite({"keypoints": 6, "extra": 5, "score": 1, "box": 64})
    artifact = open_artifact(path, spec=heads_spec)
    artifact.backend.input_buffer((1, 8, 8, 3))[...] = 0
    results = artifact.backend.infer()
    assert [output.role for output in artifact.spec.outputs] == ["keypoints", "score", "box"]
    assert [tensor.name for tensor in artifact.backend.outputs] == ["keypoints", "score", "box"]
    assert [result.shape[2] for result in results] == [6, 1, 64]


def test_a_model_with_an_input_type_that_no_spec_has(make_onnx: Make) -> None:
    path = make_onnx({"output0": (1, 1, 17, 3)}, (1, 192, 192, 3), dtype="int32")
    with pytest.raises(ValueError, match="its input 'images' is int32, expected one of float32"):
        open_artifact(path)


# Bad files


@pytest.mark.parametrize("suffix", ["onnx", "tflite", "xml"])
def test_a_missing_file(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file.*expected a pose model"):
        open_artifact(tmp_path / f"model.{suffix}")


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(FileNotFoundError, match=r"did you mean '.*model.onnx'\?"):
        open_artifact(tmp_path / "modl.onnx")


@pytest.mark.parametrize("suffix", ["onnx", "tflite", "xml"])
def test_an_empty_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model.{suffix}"
    path.touch()
    with pytest.raises(ValueError, match=r"got an empty file, expected a pose model: an .onnx file"):
        open_artifact(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="got a pipe or a device"):
        open_artifact(tmp_path / "model.onnx")


WRONG = [
    ("model.onnx", b"\xff\xd8\xff\xe0\x00\x10JFIF", "got a JPEG picture"),
    ("model.tflite", b"hello, this is text\n", r"got a text file \('hello, this is text'"),
    ("model.tflite", b"\x89PNG\r\n\x1a\n", "got a PNG picture"),
    ("model.onnx", b"version https://git-lfs.github.com/spec/v1\n", "got a Git LFS pointer"),
    ("model.xml", b"<?xml version='1.0'?><svg/>", "got an XML file that is not an OpenVINO model"),
    ("model.onnx", b"\x89HDF\r\n\x1a\n", "got an HDF5 file"),
    ("model.tflite", b"\x00\x01\x02\x03\xff\xfe", "begins with the bytes 00 01 02 03 ff fe"),
    ("model.onnx", b"PK\x03\x04" + b"\x00" * 30, "got a zip archive"),
]


@pytest.mark.parametrize(("name", "content", "message"), WRONG)
def test_a_file_of_another_kind_says_what_it_is(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_artifact(path)


def test_a_real_photo_named_onnx(shared: Path, tmp_path: Path) -> None:
    shutil.copy(shared / "data/bus.jpg", tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="got a JPEG picture, expected a pose model"):
        open_artifact(tmp_path / "model.onnx")


def test_a_checkpoint_says_which_extra_runs_it(shared: Path) -> None:
    with pytest.raises(ValueError, match=r'PyTorch checkpoint.*PoseModel.*pip install "edgepose\[train\]"'):
        open_artifact(shared / "models/yolov8n-pose.pt")


def test_an_old_checkpoint_that_is_a_bare_pickle(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    path.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    with pytest.raises(ValueError, match=r"edgepose\[train\]"):
        open_artifact(path)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"got a folder without a model in it \(notes.txt\)"):
        open_artifact(tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got a folder without a model in it \(nothing\)"):
        open_artifact(tmp_path)


def test_a_folder_of_another_format(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    with pytest.raises(ValueError, match="got a TensorFlow SavedModel"):
        open_artifact(tmp_path)


def test_a_folder_with_two_models(make_openvino: Make) -> None:
    path = make_openvino({"output0": (1, 56, 126)})
    for suffix in (".xml", ".bin"):
        shutil.copy(path.with_suffix(suffix), path.with_name(f"other{suffix}"))
    with pytest.raises(ValueError, match=r"got a folder with 2 OpenVINO models \(model.xml, other.xml\)"):
        open_artifact(path.parent)


def test_an_xml_without_its_weights(make_openvino: Make) -> None:
    path = make_openvino({"output0": (1, 56, 126)})
    path.with_suffix(".bin").unlink()
    with pytest.raises(ValueError, match=r"without its weights, expected .*model.bin beside it"):
        open_artifact(path)


def test_empty_weights(make_openvino: Make) -> None:
    path = make_openvino({"output0": (1, 56, 126)})
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"model.bin: got an empty file, expected the weights of model.xml"):
        open_artifact(path)


def test_truncated_weights(make_openvino: Make) -> None:
    path = make_openvino({"output0": (1, 56, 126)})
    weights = path.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="OpenVINO cannot load this model"):
        open_artifact(path)


def test_a_truncated_topology(make_openvino: Make) -> None:
    path = make_openvino({"output0": (1, 56, 126)})
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ValueError, match="OpenVINO cannot load this model"):
        open_artifact(path)


def test_a_truncated_onnx_model(make_onnx: Make) -> None:
    path = make_onnx({"output0": (1, 56, 126)})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="truncated ONNX model"):
        open_artifact(path)


def test_a_truncated_tflite_model(movenet: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(movenet.read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"damaged .*TFLite model"):
        open_artifact(path)


def test_an_edge_tpu_model_without_an_edge_tpu(shared: Path) -> None:
    path = shared / "models/movenet_single_pose_lightning_ptq_edgetpu.tflite"
    with pytest.raises(ValueError, match="compiled for the Edge TPU and device='auto', expected device='edgetpu'"):
        open_artifact(path)
