"""The C++ core: preprocessing, decoding and keypoint NMS."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Transform = tuple[float, float, float, float]
"""(scale_x, scale_y, pad_x, pad_y): tensor = source * scale + pad, in pixels."""

Detections = tuple[
    NDArray[np.float32], NDArray[np.float32], NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]
]
"""boxes (N, 4) xyxy, scores (N,), class_ids (N,), keypoints (N, K, 2), keypoint_scores (N, K); source pixels."""

def simd_level() -> str: ...
def available_simd_levels() -> list[str]: ...
def set_simd_level(name: str) -> None: ...

class Letterbox:
    def __init__(
        self,
        *,
        mode: str = "letterbox",
        center: bool = True,
        pad_value: int = 114,
        antialias: bool = False,
        layout: str = "NCHW",
        color: str = "RGB",
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (255.0, 255.0, 255.0),
        scale: float = 1.0,
        zero_point: int = 0,
    ) -> None: ...
    def __call__(
        self,
        image: NDArray[np.uint8],
        out: NDArray[Any],
        *,
        format: str = "BGR",
        roi: tuple[int, int, int, int] | None = None,
    ) -> Transform: ...

class YoloDecoder:
    def __init__(
        self,
        *,
        num_classes: int,
        kpt_shape: tuple[int, int],
        conf: float,
        iou: float,
        max_det: int,
        max_candidates: int = 30000,
        nms: str = "iou",
        sigmas: Sequence[float] = (),
        agnostic: bool = False,
        clip: bool = True,
    ) -> None: ...
    def __call__(
        self, outputs: Sequence[NDArray[Any]], transform: Transform, source_size: tuple[int, int]
    ) -> Detections: ...

class YoloEnd2EndDecoder:
    def __init__(
        self, *, num_classes: int, kpt_shape: tuple[int, int], conf: float, max_det: int, clip: bool = True
    ) -> None: ...
    def __call__(
        self, outputs: Sequence[NDArray[Any]], transform: Transform, source_size: tuple[int, int]
    ) -> Detections: ...

class MoveNetDecoder:
    def __init__(self, *, conf: float, input_size: tuple[int, int], clip: bool = True) -> None: ...
    def __call__(
        self, outputs: Sequence[NDArray[Any]], transform: Transform, source_size: tuple[int, int]
    ) -> Detections: ...

class YoloHeadsDecoder:
    def __init__(
        self,
        *,
        heads: Sequence[dict[str, Any]],
        num_classes: int,
        kpt_shape: tuple[int, int],
        reg_max: int,
        input_size: tuple[int, int],
        conf: float,
        iou: float,
        max_det: int,
        max_candidates: int = 30000,
        nms: str = "iou",
        sigmas: Sequence[float] = (),
        agnostic: bool = False,
        clip: bool = True,
    ) -> None: ...
    def __call__(
        self, outputs: Sequence[NDArray[Any]], transform: Transform, source_size: tuple[int, int]
    ) -> Detections: ...
