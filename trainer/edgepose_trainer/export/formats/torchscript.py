"""TorchScript: the traced network, for programs that embed libtorch. edgepose runs it through torch."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepose.artifact import KEY, MEMBER, Artifact
from edgepose.contract import ModelSpec
from edgepose.modelfiles.files import MAX_METADATA, parse_json, replacing
from edgepose_trainer.data.files import DAMAGED_ZIP
from edgepose_trainer.export.artifacts import SpecBackend, opened
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
    with replacing(str(path)) as temporary:
        _save(script, Path(temporary), files)


def read_spec(path: Path) -> ModelSpec:
    """The metadata in the archive, which is not run for it. Raises ValueError where it has none or is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.endswith(f"/extra/{MEMBER}")), None)
            data = archive.open(name).read(MAX_METADATA + 1) if name is not None else b""
    except (*DAMAGED_ZIP, RuntimeError) as error:  # RuntimeError: encrypted, or packed in a way not known
        raise ValueError(f"{path}: not a TorchScript file, or a damaged one: {error}") from None
    if not data:
        raise ValueError(f"{path}: it holds no {KEY} metadata: export it from the checkpoint with format=torchscript")
    return ModelSpec.from_dict(parse_json(data, str(path)))


def open_script(path: Path, device: str) -> Artifact:
    """Opens an exported script.

    It is code, which torch runs: open only scripts whose maker you trust. Raises ValueError for one that edgepose did
    not export, or that is damaged.
    """
    import torch

    from edgepose_trainer.distributed import parse_devices

    spec = read_spec(path)
    place = parse_devices(None if device == "auto" else device)[0]
    try:
        script = _load(path, place, {})
    except RuntimeError as error:
        raise ValueError(f"{path}: not a TorchScript file, or a damaged one: {str(error).splitlines()[0]}") from None

    @torch.inference_mode()
    def run(images: NDArray[Any]) -> list[np.ndarray[Any, Any]]:
        found = script(torch.from_numpy(images).to(place))
        return [tensor.cpu().numpy() for tensor in (found if isinstance(found, tuple) else (found,))]

    return opened(path, spec, SpecBackend("torch", spec, run))


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
    read_spec=read_spec,
    deploy='pip install "edgepose[train]", PoseModel("{name}"); or load it with libtorch',
)
