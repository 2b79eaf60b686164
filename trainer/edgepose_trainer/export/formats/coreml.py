"""Core ML, for Apple's devices: an ML program in float32, float16, or with int8 weights. It runs on a Mac alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepose.artifact import KEY, Artifact
from edgepose.contract import ModelSpec
from edgepose.modelfiles.files import MAX_METADATA, parse_json, read_bounded
from edgepose_trainer.export.artifacts import SpecBackend, check_cpu, import_runtime, opened
from edgepose_trainer.export.job import Converted, Job
from edgepose_trainer.export.prepare import INPUT
from edgepose_trainer.export.registry import Format

_MANIFEST = "Manifest.json"
_MAX_MODEL = 1 << 26  # bytes of the program; its weights are in a file of their own
_MODEL = Path("Data", "com.apple.CoreML", "model.mlmodel")  # in the package, as coremltools writes it


def convert(job: Job) -> Converted:
    import coremltools
    import torch

    precision, precisions = job.arguments.precision, coremltools.precision
    traced = job.traced(half=False)
    with torch.inference_mode():
        script = torch.jit.trace(traced.module, traced.example, check_trace=False)  # type: ignore[no-untyped-call]
    model = coremltools.convert(
        script,
        inputs=[coremltools.TensorType(INPUT, shape=tuple(traced.example.shape), dtype=np.float32)],
        outputs=[coremltools.TensorType(output.name, dtype=np.float32) for output in traced.outputs],
        convert_to="mlprogram",
        compute_precision=precisions.FLOAT32 if precision == "float32" else precisions.FLOAT16,
        minimum_deployment_target=coremltools.target.iOS16,
        skip_model_load=True,
    )
    if precision == "dynamic":
        model = _with_int8_weights(model)
    path = job.folder / job.artifact_name
    model.save(str(path))
    return Converted(path, job.input_spec(), traced.outputs)


def _with_int8_weights(model: Any) -> Any:
    """One scale a channel, symmetric; small tensors stay float16, as is the converter's habit."""
    from coremltools.optimize import coreml

    symmetric = coreml.OpLinearQuantizerConfig(mode="linear_symmetric")
    return coreml.linear_quantize_weights(model, coreml.OptimizationConfig(global_config=symmetric))


def write_spec(path: Path, spec: ModelSpec) -> None:
    """Puts the metadata into the model's own, as user-defined `edgepose`."""
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model.FromString((path / _MODEL).read_bytes())
    text = json.dumps(spec.checked().to_dict(), ensure_ascii=False, allow_nan=False)
    model.description.metadata.userDefined[KEY] = text
    temporary = (path / _MODEL).with_suffix(".part")
    temporary.write_bytes(model.SerializeToString())
    temporary.replace(path / _MODEL)


def read_spec(path: Path) -> ModelSpec:
    """The metadata in the package. Raises FileNotFoundError for no package, ValueError for one without metadata, or a
    damaged one."""
    if not (path / _MANIFEST).is_file():
        raise FileNotFoundError(f"{path}: not a Core ML package: it has no {_MANIFEST}")
    proto = import_runtime("coremltools.proto.Model_pb2", path, "coremltools")
    message = import_runtime("google.protobuf.message", path, "protobuf")
    try:
        model = proto.Model.FromString(read_bounded(str(path / _MODEL), _MAX_MODEL))
    except message.DecodeError as error:
        raise ValueError(f"{path}: a damaged Core ML package: {error}") from None
    text = model.description.metadata.userDefined.get(KEY, "")
    if not text or len(text) > MAX_METADATA:
        raise ValueError(f"{path}: it holds no {KEY} metadata: export it from the checkpoint with format=coreml")
    return ModelSpec.from_dict(parse_json(text, str(path)))


def open_coreml(path: Path, device: str) -> Artifact:
    """Opens an exported package in Core ML. Raises RuntimeError elsewhere than on a Mac."""
    check_cpu(device, "Core ML, which chooses the processor itself,")
    spec = read_spec(path)
    if sys.platform != "darwin":
        raise RuntimeError(f"{path.name}: Core ML runs on a Mac alone; export another format for this computer")
    coremltools = import_runtime("coremltools", path, "coremltools")
    model = coremltools.models.MLModel(str(path))
    names = [output.name for output in spec.outputs]

    def run(images: NDArray[Any]) -> list[np.ndarray[Any, Any]]:
        found = model.predict({spec.input.name: images})
        return [np.asarray(found[name], np.float32) for name in names]

    return opened(path, spec, SpecBackend("coreml", spec, run))


FORMAT = Format(
    name="coreml",
    suffixes={"float32": ".mlpackage", "float16": "_float16.mlpackage", "dynamic": "_int8.mlpackage"},
    variants="f32, f16, int8 weights",
    proven_by="its structure and metadata; running it needs a Mac",
    arguments=("half", "int8", "batch"),
    convert=convert,
    needs=("coremltools",),
    extra="export-coreml",
    open=open_coreml,
    write_spec=write_spec,
    read_spec=read_spec,
    not_run="" if sys.platform == "darwin" else "Core ML runs on a Mac alone",
    deploy='add it to an Xcode project; on a Mac in Python: PoseModel("{name}")',
)
