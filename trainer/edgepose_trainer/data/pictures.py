"""Pictures from disk: checked, decoded as RGB, EXIF-turned, and kept in RAM or in a file."""

from __future__ import annotations

import functools
import hashlib
import io
import mmap
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edgepose_trainer.data.files import cache_dir

UInt8 = NDArray[np.uint8]
CacheMode = Literal["ram", "disk"]

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
MIN_SIDE = 10
_EXIF_ORIENTATION = 0x0112
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """height and width as seen, after turning by the EXIF orientation (1 to 8); a digest of the file."""

    height: int
    width: int
    orientation: int
    digest: bytes


@functools.cache
def formats() -> tuple[str, ...]:
    """Pillow's names of those that are read, as far as this Pillow has them; some of its others run external programs.

    Not at import: it loads all of Pillow's plugins.
    """
    Image.init()
    names = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM", "AVIF", "JPEG2000", "TGA", "ICO")
    return tuple(name for name in names if name in Image.OPEN)


def check_picture(path: str | os.PathLike[str]) -> PictureInfo:
    """Decodes the whole picture. Raises ValueError with the reason it cannot be used, OSError where it is not there."""
    content = Path(path).read_bytes()
    if not content:
        raise ValueError("the picture is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=formats()) as picture:
            width, height = picture.size
            picture.draft("L", (1, 1))  # still reads every byte, at an eighth of the size
            orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
            picture.load()
            if picture.format == "TIFF":  # turned by every reader as it is read
                (width, height), orientation = picture.size, 1
    except UnidentifiedImageError:
        raise ValueError("the picture cannot be decoded: its content is of no known kind of picture") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        raise ValueError(f"the picture cannot be decoded: {error}") from None
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"the picture is {width} x {height}, smaller than {MIN_SIDE} pixels")
    if orientation not in range(1, 9):
        orientation = 1
    if orientation >= 5:
        width, height = height, width
    return PictureInfo(height, width, orientation, hashlib.blake2b(content, digest_size=16).digest())


def read_picture(path: str | os.PathLike[str], orientation: int = 1, reduce: int = 1) -> UInt8:
    """(H, W, 3) RGB, turned by the EXIF orientation that `check_picture` found (readers differ in what they honour).

    reduce 2, 4 or 8 decodes at 1/2, 1/4, 1/8 size (rounded up), far faster for JPEG.
    """
    content = np.fromfile(path, np.uint8)
    flag = _REDUCED[reduce] if reduce > 1 and _is_jpeg(content) else cv2.IMREAD_COLOR
    picture = cv2.imdecode(content, flag | cv2.IMREAD_IGNORE_ORIENTATION) if len(content) else None
    if picture is None:
        return turn(_read_with_pillow(path, reduce), orientation)
    if reduce > 1 and flag == cv2.IMREAD_COLOR:
        size = (-(-picture.shape[1] // reduce), -(-picture.shape[0] // reduce))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return turn(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=picture), orientation)  # type: ignore[arg-type]


def _is_jpeg(content: UInt8) -> bool:
    return bytes(content[:2]) == b"\xff\xd8"


def turn(picture: UInt8, orientation: int) -> UInt8:
    """The picture as a viewer shows it; orientation as in EXIF 2.3, tag 0x0112."""
    if orientation in (2, 3, 4):
        return cv2.flip(picture, {2: 1, 3: -1, 4: 0}[orientation])  # type: ignore[return-value]
    if orientation >= 5:
        turned = cv2.transpose(picture)
        return turned if orientation == 5 else cv2.flip(turned, {6: 1, 7: -1, 8: 0}[orientation])  # type: ignore[return-value]
    return picture


def _read_with_pillow(path: str | os.PathLike[str], reduce: int) -> UInt8:
    with Image.open(path, formats=formats()) as picture:
        coloured = picture.convert("RGB")
        return np.array(coloured.reduce(reduce) if reduce > 1 else coloured)


class PictureStore:
    """Gives picture i as a uint8 array of shape (*sizes[i], 3), made by `read(i)` once and then kept.

    The store is one block that every worker shares: anonymous memory for "ram", a file for "disk". A flag a picture
    says that it is there; it is set after the pixels, and two workers that make the same picture write the same bytes.
    """

    def __init__(self, sizes: NDArray[np.int64], read: Callable[[int], UInt8], mode: CacheMode, key: str) -> None:
        if mode not in ("ram", "disk"):
            raise ValueError(f"cache must be 'ram', 'disk' or False, got {mode!r}")
        self.sizes, self.read, self.mode, self.key = sizes, read, mode, key
        self.offsets = np.concatenate([[0], np.cumsum(sizes.prod(1) * 3)]).astype(np.int64)
        self._open()

    def _open(self) -> None:
        count, total = len(self.sizes), int(self.offsets[-1])
        needed = count + total
        if self.mode == "ram":
            _check_room(needed, _free_memory(), "RAM", "cache=disk")
            block: Any = mmap.mmap(-1, max(needed, 1))
        else:
            block = self._file(needed)
        every = np.frombuffer(block, np.uint8)
        self.filled, self.pixels = every[:count], every[count:]

    def _file(self, needed: int) -> mmap.mmap:
        path = cache_dir() / "pictures" / f"{self.key}.u8"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.stat().st_size != needed:
            _check_room(needed, shutil.disk_usage(path.parent).free, f"disk space in {path.parent}", "cache=False")
            with open(path, "wb") as file:
                file.truncate(max(needed, 1))
        with open(path, "r+b") as file:
            return mmap.mmap(file.fileno(), max(needed, 1))

    def __getstate__(self) -> dict[str, Any]:
        # Where workers are spawned, not forked, each opens the file again, or keeps pictures of its own.
        return {k: v for k, v in self.__dict__.items() if k not in ("filled", "pixels")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __call__(self, index: int) -> UInt8:
        height, width = self.sizes[index]
        start = self.offsets[index]
        place = self.pixels[start : self.offsets[index + 1]].reshape(height, width, 3)
        if not self.filled[index]:
            place[...] = self.read(index)
            self.filled[index] = 1
        return place


def _check_room(needed: int, free: int | None, what: str, instead: str) -> None:
    if free is not None and needed > 0.9 * free:
        raise ValueError(
            f"the picture cache needs {needed / 2**30:.1f} GiB of {what}, {free / 2**30:.1f} free: use {instead}"
        )


def _free_memory() -> int | None:
    if sys.platform != "linux":
        return None
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None
