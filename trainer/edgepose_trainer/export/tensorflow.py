"""The network as a TensorFlow function: its exported graph, operator by operator, in TensorFlow's layout, NHWC."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepose.contract import ModelSpec, OutputSpec
from edgepose_trainer.export.artifacts import Run, import_runtime
from edgepose_trainer.export.graph import Operators, export_graph, replay
from edgepose_trainer.export.job import Job
from edgepose_trainer.export.prepare import INPUT

_CHANNELS = 3  # the axis of channels in NHWC, 1 in torch's NCHW


def build_function(job: Job) -> tuple[Any, tuple[OutputSpec, ...]]:
    """A tf.function of pictures (B, H, W, 3) float32 that gives a dict of the raw heads by name, with its input's
    signature; and what its outputs are.

    Raises NotImplementedError for an operator that no network of this trainer had until now.
    """
    import tensorflow as tf

    traced = job.traced(half=False)
    program = export_graph(traced)
    batch, _, height, width = traced.example.shape
    names = [output.name for output in traced.outputs]

    def predict(images: Any) -> dict[str, Any]:
        found = replay(program, _operators(tf), images)
        return {name: tf.identity(tensor, name) for name, tensor in zip(names, found, strict=True)}

    signature = [tf.TensorSpec((batch, height, width, 3), tf.float32, INPUT)]
    function = tf.function(predict, input_signature=signature, autograph=False)
    return function, tuple(output._replace(layout="NHWC") for output in traced.outputs)


def frozen_graph(function: Any, outputs: Sequence[OutputSpec]) -> Any:
    """The function's GraphDef, its nodes called as input and outputs are, without those that no output needs."""
    import tensorflow as tf

    graph = function.get_concrete_function().graph.as_graph_def()
    return tf.compat.v1.graph_util.extract_sub_graph(graph, [output.name for output in outputs])


def _operators(tf: Any) -> Operators:
    """TensorFlow's counterparts of the operators that networks are made of."""

    def padded(x: Any, padding: list[int], value: float) -> Any:
        return tf.pad(x, [(0, 0), *((p, p) for p in padding), (0, 0)], constant_values=value) if any(padding) else x

    def conv2d(
        x: Any, weight: Any, bias: Any = None, stride: Any = (1, 1), padding: Any = (0, 0), dilation: Any = (1, 1),
        groups: int = 1,
    ) -> Any:  # fmt: skip
        if groups != 1:
            raise NotImplementedError(f"a convolution in {groups} groups has no counterpart in {__name__} yet")
        kernel = tf.constant(np.ascontiguousarray(weight.transpose(2, 3, 1, 0)))
        y = tf.nn.conv2d(padded(x, padding, 0.0), kernel, list(stride), "VALID", dilations=list(dilation))
        return y if bias is None else tf.nn.bias_add(y, tf.constant(bias))

    def max_pool2d(x: Any, size: list[int], stride: list[int], padding: Any = (0, 0)) -> Any:
        return tf.nn.max_pool2d(padded(x, padding, -np.inf), size, stride, "VALID")

    def upsample(x: Any, size: Any, scales: list[float]) -> Any:
        sides = [int(side * scale) for side, scale in zip(x.shape[1:3], scales, strict=True)]
        return tf.raw_ops.ResizeNearestNeighbor(images=x, size=sides)

    def split(x: Any, size: Any, axis: int) -> list[Any]:
        channels = x.shape[_CHANNELS]
        sizes = size if isinstance(size, list) else [size] * (channels // size)
        parts: list[Any] = tf.split(x, sizes, _axis(axis))
        return parts

    return {
        "aten.conv2d.default": conv2d,
        "aten.max_pool2d.default": max_pool2d,
        "aten.upsample_nearest2d.vec": upsample,
        "aten.split.Tensor": split,
        "aten.split_with_sizes.default": split,
        "aten.cat.default": lambda tensors, axis: tf.concat(tensors, _axis(axis)),
        "aten.add.Tensor": lambda a, b: a + b,
        "aten.silu.default": lambda x: x * tf.sigmoid(x),
        "aten.relu.default": tf.nn.relu,
        "aten.hardtanh.default": tf.clip_by_value,
        "aten.hardswish.default": lambda x: x * tf.nn.relu6(x + 3.0) / 6.0,
    }


def _axis(axis: int) -> int:
    if axis != 1:
        raise NotImplementedError(f"channels are the one axis that is split and joined, got axis {axis}")
    return _CHANNELS


def graph_runner(path: Path, graph: Any, spec: ModelSpec) -> Run:
    """Runs a GraphDef. Raises ValueError for one that TensorFlow does not take, or without the metadata's tensors."""
    tf = import_runtime("tensorflow", path, "tensorflow")
    names = [output.name for output in spec.outputs]
    try:
        wrapped = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(graph, name=""), [])
        function = wrapped.prune(f"{spec.input.name}:0", [f"{name}:0" for name in names])
    except (ValueError, KeyError, tf.errors.OpError) as error:
        raise ValueError(f"{path}: TensorFlow does not take it: {first_line(error)}") from None
    return runner(path, lambda images: dict(zip(names, function(images), strict=True)), names)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def runner(path: Path, function: Callable[[Any], Mapping[str, Any]], names: list[str]) -> Run:
    """Calls a loaded function on a picture array. Raises ValueError for an output that is not there."""
    tf = import_runtime("tensorflow", path, "tensorflow")

    def run(images: NDArray[Any]) -> list[np.ndarray[Any, Any]]:
        found = function(tf.constant(images))
        missing = [name for name in names if name not in found]
        if missing:
            raise ValueError(f"{path}: the metadata name the outputs {missing}, which the model has not")
        return [np.asarray(found[name]) for name in names]

    return run
