"""Artifacts that the device half has no runtime for: their metadata, a thin backend, and what `info` says of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgepose.artifact import KEY, MEMBER, Artifact, sidecar_path
from edgepose.backends.base import TensorSpec, check_shape, unknown_device
from edgepose.contract import ModelSpec, OutputSpec
from edgepose.modelfiles.detect import ModelFile
from edgepose.modelfiles.files import parse_json, read_bounded, write_atomically

if TYPE_CHECKING:
    from edgepose.info import ModelInfo

Run = Callable[[NDArray[Any]], Sequence[np.ndarray[Any, Any]]]


class SpecBackend:
    """A runtime that takes a picture array and gives all outputs of a spec, in its order and of its shapes.

    run: computes the outputs of one input; what it gives is checked, since the decoder trusts the spec. free: called
    once, at the end.
    """

    def __init__(self, name: str, spec: ModelSpec, run: Run, free: Callable[[], object] | None = None) -> None:
        self.name = name
        self._run, self._free = run, free
        batch, channels = spec.input.batch, len(spec.input.mean)
        height, width = spec.input.resize.size or (None, None)
        image = (channels, height, width) if spec.input.layout == "NCHW" else (height, width, channels)
        self.inputs: tuple[TensorSpec, ...] = (TensorSpec(spec.input.name, (batch, *image), spec.input.dtype),)
        self.outputs: tuple[TensorSpec, ...] = tuple(
            TensorSpec(output.name, (batch, *(None,) * (_rank(output) - 1)), output.dtype) for output in spec.outputs
        )
        self._spec = spec
        self._known: tuple[int, ...] = ()
        self._buffer: NDArray[Any] = np.empty((0,), np.float32)

    def input_buffer(self, shape: tuple[int, ...]) -> NDArray[Any]:
        check_shape(self.inputs[0], shape)
        if self._buffer.shape != shape:
            self._buffer = np.empty(shape, self.inputs[0].dtype)
        return self._buffer

    def infer(self) -> list[np.ndarray[Any, Any]]:
        found = [np.ascontiguousarray(array) for array in self._run(self._buffer)]
        if self._buffer.shape != self._known:
            self._check(found)
            self._known = self._buffer.shape
        return found

    def _check(self, found: Sequence[np.ndarray[Any, Any]]) -> None:
        """Raises ValueError where the model does not give what its metadata say."""
        from edgepose.fit import fit_outputs

        got = [TensorSpec(o.name, array.shape, array.dtype.name) for o, array in zip(self.outputs, found, strict=False)]
        height, width = self._size()
        resize = self._spec.input.resize._replace(size=(height, width))
        spec = self._spec._replace(input=self._spec.input._replace(resize=resize, batch=self._buffer.shape[0]))
        if len(found) != len(self.outputs):
            raise ValueError(f"the metadata name {len(self.outputs)} outputs, the model gives {len(found)}")
        fit_outputs(spec, got)

    def _size(self) -> tuple[int, int]:
        shape = self._buffer.shape
        return (shape[2], shape[3]) if self._spec.input.layout == "NCHW" else (shape[1], shape[2])

    def select_outputs(self, order: Sequence[int]) -> None:
        if list(order) != list(range(len(self.outputs))):
            raise ValueError(f"got the outputs {list(order)}, this runtime gives all of its {len(self.outputs)}")

    def close(self) -> None:
        self._buffer = np.empty((0,), np.float32)
        if self._free is not None:
            self._free()
            self._free = None


def _rank(output: OutputSpec) -> int:
    return 4 if output.layout in ("NCHW", "NHWC") else 3


def opened(path: Path, spec: ModelSpec, backend: SpecBackend) -> Artifact:
    """The open artifact that `PoseRunner` takes."""
    return Artifact(ModelFile(str(path), "torch", str(path)), spec, "edgepose", backend)


def check_cpu(device: str, runtime: str) -> None:
    """Raises ValueError for a device of a runtime that has the CPU alone."""
    if device not in ("auto", "cpu"):
        raise unknown_device(device, runtime, ["auto", "cpu"])


def import_runtime(module: str, path: Path, package: str) -> Any:
    """The module that runs the artifact. Raises ImportError that names what to install."""
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"running {path.name} needs {module}: pip install {package} ({error})") from error


def metadata_path(path: Path) -> Path:
    """Where the metadata of a format without a place for them stand: in a folder edgepose.json, beside a file
    NAME.edgepose.json."""
    return path / MEMBER if path.is_dir() else Path(sidecar_path(path))


def write_metadata(path: Path, spec: ModelSpec) -> None:
    """Puts the metadata at `metadata_path`."""
    text = json.dumps(spec.checked().to_dict(), ensure_ascii=False, allow_nan=False)
    write_atomically(str(metadata_path(path)), [text.encode()])


def read_metadata(path: Path) -> ModelSpec:
    """The metadata at `metadata_path`. Raises FileNotFoundError for no artifact, ValueError for one without metadata
    or with damaged ones."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; expected an exported model")
    place = metadata_path(path)
    if not place.is_file():
        raise ValueError(
            f"{path}: it has no {KEY} metadata ({place.name}): export it from the checkpoint, and keep that file by it"
        )
    return ModelSpec.from_dict(parse_json(read_bounded(str(place)), str(place)))


def describe_artifact(path: Path) -> ModelInfo:
    """What `edgepose.info.describe` says of the device half's formats, of one of the trainer half's.

    Where it does not open here, its metadata are described, and `problem` says why.
    """
    from edgepose.info import ModelInfo, size_of
    from edgepose_trainer.export.registry import format_of_artifact

    entry = format_of_artifact(path)
    if entry is None or entry.open is None or entry.read_spec is None:
        raise ValueError(f"{path}: not an artifact that the trainer runs")
    spec = entry.read_spec(path)
    name, problem, tensors = None, None, {}
    try:
        artifact = entry.open(path, "auto")
    except (ImportError, ValueError, RuntimeError) as error:
        problem = str(error)
    else:
        backend = artifact.backend
        name = backend.name
        tensors = {side: [_tensor(spec) for spec in getattr(backend, side)] for side in ("inputs", "outputs")}
        artifact.close()
    return ModelInfo(os.fspath(path), entry.name, size_of(str(path)), "edgepose", name, problem, spec, tensors)


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype, "quantization": None}
