"""TFLite by litert-torch (pictures and maps are NHWC); int8, dynamic range and float16 by ai-edge-quantizer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgepose.contract import OutputSpec, Quantization
from edgepose_trainer.data.files import write_whole
from edgepose_trainer.export.calibration import Calibration
from edgepose_trainer.export.job import Converted, Job
from edgepose_trainer.export.registry import Format

LEAST_LOGIT = -8.0
"""Class logits below this are all scores under 0.0004: their range is spent on the people."""

_SIGNATURE = "serving_default"


def convert(job: Job) -> Converted:
    path = job.folder / job.artifact_name
    floats = job.folder / "float.tflite"
    outputs = _write_float(job, floats)
    metadata: dict[str, Any] = {"normalized": True} if job.arguments.layout == "ultralytics" else {}
    precision = job.arguments.precision
    if precision == "float32":
        floats.replace(path)
    elif precision == "int8":
        metadata |= _write_int8(job, floats, path, outputs)
    else:
        _write_weights_only(floats, path, precision)
    if job.arguments.layout == "ultralytics":
        _add_ultralytics_metadata(job, path)
    return _described(job, path, outputs, metadata)


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


class _Inputs:
    """The calibration pictures as the quantizer asks for them: iterated more than once, with a length."""

    def __init__(self, calibration: Calibration, name: str, batch: int) -> None:
        self.calibration, self.name, self.batch = calibration, name, batch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return ({self.name: images} for images in self.calibration.batches("NHWC", self.batch))

    def __len__(self) -> int:
        return -(-len(self.calibration) // self.batch)


def _write_int8(job: Job, source: Path, path: Path, outputs: tuple[OutputSpec, ...]) -> dict[str, Any]:
    """Every tensor int8, weights per channel.

    The quantizer's default range is a moving average of each picture's own: robust, but it leaves the few cells with a
    person outside of the class logits' range, so that no score gets above 0.5. Those get LEAST_LOGIT to their maximum.
    """
    from ai_edge_quantizer import quantizer, recipe

    calibration = job.pictures()
    content = source.read_bytes()
    cached = calibration.cache(content, ".tflite.npz")
    ranges = _read_ranges(cached)
    if ranges is None:
        ranges = _find_ranges(content, calibration, job.arguments.batch)
        _write_ranges(cached, ranges)
    scores = [name for name, output in zip(_output_names(source), outputs, strict=True) if output.role == "score"]
    for name in scores:
        low, high = ranges[name]["least"], ranges[name]["most"]
        highest = float(np.max(high))
        ranges[name]["min"] = np.full_like(low, min(LEAST_LOGIT, highest - 1))
        ranges[name]["max"] = np.full_like(high, highest)
    values = {name: {"min": entry["min"], "max": entry["max"]} for name, entry in ranges.items()}
    made = quantizer.Quantizer(str(source), recipe.static_wi8_ai8()).quantize(values)
    path.write_bytes(made.quantized_model)
    return {
        "quantization": {
            "scheme": "int8 activations, int8 weights per channel, int8 input and outputs",
            "ranges": "minimum and maximum" if calibration.method == "minmax" else "moving average over the pictures",
            "class_logits": f"{LEAST_LOGIT:g} to their maximum over the pictures",
        }
    }


def _find_ranges(content: bytes, calibration: Calibration, batch: int) -> dict[str, dict[str, Any]]:
    """Of each tensor: min and max by the method asked for, least and most over all pictures."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import calibrator, recipe, recipe_manager

    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe.static_wi8_ai8())
    name = Interpreter(model_content=content).get_signature_list()[_SIGNATURE]["inputs"][0]
    update = _update_for(calibration.method)
    found = calibrator.Calibrator(content, num_threads=2, qsv_update_func=update)
    found.calibrate({_SIGNATURE: _Inputs(calibration, name, batch)}, manager)
    ranges: dict[str, dict[str, Any]] = found.get_model_qsvs()
    for entry in ranges.values():
        for extreme, bound in (("least", "min"), ("most", "max")):
            if bound in entry:
                entry.setdefault(extreme, entry[bound])
    return {key: entry for key, entry in ranges.items() if "min" in entry}


def _update_for(method: str) -> Any:
    """How the ranges of one more picture change those so far (both hold arrays)."""
    from ai_edge_quantizer.utils.qsv_utils import moving_average_update

    def update(kept: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        if not kept:
            return dict(new)
        least = np.minimum(kept.get("least", kept["min"]), new["min"])
        most = np.maximum(kept.get("most", kept["max"]), new["max"])
        if method == "minmax":
            return {"min": least, "max": most, "least": least, "most": most}
        return {**moving_average_update(kept, new), "least": least, "most": most}

    return update


def _read_ranges(path: Path) -> dict[str, dict[str, Any]] | None:
    """Ranges kept by an earlier export; None where there are none, or they are damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            names = [str(name) for name in kept["names"]]
            return {
                name: {key: kept[f"{i}.{key}"] for key in ("min", "max", "least", "most")}
                for i, name in enumerate(names)
            }
    except (OSError, ValueError, KeyError):
        return None


def _write_ranges(path: Path, ranges: dict[str, dict[str, Any]]) -> None:
    arrays: dict[str, Any] = {"names": np.array(list(ranges))}
    for i, entry in enumerate(ranges.values()):
        arrays |= {f"{i}.{key}": entry[key] for key in ("min", "max", "least", "most")}
    write_whole(path, lambda file: np.savez(file, **arrays))


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
    },
    variants="f32, f16 weights, dynamic range (int8=dynamic), full int8; layout=ultralytics",
    proven_by="ai-edge-litert 2.3 and tflite-runtime 2.14",
    arguments=("half", "int8", "batch", "layout", "fraction", "calibration"),
    convert=convert,
    needs=("litert_torch", "ai_edge_litert", "ai_edge_quantizer"),
    layouts=("edgepose", "ultralytics"),
    calibrations=("auto", "minmax"),
)
