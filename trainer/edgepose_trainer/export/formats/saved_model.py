"""TensorFlow's SavedModel, in float32, with one signature: serving_default."""

from __future__ import annotations

import os
from pathlib import Path

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
from edgepose_trainer.export.tensorflow import build_function, first_line, runner

_SIGNATURE = "serving_default"


def convert(job: Job) -> Converted:
    import tensorflow as tf

    function, outputs = build_function(job)
    path = job.folder / job.artifact_name
    module = tf.Module()
    module.predict = function
    tf.saved_model.save(module, str(path), signatures={_SIGNATURE: function})
    return Converted(path, job.input_spec(layout="NHWC"), outputs)


def open_saved_model(path: Path, device: str) -> Artifact:
    """Opens an exported folder in TensorFlow.

    Its graph is a program, which TensorFlow runs: open only models whose maker you trust. Raises ValueError for a
    folder that TensorFlow does not take.
    """
    check_cpu(device, "TensorFlow here")
    spec = read_metadata(path)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    tf = import_runtime("tensorflow", path, "tensorflow")
    try:
        module = tf.saved_model.load(str(path))
        function = module.signatures[_SIGNATURE]
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        raise ValueError(f"{path}: TensorFlow does not take it: {first_line(error)}") from None
    run = runner(path, lambda images: function(**{spec.input.name: images}), [o.name for o in spec.outputs])
    # The function lives no longer than the module that it is from.
    return opened(path, spec, SpecBackend("tensorflow", spec, lambda images, _kept=module: run(images)))  # type: ignore[misc]


FORMAT = Format(
    name="saved_model",
    suffixes={"float32": "_saved_model"},
    variants="f32",
    proven_by="TensorFlow",
    arguments=("batch",),
    convert=convert,
    needs=("tensorflow",),
    extra="export-tensorflow",
    open=open_saved_model,
    write_spec=write_metadata,
    read_spec=read_metadata,
    deploy='tf.saved_model.load("{name}"), or TensorFlow Serving; in Python: PoseModel("{name}")',
)
