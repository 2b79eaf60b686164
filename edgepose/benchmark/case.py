"""One case of a benchmark, in a process of its own: `main()` reads JSON and prints JSON.

A fresh process makes load time, first prediction and peak memory those of this model alone.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from edgepose.benchmark.models import needs_trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgepose.runner import PoseRunner

STAGES = ("preprocess", "inference", "decode", "total")


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """Loads the model, predicts once, warms up, and times `runs` predictions.

    request: model, options (of PoseRunner), source (path or URL, or None), runs, warmup, and spawned_at, the
    `monotonic` clock at which the process was started. Times in the answer are milliseconds.
    """
    started = monotonic()
    picture, color = load_source(request["source"])
    loading = perf_counter()
    runner = _open(request["model"], request["options"])
    loaded = perf_counter()
    first = runner.predict(picture, color=color)
    load_ms, first_ms = (loaded - loading) * 1e3, (perf_counter() - loaded) * 1e3
    for _ in range(request["warmup"] - 1):
        runner.predict(picture, color=color)
    samples = time_predictions(runner, picture, color, request["runs"])
    return {
        "runtime": runner.backend,
        "input_size": runner.spec.input.resize.size,
        "picture_size": first.size,
        "people": len(first),
        "load_ms": load_ms,
        "first_ms": first_ms,
        "start_ms": (started - request["spawned_at"]) * 1e3 + load_ms + first_ms,
        "peak_mb": peak_memory_mb(),
        "samples": samples,
    }


def _open(model: str | None, options: dict[str, Any]) -> PoseRunner:
    """The model by `PoseRunner`; by the trainer half, with its own threads, where only that has the runtime."""
    if not needs_trainer(model):
        from edgepose.runner import PoseRunner

        return PoseRunner(model, **options)
    from edgepose import PoseModel

    given = {name: options[name] for name in ("imgsz", "conf") if options[name] is not None}
    if options["device"] != "auto":
        given["device"] = options["device"]
    return PoseModel(str(model)).runner(**given)


def time_predictions(runner: PoseRunner, picture: NDArray[np.uint8], color: str, runs: int) -> dict[str, list[float]]:
    """Milliseconds of each stage in each of the runs; "total" is the whole call, a little more than their sum."""
    rows = np.empty((runs, len(STAGES)))
    for row in rows:
        start = perf_counter()
        result = runner.predict(picture, color=color)
        total = (perf_counter() - start) * 1e3
        row[:] = (result.speed.preprocess, result.speed.inference, result.speed.decode, total)
    return dict(zip(STAGES, rows.T.round(4).tolist(), strict=True))


def load_source(source: str | None) -> tuple[NDArray[np.uint8], str]:
    """The picture to predict on and its colour order; without a source a made-up 640x480 one, the same each time."""
    if source is None:
        y, x, channel = np.ogrid[:480, :640, :3]
        return ((x * 7 ^ y * 5) * (channel + 3) // 8 % 256).astype(np.uint8), "BGR"
    from edgepose.pictures import load_picture

    return load_picture(source)


def peak_memory_mb() -> float:
    """The most memory that this process ever had resident, in MB (10^6 bytes).

    VmHWM first: the kernel carries getrusage's figure over from the process that started this one.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            kilobytes = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * 1.024e-3


def main() -> None:
    serve(measure)


def serve(measured: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answers the JSON request on standard input with JSON on standard output; an exception is an answer too."""
    # Runtimes write to file descriptor 1 too: the answer keeps it for itself, they get the error output.
    answer_to = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(answer_to, "w") as output:
        json.dump(_answer(measured, json.load(sys.stdin)), output)


def _answer(measured: Callable[[dict[str, Any]], dict[str, Any]], request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"status": "ok", **measured(request)}
    except Exception as error:
        return {"status": "failed", "detail": f"{type(error).__name__}: {error}"}
