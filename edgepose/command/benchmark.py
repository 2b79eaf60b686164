"""`edgepose benchmark`: runs the cases with a progress bar, prints the table, writes JSON, CSV and the plot."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from edgepose.benchmark import BenchmarkReport, CaseResult, benchmark, count_cases
from edgepose.command.doctor import board_lines, packages_text
from edgepose.command.runs import new_run_folder
from edgepose.modelfiles.files import write_atomically


def run(
    model: Sequence[str] | None = None,
    source: str | None = None,
    data: str | None = None,
    backend: Sequence[str] = ("auto",),
    threads: Sequence[int] | None = None,
    imgsz: int | Sequence[int] | None = None,
    device: str = "auto",
    precision: str | None = None,
    spec: str | None = None,
    conf: float = 0.25,
    runs: int = 100,
    warmup: int = 10,
    timeout: float = 600.0,
    save: bool = True,
    plot: bool | None = None,
    json: bool = False,
    name: str = "benchmark",
    project: str = "runs/pose",
    exist_ok: bool = False,
) -> int:
    """Returns 0 where every model ran in at least one way, else 1. Raises KeyboardInterrupt after Ctrl-C, with what was
    measured until then printed and written."""
    if plot and find_spec("matplotlib") is None:
        raise ImportError('plot=true needs matplotlib: pip install "edgepose[plot]"')
    with _Progress(count_cases(model, backend, threads)) as progress:
        report = benchmark(
            model,
            source=source,
            data=data,
            backend=backend,
            threads=threads,
            imgsz=imgsz,
            device=device,
            precision=precision,
            spec=spec,
            conf=conf,
            runs=runs,
            warmup=warmup,
            timeout=timeout,
            on_case=progress.step,
        )
    print(report.to_json() if json else report_text(report))
    drawable = any(case.status == "ok" for case in report.cases)
    with_plot = drawable and (find_spec("matplotlib") is not None if plot is None else plot)
    if save or plot:
        folder = new_run_folder(project, name, exist_ok)
        for path in write_files(report, folder, save=save, plot=with_plot):
            print(f"wrote {path}", file=sys.stderr if json else sys.stdout)
    if report.interrupted:
        raise KeyboardInterrupt
    return 0 if report.complete else 1


def report_text(report: BenchmarkReport) -> str:
    """The report for a person to read."""
    settings = report.settings
    picture = settings["source"] or "a made-up 640x480 picture without people (source=photo.jpg gives decode its work)"
    parts = [
        *board_lines(dict(report.board)),
        f"{'packages:':<14}{packages_text(report.board['packages'])}",
        "",
        f"{settings['runs']} predictions on {picture}; times in ms, memory at its peak (MB) and disk in 10^6 bytes",
        report.table(),
    ]
    if report.warnings:
        parts += ["", *(f"{warning.level}: {warning.what}" for warning in report.warnings)]
        parts += [f"    {fix}" for fix in dict.fromkeys(warning.fix for warning in report.warnings) if fix]
    return "\n".join(parts)


def write_files(report: BenchmarkReport, folder: Path, *, save: bool, plot: bool) -> list[Path]:
    """Writes benchmark.json, benchmark.csv and benchmark.png, and accuracy.png where AP was measured; returns what was
    written."""
    contents: dict[str, str | bytes] = {}
    if save:
        contents |= {"benchmark.json": report.to_json(), "benchmark.csv": report.to_csv()}
    if plot:
        from edgepose.benchmark.plot import draw, draw_accuracy

        contents["benchmark.png"] = draw(report)
        if any(case.status == "ok" and case.ap is not None for case in report.cases):
            contents["accuracy.png"] = draw_accuracy(report)
    for name, content in contents.items():
        write_atomically(str(folder / name), [content.encode() if isinstance(content, str) else content])
    return [folder / name for name in contents]


class _Progress:
    """A bar on the error output, where that is a terminal, with a step a case."""

    def __init__(self, cases: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=cases, desc="benchmark", unit="case", disable=None, leave=False)

    def step(self, case: CaseResult) -> None:
        self._bar.set_postfix_str(case.runtime)
        self._bar.update()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
