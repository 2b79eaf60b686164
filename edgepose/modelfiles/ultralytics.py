"""Reads the metadata that Ultralytics' exports carry, as data, and makes a spec of it and of the model's own tensors.

ONNX: model properties whose values are Python literals; OpenVINO: metadata.yaml beside the model; TFLite: a zip at the
end of the file that holds metadata.json or, before 8.3.117, temp_meta.txt (a Python dict).
Source: docs.ultralytics.com, modes/export, and the exported files themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from reprlib import repr as short_repr  # a hostile YAML's aliases make values whose full repr fills the memory
from typing import TYPE_CHECKING, Any

from edgepose.contract import DecoderSpec, InputSpec, ModelSpec, OutputSpec, PeopleSpec, ResizeSpec

if TYPE_CHECKING:
    from edgepose.backends.base import TensorSpec

_KEYS = ("stride", "task", "names", "imgsz")
_ORIGIN = ("description", "version", "license", "date")
_PARSED = ("stride", "batch", "imgsz", "names", "kpt_shape", "args", "channels", "end2end", "kpt_names")


def looks_like_ultralytics(metadata: object) -> bool:
    """Whether these are the metadata of an Ultralytics export, of whatever task."""
    return isinstance(metadata, Mapping) and all(key in metadata for key in _KEYS)


def parse_properties(properties: Mapping[str, str]) -> dict[str, Any]:
    """ONNX properties with the literals among them parsed. Raises ValueError where one is not a literal."""
    from edgepose.modelfiles.literal import parse_literal

    parsed: dict[str, Any] = dict(properties)
    for key in _PARSED:
        if key in properties:
            try:
                parsed[key] = parse_literal(properties[key])
            except ValueError as error:
                raise ValueError(f"Ultralytics metadata: {key}: {error}") from None
    return parsed


def make_spec(
    metadata: Mapping[str, Any], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], *, normalized: bool
) -> ModelSpec:
    """The spec of an Ultralytics pose export.

    The tensors say layout, types, size and whether the output is the raw (1, 4 + C + D*K, N) or the end-to-end
    (1, M, 6 + D*K) one; the metadata say classes and keypoints. Raises ValueError where they do not agree.
    """
    if metadata["task"] != "pose":
        raise ValueError(
            f"got an Ultralytics model for the task {short_repr(metadata['task'])}, expected a pose model "
            "(yolov8n-pose, yolo11n-pose and the like)"
        )
    classes = _class_names(metadata["names"])
    kpt_shape = _integers(metadata.get("kpt_shape"), "kpt_shape")
    channels = metadata.get("channels", 3)
    document = ModelSpec(
        input=_input(metadata, inputs, 1 if channels == 1 else 3),
        outputs=tuple(OutputSpec(output.name, "detections", dtype=output.dtype) for output in outputs),
        decoder=DecoderSpec(
            _decoder_type(metadata, outputs, len(classes), kpt_shape),
            num_classes=len(classes),
            kpt_shape=kpt_shape,
            normalized=normalized,
        ),
        people=PeopleSpec(class_names=classes, keypoint_names=_keypoint_names(metadata, kpt_shape[0])),
        origin={
            "producer": "Ultralytics",
            **{key: metadata[key][:500] for key in _ORIGIN if isinstance(metadata.get(key), str)},
        },
    )
    return document.checked()


def _integers(value: object, name: str) -> tuple[int, int]:
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 2
        or not all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    ):
        raise ValueError(f"Ultralytics metadata: {name}: got {short_repr(value)}, expected two integers")
    return value[0], value[1]


def _class_names(value: object) -> tuple[str, ...]:
    """names is {0: 'person', …} or, in JSON, {"0": "person", …}, or a list."""
    if isinstance(value, Mapping) and len(value) <= 10_000:
        try:
            indices = sorted(value, key=int)
            if [int(index) for index in indices] == list(range(len(value))):
                value = [value[index] for index in indices]
        except (TypeError, ValueError, OverflowError):
            pass
    if not isinstance(value, list) or not 0 < len(value) <= 10_000:
        raise ValueError(f"Ultralytics metadata: names: got {short_repr(value)}, expected a name for each class")
    if not all(isinstance(name, (str, int, float)) for name in value):
        raise ValueError(f"Ultralytics metadata: names: got {short_repr(value)}, expected text for each class")
    return tuple(str(name)[:1000] for name in value)


def _keypoint_names(metadata: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """kpt_names, of newer exports, is {class index: [name, …]}."""
    names = metadata.get("kpt_names")
    if isinstance(names, Mapping) and len(names) > 0:
        names = next(iter(names.values()))
    if isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names):
        return tuple(names)
    return ()


def _input(metadata: Mapping[str, Any], inputs: Sequence[TensorSpec], channels: int) -> InputSpec:
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        found = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in inputs)
        raise ValueError(f"Ultralytics metadata: got a model with the inputs {found}, expected one picture tensor")
    tensor = inputs[0]
    layout = "NHWC" if tensor.shape[3] == channels and tensor.shape[1] != channels else "NCHW"
    height, width = tensor.shape[1:3] if layout == "NHWC" else tensor.shape[2:]
    stride = metadata["stride"]
    return InputSpec(
        name=tensor.name,
        layout="NHWC" if layout == "NHWC" else "NCHW",
        dtype=tensor.dtype,
        batch=tensor.shape[0],
        quantization=tensor.quantization,
        color="RGB" if channels == 3 else "GRAY",
        mean=(0.0,) * channels,
        std=(255.0,) * channels,
        resize=ResizeSpec(
            size=None if height is None or width is None else (height, width),
            stride=stride if isinstance(stride, int) and not isinstance(stride, bool) else 32,
        ),
    )


def _decoder_type(
    metadata: Mapping[str, Any], outputs: Sequence[TensorSpec], classes: int, kpt_shape: tuple[int, int]
) -> Any:
    keypoint_values = kpt_shape[0] * kpt_shape[1]
    shapes = [output.shape for output in outputs]
    if len(shapes) == 1 and len(shapes[0]) == 3:
        _, rows, columns = shapes[0]
        raw = rows == 4 + classes + keypoint_values
        end2end = columns == 6 + keypoint_values
        if raw and end2end:
            return "yolo_end2end" if metadata.get("end2end") is True else "yolo"
        if raw or end2end:
            return "yolo" if raw else "yolo_end2end"
    raise ValueError(
        f"the outputs do not fit the model's Ultralytics metadata: got shapes {shapes}, expected one of "
        f"(1, {4 + classes + keypoint_values}, N) or (1, M, {6 + keypoint_values}) for {classes} classes and "
        f"kpt_shape {list(kpt_shape)}"
    )
