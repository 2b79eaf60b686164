"""Where `edgepose predict` puts what it finds: JSON, CSV and COCO files, annotated pictures and videos.

A sink takes one result after the other and holds none: memory stays flat over any video. Its files get their names when
they are complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgepose.result import PoseResult
    from edgepose.sources import Frame
    from edgepose.writers import VideoWriter


class Sink(Protocol):
    """Takes results in order. `close` completes the files and names them; `discard` drops what is incomplete."""

    def add(self, frame: Frame, result: PoseResult) -> None: ...
    def close(self) -> list[Path]: ...
    def discard(self) -> None: ...


class _GrowingFile:
    """A text file that grows under a temporary name beside its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._file = open(self._part, "w", encoding="utf-8", newline="")  # noqa: SIM115

    def write(self, text: str) -> None:
        try:
            self._file.write(text)
        except OSError as error:
            error.filename = str(self._path)
            raise

    def close(self) -> list[Path]:
        try:
            self._file.close()
        except OSError as error:
            self.discard()
            error.filename = str(self._path)
            raise
        os.replace(self._part, self._path)
        return [self._path]

    def discard(self) -> None:
        with suppress(OSError):
            self._file.close()
        self._part.unlink(missing_ok=True)


class JsonSink:
    """A JSON list of what `documents` makes of each result."""

    def __init__(self, path: Path, documents: Callable[[Frame, PoseResult], list[Any]]) -> None:
        self._out = _GrowingFile(path)
        self._documents = documents
        self._separator = "[\n"

    def add(self, frame: Frame, result: PoseResult) -> None:
        from json import dumps

        for document in self._documents(frame, result):
            self._out.write(self._separator + dumps(document, ensure_ascii=False, allow_nan=False))
            self._separator = ",\n"

    def close(self) -> list[Path]:
        self._out.write("[]\n" if self._separator == "[\n" else "\n]\n")
        return self._out.close()

    def discard(self) -> None:
        self._out.discard()


class CsvSink:
    """A row a person, the columns of `PoseResult.to_rows`."""

    def __init__(self, path: Path) -> None:
        self._out = _GrowingFile(path)
        self._header = True

    def add(self, frame: Frame, result: PoseResult) -> None:
        self._out.write(result.to_csv(header=self._header))
        self._header = False

    def close(self) -> list[Path]:
        return self._out.close()

    def discard(self) -> None:
        self._out.discard()


def plain_documents(frame: Frame, result: PoseResult) -> list[Any]:
    """One document a picture or frame: `PoseResult.to_dict`."""
    return [result.to_dict()]


class CocoDocuments:
    """One document a person: COCO keypoint results.

    A picture's id is its name without the ending, as a number where it is one (COCO's names are), and NAME_FRAME of a
    video; that of other files of the same name gets -2, -3 … behind the name.
    """

    def __init__(self) -> None:
        self._names = _Names(_as_id)
        self._name_of: dict[str, str] = {}  # by source

    def __call__(self, frame: Frame, result: PoseResult) -> list[Any]:
        return list(result.to_coco(self._image_id(frame)))

    def _image_id(self, frame: Frame) -> int | str:
        if frame.source not in self._name_of:
            self._name_of[frame.source] = self._names.new(stem_of(frame.source))
        name = self._name_of[frame.source]
        return _as_id(name) if frame.time is None else f"{name}_{frame.index}"


def _as_id(name: str) -> int | str:
    return int(name) if name.isascii() and name.isdigit() else name


def stem_of(source: str | None) -> str:
    """The name of a path, URL or camera without its folder and ending, fit for a file name."""
    name = PurePosixPath((source or "").partition("?")[0].rstrip("/").replace("\\", "/")).stem
    return "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in name.lstrip(".")) or "picture"


class DrawingSink:
    """Draws each result once and hands the picture on: to files, videos, a window."""

    def __init__(self, targets: Sequence[Target], line_width: int | None) -> None:
        self._targets = targets
        self._line_width = line_width

    def add(self, frame: Frame, result: PoseResult) -> None:
        from edgepose.drawing import draw

        drawn = draw(frame.image, result, color=frame.color, line_width=self._line_width)
        bgr = drawn[..., ::-1] if frame.color == "RGB" else drawn
        for target in self._targets:
            target.add(frame, bgr)

    def close(self) -> list[Path]:
        return [path for target in self._targets for path in target.close()]

    def discard(self) -> None:
        for target in self._targets:
            target.discard()


class Target(Protocol):
    """Takes drawn pictures, (H, W, 3) BGR, in order; `close` and `discard` as of a `Sink`."""

    def add(self, frame: Frame, bgr: NDArray[np.uint8]) -> None: ...
    def close(self) -> list[Path]: ...
    def discard(self) -> None: ...


class _Names:
    """Names that a run has not used: pictures and videos of several folders may be called the same.

    key: what must differ; of file names the small letters, since some file systems know no others.
    """

    def __init__(self, key: Callable[[str], int | str] = str.lower) -> None:
        self._key = key
        self._used: set[int | str] = set()

    def new(self, stem: str, ending: str = "") -> str:
        number, name = 1, stem + ending
        while self._key(name) in self._used:
            number += 1
            name = f"{stem}-{number}{ending}"
        self._used.add(self._key(name))
        return name


class PictureFiles:
    """Pictures in the run's folder: PNG stays PNG, all others become JPEG. Frames of videos are not written here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = _Names()
        self._written: list[Path] = []

    def add(self, frame: Frame, bgr: NDArray[np.uint8]) -> None:
        if frame.time is not None:
            return
        from edgepose.writers import save_picture

        ending = ".png" if frame.source.lower().endswith(".png") else ".jpg"
        path = self._folder / self._names.new(stem_of(frame.source), ending)
        save_picture(path, bgr)
        self._written.append(path)

    def close(self) -> list[Path]:
        return self._written

    def discard(self) -> None:
        """Nothing: each picture is complete already."""


class VideoFiles:
    """Videos in the run's folder, one for each video or stream of the source: MP4 (MPEG-4), by OpenCV."""

    def __init__(self, folder: Path, fps: Callable[[], float]) -> None:
        self._folder = folder
        self._fps = fps
        self._names = _Names()
        self._source = ""
        self._shape: tuple[int, ...] = ()
        self._video: VideoWriter | None = None
        self._written: list[Path] = []

    def add(self, frame: Frame, bgr: NDArray[np.uint8]) -> None:
        if frame.time is None:
            return
        if self._video is None or frame.source != self._source:
            self._finish()
            self._begin(frame.source, bgr.shape)
        if self._video is not None and bgr.shape == self._shape:  # a stream may change its size; a video file cannot
            self._video.write(bgr)

    def _begin(self, source: str, shape: tuple[int, ...]) -> None:
        from edgepose.writers import VideoWriter

        path = self._folder / self._names.new(stem_of(source), ".mp4")
        self._video = VideoWriter(path, self._fps())
        self._source, self._shape = source, shape
        self._written.append(path)

    def _finish(self) -> None:
        if self._video is not None:
            self._video.close()
            self._video = None

    def close(self) -> list[Path]:
        self._finish()
        return self._written

    def discard(self) -> None:
        if self._video is not None:
            self._video.discard()
            self._video = None
            self._written.pop()
