"""NCNN, for phones and ARM boards: the traced network through pnnx; weights in float32 or float16."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepose.artifact import Artifact
from edgepose_trainer.export.artifacts import (
    SpecBackend,
    check_cpu,
    import_runtime,
    opened,
    read_metadata,
    write_metadata,
)
from edgepose_trainer.export.job import Converted, Job
from edgepose_trainer.export.registry import Format

# What pnnx calls its files, the input and the outputs; programs that read NCNN models expect these.
PARAM, WEIGHTS = "model.ncnn.param", "model.ncnn.bin"
_INPUT = "in0"
_TIMEOUT = 1800  # seconds


def convert(job: Job) -> Converted:
    import torch

    traced = job.traced(half=False)
    work = job.folder / "pnnx"
    work.mkdir()
    with torch.inference_mode():
        script = torch.jit.trace(traced.module, traced.example, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(script, str(work / "model.pt"))
    half = job.arguments.precision == "float16"
    _run_pnnx(work, tuple(traced.example.shape), half)
    folder = job.folder / job.artifact_name
    folder.mkdir()
    for name in (PARAM, WEIGHTS):
        (work / name).rename(folder / name)
    _load(folder, half)
    outputs = tuple(output._replace(name=f"out{i}", dtype="float32") for i, output in enumerate(traced.outputs))
    return Converted(folder, job.input_spec(name=_INPUT), outputs)


def _run_pnnx(work: Path, shape: tuple[int, ...], half: bool) -> None:
    """Converts model.pt in the folder; pnnx writes whatever it writes beside it."""
    import pnnx

    sides = ",".join(str(side) for side in shape)
    command = [pnnx.EXEC_PATH, "model.pt", f"inputshape=[{sides}]", f"fp16={int(half)}"]
    run = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    print(run.stdout, run.stderr)
    if run.returncode != 0 or not (work / PARAM).is_file() or not (work / WEIGHTS).is_file():
        said = (run.stderr or run.stdout).strip().splitlines()
        raise RuntimeError(f"pnnx ended with {run.returncode}: {said[-1] if said else 'it said nothing'}")


def _load(folder: Path, half: bool) -> Any:
    """The net. A float32 model computes in float32 everywhere: NCNN's own choice on ARM would be float16.

    Raises ValueError for files that NCNN does not take.
    """
    ncnn = import_runtime("ncnn", folder, "ncnn")
    net = ncnn.Net()
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, half)
    for name, load in ((PARAM, net.load_param), (WEIGHTS, net.load_model)):
        file = folder / name
        if not file.is_file() or file.stat().st_size == 0 or load(str(file)) != 0:
            raise ValueError(f"{file}: missing, damaged, or with operators that this NCNN does not know")
    return net


def open_ncnn(path: Path, device: str) -> Artifact:
    """Opens an exported folder in NCNN, on the CPU."""
    check_cpu(device, "NCNN in Python")
    spec = read_metadata(path)
    ncnn = import_runtime("ncnn", path, "ncnn")
    net = _load(path, spec.origin.get("precision") == "float16")
    names = [output.name for output in spec.outputs]

    def run(images: NDArray[Any]) -> list[np.ndarray[Any, Any]]:
        with net.create_extractor() as extractor:
            # A clone, since a Mat over numpy's memory has not the row alignment that NCNN computes with.
            extractor.input(spec.input.name, ncnn.Mat(images[0]).clone())
            return [_array(extractor.extract(name), name) for name in names]

    return opened(path, spec, SpecBackend("ncnn", spec, run, net.clear))


def _array(extracted: tuple[int, Any], name: str) -> np.ndarray[Any, Any]:
    code, mat = extracted
    if code != 0:
        raise ValueError(f"the metadata name the output {name!r}, which NCNN does not find in the model")
    return np.array(mat, np.float32)[None]


FORMAT = Format(
    name="ncnn",
    suffixes={"float32": "_ncnn_model", "float16": "_float16_ncnn_model"},
    variants="f32, f16 weights",
    proven_by="NCNN",
    arguments=("half",),
    convert=convert,
    needs=("ncnn", "pnnx"),
    extra="export-ncnn",
    open=open_ncnn,
    write_spec=write_metadata,
    read_spec=read_metadata,
    deploy='load it with NCNN; in Python: pip install "edgepose[train]" ncnn, PoseModel("{name}")',
)
