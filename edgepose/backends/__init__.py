"""The runtimes that models run in: one file each, none imported before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgepose.backends.base import Options
from edgepose.options import did_you_mean

if TYPE_CHECKING:
    from edgepose.backends.base import Backend

BACKENDS = ("onnxruntime", "openvino", "tflite")
_FOR_FORMAT = {"onnx": ("onnxruntime", "openvino"), "openvino": ("openvino",), "tflite": ("tflite",)}


def choose_backend(model_format: str, backend: str) -> str:
    """The runtime for a model file of this format: the one named, or, of "auto", the format's own."""
    if not isinstance(backend, str):
        raise TypeError(f"got backend={backend!r}, expected text such as 'auto'")
    able = _FOR_FORMAT[model_format]
    if backend == "auto":
        return able[0]
    if backend not in BACKENDS:
        hint = did_you_mean(backend, BACKENDS)
        raise ValueError(f"got backend={backend!r}, expected auto or one of {', '.join(BACKENDS)}{hint}")
    if backend not in able:
        raise ValueError(f"backend={backend!r} does not run {model_format} models, expected one of {', '.join(able)}")
    return backend


def check_options(options: Options) -> None:
    """Raises TypeError or ValueError for options that no runtime takes."""
    threads = options.threads
    if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool)):
        raise TypeError(f"got threads={threads!r}, expected an integer or None")
    if threads is not None and not 1 <= threads <= 1024:
        raise ValueError(f"got threads={threads}, expected 1 to 1024, or None for the runtime's default")
    if not isinstance(options.device, str):
        raise TypeError(f"got device={options.device!r}, expected text such as 'cpu'")


def load(backend: str, path: str, options: Options) -> Backend:
    """Loads the model. Raises ValueError for one that the runtime refuses, ImportError for a missing runtime."""
    if backend == "onnxruntime":
        from edgepose.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend(path, options)
    if backend == "openvino":
        from edgepose.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(path, options)
    from edgepose.backends.tflite import TfliteBackend

    return TfliteBackend(path, options)
