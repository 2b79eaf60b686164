"""`edgepose doctor`: prints what the doctor found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgepose.doctor import DoctorReport, doctor

_TITLES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tflite": "TFLite",
    "edgetpu": "libedgetpu",
    "gpu": "GPU delegate",
    "opencv": "OpenCV",
}


def run(json: bool = False, timeout: float = 30.0) -> int:
    """Prints the report. Returns 0 where nothing is broken, else 1."""
    report = doctor(timeout=timeout)
    if json:
        from json import dumps

        print(dumps(report.to_dict(), indent=2))
    else:
        print(report_text(report))
    return 0 if report.healthy else 1


def report_text(report: DoctorReport) -> str:
    """The report for a person to read."""
    facts = report.facts
    parts = (_board_lines, _runtime_lines, _device_lines)
    lines = [f"edgepose {facts['edgepose']}", ""]
    found = [
        f"{finding.level}: {finding.what}" + (f"\n    {finding.fix}" if finding.fix else "")
        for finding in report.findings
    ]
    for part in parts:
        lines += [f"{name + ':':<14}{text}" for name, text in part(facts)] + [""]
    return "\n".join([*lines, *(found or ["nothing is broken or missing"])])


def board_lines(facts: dict[str, Any]) -> list[str]:
    """The lines about the board alone, for the benchmark's report."""
    return [f"{name + ':':<14}{text}" for name, text in _board_lines(facts)]


def _board_lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    system, processor, memory = facts["system"], facts["processor"], facts["memory"]
    yield "board", system["board"] or "unknown"
    yield "system", f"{system['os']}, Linux {system['kernel']}, {system['machine']}, {system['libc']}"
    yield "python", f"{system['python']} ({system['implementation']}, {system['python_bits']}-bit)"
    yield "processor", f"{processor['model'] or 'unknown'}, {processor['usable_cores']:g} of {processor['cores']} cores"
    yield "features", " ".join(processor["features"]) or "none that matter"
    yield "core", f"{processor['simd']} (of {', '.join(processor['simd_levels'])})"
    yield "memory", f"{_number(memory['available_mb'])} of {_number(memory['total_mb'])} MB free"
    yield "clock", _clock_text(facts["clock"])
    yield "heat", _heat_text(facts["heat"])


def _clock_text(clock: dict[str, Any]) -> str:
    if not clock["governors"]:
        return "the system does not tell (a virtual machine, or no cpufreq)"
    now = [mhz for mhz in clock["now_mhz"] if mhz is not None]
    running = f", now {min(now)} to {max(now)} MHz" if now else ""
    return f"governor {', '.join(clock['governors'])}, {clock['minimum_mhz']} to {clock['maximum_mhz']} MHz{running}"


def _heat_text(heat: dict[str, Any]) -> str:
    words = [f"{zone['name']} {zone['celsius']:.0f} °C" for zone in heat["zones"]]
    throttling = heat["raspberry_pi"]
    if throttling is not None:
        words.append(f"throttling now: {_listed(throttling['now'])}, since boot: {_listed(throttling['since_boot'])}")
    if heat["x86_throttle_count"] is not None:
        words.append(f"throttled {heat['x86_throttle_count']} times since boot")
    return "; ".join(words) or "the system does not tell"


def _runtime_lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, probe in facts["runtimes"].items():
        text = _facts_text(probe["facts"]) if probe["status"] == "ok" else _failure_text(probe)
        yield _TITLES.get(name, name), text
    yield "packages", packages_text(facts["packages"])


def packages_text(packages: dict[str, str | None]) -> str:
    """The packages that are installed, with their versions."""
    return _listed([f"{name} {version}" for name, version in packages.items() if version is not None])


def _failure_text(probe: dict[str, Any]) -> str:
    return "not installed" if probe["status"] == "missing" else f"{probe['status'].upper()}: {probe['detail']}"


def _facts_text(facts: dict[str, Any]) -> str:
    words = [str(facts[key]) for key in ("package", "version") if key in facts]
    words += [f"{key} {_plain(value)}" for key, value in facts.items() if key not in ("package", "version")]
    return ", ".join(words) or "works"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return _listed([f"{name} ({text})" for name, text in value.items()])
    if isinstance(value, list):
        return _listed([_plain(part) for part in value])
    return str(value)


def _device_lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for camera in facts["cameras"]:
        yield (
            "camera",
            f"source={camera['source']} {camera['name']} ({camera['device']}){_closed(camera)}{_ribbon(camera)}",
        )
    if not facts["cameras"]:
        yield "camera", "none"
    for device in facts["coral"]:
        speed = f", {device['mbit_per_s']} Mbit/s" if device["mbit_per_s"] else ""
        yield "Edge TPU", f"{device['bus']}, {device['state']}{speed}{_closed(device)}"
    for node in facts["render_nodes"]:
        yield "GPU", f"{node['device']}{_closed(node)}"
    yield "screen", "yes" if facts["screen"] else "no"
    yield "groups", _listed(facts["groups"])


def _ribbon(camera: dict[str, Any]) -> str:
    return ", through libcamera" if camera["ribbon"] else ""


def _closed(device: dict[str, Any]) -> str:
    return "" if device["accessible"] else ", NOT accessible to this user"


def _listed(words: list[str]) -> str:
    return ", ".join(words) or "none"


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)
