"""Models without metadata: those whose tensors tell, those with a name, and a form to fill in for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgepose import coco
from edgepose.contract import DecoderSpec, InputSpec, ModelSpec, OutputSpec, PeopleSpec, ResizeSpec

if TYPE_CHECKING:
    from edgepose.backends.base import TensorSpec

NAMED_SPECS = ("movenet", "yolov8-pose", "yolo11-pose", "yolo26-pose")
"""Names that stand for a spec: the 17 COCO keypoints, one class, the model's own tensors."""

COCO_PEOPLE = PeopleSpec(("person",), coco.KEYPOINT_NAMES, coco.SKELETON, coco.FLIP, coco.SIGMAS)


def recognise(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> ModelSpec | None:
    """The spec of a model whose tensors say enough: MoveNet single pose, (1, H, W, 3) in and (1, 1, 17, 3) out.

    A lone (1, 56, N) tensor does not: it may hold one class and 17 keypoints with visibility, two classes and 25
    without, or the 52 classes of a detector.
    """
    shapes = [tensor.shape for tensor in outputs]
    if len(inputs) != 1 or shapes != [(1, 1, 17, 3)] or outputs[0].dtype != "float32":
        return None
    shape = inputs[0].shape
    if len(shape) != 4 or shape[3] != 3 or None in shape or inputs[0].dtype not in ("uint8", "float32"):
        return None
    return movenet_spec(inputs, outputs)


def movenet_spec(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> ModelSpec:
    """MoveNet single pose takes the levels 0..255 as they are; the picture is stretched to its input.

    Source: the model card of MoveNet.SinglePose (tfhub.dev/google/movenet) and Coral's pose example.
    """
    tensor = inputs[0]
    size = _fixed_size(tensor, "NHWC")
    if size is None:
        raise ValueError(f"got an input of shape {tensor.shape}, expected the fixed (1, H, W, 3) of MoveNet")
    return ModelSpec(
        input=InputSpec(
            tensor.name,
            layout="NHWC",
            dtype=tensor.dtype,
            quantization=tensor.quantization,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            resize=ResizeSpec("stretch", size=size, pad_value=0),
        ),
        outputs=(OutputSpec(outputs[0].name, "pose", dtype=outputs[0].dtype),),
        decoder=DecoderSpec("movenet"),
        people=COCO_PEOPLE,
        origin={"producer": "MoveNet single pose (recognised by its tensors)"},
    ).checked()


def named_spec(name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> ModelSpec:
    """One of NAMED_SPECS with this model's tensors filled in."""
    if name == "movenet":
        return movenet_spec(inputs, outputs)
    decoder = DecoderSpec("yolo_end2end" if name == "yolo26-pose" else "yolo")
    return ModelSpec(
        input=_likely_input(inputs[0]),
        outputs=tuple(OutputSpec(output.name, "detections", dtype=output.dtype) for output in outputs),
        decoder=decoder,
        people=COCO_PEOPLE,
        origin={"producer": f"named spec {name}"},
    ).checked()


def form_to_fill(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str:
    """A spec document for this very model, as JSON, filled in as far as its tensors say."""
    import json

    spec = ModelSpec(
        input=_likely_input(inputs[0]),
        outputs=tuple(OutputSpec(output.name, "detections", dtype=output.dtype) for output in outputs),
        decoder=_likely_decoder(outputs),
    )
    document = spec.to_dict()
    document.pop("people")
    document.pop("origin")
    return json.dumps(document, indent=2)


def _fixed_size(tensor: TensorSpec, layout: str) -> tuple[int, int] | None:
    if len(tensor.shape) != 4:
        return None
    height, width = tensor.shape[1:3] if layout == "NHWC" else tensor.shape[2:]
    return None if height is None or width is None else (height, width)


def _likely_input(tensor: TensorSpec) -> InputSpec:
    shape = tensor.shape
    nhwc = len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3)
    layout: Any = "NHWC" if nhwc else "NCHW"
    channels = 1 if len(shape) == 4 and shape[3 if nhwc else 1] == 1 else 3
    return InputSpec(
        tensor.name,
        layout=layout,
        dtype=tensor.dtype,
        batch=shape[0] if shape else 1,
        quantization=tensor.quantization,
        color="GRAY" if channels == 1 else "RGB",
        mean=(0.0,) * channels,
        std=(255.0,) * channels,
        resize=ResizeSpec(size=_fixed_size(tensor, layout)),
    )


def _likely_decoder(outputs: Sequence[TensorSpec]) -> DecoderSpec:
    """One class and keypoints of (x, y, visibility), if the lone output has room for just that."""
    if len(outputs) == 1 and len(outputs[0].shape) == 3:
        rows, columns = outputs[0].shape[1:]
        if rows is not None and rows > 5 and (rows - 5) % 3 == 0 and (rows - 5) // 3 <= 1000:
            return DecoderSpec("yolo", kpt_shape=((rows - 5) // 3, 3))
        if columns is not None and columns > 6 and (columns - 6) % 3 == 0 and (columns - 6) // 3 <= 1000:
            return DecoderSpec("yolo_end2end", kpt_shape=((columns - 6) // 3, 3))
    return DecoderSpec("yolo")
