"""TFLite: .tflite files on the CPU by LiteRT (or the older tflite-runtime), and on the Edge TPU by its delegate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgepose.backends.base import (
    Options,
    TensorSpec,
    check_ends,
    check_shape,
    unknown_device,
    unsupported_precision,
    what_it_says,
)
from edgepose.backends.quiet import quiet_stderr
from edgepose.contract import Quantization

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAME = "tflite"

_DEVICES = ("auto", "cpu", "edgetpu", "edgetpu:0", "usb", "usb:0", "pci", "pci:0")
_EDGETPU_LIBRARIES = {"linux": "libedgetpu.so.1", "darwin": "libedgetpu.1.dylib", "win32": "edgetpu.dll"}


def runtime() -> tuple[type[Any], Callable[..., Any], str]:
    """(Interpreter, load_delegate, name and version) of the TFLite runtime that is installed."""
    try:
        import ai_edge_litert
        from ai_edge_litert.interpreter import Interpreter, load_delegate
    except ImportError as error:
        try:
            import tflite_runtime
            from tflite_runtime.interpreter import Interpreter, load_delegate
        except ImportError:
            raise ImportError(
                "running .tflite models needs LiteRT, which the plain install brings: pip install ai-edge-litert "
                f'(on 32-bit ARM with Python up to 3.11: pip install "edgepose[tflite]") ({error})'
            ) from error
        return Interpreter, load_delegate, f"tflite-runtime-{tflite_runtime.__version__}"
    return Interpreter, load_delegate, f"litert-{ai_edge_litert.__version__}"


def is_edgetpu(device: str) -> bool:
    return device.partition(":")[0] in ("edgetpu", "usb", "pci")


def _edgetpu_options(device: str) -> dict[str, str]:
    """The delegate's options, as Coral documents them: {"device": ":1"} the second, "usb", "usb:0", "pci", "pci:1"."""
    kind, colon, index = device.partition(":")
    if colon and not (index.isascii() and index.isdigit()):
        raise unknown_device(device, "TFLite", _DEVICES)
    if kind == "edgetpu":
        return {"device": f":{index}"} if colon else {}
    return {"device": device}


def _load_edgetpu(device: str, load_delegate: Callable[..., Any]) -> Any:
    import sys

    library = _EDGETPU_LIBRARIES.get(sys.platform, _EDGETPU_LIBRARIES["linux"])
    options = _edgetpu_options(device)
    try:
        _check_library(library)
        return load_delegate(library, options)
    except OSError as error:
        raise ImportError(
            f"device={device!r} needs the Edge TPU runtime, {library} ({what_it_says(error)}): install libedgetpu, a "
            "build against a newer TensorFlow than Google's own (docs/boards/coral.md: which package, and from where)"
        ) from error
    except ValueError as error:
        raise RuntimeError(
            f"device={device!r}: {library} is installed but opened no Edge TPU: is it plugged in, is this user in the "
            f"group plugdev (USB) or apex (PCIe), is no other process using it? ({what_it_says(error)})"
        ) from error


def _check_library(library: str) -> None:
    """Raises OSError for a missing library; the delegate's class would leave a half-made object behind."""
    import ctypes

    ctypes.CDLL(library)


def _quantization(details: dict[str, Any]) -> Quantization | None:
    parameters = details["quantization_parameters"]
    if len(parameters["scales"]) != 1 or not parameters["scales"][0] > 0:
        return None
    return Quantization(float(parameters["scales"][0]), int(parameters["zero_points"][0]))


def _tensor(details: dict[str, Any]) -> TensorSpec:
    signature = details.get("shape_signature", details["shape"])
    sides = signature if len(signature) == len(details["shape"]) else details["shape"]
    shape = tuple(int(side) if side >= 0 else None for side in sides)
    return TensorSpec(details["name"], shape, np.dtype(details["dtype"]).name, _quantization(details))


class _Memory:
    """A tensor's memory as numpy sees it; it keeps the interpreter alive, as the interpreter's own views do, without
    counting as one of those, for as long as one of them lives `invoke` refuses to run."""

    def __init__(self, view: np.ndarray[Any, Any], interpreter: Any) -> None:
        self.__array_interface__ = view.__array_interface__
        self._interpreter = interpreter


class TfliteBackend:
    """An interpreter, fed through its own input tensor and read through its own output tensors."""

    name = NAME

    def __init__(self, path: str, options: Options) -> None:
        if options.precision not in (None, "f32"):
            raise unsupported_precision(str(options.precision), "TFLite", ("f32",))
        edgetpu = is_edgetpu(options.device)
        if not edgetpu and options.device not in ("auto", "cpu"):
            raise unknown_device(options.device, "TFLite", _DEVICES)
        with quiet_stderr(options.verbose):
            interpreter_type, load_delegate, _ = runtime()
            delegates = [_load_edgetpu(options.device, load_delegate)] if edgetpu else None
            try:
                self._interpreter = interpreter_type(
                    path, experimental_delegates=delegates, num_threads=options.threads
                )
                self._interpreter.allocate_tensors()
            except Exception as error:
                raise ValueError(f"{path}: TFLite cannot load this model: {what_it_says(error)}") from error
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        check_ends(path, inputs, outputs)
        self._input_index: int = inputs[0]["index"]
        self._output_indices: list[int] = [details["index"] for details in outputs]
        self.inputs = tuple(_tensor(details) for details in inputs)
        self.outputs = tuple(_tensor(details) for details in outputs)
        self._input: NDArray[Any] | None = None
        self._results: list[np.ndarray[Any, Any]] = []
        self._places: list[Any] = []

    def select_outputs(self, order: Sequence[int]) -> None:
        self.outputs = tuple(self.outputs[i] for i in order)
        self._output_indices = [self._output_indices[i] for i in order]
        self._results = []

    def _view(self, index: int) -> np.ndarray[Any, Any]:
        return np.asarray(_Memory(self._interpreter.tensor(index)(), self._interpreter))

    def input_buffer(self, shape: tuple[int, ...]) -> NDArray[Any]:
        if self._input is None or self._input.shape != shape:
            check_shape(self.inputs[0], shape)
            self._input, self._results = None, []
            if None in self.inputs[0].shape:
                self._resize(shape)
            self._input = self._view(self._input_index)
        return self._input

    def _resize(self, shape: tuple[int, ...]) -> None:
        try:
            self._interpreter.resize_tensor_input(self._input_index, list(shape))
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"the model does not take an input of shape {shape}: {what_it_says(error)}") from error

    def infer(self) -> list[np.ndarray[Any, Any]]:
        if self._input is None:
            raise RuntimeError("infer was called before input_buffer")
        try:
            self._interpreter.invoke()
        except Exception as error:
            raise RuntimeError(f"TFLite could not run the model: {what_it_says(error)}") from error
        self._refresh()
        return self._results

    def _refresh(self) -> None:
        """The runtime may move an output whose size it learns only while it runs: its place is asked for each time."""
        places = [self._place(index) for index in self._output_indices]
        if places != self._places or not self._results:
            self._results = [self._view(index) for index in self._output_indices]
            self._places = places

    def _place(self, index: int) -> tuple[int, tuple[int, ...]]:
        view = self._interpreter.tensor(index)()
        return view.__array_interface__["data"][0], view.shape

    def close(self) -> None:
        self._input, self._results, self._interpreter = None, [], None
