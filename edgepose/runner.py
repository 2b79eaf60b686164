"""`PoseRunner`: a model file in, people out. predict = preprocess, infer, decode."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn, overload

import numpy as np

from edgepose.artifact import Artifact, open_artifact
from edgepose.feeding import check_color, exported_size, input_size, make_letterbox, picture_size, rect_size
from edgepose.options import check_integer, check_number, unknown_option
from edgepose.reading import make_decoder, nms_options
from edgepose.result import PoseResult, Speed
from edgepose.shipped import default_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgepose._core import Detections, Transform
    from edgepose.contract import ModelSpec, Suppression
    from edgepose.pictures import Picture
    from edgepose.stream import Stream

    Pictures = list[Picture] | tuple[Picture, ...]

Roi = tuple[int, int, int, int]

MAX_BATCH = 16  # of a model that takes any batch: more gains no speed on a small computer and costs memory
_LOADING = ("spec", "backend", "device", "threads", "precision")  # options of `open_artifact`


class PoseRunner:
    """Runs one pose model on pictures.

    Args:
        model: path of a .onnx, .tflite or OpenVINO (.xml or its folder) file; or an artifact that is open already,
            which the runner then owns; None: the model that comes with edgepose.
        conf: least score of a person, 0 to 1.
        iou: two people that overlap more than this are one: box IoU, or OKS with ``nms="oks"``; None: what the model
            asks for with its nms, else 0.7.
        max_det: most people in a result.
        device: "auto", "cpu", or as the runtime calls it: "gpu", "npu", "cuda", "edgetpu", "edgetpu:1", "usb", "pci".
        backend: "auto" (chosen by the file), "onnxruntime", "openvino" or "tflite".
        threads: threads of the runtime; None is the runtime's own default.
        precision: None is the runtime's own default, "f32" is exact; "f16" and "bf16" where the runtime has them.
        imgsz: input size of a model that takes any: one side, or (height, width), in pixels, rounded up to the stride;
            None: the size that it was exported at, else 640.
        rect: such a model is given the picture's own aspect instead of a square.
        nms: "iou" or "oks" (object keypoint similarity, by the model's sigmas); None: what the model asks for.
        agnostic: people of different classes suppress each other.
        max_candidates: the best so many enter the suppression.
        color: the order of numpy pictures: "BGR" (OpenCV's), "RGB", "BGRA", "RGBA", "GRAY", "NV12", "I420" or "YUYV".
        clip: boxes and keypoints are kept inside the picture.
        antialias: smooth before strong downscaling; slower, and not how most models were trained.
        spec: how to feed and read a model that does not say so itself: a path, a dict or a name (docs/artifact.md).
        verbose: let the runtime print.

    A runner serves one thread at a time and raises RuntimeError when two use it at once: make one for each thread.
    It can be pickled: the other process loads the model again.

    Raises:
        FileNotFoundError, ValueError: the model file, see the message. ImportError: the runtime is not installed.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Artifact | None = None,
        *,
        conf: float = 0.25,
        iou: float | None = None,
        max_det: int = 300,
        device: str = "auto",
        backend: str = "auto",
        threads: int | None = None,
        precision: str | None = None,
        imgsz: int | Sequence[int] | None = None,
        rect: bool = False,
        nms: Suppression | None = None,
        agnostic: bool = False,
        max_candidates: int = 30000,
        color: str = "BGR",
        clip: bool = True,
        antialias: bool = False,
        spec: str | os.PathLike[str] | Mapping[str, Any] | ModelSpec | None = None,
        verbose: bool = False,
        **unknown: NoReturn,
    ) -> None:
        options = {name: value for name, value in locals().items() if name not in ("self", "unknown")}
        for name in unknown:
            raise TypeError(unknown_option(name, options))
        check_number("conf", conf)
        if iou is not None:
            check_number("iou", iou)
        if nms is not None and not isinstance(nms, str):
            raise TypeError(f"got nms={nms!r}, expected 'iou' or 'oks'")
        for name in ("max_det", "max_candidates"):
            check_integer(name, options[name])
        self._options = options
        self._color = check_color(color)
        self._busy = threading.Lock()
        self._closed = False
        started = perf_counter()
        loading: dict[str, Any] = {name: options[name] for name in _LOADING}
        if isinstance(model, Artifact):
            _refuse_loading_options(loading)
            artifact = model
        else:
            artifact = open_artifact(default_model() if model is None else model, **loading, verbose=verbose)
        self._spec, self._backend = artifact.spec, artifact.backend
        try:
            self._size = input_size(self._spec.input, imgsz, rect, exported_size(self._spec.origin))
            self._letterbox = make_letterbox(self._spec.input, antialias)
            self._decode = make_decoder(
                self._spec,
                conf=conf,
                max_det=max_det,
                max_candidates=max_candidates,
                **nms_options(self._spec.decoder, nms, iou),
                agnostic=agnostic,
                clip=clip,
            )
        except BaseException:
            self._backend.close()
            raise
        self.load_ms = (perf_counter() - started) * 1e3

    @property
    def spec(self) -> ModelSpec:
        """How the model is fed and read."""
        return self._spec

    @property
    def backend(self) -> str:
        """The runtime that runs the model."""
        return self._backend.name

    @overload
    def predict(self, source: Picture, *, color: str | None = None, roi: Roi | None = None) -> PoseResult: ...
    @overload
    def predict(self, source: Pictures, *, color: str | None = None, roi: Roi | None = None) -> list[PoseResult]: ...
    def predict(
        self, source: Picture | Pictures, *, color: str | None = None, roi: Roi | None = None
    ) -> PoseResult | list[PoseResult]:
        """Finds the people in a picture, or in each of several.

        Args:
            source: a numpy picture, a PIL picture, a path, the bytes of a picture file or a URL; or several: a list of
                those or a numpy batch (B, H, W, 3), which give a list of results.
            color: the order of numpy pictures here, instead of the runner's.
            roi: (x0, y0, x1, y1) in pixels: look only there. The result is in the whole picture's coordinates.

        Raises:
            ValueError, TypeError: a picture that is none. FileNotFoundError: no such file.
            RuntimeError: the runner is closed, or in use by another thread.
        """
        if roi is not None:
            _check_roi(roi)
        if isinstance(source, (list, tuple)) or (isinstance(source, np.ndarray) and source.ndim == 4):
            results = self._predict_many(source, color, roi)
            return [_named(result, item) for result, item in zip(results, source, strict=True)]
        return _named(self._predict_batch([self._load(source, color)], roi)[0], source)

    __call__ = predict

    def stream(self, source: Any, **options: Any) -> Stream:
        """An iterator of a result for every picture or frame of a source, one at a time: memory stays flat.

        Args:
            source: what `edgepose.sources.open_source` takes: files, folders, globs, URLs, videos, cameras, RTSP.
            options: of `open_source`: vid_stride, on_error, color (without it the runner's).

        Every result carries `source`, `frame` and `time`: the name, and the place in it. The stream tells how many
        frames of a live source were `dropped` and which `problems` were passed over; `close` it, or use it in a
        `with`, to leave a camera before it ends.

        Raises:
            What `open_source` raises, at once; what reading a frame and `predict` raise, while iterating.
        """
        from edgepose.sources import open_source
        from edgepose.stream import Stream

        frames = open_source(source, **{"color": self._color, **options})
        return Stream(frames, lambda frame: self._predict_batch([(frame.image, frame.color)], None)[0])

    def warmup(self, times: int = 1) -> None:
        """Predicts on a gray picture, so that what a runtime does only once is done."""
        height, width = self._size if isinstance(self._size, tuple) else (self._size, self._size)
        for _ in range(times):
            self.predict(np.full((height, width, 3), 114, np.uint8), color="BGR")

    def close(self) -> None:
        """Frees the model; safe to call twice, and from any thread: a prediction that runs comes to its end first.
        Predicting afterwards raises RuntimeError."""
        self._closed = True
        self._free()

    def _free(self) -> None:
        """Unless a prediction runs: at its end that does it."""
        if self._busy.acquire(blocking=False):
            try:
                self._backend.close()
            finally:
                self._busy.release()

    def __enter__(self) -> PoseRunner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self._options["model"], Artifact):
            raise TypeError("a PoseRunner of an open artifact cannot be pickled: make it of the model's path")
        return _rebuild, (self._options,)

    def _load(self, source: Picture, color: str | None) -> tuple[NDArray[np.uint8], str]:
        if isinstance(source, np.ndarray):
            return source, self._color if color is None else check_color(color)
        from edgepose.pictures import load_picture

        return load_picture(source)

    def _predict_many(self, sources: Any, color: str | None, roi: Roi | None) -> list[PoseResult]:
        """No more pictures are decoded at a time than the model is given at once."""
        batch = self._spec.input.batch or MAX_BATCH
        results: list[PoseResult] = []
        for start in range(0, len(sources), batch):
            pictures = [self._load(source, color) for source in sources[start : start + batch]]
            results += self._predict_batch(pictures, roi)
        return results

    def _predict_batch(self, pictures: list[tuple[NDArray[np.uint8], str]], roi: Roi | None) -> list[PoseResult]:
        with self._alone():
            sizes = [picture_size(image, color) for image, color in pictures]
            start = perf_counter()
            transforms = self._preprocess(pictures, sizes, roi)
            fed = perf_counter()
            outputs = self._backend.infer()
            inferred = perf_counter()
            found = self._decode_all(outputs, transforms, sizes)
            done = perf_counter()
        # A batch's time is shared out evenly: what one picture of it cost.
        share = 1e3 / len(pictures)
        speed = Speed((fed - start) * share, (inferred - fed) * share, (done - inferred) * share)
        people = self._spec.people
        return [
            PoseResult(*arrays, people=people, size=size, speed=speed)
            for arrays, size in zip(found, sizes, strict=True)
        ]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps a second thread out of the model's buffers."""
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("this PoseRunner is in use by another thread: make one PoseRunner for each thread")
        try:
            if self._closed:
                raise RuntimeError("this PoseRunner is closed: make a new one")
            yield
        finally:
            self._busy.release()
            if self._closed:
                self._free()

    def _preprocess(
        self, pictures: list[tuple[NDArray[np.uint8], str]], sizes: list[tuple[int, int]], roi: Roi | None
    ) -> list[Transform]:
        """Writes the pictures into the runtime's input."""
        buffer = self._backend.input_buffer(self._input_shape(sizes, roi))
        return [
            self._letterbox(image, buffer[i : i + 1], format=color, roi=roi)
            for i, (image, color) in enumerate(pictures)
        ]

    def _decode_all(
        self, outputs: list[NDArray[Any]], transforms: list[Transform], sizes: list[tuple[int, int]]
    ) -> list[Detections]:
        """Reads each picture's people from the runtime's outputs."""
        return [
            self._decode([output[i : i + 1] for output in outputs], transform, size)
            for i, (transform, size) in enumerate(zip(transforms, sizes, strict=True))
        ]

    def _input_shape(self, sizes: list[tuple[int, int]], roi: Roi | None) -> tuple[int, ...]:
        """The shape of the input tensor for pictures of these (width, height)."""
        spec = self._spec.input
        if isinstance(self._size, tuple):
            height, width = self._size
        else:
            seen = sizes if roi is None else [(roi[2] - roi[0], roi[3] - roi[1])]
            height, width = rect_size(seen, self._size, spec.resize.stride)
        batch = spec.batch or len(sizes)
        channels = 1 if spec.color == "GRAY" else 3
        return (batch, channels, height, width) if spec.layout == "NCHW" else (batch, height, width, channels)


def _named(result: PoseResult, source: object) -> PoseResult:
    """The result with the path or URL that its picture came from."""
    if isinstance(source, str) and "://" in source:
        from edgepose.pictures import without_password

        return result.with_source(without_password(source))
    return result.with_source(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else result


def _check_roi(roi: Roi) -> None:
    """Raises TypeError for what is no region; whether it lies in the picture is checked where it is used."""
    if not isinstance(roi, (tuple, list, np.ndarray)) or len(roi) != 4:
        raise TypeError(f"got roi={roi!r}, expected (x0, y0, x1, y1) in pixels")
    for side in roi:
        check_integer("roi", side)


def _refuse_loading_options(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if value not in (None, "auto"):
            raise ValueError(f"{name}={value!r}: the model is open already, give this where it is opened")


def _rebuild(options: dict[str, Any]) -> PoseRunner:
    return PoseRunner(**options)
