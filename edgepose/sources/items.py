"""What a source is: the pictures, videos and live streams that it stands for, in order."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from edgepose.pictures import SUFFIXES, is_pillow, is_url, seen_from, without_password

VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts", ".flv"))
STREAM_SUFFIXES = frozenset((".m3u8", ".mjpg", ".mjpeg", ".sdp"))
STREAM_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "rtmps://", "rtp://", "udp://", "tcp://", "srt://")
MAX_LIST_BYTES = 10_000_000

Kind: TypeAlias = Literal["picture", "video", "camera", "stream"]


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to read. value: a path, URL, camera number, array, bytes or Pillow picture; name: as told to people."""

    kind: Kind
    value: Any
    name: str


def find_items(source: Any) -> list[Item] | Iterator[Any]:
    """The items of a source; an iterator of pictures as it is, for `one_item` of each: nobody knows its length.

    Raises FileNotFoundError, TypeError, or ValueError for a folder without pictures and for several live sources.
    """
    if isinstance(source, Iterator):
        return source
    items = _several(source) if isinstance(source, (list, tuple)) else _expand(source)
    if not items:
        raise ValueError("the source is an empty list")
    live = [item.name for item in items if item.kind in ("camera", "stream")]
    if live and len(items) > 1:
        raise ValueError(f"a live source never ends: open {live[0]} alone, each live source with a runner of its own")
    return items


def _several(sources: Iterable[Any]) -> list[Item]:
    return [item for source in sources for item in _expand(source)]


def one_item(picture: Any) -> Item:
    """The item of what an iterator gave: one picture or video. Raises as `find_items`, and ValueError for the rest."""
    items = _expand(picture)
    if len(items) != 1 or items[0].kind in ("camera", "stream"):
        named = without_password(picture) if isinstance(picture, str) else picture
        raise ValueError(f"an iterator gives pictures or videos one by one, got {named!r:.80}")
    return items[0]


def _expand(source: Any) -> list[Item]:
    if isinstance(source, np.ndarray):
        batch = list(source) if source.ndim == 4 else [source]
        return [Item("picture", image, "") for image in batch]
    if isinstance(source, (bytes, bytearray, memoryview)):
        return [Item("picture", source, "")]
    if is_pillow(source):
        return [Item("picture", source, str(getattr(source, "filename", "")))]
    if isinstance(source, (int, np.integer)) and not isinstance(source, bool):
        return [_camera(int(source))]
    if isinstance(source, (str, os.PathLike)):
        return _text(os.fspath(source))
    raise TypeError(
        "a source is a path, glob, URL, camera number, numpy or Pillow picture, bytes, or a list of those; "
        f"got {type(source).__name__}"
    )


def _camera(camera: int | str) -> Item:
    if isinstance(camera, int) and not 0 <= camera < 256:
        raise ValueError(f"a camera is a number from 0 to 255, got {camera}")
    return Item("camera", camera, f"camera {camera}" if isinstance(camera, int) else camera)


def _text(source: str) -> list[Item]:
    if source.isdecimal() and not os.path.exists(source):
        return [_camera(int(source))]
    if re.fullmatch(r"/dev/video\d+", source):
        return [_camera(source)]
    if source.lower().startswith(STREAM_SCHEMES):
        return [Item("stream", source, without_password(source))]
    if is_url(source):
        return [Item(_kind_of_url(source), source, without_password(source))]
    if os.path.isdir(source):
        return _folder(source)
    if not os.path.exists(source) and glob.has_magic(source):
        return _glob(source)
    if _suffix(source) == ".txt":
        return _list_file(source)
    return [_file(source)]


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _file(path: str) -> Item:
    if not os.path.exists(path):
        raise FileNotFoundError(f"there is no file, folder or camera {path!r}{seen_from(path)}")
    return Item("video" if _suffix(path) in VIDEO_SUFFIXES else "picture", path, path)


def _kind_of_url(url: str) -> Kind:
    """By the ending of the URL's path, else by asking the server."""
    suffix = _suffix(re.split(r"[?#]", url, maxsplit=1)[0])
    if suffix in SUFFIXES:
        return "picture"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if suffix in STREAM_SUFFIXES:
        return "stream"
    from edgepose import download

    media = download.content_type(url)
    if media.startswith("multipart/") or "mpegurl" in media:
        return "stream"
    return "video" if media.startswith("video/") else "picture"


def _folder(folder: str) -> list[Item]:
    found = _known_files(os.path.join(folder, name) for name in os.listdir(folder) if not name.startswith("."))
    if not found:
        raise FileNotFoundError(
            f"the folder {folder!r} holds no pictures or videos; for its subfolders: '{folder}/**/*'"
        )
    return found


def _glob(pattern: str) -> list[Item]:
    found = _known_files(glob.iglob(pattern, recursive=True))
    if not found:
        raise FileNotFoundError(f"no picture or video fits {pattern!r}{seen_from(pattern)}")
    return found


def _known_files(paths: Iterable[str]) -> list[Item]:
    """The pictures and videos among the paths, in natural order."""
    known = SUFFIXES | VIDEO_SUFFIXES
    return [_file(path) for path in sorted(paths, key=_natural) if _suffix(path) in known and os.path.isfile(path)]


def _natural(path: str) -> list[tuple[int, str]]:
    """Sorts img2 before img10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)]


def _list_file(path: str) -> list[Item]:
    """A text file with one source a line; empty lines and those that start with # do not count."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"there is no list {path!r}{seen_from(path)}")
    if os.path.getsize(path) > MAX_LIST_BYTES:
        raise ValueError(f"the list {path} is larger than {MAX_LIST_BYTES / 1e6:g} MB")
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except UnicodeDecodeError:
        raise ValueError(f"the list {path} is not text (UTF-8)") from None
    names = [line for line in lines if line and not line.startswith("#")]
    if any(_suffix(name) == ".txt" for name in names):
        raise ValueError(f"the list {path} names another list")
    if not names:
        raise ValueError(f"the list {path} is empty")
    folder = os.path.dirname(path)
    return [item for name in names for item in _line(name if _stands_alone(name) else os.path.join(folder, name))]


def _line(source: str) -> list[Item]:
    """A file that is not there is told of when its turn comes, like one that is damaged: the other lines count."""
    try:
        return _expand(source)
    except FileNotFoundError:
        return [Item("picture", source, source)]


def _stands_alone(name: str) -> bool:
    return "://" in name or name.isdecimal()
