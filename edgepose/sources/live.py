"""The newest frame of a capture that does not wait: a thread reads all of them and keeps the last."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgepose.sources.capture import Capture

_RETRIES = 5
_RETRY_S = 0.1
_JOIN_S = 2.0

Numbered = tuple[NDArray[np.uint8], int, float]
"""Image, its number from 0 with dropped ones counted, seconds since the capture was opened."""


class NewestFrame:
    """Iterate to wait for, and take, the newest frame; each comes once.

    dropped: frames that a newer one replaced before they were taken. The iteration stops after `close`, and raises
    ConnectionError when the capture stops delivering.
    """

    def __init__(self, capture: Capture, name: str) -> None:
        self.dropped = 0
        self._capture = capture
        self._name = name
        self._changed = threading.Condition()
        self._newest: Numbered | None = None
        self._delivered = 0
        self._closed = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"edgepose reads {name}", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Numbered]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._closed or self._ended)
                frame, self._newest = self._newest, None
            if self._closed:
                return
            if frame is None:
                raise ConnectionError(self._end())
            yield frame

    def _end(self) -> str:
        if not self._delivered:
            return f"{self._name} delivered no frame"
        return f"{self._name} stopped after {self._delivered} frames: unplugged, ended, or the network failed"

    def close(self) -> None:
        """Ends the iteration and the thread; a capture that hangs in a read is freed when that returns."""
        with self._changed:
            self._closed = True
            self._newest = None
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        opened = time.monotonic()
        try:
            while not self._closed and self._grab():
                seconds = time.monotonic() - opened
                good, image = self._capture.retrieve()
                if good and image is not None:
                    self._put((image, self._delivered, seconds))
        finally:
            self._capture.release()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _grab(self) -> bool:
        """Waits for the next frame; a few failures in a row are the end."""
        for _ in range(_RETRIES):
            if self._capture.grab():
                return True
            if self._closed:
                return False
            time.sleep(_RETRY_S)
        return False

    def _put(self, frame: Numbered) -> None:
        with self._changed:
            self.dropped += self._newest is not None
            self._newest = None if self._closed else frame
            self._delivered += 1
            self._changed.notify_all()
