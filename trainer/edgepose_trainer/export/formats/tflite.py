"""TFLite by litert-torch (pictures and maps are NHWC); int8, dynamic range and float16 by ai-edge-quantizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgepose.artifact import write_spec
from edgepose.contract import OutputSpec, Quantization
from edgepose.result import PoseResult
from edgepose.runner import PoseRunner
from edgepose_trainer.export.job import Converted, Job
from edgepose_trainer.export.parity import ALMOST, results_of
from edgepose_trainer.export.ranges import LEAST_LOGIT, METHODS, SILU_FLOOR, find_ranges
from edgepose_trainer.export.registry import Format
from edgepose_trainer.export.sensitive import find_sensitive
from edgepose_trainer.export.spec import model_spec

_SIGNATURE = "serving_default"


def convert(job: Job) -> Converted:
    path = job.folder / job.artifact_name
    floats = job.folder / "float.tflite"
    outputs = _write_float(job, floats)
    metadata: dict[str, Any] = {"normalized": True} if job.arguments.layout == "ultralytics" else {}
    report: tuple[str, ...] = ()
    precision = job.arguments.precision
    if precision == "float32":
        floats.replace(path)
    elif precision == "int8":
        metadata |= _write_int8(job, floats, path, outputs)
    elif precision == "mixed":
        found, report = _write_mixed(job, floats, path, outputs)
        metadata |= found
    else:
        _write_weights_only(floats, path, precision)
    if job.arguments.layout == "ultralytics":
        _add_ultralytics_metadata(job, path)
    return replace(_described(job, path, outputs, metadata), report=report)


def _write_float(job: Job, path: Path) -> tuple[OutputSpec, ...]:
    """The float32 model; the specs of its outputs in the order of its signature, without their tensors' names."""
    import litert_torch

    decoded = job.arguments.layout == "ultralytics"
    traced = job.traced(half=False, normalized=decoded)
    maps = [] if decoded else list(range(len(traced.outputs)))
    module = litert_torch.to_channel_last_io(traced.module, args=[0], outputs=maps).eval()
    model = litert_torch.convert(module, (traced.example.permute(0, 2, 3, 1).contiguous(),))
    model.export(str(path))
    return tuple(o if decoded else o._replace(layout="NHWC") for o in traced.outputs)


def _write_weights_only(source: Path, path: Path, precision: str) -> None:
    """Weights in float16, or in int8 with the activations' ranges found while running."""
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe

    if precision == "dynamic":
        made = quantizer.Quantizer(str(source), recipe.dynamic_wi8_afp32())
    else:
        made = quantizer.Quantizer(str(source))
        made.add_weight_only_config(
            ".*",
            qtyping.TFLOperationName.ALL_SUPPORTED,
            num_bits=16,
            algorithm_key=algorithm_manager.AlgorithmName.FLOAT_CASTING,
        )
    path.write_bytes(made.quantize().quantized_model)


def _write_int8(
    job: Job, source: Path, path: Path, outputs: tuple[OutputSpec, ...], in_float: Sequence[str] = ()
) -> dict[str, Any]:
    """Every tensor int8, weights per channel; in_float: roles whose last convolutions stay float."""
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe

    calibration = job.pictures()
    named = list(zip(_output_names(source), outputs, strict=True))
    logits = [name for name, output in named if output.role in ("score", "heatmap")]
    found = find_ranges(source.read_bytes(), calibration, job.arguments.batch, logits)
    made = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    leave, operations = algorithm_manager.AlgorithmName.NO_QUANTIZE, qtyping.TFLOperationName
    for name in (name for name, output in named if output.role in in_float):
        made.update_quantization_recipe(re.escape(name), operations.CONV_2D, algorithm_key=leave)
        # Else their outputs are int8 all the same. The outputs are one operation: all of them become float.
        made.update_quantization_recipe(".*", operations.OUTPUT, algorithm_key=leave)
    values = {name: {"min": np.full(1, low), "max": np.full(1, high)} for name, (low, high) in found.items()}
    path.write_bytes(made.quantize(values).quantized_model)
    scheme = "int8 activations, int8 weights per channel, int8 input and outputs"
    if in_float:
        scheme = (
            f"int8 activations, int8 weights per channel, int8 input; last convolutions of {', '.join(in_float)} float"
        )
    return {
        "quantization": {
            "scheme": scheme,
            "ranges": METHODS[calibration.method],
            "silu_inputs": f"from {SILU_FLOOR:g} up",
            "class_logits": f"{LEAST_LOGIT:g} to their maximum over the pictures",
        }
    }


