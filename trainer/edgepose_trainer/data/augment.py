"""Augmentation of pictures with boxes and keypoints.

All geometry of a sample (mosaic, flip, scale, rotation …) is one affine matrix a source picture, so each source is
resampled once, straight into the canvas. Places are continuous: pixel i covers i to i + 1. Randomness comes from the
generator that is passed in, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Float = NDArray[np.float32]
Matrix = NDArray[np.float64]

PAD_VALUE = 114
MIN_BOX_SIDE = 2.0  # pixels; a person cut down to less is dropped
MIN_BOX_AREA = 0.1  # of its area before cutting
MAX_COVERED = 0.8  # of a box, before the person behind counts as hidden


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """Each is 0 for off. Probabilities are for each sample.

    mosaic, fliplr, flipud: probabilities. hsv_h, hsv_s, hsv_v: largest gain, as a fraction. degrees, shear: largest
    angle in degrees. translate: largest move, of the size. scale: sizes from 1 - scale to 1 + scale. aspect: width
    against height changes by up to 1 + aspect, either way. blur, jpeg, noise, occlusion: probabilities of a blurred,
    re-compressed, dark and noisy, partly covered picture.
    """

    mosaic: float = 1.0
    degrees: float = 0.0
    translate: float = 0.1
    scale: float = 0.5
    shear: float = 0.0
    aspect: float = 0.1
    fliplr: float = 0.5
    flipud: float = 0.0
    hsv_h: float = 0.015
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    blur: float = 0.05
    jpeg: float = 0.05
    noise: float = 0.05
    occlusion: float = 0.1

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            low, high = _LIMITS.get(item.name, (0.0, 1.0))
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise ValueError(f"{item.name} must be a number from {low:g} to {high:g}, got {value!r}")

    def without_mosaic(self) -> AugmentConfig:
        return replace(self, mosaic=0.0)


_LIMITS = {"degrees": (0.0, 180.0), "shear": (0.0, 60.0), "scale": (0.0, 0.95)}


@dataclass(slots=True)
class People:
    """The labelled people of a sample while it is made, in pixels of the canvas.

    cls (n,) int32; boxes (n, 4) float32 x0, y0, x1, y1; keypoints (n, K, 3) float32 x, y, v; known (n, K) bool: False
    where v = 0 says nothing.
    """

    cls: NDArray[np.int32]
    boxes: Float
    keypoints: Float
    known: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.cls)

    def __getitem__(self, keep: NDArray[Any]) -> People:
        return People(self.cls[keep], self.boxes[keep], self.keypoints[keep], self.known[keep])


# --- geometry


def random_affine(rng: np.random.Generator, config: AugmentConfig, size: int) -> Matrix:
    """(2, 3): turns, scales, shears and flips about the origin, then moves the origin to about the canvas' middle."""
    u = rng.uniform(-1.0, 1.0, 7)
    flip_x, flip_y = rng.random(2) < (config.fliplr, config.flipud)
    grow = 1.0 + config.scale * u[0]
    stretch = (1.0 + config.aspect) ** (0.5 * u[1])
    angle = math.radians(config.degrees * u[2])
    shear_x, shear_y = np.tan(np.radians(config.shear * u[3:5]))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = np.array([[1.0, shear_x], [shear_y, 1.0]]) @ turn @ np.diag([grow * stretch, grow / stretch])
    linear = np.diag([-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0]) @ linear
    move = size * (0.5 + config.translate * u[5:7])
    return np.concatenate([linear, move[:, None]], 1)


def is_mirrored(matrix: Matrix) -> bool:
    """Whether left and right change places: then keypoints are swapped by flip_idx."""
    return bool(np.linalg.det(matrix[:, :2]) < 0)


def single_layout(picture_size: tuple[int, int], size: int) -> Matrix:
    """(2, 3): the (height, width) picture's pixels to a plane where it is centred and its long side is `size`."""
    height, width = picture_size
    ratio = size / max(height, width)
    return np.array([[ratio, 0.0, -0.5 * ratio * width], [0.0, ratio, -0.5 * ratio * height]])


def mosaic_layout(rng: np.random.Generator, picture_sizes: Sequence[tuple[int, int]], size: int) -> list[Matrix]:
    """Four pictures, long side `size`, that meet in one point up to size / 2 from the origin, one in each quadrant."""
    meet = rng.uniform(-0.5, 0.5, 2) * size
    layouts = []
    for (height, width), (right, below) in zip(picture_sizes, ((0, 0), (1, 0), (0, 1), (1, 1)), strict=True):
        ratio = size / max(height, width)
        corner = meet - ratio * np.array([width * (1 - right), height * (1 - below)])
        layouts.append(np.array([[ratio, 0.0, corner[0]], [0.0, ratio, corner[1]]]))
    return layouts


