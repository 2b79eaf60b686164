"""A window that shows what is found, by OpenCV."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgepose.sources import Frame

_NAME = "edgepose"
_QUIT = (ord("q"), 27)  # 27: Escape


class WindowClosed(Exception):
    """The user closed the window, or pressed q or Escape."""


class Window:
    """Shows drawn pictures: a frame of a video for an instant, a picture until a key is pressed.

    Raises RuntimeError where there is no screen, ImportError where OpenCV is missing or was built without windows.
    """

    def __init__(self) -> None:
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise RuntimeError(
                "a window needs a screen, and there is none here (neither DISPLAY nor WAYLAND_DISPLAY is set): "
                "save=true of `edgepose predict` writes what it would show, and `edgepose demo` has a page"
            )
        self._cv2 = _import_opencv()

    def add(self, frame: Frame, bgr: NDArray[np.uint8]) -> None:
        import numpy as np

        self._cv2.imshow(_NAME, np.ascontiguousarray(bgr))
        key = self._cv2.waitKey(1)
        while frame.time is None and key < 0 and self._open():
            key = self._cv2.waitKey(50)
        if key & 0xFF in _QUIT or not self._open():
            raise WindowClosed

    def _open(self) -> bool:
        return bool(self._cv2.getWindowProperty(_NAME, self._cv2.WND_PROP_VISIBLE) >= 1)

    def close(self) -> list[Path]:
        self._cv2.destroyAllWindows()
        return []

    def discard(self) -> None:
        self._cv2.destroyAllWindows()


def _import_opencv() -> Any:
    advice = "a window needs OpenCV with windows: pip uninstall opencv-python-headless; pip install opencv-python"
    try:
        import cv2
    except ImportError as error:
        raise ImportError(advice) from error
    try:
        cv2.namedWindow(_NAME, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
    except cv2.error as error:
        raise ImportError(f"{advice} (OpenCV {cv2.__version__} says: {str(error).strip().splitlines()[-1]})") from error
    return cv2
