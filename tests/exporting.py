"""How an export is held against its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from edgepose_trainer.model import PoseModel
from edgepose_trainer.nn import PoseNetwork

from edgepose import PoseRunner
from edgepose.result import PoseResult

SMALL: dict[str, Any] = {
    "nc": 1,
    "kpt_shape": [17, 3],
    "scale": [0.33, 0.25, 256],
    "backbone": {"stem": 64, "stages": [[64, 1], [128, 1], [128, 1]]},
    "neck": {"levels": 2, "repeats": 1},
    "head": {"reg_max": 16},
}
"""A model YAML with every kind of layer and few of each: converters take their time for each layer."""


@torch.no_grad()
def excited(network: PoseNetwork, size: tuple[int, int] = (96, 96)) -> PoseNetwork:
    """Random weights let every signal fade: fits the batch norms to noise, and stretches what the head says of it."""
    noise = torch.Generator().manual_seed(2)
    pictures = torch.rand(4, 3, *size, generator=noise)
    pictures[:2, :, :24] = 114 / 255
    if network.head.context is not None:  # a new one adds nothing
        for last in (network.head.context.to_fine, network.head.context.to_coarse):
            torch.nn.init.normal_(last.weight, std=0.3, generator=noise)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    network.train().raw(pictures)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    raw = network.eval().raw(pictures)
    head = network.head
    stretched: list[tuple[Any, Any, float]] = [
        (head.cv2, raw.box, 0.7),
        (head.cv3, raw.score, 1.5),
        (head.cv4, raw.keypoints, 0.5),
        ([head.heatmap] if head.heatmap is not None else [], [raw.heatmap], 1.5),
    ]
    for branches, maps, spread in stretched:
        for branch, found in zip(branches, maps, strict=False):
            last = branch[-1]
            scale = spread / found.std()
            last.bias.copy_((last.bias - found.mean((0, 2, 3))) * scale)
            last.weight.mul_(scale)
    return network


OPTIONS: dict[str, Any] = {"conf": 0.5, "max_det": 20, "clip": False}


def assert_same_people(found: list[PoseResult], expected: list[PoseResult], pixels: float, score: float) -> None:
    """The same people, best first; places within `pixels` of the source picture, scores within `score`."""
    assert sum(len(result) for result in expected) >= 5
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, atol=score)
        np.testing.assert_array_equal(a.class_ids, b.class_ids)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=pixels)
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=pixels)
        np.testing.assert_allclose(a.keypoint_scores, b.keypoint_scores, atol=score)


def people_of_checkpoint(path: Path, pictures: list[Any], imgsz: Any = None) -> list[PoseResult]:
    options = OPTIONS if imgsz is None else {**OPTIONS, "imgsz": imgsz}
    found: list[PoseResult] = PoseModel(path).runner(**options).predict(pictures)
    return found


def people_of_artifact(path: Path, pictures: list[Any], **options: Any) -> list[PoseResult]:
    with PoseRunner(path, **OPTIONS, **options) as runner:
        return runner.predict(pictures)
