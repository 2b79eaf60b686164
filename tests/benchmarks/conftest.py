"""Side-by-side timing: a speed claim is a ratio, measured in one run, call by call in turn."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest

SideBySide = Callable[..., float]


def _seconds(call: Callable[[], Any]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


@pytest.fixture
def side_by_side(benchmark: Any) -> SideBySide:
    """side_by_side(ours, theirs, rounds=50) -> least time of theirs / least time of ours.

    The two are called in turn, so that a machine that changes its speed changes both; what disturbs a run only ever
    adds to it, so the least time of many is what the code takes. The benchmark's report keeps both.
    """

    def measure(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int = 50, warmup: int = 3) -> float:
        for _ in range(warmup):
            ours()
            theirs()
        pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(rounds)]
        least_ours, least_theirs = (min(times) for times in zip(*pairs, strict=True))
        ratio = least_theirs / least_ours
        benchmark.extra_info.update(
            ours_ms=round(least_ours * 1e3, 4), theirs_ms=round(least_theirs * 1e3, 4), ratio=round(ratio, 3)
        )
        benchmark.pedantic(ours, rounds=3, iterations=1)
        return ratio

    return measure
