"""What is wrong with a board, what that means, and the command that mends it; read off the doctor's facts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Level = Literal["problem", "warning", "note"]

# Governors that keep the clock low or move it with the load.
_SLOW_GOVERNORS: Final = ("powersave",)
_MOVING_GOVERNORS: Final = ("ondemand", "conservative", "schedutil", "interactive", "userspace")
# Drivers under which "powersave" is the ordinary setting and still reaches the full clock.
_HARDWARE_DRIVERS: Final = ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")
_PERFORMANCE: Final = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
_HOT_CELSIUS: Final = 80.0
_BUSY_SHARE: Final = 0.15


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know. level: "problem" (something does not work), "warning" (figures or speed suffer), "note"
    (something optional is not there). fix: a command, where there is one."""

    level: Level
    what: str
    fix: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def findings(facts: dict[str, Any]) -> list[Finding]:
    """Everything worth saying about the doctor's facts, worst first."""
    order = {"problem": 0, "warning": 1, "note": 2}
    parts = (_system, _runtimes, _coral, _cameras, _render_nodes, speed_findings)
    return sorted((found for part in parts for found in part(facts)), key=lambda found: order[found.level])


def speed_findings(facts: dict[str, Any]) -> Iterator[Finding]:
    """What makes timings worth less: clock governor, heat, throttling. Also used by the benchmark."""
    yield from _governor(facts["clock"])
    yield from _heat(facts["heat"])


def _governor(clock: dict[str, Any]) -> Iterator[Finding]:
    for governor in clock["governors"]:
        if governor in _SLOW_GOVERNORS and clock["driver"] not in _HARDWARE_DRIVERS:
            yield Finding("warning", f'the clock governor "{governor}" keeps the clock low', _PERFORMANCE)
        elif governor in (*_MOVING_GOVERNORS, *_SLOW_GOVERNORS):
            yield Finding("note", f'the clock governor "{governor}" moves the clock with the load', _PERFORMANCE)
    limit, maximum = clock["limit_mhz"], clock["maximum_mhz"]
    if limit and maximum and limit < maximum:
        yield Finding("warning", f"the clock is limited to {limit} MHz of {maximum} MHz")


def _heat(heat: dict[str, Any]) -> Iterator[Finding]:
    for zone in heat["zones"]:
        # 5 degrees short of where the kernel steps in, where it tells that.
        if zone["celsius"] >= min(_HOT_CELSIUS, (zone["limit_celsius"] or 1000.0) - 5):
            yield Finding("warning", f"{zone['name']} is at {zone['celsius']:.0f} °C: cool the board")
    throttling = heat["raspberry_pi"] or {"now": [], "since_boot": []}
    for when, words in (("slows itself down now", "now"), ("has slowed itself down since boot", "since_boot")):
        if throttling[words]:
            supply = "; use the board's own power supply" if "under-voltage" in throttling[words] else ""
            yield Finding("warning", f"the board {when}: {', '.join(throttling[words])}{supply}")


def busy_findings(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Finding]:
    """Other programs' share of the processor between two looks at `board.load`, while this program did nothing."""
    jiffies = after["all_jiffies"] - before["all_jiffies"]
    share = (after["busy_jiffies"] - before["busy_jiffies"]) / jiffies if jiffies > 0 else 0.0
    if share > _BUSY_SHARE:
        yield Finding("warning", f"other programs keep the processor {share:.0%} busy")


def _system(facts: dict[str, Any]) -> Iterator[Finding]:
    system = facts["system"]
    if system["python_bits"] == 32:
        kernel = " (the kernel is 64-bit already)" if system["kernel_bits"] == 64 else ""
        yield Finding(
            "problem",
            f"this is a 32-bit Python{kernel}: current runtimes have no packages for it, and it is slower; "
            "install the 64-bit operating system",
        )
    available = facts["memory"]["available_mb"]
    if available is not None and available < 200:
        yield Finding("warning", f"only {available} MB of memory are free")


