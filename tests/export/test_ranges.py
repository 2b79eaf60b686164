"""How the range of an int8 tensor is made of the values that it held."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepose_trainer.export.calibration import Calibration
from edgepose_trainer.export.ranges import LEAST_LOGIT, SILU_FLOOR, Graph, find_ranges, least_error, percentile
from numpy.typing import NDArray

BINS = 4096


def histogram(values: NDArray[Any]) -> tuple[NDArray[np.int64], float, float]:
    counts, edges = np.histogram(values, BINS)
    return counts, float(edges[0]), float(edges[-1])


@pytest.fixture
def values() -> NDArray[np.float64]:
    """A bell, and one value far outside."""
    rng = np.random.default_rng(5)
    return np.append(rng.normal(2.0, 1.5, 200_000), 60.0)


def test_percentile_is_that_of_numpy(values: NDArray[Any]) -> None:
    counts, low, high = histogram(values)
    width = (high - low) / BINS
    np.testing.assert_allclose(percentile(counts, low, high), np.percentile(values, [0.01, 99.99]), atol=1.01 * width)


def test_percentile_keeps_the_extremes_of_few_values() -> None:
    assert percentile(*histogram(np.array([-3.0, 0.0, 5.0]))) == (-3.0, 5.0)


def rounding_error(values: NDArray[Any], low: float, high: float) -> float:
    levels = np.round((values - low) * 255 / (high - low)).clip(0, 255)
    return float(np.mean((low + levels * (high - low) / 255 - values) ** 2))


def test_least_error_rounds_better_than_the_extremes_and_the_percentile(values: NDArray[Any]) -> None:
    counts, low, high = histogram(values)
    found = least_error(counts, low, high)
    assert rounding_error(values, *found) < 0.9 * rounding_error(values, low, high)
    assert rounding_error(values, *found) < rounding_error(values, *percentile(counts, low, high))


def test_least_error_of_a_tensor_that_never_changes_is_its_value() -> None:
    assert least_error(np.full(BINS, 7), 1.5, 1.5) == (1.5, 1.5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Warning. Enabling `experimental_preserve_all_tensors`")
def test_ranges_of_a_network(needs: Callable[[str], None], person: Path, tmp_path: Path) -> None:
    """By hand for three pictures: the mean of the extremes, but for pictures, what SiLU reads, and class logits."""
    needs("tflite")
    from edgepose_trainer.model import PoseModel

    path = PoseModel(person).export("tflite", out=tmp_path, imgsz=64)
    content = path.read_bytes()
    levels = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8)
    graph = Graph(content)
    run = graph.runner()
    held = [[(v.min(), v.max()) for v in run(levels[i : i + 1].astype(np.float32) / 255)] for i in range(3)]
    extremes = dict(zip(graph.names, np.mean(held, 0), strict=True))
    silu = graph.read_by_silu()
    assert len(silu) > 20
    (score,) = [name for name in graph.names if name.startswith("serving_default_output_3")]
    found = find_ranges(content, Calibration(levels, "train", "", "three", "auto"), 1, [score])
    assert found[graph.input].tolist() == [0, 1]
    assert found[score].tolist() == pytest.approx([LEAST_LOGIT, max(h[graph.names.index(score)][1] for h in held)])
    for name, bounds in found.items():
        low, high = extremes[name]
        if name in silu:
            low = max(low, SILU_FLOOR)
        if name not in (graph.input, score):
            np.testing.assert_allclose(bounds, [low, high], rtol=1e-5, atol=1e-6)
