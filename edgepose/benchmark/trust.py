"""What makes a benchmark's figures doubtful: the board's clock and heat, other programs, timings that drift."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from edgepose.benchmark.report import CaseResult, case_name
from edgepose.doctor.advice import Finding, speed_findings

_DRIFT: Final = 1.10
_SPREAD: Final = 1.5
_FEW: Final = 20


def doubts(before: Mapping[str, Any], after: Mapping[str, Any], cases: Sequence[CaseResult]) -> list[Finding]:
    """Everything that speaks against the figures. before, after: `board_facts` around the measurement."""
    found = list(speed_findings(dict(before)))
    found += [finding for finding in speed_findings(dict(after)) if finding not in found]
    found += _new_throttling(before["heat"], after["heat"])
    for case in cases:
        found += _unsteady(case)
    return found


def _new_throttling(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Finding]:
    counts = (before["x86_throttle_count"], after["x86_throttle_count"])
    if None not in counts and counts[1] > counts[0]:
        yield Finding("warning", f"the processor throttled itself {counts[1] - counts[0]} times during the measurement")


def _unsteady(case: CaseResult) -> Iterator[Finding]:
    samples = np.asarray(case.stages["total"].samples) if case.status == "ok" else np.empty(0)
    if len(samples) < _FEW:
        return
    first, second = (float(np.median(half)) for half in np.array_split(samples, 2))
    if second > first * _DRIFT:
        slower = f"{second / first - 1:.0%}"
        yield Finding(
            "warning", f"{case_name(case)} became {slower} slower while it was timed: heat, or other programs"
        )
    middle, high = np.percentile(samples, (50, 90))
    if high > middle * _SPREAD:
        yield Finding("warning", f"{case_name(case)}: one call in ten takes over {high / middle:.1f} times the median")
