"""What a person sees of an epoch, on a screen and in the table."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from edgepose_trainer.metrics import Metrics
from edgepose_trainer.recorder import LOSS_NAMES, EpochLine

CPU = torch.device("cpu")
PARTS = {"pose": SimpleNamespace(map=0.123, map50=0.4), "box": SimpleNamespace(map=0.5), "f1": 0.6}
METRICS = cast("Metrics", SimpleNamespace(**PARTS))


def trained_line() -> EpochLine:
    line = EpochLine(epoch=4, epochs=100, batches=2, done=0, verbose=True)
    for _ in range(2):
        line.update(16, [1.0] * len(LOSS_NAMES), CPU, left=83.0)
    return line


def test_a_narrow_screen_shows_bar_speed_memory_and_time_left() -> None:
    line = trained_line()
    line.bar.dynamic_ncols = lambda _: (80, 24)
    shown = str(line.bar)
    line.close()
    assert len(shown) <= 80
    assert all(word in shown for word in ("epoch 5/100", "2/2", "█", "img/s", "G left 1m23s"))


def test_a_finished_line_shows_losses_and_metrics_on_any_screen(capsys: pytest.CaptureFixture[str]) -> None:
    line = trained_line()
    line.bar.dynamic_ncols = lambda _: (80, 24)
    line.close(METRICS)
    last = capsys.readouterr().err.rpartition("\r")[2]
    assert all(f"{name} 1.000" in last for name in LOSS_NAMES)
    assert last.endswith("AP 0.123 AP50 0.400 F1 0.600 box 0.500\n")


def test_the_speed_is_that_of_training_alone() -> None:
    line = EpochLine(epoch=0, epochs=1, batches=1, done=0, verbose=False)
    line.update(16, None, CPU, left=0.0)
    speed = line.speed
    time.sleep(0.05)  # a validation
    line.close(METRICS)
    assert line.speed == speed > 0
