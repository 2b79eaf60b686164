"""What a person sees of a run: the live line, results.csv and TensorBoard."""

from __future__ import annotations

import csv
import io
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from edgepose_trainer.data.files import write_whole
from edgepose_trainer.metrics import Metrics

LOSS_NAMES = ("box", "pose", "kobj", "cls", "dfl")


def memory_text(device: torch.device) -> str:
    """The most memory used so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_reserved(device) / 2**30:.1f}G"
    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.1f}G"


def duration_text(seconds: float) -> str:
    """83 s as "1m23s", 5000 s as "1h23m"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


class EpochLine:
    """One epoch's line: bar, speed, memory, time left and loss parts while it runs, as far as the screen is wide; when
    it is over the whole of it, with the metrics.

    speed: pictures a second in this epoch's training.
    """

    def __init__(self, epoch: int, epochs: int, batches: int, done: int, verbose: bool) -> None:
        self.bar: tqdm[Any] = tqdm(
            total=batches,
            initial=done,
            desc=f"epoch {epoch + 1}/{epochs}",
            disable=not verbose,
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else 30.0,  # a log file is not a screen
            bar_format="{desc} {percentage:3.0f}%|{bar:8}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}",
        )
        self.pictures, self.start, self.speed, self.text = 0, time.perf_counter(), 0.0, ""

    def update(self, pictures: int, losses: list[float] | None, device: torch.device, left: float) -> None:
        """After a batch. losses: means so far, None to leave the text as it is. left: seconds of the run."""
        self.pictures += pictures
        self.speed = self.pictures / max(time.perf_counter() - self.start, 1e-9)
        if losses is not None:
            parts = " ".join(f"{name} {value:.3f}" for name, value in zip(LOSS_NAMES, losses, strict=True))
            self.text = f"{self.speed:.1f} img/s {memory_text(device)} left {duration_text(left)} | {parts}"
            self.bar.set_postfix_str(self.text, refresh=False)
        self.bar.update()

    def close(self, metrics: Metrics | None = None) -> None:
        if metrics is not None:
            found = (
                f"AP {metrics.pose.map:.3f} AP50 {metrics.pose.map50:.3f} F1 {metrics.f1:.3f} box {metrics.box.map:.3f}"
            )
            self.bar.set_postfix_str(f"{self.text} | {found}", refresh=False)
        self.bar.dynamic_ncols, self.bar.ncols = False, None  # nothing is cut off
        self.bar.close()


class Recorder:
    """results.csv, one row an epoch, and TensorBoard events where wanted.

    The table is written whole or not at all: a row that found no room is in the next one.
    """

    def __init__(self, folder: Path, tensorboard: bool, epochs_done: int) -> None:
        self.path = folder / "results.csv"
        self.rows = [row for row in read_rows(self.path) if int(row["epoch"]) <= epochs_done]
        self.writer = _summary_writer(folder) if tensorboard else None

    def add(self, row: dict[str, float]) -> None:
        """A row of numbers, "epoch" among them."""
        self.rows.append({name: f"{value:.6g}" for name, value in row.items()})
        self._write()
        if self.writer is not None:
            for name, value in row.items():
                self.writer.add_scalar(name, value, int(row["epoch"]))
            self.writer.flush()

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        table = io.StringIO()
        writer = csv.DictWriter(table, names, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self.path, table.getvalue().encode())

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a results.csv; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError('tensorboard=true needs TensorBoard: pip install "edgepose[train]"') from error
    return SummaryWriter(str(folder))
