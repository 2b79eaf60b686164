"""Where pictures come from: files, folders, globs, lists, URLs, videos, cameras, network streams; a frame at a time.

`open_source` answers a `Source`. A frame is read when it is asked for, so that memory stays flat; live sources are read
by a thread that keeps the newest frame only.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgepose.contract import Color
from edgepose.feeding import check_color
from edgepose.options import unknown_option
from edgepose.pictures import is_url, load_picture
from edgepose.sources import capture
from edgepose.sources.items import Item, find_items, one_item
from edgepose.sources.live import NewestFrame

__all__ = ["Frame", "Source", "open_source"]

OnError: TypeAlias = Literal["raise", "skip"]
_OPTIONS = ("vid_stride", "on_error", "color")


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a source.

    image: (H, W, 3) or (H, W) uint8, its colours in the order `color`. source: path, URL or camera; "" for a picture
    without a name. index: the frame's number in its video or stream, from 0, counting those dropped and strided
    over; of a picture, its place among the source's pictures. time: seconds since the video's beginning, or since a
    live source was opened; None for pictures.
    """

    image: NDArray[np.uint8]
    color: Color
    source: str
    index: int
    time: float | None = None


def open_source(
    source: Any, *, vid_stride: int = 1, on_error: OnError = "raise", color: Color = "BGR", **unknown: Any
) -> Source:
    """Opens anything that pictures come from.

    Args:
        source: a picture (path, URL, bytes, numpy array (H, W, 3), Pillow picture); a folder (its pictures and videos
            in natural order, img2 before img10; not those in its subfolders) or a glob ("photos/**/*.jpg"); a .txt file
            with a source a line, relative to its own folder; a list of those, a numpy batch (N, H, W, 3) or any
            iterator of pictures; a video file or its URL; a camera: its number (0 or "0") or "/dev/video0"; a network
            stream: RTSP, RTMP, HLS (.m3u8), MJPEG over HTTP. A live source is alone: one `open_source` each.
        vid_stride: takes every so many frames of a video file.
        on_error: "raise", or "skip": what cannot be read is noted in the source's `problems`, and the next one comes.
        color: the order of numpy pictures.

    Raises:
        FileNotFoundError: nothing is there. ValueError, TypeError: it is no source, or an option is wrong.
        ImportError: videos and cameras need OpenCV: pip install 'edgepose[video]'.
        OSError, and among it PermissionError and ConnectionError: a camera or stream that cannot be opened.
    """
    if unknown:
        raise TypeError(unknown_option(next(iter(unknown)), _OPTIONS, "option of open_source"))
    if isinstance(vid_stride, bool) or not isinstance(vid_stride, int) or vid_stride < 1:
        raise ValueError(f"vid_stride is a whole number from 1, got {vid_stride!r}")
    if on_error not in ("raise", "skip"):
        raise ValueError(f'on_error is "raise" or "skip", got {on_error!r}')
    order: Any = check_color(color)
    return Source(find_items(source), vid_stride=vid_stride, on_error=on_error, color=order)


