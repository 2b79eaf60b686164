"""How a spec's model is fed: the input's size, the order of a picture's pixels, the letterbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgepose import _core
from edgepose.contract import MAX_SIDE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgepose.contract import InputSpec

DEFAULT_IMGSZ = 640
PIXEL_FORMATS = ("BGR", "RGB", "BGRA", "RGBA", "GRAY", "NV12", "I420", "YUYV")


def input_size(
    spec: InputSpec, imgsz: int | Sequence[int] | None, rect: bool, default: tuple[int, int] | None = None
) -> tuple[int, int] | int:
    """(height, width) of every input, or the longer side of inputs that follow the picture's aspect. default: of a
    model that takes any, where imgsz is None."""
    fixed, stride = spec.resize.size, spec.resize.stride
    asked = None if imgsz is None else _asked_size(imgsz)
    if fixed is not None:
        if asked not in (None, fixed) or rect:
            option = "rect=True" if rect else f"imgsz={imgsz}"
            raise ValueError(
                f"{option}: the model's input is fixed at {fixed[0]}x{fixed[1]} (height x width); "
                "leave the option out, or export the model with dynamic=true"
            )
        return fixed
    default = default or (DEFAULT_IMGSZ, DEFAULT_IMGSZ)
    height, width = (round_up(side, stride) for side in asked or ((max(default),) * 2 if rect else default))
    if rect and height != width:
        raise ValueError(f"imgsz={imgsz!r} with rect=True: expected one side, the picture gives the other")
    return height if rect else (height, width)


def exported_size(origin: Mapping[str, Any]) -> tuple[int, int] | None:
    """The (height, width) that a model of any size was exported, and compared, at."""
    kept = origin.get("export_imgsz")
    if not isinstance(kept, (list, tuple)) or len(kept) != 2:
        return None
    if not all(type(side) is int and 1 <= side <= MAX_SIDE for side in kept):
        return None
    return kept[0], kept[1]


def _asked_size(imgsz: int | Sequence[int]) -> tuple[int, int]:
    sides = (imgsz, imgsz) if isinstance(imgsz, int) else tuple(imgsz) if isinstance(imgsz, (tuple, list)) else ()
    expected = f"imgsz={imgsz!r}: expected one side or (height, width) in whole pixels, 1 to {MAX_SIDE}"
    if not sides or any(isinstance(side, bool) or not isinstance(side, int) for side in sides):
        raise TypeError(expected)
    if len(sides) != 2 or not 1 <= min(sides) <= max(sides) <= MAX_SIDE:
        raise ValueError(expected)
    return sides


def rect_size(sizes: Sequence[tuple[int, int]], side: int, stride: int) -> tuple[int, int]:
    """The least (height, width) in whole strides that holds each picture of (width, height) scaled into a square."""
    scales = [side / max(1, *size) for size in sizes]
    height = max(height * scale for (_, height), scale in zip(sizes, scales, strict=True))
    width = max(width * scale for (width, _), scale in zip(sizes, scales, strict=True))
    return round_up(height, stride), round_up(width, stride)


def round_up(length: float, stride: int) -> int:
    """The least positive multiple of stride that is at least the length, rounded to whole pixels first."""
    return max(1, -(-round(length) // stride)) * stride


def picture_size(image: NDArray[np.uint8], color: str) -> tuple[int, int]:
    """(width, height) in pixels of a numpy picture in this order; planar YUV has its colour below its brightness."""
    if image.ndim < 2:
        raise ValueError(f"a picture has 2 or 3 dimensions, got an array of shape {image.shape}")
    height, width = image.shape[:2]
    return (width, height * 2 // 3) if color in ("NV12", "I420") else (width, height)


def check_color(color: str) -> str:
    """The name of a pixel format in capitals. Raises ValueError for one that edgepose does not read."""
    if not isinstance(color, str):
        raise TypeError(f"got color={color!r}, expected one of {', '.join(PIXEL_FORMATS)}")
    if color.upper() not in PIXEL_FORMATS:
        raise ValueError(f"unknown colour order color={color!r}, expected one of {', '.join(PIXEL_FORMATS)}")
    return color.upper()


def make_letterbox(spec: InputSpec, antialias: bool) -> _core.Letterbox:
    """The core's letterbox, set to feed the input as its model was trained and calibrated."""
    quantization = spec.quantization
    return _core.Letterbox(
        mode=spec.resize.mode,
        center=spec.resize.center,
        pad_value=spec.resize.pad_value,
        antialias=antialias,
        layout=spec.layout,
        color=spec.color,
        mean=spec.mean,
        std=spec.std,
        scale=quantization.scale if quantization else 1.0,
        zero_point=quantization.zero_point if quantization else 0,
    )
