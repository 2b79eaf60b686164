"""Measures models on this board: `benchmark(...)` gives latency per stage, memory, start-up, size, AP of each case."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from edgepose.benchmark.accuracy import check_labels
from edgepose.benchmark.case import STAGES, load_source
from edgepose.benchmark.models import find_models, needs_trainer
from edgepose.benchmark.report import BenchmarkReport, CaseResult, StageTimes
from edgepose.benchmark.trust import doubts
from edgepose.child import child_command
from edgepose.doctor import board_facts, package_versions
from edgepose.doctor.advice import Finding, busy_findings
from edgepose.doctor.board import load
from edgepose.doctor.files import Files
from edgepose.info import size_of
from edgepose.shipped import MODEL

__all__ = ["BenchmarkReport", "CaseResult", "StageTimes", "benchmark"]

_PACKAGES = ("onnxruntime", "openvino", "ai-edge-litert", "tflite-runtime", "numpy")


def benchmark(
    models: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | None] | None,
    *,
    source: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    backend: str | Sequence[str] = "auto",
    threads: int | Sequence[int | None] | None = None,
    imgsz: int | Sequence[int] | None = None,
    device: str = "auto",
    precision: str | None = None,
    spec: str | None = None,
    conf: float = 0.25,
    runs: int = 100,
    warmup: int = 10,
    timeout: float = 600.0,
    on_case: Callable[[CaseResult], None] | None = None,
    root: str | os.PathLike[str] = "/",
) -> BenchmarkReport:
    """Times every model on every backend with every number of threads, one after the other, each in a fresh process.

    Args:
        models: one or several paths, globs, folders of models, or checkpoints, which bring the exports beside them;
            None is the model that `PoseRunner()` loads.
        source: a picture's path or URL; without it a made-up 640x480 picture, in which there are no people to decode.
        data: a data YAML: the AP on its validation pictures is measured too, which needs the trainer half.
        backend, threads: one or several; a model that the trainer half runs has one case, with its own.
        imgsz, device, precision, spec, conf: as `PoseRunner` takes them.
        runs: timed predictions. warmup: predictions before them, at least 1.
        timeout: seconds after which a case is given up.
        on_case: called with each case as soon as it is done.
        root: where /proc and /sys are read for the board's facts.

    A case that fails, crashes or hangs is in the report like any other. Ctrl-C ends the measurement; what was measured
    until then is the report, and says `interrupted`.

    Raises:
        ValueError: no model, or runs, warmup or timeout below their least. FileNotFoundError: no such source or data.
        ImportError: data without the trainer half.
    """
    asked = _found(models)
    if not asked or runs < 1 or warmup < 1 or timeout <= 0:
        raise ValueError(
            f"expected a model, runs and warmup of at least 1 and a timeout above 0; got models={models!r}, "
            f"runs={runs}, warmup={warmup}, timeout={timeout}"
        )
    if data is not None:
        check_labels(os.fspath(data))
    picture = None if source is None else os.fspath(source)
    load_source(picture)
    files = Files(root)
    options = {"imgsz": imgsz, "device": device, "precision": precision, "spec": spec, "conf": conf}
    request = {"options": options, "source": picture, "runs": runs, "warmup": warmup}
    before, busy = {**board_facts(files), "packages": package_versions(_PACKAGES)}, list(_busy(files))
    cases: list[CaseResult] = []
    interrupted = False
    try:
        for model in asked:
            accuracy = {} if data is None else measure_accuracy(model, os.fspath(data), imgsz, timeout)
            for name, count in _ways(model, backend, threads):
                cases.append(run_case(model, name, count, request, timeout, accuracy))
                if on_case is not None:
                    on_case(cases[-1])
    except KeyboardInterrupt:
        if not cases:
            raise
        interrupted = True
    warnings = [*busy, *doubts(before, board_facts(files), cases)]
    labels = None if data is None else os.fspath(data)
    settings = {"source": picture, "data": labels, "runs": runs, "warmup": warmup, **options}
    return BenchmarkReport(tuple(cases), settings, before, tuple(warnings), interrupted)


def count_cases(models: Any, backend: Any, threads: Any) -> int:
    """How many cases these make."""
    return sum(len(_ways(model, backend, threads)) for model in _found(models))


def _found(models: Any) -> list[str | None]:
    """Every model once; None is one too."""
    words = _several(models)
    return list(dict.fromkeys(path for word in words for path in ([None] if word is None else find_models(word))))


def _ways(model: str | None, backend: Any, threads: Any) -> list[tuple[str, int | None]]:
    """The runtimes and numbers of threads that a model is timed with."""
    return [("auto", None)] if needs_trainer(model) else list(product(_several(backend), _several(threads)))


def measure_accuracy(
    model: str | None, data: str, imgsz: int | Sequence[int] | None, timeout: float, command: Sequence[str] = ()
) -> dict[str, Any]:
    """The AP of a model, measured in a child process: {"ap": …}, or {"ap_problem": why there is none}."""
    document = json.dumps({"model": model or str(MODEL), "data": data, "imgsz": imgsz})
    answer = _ask(command or child_command("edgepose.benchmark.accuracy"), document, timeout)
    return {"ap": answer["ap"]} if answer["status"] == "ok" else {"ap_problem": answer["detail"]}


def run_case(
    model: str | os.PathLike[str] | None,
    backend: str,
    threads: int | None,
    request: dict[str, Any],
    timeout: float,
    accuracy: Mapping[str, Any] | None = None,
    command: Sequence[str] = (),
) -> CaseResult:
    """Measures one case in a child process: `edgepose.benchmark.case`, or what a test puts in its place."""
    name = None if model is None else os.fspath(model)
    path = name or str(MODEL)
    size = {"size_bytes": size_of(path)} if os.path.exists(path) else {}
    options = {**request["options"], "backend": backend, "threads": threads}
    document = {**request, "model": name, "options": options, "spawned_at": time.monotonic()}
    answer = _ask(command or child_command("edgepose.benchmark.case"), json.dumps(document), timeout)
    samples = answer.pop("samples", {})
    return CaseResult(
        model=name or "default model",
        backend=backend,
        threads=threads,
        status=answer.pop("status"),
        detail=answer.pop("detail", ""),
        facts={**answer, **size, **(accuracy or {})},
        stages={stage: StageTimes(tuple(samples[stage])) for stage in STAGES if stage in samples},
    )


def _ask(command: Sequence[str], document: str, timeout: float) -> dict[str, Any]:
    try:
        child = subprocess.run(
            command, input=document, capture_output=True, text=True, timeout=timeout, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return {"status": "timeout", "detail": f"no answer in {timeout:g} s; timeout= gives it longer"}
    except OSError as error:
        return {"status": "failed", "detail": f"no child process could be started: {error}"}
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines()
        return {"status": "crashed", "detail": f"exit code {child.returncode}{': ' + lines[-1] if lines else ''}"}
    try:
        answer = json.loads(child.stdout)
        return {"status": answer.pop("status"), **answer}
    except (ValueError, AttributeError, TypeError, KeyError):
        return {"status": "failed", "detail": "the process that measures gave no readable answer"}


def _busy(files: Files, seconds: float = 0.25) -> Iterator[Finding]:
    """What other programs do to the processor while this one sleeps."""
    before = load(files)
    time.sleep(seconds)
    yield from busy_findings(before, load(files))


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, (str, os.PathLike)) else [value]
