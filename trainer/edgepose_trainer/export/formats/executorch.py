"""ExecuTorch, for phones and boards: the exported network, its operators lowered to XNNPACK, in float32."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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

_METHOD = "forward"
_MAGIC = b"ET"  # at byte 4 of the file, flatbuffers' identifier: ET and the schema's version


def convert(job: Job) -> Converted:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    traced = job.traced()
    with torch.inference_mode():
        program = torch.export.export(traced.module, (traced.example,), strict=False)
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path = job.folder / job.artifact_name
    path.write_bytes(lowered.to_executorch().buffer)
    return Converted(path, job.input_spec(), traced.outputs)


def open_executorch(path: Path, device: str) -> Artifact:
    """Opens an exported program in ExecuTorch's runtime, on the CPU.

    Raises ValueError for a file that is none, or that the runtime does not take.
    """
    check_cpu(device, "ExecuTorch in Python")
    spec = read_metadata(path)
    with open(path, "rb") as file:
        head = file.read(8)
    if head[4:6] != _MAGIC:
        raise ValueError(f"{path}: not an ExecuTorch program, or a damaged one")
    with _without_the_news():
        runtime = import_runtime("executorch.runtime", path, "executorch")
    torch = import_runtime("torch", path, "torch")
    try:
        with _without_the_news():
            program = runtime.Runtime.get().load_program(path, verification=runtime.Verification.InternalConsistency)
            method = program.load_method(_METHOD)
    except RuntimeError as error:
        raise ValueError(f"{path}: ExecuTorch does not take it: {str(error).splitlines()[0]}") from None

    def run(images: NDArray[Any]) -> list[np.ndarray[Any, Any]]:
        return [tensor.numpy() for tensor in method.execute([torch.from_numpy(images)])]

    return opened(path, spec, SpecBackend("executorch", spec, run))


@contextmanager
def _without_the_news() -> Iterator[None]:
    """That its Python API is experimental is no news for who runs a model."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This API is experimental")
        yield


FORMAT = Format(
    name="executorch",
    suffixes={"float32": ".pte"},
    variants="f32 (XNNPACK)",
    proven_by="ExecuTorch",
    arguments=("batch",),
    convert=convert,
    needs=("executorch",),
    extra="export-executorch",
    open=open_executorch,
    write_spec=write_metadata,
    read_spec=read_metadata,
    deploy='load it with ExecuTorch, and keep {name}.edgepose.json by it; in Python: PoseModel("{name}")',
)
