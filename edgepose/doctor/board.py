"""Facts about the board, read from /proc, /sys and /etc: processor, clock governor, heat, memory, system.

Each function returns JSON values; what the board does not tell is None or an empty list.
"""

from __future__ import annotations

import os
import platform
import struct
import subprocess
from typing import Any, Final

from edgepose.doctor.files import Files

_CPU_FEATURES: Final = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16",
    "amx_int8", "amx_bf16", "neon", "asimd", "asimddp", "asimdhp", "fphp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip

# "CPU part" of /proc/cpuinfo where the implementer is ARM (0x41): names of the Technical Reference Manuals' MIDR_EL1.
_ARM_PARTS: Final = {
    "0xb76": "ARM1176", "0xc07": "Cortex-A7", "0xc08": "Cortex-A8", "0xc09": "Cortex-A9", "0xc0f": "Cortex-A15",
    "0xd03": "Cortex-A53", "0xd04": "Cortex-A35", "0xd05": "Cortex-A55", "0xd07": "Cortex-A57", "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73", "0xd0a": "Cortex-A75", "0xd0b": "Cortex-A76", "0xd0c": "Neoverse-N1", "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1", "0xd41": "Cortex-A78", "0xd42": "Cortex-A78AE", "0xd46": "Cortex-A510",
    "0xd49": "Neoverse-N2", "0xd4b": "Cortex-A78C", "0xd4d": "Cortex-A715", "0xd80": "Cortex-A520",
    "0xd81": "Cortex-A720",
}  # fmt: skip

# Bits of the Raspberry Pi firmware's get_throttled (raspberrypi.com, "vcgencmd"); bit + 16: it happened since boot.
_THROTTLE_BITS: Final = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}

_CPU_SENSORS: Final = ("k10temp", "zenpower", "coretemp", "cpu_thermal")

_PI_THROTTLED: Final = "sys/devices/platform/soc*/soc*:firmware/get_throttled"


