"""The latency distribution of each stage, all cases side by side; accuracy against latency."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from edgepose.benchmark.report import BenchmarkReport, CaseResult, case_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    figure = _new_figure((11, 1.6 + 4 * (0.45 + 0.3 * len(cases))))
    for axes, stage in zip(figure.subplots(len(_TITLES), 1), _TITLES, strict=True):
        _draw_stage(axes, stage, cases)
    boxes = "box 25 to 75 %, line 10 to 90 %, dot 99 % of the predictions"
    figure.suptitle(f"latency on {_board_title(report)}: {boxes}", fontsize=10)
    return _png(figure)


def draw_accuracy(report: BenchmarkReport) -> bytes:
    """The plot as a PNG file's bytes: AP over the median of the whole predict, a dot a case, its area in proportion to
    the peak memory, labelled with the model and its size on disk.

    Raises ImportError without matplotlib, ValueError where no case has both.
    """
    measured = [(case, case.ap) for case in report.cases if case.status == "ok" and case.ap is not None]
    if not measured:
        raise ValueError("no case has an AP to plot")
    figure = _new_figure((11, 7))
    axes = figure.subplots()
    runtimes = list(dict.fromkeys(case.runtime for case, _ in measured))
    most = max(case.facts["peak_mb"] for case, _ in measured)
    for case, ap in measured:
        latency, color = case.stages["total"].percentile(50), _COLORS[runtimes.index(case.runtime) % len(_COLORS)]
        axes.scatter(latency, ap, s=300 * case.facts["peak_mb"] / most, color=color, alpha=0.6, edgecolors="black")
        label = f"  {case_name(case)}, {case.facts['size_bytes'] / 1e6:.1f} MB"
        axes.annotate(label, (latency, ap), fontsize=8, va="center")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.margins(x=0.25, y=0.1)
    axes.set_xlabel("whole predict, median, ms")
    axes.set_ylabel("OKS AP")
    axes.grid(which="both", alpha=0.3)
    figure.suptitle(f"accuracy against latency on {_board_title(report)}; area: memory at its peak", fontsize=10)
    return _png(figure)


def _new_figure(size: tuple[float, float]) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('the plot needs matplotlib: pip install "edgepose[plot]"') from error
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
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
    return f"{name}, {processor['usable_cores']:g} cores"
