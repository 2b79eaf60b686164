"""The letterbox against OpenCV, Pillow and plain numpy."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edgepose import _core

Picture = NDArray[np.uint8]
PAD = 114
# OpenCV's builds for other processors sample 8-bit pictures by other code, with other roundings (three levels apart on
# noise were seen on aarch64). There plain numpy with the x86 build's arithmetic is the witness.
HAS_OPENCV_OF_X86 = platform.machine() in ("x86_64", "AMD64")


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> Picture:
    """Noise, smoothed in part, so that both steep and gentle changes occur."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    noise[: height // 2] = cv2.blur(noise, (5, 5)).reshape(noise.shape)[: height // 2]
    return noise


def placement(size: tuple[int, int], out: tuple[int, int], center: bool = True) -> tuple[int, int, int, int]:
    """left, top, width, height as Ultralytics' LetterBox has them; at least one pixel."""
    (height, width), (out_height, out_width) = size, out
    ratio = min(out_height / height, out_width / width)
    new_width, new_height = max(1, round(width * ratio)), max(1, round(height * ratio))
    if not center:
        return 0, 0, new_width, new_height
    left, top = round((out_width - new_width) / 2 - 0.1), round((out_height - new_height) / 2 - 0.1)
    return left, top, new_width, new_height


def opencv_letterbox(image: Picture, out: tuple[int, int], center: bool = True) -> Picture:
    """image (H, W) or (H, W, C), resized and padded in its own colour order."""
    left, top, width, height = placement(image.shape[:2], out, center)
    canvas = np.full((*out, *image.shape[2:]), PAD, np.uint8)
    resized = opencv_resize(image, (height, width))
    canvas[top : top + height, left : left + width] = resized
    return canvas


def opencv_resize(image: Picture, out: tuple[int, int]) -> Picture:
    """image (H, W[, C]) resized to (height, width) as cv2.resize(…, INTER_LINEAR) does it on x86."""
    if not HAS_OPENCV_OF_X86:
        return fixed_point_bilinear(image.reshape(*image.shape[:2], -1), out).reshape(*out, *image.shape[2:])
    return cv2.resize(image, out[::-1], interpolation=cv2.INTER_LINEAR).reshape(*out, *image.shape[2:])


def sampling(source: int, out: int, *, edge_is_whole: bool) -> tuple[NDArray[np.int64], ...]:
    """Of each output position the two source positions and their weights in 1/2048."""
    position = ((np.arange(out) + 0.5) * (1 / (out / source)) - 0.5).astype(np.float32)
    first = np.floor(position).astype(np.int64)
    fraction = position - first.astype(np.float32)
    if edge_is_whole:
        fraction[(first < 0) | (first >= source - 1)] = 0
    weights = [np.rint(f * np.float32(2048)).astype(np.int64) for f in (np.float32(1) - fraction, fraction)]
    return np.clip(first, 0, source - 1), np.clip(first + 1, 0, source - 1), *weights


def fixed_point_bilinear(image: Picture, out: tuple[int, int]) -> Picture:
    """image (H, W, C) resized to (height, width) with the arithmetic of OpenCV's INTER_LINEAR, in plain numpy."""
    left, right, left_weight, right_weight = sampling(image.shape[1], out[1], edge_is_whole=True)
    above, below, above_weight, below_weight = sampling(image.shape[0], out[0], edge_is_whole=False)
    wide = image.astype(np.int64)
    rows = (wide[:, left] * left_weight[:, None] + wide[:, right] * right_weight[:, None]) >> 4
    upper, lower = rows[above] * above_weight[:, None, None] >> 16, rows[below] * below_weight[:, None, None] >> 16
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def levels(image: Picture, out: tuple[int, int] = (64, 64), **options: Any) -> Picture:
    """The letterbox's uint8 levels, (out_height, out_width, 3 or 1), BGR unless said."""
    call = {key: options.pop(key) for key in ("format", "roi") if key in options}
    options = {"layout": "NHWC", "color": "BGR", "std": (1.0,)} | options
    target: Picture = np.full((1, *out, 1 if options["color"] == "GRAY" else 3), 7, np.uint8)
    _core.Letterbox(**options)(image, target, **call)
    levels_of_picture: Picture = target[0]
    return levels_of_picture


def difference(a: NDArray[Any], b: NDArray[Any]) -> int:
    return int(np.abs(a.astype(np.int32) - b.astype(np.int32)).max())


