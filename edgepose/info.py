"""What a model file is, how it is fed and read, and where it comes from: `describe(path)`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepose.artifact import open_artifact, read_spec
from edgepose.modelfiles.detect import identify

if TYPE_CHECKING:
    from edgepose.artifact import Artifact
    from edgepose.backends.base import TensorSpec
    from edgepose.contract import ModelSpec


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """path: as given. format: "onnx", "openvino", "tflite", or one that the trainer half runs. size_bytes: of the file,
    or of all in the folder.

    metadata: where the spec comes from ("edgepose", "ultralytics", "tensors", "user"). runtime: the one that opened
    the model, None where none could; problem: why. tensors: what the runtime reports, "inputs" and "outputs".
    """

    path: str
    format: str
    size_bytes: int
    metadata: str
    runtime: str | None
    problem: str | None
    spec: ModelSpec
    tensors: dict[str, list[dict[str, Any]]]

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "format": self.format,
            "size_bytes": self.size_bytes,
            "metadata": self.metadata,
            "runtime": self.runtime,
            "problem": self.problem,
            "spec": self.spec.to_dict(),
            "tensors": self.tensors,
        }


def describe(model: str | os.PathLike[str], spec: str | Mapping[str, Any] | None = None) -> ModelInfo:
    """Opens the model and describes it.

    Where its runtime is missing, or there is no Edge TPU for a model compiled for one, the metadata in the file are
    described without it, and `problem` says why. spec: as `PoseRunner` takes it.

    Raises FileNotFoundError, ValueError, ImportError: as `PoseRunner` does, for a model that says nothing of itself.
    """
    file = identify(model)
    size = size_of(file.given)
    try:
        artifact = open_artifact(model, spec)
    except (ImportError, ValueError) as error:
        known = read_spec(model)
        if known is None:
            raise
        return ModelInfo(file.given, file.format, size, "edgepose", None, str(error), known, {})
    try:
        backend, tensors = artifact.backend.name, _tensors(artifact)
        return ModelInfo(file.given, file.format, size, artifact.source, backend, None, artifact.spec, tensors)
    finally:
        artifact.close()


def _tensors(artifact: Artifact) -> dict[str, list[dict[str, Any]]]:
    backend = artifact.backend
    return {
        "inputs": [_tensor(spec) for spec in backend.inputs],
        "outputs": [_tensor(spec) for spec in backend.outputs],
    }


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    quantization = spec.quantization
    return {
        "name": spec.name,
        "shape": list(spec.shape),
        "dtype": spec.dtype,
        "quantization": quantization and {"scale": quantization.scale, "zero_point": quantization.zero_point},
    }


def size_of(path: str) -> int:
    """Bytes of a file, or of all files in a folder."""
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)
