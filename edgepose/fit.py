"""Holds a spec against the tensors that the runtime reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepose.contract import InputSpec, ModelSpec, OutputSpec, Quantization

if TYPE_CHECKING:
    from edgepose.backends.base import TensorSpec

_Shape = tuple[int | None, ...]


def fit_input(spec: InputSpec, tensor: TensorSpec) -> InputSpec:
    """The input spec, with the runtime's quantization where it has none. Raises ValueError where the two differ."""
    if spec.name not in (tensor.name, *tensor.aliases):
        raise ValueError(f"input: the metadata name it {spec.name!r}, the model {tensor.name!r}")
    if spec.dtype != tensor.dtype:
        raise ValueError(f"input {spec.name!r}: the metadata say {spec.dtype}, the model takes {tensor.dtype}")
    channels = len(spec.mean)
    height, width = spec.resize.size or (None, None)
    expected: _Shape = (
        (spec.batch, channels, height, width) if spec.layout == "NCHW" else (spec.batch, height, width, channels)
    )
    _check_shape(f"input {spec.name!r}", expected, tensor.shape)
    if spec.resize.size is None and None not in tensor.shape[1:]:
        raise ValueError(f"input {spec.name!r}: the metadata say any size, the model takes {_shown(tensor.shape)}")
    return spec._replace(
        batch=tensor.shape[0],
        quantization=_quantization(f"input {spec.name!r}", spec.quantization, tensor),
    )


def fit_outputs(spec: ModelSpec, tensors: Sequence[TensorSpec]) -> tuple[tuple[int, ...], tuple[OutputSpec, ...]]:
    """(which of the tensors, in their order, hold the spec's outputs; the output specs in that order).

    Outputs are found by name. Raises ValueError where one is missing or has another type or shape.
    """
    index = {name: i for i, tensor in enumerate(tensors) for name in (tensor.name, *tensor.aliases)}
    found: dict[int, OutputSpec] = {}
    for output in spec.outputs:
        if output.name not in index:
            names = ", ".join(repr(tensor.name) for tensor in tensors)
            raise ValueError(f"the metadata name the output {output.name!r}, the model has {names}")
        found[index[output.name]] = _fit_output(spec, output, tensors[index[output.name]])
    if len(found) != len(spec.outputs):
        raise ValueError("the metadata name one output of the model twice")
    order = tuple(sorted(found))
    return order, tuple(found[i] for i in order)


def _fit_output(spec: ModelSpec, output: OutputSpec, tensor: TensorSpec) -> OutputSpec:
    where = f"output {output.name!r}"
    if output.dtype != tensor.dtype:
        raise ValueError(f"{where}: the metadata say {output.dtype}, the model gives {tensor.dtype}")
    _check_shape(where, _expected_shape(spec, output), tensor.shape)
    quantization = _quantization(where, output.quantization, tensor)
    if quantization is None and "int" in output.dtype:
        raise ValueError(f"{where}: it is {output.dtype}, and neither the metadata nor the model give its scale")
    return output._replace(quantization=quantization)


def _expected_shape(spec: ModelSpec, output: OutputSpec) -> _Shape:
    decoder, batch = spec.decoder, spec.input.batch
    keypoints, values = decoder.kpt_shape
    if output.role == "pose":
        return (batch, 1, keypoints, 3)
    if decoder.type == "yolo":
        return (batch, 4 + decoder.num_classes + keypoints * values, None)
    if decoder.type == "yolo_end2end":
        return (batch, None, 6 + keypoints * values)
    return _expected_head(spec, output)


def _expected_head(spec: ModelSpec, output: OutputSpec) -> _Shape:
    batch, stride = spec.input.batch, output.stride or 1
    channels = _head_channels(spec, output)
    height, width = spec.input.resize.size or (None, None)
    rows = None if height is None else -(-height // stride)
    columns = None if width is None else -(-width // stride)
    cells = None if rows is None or columns is None else rows * columns
    shapes: dict[str | None, _Shape] = {
        "NCHW": (batch, channels, rows, columns),
        "NHWC": (batch, rows, columns, channels),
        "NCA": (batch, channels, cells),
        "NAC": (batch, cells, channels),
    }
    return shapes[output.layout]


def _head_channels(spec: ModelSpec, output: OutputSpec) -> int:
    keypoints, values = spec.decoder.kpt_shape
    apart = any(other.role == "visibility" and other.stride == output.stride for other in spec.outputs)
    return {
        "box": 4 * spec.decoder.reg_max,
        "score": spec.decoder.num_classes,
        "keypoints": keypoints * (2 if apart else values),
        "visibility": keypoints,
        "heatmap": 4 * keypoints,
    }[output.role]


def _check_shape(where: str, expected: _Shape, got: _Shape) -> None:
    """None stands for any size on either side."""
    if len(expected) != len(got) or any(
        want is not None and side is not None and want != side for want, side in zip(expected, got, strict=True)
    ):
        raise ValueError(f"{where}: the metadata mean a shape of {_shown(expected)}, the model has {_shown(got)}")


def _shown(shape: _Shape) -> str:
    return "(" + ", ".join("any" if side is None else str(side) for side in shape) + ")"


def _quantization(where: str, stated: Quantization | None, tensor: TensorSpec) -> Quantization | None:
    """The runtime's own where the metadata give none; both must agree to 1e-4, as a float32 scale in decimals does."""
    actual = tensor.quantization
    if stated is None or actual is None:
        return stated or actual
    if abs(stated.scale - actual.scale) > 1e-4 * actual.scale or stated.zero_point != actual.zero_point:
        raise ValueError(f"{where}: the metadata say {stated}, the model has {actual}")
    return stated