def compose(after: Matrix, before: Matrix) -> Matrix:
    """(2, 3) of `before`, then `after`."""
    linear = after[:, :2] @ before
    linear[:, 2] += after[:, 2]
    return linear


def warp_into(canvas: UInt8, picture: UInt8, matrix: Matrix) -> None:
    """Draws the picture where `matrix` puts it, bilinear; what it does not reach stays as it is.

    A picture that shrinks to half or less is averaged by whole pixels first, so that nothing is skipped.
    """
    shrink = int(1.0 / max(float(np.hypot(*matrix[:, :2]).min()), 1e-3))
    if shrink >= 2:
        height, width = picture.shape[:2]
        small = (max(width // shrink, 1), max(height // shrink, 1))
        picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        matrix = matrix * [width / small[0], height / small[1], 1.0]
    x0, y0, x1, y1 = reach(matrix, picture.shape[:2], canvas.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    # cv2 counts from the middle of the first pixel
    shift = matrix[:, 2] + matrix[:, :2].sum(1) * 0.5 - 0.5 - (x0, y0)
    cv2.warpAffine(
        picture,
        np.column_stack([matrix[:, :2], shift]),
        (x1 - x0, y1 - y0),
        dst=canvas[y0:y1, x0:x1],
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_TRANSPARENT,
    )


def reach(matrix: Matrix, picture_size: Sequence[int], size: int) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the canvas' pixels that a (height, width) picture may touch; x1 <= x0 or y1 <= y0 for none."""
    height, width = picture_size
    (a, b, left), (c, d, top) = matrix.tolist()
    x0, x1 = left + min(a * width, 0) + min(b * height, 0), left + max(a * width, 0) + max(b * height, 0)
    y0, y1 = top + min(c * width, 0) + min(d * height, 0), top + max(c * width, 0) + max(d * height, 0)
    return max(math.floor(x0), 0), max(math.floor(y0), 0), min(math.ceil(x1), size), min(math.ceil(y1), size)


def transform_people(people: People, matrices: Matrix) -> People:
    """Each person by its own matrix, (n, 2, 3). A box becomes the bounds of its four turned corners."""
    linear, move = matrices[:, :, :2].astype(np.float32), matrices[:, :, 2].astype(np.float32)
    corners = people.boxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 4, 2)
    corners = corners @ linear.transpose(0, 2, 1) + move[:, None]
    points = people.keypoints.copy()
    points[..., :2] = points[..., :2] @ linear.transpose(0, 2, 1) + move[:, None]
    return People(people.cls, np.concatenate([corners.min(1), corners.max(1)], 1), points, people.known)


def swap_sides(people: People, mirrored: NDArray[np.bool_], flip_idx: NDArray[np.int64]) -> People:
    """Left points become right ones, for the people that are mirrored, (n,)."""
    pick = mirrored[:, None]
    points = np.where(pick[..., None], people.keypoints[:, flip_idx], people.keypoints)
    return People(people.cls, people.boxes, points, np.where(pick, people.known[:, flip_idx], people.known))


def clip_people(people: People, size: int) -> People:
    """Cuts boxes at the canvas' edge, drops people of whom little is left; points outside become v = 0 at (0, 0)."""
    whole = people.boxes[:, 2:] - people.boxes[:, :2]
    boxes = people.boxes.clip(0, size)
    sides = boxes[:, 2:] - boxes[:, :2]
    keep = (sides > MIN_BOX_SIDE).all(1) & (sides.prod(1) > MIN_BOX_AREA * whole.prod(1))
    points = people.keypoints
    inside = ((points[..., :2] >= 0) & (points[..., :2] <= size)).all(-1) & (points[..., 2] > 0)
    points = np.where(inside[..., None], points, np.float32(0))
    return People(people.cls, boxes, points, people.known)[keep]


# --- colour and camera


def jitter_hsv(rng: np.random.Generator, config: AugmentConfig, picture: UInt8) -> UInt8:
    """Hue turned, saturation and value scaled, each by a random gain."""
    if not (config.hsv_h or config.hsv_s or config.hsv_v):
        return picture
    hue, saturation, value = rng.uniform(-1, 1, 3) * (config.hsv_h, config.hsv_s, config.hsv_v)
    levels = np.arange(256, dtype=np.float64)
    table = np.stack(
        [(levels + 180 * hue) % 180, (levels * (1 + saturation)).clip(0, 255), (levels * (1 + value)).clip(0, 255)], -1
    )
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
    cv2.LUT(hsv, table.astype(np.uint8)[None], dst=hsv)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=picture)  # type: ignore[return-value]


def camera_blur(rng: np.random.Generator, picture: UInt8) -> UInt8:
    """Out of focus, or moved while the shutter was open."""
    if rng.random() < 0.5:
        return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 2.0))  # type: ignore[return-value]
    length = int(rng.integers(3, 10))
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, math.pi)
    reach = 0.5 * (length - 1) * np.array([math.cos(angle), math.sin(angle)])
    middle = 0.5 * (length - 1)
    begin, end = np.rint(middle - reach).astype(int), np.rint(middle + reach).astype(int)
    cv2.line(kernel, begin.tolist(), end.tolist(), (1.0,))
    return cv2.filter2D(picture, -1, kernel / kernel.sum())  # type: ignore[return-value]