SIZES = [(108, 81), (81, 108), (48, 64), (192, 108), (640, 480), (64, 64), (7, 300), (300, 7), (1, 1), (1, 90), (90, 1)]


@pytest.mark.parametrize("size", SIZES)
def test_bgr_levels_are_those_of_opencv(level: str, size: tuple[int, int]) -> None:
    image = picture(*size)
    assert difference(levels(image), opencv_letterbox(image, (64, 64))) == 0


# Among them one axis kept, halved and thirded pictures, tiny ones, and columns near and far apart, which are sampled by
# different loops.
RESIZES = [
    ((108, 81), (64, 48)),
    ((48, 64), (61, 83)),
    ((128, 96), (64, 48)),
    ((96, 144), (32, 48)),
    ((50, 40), (50, 23)),
    ((50, 40), (19, 40)),
    ((30, 300), (70, 99)),
    ((20, 999), (7, 101)),
    ((9, 400), (9, 401)),
    ((2, 3), (40, 50)),
    ((1, 1), (5, 7)),
    ((5, 7), (1, 1)),
    ((3, 5000), (2, 4999)),
]


@pytest.mark.parametrize(("size", "out"), RESIZES)
@pytest.mark.parametrize("format", ["BGR", "BGRA", "GRAY"])
def test_levels_are_those_of_the_fixed_point_arithmetic(
    level: str, size: tuple[int, int], out: tuple[int, int], format: str
) -> None:
    image = picture(*size, {"BGR": 3, "BGRA": 4, "GRAY": 1}[format])
    got = levels(image, out, mode="stretch", format=format)
    wanted = np.broadcast_to(fixed_point_bilinear(image, out)[..., :3], got.shape)
    np.testing.assert_array_equal(got, wanted)


def test_levels_are_near_the_real_values(level: str) -> None:
    """The two roundings down along y come to at most half a level, before the last one."""
    image = picture(108, 81)
    left, top, width, height = placement((108, 81), (64, 64))
    exact = cv2.resize(image.astype(np.float64), (width, height), interpolation=cv2.INTER_LINEAR)
    got = levels(image)[top : top + height, left : left + width]
    assert np.abs(got - exact).max() <= 1.1


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("out", [(64, 64), (32, 96), (61, 67), (1, 1)])
def test_padding_lies_as_ultralytics_has_it(out: tuple[int, int], center: bool) -> None:
    image = picture(50, 37)
    assert difference(levels(image, out, center=center), opencv_letterbox(image, out, center)) == 0


@pytest.mark.parametrize("pad_value", [0, 128, 255])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_the_padding_is_mapped_as_levels_are(pad_value: int, layout: str) -> None:
    mean, std = np.array([10.0, 20.0, 30.0], np.float32), np.array([50.0, 60.0, 70.0], np.float32)
    out = np.zeros((1, 64, 64, 3) if layout == "NHWC" else (1, 3, 64, 64), np.float32)
    letterbox = _core.Letterbox(pad_value=pad_value, mean=mean.tolist(), std=std.tolist(), layout=layout)
    letterbox(picture(64, 32), out)
    columns = out[0] if layout == "NHWC" else out[0].transpose(1, 2, 0)
    wanted = (np.float32(pad_value) - mean) / std
    for padding in (columns[:, :16], columns[:, 48:]):
        np.testing.assert_array_equal(padding, np.broadcast_to(wanted, padding.shape))


def test_stretch_fills_the_input() -> None:
    image = picture(50, 37)
    got = levels(image, (64, 80), mode="stretch")
    assert difference(got, opencv_resize(image, (64, 80))) == 0


