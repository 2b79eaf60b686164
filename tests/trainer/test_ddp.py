"""Data-parallel training: two processes do what one does with the same global batch."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepose_trainer.config import load_config
from edgepose_trainer.distributed import World, launch, parse_devices, sync_batch_norm
from edgepose_trainer.train import train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Child processes find the packages too."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "trainer")]))


def losses(folder: Path) -> list[list[float]]:
    with (folder / "results.csv").open() as file:
        return [[float(v) for name, v in row.items() if name.startswith("loss/")] for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_two_processes_give_the_losses_and_weights_of_one(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    settings = tiny_settings | {"epochs": 2, "amp": False, "val": False, "project": str(tmp_path)}
    one = train(load_config(None, settings | {"name": "one"}))
    two = train(load_config(None, settings | {"name": "two", "device": "cpu,cpu"}))
    for single, double in zip(losses(one.folder), losses(two.folder), strict=True):
        assert double == pytest.approx(single, rel=1e-3)
    assert two.last is not None
    again = load_config(two.folder / "args.yaml")
    assert (again.device, again.exist_ok) == ("cpu,cpu", False)  # does not write over this run


def test_devices_are_parsed_and_missing_ones_named() -> None:
    assert parse_devices("cpu,cpu") == [torch.device("cpu")] * 2
    with pytest.raises(ValueError, match="CUDA GPUs here"):
        parse_devices(f"{torch.cuda.device_count()},97")
    with pytest.raises(ValueError, match="expected"):
        parse_devices("gpu zero")


@pytest.mark.slow
@pytest.mark.usefixtures("importable")
def test_a_failure_in_the_processes_is_an_error(tmp_path: Path) -> None:
    config = load_config(None, {"data": str(tmp_path / "none.yaml"), "device": "cpu,cpu"})
    with pytest.raises(RuntimeError, match="2 devices ended with exit code"):
        launch(config, parse_devices("cpu,cpu"))


BATCH_NORM = """
import torch, torch.distributed as dist
from edgepose_trainer.distributed import World, sync_batch_norm
dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
x = torch.randn(6, 3, 4, 5) * 3 + 7
y = torch.randn(6, 3, 4, 5)
def run(world, rows):
    norm = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    norm = sync_batch_norm(norm, world)
    part = x[rows].clone().requires_grad_()
    out = norm(part)
    (out * y[rows]).sum().backward()
    return out, part.grad, norm[0].running_mean, norm[0].running_var
rows = slice(0, 4) if rank == 0 else slice(4, 6)
mine = run(World(torch.device("cpu"), rank, size), rows)
whole = run(World(torch.device("cpu")), slice(None))
for got, want in zip(mine, (whole[0][rows], whole[1][rows], whole[2], whole[3])):
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
dist.destroy_process_group()
"""


@pytest.mark.usefixtures("importable")
def test_batch_norm_over_two_uneven_processes_is_that_over_the_whole_batch(tmp_path: Path) -> None:
    (tmp_path / "norm.py").write_text(BATCH_NORM)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--local-addr=127.0.0.1",
        "--nproc-per-node",
        "2",
    ]
    done = subprocess.run([*command, str(tmp_path / "norm.py")], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_one_process_keeps_torchs_batch_norm() -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
    assert type(sync_batch_norm(network, World(torch.device("cpu")))[0]) is torch.nn.BatchNorm2d  # type: ignore[index]