def _write_mixed(
    job: Job, source: Path, path: Path, outputs: tuple[OutputSpec, ...]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """int8, but for the last convolutions that are sensitive; returns what to say in the metadata and to the user."""
    roles = tuple(dict.fromkeys(output.role for output in outputs))
    in_float = {"float": None, "int8": (), "finer": roles}
    people = {}
    for name, kept in in_float.items():
        trial = job.folder / f"trial_{name}.tflite"
        if kept is None:
            trial.write_bytes(source.read_bytes())
        else:
            _write_int8(job, source, trial, outputs, kept)
        people[name] = _people(job, trial, outputs)
    findings = find_sensitive(roles, people["float"], people["int8"], people["finer"])
    metadata = _write_int8(job, source, path, outputs, [finding.role for finding in findings if finding.pays])
    metadata["sensitive"] = [asdict(finding) for finding in findings]
    head = f"median error in int8 → with float last convolutions, {len(people['float'])} calibration pictures:"
    return metadata, (head, *(finding.line() for finding in findings))


def _people(job: Job, path: Path, outputs: tuple[OutputSpec, ...]) -> list[PoseResult]:
    """Whom a file finds on the calibration pictures."""
    write_spec(path, model_spec(job, _described(job, path, outputs, {}), path))
    pictures = [levels[..., ::-1] for levels in job.pictures().levels]
    return results_of(PoseRunner(path, conf=ALMOST, clip=False), pictures)


def _output_names(path: Path) -> list[str]:
    """Tensor names of the outputs in the order that the network gives them: the signature calls them output_N."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner(_SIGNATURE)
    details = runner.get_output_details()
    return [details[f"output_{i}"]["name"] for i in range(len(details))]


def _described(job: Job, path: Path, outputs: tuple[OutputSpec, ...], metadata: dict[str, Any]) -> Converted:
    """The specs as the finished file has its tensors."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    fed = interpreter.get_input_details()[0]
    details = {entry["name"]: entry for entry in interpreter.get_output_details()}
    found = tuple(
        output._replace(
            name=name, dtype=np.dtype(details[name]["dtype"]).name, quantization=_quantization(details[name])
        )
        for output, name in zip(outputs, _output_names(path), strict=True)
    )
    spec = job.input_spec(
        name=fed["name"], layout="NHWC", dtype=np.dtype(fed["dtype"]).name, quantization=_quantization(fed)
    )
    return Converted(path, spec, found, metadata)


def _quantization(details: dict[str, Any]) -> Quantization | None:
    parameters = details["quantization_parameters"]
    if not len(parameters["scales"]):
        return None
    return Quantization(float(parameters["scales"][0]), int(parameters["zero_points"][0]))


def _add_ultralytics_metadata(job: Job, path: Path) -> None:
    import json

    from edgepose.modelfiles.tflite import write_member
    from edgepose_trainer.export.spec import ultralytics_metadata

    write_member(str(path), "metadata.json", json.dumps(ultralytics_metadata(job), ensure_ascii=False).encode())


FORMAT = Format(
    name="tflite",
    suffixes={
        "float32": "_float32.tflite",
        "float16": "_float16.tflite",
        "dynamic": "_dynamic.tflite",
        "int8": "_int8.tflite",
        "mixed": "_mixed.tflite",
    },
    variants="f32, f16 weights, dynamic range (int8=dynamic), full int8, mixed (int8=mixed); layout=ultralytics",
    proven_by="ai-edge-litert 2.3 and tflite-runtime 2.14",
    arguments=("half", "int8", "batch", "layout", "fraction", "calibration"),
    convert=convert,
    needs=("litert_torch", "ai_edge_litert", "ai_edge_quantizer"),
    layouts=("edgepose", "ultralytics"),
    calibrations=tuple(METHODS),
)