@pytest.mark.parametrize("size", [(64, 48), (192, 192)])
def test_scales_that_fall_on_pixels_pick_them(level: str, size: tuple[int, int]) -> None:
    image = picture(*size)
    step = size[0] // 64
    picked = image[step // 2 :: step, step // 2 :: step]
    left = (64 - picked.shape[1]) // 2
    np.testing.assert_array_equal(levels(image)[:, left : left + picked.shape[1]], picked)


def test_halving_is_the_rounded_mean_of_four(level: str) -> None:
    image = picture(128, 128)
    wide = image.astype(np.int32)
    mean = (wide[::2, ::2] + wide[::2, 1::2] + wide[1::2, ::2] + wide[1::2, 1::2] + 2) >> 2
    np.testing.assert_array_equal(levels(image), mean)


def test_picture_of_1_by_10000_keeps_one_column(level: str) -> None:
    tall = picture(10000, 1)
    got = levels(tall)
    assert difference(got[:, 31:32], opencv_resize(tall, (64, 1))) == 0
    assert (got[:, :31] == PAD).all()
    assert (got[:, 32:] == PAD).all()


@pytest.mark.parametrize("level", _core.available_simd_levels())
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("color", ["RGB", "GRAY"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "int8"])
@pytest.mark.parametrize("antialias", [False, True])
def test_every_simd_level_gives_the_plain_bits(
    level: str, layout: str, color: str, dtype: str, antialias: bool
) -> None:
    options: dict[str, Any] = {"layout": layout, "color": color, "antialias": antialias, "zero_point": -128}
    options |= {"scale": 1 / 255} if dtype == "int8" else {"mean": (103.5,), "std": (57.375,)}
    channels = 1 if color == "GRAY" else 3
    shape = (1, channels, 61, 66) if layout == "NCHW" else (1, 61, 66, channels)
    before = _core.simd_level()
    for format, depth in [("BGR", 3), ("RGBA", 4), ("GRAY", 1), ("YUYV", 2)]:
        for size in [(97, 84), (9, 4), (61, 66), (122, 134)]:
            image = picture(*size, depth)
            results = []
            for name in ("plain", level):
                _core.set_simd_level(name)
                out = np.zeros(shape, dtype)
                _core.Letterbox(**options)(image, out, format=format)
                results.append(out)
            _core.set_simd_level(before)
            np.testing.assert_array_equal(results[0].view(np.uint8), results[1].view(np.uint8))


@pytest.mark.parametrize("mean", [0.0, 103.53])
@pytest.mark.parametrize("std", [255.0, 57.375])
def test_float32_is_numpys_normalisation_to_the_last_bit(level: str, mean: float, std: float) -> None:
    image = picture(108, 81)
    out = np.zeros((1, 3, 64, 64), np.float32)
    _core.Letterbox(mean=(mean,), std=(std,))(image, out)
    rgb = levels(image, color="RGB").transpose(2, 0, 1).astype(np.float32)
    np.testing.assert_array_equal(out[0], (rgb - np.float32(mean)) / np.float32(std))


def test_each_channel_has_its_own_mean_and_std(level: str) -> None:
    image = picture(108, 81)
    mean, std = np.array([123.7, 116.3, 103.5], np.float32), np.array([58.4, 57.1, 57.4], np.float32)
    out = np.zeros((1, 64, 64, 3), np.float32)
    _core.Letterbox(mean=mean.tolist(), std=std.tolist(), layout="NHWC")(image, out)
    np.testing.assert_array_equal(out[0], (levels(image, color="RGB") - mean) / std)


def test_float16_is_float32_rounded(level: str) -> None:
    image = picture(108, 81)
    single, half = np.zeros((1, 3, 64, 64), np.float32), np.zeros((1, 3, 64, 64), np.float16)
    letterbox = _core.Letterbox(mean=(3.0, 1.0, 2.0))
    letterbox(image, single)
    letterbox(image, half)
    np.testing.assert_array_equal(half, single.astype(np.float16))


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point"),
    [
        ("int8", 1 / 255, -128),
        ("uint8", 1 / 255, 0),
        ("int8", 0.0186584, -14),
        ("uint8", 0.00784, 128),
        ("int8", 2.0, 3),
    ],
)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_integers_are_the_quantized_real_values(
    level: str, dtype: str, scale: float, zero_point: int, layout: str
) -> None:
    image = picture(108, 81)
    rgb = levels(image, color="RGB")
    out = np.zeros((1, 64, 64, 3) if layout == "NHWC" else (1, 3, 64, 64), dtype)
    _core.Letterbox(scale=scale, zero_point=zero_point, layout=layout)(image, out)
    limits = np.iinfo(dtype)
    wanted = np.clip(np.round(rgb / 255.0 / scale) + zero_point, limits.min, limits.max).astype(dtype)
    np.testing.assert_array_equal(out[0], wanted if layout == "NHWC" else wanted.transpose(2, 0, 1))


CONVERSIONS = {
    "BGR": (3, None),
    "RGB": (3, cv2.COLOR_RGB2BGR),
    "BGRA": (4, cv2.COLOR_BGRA2BGR),
    "RGBA": (4, cv2.COLOR_RGBA2BGR),
    "GRAY": (1, cv2.COLOR_GRAY2BGR),
    "YUYV": (2, cv2.COLOR_YUV2BGR_YUYV),
    "NV12": (0, cv2.COLOR_YUV2BGR_NV12),
    "I420": (0, cv2.COLOR_YUV2BGR_I420),
}


