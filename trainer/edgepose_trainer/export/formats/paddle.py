"""Paddle: an inference model of a graph in one file and weights in another, in float32."""

from __future__ import annotations

import sys
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
from edgepose_trainer.export.graph import Operators, export_graph, replay
from edgepose_trainer.export.job import Converted, Job
from edgepose_trainer.export.prepare import INPUT
from edgepose_trainer.export.registry import Format

_NAME = "model"
GRAPH, WEIGHTS = f"{_NAME}.json", f"{_NAME}.pdiparams"  # the endings are Paddle's


def convert(job: Job) -> Converted:
    _check_order()
    import paddle

    traced = job.traced()
    folder = job.folder / job.artifact_name
    folder.mkdir()
    main, startup = paddle.static.Program(), paddle.static.Program()
    with _static(paddle), paddle.static.program_guard(main, startup):
        images = paddle.static.data(INPUT, list(traced.example.shape), "float32")
        found = replay(export_graph(traced), _operators(paddle), images)
        executor = paddle.static.Executor(paddle.CPUPlace())
        executor.run(startup)
        paddle.static.save_inference_model(str(folder / _NAME), [images], found, executor, program=main)
    names = _load(folder).get_output_names()
    outputs = tuple(output._replace(name=name) for output, name in zip(traced.outputs, names, strict=True))
    return Converted(folder, job.input_spec(), outputs)


def _check_order() -> None:
    """Raises ImportError where importing Paddle would end the process: 3.2 does so after TensorFlow 2.21."""
    if "tensorflow" in sys.modules and "paddle" not in sys.modules:
        raise ImportError(
            "Paddle crashes where TensorFlow was imported before it: use it in a process of its own, "
            "or write `import paddle` first"
        )


@contextmanager
def _static(paddle: Any) -> Iterator[None]:
    """Paddle builds graphs meanwhile, and is left as it was, without the network's weights in its global scope."""
    eager = paddle.in_dynamic_mode()
    paddle.enable_static()
    try:
        with paddle.static.scope_guard(paddle.static.Scope()):
            yield
    finally:
        if eager:
            paddle.disable_static()


def _operators(paddle: Any) -> Operators:
    """Paddle's counterparts of the operators that networks are made of; layouts are the same, NCHW."""
    functional = paddle.nn.functional

    def parameter(values: NDArray[Any]) -> Any:
        given = paddle.nn.initializer.Assign(values)
        return paddle.static.create_parameter(list(values.shape), "float32", default_initializer=given)

    def conv2d(
        x: Any, weight: Any, bias: Any = None, stride: Any = (1, 1), padding: Any = (0, 0), dilation: Any = (1, 1),
        groups: int = 1,
    ) -> Any:  # fmt: skip
        shift = None if bias is None else parameter(bias)
        options = list(stride), list(padding), list(dilation), groups
        return functional.conv2d(x, parameter(weight), shift, *options)

    def max_pool2d(x: Any, size: list[int], stride: list[int], padding: Any = (0, 0)) -> Any:
        return functional.max_pool2d(x, size, stride, list(padding))

    def split(x: Any, size: Any, axis: int) -> list[Any]:
        sizes = size if isinstance(size, list) else [size] * (x.shape[axis] // size)
        parts: list[Any] = paddle.split(x, sizes, axis)
        return parts

    return {
        "aten.conv2d.default": conv2d,
        "aten.max_pool2d.default": max_pool2d,
        "aten.upsample_nearest2d.vec": lambda x, size, scales: functional.interpolate(x, size, scales, "nearest"),
        "aten.split.Tensor": split,
        "aten.split_with_sizes.default": split,
        "aten.cat.default": lambda tensors, axis: paddle.concat(tensors, axis),
        "aten.add.Tensor": lambda a, b: a + b,
        "aten.silu.default": functional.silu,
        "aten.relu.default": functional.relu,
        "aten.hardtanh.default": paddle.clip,
        "aten.hardswish.default": functional.hardswish,
    }


def _load(folder: Path) -> Any:
    """The predictor. Raises ValueError for files that Paddle does not take."""
    _check_order()
    inference = import_runtime("paddle.inference", folder, "paddlepaddle")
    for name in (GRAPH, WEIGHTS):
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: missing; expected an exported Paddle model")
    config = inference.Config(str(folder / GRAPH), str(folder / WEIGHTS))
    config.disable_gpu()
    config.disable_glog_info()
    try:
        return inference.create_predictor(config)
    except (RuntimeError, OSError, ValueError) as error:
        raise ValueError(f"{folder}: Paddle does not take it: {str(error).strip().splitlines()[-1]}") from None


def open_paddle(path: Path, device: str) -> Artifact:
    """Opens an exported folder in Paddle Inference, on the CPU."""
    check_cpu(device, "Paddle here")
    spec = read_metadata(path)
    predictor = _load(path)
    found = [*predictor.get_input_names(), *predictor.get_output_names()]
    named = [spec.input.name, *(output.name for output in spec.outputs)]
    if set(named) != set(found):
        raise ValueError(f"{path}: the metadata name the tensors {named}, the model has {found}")
    fed = predictor.get_input_handle(spec.input.name)
    given = [predictor.get_output_handle(output.name) for output in spec.outputs]

    def run(images: NDArray[Any]) -> list[np.ndarray[Any, Any]]:
        fed.copy_from_cpu(images)
        predictor.run()
        return [tensor.copy_to_cpu() for tensor in given]

    return opened(path, spec, SpecBackend("paddle", spec, run))


FORMAT = Format(
    name="paddle",
    suffixes={"float32": "_paddle_model"},
    variants="f32",
    proven_by="Paddle",
    arguments=("batch",),
    convert=convert,
    needs=("paddle",),
    extra="export-paddle",
    open=open_paddle,
    write_spec=write_metadata,
    read_spec=read_metadata,
    deploy='load it with Paddle Inference; in Python: pip install "edgepose[train]" paddlepaddle, PoseModel("{name}")',
)
