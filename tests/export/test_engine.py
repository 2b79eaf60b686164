"""TensorRT exports, by a stand-in for TensorRT and the GPU: it takes the calls, refuses what TensorRT refuses, computes
what the ONNX file says by ONNX Runtime, and reads and writes the memory at the addresses it is given."""

from __future__ import annotations

import ctypes
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from edgepose_trainer.export import verify
from edgepose_trainer.export.artifacts import read_metadata
from edgepose_trainer.export.formats import engine
from edgepose_trainer.model import PoseModel
from exporting import OPTIONS, assert_same_people, people_of_checkpoint

from edgepose.cli import main

pytestmark = pytest.mark.slow

HEAD = b"an engine of version "
STREAM = 4711


class Builder:
    def __init__(self, logger: object) -> None:
        assert logger

    def create_network(self, flags: int) -> SimpleNamespace:
        assert flags == 1 << 1, "a strongly typed network"
        return SimpleNamespace(content=None)

    def create_builder_config(self) -> object:
        return object()

    def build_serialized_network(self, network: Any, config: object) -> bytes:
        assert network.content
        return HEAD + sys.modules["tensorrt"].__version__.encode() + b"\n" + network.content


class OnnxParser:
    def __init__(self, network: Any, logger: object) -> None:
        self.network = network

    def parse(self, content: bytes) -> bool:
        """As TensorRT: Q/DQ nodes in int8 with the zero point 0 alone."""
        import onnx

        graph = onnx.load_from_string(content).graph
        values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                zero_point = values[node.input[2]]
                if zero_point.dtype != np.int8 or zero_point.any():
                    return False
        self.network.content = content
        return True


class Runtime:
    def __init__(self, logger: object) -> None:
        assert logger

    def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
        head, _, graph = content.partition(b"\n")
        return Engine(graph) if head == HEAD + sys.modules["tensorrt"].__version__.encode() else None


class Engine:
    def __init__(self, graph: bytes) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.fed, self.given = self.session.get_inputs(), self.session.get_outputs()
        self.tensors = {tensor.name: tensor for tensor in (*self.given, *self.fed)}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_shape(self, name: str) -> list[int]:
        return list(self.tensors[name].shape)

    def get_tensor_dtype(self, name: str) -> str:
        return str(self.tensors[name].type)

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.memory = engine, dict[str, Any]()

    def set_tensor_address(self, name: str, address: int) -> None:
        shape, dtype = self.engine.get_tensor_shape(name), nptype(self.engine.get_tensor_dtype(name))
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.memory[name] = np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == STREAM
        names = [tensor.name for tensor in self.engine.given]
        fed = {tensor.name: self.memory[tensor.name] for tensor in self.engine.fed}
        for name, values in zip(names, self.engine.session.run(names, fed), strict=True):
            self.memory[name][:] = values
        return True


def nptype(kind: str) -> Any:
    return {"tensor(float)": np.float32, "tensor(float16)": np.float16}[kind]


class Logger:
    WARNING, ERROR = 2, 1

    def __init__(self, severity: int) -> None:
        pass


@pytest.fixture(scope="module")
def _gpu() -> Iterator[None]:
    """The stand-in, and the CPU in place of a GPU."""
    module = ModuleType("tensorrt")
    module.__spec__ = ModuleSpec("tensorrt", None)
    module.__dict__.update(
        {cls.__name__: cls for cls in (Builder, OnnxParser, Runtime, Logger)},
        __version__="11.4.0",
        nptype=nptype,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorrt", module)
        patch.setattr(engine, "_gpu", lambda device: torch.device("cpu"))
        patch.setattr(torch.cuda, "device", nullcontext)
        patch.setattr(torch.cuda, "stream", nullcontext)
        patch.setattr(torch.cuda, "Stream", lambda place: SimpleNamespace(cuda_stream=STREAM))
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "get_device_name", lambda place: "Orin")
        yield


Export = Callable[..., Path]


@pytest.fixture(scope="module")
def export(
    _gpu: None, needs: Callable[[str], None], person: Path, people_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Export:
    needs("onnx")
    folder = tmp_path_factory.mktemp("engine")
    options: dict[str, Any] = {"imgsz": (64, 96), "data": people_data, "out": folder}
    return lambda **arguments: PoseModel(person).export("engine", **{**options, **arguments})


@pytest.fixture(scope="module")
def exported(export: Export) -> Path:
    return export()


def test_float32_finds_the_same_people_and_is_verified(exported: Path, person: Path, pictures: list[Any]) -> None:
    assert sorted(file.name for file in exported.parent.iterdir()) == ["best.engine", "best.engine.edgepose.json"]
    runner = PoseModel(exported).runner(**OPTIONS)
    assert_same_people(runner.predict(pictures), people_of_checkpoint(person, pictures, (64, 96)), 0.05, 1e-3)
    origin = runner.spec.origin
    assert origin["parity"]["passed"]
    assert origin["tensorrt"] == {"version": "11.4.0", "gpu": "Orin"}


def test_the_command_takes_it(exported: Path, people_data: Path, tmp_path: Path) -> None:
    assert main(["info", f"model={exported}"]) == 0
    picture = next((people_data.parent / "images" / "val").iterdir())
    assert main(["predict", f"model={exported}", f"source={picture}", f"project={tmp_path}"]) == 0


def test_float16_is_float16_from_end_to_end(export: Export, person: Path, people_data: Path) -> None:
    path = export(half=True, verify=False)
    assert path.name == "best_float16.engine"
    spec = read_metadata(path)
    assert {spec.input.dtype, *(output.dtype for output in spec.outputs)} == {"float16"}
    assert verify(path, person, people_data).matched > 0.9


@pytest.mark.parametrize("calibration", ["auto", "minmax"])
def test_int8_is_symmetric_as_tensorrt_wants_it(
    calibration: str, export: Export, needs: Callable[[str], None], person: Path, people_data: Path
) -> None:
    needs("nncf")
    path = export(int8=True, batch=2, calibration=calibration, verify=False)
    assert path.name == "best_int8.engine"
    assert path.read_bytes().count(b"QuantizeLinear") > 20
    assert read_metadata(path).input.batch == 2
    assert verify(path, person, people_data).matched > 0.5  # a network of noise has no clear people to keep


def test_an_engine_of_another_tensorrt_is_told(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["tensorrt"], "__version__", "12.0.0")
    with pytest.raises(ValueError, match=r"built with \(Orin, 11\.4\.0\), and here are Orin and 12\.0\.0"):
        PoseModel(exported).runner()


def test_metadata_of_another_model_are_refused(
    exported: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    other = PoseModel(make_checkpoint(kpt_shape=(4, 2))).export("engine", imgsz=(64, 96))
    broken = shutil.copy(exported, tmp_path)
    shutil.copy(f"{other}.edgepose.json", f"{broken}.edgepose.json")
    with pytest.raises(ValueError, match="the metadata name the tensors"):
        PoseModel(broken).runner()


def test_a_network_that_tensorrt_refuses_is_told_with_a_log(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxParser, "parse", lambda self, content: False)
    with pytest.raises(RuntimeError, match=r"TensorRT 11\.4\.0 does not take the ONNX file.*best_engine\.log"):
        export(out=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["best_engine.log"]


def test_the_gpu_of_the_kind_that_it_was_built_on_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: ("T4", "Orin", "Orin")[index])
    assert [engine._index_of_kind(name) for name in ("T4", "Orin", "A100", None)] == [0, 1, 0, 0]
