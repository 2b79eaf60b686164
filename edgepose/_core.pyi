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
    """From a picture to a model's input in one pass: resize, pad, colour, layout, normalisation or quantization.

    Sampling is bilinear with pixel centres at + 0.5, to the very levels of OpenCV's INTER_LINEAR on x86 processors: its
    fixed-point arithmetic, with weights of 11 bits, along x and then along y. OpenCV's builds for other processors may
    round otherwise, by a level. With `antialias` pictures are reduced by a triangle filter as wide as the reduction
    (Pillow's BILINEAR, at most a level apart).

    A level becomes real = (level - mean) / std for each of the model's channels, and in integer inputs
    clamp(round(real / scale) + zero_point); the padding's level goes the same way.

    mode: "letterbox" keeps the aspect and pads, centred or at the top left; "stretch" does not.
    layout: "NCHW" or "NHWC". color: the model's, "RGB", "BGR" or "GRAY". mean, std: in levels, one value or one a
    channel.

    Tables and buffers are kept from call to call: one object a thread. Raises ValueError for options that do not fit.
    """

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
    ) -> Transform:
        """Writes every element of `out` from the picture, or its region `roi` (x0, y0, x1, y1); says where it lies.

        image: (H, W, 3) for "BGR" and "RGB", (H, W, 4) for "BGRA" and "RGBA", (H, W) or (H, W, 1) for "GRAY",
        (H, W, 2) for "YUYV", (H * 3 / 2, W) for "NV12" and "I420" (BT.601, limited range); any strides.
        out: C-contiguous (1, C, H, W) or (1, H, W, C) of float32, float16, uint8 or int8; its shape is the size.

        The transform maps pixels of the whole picture, also where a region is given. The GIL is free meanwhile.
        Raises TypeError for another dtype, ValueError for an empty picture, a shape, strides or a region that do not
        fit, RuntimeError while another thread uses the object.
        """

def nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    *,
    iou: float,
    class_ids: NDArray[np.int32] | None = None,
    max_det: int | None = None,
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression: indices of the boxes (N, 4) xyxy that are kept, best first.

    A box goes if one kept before it, of the same class, has IoU > iou with it. Order: score descending, then index
    ascending. Boxes or scores that are not finite are left out.
    """

def oks_nms(
    keypoints: NDArray[np.float32],
    areas: NDArray[np.float32],
    scores: NDArray[np.float32],
    *,
    sigmas: Sequence[float],
    threshold: float,
    class_ids: NDArray[np.int32] | None = None,
    max_det: int | None = None,
) -> NDArray[np.int64]:
    """The same by object keypoint similarity > threshold: keypoints (N, K, 2), areas (N,) of the boxes in pixels^2."""

def oks(
    keypoints_a: NDArray[np.float32],
    areas_a: NDArray[np.float32],
    keypoints_b: NDArray[np.float32],
    areas_b: NDArray[np.float32],
    *,
    sigmas: Sequence[float],
) -> NDArray[np.float32]:
    """Object keypoint similarity (N, M) of poses (N, K, 2) and (M, K, 2), as COCO's keypoint evaluation has it.

    The mean over all K points of exp(-d^2 / (2 (2 sigma)^2 s^2)), s^2 the mean of the two areas.
    """

class YoloDecoder:
    """Reads the single decoded tensor (1, 4 + C + D*K, N) of Ultralytics YOLOv8-pose and YOLO11-pose.

    Attributes: cx, cy, w, h, C class scores, K keypoints (x, y[, score]). An anchor has its best class. Scores are
    thresholded (score > conf), the best max_candidates enter NMS in the order score descending, index ascending.

    All decoders: outputs are float32, float16, int8 or uint8 arrays; integers are real = (stored - zero_point) * scale.
    Coordinates times coord_scale (x, y) are input pixels: (width, height) for a model that tells them as fractions.
    keypoint_scores are 1 where D is 2. With clip, boxes and keypoints are cut to 0..width and 0..height.
    A NaN score never passes and an infinite one is left out; a candidate whose box is not finite (or beyond 1e9
    pixels) is dropped before NMS, a keypoint like that becomes (0, 0) with score 0. Scores come out within 0..1.
    Raises ValueError at construction for a bad option and at the call for outputs that do not fit.
    One object may be called from several threads; only one at a time has the kept buffers.
    """

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
        scale: float = 1.0,
        zero_point: int = 0,
        coord_scale: tuple[float, float] = (1.0, 1.0),
    ) -> None: ...
    def __call__(
        self, outputs: Sequence[NDArray[Any]], transform: Transform, source_size: tuple[int, int]
    ) -> Detections: ...

class YoloEnd2EndDecoder:
    """Reads the end-to-end tensor (1, M, 6 + D*K): x1, y1, x2, y2, score, class, keypoints, with NMS done.

    Rows with score > conf, best first, at most max_det; rows of a class outside 0..num_classes-1 are left out.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        kpt_shape: tuple[int, int],
        conf: float,
        max_det: int,
        clip: bool = True,
        scale: float = 1.0,
        zero_point: int = 0,
        coord_scale: tuple[float, float] = (1.0, 1.0),
    ) -> None: ...
    def __call__(
        self, outputs: Sequence[NDArray[Any]], transform: Transform, source_size: tuple[int, int]
    ) -> Detections: ...

class MoveNetDecoder:
    """Reads MoveNet single pose, (1, 1, K, 3): y, x, score, places as fractions of input_size (height, width).

    One person, or none where the mean of the keypoint scores is not above conf; the box is the keypoints' bounds.
    """

    def __init__(
        self,
        *,
        conf: float,
        input_size: tuple[int, int],
        num_keypoints: int = 17,
        max_det: int = 1,
        clip: bool = True,
        scale: float = 1.0,
        zero_point: int = 0,
    ) -> None: ...
    def __call__(
        self, outputs: Sequence[NDArray[Any]], transform: Transform, source_size: tuple[int, int]
    ) -> Detections: ...

class YoloHeadsDecoder:
    """Reads raw YOLOv8-pose heads, a tensor for each role and stride.

    heads: dicts with "role" ("box": 4 * reg_max distribution logits, left, top, right, bottom; "score": C logits;
    "keypoints": K*D raw values, or K*2 beside a "visibility" of K logits), "index" (position in outputs), "stride",
    "layout" ("NCHW", "NHWC", "NCA" (1, C, H*W), "NAC" (1, H*W, C)), and, if not float32, "dtype", "scale",
    "zero_point". input_size (height, width) may be None where a head of layout NCHW or NHWC tells it.
    Scores are thresholded as logits, in the tensor's own integers; only cells that pass are decoded.
    """

    def __init__(
        self,
        *,
        heads: Sequence[dict[str, Any]],
        num_classes: int,
        kpt_shape: tuple[int, int],
        reg_max: int = 16,
        input_size: tuple[int, int] | None = None,
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
