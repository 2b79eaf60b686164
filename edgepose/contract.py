"""The artifact contract: what a model file says about how it is fed and how it is read.

A `ModelSpec` is plain data. `ModelSpec.from_dict` checks a document (untrusted: it comes out of a model file) and
`to_dict` writes it; `edgepose.artifact` finds it in, and puts it into, the files of each format. docs/artifact.md
describes every field.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = "1.0"

Color = Literal["RGB", "BGR", "GRAY"]
Layout = Literal["NCHW", "NHWC"]
DecoderType = Literal["yolo", "yolo_end2end", "yolo_heads", "movenet"]


@dataclass(frozen=True, slots=True)
class Quantization:
    """real = (stored - zero_point) * scale."""

    scale: float
    zero_point: int = 0


@dataclass(frozen=True, slots=True)
class ResizeSpec:
    """How a picture becomes the model's input size.

    mode: "letterbox" keeps the aspect and pads, "stretch" does not.
    size: (height, width) of a fixed input, None where the model takes any multiple of `stride`.
    """

    mode: Literal["letterbox", "stretch"] = "letterbox"
    size: tuple[int, int] | None = None
    stride: int = 32
    pad_value: int = 114
    center: bool = True


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The one input tensor. real = (level - mean) / std for each channel, level in 0..255; then quantized if asked."""

    name: str
    layout: Layout = "NCHW"
    dtype: str = "float32"  # float32, float16, uint8, int8
    batch: int | None = 1  # None: dynamic
    quantization: Quantization | None = None
    color: Color = "RGB"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (255.0, 255.0, 255.0)
    resize: ResizeSpec = field(default_factory=ResizeSpec)


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One output tensor.

    role: "detections" (decoded or end-to-end tensor), "pose" (MoveNet), or, of raw heads, "box" (4 * reg_max
    distribution logits), "score" (class logits), "keypoints" (K*D or K*2 raw values), "visibility" (K logits).
    stride: of a raw head, in input pixels; None otherwise.
    layout: of a raw head: "NCHW" (1, C, H, W), "NHWC" (1, H, W, C), "NCA" (1, C, H*W) or "NAC" (1, H*W, C).
    """

    name: str
    role: str
    stride: int | None = None
    layout: str | None = None
    dtype: str = "float32"
    quantization: Quantization | None = None


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """The decoder that reads the outputs: num_classes >= 1, kpt_shape (K, D) with D 2 or 3, reg_max of DFL heads."""

    type: DecoderType
    num_classes: int = 1
    kpt_shape: tuple[int, int] = (17, 3)
    reg_max: int = 16


@dataclass(frozen=True, slots=True)
class PeopleSpec:
    """Names and geometry of what is found. skeleton: pairs of keypoint indices; flip: index of each point's mirror."""

    class_names: tuple[str, ...] = ("person",)
    keypoint_names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    flip: tuple[int, ...] = ()
    sigmas: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The whole contract. origin: free-form facts (edgepose_version, checkpoint_sha256, license, data, thresholds,
    parity, producer …), JSON values only."""

    input: InputSpec
    outputs: tuple[OutputSpec, ...]
    decoder: DecoderSpec
    people: PeopleSpec = field(default_factory=PeopleSpec)
    origin: dict[str, Any] = field(default_factory=dict)
    schema: str = SCHEMA_VERSION