def system(files: Files) -> dict[str, Any]:
    """Board, operating system, kernel, libc, Python; bits of this Python and of the kernel."""
    release = _key_values(files.text("etc/os-release") or "", "=")
    machine = platform.machine()
    return {
        "board": _board_name(files),
        "os": release.get("PRETTY_NAME", "").strip('"') or platform.system(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "machine": machine,
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "python_bits": struct.calcsize("P") * 8,
        "kernel_bits": 64 if machine in ("aarch64", "x86_64", "riscv64", "ppc64le", "loongarch64") else 32,
    }


def _board_name(files: Files) -> str | None:
    vendor, product = files.text("sys/class/dmi/id/sys_vendor"), files.text("sys/class/dmi/id/product_name")
    return files.text("proc/device-tree/model") or " ".join(word for word in (vendor, product) if word) or None


def processor(files: Files) -> dict[str, Any]:
    """Model name, cores, the features that matter to inference, the core's SIMD levels."""
    from edgepose import _core

    entries = [_key_values(block, ":") for block in (files.text("proc/cpuinfo") or "").split("\n\n")]
    flags = {flag for entry in entries for key in ("flags", "Features") for flag in entry.get(key, "").split()}
    return {
        "model": _cpu_model(entries),
        "cores": os.cpu_count(),
        "usable_cores": _usable_cores(files),
        "features": [feature for feature in _CPU_FEATURES if feature in flags],
        "simd": _core.simd_level(),
        "simd_levels": list(_core.available_simd_levels()),
    }


def _cpu_model(entries: list[dict[str, str]]) -> str | None:
    for entry in entries:
        if entry.get("model name"):
            return entry["model name"]
    parts = [entry["CPU part"] for entry in entries if "CPU part" in entry]
    return " + ".join(dict.fromkeys(_ARM_PARTS.get(part, f"ARM part {part}") for part in parts)) or None


def _usable_cores(files: Files) -> float:
    """Cores that this process may use: its affinity, and a container's quota (cgroup v2 cpu.max, "QUOTA PERIOD")."""
    cores = float(len(os.sched_getaffinity(0)))
    quota, _, period = (files.text("sys/fs/cgroup/cpu.max") or "max 1").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        cores = min(cores, int(quota) / int(period))
    return cores


def clock(files: Files) -> dict[str, Any]:
    """cpufreq: driver, the governors in use, and the range and present value of the first core's clock in MHz."""
    policies = files.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq")
    governors = dict.fromkeys(files.text(f"{policy}/scaling_governor") for policy in policies)
    first = policies[0] if policies else "sys/devices/system/cpu/cpu0/cpufreq"
    return {
        "driver": files.text(f"{first}/scaling_driver"),
        "governors": [governor for governor in governors if governor],
        "minimum_mhz": _mega(files.integer(f"{first}/cpuinfo_min_freq")),
        "maximum_mhz": _mega(files.integer(f"{first}/cpuinfo_max_freq")),
        "limit_mhz": _mega(files.integer(f"{first}/scaling_max_freq")),
        "now_mhz": [_mega(files.integer(f"{policy}/scaling_cur_freq")) for policy in policies],
    }


def heat(files: Files) -> dict[str, Any]:
    """Thermal zones in degrees Celsius with the lowest temperature that makes the kernel slow the clock down, the
    Raspberry Pi firmware's throttling flags, and how often x86 cores were throttled since boot."""
    return {
        "zones": _zones(files),
        "raspberry_pi": raspberry_pi_throttling(files),
        "x86_throttle_count": _x86_throttle_count(files),
    }


def _zones(files: Files) -> list[dict[str, Any]]:
    """The thermal zones; where there are none (AMD processors), the processor's own sensors."""
    zones = [_zone(files, path) for path in files.glob("sys/class/thermal/thermal_zone*")]
    sensors = [path for path in files.glob("sys/class/hwmon/hwmon*") if files.text(f"{path}/name") in _CPU_SENSORS]
    return [zone for zone in zones if zone] or [zone for path in sensors if (zone := _sensor(files, path))]


def _sensor(files: Files, path: str) -> dict[str, Any] | None:
    degrees = [files.integer(file) for file in files.glob(f"{path}/temp*_input")]
    known = [value for value in degrees if value is not None]
    limit = files.integer(f"{path}/temp1_crit")
    if not known:
        return None
    return {
        "name": files.text(f"{path}/name"),
        "celsius": max(known) / 1000,
        "limit_celsius": limit / 1000 if limit else None,
    }


def _zone(files: Files, path: str) -> dict[str, Any] | None:
    millidegrees = files.integer(f"{path}/temp")
    if millidegrees is None:
        return None
    trips = [
        files.integer(trip.replace("_type", "_temp"))
        for trip in files.glob(f"{path}/trip_point_*_type")
        if files.text(trip) in ("passive", "hot", "critical")
    ]
    limits = [trip / 1000 for trip in trips if trip is not None and trip > 0]
    return {
        "name": files.text(f"{path}/type") or path.rpartition("/")[2],
        "celsius": millidegrees / 1000,
        "limit_celsius": min(limits, default=None),
    }


def raspberry_pi_throttling(files: Files) -> dict[str, list[str]] | None:
    """{"now": […], "since_boot": […]} in words, or None on another board. From sysfs, else from vcgencmd."""
    paths = files.glob(_PI_THROTTLED)
    value = files.integer(paths[0], 16) if paths else _vcgencmd_throttled(files)
    if value is None:
        return None
    return {
        "now": [word for bit, word in _THROTTLE_BITS.items() if value >> bit & 1],
        "since_boot": [word for bit, word in _THROTTLE_BITS.items() if value >> (bit + 16) & 1],
    }


def _vcgencmd_throttled(files: Files) -> int | None:
    program = files.root / "usr/bin/vcgencmd"
    try:
        answer = subprocess.run([program, "get_throttled"], capture_output=True, text=True, timeout=5, check=True)
        return int(answer.stdout.strip().partition("throttled=")[2], 16)  # "throttled=0x50000"
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _x86_throttle_count(files: Files) -> int | None:
    counts = [
        files.integer(path)
        for name in ("core_throttle_count", "package_throttle_count")
        for path in files.glob(f"sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/{name}")
    ]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def memory(files: Files) -> dict[str, Any]:
    """Total, available and swap memory in MB (10^6 bytes)."""
    values = _key_values(files.text("proc/meminfo") or "", ":")
    return {
        "total_mb": _kilobytes(values.get("MemTotal")),
        "available_mb": _kilobytes(values.get("MemAvailable")),
        "swap_mb": _kilobytes(values.get("SwapTotal")),
    }


def load(files: Files) -> dict[str, Any]:
    """The load average of the last minute, and the jiffies (busy, all) that the processor has counted since boot."""
    average = (files.text("proc/loadavg") or "").split()
    counts = [int(word) for word in (files.text("proc/stat") or "").partition("\n")[0].split()[1:9]]
    idle = sum(counts[3:5])  # idle and iowait
    return {
        "average": float(average[0]) if average else None,
        "busy_jiffies": sum(counts) - idle,
        "all_jiffies": sum(counts),
    }


def _key_values(text: str, separator: str) -> dict[str, str]:
    pairs = (line.partition(separator) for line in text.splitlines())
    return {key.strip(): value.strip() for key, found, value in pairs if found}


def _mega(kilohertz: int | None) -> int | None:
    return None if kilohertz is None else round(kilohertz / 1000)


def _kilobytes(text: str | None) -> int | None:
    number = (text or "").partition(" ")[0]
    return round(int(number) * 1.024e-3) if number.isdigit() else None
