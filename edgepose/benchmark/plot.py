"""The latency distribution of each stage, all cases side by side."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from edgepose.benchmark.report import BenchmarkReport, CaseResult, case_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLES = {"total": "whole predict", "preprocess": "preprocess", "inference": "inference", "decode": "decode"}
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # told apart by colour-blind people too


def draw(report: BenchmarkReport) -> bytes:
    """The plot as a PNG file's bytes: for each stage and case the middle half (box), p10 to p90 (line), the median, and
    p99 (dot; an arrow where it lies outside).

    Raises ImportError without matplotlib, ValueError where no case has figures.
    """
    cases = [case for case in report.cases if case.status == "ok"]
    if not cases:
        raise ValueError("no case has figures to plot")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('the plot needs matplotlib: pip install "edgepose[plot]"') from error
    figure = Figure(figsize=(11, 1.6 + 4 * (0.45 + 0.3 * len(cases))), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, stage in zip(figure.subplots(len(_TITLES), 1), _TITLES, strict=True):
        _draw_stage(axes, stage, cases)
    figure.suptitle(_board_title(report), fontsize=10)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()


def _draw_stage(axes: Axes, stage: str, cases: list[CaseResult]) -> None:
    # One slow call in a hundred must not squeeze the boxes: a p99 far to the right is an arrow with its figure.
    right = 1.5 * max(case.stages[stage].percentile(90) for case in cases)
    for place, case in enumerate(cases):
        low, first, middle, third, high, last = (case.stages[stage].percentile(p) for p in (10, 25, 50, 75, 90, 99))
        color = _COLORS[place % len(_COLORS)]
        axes.hlines(place, low, high, colors="black", linewidths=1.2, zorder=1)
        axes.barh(place, third - first, left=first, height=0.6, color=color, edgecolor="black", zorder=2)
        axes.vlines(middle, place - 0.3, place + 0.3, colors="black", linewidths=1.6, zorder=3)
        axes.plot([min(last, right)], [place], "o" if last <= right else ">", color="black", markersize=4, zorder=3)
        if last > right:
            axes.text(right * 1.02, place, f"{last:.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(cases)), [case_name(case) for case in cases])
    axes.invert_yaxis()
    axes.set_xlim(0, right * 1.08)
    axes.set_xlabel(f"{_TITLES[stage]}, ms")
    axes.grid(axis="x", alpha=0.3)


def _board_title(report: BenchmarkReport) -> str:
    processor, system = report.board["processor"], report.board["system"]
    name = system["board"] or processor["model"] or system["machine"]
    return (
        f"latency on {name}, {processor['usable_cores']:g} cores: "
        "box 25 to 75 %, line 10 to 90 %, dot 99 % of the predictions"
    )
