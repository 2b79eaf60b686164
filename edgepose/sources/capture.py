"""Videos, cameras and network streams through OpenCV, which is imported when the first one is opened."""

from __future__ import annotations

import contextlib
import glob
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgepose.pictures import is_url, seen_from, without_password

TIMEOUT_MS = 10_000

_silencing = threading.Lock()
_silenced, _level = 0, 0  # how many threads are in `quiet`; OpenCV's level before the first


class Capture(Protocol):
    """What is used of `cv2.VideoCapture`."""

    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, NDArray[np.uint8] | None]: ...
    def get(self, prop: int, /) -> float: ...
    def release(self) -> None: ...


def import_cv2() -> Any:
    """OpenCV, or an ImportError that names the extra."""
    # FFmpeg's own messages; read when OpenCV first opens a video
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        import cv2
    except ImportError as error:
        raise ImportError("videos and cameras need OpenCV: pip install 'edgepose[video]'") from error
    return cv2


def open_video(path: str) -> Capture:
    """A video file or its URL. Raises FileNotFoundError, or ValueError when it is none or is damaged."""
    if "://" not in path and not os.path.exists(path):
        raise FileNotFoundError(f"there is no video {path!r}{seen_from(path)}")
    cv2 = import_cv2()
    with quiet(cv2):
        video = cv2.VideoCapture(path, cv2.CAP_FFMPEG, _timeouts(cv2))
        if not video.isOpened():
            video = cv2.VideoCapture(path)
    if not video.isOpened():
        shown = without_password(path)
        if is_url(path):
            from edgepose import download

            download.content_type(path)  # raises where the server has none
        raise ValueError(f"{shown} cannot be read as a video: it is damaged, cut short, none, or of an unknown codec")
    opened: Capture = video
    return opened


def open_live(source: int | str, name: str) -> Capture:
    """A camera by its number or device file, or a network stream by its URL, which `name` stands for in errors.

    Raises FileNotFoundError or PermissionError for a camera that is not there or may not be read, OSError for one that
    is in use, ConnectionError for a stream that does not answer within 10 s.
    """
    return _open_stream(source, name) if isinstance(source, str) and "://" in source else _open_camera(source)


def _open_stream(url: str, name: str) -> Capture:
    cv2 = import_cv2()
    with quiet(cv2):
        stream = cv2.VideoCapture(url, cv2.CAP_FFMPEG, _timeouts(cv2))
    if not stream.isOpened():
        raise ConnectionError(f"{name} cannot be opened: check the address, the password and that the camera is on")
    opened: Capture = stream
    return opened


def _open_camera(camera: int | str) -> Capture:
    linux = sys.platform.startswith("linux")
    if linux:
        _check_device(f"/dev/video{camera}" if isinstance(camera, int) else camera)
    cv2 = import_cv2()
    with quiet(cv2):
        video = cv2.VideoCapture(camera, cv2.CAP_V4L2 if linux else cv2.CAP_ANY)
    if not video.isOpened():
        raise OSError(
            f"camera {camera} cannot be opened: in use by another program, or no capture device (for a Raspberry Pi "
            "camera module, give the arrays of picamera2)"
        )
    video.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # not all drivers listen; the newest frame is kept in any case
    opened: Capture = video
    return opened


def _check_device(device: str) -> None:
    if not os.path.exists(device):
        there = ", ".join(sorted(glob.glob("/dev/video*"))) or "none"
        raise FileNotFoundError(f"there is no camera {device}; cameras found: {there}")
    if not os.access(device, os.R_OK | os.W_OK):
        raise PermissionError(f"{device} may not be read: sudo usermod -aG video $USER, then log in again")


def _timeouts(cv2: Any) -> list[int]:
    return [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT_MS]


@contextlib.contextmanager
def quiet(cv2: Any) -> Iterator[None]:
    """OpenCV's warnings on stderr say nothing that our errors do not. Of several threads in here the first one silences
    OpenCV, and the last one gives it back its level."""
    global _silenced, _level
    log = cv2.utils.logging
    with _silencing:
        if _silenced == 0:
            _level = log.getLogLevel()
            log.setLogLevel(log.LOG_LEVEL_SILENT)
        _silenced += 1
    try:
        yield
    finally:
        with _silencing:
            _silenced -= 1
            if _silenced == 0:
                log.setLogLevel(_level)


_FPS, _FRAME_COUNT, _POS_MSEC = 5, 7, 0  # cv2.CAP_PROP_…, the same numbers since OpenCV 2


def frame_rate(capture: Capture) -> float | None:
    """Frames a second, None where the capture does not say."""
    rate = capture.get(_FPS)
    return float(rate) if 0 < rate < 1000 else None


def frame_count(capture: Capture) -> int | None:
    """Frames in the file as its header says, None where it does not."""
    frames = capture.get(_FRAME_COUNT)
    return int(frames) if 0 < frames < 1e9 else None


def position(capture: Capture, index: int) -> float:
    """Seconds from the video's beginning to the frame just grabbed."""
    seconds = capture.get(_POS_MSEC) / 1000
    if seconds > 0 or index == 0:
        return max(float(seconds), 0.0)
    rate = frame_rate(capture)
    return index / rate if rate else 0.0
