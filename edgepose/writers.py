"""Writing pictures and videos: whole, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from edgepose.modelfiles.files import write_atomically
from edgepose.options import unknown_option
from edgepose.pictures import is_pillow
from edgepose.sources.capture import import_cv2, open_video, quiet

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from edgepose.contract import Color

_PICTURE_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}  # those that every build of OpenCV writes
_LEAST_FREE_BYTES = 2_000_000
_FRAMES_BETWEEN_CHECKS = 50


def save_picture(
    path: str | os.PathLike[str], image: NDArray[np.uint8] | Image.Image, *, color: Color = "BGR", quality: int = 95
) -> None:
    """Writes a picture in the format of the path's ending: .jpg, .png, .bmp, .webp or .tif.

    image: numpy uint8 (H, W, 3) in the order `color`, (H, W, 4) with alpha last, (H, W) gray, or a Pillow picture.
    quality: of JPEG and WebP. Raises ValueError for another ending or array, OSError when it cannot be written, for
    one on a full disk; the file then is as it was before.
    """
    import io

    path = os.fspath(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _PICTURE_FORMATS:
        raise ValueError(unknown_option(suffix, _PICTURE_FORMATS, f"picture ending of {path}:"))
    picture = image if is_pillow(image) else _to_pillow(image, color)
    if suffix in (".jpg", ".jpeg") and picture.mode not in ("RGB", "L"):
        picture = picture.convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, _PICTURE_FORMATS[suffix], quality=quality)
    write_atomically(path, [buffer.getvalue()])


def _to_pillow(image: Any, color: str) -> Image.Image:
    from PIL import Image

    good_shape = isinstance(image, np.ndarray) and (
        image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))
    )
    if not good_shape or image.dtype != np.uint8:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"a picture to save is uint8 (H, W, 3), (H, W, 4) or (H, W), got {got}")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim == 3 and color == "BGR":
        image = image[:, :, [2, 1, 0, 3][: image.shape[2]]]
    return Image.fromarray(np.ascontiguousarray(image))


class VideoWriter:
    """Writes frames to an .mp4 (MPEG-4) or .avi (MJPEG) video; use it in a `with`, or call `close` or `discard`.

    path: taken when the video is complete; an exception inside the `with` leaves nothing there. fps: frames a second.
    The size is the first frame's, each side rounded down to an even number, as the codecs want it.

    Raises ImportError without OpenCV, ValueError for another ending, fps or frame, OSError where the video cannot be
    written: the folder is missing or read-only, the disk is full.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float) -> None:
        self._path = os.fspath(path)
        stem, suffix = os.path.splitext(self._path)
        if suffix.lower() not in _CODECS:
            raise ValueError(unknown_option(suffix, _CODECS, f"video ending of {self._path}:"))
        if not 0 < fps <= 1000:
            raise ValueError(f"fps is more than 0 and at most 1000, got {fps}")
        self._cv2 = import_cv2()
        self._fps = fps
        self._codec = _CODECS[suffix.lower()]
        folder, name = os.path.split(stem)
        self._part = os.path.join(folder, f".{name}.{os.getpid()}.part{suffix}")  # OpenCV goes by the ending
        self._writer: Any = None
        self._size = (0, 0)
        self.frames = 0

    def write(self, image: NDArray[np.uint8], *, color: Color = "BGR") -> None:
        """Adds a frame, (H, W, 3) uint8. Raises ValueError when it is not of the first one's size."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"a video frame is uint8 (H, W, 3), got {image.dtype} {image.shape}")
        if self._writer is None:
            self._open(image)
        height, width = image.shape[:2]
        if (width, height) != self._size:
            raise ValueError(f"{self._path} is of {self._size[0]}x{self._size[1]} frames, got one of {width}x{height}")
        if self.frames % _FRAMES_BETWEEN_CHECKS == 0:
            self._check_disk()
        even = image[: height // 2 * 2, : width // 2 * 2]
        self._writer.write(np.ascontiguousarray(even[:, :, ::-1] if color == "RGB" else even))
        self.frames += 1

    def _open(self, image: NDArray[np.uint8]) -> None:
        height, width = image.shape[:2]
        if min(height, width) < 2:
            raise ValueError(f"a video frame is at least 2x2 pixels, got {width}x{height}")
        folder = os.path.dirname(self._path) or "."
        if not os.access(folder, os.W_OK):
            raise OSError(
                errno.EACCES if os.path.isdir(folder) else errno.ENOENT, "cannot write into the folder", folder
            )
        self._check_disk()
        code = self._cv2.VideoWriter.fourcc(*self._codec)
        with quiet(self._cv2):
            writer = self._cv2.VideoWriter(self._part, code, self._fps, (width // 2 * 2, height // 2 * 2))
        if not writer.isOpened():
            self.discard()
            raise OSError(errno.EIO, f"OpenCV cannot write a {width}x{height} {self._codec} video", self._path)
        self._writer, self._size = writer, (width, height)

    def _check_disk(self) -> None:
        if shutil.disk_usage(os.path.dirname(self._path) or ".").free < _LEAST_FREE_BYTES:
            raise OSError(errno.ENOSPC, "no room left for the video", self._path)

    def close(self) -> None:
        """Completes the video and gives it its name; writes nothing when there was no frame. Safe to call twice."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        try:
            self._check_complete()
            os.replace(self._part, self._path)
        except BaseException:
            self.discard()
            raise

    def _check_complete(self) -> None:
        """OpenCV does not say when a write fails: the file has to be readable, and to hold every frame."""
        try:
            video = open_video(self._part)
        except (ValueError, OSError):
            raise OSError(errno.EIO, "the video could not be completed: is the disk full?", self._path) from None
        written = int(video.get(self._cv2.CAP_PROP_FRAME_COUNT))
        video.release()
        if written < self.frames:  # one more where Ctrl-C came between the write and the count
            message = f"only {written} of {self.frames} frames could be written: is the disk full?"
            raise OSError(errno.EIO, message, self._path)

    def discard(self) -> None:
        """Drops what was written; a video that stood there before stays. Safe to call twice."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        if os.path.exists(self._part):
            os.unlink(self._part)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