class Source:
    """An opened source: iterate over its frames once, then close it, or use it in a `with`. One thread reads; any may
    close.

    total: how many frames will come (as a video file says), None where nobody knows before the end.
    fps: frames a second of the video or stream that is read, None for pictures or where it does not say.
    problems: (name, error) of what could not be read.
    """

    def __init__(self, items: list[Item] | Iterator[Any], *, vid_stride: int, on_error: OnError, color: Color) -> None:
        self.problems: list[tuple[str, Exception]] = []
        self.total: int | None = None
        self.fps: float | None = None
        self._vid_stride = vid_stride
        self._on_error = on_error
        self._color: Color = color
        self._video: capture.Capture | None = None
        self._newest: NewestFrame | None = None
        self._closed = False
        self._reading = threading.Lock()
        if isinstance(items, list):
            self._open_first(items)
        self._frames = self._read(items)

    @property
    def live(self) -> bool:
        """Whether it is a camera or network stream, whose frames are dropped when nobody takes them in time."""
        return self._newest is not None

    @property
    def dropped(self) -> int:
        """How many frames of a live source were replaced by newer ones before anybody took them."""
        return 0 if self._newest is None else self._newest.dropped

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        with self._reading:
            frame = None if self._closed else next(self._frames)
        if frame is None or self._closed:  # meanwhile, by another thread
            self._free()
            raise StopIteration
        return frame

    def close(self) -> None:
        """Frees files, cameras and the reading thread; safe to call twice, and from any thread: one that reads gets no
        further frame."""
        self._closed = True
        if self._newest is not None:
            self._newest.close()  # ends the iteration too, also one that waits for a frame in another thread
        else:
            self._free()

    def _free(self) -> None:
        """Unless another thread reads just now: with its frame that does it."""
        if self._reading.acquire(blocking=False):
            try:
                self._frames.close()
                if self._video is not None:
                    self._video.release()
            finally:
                self._reading.release()

    def pass_over(self, name: str, error: Exception) -> None:
        """Notes an error in `problems` with on_error="skip"; raises it otherwise."""
        if self._on_error == "raise":
            raise error
        error.__context__ = error.__cause__ = None  # what it came through holds on to the picture
        self.problems.append((name, error.with_traceback(None)))

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_first(self, items: list[Item]) -> None:
        """Opens what is read alone, so that its errors come at once, and its length and rate are known."""
        if all(item.kind == "picture" for item in items):
            self.total = len(items)
        elif len(items) == 1 and items[0].kind == "video":
            frames = capture.frame_count(self._open_video(items[0]))
            self.total = None if frames is None else math.ceil(frames / self._vid_stride)
        elif len(items) == 1:
            opened = capture.open_live(items[0].value, items[0].name)
            self.fps = capture.frame_rate(opened)
            self._newest = NewestFrame(opened, items[0].name)
            weakref.finalize(self, self._newest.close)  # a thread in OpenCV when Python ends would abort the process

    def _read(self, items: Iterable[Any]) -> Generator[Frame, None, None]:
        index = 0
        for entry in items:
            name, kind = f"picture {index}", "picture"
            try:
                item = entry if isinstance(entry, Item) else one_item(entry)
                name, kind = item.name or name, item.kind
                if item.kind == "picture":
                    yield self._picture(item, index)
                elif item.kind == "video":
                    yield from self._video_frames(item)
                else:
                    yield from self._live_frames(item)
            except (OSError, ValueError, TypeError) as error:
                self.pass_over(name, error)
            index += kind == "picture"

    def _picture(self, item: Item, index: int) -> Frame:
        image, color = load_picture(item.value, color=self._color)
        return Frame(image, color, item.name, index)

    def _open_video(self, item: Item) -> capture.Capture:
        self._video = capture.open_video(item.value)
        self.fps = capture.frame_rate(self._video)
        return self._video

    def _video_frames(self, item: Item) -> Iterator[Frame]:
        """Every vid_stride-th frame of the video, in order."""
        video = self._video or self._open_video(item)
        expected = capture.frame_count(video)
        index = 0
        try:
            while video.grab():
                if index % self._vid_stride == 0:
                    good, image = video.retrieve()
                    if good and image is not None:
                        yield Frame(image, "BGR", item.name, index, capture.position(video, index))
                index += 1
        finally:
            self._video = None
            video.release()
        if index == 0:
            advice = "; the server may not let it be read from its end: download it first" if is_url(item.name) else ""
            raise ValueError(f"the video {item.name} has no frame that can be read{advice}")
        if expected is not None and index < 0.95 * expected - 1:
            self.problems.append(
                (item.name, EOFError(f"ends after {index} of {expected} frames: cut short or damaged"))
            )

    def _live_frames(self, item: Item) -> Iterator[Frame]:
        """The newest frame each time, until the source is closed; ConnectionError when it ends by itself."""
        assert self._newest is not None  # _open_first opened it
        for image, index, seconds in self._newest:
            yield Frame(image, "BGR", item.name, index, seconds)
