"""The letterbox against the fastest chain of OpenCV and numpy calls that gives the same input, on one thread.

The chains keep their buffers and write the padding once, outside of the timing; the letterbox writes its padding in
every call. Of several chains the fastest on this machine is the one compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import pytest
from claims import at_least
from numpy.typing import NDArray

from edgepose import _core

pytestmark = pytest.mark.benchmark

Chain = Callable[[], None]
CALLS = 5
SIDE = 640
PAD = 114
SIZES = [(810, 1080), (1920, 1080), (640, 480)]  # width, height
INT8_SCALE = 1 / 255
INT8_ZERO_POINT = -128


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


@dataclass
class Job:
    """A picture and the place that it takes in a SIDE x SIDE input."""

    image: NDArray[np.uint8]
    left: int
    top: int
    width: int
    height: int

    @classmethod
    def of(cls, width: int, height: int) -> Job:
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        ratio = min(SIDE / width, SIDE / height)
        new_width, new_height = round(width * ratio), round(height * ratio)
        return cls(image, (SIDE - new_width) // 2, (SIDE - new_height) // 2, new_width, new_height)

    def resizer(self) -> Callable[[], NDArray[np.uint8]]:
        """The picture at its new size, in a buffer that is kept; the picture itself where it has that size."""
        if self.image.shape[:2] == (self.height, self.width):
            return lambda: self.image
        buffer = np.empty((self.height, self.width, 3), np.uint8)

        def resize() -> NDArray[np.uint8]:
            cv2.resize(self.image, (self.width, self.height), dst=buffer, interpolation=cv2.INTER_LINEAR)
            return buffer

        return resize

    def inside(self, out: NDArray[Any], layout: str) -> NDArray[Any]:
        rows = slice(self.top, self.top + self.height)
        columns = slice(self.left, self.left + self.width)
        return out[0, :, rows, columns] if layout == "NCHW" else out[0, rows, columns]


def float_nchw_chains(job: Job, out: NDArray[np.float32]) -> dict[str, Chain]:
    resize = job.resizer()
    planes = np.empty((3, job.height, job.width), np.uint8)
    bgr_planes = [planes[2], planes[1], planes[0]]
    target = job.inside(out, "NCHW")
    factor = np.float32(1 / 255)
    table = (np.arange(256) / 255).astype(np.float32)

    def multiplied_at_once() -> None:
        cv2.split(resize(), bgr_planes)
        np.multiply(planes, factor, out=target)

    def added_weighted() -> None:
        cv2.split(resize(), bgr_planes)
        for plane, to in zip(planes, target, strict=True):
            cv2.addWeighted(plane, 1 / 255, plane, 0, 0, dst=to, dtype=cv2.CV_32F)

    def looked_up() -> None:
        cv2.split(resize(), bgr_planes)
        for plane, to in zip(planes, target, strict=True):
            cv2.LUT(plane, table, dst=to)

    def transposed() -> None:
        np.multiply(resize()[..., ::-1].transpose(2, 0, 1), factor, out=target)

    def blob() -> None:
        target[...] = cv2.dnn.blobFromImage(resize(), 1 / 255, swapRB=True)[0]

    return {chain.__name__: chain for chain in (multiplied_at_once, added_weighted, looked_up, transposed, blob)}


def uint8_nhwc_chains(job: Job, out: NDArray[np.uint8]) -> dict[str, Chain]:
    resize = job.resizer()
    target = job.inside(out, "NHWC")
    resize_to_target = target.base is not None and job.image.shape != target.shape

    def converted_in_place() -> None:
        cv2.cvtColor(resize(), cv2.COLOR_BGR2RGB, dst=target)

    def converted_after() -> None:
        if resize_to_target:
            cv2.resize(job.image, (job.width, job.height), dst=target, interpolation=cv2.INTER_LINEAR)
            cv2.cvtColor(target, cv2.COLOR_BGR2RGB, dst=target)
        else:
            cv2.cvtColor(job.image, cv2.COLOR_BGR2RGB, dst=target)

    return {chain.__name__: chain for chain in (converted_in_place, converted_after)}


def int8_nhwc_chains(job: Job, out: NDArray[np.int8]) -> dict[str, Chain]:
    """Chains that know that scale 1/255 and zero point -128 only move the levels by 128, or make a table of it."""
    resize = job.resizer()
    rgb = np.empty((job.height, job.width, 3), np.uint8)
    target = job.inside(out, "NHWC")
    table = (np.arange(256) - 128).astype(np.int8)
    offsets = np.array([128, 128, 128, 0], np.float64)

    def sign_bit_inverted() -> None:
        cv2.cvtColor(resize(), cv2.COLOR_BGR2RGB, dst=rgb)
        np.bitwise_xor(rgb, np.uint8(128), out=target.view(np.uint8))

    def subtracted() -> None:
        cv2.cvtColor(resize(), cv2.COLOR_BGR2RGB, dst=rgb)
        cv2.subtract(rgb, offsets, dst=target, dtype=cv2.CV_8S)

    def looked_up() -> None:
        cv2.cvtColor(resize(), cv2.COLOR_BGR2RGB, dst=rgb)
        cv2.LUT(rgb, table, dst=target)

    return {chain.__name__: chain for chain in (sign_bit_inverted, subtracted, looked_up)}


def quantizing_chain(job: Job, out: NDArray[np.int8]) -> Chain:
    """Normalise, then quantize as written for any scale and zero point; in place, in buffers that are kept."""
    resize = job.resizer()
    canvas = np.full((SIDE, SIDE, 3), PAD, np.uint8)
    inside = job.inside(canvas[None], "NHWC")
    real = np.empty((SIDE, SIDE, 3), np.float32)

    def quantized() -> None:
        cv2.cvtColor(resize(), cv2.COLOR_BGR2RGB, dst=inside)
        np.multiply(canvas, np.float32(1 / 255), out=real)
        np.divide(real, np.float32(INT8_SCALE), out=real)
        np.rint(real, out=real)
        np.add(real, np.float32(INT8_ZERO_POINT), out=real)
        np.clip(real, -128, 127, out=real)
        np.copyto(out[0], real, casting="unsafe")

    return quantized


def seconds(call: Chain) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def in_a_row(call: Chain) -> Chain:
    def calls() -> None:
        for _ in range(CALLS):
            call()

    return calls


def fastest(chains: dict[str, Chain], benchmark: Any) -> Chain:
    times = {name: min(seconds(chain) for _ in range(12)) for name, chain in chains.items()}
    name = min(times, key=lambda chain: times[chain])
    benchmark.extra_info["chain"] = name
    return chains[name]


def note_floor(image: NDArray[np.uint8], out: NDArray[Any], benchmark: Any) -> None:
    """What writing the input and reading the picture alone take: no letterbox on this machine is faster."""
    words = image.reshape(-1)[: image.size // 8 * 8].view(np.uint64)
    write = min(seconds(lambda: out.fill(0)) for _ in range(20))
    read = min(seconds(lambda: words.max()) for _ in range(20))
    benchmark.extra_info.update(floor_write_ms=round(write * 1e3, 4), floor_read_ms=round(read * 1e3, 4))


def letterbox_call(job: Job, out: NDArray[Any], **options: Any) -> Chain:
    letterbox = _core.Letterbox(**options)

    def call() -> None:
        letterbox(job.image, out)

    return call


def int8_letterbox(job: Job, out: NDArray[np.int8]) -> Chain:
    return letterbox_call(job, out, layout="NHWC", scale=INT8_SCALE, zero_point=INT8_ZERO_POINT)


def required(least: float) -> float:
    """The ratio that this processor must reach: AVX2 comes to some three quarters of AVX-512."""
    level = _core.simd_level()
    if level not in ("avx512", "avx2"):
        pytest.skip(f"no ratio is promised for the instruction set '{level}'")
    return least if level == "avx512" else 0.7 * least


def padded(shape: tuple[int, ...], dtype: str, pad: float) -> NDArray[Any]:
    return np.full(shape, pad, dtype)


def require_equal(ours: NDArray[Any], theirs: NDArray[Any], tolerance: float) -> None:
    assert np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max() <= tolerance


# The least ratios at 810 x 1080 are the project's aims: 2.2, 2.5, and 8 for int8 against quantizing as written. At
# 640 x 480 nothing is resized, and OpenCV's chain is a pass or two that the memory limits.
@pytest.mark.parametrize(("size", "least"), list(zip(SIZES, [2.2, 2.0, 1.5], strict=True)))
def test_float32_nchw(size: tuple[int, int], least: float, benchmark: Any, side_by_side: Any) -> None:
    job = Job.of(*size)
    theirs = padded((1, 3, SIDE, SIDE), "float32", PAD / 255)
    ours = np.zeros_like(theirs)
    letterbox = letterbox_call(job, ours)
    chain = fastest(float_nchw_chains(job, theirs), benchmark)
    ratio = side_by_side(in_a_row(letterbox), in_a_row(chain), rounds=40)
    require_equal(ours, theirs, 1e-6)
    note_floor(job.image, ours, benchmark)
    assert ratio >= at_least(required(least))


@pytest.mark.parametrize(("size", "least"), list(zip(SIZES, [2.5, 2.5, 0.7], strict=True)))
def test_uint8_nhwc(size: tuple[int, int], least: float, benchmark: Any, side_by_side: Any) -> None:
    job = Job.of(*size)
    theirs = padded((1, SIDE, SIDE, 3), "uint8", PAD)
    ours = np.zeros_like(theirs)
    letterbox = letterbox_call(job, ours, layout="NHWC", std=(1.0,))
    chain = fastest(uint8_nhwc_chains(job, theirs), benchmark)
    ratio = side_by_side(in_a_row(letterbox), in_a_row(chain), rounds=40)
    require_equal(ours, theirs, 0)
    note_floor(job.image, ours, benchmark)
    assert ratio >= at_least(required(least))


@pytest.mark.parametrize(("size", "least"), list(zip(SIZES, [2.5, 2.5, 1.2], strict=True)))
def test_int8_nhwc_against_shortcuts(size: tuple[int, int], least: float, benchmark: Any, side_by_side: Any) -> None:
    job = Job.of(*size)
    theirs = padded((1, SIDE, SIDE, 3), "int8", PAD - 128)
    ours = np.zeros_like(theirs)
    chain = fastest(int8_nhwc_chains(job, theirs), benchmark)
    ratio = side_by_side(in_a_row(int8_letterbox(job, ours)), in_a_row(chain), rounds=40)
    require_equal(ours, theirs, 0)
    note_floor(job.image, ours, benchmark)
    assert ratio >= at_least(required(least))


@pytest.mark.parametrize(("size", "least"), list(zip(SIZES, [8.0, 7.0, 10.0], strict=True)))
def test_int8_nhwc_against_normalising_and_quantizing(size: tuple[int, int], least: float, side_by_side: Any) -> None:
    job = Job.of(*size)
    theirs = padded((1, SIDE, SIDE, 3), "int8", 0)
    ours = np.zeros_like(theirs)
    ratio = side_by_side(in_a_row(int8_letterbox(job, ours)), in_a_row(quantizing_chain(job, theirs)), rounds=40)
    require_equal(ours, theirs, 0)
    assert ratio >= at_least(required(least))