_INSTALL: Final = {
    "onnxruntime": ("ONNX Runtime (.onnx)", 'pip install "edgepose[onnx]"'),
    "openvino": ("OpenVINO", 'pip install "edgepose[openvino]"'),
    "tflite": ("a TFLite runtime (.tflite)", "pip install ai-edge-litert"),
    "opencv": ("OpenCV (videos, cameras)", 'pip install "edgepose[video]"'),
}


def _runtimes(facts: dict[str, Any]) -> Iterator[Finding]:
    probes = facts["runtimes"]
    for name, (what, fix) in _INSTALL.items():
        if probes[name]["status"] == "missing":
            yield Finding("note", f"{what} is not installed", _tflite_fix(facts) if name == "tflite" else fix)
    if all(probes[name]["status"] != "ok" for name in ("onnxruntime", "openvino", "tflite")):
        yield Finding("problem", "no runtime works: no model can run", _tflite_fix(facts))
    for name, probe in probes.items():
        if probe["status"] in ("failed", "crashed", "timeout"):
            yield Finding("problem", f"{name} does not work: {probe['detail']}", _INSTALL.get(name, ("", None))[1])
    for package, (purpose, fix) in {
        "matplotlib": ("benchmark plots", 'pip install "edgepose[plot]"'),
        "torch": ("training and export", 'pip install "edgepose[train]"'),
    }.items():
        if facts["packages"][package] is None:
            yield Finding("note", f"{package} is not installed ({purpose})", fix)


def _tflite_fix(facts: dict[str, Any]) -> str:
    return "pip install tflite-runtime" if facts["system"]["python_bits"] == 32 else _INSTALL["tflite"][1]


def _coral(facts: dict[str, Any]) -> Iterator[Finding]:
    devices, probe = facts["coral"], facts["runtimes"]["edgetpu"]
    if devices and probe["status"] == "missing":
        yield Finding(
            "problem",
            "an Edge TPU is here, its library libedgetpu is not (docs/boards/coral.md: which package, and from where)",
            "sudo apt install ./libedgetpu1-std_*.deb",
        )
    for device in devices:
        yield from _coral_device(device)
    if probe["status"] == "ok" and any(device["accessible"] for device in devices) and not probe["facts"]["devices"]:
        yield Finding("problem", "libedgetpu sees no Edge TPU although one is here: unplug it and plug it in again")


def _coral_device(device: dict[str, Any]) -> Iterator[Finding]:
    if device["state"] == "no driver":
        yield Finding("problem", "a Coral PCIe card is here, its driver is not", "sudo apt-get install gasket-dkms")
    elif not device["accessible"]:
        group = "apex" if device["bus"] == "pci" else "plugdev"
        yield Finding(
            "problem",
            f"this user may not open the Edge TPU {device['device']} (log in again after; see docs/boards/coral.md)",
            f"sudo usermod -aG {group} $USER",
        )
    if device["mbit_per_s"] is not None and device["mbit_per_s"] < 5000:
        yield Finding("warning", "the Edge TPU is on a USB 2 port or cable: each picture takes longer to send")


def _cameras(facts: dict[str, Any]) -> Iterator[Finding]:
    for camera in facts["cameras"]:
        if camera["ribbon"]:
            yield Finding(
                "note",
                f"{camera['device']} is a ribbon camera, read through libcamera: docs/boards/raspberry-pi.md; or",
                f"libcamerify edgepose predict source={camera['source']}",
            )
        if not camera["accessible"]:
            yield Finding(
                "problem",
                f"this user may not open the camera {camera['device']} (log in again after this)",
                "sudo usermod -aG video $USER",
            )


def _render_nodes(facts: dict[str, Any]) -> Iterator[Finding]:
    for node in facts["render_nodes"]:
        if not node["accessible"]:
            yield Finding(
                "note",
                f"this user may not use the GPU {node['device']} (log in again after this)",
                "sudo usermod -aG render $USER",
            )
