"""How far a measured ratio may stay behind a speed claim.

The claims hold on a quiet machine. `EDGEPOSE_BENCHMARK_ALLOWANCE=0.25` allows a quarter less, for a machine that others
share: CI's runs differ by a fifth from machine to machine.
"""

from __future__ import annotations

import os

ALLOWANCE = float(os.environ.get("EDGEPOSE_BENCHMARK_ALLOWANCE", "0"))


def at_least(claim: float) -> float:
    """The lowest ratio that passes for `claim` times as fast."""
    return claim / (1 + ALLOWANCE)


def at_most(claim: float) -> float:
    """The highest ratio that passes for `claim` times as slow."""
    return claim * (1 + ALLOWANCE)
