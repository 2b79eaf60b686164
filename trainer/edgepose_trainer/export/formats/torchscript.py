"""TorchScript: the traced network, for programs that embed libtorch. edgepose runs it through torch."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepose.artifact import KEY, MEMBER, Artifact
from edgepose.backends.base import TensorSpec, check_shape
from edgepose.contract import ModelSpec
from edgepose.modelfiles.detect import ModelFile
from edgepose.modelfiles.files import parse_json
from edgepose_trainer.export.job import Converted, Job
from edgepose_trainer.export.registry import Format


def convert(job: Job) -> Converted:
    import torch

    traced = job.traced()
    path = job.folder / job.artifact_name
    with torch.inference_mode():
        script = torch.jit.trace(traced.module, traced.example, check_trace=False)  # type: ignore[no-untyped-call]
    files = {}
    if job.arguments.layout == "ultralytics":
        from edgepose_trainer.export.spec import ultralytics_metadata

        files["config.txt"] = json.dumps(ultralytics_metadata(job))
    _save(script, path, files)
    return Converted(path, job.input_spec(), traced.outputs)


def _load(path: Path, device: Any, files: dict[str, str]) -> Any:
    """torch.jit.load, whose deprecation is news for who exports, not for who runs."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(str(path), map_location=device, _extra_files=files)  # type: ignore[no-untyped-call]


def _save(script: Any, path: Path, files: dict[str, str]) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(script, str(path), _extra_files=files)


def write_spec(path: Path, spec: ModelSpec) -> None:
    """Puts the metadata into the archive, as torch's extra file edgepose.json."""
    files = {"config.txt": ""}
    script = _load(path, "cpu", files)
    files = {name: content for name, content in files.items() if content}
    files[MEMBER] = json.dumps(spec.checked().to_dict(), ensure_ascii=False, allow_nan=False)
    temporary = path.with_name(f".{path.name}.part")
    _save(script, temporary, files)
    os.replace(temporary, path)


class TorchScriptBackend:
    """A script as a runtime of the device half; its shapes are those of the spec."""

    name = "torch"

    def __init__(self, script: Any, spec: ModelSpec, device: Any) -> None:
        self.script, self.device = script, device
        height, width = spec.input.resize.size or (None, None)
        batch = spec.input.batch
        self.inputs: tuple[TensorSpec, ...] = (
            TensorSpec(spec.input.name, (batch, 3, height, width), spec.input.dtype),
        )
        self.outputs: tuple[TensorSpec, ...] = tuple(
            TensorSpec(output.name, (batch, None, None, None)[: 3 if output.stride is None else 4], output.dtype)
            for output in spec.outputs
        )
        self._buffer: NDArray[Any] = np.empty((0,), np.float32)

    def input_buffer(self, shape: tuple[int, ...]) -> NDArray[Any]:
        check_shape(self.inputs[0], shape)
        if self._buffer.shape != shape:
            self._buffer = np.empty(shape, self.inputs[0].dtype)
        return self._buffer

    def infer(self) -> list[np.ndarray[Any, Any]]:
        import torch

        with torch.inference_mode():
            found = self.script(torch.from_numpy(self._buffer).to(self.device))
        return [tensor.cpu().numpy() for tensor in (found if isinstance(found, tuple) else (found,))]

    def select_outputs(self, order: Sequence[int]) -> None:
        if list(order) != list(range(len(self.outputs))):
            raise ValueError(f"got the outputs {list(order)}, a script gives all of its {len(self.outputs)}")

    def close(self) -> None:
        self._buffer = np.empty((0,), np.float32)


def open_script(path: Path, device: str) -> Artifact:
    """Opens an exported script.

    It is code, which torch runs: open only scripts whose maker you trust. Raises ValueError for one that edgepose did
    not export, or that is damaged.
    """
    from edgepose_trainer.distributed import parse_devices

    files = {MEMBER: ""}
    place = parse_devices(None if device == "auto" else device)[0]
    try:
        script = _load(path, place, files)
    except RuntimeError as error:
        raise ValueError(f"{path}: not a TorchScript file, or a damaged one: {str(error).splitlines()[0]}") from None
    if not files[MEMBER]:
        raise ValueError(f"{path}: it holds no {KEY} metadata: export it from the checkpoint with format=torchscript")
    spec = ModelSpec.from_dict(parse_json(files[MEMBER], str(path)))
    file = ModelFile(str(path), "torch", str(path))
    return Artifact(file, spec, "edgepose", TorchScriptBackend(script, spec, place))


FORMAT = Format(
    name="torchscript",
    suffixes={"float32": ".torchscript"},
    variants="f32; layout=ultralytics",
    proven_by="torch",
    arguments=("batch", "layout"),
    convert=convert,
    extra="train",
    layouts=("edgepose", "ultralytics"),
    open=open_script,
    write_spec=write_spec,
)
