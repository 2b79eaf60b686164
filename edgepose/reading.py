"""How a spec's model is read: the decoder of its outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgepose import _core

if TYPE_CHECKING:
    from edgepose.contract import DecoderSpec, ModelSpec, OutputSpec

    Decoder = _core.YoloDecoder | _core.YoloEnd2EndDecoder | _core.MoveNetDecoder | _core.YoloHeadsDecoder


def make_decoder(
    spec: ModelSpec, *, nms: str, iou: float, max_candidates: int, agnostic: bool, **options: Any
) -> Decoder:
    """The core's decoder for the model; `options` (conf, max_det, clip) are those that every decoder has."""
    shape: dict[str, Any] = {"num_classes": spec.decoder.num_classes, "kpt_shape": spec.decoder.kpt_shape}
    keypoints = spec.decoder.kpt_shape[0]
    # Points without sigmas of their own count alike, as in COCO-style evaluations of other keypoints.
    sigmas = spec.people.sigmas or (1 / keypoints,) * keypoints
    suppression: dict[str, Any] = {
        "iou": iou,
        "nms": nms,
        "sigmas": sigmas,
        "max_candidates": max_candidates,
        "agnostic": agnostic,
    }
    kind = spec.decoder.type
    size = spec.input.resize.size
    if kind == "yolo_heads":
        heads = [_head(output, index) for index, output in enumerate(spec.outputs)]
        layout: dict[str, Any] = {"heads": heads, "reg_max": spec.decoder.reg_max, "input_size": size}
        return _core.YoloHeadsDecoder(**layout, **shape, **suppression, **options)
    options |= _quantization(spec.outputs[0])
    if spec.decoder.normalized and size is not None:
        options["coord_scale"] = (size[1], size[0])
    if kind == "yolo":
        return _core.YoloDecoder(**shape, **suppression, **options)
    if kind == "yolo_end2end":
        return _core.YoloEnd2EndDecoder(**shape, **options)
    options |= {"input_size": size, "num_keypoints": keypoints}
    return _core.MoveNetDecoder(**options)


def nms_options(decoder: DecoderSpec, nms: str | None, iou: float | None) -> dict[str, Any]:
    """NMS as the user asks, else as the model does: its overlap is meant for its own kind."""
    chosen = decoder.nms if nms is None else nms
    own = decoder.iou if chosen == decoder.nms else 0.7
    return {"nms": chosen, "iou": own if iou is None else iou}


def _quantization(output: OutputSpec) -> dict[str, Any]:
    quantization = output.quantization
    return {"scale": quantization.scale, "zero_point": quantization.zero_point} if quantization else {}


def _head(output: OutputSpec, index: int) -> dict[str, Any]:
    head = {"role": output.role, "index": index, "stride": output.stride, "layout": output.layout}
    return {**head, "dtype": output.dtype, **_quantization(output)}
