"""ONNX: float32, float16, and int8 as QDQ by ONNX Runtime's quantizer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgepose.contract import Quantization
from edgepose_trainer.export.calibration import PERCENTILE, Calibration
from edgepose_trainer.export.job import Converted, Job
from edgepose_trainer.export.prepare import INPUT
from edgepose_trainer.export.registry import Format

OPSET = 18

MOST_FOR_PERCENTILE = 64
"""ONNX Runtime makes a histogram of every tensor for every picture: as many as pay."""


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


class _Reader:
    """The calibration pictures as ONNX Runtime's quantizer asks for them."""

    def __init__(self, calibration: Calibration, batch: int) -> None:
        self.batches: Iterator[Any] = calibration.batches(batch=batch)

    def get_next(self) -> dict[str, Any] | None:
        images = next(self.batches, None)
        return None if images is None else {INPUT: images}


def _quantized(job: Job, path: Path, outputs: tuple[Any, ...]) -> Converted:
    """Every convolution but each branch's last in int8, weights per channel.

    What the last ones give is read as places and scores at once, and rounding it costs more accuracy than the
    arithmetic of a few 1x1 convolutions costs time.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    calibration = job.pictures()
    percentile = calibration.method != "minmax"
    if percentile:
        calibration = calibration.subset(MOST_FOR_PERCENTILE)
    ready = path.with_suffix(".ready.onnx")
    quant_pre_process(path, ready, skip_symbolic_shape=True)
    kept = _producers(onnx.load(ready), {output.name for output in outputs})
    cached = calibration.cache(ready.read_bytes(), ".onnx.json")
    ranges = job.folder / "ranges.json"
    if cached.is_file():
        shutil.copyfile(cached, ranges)
    quantize_static(
        ready,
        path,
        _Reader(calibration, job.arguments.batch),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        nodes_to_exclude=kept,
        calibrate_method=CalibrationMethod.Percentile if percentile else CalibrationMethod.MinMax,
        extra_options={"CalibPercentile": PERCENTILE, "CalibStridedMinMax": None},
        calibration_cache_path=ranges,
    )
    shutil.copyfile(ranges, cached)
    quantization = _open_input(path)
    spec = job.input_spec(dtype="uint8", quantization=quantization)
    return Converted(
        path,
        spec,
        outputs,
        {
            "opset": job.arguments.opset or OPSET,
            "quantization": {
                "scheme": "QDQ, uint8 activations, int8 weights per channel",
                "ranges": f"percentile {PERCENTILE}" if percentile else "minimum and maximum",
                "pictures": len(calibration),
                "kept_float": kept,
            },
        },
        (f"kept in float: the last convolution of each branch ({len(kept)} of them)",),
    )


def _producers(model: Any, names: set[str]) -> list[str]:
    """The nodes that give these outputs."""
    return [node.name for node in model.graph.node if names & set(node.output)]


def _open_input(path: Path) -> Quantization:
    """Lets the graph take the levels that it quantizes its input to: nobody makes floats of them first."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    graph = model.graph
    readers = [node for node in graph.node if INPUT in node.input]
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        raise ValueError(f"the quantizer left the input in float: it is read by {[node.op_type for node in readers]}")
    node = readers[0]
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scale, zero_point = float(np.ravel(values[node.input[1]])[0]), int(np.ravel(values[node.input[2]])[0])
    for other in graph.node:
        other.input[:] = [INPUT if name == node.output[0] else name for name in other.input]
    graph.node.remove(node)
    graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return Quantization(scale, zero_point)


FORMAT = Format(
    name="onnx",
    suffixes={"float32": ".onnx", "float16": "_float16.onnx", "int8": "_int8.onnx"},
    variants="f32, f16, int8 (QDQ); any size and batch; layout=ultralytics",
    proven_by="ONNX Runtime",
    arguments=(
        *("half", "int8", "dynamic", "batch", "opset", "simplify", "layout"),
        *("fraction", "calibration"),
    ),
    convert=convert,
    needs=("onnx", "onnxscript", "onnxslim", "onnxruntime"),
    layouts=("edgepose", "ultralytics"),
)
