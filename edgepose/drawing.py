"""Drawing what was found on the picture: boxes, labels, and skeletons whose colours tell left from right.

Colours are told apart with the common kinds of colour blindness too (M. Okabe and K. Ito, "Color Universal Design").
Lines and points are drawn by their distance field, so that they are smooth at any width; Pillow sets the text.
"""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgepose import pictures
from edgepose.contract import PeopleSpec
from edgepose.result import Person, PoseResult

if TYPE_CHECKING:
    from PIL import Image, ImageFont

    Picture = TypeVar("Picture", NDArray[np.uint8], Image.Image)

Side: TypeAlias = Literal["left", "right", "centre"]
RGB: TypeAlias = tuple[int, int, int]
_Point: TypeAlias = tuple[float, float]

SIDE_COLORS: dict[Side, RGB] = {"left": (64, 168, 255), "right": (255, 146, 20), "centre": (244, 244, 244)}
CLASS_COLORS: tuple[RGB, ...] = (
    (0, 190, 140),
    (240, 228, 66),
    (204, 121, 167),
    (86, 180, 233),
    (230, 110, 30),
    (170, 170, 170),
)  # each light enough for dark text
_OUTLINE_ALPHA = 0.55
_FARTHEST = 1e6  # of a keypoint that is drawn, in pixels; float32 is exact enough to there
_FONT_SIZES = (10, 64)


def draw(
    image: Picture,
    result: PoseResult,
    *,
    color: Literal["BGR", "RGB", "GRAY"] = "BGR",
    boxes: bool = True,
    labels: bool = True,
    kpt_conf: float = 0.5,
    line_width: float | None = None,
) -> Picture:
    """A copy of the picture with the people of the result on it; numpy for numpy, Pillow for Pillow.

    image: numpy uint8 (H, W, 3) in the order `color`, (H, W, 4) with alpha last, or (H, W) and (H, W, 1) gray, which
    come back with three channels; or a Pillow picture, which comes back as RGB or RGBA.
    boxes, labels: whether to draw them. kpt_conf: keypoints of a lower score, and the lines to them, are left out.
    line_width: in pixels; by default it follows the sizes of the picture and of each person.
    Raises ValueError where the picture is not of the result's size, and for other shapes and dtypes.
    """
    canvas, order = _canvas(image, color)
    height, width = canvas.shape[:2]
    if result.size not in ((0, 0), (width, height)):
        raise ValueError(f"the picture is {width}x{height}, but the result is of one of {result.width}x{result.height}")
    people = list(result)[::-1]  # the best on top
    widths = [_line_width(person, (width, height), line_width) for person in people]
    paint = functools.partial(_ordered, order=order, channels=canvas.shape[2])
    if boxes:
        for person, line in zip(people, widths, strict=True):
            _draw_box(canvas, person, line, paint(class_color(person.class_id)))
    for person, line in zip(people, widths, strict=True):
        _draw_skeleton(canvas, person, result.people, kpt_conf, line, paint)
    if labels:
        for person, line in zip(people, widths, strict=True):
            _draw_label(canvas, person, line, paint(class_color(person.class_id)))
    return _like(image, canvas)


def picture_of(result: PoseResult, image: Any, color: str) -> Any:
    """The picture to draw on: `image`, or the file at that path, or if None the file that the result came from."""
    if image is None:
        if result.source is None or result.time is not None:
            raise ValueError("the result does not know its picture's file; give it: plot(image)")
        image = result.source
    if not isinstance(image, (str, os.PathLike)):
        return image
    array, order = pictures.load_picture(image)
    return array[..., ::-1] if order == "RGB" and color == "BGR" else array


def class_color(class_id: int) -> RGB:
    """The colour of a class's boxes."""
    return CLASS_COLORS[class_id % len(CLASS_COLORS)]


@functools.lru_cache(maxsize=16)
def keypoint_sides(spec: PeopleSpec, num_keypoints: int) -> tuple[Side, ...]:
    """Which side of the body each keypoint is on, by its name; by the flip order where the names do not say.

    The first of two mirrored keypoints without names counts as left, as in COCO, CrowdPose and MPII's successors.
    """
    if any(_side_of_name(name) != "centre" for name in spec.keypoint_names):
        return tuple(_side_of_name(name) for name in spec.keypoint_names)
    flip = spec.flip if len(spec.flip) == num_keypoints else tuple(range(num_keypoints))
    sides: list[Side] = ["left" if mirror > i else "right" if mirror < i else "centre" for i, mirror in enumerate(flip)]
    return tuple(sides)


