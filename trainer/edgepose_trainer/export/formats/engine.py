"""TensorRT, for NVIDIA's GPUs: an engine for the GPU at hand, built of the ONNX export; float32, float16, int8.

Networks are strongly typed: every tensor has the type that the ONNX file gives it, int8 by its Q/DQ nodes. It is the
one way that TensorRT 11 has (docs.nvidia.com/deeplearning/tensorrt, "Migrating from TensorRT 10.x to 11.x"), and
TensorRT 10 does the same when asked to. Calibrators and precision flags, which 11 dropped, are not used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgepose.artifact import Artifact
from edgepose.contract import ModelSpec
from edgepose_trainer.export import nncf
from edgepose_trainer.export.artifacts import SpecBackend, import_runtime, opened, read_metadata, write_metadata
from edgepose_trainer.export.formats import onnx
from edgepose_trainer.export.job import Converted, Job
from edgepose_trainer.export.prepare import INPUT
from edgepose_trainer.export.registry import Format

if TYPE_CHECKING:
    import torch

_QDQ = ("QuantizeLinear", "DequantizeLinear")


def convert(job: Job) -> Converted:
    import torch

    place = _gpu(job.arguments.device)
    source = job.folder / "traced.onnx"
    onnx.write_onnx(job, source)
    metadata: dict[str, Any] = {}
    if job.arguments.precision == "int8":
        metadata["quantization"] = _quantize(job, source)
    path = job.folder / job.artifact_name
    with torch.cuda.device(place):
        metadata["tensorrt"] = {"version": _build(source, path), "gpu": torch.cuda.get_device_name(place)}
    dtype = "float16" if job.arguments.precision == "float16" else "float32"
    return Converted(path, job.input_spec(dtype=dtype), job.traced().outputs, metadata)


def _gpu(device: str | int | None) -> torch.device:
    """The GPU meant, the first unless one is named. Raises ValueError where there is none."""
    from edgepose_trainer.distributed import parse_devices

    place = parse_devices(0 if device is None else device)[0]
    if place.type != "cuda":
        raise ValueError(f"device={device!r}: TensorRT runs on NVIDIA's GPUs alone; expected a GPU's number, such as 0")
    return place


def _quantize(job: Job, path: Path) -> dict[str, Any]:
    """Puts Q/DQ nodes into the ONNX file as TensorRT takes them: in int8, with the zero point 0."""
    import onnx as onnx_package

    calibration = job.pictures()
    inputs = [{INPUT: images} for images in calibration.batches(batch=job.arguments.batch)]
    model, described = nncf.quantize(onnx_package.load(path), inputs, calibration.method, symmetric=True)
    _make_signed(model)
    onnx_package.checker.check_model(model)
    onnx_package.save(model, path)
    return described


def _make_signed(model: Any) -> None:
    """Puts what NNCF has in uint8, from 0 on, into int8 over the same range: TensorRT quantizes to nothing else."""
    from onnx.numpy_helper import from_array, to_array

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = {(node.input[1], node.input[2]) for node in model.graph.node if node.op_type in _QDQ}
    for scale, zero_point in ((tensors[a], tensors[b]) for a, b in sorted(pairs)):
        if to_array(zero_point).dtype == np.uint8:
            scale.CopyFrom(from_array(to_array(scale) * np.float32(255 / 127), scale.name))
            zero_point.CopyFrom(from_array(to_array(zero_point).astype(np.int8), zero_point.name))
    del model.graph.value_info[:]  # it names the old types


def _build(source: Path, path: Path) -> str:
    """Builds the engine of an ONNX file, on the present GPU; returns TensorRT's version.

    What TensorRT has to say it prints. Raises RuntimeError where it fails.
    """
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(source.read_bytes()):
        raise RuntimeError(f"TensorRT {trt.__version__} does not take the ONNX file")
    engine = builder.build_serialized_network(network, builder.create_builder_config())
    if engine is None:
        raise RuntimeError(f"TensorRT {trt.__version__} built no engine")
    path.write_bytes(engine)
    return str(trt.__version__)


def open_engine(path: Path, device: str) -> Artifact:
    """Opens an exported engine on a GPU of the kind that it was built for.

    It is a program, which the GPU runs: open only engines whose maker you trust. Raises ValueError for one that this
    TensorRT does not take, or that is not as its metadata say.
    """
    spec = read_metadata(path)
    trt = import_runtime("tensorrt", path, "tensorrt")
    torch = import_runtime("torch", path, "torch")
    place = _gpu(_index_of_kind(_built(spec).get("gpu")) if device == "auto" else device)
    logger = trt.Logger(trt.Logger.ERROR)
    with torch.cuda.device(place):
        engine = trt.Runtime(logger).deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise ValueError(f"{path}: {_refusal(spec, trt.__version__, torch.cuda.get_device_name(place))}")
        buffers = _buffers(path, spec, trt, engine, place)
        context, stream = engine.create_execution_context(), torch.cuda.Stream(place)
    for name, tensor in buffers.items():
        context.set_tensor_address(name, tensor.data_ptr())

    def run(images: NDArray[Any]) -> list[np.ndarray[Any, Any]]:
        with torch.cuda.stream(stream):
            buffers[spec.input.name].copy_(torch.from_numpy(images))
            if not context.execute_async_v3(stream.cuda_stream):
                raise RuntimeError(f"{path}: TensorRT could not run it")
            return [buffers[output.name].cpu().numpy() for output in spec.outputs]

    return opened(path, spec, SpecBackend("tensorrt", spec, run))


def _built(spec: ModelSpec) -> dict[str, Any]:
    """What the metadata say of the GPU and the TensorRT that the engine was built with."""
    facts = spec.origin.get("tensorrt")
    return facts if isinstance(facts, dict) else {}


def _index_of_kind(name: str | None) -> int:
    """The first GPU of that name, else the first of all."""
    import torch

    here = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return here.index(name) if name in here else 0


def _refusal(spec: ModelSpec, version: str, gpu: str) -> str:
    built = _built(spec)
    return (
        "TensorRT does not take it. An engine runs on the kind of GPU and in the TensorRT that it was built with "
        f"({built.get('gpu', 'unknown')}, {built.get('version', 'unknown')}), and here are {gpu} and {version}: "
        "export it here from the checkpoint"
    )


def _buffers(path: Path, spec: ModelSpec, trt: Any, engine: Any, place: torch.device) -> dict[str, torch.Tensor]:
    """A tensor on the GPU for each of the engine's, by name."""
    import torch

    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    expected = [spec.input.name, *(output.name for output in spec.outputs)]
    if sorted(names) != sorted(expected):
        raise ValueError(f"{path}: the metadata name the tensors {expected}, the engine has {names}")
    found = {}
    for name in names:
        dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
        found[name] = torch.from_numpy(np.zeros(tuple(engine.get_tensor_shape(name)), dtype)).to(place)
    return found


FORMAT = Format(
    name="engine",
    suffixes={"float32": ".engine", "float16": "_float16.engine", "int8": "_int8.engine"},
    variants="f32, f16, int8 (QDQ by NNCF)",
    proven_by="calls checked against a stand-in; TensorRT and a GPU were not at hand",
    arguments=("half", "int8", "batch", "device", "fraction", "calibration"),
    convert=convert,
    needs=("tensorrt", "onnx", "onnxscript", "onnxslim"),
    needs_for_int8=("nncf",),
    extra="export-tensorrt",
    open=open_engine,
    write_spec=write_metadata,
    read_spec=read_metadata,
    comparison_device="auto",
    deploy=(
        "or build it there: an engine runs on the kind of GPU that it was built on; keep {name}.edgepose.json by it; "
        'in Python: pip install "edgepose[train]" tensorrt, PoseModel("{name}")'
    ),
)
