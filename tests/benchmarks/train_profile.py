"""Where a training step's time goes: python tests/benchmarks/train_profile.py my.yaml

Milliseconds of one thread for each batch: YOLOv8n-pose, 16 pictures of 256 pixels. The kinds add up to the step; making
a batch is the workers' work, beside it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice

import torch
from edgepose_trainer.config import load_config
from edgepose_trainer.distributed import World
from edgepose_trainer.train import Run, backward, begin_epoch, prepare, step
from torch.profiler import ProfilerActivity, profile

BATCHES = 6
KINDS = {
    "convolutions, forward": ("aten::mkldnn_convolution", "aten::_slow_conv2d_forward"),
    "convolutions, backward": ("aten::convolution_backward",),
    "batch norm": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
    "SiLU": ("aten::silu", "aten::silu_backward"),
    "joining, adding and copying maps, casts": ("aten::cat", "aten::add", "aten::add_", "aten::copy_"),
    "optimizer, clipping, average": ("aten::_fused_adamw_", "aten::_fused_sgd_", "aten::lerp_", "aten::_foreach_norm"),
}


def prepared(data: str, folder: str) -> Run:
    settings = {"data": data, "imgsz": 256, "batch": 16, "workers": 0, "threads": 1, "epochs": 2}
    quiet = {"val": False, "plots": False, "verbose": False, "device": "cpu", "project": folder}
    run = prepare(load_config(None, settings | quiet), None, World(torch.device("cpu")), {}, ())
    begin_epoch(run)
    return run


def timed(run: Run) -> Iterator[tuple[str, float]]:
    """(kind, ms a batch)"""
    start = time.process_time()
    batches = list(islice(run.loader, BATCHES))
    made = time.process_time() - start
    for warm in batches[:2]:
        backward(run, warm)
        step(run)
    start = time.process_time()
    for batch in batches:
        backward(run, batch)
        step(run)
    whole = (time.process_time() - start) / len(batches) * 1e3
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for batch in batches:
            backward(run, batch)
            step(run)
    events = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    scale = whole / sum(events.values())  # the profiler's own time, and others on the machine, are in its figures
    known = {kind: scale * sum(events.get(name, 0.0) for name in names) for kind, names in KINDS.items()}
    yield from known.items()
    yield "the rest: loss, pooling, upsampling, Python", whole - sum(known.values())
    yield "a step", whole
    yield "making a batch", made / len(batches) * 1e3


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for kind, ms in timed(prepared(sys.argv[1], folder)):
            print(f"{kind:<45}{ms:8.1f} ms")
