"""Networks: published sizes, every form of YAML, decoding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgepose_trainer.nn import build_model, model_info  # noqa: E402

PUBLISHED = {
    "yolov8n-pose": (3_289_964, 9.2),
    "yolov8s-pose": (11_615_724, 30.2),
    "yolov8m-pose": (26_447_596, 81.0),
    "yolov8l-pose": (44_465_580, 168.6),
    "yolov8x-pose": (69_462_204, 263.2),
    "yolov8x-p6-pose": (99_141_280, 1066.4),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_flops_equal_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        info = model_info(build_model(f"{name}.yaml"))
    parameters, gflops = PUBLISHED[name]
    assert info["parameters"] == parameters
    assert round(info["flops"] / 1e9, 1) == gflops
    assert type(info["flops"]) is int
    assert sum(row["flops"] for row in info["layers"]) == info["flops"]
    json.dumps(info)
