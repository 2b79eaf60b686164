"""`edgepose info`: prints what a model is."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from edgepose.contract import InputSpec, ModelSpec, OutputSpec, Quantization
from edgepose.info import ModelInfo, describe
from edgepose.shipped import default_model

_FORMATS = {"onnx": "ONNX", "openvino": "OpenVINO", "tflite": "TFLite"}
_METADATA = {
    "edgepose": "edgepose's, in the model",
    "ultralytics": "Ultralytics', in the model",
    "tensors": "none; known by its tensors",
    "user": "spec=",
}


def run(model: str | None = None, spec: str | None = None, json: bool = False) -> int:
    """Prints the description of one model, None: the one that ships. Returns 0, or 1 where it could be described but
    not opened."""
    info = describe(default_model() if model is None else model, spec)
    if json:
        from json import dumps

        print(dumps(info.to_dict(), indent=2))
    else:
        print(info_text(info))
    return 0 if info.problem is None else 1


def info_text(info: ModelInfo) -> str:
    """The description for a person to read."""
    lines: list[str] = []
    last = ""
    for name, text in _lines(info):
        head = "" if name == last else f"{name}:"
        wrapped = textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False) or [""]
        lines += [f"{head:<12}{wrapped[0]}", *(f"{'':<12}{line}" for line in wrapped[1:])]
        last = name
    return "\n".join(lines)


def _lines(info: ModelInfo) -> Iterator[tuple[str, str]]:
    spec = info.spec
    yield "model", f"{info.path} ({_FORMATS.get(info.format, info.format)}, {info.size_bytes / 1e6:.1f} MB)"
    yield "runs in", info.runtime or f"nothing here: {info.problem}"
    yield "metadata", f"{_METADATA[info.metadata]} (schema {spec.schema})"
    yield "input", _input_text(spec.input)
    yield "input", _feeding_text(spec.input)
    for output, shape in zip(spec.outputs, _shapes(info), strict=True):
        yield "output", _output_text(output, shape)
    yield "decoder", _decoder_text(spec)
    people = spec.people
    yield "classes", ", ".join(people.class_names)
    if people.keypoint_names:
        yield "keypoints", ", ".join(people.keypoint_names)
    if people.skeleton:
        yield "skeleton", " ".join(f"{a}-{b}" for a, b in people.skeleton)
    for name, value in spec.origin.items():
        yield "origin", f"{name}: {_plain(value)}"


def _shapes(info: ModelInfo) -> list[list[int | None] | None]:
    outputs = info.tensors.get("outputs")
    return [None] * len(info.spec.outputs) if outputs is None else [list(output["shape"]) for output in outputs]


def _input_text(spec: InputSpec) -> str:
    size = spec.resize.size
    shape = f"{size[0]}x{size[1]} (height x width)" if size else f"any size in steps of {spec.resize.stride}"
    batch = "any batch" if spec.batch is None else f"batch {spec.batch}"
    return f"{spec.name}: {spec.color} {shape}, {spec.layout}, {batch}, {spec.dtype}{_quantization(spec.quantization)}"


def _feeding_text(spec: InputSpec) -> str:
    resize = spec.resize
    place = "centred" if resize.center else "at the top left"
    fit = f"letterboxed {place}, padded with {resize.pad_value}" if resize.mode == "letterbox" else "stretched"
    mean, std = (_alike(values) for values in (spec.mean, spec.std))
    return f"{fit}; value = (level - {mean}) / {std}"


def _alike(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _output_text(output: OutputSpec, shape: list[int | None] | None) -> str:
    sides = "" if shape is None else " (" + ", ".join("?" if side is None else str(side) for side in shape) + ")"
    stride = f", stride {output.stride}" if output.stride else ""
    return f"{output.name}: {output.role}{stride}, {output.dtype}{sides}{_quantization(output.quantization)}"


def _quantization(quantization: Quantization | None) -> str:
    if quantization is None:
        return ""
    return f", real = (stored - {quantization.zero_point}) * {quantization.scale:.6g}"


def _decoder_text(spec: ModelSpec) -> str:
    decoder = spec.decoder
    keypoints, values = decoder.kpt_shape
    of = "x, y, score" if values == 3 else "x, y"
    return f"{decoder.type}: {decoder.num_classes} class(es), {keypoints} keypoints ({of})"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(part) for part in value)
    return str(value)
