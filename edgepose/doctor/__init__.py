"""Looks at the board that edgepose runs on: `doctor()` gives the facts, what is wrong, and what mends it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from edgepose.doctor import board, devices
from edgepose.doctor.advice import Finding, findings
from edgepose.doctor.files import Files
from edgepose.doctor.runtimes import Probe, probe_all

_PACKAGES: Final = ("numpy", "pillow", "matplotlib", "tqdm", "torch", "supervision")


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """facts: plain JSON values, described in docs/command.md. findings: what is wrong or missing, worst first."""

    facts: dict[str, Any]
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is broken; warnings and notes may be there."""
        return all(finding.level != "problem" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.facts,
            "healthy": self.healthy,
            "findings": [finding.to_dict() for finding in self.findings],
        }


def doctor(
    *,
    root: str | os.PathLike[str] = "/",
    timeout: float = 30.0,
    probe: Callable[[float], list[Probe]] = probe_all,
) -> DoctorReport:
    """Looks at the board.

    root: where /proc, /sys, /dev and /etc are read (a test's copy of another board's). timeout: seconds for each probe
    of a runtime. probe: what tries the runtimes, each in a process of its own.
    Raises ValueError for a timeout that is not above 0.
    """
    if timeout <= 0:
        raise ValueError(f"timeout={timeout}: expected more than 0 seconds")
    files = Files(root)
    facts = {**board_facts(files), **_device_facts(files)}
    facts["packages"] = package_versions(_PACKAGES)
    facts["runtimes"] = {found.name: found.to_dict() for found in probe(timeout)}
    return DoctorReport(facts, tuple(findings(facts)))


def board_facts(files: Files) -> dict[str, Any]:
    """What belongs into the report of a measurement: system, processor, clock, heat, memory, load."""
    import edgepose

    return {
        "edgepose": edgepose.__version__,
        "system": board.system(files),
        "processor": board.processor(files),
        "clock": board.clock(files),
        "heat": board.heat(files),
        "memory": board.memory(files),
        "load": board.load(files),
    }


def _device_facts(files: Files) -> dict[str, Any]:
    return {
        "cameras": devices.cameras(files),
        "coral": devices.coral(files),
        "render_nodes": devices.render_nodes(files),
        "groups": devices.groups(files),
        "screen": bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")),
    }


def package_versions(packages: Iterable[str]) -> dict[str, str | None]:
    """The installed version of each package, None where it is not installed; imports none of them."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
