"""Optimizer, learning rates and moving average: functions of plain numbers, so that a run can go on anywhere."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from edgepose_trainer.config import Config, default_settings
from edgepose_trainer.nn import PoseNetwork

LONG_RUN = 10_000


def choose_optimizer(config: Config, steps: int, nc: int) -> Config:
    """optimizer=auto as a named one: SGD (lr 0.01, momentum 0.9) for runs of more than 10,000 steps, else AdamW with
    lr 0.002 * 5 / (4 + classes) and beta1 0.9. An lr0 or momentum other than the default stays as it is."""
    if config.optimizer != "auto":
        return config
    if steps > LONG_RUN:
        chosen: dict[str, Any] = {"optimizer": "SGD", "lr0": 0.01, "momentum": 0.9}
    else:
        chosen = {
            "optimizer": "AdamW", "lr0": round(0.002 * 5 / (4 + nc), 6), "momentum": 0.9, "warmup_bias_lr": 0.0
        }  # fmt: skip
    said = [name for name in ("lr0", "momentum") if getattr(config, name) != default_settings()[name]]
    return config.replace(**{name: value for name, value in chosen.items() if name not in said})


def build_optimizer(network: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Three groups: biases, batch norm weights (neither decays) and the other weights (decay, scaled to the step's
    real number of pictures)."""
    groups = _parameter_groups(network)
    step_pictures = config.batch * accumulation(config)
    decay = config.weight_decay * step_pictures / config.nbs
    settings: list[dict[str, Any]] = [
        {"params": groups["bias"], "weight_decay": 0.0, "role": "bias"},
        {"params": groups["norm"], "weight_decay": 0.0, "role": "norm"},
        {"params": groups["weight"], "weight_decay": decay, "role": "weight"},
    ]
    settings = [group for group in settings if group["params"]]
    if not settings:
        raise ValueError("freeze leaves no weight to train")
    if config.optimizer == "SGD":
        momentum = config.momentum
        return torch.optim.SGD(settings, lr=config.lr0, momentum=momentum, nesterov=momentum > 0, fused=True)
    return torch.optim.AdamW(settings, lr=config.lr0, betas=(config.momentum, 0.999), fused=True)


def accumulation(config: Config) -> int:
    """Batches whose gradients are summed before a step."""
    return max(1, round(config.nbs / config.batch))


def _parameter_groups(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    groups: dict[str, list[nn.Parameter]] = {"bias": [], "norm": [], "weight": []}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            kind = (
                "bias" if name == "bias" else "norm" if isinstance(module, nn.modules.batchnorm._NormBase) else "weight"
            )
            groups[kind].append(parameter)
    return groups


def learning_rate_share(config: Config, progress: float) -> float:
    """The share of lr0 when `progress` (0..1) of the run is done: from 1 to lrf, in a line or half a cosine."""
    fall = (1 - math.cos(math.pi * progress)) / 2 if config.cos_lr else progress
    return 1 - (1 - config.lrf) * min(fall, 1.0)


def set_rates(optimizer: torch.optim.Optimizer, config: Config, batch: int, per_epoch: int, epochs: int) -> int:
    """Sets learning rates and momentum for the `batch`-th batch of the run; returns how many batches make this step.

    In the warm-up (Goyal et al., 2017) rates rise from 0 (SGD's biases fall from warmup_bias_lr), momentum from
    warmup_momentum, and the number of summed batches from 1.
    """
    rate = config.lr0 * learning_rate_share(config, batch / max(per_epoch * epochs, 1))
    warmup = min(config.warmup_epochs, epochs / 3) * per_epoch
    share = min(batch / warmup, 1.0) if warmup >= 1 else 1.0
    momentum = config.warmup_momentum + (config.momentum - config.warmup_momentum) * share
    for group in optimizer.param_groups:
        start = config.warmup_bias_lr if group["role"] == "bias" and config.optimizer == "SGD" else 0.0
        group["lr"] = start + (rate - start) * share
        if "momentum" in group:
            group["momentum"] = momentum
        else:
            group["betas"] = (momentum, group["betas"][1])
    return max(1, round(1 + (accumulation(config) - 1) * share))


class MovingAverage:
    """An exponential moving average of a network's weights and batch norm statistics, itself a network in eval mode.

    The decay of step n is decay * (1 - exp(-n / tau)), so that young averages follow fast.
    """

    def __init__(self, network: PoseNetwork, decay: float, tau: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay, self.tau, self.steps = decay, tau, 0
        self._mine, self._theirs = _float_tensors(self.network), _float_tensors(network)
        self._counts = list(zip(_other_tensors(self.network), _other_tensors(network), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """One step towards the network's present weights."""
        self.steps += 1
        decay = self.decay * (1 - math.exp(-self.steps / self.tau))
        torch._foreach_lerp_(self._mine, self._theirs, 1 - decay)
        for mine, theirs in self._counts:
            mine.copy_(theirs)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _float_tensors(network: nn.Module) -> list[Tensor]:
    return [t.detach() for t in _tensors(network) if t.is_floating_point()]


def _other_tensors(network: nn.Module) -> list[Tensor]:
    return [t for t in _tensors(network) if not t.is_floating_point()]


def freeze_layers(network: nn.Module, freeze: int | list[int] | None) -> list[str]:
    """Stops the gradients of the first n layers or of the layers named by number; returns their parameters' names."""
    if isinstance(freeze, int) and freeze < 0:
        raise ValueError(f"freeze={freeze}: expected a number of layers, or a list of layers such as [0, 1]")
    layers = range(freeze) if isinstance(freeze, int) else freeze or ()
    known = {int(name.split(".")[1]) for name, _ in network.named_parameters()}
    unknown = [n for n in layers if n not in known and not (isinstance(freeze, int) and n <= max(known))]
    if unknown:
        raise ValueError(f"freeze: no layer {unknown[0]!r}; the network's layers with weights are {sorted(known)}")
    frozen = []
    for name, parameter in network.named_parameters():
        if int(name.split(".")[1]) in set(layers):
            parameter.requires_grad_(False)
            frozen.append(name)
    return frozen