def encoded(format: str, height: int, width: int) -> tuple[Picture, Picture]:
    """A picture in the format, and OpenCV's BGR conversion of it."""
    channels, conversion = CONVERSIONS[format]
    image = picture(height, width, channels) if channels else picture(height * 3 // 2, width, 1)[..., 0]
    bgr = image if conversion is None else cv2.cvtColor(image, conversion)
    return image, bgr.astype(np.uint8, copy=False)


@pytest.mark.parametrize("format", CONVERSIONS)
@pytest.mark.parametrize("size", [(108, 82), (64, 48), (48, 64), (22, 130)])
def test_formats_give_the_levels_of_opencv(level: str, format: str, size: tuple[int, int]) -> None:
    image, bgr = encoded(format, *size)
    assert difference(levels(image, format=format), opencv_letterbox(bgr, (64, 64))) == 0


@pytest.mark.parametrize("format", ["NV12", "I420", "YUYV"])
def test_yuv_is_converted_as_opencv_does(level: str, format: str) -> None:
    image, bgr = encoded(format, 64, 64)
    assert difference(levels(image, format=format), bgr) == 0


@pytest.mark.parametrize("format", CONVERSIONS)
def test_gray_models_get_the_luma(level: str, format: str) -> None:
    image, bgr = encoded(format, 108, 82)
    wanted = cv2.cvtColor(opencv_letterbox(bgr, (64, 64)), cv2.COLOR_BGR2GRAY)
    assert difference(levels(image, format=format, color="GRAY")[..., 0], wanted) <= 1


@pytest.mark.parametrize("format", CONVERSIONS)
@pytest.mark.parametrize("roi", [(0, 0, 82, 108), (3, 5, 40, 70), (40, 50, 41, 51), (81, 0, 82, 108), (11, 7, 82, 8)])
def test_a_region_is_the_cropped_picture(level: str, format: str, roi: tuple[int, int, int, int]) -> None:
    image, bgr = encoded(format, 108, 82)
    x0, y0, x1, y1 = roi
    crop = np.ascontiguousarray(bgr[y0:y1, x0:x1])
    np.testing.assert_array_equal(levels(image, format=format, roi=roi), levels(crop))


VIEWS: dict[str, Callable[[Picture], Picture]] = {
    "mirrored": lambda a: a[:, ::-1],
    "upside down": lambda a: a[::-1],
    "channels reversed": lambda a: a[..., ::-1],
    "every other row and third column": lambda a: a[::2, ::3],
    "inner": lambda a: a[5:-7, 3:-2],
    "transposed": lambda a: a.transpose(1, 0, 2),
    "planar in memory": lambda a: np.ascontiguousarray(a.transpose(2, 0, 1)).transpose(1, 2, 0),
    "first three of four channels": lambda a: np.concatenate([a, a[..., :1]], axis=2)[..., :3],
    "broadcast": lambda a: np.broadcast_to(a[:1], a.shape),
    "one column": lambda a: a[:, 4:5],
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("channels", [3, 4])
def test_views_are_read_as_their_copies(level: str, view: str, channels: int) -> None:
    image = VIEWS[view](picture(90, 70, channels))
    format = "BGR" if image.shape[2] == 3 else "BGRA"
    np.testing.assert_array_equal(levels(image, format=format), levels(np.ascontiguousarray(image), format=format))


@pytest.mark.parametrize("format", ["NV12", "I420", "YUYV"])
def test_yuv_rows_may_be_padded_or_spread(level: str, format: str) -> None:
    image, _ = encoded(format, 108, 82)
    padded = np.zeros((image.shape[0], image.shape[1] + 14, *image.shape[2:]), np.uint8)[:, :82]
    spread = np.zeros((image.shape[0], image.shape[1] * 2, *image.shape[2:]), np.uint8)[:, ::2]
    for view in (padded, spread):
        view[:] = image
        np.testing.assert_array_equal(levels(view, format=format), levels(image, format=format))


def test_read_only_pictures_are_fine() -> None:
    image = picture(50, 40)
    wanted = levels(image)
    image.flags.writeable = False
    np.testing.assert_array_equal(levels(image), wanted)


@pytest.mark.parametrize("size", [(300, 400), (640, 480), (500, 64), (64, 65), (1000, 3), (3, 1000)])
def test_antialiased_levels_are_within_one_of_pillow(level: str, size: tuple[int, int]) -> None:
    image = picture(*size)
    left, top, width, height = placement(size, (64, 64))
    wanted = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    got = levels(image, antialias=True)[top : top + height, left : left + width]
    assert difference(got, wanted) <= 1


def test_antialiasing_leaves_enlarging_alone(level: str) -> None:
    image = picture(20, 30)
    np.testing.assert_array_equal(levels(image, antialias=True), levels(image))


def test_a_flat_picture_stays_flat_under_extreme_reduction(level: str) -> None:
    image = np.full((3000, 5000, 1), 201, np.uint8)
    got = levels(image, (4, 4), format="GRAY", mode="stretch", antialias=True)
    assert (got == 201).all()


def test_one_object_serves_changing_pictures_and_inputs(level: str) -> None:
    letterbox = _core.Letterbox(layout="NHWC", color="BGR", std=(1.0,))
    buffer = np.zeros((1, 64, 64, 3), np.uint8)
    other = np.zeros((1, 40, 56, 3), np.uint8)
    for height, width in [(81, 108), (108, 81), (9, 200), (64, 64), (200, 9), (81, 108)]:
        image = picture(height, width)
        for out in (buffer, other):
            letterbox(image, out)
            assert difference(out[0], opencv_letterbox(image, out.shape[1:3])) == 0


def test_a_batch_is_written_picture_by_picture() -> None:
    batch = np.zeros((3, 3, 64, 64), np.float32)
    letterbox = _core.Letterbox()
    for i in range(3):
        letterbox(picture(81, 108, seed=i), batch[i : i + 1])
        alone = np.zeros((1, 3, 64, 64), np.float32)
        _core.Letterbox()(picture(81, 108, seed=i), alone)
        np.testing.assert_array_equal(batch[i], alone[0])


@pytest.mark.parametrize("roi", [None, (10, 20, 71, 90)])
def test_the_transform_maps_source_pixels_to_the_input(roi: tuple[int, int, int, int] | None) -> None:
    x0, y0, x1, y1 = roi or (0, 0, 81, 108)
    left, top, width, height = placement((y1 - y0, x1 - x0), (64, 64))
    out = np.zeros((1, 3, 64, 64), np.float32)
    scale_x, scale_y, pad_x, pad_y = _core.Letterbox()(picture(108, 81), out, roi=roi)
    assert x0 * scale_x + pad_x == pytest.approx(left)
    assert x1 * scale_x + pad_x == pytest.approx(left + width)
    assert y0 * scale_y + pad_y == pytest.approx(top)
    assert y1 * scale_y + pad_y == pytest.approx(top + height)


@settings(max_examples=200, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 300)),
    out=st.tuples(st.integers(1, 70), st.integers(1, 150)),
    format=st.sampled_from(["BGR", "BGRA", "GRAY"]),
    mode=st.sampled_from(["letterbox", "stretch"]),
    center=st.booleans(),
    level=st.sampled_from(_core.available_simd_levels()),
    seed=st.integers(0, 9),
)
def test_any_size_gives_the_levels_of_opencv(
    size: tuple[int, int], out: tuple[int, int], format: str, mode: str, center: bool, level: str, seed: int
) -> None:
    channels = {"BGR": 3, "BGRA": 4, "GRAY": 1}[format]
    image = np.random.default_rng(seed).integers(0, 256, (*size, channels), dtype=np.uint8)
    wanted = opencv_resize(image, out) if mode == "stretch" else opencv_letterbox(image, out, center)
    before = _core.simd_level()
    _core.set_simd_level(level)
    got = levels(image, out, mode=mode, center=center, format=format)
    _core.set_simd_level(before)
    assert difference(got, np.broadcast_to(wanted[..., :3], got.shape)) == 0


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    out=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    seed=st.integers(0, 9),
)
def test_any_antialiased_size_is_within_one_level_of_pillow(
    size: tuple[int, int], out: tuple[int, int], seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    wanted = np.asarray(Image.fromarray(image).resize(out[::-1], Image.Resampling.BILINEAR))
    assert difference(levels(image, out, mode="stretch", antialias=True), wanted) <= 1


def bgr() -> Picture:
    return picture(20, 30)


def nchw(dtype: str = "float32") -> NDArray[Any]:
    return np.zeros((1, 3, 32, 32), dtype)


@pytest.mark.parametrize(
    ("image", "format", "message"),
    [
        (np.zeros((0, 0, 3), np.uint8), "BGR", "empty"),
        (np.zeros((20, 0, 3), np.uint8), "BGR", "empty"),
        (np.zeros((20, 30), np.uint8), "BGR", r"\(height, width, 3\), got shape \(20, 30\)"),
        (np.zeros((20, 30, 4), np.uint8), "BGR", r"\(height, width, 3\)"),
        (np.zeros((20, 30, 3), np.uint8), "RGBA", r"\(height, width, 4\)"),
        (np.zeros((20, 30, 3), np.uint8), "GRAY", r"\(height, width\)"),
        (np.zeros((20, 31, 2), np.uint8), "YUYV", "even width"),
        (np.zeros((31, 30), np.uint8), "NV12", r"height \* 3 / 2"),
        (np.zeros((30, 31), np.uint8), "I420", r"height \* 3 / 2"),
        (np.zeros((30, 30, 1), np.uint8), "NV12", r"height \* 3 / 2"),
        (np.zeros(30, np.uint8), "GRAY", "two or three dimensions"),
        (np.zeros((1, 20, 30, 3), np.uint8), "BGR", "two or three dimensions"),
        (np.zeros((20, 30, 3), np.uint8), "BRG", "unknown pixel format 'BRG'"),
        (np.broadcast_to(np.uint8(0), (1 << 25, 2, 3)), "BGR", "too large"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(image: Picture, format: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _core.Letterbox()(image, nchw(), format=format)


@pytest.mark.parametrize("dtype", ["float32", "uint16", "int8", "bool", "object"])
def test_pictures_of_another_dtype_are_refused(dtype: str) -> None:
    with pytest.raises(TypeError, match=f"dtype is {dtype}, expected uint8"):
        _core.Letterbox()(np.zeros((20, 30, 3), dtype), nchw())


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((3, 32, 32), np.float32), "out's shape"),
        (np.zeros((2, 3, 32, 32), np.float32), r"pass out\[i:i \+ 1\]"),
        (np.zeros((1, 32, 32, 3), np.float32), r"expected \(1, 3, height, width\)"),
        (np.zeros((1, 3, 0, 32), np.float32), "from 1 to"),
        (np.zeros((1, 3, 32, 64), np.float32)[..., ::2], "not C-contiguous"),
        (np.broadcast_to(np.float32(0), (1, 3, 32, 32)), "read-only"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(out: NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _core.Letterbox()(bgr(), out)


def test_outputs_of_another_dtype_are_refused() -> None:
    with pytest.raises(TypeError, match="out's dtype is float64"):
        _core.Letterbox()(bgr(), nchw("float64"))


@pytest.mark.parametrize("roi", [(0, 0, 31, 20), (-1, 0, 5, 5), (5, 5, 5, 9), (5, 9, 8, 5), (0, 0, 30, 21)])
def test_regions_outside_the_picture_are_refused(roi: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="roi is"):
        _core.Letterbox()(bgr(), nchw(), roi=roi)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "crop"}, "mode is 'crop', expected one of 'letterbox', 'stretch'"),
        ({"layout": "CHWN"}, "layout is 'CHWN'"),
        ({"color": "GBR"}, "color is 'GBR'"),
        ({"pad_value": 256}, "pad_value"),
        ({"mean": (0.0, 0.0)}, "mean and std have 2 and 3 values"),
        ({"mean": (float("nan"),)}, "mean must be finite"),
        ({"std": (0.0,)}, "std must be positive"),
        ({"std": (float("inf"),)}, "std must be positive"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": float("nan")}, "scale must be positive"),
        ({"zero_point": 300}, "zero_point"),
        ({"color": "GRAY", "mean": (1.0, 2.0, 3.0)}, "mean and std have 3 and 1 values"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _core.Letterbox(**options)


def test_an_object_shared_by_threads_is_right_or_refuses() -> None:
    letterbox = _core.Letterbox()
    images = [picture(400 + 10 * i, 500, seed=i) for i in range(4)]
    wanted = []
    for image in images:
        wanted.append(np.zeros((1, 3, 320, 320), np.float32))
        _core.Letterbox()(image, wanted[-1])
    wrong: list[str] = []

    def work(i: int) -> None:
        out = np.zeros((1, 3, 320, 320), np.float32)
        for _ in range(50):
            try:
                letterbox(images[i], out)
            except RuntimeError as error:
                if "one for each thread" not in str(error):
                    wrong.append(str(error))
                continue
            if not np.array_equal(out, wanted[i]):
                wrong.append("wrong answer")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
