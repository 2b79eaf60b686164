"""Keeps Ctrl-C from ending a step in its middle."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Uninterrupted:
    """`with guard:` puts a Ctrl-C off to the end of the block, where it raises KeyboardInterrupt; a second one does so
    at once. For files that must not end in half a line. Only the main thread gets Ctrl-C: elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self._asked = False
        self._before: Any = None

    def __enter__(self) -> None:
        self._asked = False
        if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT)):
            self._before = signal.signal(signal.SIGINT, self._put_off)

    def _put_off(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def __exit__(self, *exception: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
        if self._asked:
            raise KeyboardInterrupt
