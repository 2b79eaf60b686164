"""ONNX Runtime: .onnx files, on the CPU or, where its CUDA build is installed, on an NVIDIA GPU."""

from __future__ import annotations

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

NAME = "onnxruntime"

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
_FATAL = 4


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f'running .onnx models needs ONNX Runtime: pip install "edgepose[onnx]" ({error})') from error
    return onnxruntime


def _providers(runtime: Any, device: str) -> list[Any]:
    kind, _, index = device.partition(":")
    available = runtime.get_available_providers()
    known = ["auto", "cpu"] + (["cuda"] if "CUDAExecutionProvider" in available else [])
    if kind not in known or (index and (kind != "cuda" or not index.isdigit())):
        raise unknown_device(device, "ONNX Runtime as it is installed here", known)
    if kind == "cuda" or (kind == "auto" and "cuda" in known):
        return [("CUDAExecutionProvider", {"device_id": int(index or 0)}), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


def _tensor(argument: Any) -> TensorSpec:
    shape = tuple(side if isinstance(side, int) and side > 0 else None for side in argument.shape)
    return TensorSpec(argument.name, shape, _DTYPES.get(argument.type, argument.type))


class OnnxRuntimeBackend:
    """A session with its input bound to an array of ours, and its outputs too where their shapes are fixed."""

    name = NAME

    def __init__(self, path: str, options: Options) -> None:
        if options.precision not in (None, "f32"):
            raise unsupported_precision(str(options.precision), "ONNX Runtime", ("f32",))
        with quiet_stderr(options.verbose):
            runtime = _runtime()
            settings = runtime.SessionOptions()
            if not options.verbose:
                settings.log_severity_level = _FATAL
            if options.threads is not None:
                settings.intra_op_num_threads = options.threads
            providers = _providers(runtime, options.device)
            try:
                self._session = runtime.InferenceSession(path, settings, providers=providers)
            except Exception as error:
                raise ValueError(f"{path}: ONNX Runtime cannot load this model: {what_it_says(error)}") from error
        self.inputs = tuple(_tensor(argument) for argument in self._session.get_inputs())
        self.outputs = tuple(_tensor(argument) for argument in self._session.get_outputs())
        check_ends(path, self.inputs, self.outputs)
        self._input: NDArray[Any] | None = None
        self._binding: Any = None
        self._results: list[np.ndarray[Any, Any]] = []

    def select_outputs(self, order: Sequence[int]) -> None:
        self.outputs = tuple(self.outputs[i] for i in order)
        self._input = None

    def input_buffer(self, shape: tuple[int, ...]) -> NDArray[Any]:
        if self._input is None or self._input.shape != shape:
            check_shape(self.inputs[0], shape)
            self._input = np.zeros(shape, self.inputs[0].dtype)
            self._bind()
        return self._input

    def _bind(self) -> None:
        """Fixed outputs are bound to arrays made once; a model with any dynamic one gets new arrays each time."""
        self._binding = None
        if any(None in tensor.shape for tensor in (*self.inputs, *self.outputs)):
            return
        binding = self._session.io_binding()
        binding.bind_cpu_input(self.inputs[0].name, self._input)
        self._results = [np.empty(tensor.shape, tensor.dtype) for tensor in self.outputs]
        for tensor, array in zip(self.outputs, self._results, strict=True):
            binding.bind_output(tensor.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._binding = binding

    def infer(self) -> list[np.ndarray[Any, Any]]:
        if self._input is None:
            raise RuntimeError("infer was called before input_buffer")
        try:
            if self._binding is None:
                names = [tensor.name for tensor in self.outputs]
                return list(self._session.run(names, {self.inputs[0].name: self._input}))
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise RuntimeError(f"ONNX Runtime could not run the model: {what_it_says(error)}") from error
        return self._results

    def close(self) -> None:
        self._binding = self._session = self._input = None
        self._results = []
