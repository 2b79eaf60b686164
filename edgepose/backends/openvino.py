"""OpenVINO: its own IR and .onnx files, on Intel CPUs, GPUs and NPUs, and on ARM CPUs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
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

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAME = "openvino"

_PRECISIONS = ("f32", "f16", "bf16")


def _runtime() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise ImportError(
            f'running OpenVINO models needs OpenVINO: pip install "edgepose[openvino]" ({error})'
        ) from error
    return openvino


_core: Any = None
_making_core = threading.Lock()


def _shared_core(runtime: Any) -> Any:
    """One for the process, kept to its end.

    The CPU plugin of a core sets the signal stack of the thread that loads it, and gives back the one before when it
    goes: of several that go in the order they came, the last leaves freed memory, on which Ctrl-C dies.
    """
    global _core
    with _making_core:
        if _core is None:
            _core = runtime.Core()
    return _core


def _device(core: Any, device: str) -> str:
    """OpenVINO's own name: "gpu:1" is GPU.1. "auto" is the CPU, which needs no compilation of kernels at the start."""
    if device == "auto":
        return "CPU"
    available = core.available_devices
    wanted = device.upper().replace(":", ".")
    if wanted not in available and wanted.split(".")[0] not in {name.split(".")[0] for name in available}:
        raise unknown_device(device, "OpenVINO on this machine", ["auto", *(name.lower() for name in available)])
    return wanted


def _config(options: Options) -> dict[str, Any]:
    if options.precision is not None and options.precision not in _PRECISIONS:
        raise unsupported_precision(options.precision, "OpenVINO", _PRECISIONS)
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if options.threads is not None:
        config["INFERENCE_NUM_THREADS"] = options.threads
    if options.precision is not None:
        config["INFERENCE_PRECISION_HINT"] = options.precision
    return config


def _tensor(port: Any, fallback: str) -> TensorSpec:
    names = sorted(port.get_names(), key=lambda name: (len(name), name)) or [fallback]
    partial = port.get_partial_shape()
    sides = () if partial.rank.is_dynamic else partial
    shape = tuple(side.get_length() if side.is_static else None for side in sides)
    return TensorSpec(names[0], shape, _dtype(port.get_element_type()), aliases=tuple(names[1:]))


def _dtype(element_type: Any) -> str:
    """The numpy name; an element type that numpy does not have keeps OpenVINO's name, which no spec asks for."""
    try:
        return str(np.dtype(element_type.to_dtype()))
    except (TypeError, RuntimeError):
        return str(element_type.get_type_name())


class OpenVinoBackend:
    """One infer request, fed through its own input tensor and read through its own output tensors."""

    name = NAME

    def __init__(self, path: str, options: Options) -> None:
        config = _config(options)
        with quiet_stderr(options.verbose):
            self._runtime = _runtime()
            core = _shared_core(self._runtime)
            device = _device(core, options.device)
            if device == "CPU":  # pinned, the threads of all models of a process share the first cores
                config["ENABLE_CPU_PINNING"] = False
            try:
                model = core.compile_model(path, device, config)
                self._request = model.create_infer_request()
            except Exception as error:
                raise ValueError(
                    f"{path}: OpenVINO cannot load this model on {device}: {what_it_says(error)}"
                ) from error
        check_ends(path, model.inputs, model.outputs)
        self._element_type = model.inputs[0].get_element_type()
        self.inputs = tuple(_tensor(port, f"input{i}") for i, port in enumerate(model.inputs))
        self.outputs = tuple(_tensor(port, f"output{i}") for i, port in enumerate(model.outputs))
        self._order: list[int] = list(range(len(self.outputs)))
        self._input: NDArray[Any] | None = None
        self._results: list[np.ndarray[Any, Any]] | None = None

    def select_outputs(self, order: Sequence[int]) -> None:
        self.outputs = tuple(self.outputs[i] for i in order)
        self._order = [self._order[i] for i in order]
        self._results = None

    def input_buffer(self, shape: tuple[int, ...]) -> NDArray[Any]:
        if self._input is None or self._input.shape != shape:
            check_shape(self.inputs[0], shape)
            if None in self.inputs[0].shape:
                tensor = self._runtime.Tensor(self._element_type, self._runtime.Shape(list(shape)))
                self._request.set_input_tensor(tensor)
            self._input = self._request.get_input_tensor(0).data
            self._results = None
        return self._input

    def _views(self) -> list[np.ndarray[Any, Any]]:
        return [self._request.get_output_tensor(i).data for i in self._order]

    def infer(self) -> list[np.ndarray[Any, Any]]:
        if self._input is None:
            raise RuntimeError("infer was called before input_buffer")
        try:
            self._request.infer()
        except Exception as error:
            raise RuntimeError(f"OpenVINO could not run the model: {what_it_says(error)}") from error
        if any(None in tensor.shape for tensor in self.outputs):
            return self._views()
        if self._results is None:
            self._results = self._views()
        return self._results

    def close(self) -> None:
        self._request = self._input = self._results = None