def _side_of_name(name: str) -> Side:
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    lower = {word.lower() for word in words}
    if lower & {"left", "l"}:
        return "left"
    return "right" if lower & {"right", "r"} else "centre"


def _canvas(image: Any, color: str) -> tuple[NDArray[np.uint8], str]:
    """A copy to draw on, (H, W, 3) or (H, W, 4), and the order of its colours."""
    if pictures.is_pillow(image):
        keep = image.mode if image.mode in ("RGB", "RGBA") else "RGB"
        return np.array(image.convert(keep)), "RGB"
    if not isinstance(image, np.ndarray):
        raise TypeError(f"draw takes a numpy array or a Pillow picture, got {type(image).__name__}")
    if color not in ("BGR", "RGB", "GRAY"):
        raise ValueError(f'color is "BGR", "RGB" or "GRAY", got {color!r}')
    gray = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    if image.dtype != np.uint8 or not (gray or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise ValueError(f"draw takes uint8 (H, W), (H, W, 3) or (H, W, 4), got {image.dtype} {image.shape}")
    if gray:
        image = np.broadcast_to(image.reshape(*image.shape[:2], 1), (*image.shape[:2], 3))
    return np.array(image, order="C"), "BGR" if color == "GRAY" else color


def _like(image: Picture, canvas: NDArray[np.uint8]) -> Picture:
    if isinstance(image, np.ndarray):
        return canvas
    from PIL import Image

    return Image.fromarray(canvas)


def _ordered(rgb: RGB, order: str, channels: int) -> NDArray[np.float32]:
    """The colour in the canvas's order; opaque where there is an alpha channel."""
    ordered = (rgb if order == "RGB" else rgb[::-1]) + (255,) * (channels - 3)
    return np.array(ordered, np.float32)


def _line_width(person: Person, size: tuple[int, int], wanted: float | None) -> float:
    """Width of the person's lines: less for small people, and for small pictures."""
    if wanted is not None:
        return max(float(wanted), 0.5)
    x1, y1, x2, y2 = person.box.tolist()
    area = max(x2 - x1, 0) * max(y2 - y1, 0)
    most = max(1.5, 0.0042 * sum(size) / 2)
    return max(1.0, min(0.013 * area**0.5, most)) if np.isfinite(area) else most


def _draw_box(canvas: NDArray[np.uint8], person: Person, line: float, color: NDArray[np.float32]) -> None:
    """The outline of the box, its middle on the box's edge."""
    if not np.isfinite(person.box).all():
        return
    height, width = canvas.shape[:2]
    thick = max(1, round(0.7 * line))
    limits = (width - thick, height - thick) * 2
    x1, y1, x2, y2 = (
        int(np.clip(round(v - thick / 2), 0, max(most, 0))) for v, most in zip(person.box.tolist(), limits, strict=True)
    )
    level = (color + 0.5).astype(np.uint8)
    canvas[y1 : y1 + thick, x1 : x2 + thick] = level
    canvas[y2 : y2 + thick, x1 : x2 + thick] = level
    canvas[y1 : y2 + thick, x1 : x1 + thick] = level
    canvas[y1 : y2 + thick, x2 : x2 + thick] = level


def _draw_skeleton(
    canvas: NDArray[np.uint8], person: Person, spec: PeopleSpec, kpt_conf: float, line: float, paint: Any
) -> None:
    """The limbs whose ends are both seen, then the points that are seen."""
    sides = keypoint_sides(spec, len(person.keypoints))
    points = [(float(x), float(y)) for x, y in person.keypoints]
    near = np.abs(person.keypoints) < _FARTHEST
    seen = (person.keypoint_scores >= kpt_conf) & near.all(axis=1)
    for a, b in spec.skeleton:
        if max(a, b) < len(points) and seen[a] and seen[b]:
            _stroke(canvas, points[a], points[b], line, paint(SIDE_COLORS[_limb_side(sides[a], sides[b])]))
    for i, point in enumerate(points):
        if seen[i]:
            _stroke(canvas, point, point, 2.2 * line, paint(SIDE_COLORS[sides[i]]))


def _limb_side(a: Side, b: Side) -> Side:
    """A limb from the middle to a side belongs to that side; one across, such as the shoulders, to none."""
    if a == b:
        return a
    return "centre" if "centre" not in (a, b) else (b if a == "centre" else a)


def _stroke(canvas: NDArray[np.uint8], a: _Point, b: _Point, width: float, color: NDArray[np.float32]) -> None:
    """A smooth line with round ends and a dark outline; a disc where both ends are one point."""
    outline = max(0.6, 0.22 * width)
    reach = width / 2 + outline + 1
    x0, x1 = _span(a[0], b[0], reach, canvas.shape[1])
    y0, y1 = _span(a[1], b[1], reach, canvas.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    distance = _distance(x0, x1, y0, y1, a, b)
    rows, columns = np.nonzero(distance < reach)
    far = distance[rows, columns][:, None]
    at = (rows + y0, columns + x0)
    under = canvas[at].astype(np.float32)
    black = np.zeros_like(color)
    black[3:] = 255
    under += (black - under) * (_OUTLINE_ALPHA * np.clip(width / 2 + outline + 0.5 - far, 0, 1))
    under += (color - under) * np.clip(width / 2 + 0.5 - far, 0, 1)
    canvas[at] = (under + 0.5).astype(np.uint8)


def _span(a: float, b: float, reach: float, size: int) -> tuple[int, int]:
    """First pixel, and one after the last, between a and b with `reach` around them, inside the picture."""
    return int(np.clip(min(a, b) - reach, 0, size)), int(np.clip(max(a, b) + reach + 1, 0, size))


def _distance(x0: int, x1: int, y0: int, y1: int, a: _Point, b: _Point) -> NDArray[np.float32]:
    """(y1 - y0, x1 - x0): how far the middle of each pixel is from the line between a and b."""
    x = np.arange(x0, x1, dtype=np.float32)[None, :] + np.float32(0.5 - a[0])
    y = np.arange(y0, y1, dtype=np.float32)[:, None] + np.float32(0.5 - a[1])
    dx, dy = b[0] - a[0], b[1] - a[1]
    length2 = dx * dx + dy * dy
    if length2 > 1e-12:  # in pixels²: a shorter line is a point, and may be 0 in float32
        along = np.clip((x * np.float32(dx) + y * np.float32(dy)) / np.float32(length2), 0, 1)
        x, y = x - along * np.float32(dx), y - along * np.float32(dy)
    distance: NDArray[np.float32] = np.sqrt(x * x + y * y)
    return distance


def _draw_label(canvas: NDArray[np.uint8], person: Person, line: float, color: NDArray[np.float32]) -> None:
    """Class and score on a filled ground, on top of the box; inside it where there is no room above."""
    height, width = canvas.shape[:2]
    x1, y1, x2, y2 = person.box.tolist()
    if not np.isfinite(person.box).all() or x2 < 0 or y2 < 0 or x1 > width or y1 > height:
        return
    size = float(np.clip(0.11 * (x2 - x1), 0.012 * (width + height) / 2, 0.02 * (width + height) / 2))
    font_size = round(float(np.clip(size, *_FONT_SIZES)))
    mask = _text_mask(f"{person.class_name} {person.score:.2f}", font_size)
    if mask.shape[1] > x2 - x1:  # a small person in a crowd: the colour tells the class
        mask = _text_mask(f"{person.score:.2f}", font_size)
    mask = mask[:height, :width]
    h, w = mask.shape
    edge = max(1, round(0.7 * line)) / 2
    top = y1 - edge - h if y1 - edge - h >= 0 else y1 - edge
    y, x = int(np.clip(round(top), 0, height - h)), int(np.clip(round(x1 - edge), 0, width - w))
    ink = np.full_like(color, 16)
    ink[3:] = 255
    alpha = mask[..., None].astype(np.float32) / 255
    canvas[y : y + h, x : x + w] = (color + (ink - color) * alpha + 0.5).astype(np.uint8)


@functools.lru_cache(maxsize=256)
def _text_mask(text: str, size: int) -> NDArray[np.uint8]:
    """The text in white on black, with a margin."""
    from PIL import Image, ImageDraw

    font = _font(size)
    text = _writable(text)
    left, _, right, _ = font.getbbox(text)
    margin = max(2, round(0.28 * size))
    mask = Image.new("L", (int(right - left) + 2 * margin, round(1.15 * size) + margin))
    ImageDraw.Draw(mask).text((margin - left, mask.height / 2), text, fill=255, font=font, anchor="lm")
    return np.asarray(mask)


def _writable(text: str) -> str:
    """The text in the letters that Pillow's own font has: ü as u, and ? where there is none like it."""
    if text.isascii():
        return text
    import unicodedata

    plain = (unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode() for letter in text)
    return "".join(letters or "?" for letters in plain)


@functools.lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)
