"""Small models made on the spot, and a cache of verdicts that no other run shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepose.contract import (
    DecoderSpec,
    InputSpec,
    ModelSpec,
    OutputSpec,
    PeopleSpec,
    Quantization,
    ResizeSpec,
)

ULTRALYTICS_PROPERTIES = {
    "description": "Ultralytics YOLOv8n-pose model ",
    "author": "Ultralytics",
    "version": "8.4.190",
    "license": "AGPL-3.0",
    "stride": "32",
    "task": "pose",
    "batch": "1",
    "imgsz": "[64, 96]",
    "names": "{0: 'person'}",
    "args": "{'data': None, 'nms': None}",
    "channels": "3",
    "end2end": "False",
    "kpt_shape": "[17, 3]",
}


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model is tried once in a run of the tests, whatever the user's cache holds."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPOSE_CACHE", str(folder))
        yield folder


@pytest.fixture
def movenet(shared: Path) -> Path:
    pytest.importorskip("ai_edge_litert")
    return shared / "models/movenet_single_pose_lightning_ptq.tflite"


@pytest.fixture
def heads_spec() -> ModelSpec:
    """Raw int8 heads of one stride, as `make_tflite` has them, two keypoints."""
    quantization = Quantization(0.05, 3)
    roles = ("box", "score", "keypoints")
    return ModelSpec(
        input=InputSpec(
            "images",
            layout="NHWC",
            dtype="int8",
            quantization=quantization,
            resize=ResizeSpec(size=(8, 8), stride=8),
        ),
        outputs=tuple(OutputSpec(role, role, 8, "NAC", "int8", quantization) for role in roles),
        decoder=DecoderSpec("yolo_heads", kpt_shape=(2, 3)),
        people=PeopleSpec(keypoint_names=("head", "tail"), skeleton=((0, 1),), flip=(0, 1), sigmas=(0.1, 0.2)),
        origin={"license": "Apache-2.0", "parity": {"ap": 0.5, "verified": True}, "data": ["a", None]},
    )


MakeOnnx = Callable[..., Path]


@pytest.fixture
def make_onnx(tmp_path: Path) -> MakeOnnx:
    """Writes a small ONNX model: each output is its index everywhere, plus the mean of the input.

    An output given as an array instead of a shape is that array plus the mean, in the array's own type.
    """
    onnx = pytest.importorskip("onnx")

    def make(
        outputs: Mapping[str, Sequence[int] | np.ndarray],
        input_shape: Sequence[int | str] = (1, 3, 64, 96),
        *,
        dtype: str = "float32",
        properties: dict[str, str] | None = None,
        name: str = "model.onnx",
    ) -> Path:
        element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        nodes = [
            onnx.helper.make_node("Cast", ["images"], ["real"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("ReduceMean", ["real"], ["mean"], keepdims=0),
        ]
        constants, infos = [], []
        for i, (output, given) in enumerate(outputs.items()):
            values = given if isinstance(given, np.ndarray) else np.full(given, i, np.float32)
            kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
            constants.append(onnx.numpy_helper.from_array(values.astype(np.float32), f"constant{i}"))
            nodes.append(onnx.helper.make_node("Add", [f"constant{i}", "mean"], [f"sum{i}"]))
            nodes.append(onnx.helper.make_node("Cast", [f"sum{i}"], [output], to=kind))
            infos.append(onnx.helper.make_tensor_value_info(output, kind, list(values.shape)))
        picture = onnx.helper.make_tensor_value_info("images", element, list(input_shape))
        graph = onnx.helper.make_graph(nodes, "tiny", [picture], infos, constants)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
        for key, value in (properties or {}).items():
            onnx.helper.set_model_props(model, {**{p.key: p.value for p in model.metadata_props}, key: value})
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return path

    return make


@pytest.fixture
def make_sized(tmp_path: Path) -> Callable[..., Path]:
    """Writes a model that finds one person in each picture: in the middle of the input, half its width and height, as
    sure as the picture's mean is bright."""

    onnx = pytest.importorskip("onnx")

    def make(batch: int | str = "batch", height: int | str = "height", width: int | str = "width") -> Path:
        node, floats = onnx.helper.make_node, onnx.TensorProto.FLOAT
        half = onnx.numpy_helper.from_array(np.float32(0.5), "half")
        axes = [onnx.numpy_helper.from_array(np.array(a, np.int64), f"axes{i}") for i, a in enumerate(([3], [2]))]
        nodes = [
            node("Mul", ["images", "images"], ["squares"]),
            node("Sub", ["squares", "squares"], ["zeros"]),
            node("Exp", ["zeros"], ["ones"]),
            node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3]),
            node("Squeeze", ["mean", "axes0"], ["score"]),
        ]
        for side, (first, second) in {"w": (3, 2), "h": (2, 3)}.items():
            nodes += [
                node("ReduceSum", ["ones", f"axes{3 - first}"], [f"{side}_lines"]),
                node("ReduceMax", [f"{side}_lines"], [f"{side}_whole"], axes=[1, second]),
                node("Mul", [f"{side}_whole", "half"], [f"{side}_half"]),
                node("Squeeze", [f"{side}_half", "axes0"], [side]),
            ]
        rows = ["w", "h", "w", "h", "score", *["w", "h", "score"] * 17]
        nodes.append(node("Concat", rows, ["output0"], axis=1))
        graph = onnx.helper.make_graph(
            nodes,
            "sized",
            [onnx.helper.make_tensor_value_info("images", floats, [batch, 3, height, width])],
            [onnx.helper.make_tensor_value_info("output0", floats, [batch, 56, 1])],
            [half, *axes],
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        path = tmp_path / "sized.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return make


@pytest.fixture
def make_openvino(make_onnx: MakeOnnx, tmp_path: Path) -> Callable[..., Path]:
    """Writes a small OpenVINO model into a folder of its own and gives the path of its .xml."""
    openvino = pytest.importorskip("openvino")

    def make(
        outputs: Mapping[str, Sequence[int] | np.ndarray], *arguments: Any, folder: str = "ir", **options: Any
    ) -> Path:
        source = make_onnx(outputs, *arguments, **options, name="source.onnx")
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "model.xml"
        openvino.save_model(openvino.Core().read_model(source), path, compress_to_fp16=False)
        return path

    return make


@pytest.fixture
def make_tflite(tmp_path: Path) -> Callable[..., Path]:
    """Writes a TFLite model whose outputs are slices of its flattened input (1, H, W, 3), in the input's own type.

    widths: {output name: number of values}; the outputs are (1, 1, width). dynamic: the input takes any H and W.
    custom: the name of a custom operator to put in place of the reshape.
    """
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers")

    def make(
        widths: dict[str, int],
        *,
        side: int = 8,
        dtype: str = "int8",
        dynamic: bool = False,
        custom: str | None = None,
        name: str = "model.tflite",
    ) -> Path:
        model = _tiny_tflite(schema, widths, side, dtype, dynamic, custom)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        path = tmp_path / name
        path.write_bytes(bytes(builder.Output()))
        return path

    return make


def _tiny_tflite(schema: Any, widths: dict[str, int], side: int, dtype: str, dynamic: bool, custom: str | None) -> Any:
    types = {"int8": schema.TensorType.INT8, "uint8": schema.TensorType.UINT8, "float32": schema.TensorType.FLOAT32}
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    buffers = [schema.BufferT()]

    def tensor(label: str, shape: Sequence[int], kind: str = dtype, data: np.ndarray | None = None) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.buffer = label.encode(), list(shape), 0
        made.type = schema.TensorType.INT32 if kind == "int32" else types[kind]
        if kind in ("int8", "uint8"):
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [0.05], [3]
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            buffers.append(buffer)
            made.buffer = len(buffers) - 1
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def operator(code: int, inputs: list[int], outputs: list[int], kind: int, options: Any) -> None:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = code, inputs, outputs
        made.builtinOptionsType, made.builtinOptions = kind, options
        graph.operators.append(made)

    picture = tensor("images", (1, side, side, 3))
    if dynamic:
        graph.tensors[picture].shapeSignature = [1, -1, -1, 3]
    flat = tensor("flat", (1, 1, side * side * 3))
    target = tensor("target", (3,), "int32", np.array([1, 1, -1], np.int32))
    operator(0, [picture, target], [flat], schema.BuiltinOptions.ReshapeOptions, schema.ReshapeOptionsT())
    graph.inputs, graph.outputs = [picture], []
    start = 0
    for label, width in widths.items():
        begin = tensor(f"{label}_begin", (3,), "int32", np.array([0, 0, start], np.int32))
        size = tensor(f"{label}_size", (3,), "int32", np.array([1, 1, width], np.int32))
        output = tensor(label, (1, 1, width))
        operator(1, [flat, begin, size], [output], schema.BuiltinOptions.SliceOptions, schema.SliceOptionsT())
        graph.outputs.append(output)
        start += width
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers = 3, [graph], buffers
    model.operatorCodes = [_operator_code(schema, schema.BuiltinOperator.RESHAPE, custom)]
    model.operatorCodes.append(_operator_code(schema, schema.BuiltinOperator.SLICE, None))
    return model


def _operator_code(schema: Any, builtin: int, custom: str | None) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = schema.BuiltinOperator.CUSTOM if custom else builtin
    code.deprecatedBuiltinCode = code.builtinCode
    code.version = 1
    if custom:
        code.customCode = custom.encode()
    return code