def camera_jpeg(rng: np.random.Generator, picture: UInt8) -> UInt8:
    """Compressed hard, as streams of small cameras are."""
    quality = int(rng.integers(20, 76))
    content = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(content, cv2.IMREAD_COLOR)  # type: ignore[return-value]


def camera_low_light(rng: np.random.Generator, picture: UInt8) -> UInt8:
    """Darker, then the noise of a raised gain: shot noise that grows with the light, and read noise."""
    light = rng.uniform(0.3, 0.9)
    shot, read = rng.uniform(0.2, 1.2), rng.uniform(1.0, 8.0)
    dark = picture.astype(np.float32) * light
    noise = np.empty_like(dark)
    cv2.setRNGSeed(int(rng.integers(1 << 31)))
    cv2.randn(noise, np.zeros(1), np.ones(1))
    dark += noise * np.sqrt(shot * dark + read * read)
    return dark.clip(0, 255).astype(np.uint8)


def occlude(rng: np.random.Generator, canvas: UInt8, people: People) -> People:
    """Covers a part of one to three people with a patch of the picture or a plain colour, in place.

    Covered points that were visible become v = 1, hidden with a known place, as COCO labels them. People of whom more
    than MAX_COVERED lies behind one patch are dropped.
    """
    for _ in range(int(rng.integers(1, 4))):
        if not len(people):
            break
        patch = _patch(rng, people.boxes[rng.integers(len(people))], canvas.shape[0])
        _fill(rng, canvas, patch)
        people = cover(people, patch)
    return people


def _patch(rng: np.random.Generator, box: Float, size: int) -> tuple[int, int, int, int]:
    """A rectangle with 20 to 50 % of the box's sides, its middle within the box, cut at the canvas."""
    sides = (box[2:] - box[:2]) * rng.uniform(0.2, 0.5, 2)
    middle = rng.uniform(box[:2], box[2:])
    x0, y0 = np.floor((middle - sides / 2).clip(0, size - 1)).astype(int).tolist()
    x1, y1 = np.ceil((middle + sides / 2).clip(1, size)).astype(int).tolist()
    return x0, y0, x1, y1


def _fill(rng: np.random.Generator, canvas: UInt8, patch: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = patch
    height, width, size = y1 - y0, x1 - x0, canvas.shape[0]
    if rng.random() < 0.5:
        canvas[y0:y1, x0:x1] = rng.integers(0, 256, 3)
        return
    x, y = int(rng.integers(size - width + 1)), int(rng.integers(size - height + 1))
    canvas[y0:y1, x0:x1] = canvas[y : y + height, x : x + width].copy()


def cover(people: People, patch: tuple[int, int, int, int]) -> People:
    """The labels behind a patch (x0, y0, x1, y1): see `occlude`."""
    low, high = np.array(patch[:2], np.float32), np.array(patch[2:], np.float32)
    points = people.keypoints.copy()
    behind = ((points[..., :2] >= low) & (points[..., :2] <= high)).all(-1) & (points[..., 2] == 2)
    points[..., 2][behind] = 1
    shared = (np.minimum(people.boxes[:, 2:], high) - np.maximum(people.boxes[:, :2], low)).clip(0).prod(1)
    area = (people.boxes[:, 2:] - people.boxes[:, :2]).prod(1)
    return People(people.cls, people.boxes, points, people.known)[shared <= MAX_COVERED * area]


def degrade(rng: np.random.Generator, config: AugmentConfig, canvas: UInt8) -> UInt8:
    """What cameras do, each with its probability: low light, blur, compression, in the order a camera does them."""
    dark, blurred, compressed = rng.random(3) < (config.noise, config.blur, config.jpeg)
    if blurred:
        canvas = camera_blur(rng, canvas)
    if dark:
        canvas = camera_low_light(rng, canvas)
    if compressed:
        canvas = camera_jpeg(rng, canvas)
    return canvas
