"""Pictures from anywhere as numpy: arrays, Pillow pictures, files, bytes and URLs."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from edgepose.contract import Color

if TYPE_CHECKING:
    from PIL import Image

    Picture: TypeAlias = NDArray[np.uint8] | Image.Image | str | os.PathLike[str] | bytes | bytearray | memoryview

MAX_PIXELS = 178_956_970
"""More pixels than this are refused before they are decoded (512 MiB of RGB; Pillow's own limit)."""

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)
"""File name endings of pictures, lower case."""

# magic bytes: (offset, bytes, Pillow's name of the format, its plugin). Only these are opened: some of Pillow's other
# formats run external programs.
_MAGIC = (
    (0, b"\xff\xd8\xff", "JPEG", "Jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG", "Png"),
    (8, b"WEBP", "WEBP", "WebP"),
    (0, b"BM", "BMP", "Bmp"),
    (0, b"GIF8", "GIF", "Gif"),
    (0, b"II*\0", "TIFF", "Tiff"),
    (0, b"MM\0*", "TIFF", "Tiff"),
    (4, b"jP  ", "JPEG2000", "Jpeg2K"),
    (4, b"ftypavif", "AVIF", "Avif"),
    (4, b"ftypavis", "AVIF", "Avif"),
    *((0, b"P%d" % i, "PPM", "Ppm") for i in range(1, 7)),
)
_ORIENTATION = 0x0112


def load_picture(source: Picture, *, color: Color = "BGR") -> tuple[NDArray[np.uint8], Color]:
    """The picture as an array, and its colour order.

    source: a numpy array, which comes back as it is, `color` with it; a Pillow picture; a path; the bytes of a file; or
    an http(s) URL (at most 50 MB, 20 s). All but arrays comes as (H, W, 3) uint8 "RGB", or (H, W) uint8 "GRAY" where
    there is no colour: 16-bit scaled to 8, alpha dropped, an animation's first frame. Files, bytes and URLs are turned
    upright by their EXIF orientation; a Pillow picture is not, so that places found are those of its own pixels.

    Raises FileNotFoundError for a missing file, ValueError for one that is no picture, is damaged or too large,
    TypeError for another kind of source, OSError where a URL cannot be fetched.
    """
    if isinstance(source, np.ndarray):
        return source, color
    if is_pillow(source):
        return _decode(source, "the Pillow picture")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _open(bytes(source), f"the {len(source)} bytes given")
    if isinstance(source, str) and is_url(source):
        from edgepose import download

        return _open(download.fetch(source), without_password(source))
    if isinstance(source, (str, os.PathLike)):
        return _load_file(os.fspath(source))
    raise TypeError(
        f"a picture is a numpy array, a Pillow picture, a path, bytes or an http(s) URL; got {type(source).__name__}"
    )


def is_pillow(source: object) -> TypeGuard[Image.Image]:
    """True for a Pillow picture; does not import Pillow."""
    image = sys.modules.get("PIL.Image")
    return image is not None and isinstance(source, image.Image)


def is_url(source: str) -> bool:
    """True for an http or https URL."""
    return source[:8].lower().startswith(("http://", "https://"))


def without_password(url: str) -> str:
    """The URL as it may be shown and saved: cameras are often addressed with user:password@."""
    return split_password(url)[0]


def split_password(url: str) -> tuple[str, str]:
    """The URL without what stands before its host, and that, such as "user:password"; "" where there is nothing."""
    match = re.match(r"([^:/?#]+://)([^/?#]*)@", url)
    return (url, "") if match is None else (match[1] + url[match.end() :], match[2])


def seen_from(path: str) -> str:
    """The end of a message about a path that leads nowhere: the folder from which a relative one counts."""
    return "" if os.path.isabs(path) else f" (in {os.getcwd()!r})"


def _load_file(path: str) -> tuple[NDArray[np.uint8], Color]:
    try:
        with open(path, "rb") as file:
            return _open(file, path)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no picture {path!r}{seen_from(path)}") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"{path!r} is a folder; give one picture, or stream(source={path!r})") from None


def _open(file: Any, name: str) -> tuple[NDArray[np.uint8], Color]:
    """Decodes a picture file: bytes, or an open binary file."""
    import io

    file = io.BytesIO(file) if isinstance(file, bytes) else file
    head = file.read(32)
    file.seek(0)
    format_name, plugin = _sniff(head, name)

    import importlib

    from PIL import Image

    try:
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
        with Image.open(file, formats=(format_name,)) as picture:
            return _decode(_upright(picture), name)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"{name} has more than {MAX_PIXELS} pixels; make it smaller first") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        if isinstance(error, ValueError) and str(error).startswith(name):
            raise
        raise ValueError(f"{name} is damaged or cut short ({format_name}): {error}") from error


def _sniff(head: bytes, name: str) -> tuple[str, str]:
    """Pillow's name of the format and of its plugin, by the first bytes of the file."""
    for offset, magic, format_name, plugin in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return format_name, plugin
    if not head:
        raise ValueError(f"{name} is empty (0 bytes); copy or download it again")
    if head[4:8] == b"ftyp" or head[8:12] == b"AVI " or head[:4] == b"\x1aE\xdf\xa3":
        raise ValueError(f"{name} is a video or a format that is not read; videos go to stream() or source=")
    raise ValueError(f"{name} is no picture that can be read (JPEG, PNG, WebP, BMP, GIF, TIFF …): starts {head[:8]!r}")


def _upright(picture: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says."""
    if picture.width * picture.height > MAX_PIXELS or picture.getexif().get(_ORIENTATION, 1) == 1:
        return picture
    from PIL import ImageOps

    return ImageOps.exif_transpose(picture)


def _decode(picture: Image.Image, name: str) -> tuple[NDArray[np.uint8], Color]:
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(f"{name} is {picture.width}x{picture.height}, more than {MAX_PIXELS} pixels")
    try:
        return _to_array(picture, name)
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{name} is damaged or cut short: {error}") from error


def _to_array(picture: Image.Image, name: str) -> tuple[NDArray[np.uint8], Color]:
    mode = picture.mode
    if mode == "RGB":
        return np.asarray(picture), "RGB"
    if mode.startswith("I"):
        return _to_8_bit(np.asarray(picture), name), "GRAY"
    if mode == "F":
        raise ValueError(f"{name} holds floating point levels; scale it to 8 bits first")
    if mode in ("1", "L", "LA", "La"):
        return np.asarray(picture if mode == "L" else picture.convert("L")), "GRAY"
    if mode == "P":  # straight to RGB Pillow warns about transparency in the palette
        picture = picture.convert("RGBA")
    return np.asarray(picture.convert("RGB")), "RGB"


def _to_8_bit(levels: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """16-bit gray levels, which Pillow gives as uint16 or int32, to their high byte."""
    if levels.dtype.itemsize > 2 and levels.size and (levels.min() < 0 or levels.max() > 65535):
        raise ValueError(f"{name} holds 32-bit levels; scale it to 8 bits first")
    return (levels >> 8).astype(np.uint8)
