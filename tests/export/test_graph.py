"""Formats that rebuild the network operator by operator know the operators of every network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepose_trainer.export.graph import replay
from edgepose_trainer.model import PoseModel
from edgepose_trainer.nn.blocks import ACTIVATIONS
from exporting import OPTIONS, assert_same_people, people_of_checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("format", ["saved_model", "paddle"])
def test_every_activation(
    format: str,
    activation: str,
    make_checkpoint: Callable[..., Path],
    pictures: list[Any],
    needs: Callable[[str], None],
) -> None:
    needs(format)
    checkpoint = make_checkpoint(yaml={"activation": activation, "heatmap": True})
    path = PoseModel(checkpoint).export(format, imgsz=64)
    expected = people_of_checkpoint(checkpoint, pictures, 64)
    assert_same_people(PoseModel(path).runner(**OPTIONS).predict(pictures), expected, 0.05, 1e-3)


def test_an_operator_without_a_counterpart_is_told() -> None:
    import torch

    class Erf(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.erf(x)

    program = torch.export.export(Erf(), (torch.zeros(1),))
    with pytest.raises(NotImplementedError, match=r"aten\.erf\.default has no counterpart"):
        replay(program, {}, torch.zeros(1))
