"""Devices, and data-parallel training: who this process is, and what it shares with the others."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor, nn

from edgepose_trainer.config import Config, save_config

# The others wait while the first process validates.
_PATIENCE = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class World:
    """This process: its rank among `size`, and its device."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        return self.rank == 0


def parse_devices(device: str | int | None) -> list[torch.device]:
    """ "cpu", 0, "0", "cuda:1", "0,1" or "cpu,cpu" (two processes); None: the first GPU, else the CPU.

    Raises ValueError for a device that is not here.
    """
    if device is None or device == "":
        return [torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")]
    return [_parse_device(part.strip(), device) for part in str(device).split(",")]


def _parse_device(text: str, whole: str | int) -> torch.device:
    if text in ("cpu", "mps"):
        return torch.device(text)
    index = text.removeprefix("cuda:").removeprefix("cuda") or "0"
    if not index.isdigit():
        raise ValueError(f'device={whole!r}: expected "cpu", a GPU number such as 0, or several as in "0,1"')
    if int(index) >= torch.cuda.device_count():
        raise ValueError(
            f"device={whole!r}: PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA GPUs here; use "
            "device=cpu, or install a PyTorch build for your GPU"
        )
    return torch.device("cuda", int(index))


def must_launch(devices: list[torch.device]) -> bool:
    """Several devices, and torchrun has not started this process yet."""
    return len(devices) > 1 and "LOCAL_RANK" not in os.environ


def launch(config: Config, devices: list[torch.device]) -> None:
    """Trains with one process a device under torchrun. Raises RuntimeError where they fail."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "args.yaml"
        save_config(config, settings)
        torchrun = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--local-addr=127.0.0.1",
            "--nproc-per-node",
            str(len(devices)),
        ]
        code = _run_patiently([*torchrun, "-m", "edgepose_trainer.train", str(settings)])
    if code:
        raise RuntimeError(f"training on {len(devices)} devices ended with exit code {code}; the first error is above")


def _run_patiently(command: list[str]) -> int:
    """Runs it, returns its exit code. At Ctrl-C, which its processes get too, waits until they have saved; a second
    one ends the wait."""
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            try:
                process.wait()
            except KeyboardInterrupt:
                process.kill()
            raise
        except BaseException:  # leaving this block waits for the process
            process.kill()
            raise


@contextmanager
def join(devices: list[torch.device]) -> Iterator[World]:
    """This process's place: alone, or in the group that torchrun started."""
    if "LOCAL_RANK" not in os.environ:
        yield World(devices[0])
        return
    local = int(os.environ["LOCAL_RANK"])
    device = (
        devices[local % len(devices)] if devices[0].type == "cpu" or len(devices) > 1 else torch.device("cuda", local)
    )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield World(device, dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def agree(flag: bool, world: World) -> bool:
    """True where any process says so."""
    if world.size == 1:
        return flag
    shared = torch.tensor([float(flag)], device=world.device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return bool(shared.item())


def share(value: Any, world: World) -> Any:
    """The first process's value, in each process."""
    if world.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def total(values: Tensor, world: World) -> Tensor:
    """The sum over all processes (no gradients)."""
    if world.size > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def parallel(network: nn.Module, world: World) -> nn.Module:
    """The network whose backward pass averages gradients over all processes."""
    if world.size == 1:
        return network
    ids = [world.device.index] if world.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)


def sync_batch_norm(network: nn.Module, world: World) -> nn.Module:
    """Batch norm over the whole batch of all processes. torch's own for GPUs; `GlobalBatchNorm` on CPUs."""
    if world.size == 1:
        return network
    if world.device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return converted
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlobalBatchNorm
    return network


def _summed(values: Tensor) -> Tensor:
    """The sum over all processes, through which gradients pass."""
    result: Tensor = dist_nn.all_reduce(values)  # type: ignore[no-untyped-call]
    return result


class GlobalBatchNorm(nn.BatchNorm2d):
    """Batch norm (Ioffe and Szegedy, 2015) whose mean and variance are of all processes' pictures; for the CPU, where
    torch has none. Variance in two passes, as one process computes it."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        values = x.float()
        count = _summed(values.new_tensor([values.numel() / values.shape[1]]))
        mean = _summed(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _summed((centred * centred).sum((0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        result: Tensor = (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)
        return result

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
