"""ONNX: float32, float16, and int8 as QDQ by NNCF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgepose.contract import OutputSpec, Quantization
from edgepose_trainer.export import nncf
from edgepose_trainer.export.job import Converted, Job
from edgepose_trainer.export.prepare import INPUT
from edgepose_trainer.export.registry import Format

OPSET = 18


def convert(job: Job) -> Converted:
    path = job.folder / job.artifact_name
    traced = job.traced()
    write_onnx(job, path)
    if job.arguments.precision == "int8":
        return _quantized(job, path, traced.outputs)
    dtype = "float16" if job.arguments.precision == "float16" else "float32"
    if job.arguments.layout == "ultralytics":
        add_ultralytics_properties(job, path)
    return Converted(path, job.input_spec(dtype=dtype), traced.outputs, {"opset": job.arguments.opset or OPSET})


def write_onnx(job: Job, path: Path, **changes: Any) -> None:
    """Traces the job's network into an ONNX file with named input and outputs."""
    import torch

    traced = job.traced(**changes)
    dynamic = job.arguments.dynamic
    program = torch.onnx.export(
        traced.module,
        (traced.example.expand(2, -1, -1, -1) if dynamic else traced.example,),
        dynamo=True,
        opset_version=job.arguments.opset or OPSET,
        external_data=False,
        input_names=[INPUT],
        output_names=[output.name for output in traced.outputs],
        dynamic_shapes=({0: "batch", 2: "height", 3: "width"},) if dynamic else None,
        verbose=False,
    )
    assert program is not None
    program.save(path)
    if job.arguments.simplify:
        _simplify(path)


def _simplify(path: Path) -> None:
    import onnx
    import onnxslim

    model = onnx.load(path)
    metadata = onnxslim.slim(model)
    onnx.checker.check_model(metadata)
    onnx.save(metadata, path)


def add_ultralytics_properties(job: Job, path: Path) -> None:
    from edgepose.modelfiles.onnx import write_properties
    from edgepose_trainer.export.spec import ultralytics_metadata

    write_properties(str(path), {key: str(value) for key, value in ultralytics_metadata(job).items()})


def _quantized(job: Job, path: Path, outputs: tuple[OutputSpec, ...]) -> Converted:
    import onnx

    calibration = job.pictures()
    inputs = [{INPUT: images} for images in calibration.batches(batch=job.arguments.batch)]
    model, described = nncf.quantize(onnx.load(path), inputs, calibration.method)
    dtype, quantization = _open_input(model)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    metadata = {"opset": job.arguments.opset or OPSET, "quantization": described}
    return Converted(path, job.input_spec(dtype=dtype, quantization=quantization), outputs, metadata)


def _open_input(model: Any) -> tuple[str, Quantization]:
    """Lets the graph take the levels that it quantizes its input to: nobody makes floats of them first.

    Returns their type and quantization.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    readers = [node for node in graph.node if INPUT in node.input]
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        raise ValueError(f"the quantizer left the input in float: it is read by {[node.op_type for node in readers]}")
    node = readers[0]
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scale, zero_point = values[node.input[1]], values[node.input[2]]
    for other in graph.node:
        other.input[:] = [INPUT if name == node.output[0] else name for name in other.input]
    graph.node.remove(node)
    graph.input[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(zero_point.dtype)
    return zero_point.dtype.name, Quantization(float(np.ravel(scale)[0]), int(np.ravel(zero_point)[0]))


FORMAT = Format(
    name="onnx",
    suffixes={"float32": ".onnx", "float16": "_float16.onnx", "int8": "_int8.onnx"},
    variants="f32, f16, int8 (QDQ by NNCF); any size and batch; layout=ultralytics",
    proven_by="ONNX Runtime",
    arguments=(
        *("half", "int8", "dynamic", "batch", "opset", "simplify", "layout"),
        *("fraction", "calibration"),
    ),
    convert=convert,
    needs=("onnx", "onnxscript", "onnxslim", "onnxruntime"),
    needs_for_int8=("nncf",),
    layouts=("edgepose", "ultralytics"),
    deploy='pip install "edgepose[onnx]", PoseRunner("{name}")',
)
