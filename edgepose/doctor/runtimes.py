"""Tries each runtime and delegate in a child process: one that dies or hangs there is a line in the report."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from edgepose.child import child_command

Status = Literal["ok", "missing", "failed", "crashed", "timeout"]

_NAMES: Final = ("onnxruntime", "openvino", "tflite", "edgetpu", "gpu", "opencv")


@dataclass(frozen=True, slots=True)
class Probe:
    """What trying one runtime gave. facts: versions, devices … of one that works; detail: why one does not."""

    name: str
    status: Status
    facts: dict[str, Any] = field(default_factory=dict)
    detail: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def probe_all(timeout: float = 30.0) -> list[Probe]:
    """Every runtime, side by side; then each of OpenVINO's devices by itself, since a driver may be what dies."""
    with ThreadPoolExecutor(len(_NAMES)) as pool:
        probes = list(pool.map(lambda name: run_probe(name, probe_command(name), timeout), _NAMES))
        openvino = next(probe for probe in probes if probe.name == "openvino")
        devices = list(openvino.facts.get("devices", {}))
        names = [f"openvino {device}" for device in devices]
        commands = [probe_command("openvino_device", device) for device in devices]
        return probes + list(pool.map(lambda name, command: run_probe(name, command, timeout), names, commands))


def probe_command(name: str, *arguments: str) -> list[str]:
    return child_command("edgepose.doctor.probe", name, *arguments)


def run_probe(name: str, command: Sequence[str], timeout: float) -> Probe:
    """Runs a child that prints what `edgepose.doctor.probe` prints, and reads how it fared."""
    try:
        child = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return Probe(name, "timeout", detail=f"no answer in {timeout:g} s")
    except OSError as error:
        return Probe(name, "failed", detail=f"no child process could be started: {error}")
    chatter = _last_line(child.stderr)
    if child.returncode != 0:
        return Probe(name, "crashed", detail=f"the probe died of {_death(child.returncode)}{chatter}")
    try:
        return Probe(name, **json.loads(child.stdout))
    except (ValueError, TypeError):
        return Probe(name, "failed", detail=f"the probe gave no readable answer{chatter}")


def _death(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _last_line(chatter: str) -> str:
    lines = [line.strip() for line in chatter.splitlines() if line.strip()]
    return f": {lines[-1][:200]}" if lines else ""
