"""What a benchmark found: figures of each case, the board that they hold for, and what makes them doubtful."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from edgepose.doctor.advice import Finding

PERCENTILES: Final = (50, 90, 99)
_HEAD: Final = ("model", "runtime", "threads", "input", "stage")


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Latencies of one stage in milliseconds, in the order in which they were measured."""

    samples: tuple[float, ...]

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.samples, percent))

    @property
    def mean(self) -> float:
        return float(np.mean(self.samples))

    @property
    def per_second(self) -> float:
        """How many a second one after the other: 1000 / mean."""
        return 1e3 / self.mean if self.mean > 0 else float("inf")

    def to_dict(self) -> dict[str, Any]:
        figures = {f"p{percent}_ms": round(self.percentile(percent), 4) for percent in PERCENTILES}
        return {
            **figures,
            "mean_ms": round(self.mean, 4),
            "min_ms": min(self.samples),
            "max_ms": max(self.samples),
            "per_second": round(self.per_second, 3),
            "samples_ms": list(self.samples),
        }


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One model on one runtime with one number of threads.

    backend, threads: as asked for ("auto", None: the runtime's own choice). facts: what the child process said besides
    its samples: runtime, input_size (height, width), picture_size, people, load_ms, first_ms, start_ms, peak_mb; and
    size_bytes of the model's file or folder; ap, or ap_problem, where labelled pictures were given.
    stages: preprocess, inference, decode, total. detail: why a case that is not "ok" gave nothing.
    """

    model: str
    backend: str
    threads: int | None
    status: Literal["ok", "failed", "crashed", "timeout"]
    detail: str
    facts: Mapping[str, Any]
    stages: Mapping[str, StageTimes]

    @property
    def runtime(self) -> str:
        return str(self.facts.get("runtime", self.backend))

    @property
    def ap(self) -> float | None:
        """OKS AP on the labelled pictures; None where it was not, or could not be, measured."""
        return self.facts.get("ap")

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "backend": self.backend,
            "threads": self.threads,
            "status": self.status,
            "detail": self.detail,
            **self.facts,
            "stages": {name: times.to_dict() for name, times in self.stages.items()},
        }

    def to_row(self) -> dict[str, Any]:
        """The case as a flat row of a CSV file."""
        row = {name: value for name, value in self.to_dict().items() if name != "stages"}
        for name in ("input_size", "picture_size"):
            row[name] = "x".join(str(side) for side in row.get(name) or ())
        for stage, times in self.stages.items():
            figures = times.to_dict()
            row |= {f"{stage}_{name}": value for name, value in figures.items() if name != "samples_ms"}
        return row


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """settings: what was asked for. board: the doctor's facts about the board, before the first case. warnings: what
    makes the figures doubtful. interrupted: Ctrl-C ended it before all cases were measured."""

    cases: tuple[CaseResult, ...]
    settings: Mapping[str, Any]
    board: Mapping[str, Any]
    warnings: tuple[Finding, ...]
    interrupted: bool = False

    @property
    def complete(self) -> bool:
        """Whether every model ran in at least one way."""
        ran = {case.model for case in self.cases if case.status == "ok"}
        return ran == {case.model for case in self.cases}

    def to_dict(self) -> dict[str, Any]:
        return {
            "settings": dict(self.settings),
            "board": dict(self.board),
            "interrupted": self.interrupted,
            "warnings": [finding.to_dict() for finding in self.warnings],
            "cases": [case.to_dict() for case in self.cases],
        }

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    def to_csv(self) -> str:
        """A line a case; the columns are those of `CaseResult.to_row`."""
        rows = [case.to_row() for case in self.cases]
        columns = list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def table(self) -> str:
        """All cases in one table, a line a stage, for a person to read. Times are milliseconds."""
        head = [
            "model",
            "runtime",
            "threads",
            "input",
            "stage",
            "p50",
            "p90",
            "p99",
            "mean",
            "per s",
            "load",
            "first",
            "start",
            "MB",
            "disk",
            *(["AP"] if any(case.ap is not None for case in self.cases) else []),
        ]
        rows = [row for case in self.cases if case.status == "ok" for row in _case_rows(case)]
        lines = _aligned([head, *rows]) if rows else []
        failed = [f"{case_name(case)}: {case.status}: {case.detail}" for case in self.cases if case.status != "ok"]
        unknown = {case.model: case.facts["ap_problem"] for case in self.cases if "ap_problem" in case.facts}
        return "\n".join([*lines, *failed, *(f"{short_name(model)}: no AP: {why}" for model, why in unknown.items())])


def case_name(case: CaseResult) -> str:
    """The case in a few words, for a plot's label or an error."""
    threads = "" if case.threads is None else f", {case.threads} thread{'s' if case.threads > 1 else ''}"
    return f"{short_name(case.model)} ({case.runtime}{threads})"


def short_name(model: str) -> str:
    """The last part of a path: of `a/b_openvino_model/model.xml` too, the folder says more than the file."""
    parts = [part for part in model.replace("\\", "/").split("/") if part]
    return parts[-1] if parts else model


def _case_rows(case: CaseResult) -> Iterator[list[str]]:
    size = "x".join(str(side) for side in case.facts["input_size"] or ()) or "dynamic"
    head = [short_name(case.model), case.runtime, str(case.threads or "auto"), size]
    tail = [f"{case.facts[name]:.0f}" for name in ("load_ms", "first_ms", "start_ms", "peak_mb")]
    tail.append(f"{case.facts['size_bytes'] / 1e6:.1f}")
    tail += [] if case.ap is None else [f"{case.ap:.3f}"]
    # The whole first, with what belongs to the case; its stages below.
    for stage in ("total", *(name for name in case.stages if name != "total")):
        times = case.stages[stage]
        figures = [*(times.percentile(percent) for percent in PERCENTILES), times.mean]
        row = [stage, *(f"{figure:.2f}" for figure in figures), f"{times.per_second:.1f}"]
        yield [*head, *row, *tail]
        head, tail = [""] * len(head), [""] * len(tail)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    columns = max(len(row) for row in rows)
    rows = [[*row, *[""] * (columns - len(row))] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (
            cell.ljust(width) if column < len(_HEAD) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return lines
