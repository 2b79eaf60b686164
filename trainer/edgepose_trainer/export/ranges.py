"""The ranges that a static int8 TFLite model gives its tensors: what they hold on the calibration pictures, cut down to
what matters."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepose_trainer.data.files import write_whole
from edgepose_trainer.export.calibration import PERCENTILE, Calibration

METHODS = {
    "auto": "mean of the pictures' extremes",
    "minmax": "minimum and maximum",
    "percentile": f"percentile {PERCENTILE} of all values",
    "mse": "least mean squared error of all values",
}
"""How a range is made of what a tensor held, and what the metadata say of it."""

SILU_FLOOR = -6.0
"""SiLU makes -0.015 to 0 of everything below: no steps are spent on it. Chosen on training pictures; docs/export.md."""

LEAST_LOGIT = -8.0
"""Logits below this are all scores under 0.0004: the range of scores and heatmaps is spent on the people."""

_BINS, _BOUNDS = 4096, 64

Extremes = NDArray[np.float32]
"""(2,): the least and the greatest value."""


def find_ranges(model: bytes, calibration: Calibration, batch: int, logits: Sequence[str]) -> dict[str, Extremes]:
    """The range of every tensor that is not constant, by its name; logits: the names of scores and heatmaps.

    Those get LEAST_LOGIT to their maximum, whatever the method: it would leave out the few cells where somebody is.
    What SiLU reads starts at SILU_FLOOR. The ranges are kept in the cache.
    """
    graph = Graph(model)
    cached = calibration.cache(model, ".tflite.npz")
    kept = _read(cached)
    if kept is None:
        kept = _observed(graph, calibration, batch)
        _write(cached, kept)
    ranges, most = kept["ranges"], kept["most"]
    found = dict(zip(graph.names, ranges, strict=True))
    found[graph.input][:] = 0, 1  # one step a level: pictures are not rounded
    for name in graph.read_by_silu():
        found[name][0] = max(found[name][0], min(SILU_FLOOR, found[name][1] - 1))
    for name in logits:
        highest = most[graph.names.index(name)]
        found[name][:] = min(LEAST_LOGIT, highest - 1), highest
    return found


def _observed(graph: Graph, calibration: Calibration, batch: int) -> dict[str, NDArray[np.float32]]:
    """ranges: (tensors, 2), by the calibration's method; most: (tensors,), the greatest values."""
    run = graph.runner()
    extremes = np.array([[(v.min(), v.max()) for v in run(images)] for images in calibration.batches("NHWC", batch)])
    least, most = extremes[..., 0].min(0), extremes[..., 1].max(0)
    if calibration.method == "auto":
        return {"ranges": extremes.mean(0), "most": most}
    if calibration.method == "minmax":
        return {"ranges": np.stack([least, most], 1), "most": most}
    counts = np.zeros((len(most), _BINS), np.int64)
    for images in calibration.batches("NHWC", batch):
        for row, low, high, values in zip(counts, least, most, run(images), strict=True):
            row += _histogram(values, low, high)
    narrowed = {"percentile": percentile, "mse": least_error}[calibration.method]
    ranges = [narrowed(*tensor) for tensor in zip(counts, least.tolist(), most.tolist(), strict=True)]
    return {"ranges": np.array(ranges, np.float32), "most": most}


def _histogram(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.int64]:
    place = (values.ravel() - low) * (_BINS / max(high - low, 1e-12))
    return np.bincount(place.astype(np.int64).clip(0, _BINS - 1), minlength=_BINS)


def percentile(counts: NDArray[np.int64], low: float, high: float) -> tuple[float, float]:
    """The bounds that 1 - PERCENTILE / 100 of the values in a histogram lie below, and above."""
    edges, share = np.linspace(low, high, len(counts) + 1), np.cumsum(counts) / counts.sum()
    tail = 1 - PERCENTILE / 100
    return float(edges[np.searchsorted(share, tail, "right")]), float(edges[np.searchsorted(share, 1 - tail) + 1])


def least_error(counts: NDArray[np.int64], low: float, high: float) -> tuple[float, float]:
    """The range whose 256 levels are nearest to the values in a histogram, by the mean squared error: what clipping
    loses against what finer steps gain. One bound is searched after the other, twice."""
    edges = np.linspace(low, high, len(counts) + 1)
    centres, bounds = (edges[:-1] + edges[1:]) / 2, np.linspace(low, high, _BOUNDS + 1)
    if not low < high:
        return low, high

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        levels = low + np.round((centres.clip(low, high) - low) / step) * step
        return float(counts @ np.square(levels - centres))

    middle = float(np.average(centres, weights=counts))
    lows, highs = bounds[bounds < middle], bounds[bounds > middle]
    for _ in range(2):
        low = lows[np.argmin([error(bound, high) for bound in lows])]
        high = highs[np.argmin([error(low, bound) for bound in highs])]
    return float(low), float(high)


class Graph:
    """The float model. names: of its tensors that are not constant; input: that of the pictures."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema
        from ai_edge_litert.tools import flatbuffer_utils

        self._content = content
        self._model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
        self._tensors = self._model.subgraphs[0].tensors
        self._logistic, self._mul = schema.BuiltinOperator.LOGISTIC, schema.BuiltinOperator.MUL
        floats = schema.TensorType.FLOAT32
        self._indices = [
            index
            for index, tensor in enumerate(self._tensors)
            if tensor.type == floats and self._model.buffers[tensor.buffer].data is None
        ]
        self.names = [self._name(index) for index in self._indices]
        self.input = self._name(self._model.subgraphs[0].inputs[0])

    def _name(self, index: int) -> str:
        return str(self._tensors[index].name.decode())

    def read_by_silu(self) -> set[str]:
        """The tensors x of which the graph makes x * sigmoid(x)."""
        products = {frozenset(op.inputs) for op in self._operators(self._mul)}
        logistics = ((op.inputs[0], op.outputs[0]) for op in self._operators(self._logistic))
        return {self._name(x) for x, share in logistics if frozenset((x, share)) in products}

    def _operators(self, kind: int) -> Iterator[Any]:
        codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in self._model.operatorCodes]
        return (op for op in self._model.subgraphs[0].operators if codes[op.opcodeIndex] == kind)

    def runner(self) -> Callable[[NDArray[np.float32]], Iterator[NDArray[np.float32]]]:
        """What gives the values of the named tensors for an input."""
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=self._content, experimental_preserve_all_tensors=True)
        interpreter.allocate_tensors()
        fed = interpreter.get_input_details()[0]["index"]

        def run(images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
            interpreter.set_tensor(fed, images)
            interpreter.invoke()
            return (interpreter.get_tensor(index) for index in self._indices)

        return run


def _read(path: Path) -> dict[str, NDArray[np.float32]] | None:
    """What an earlier export observed; None where there is nothing, or it is damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            return {name: kept[name] for name in ("ranges", "most")}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _write(path: Path, observed: dict[str, NDArray[np.float32]]) -> None:
    write_whole(path, lambda file: np.savez(file, **observed))  # type: ignore[arg-type]
