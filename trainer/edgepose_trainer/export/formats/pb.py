"""A frozen TensorFlow graph in one file, in float32, for programs that read GraphDef."""

from __future__ import annotations

import os
from pathlib import Path

from edgepose.artifact import Artifact
from edgepose.modelfiles.files import read_bounded
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
from edgepose_trainer.export.tensorflow import build_function, frozen_graph, graph_runner

_MAX_GRAPH = (1 << 31) - 1  # bytes, protobuf's own limit


def convert(job: Job) -> Converted:
    function, outputs = build_function(job)
    path = job.folder / job.artifact_name
    path.write_bytes(frozen_graph(function, outputs).SerializeToString())
    return Converted(path, job.input_spec(layout="NHWC"), outputs)


def open_graph(path: Path, device: str) -> Artifact:
    """Opens an exported graph in TensorFlow.

    It is a program, which TensorFlow runs: open only graphs whose maker you trust. Raises ValueError for a file that
    TensorFlow does not take.
    """
    check_cpu(device, "TensorFlow here")
    spec = read_metadata(path)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    tf = import_runtime("tensorflow", path, "tensorflow")
    message = import_runtime("google.protobuf.message", path, "protobuf")
    try:
        graph = tf.compat.v1.GraphDef.FromString(read_bounded(str(path), _MAX_GRAPH))
    except message.DecodeError as error:
        raise ValueError(f"{path}: TensorFlow does not take it: {error}") from None
    return opened(path, spec, SpecBackend("tensorflow", spec, graph_runner(path, graph, spec)))


FORMAT = Format(
    name="pb",
    suffixes={"float32": ".pb"},
    variants="f32",
    proven_by="TensorFlow",
    arguments=("batch",),
    convert=convert,
    needs=("tensorflow",),
    extra="export-tensorflow",
    open=open_graph,
    write_spec=write_metadata,
    read_spec=read_metadata,
    deploy='read it as a GraphDef, and keep {name}.edgepose.json by it; in Python: PoseModel("{name}")',
)
