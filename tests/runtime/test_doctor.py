"""The doctor: what it reads off a board, what it advises, and that a runtime that dies is only a line of the report."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepose import _core
from edgepose.command.doctor import report_text, run
from edgepose.doctor import DoctorReport, board, devices, doctor
from edgepose.doctor.advice import Finding, busy_findings
from edgepose.doctor.files import Files
from edgepose.doctor.runtimes import Probe, probe_all, probe_command, run_probe

CPUINFO_PI = "".join(
    f"processor\t: {i}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm aes crc32 asimddp fphp asimdhp\n"
    "CPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n"
    for i in range(4)
)
OK = [
    Probe("onnxruntime", "ok", {"version": "1.20", "providers": ["CPUExecutionProvider"]}),
    Probe("openvino", "missing", detail="No module named 'openvino'"),
    Probe("tflite", "ok", {"package": "ai-edge-litert", "version": "1.2", "xnnpack": True, "accelerators": []}),
    Probe("edgetpu", "missing", detail="libedgetpu.so.1 is not installed"),
    Probe("gpu", "missing"),
    Probe("opencv", "ok", {"version": "4.10", "window": True, "ffmpeg": True, "gstreamer": False, "v4l": True}),
]


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def raspberry_pi(tmp_path: Path) -> Path:
    """The files of a Raspberry Pi 5 with a USB camera and a Coral USB Accelerator on a USB 2 port."""
    cpu = "sys/devices/system/cpu/cpu{}/cpufreq"
    files = {
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "proc/cpuinfo": CPUINFO_PI,
        "proc/meminfo": "MemTotal:        8245120 kB\nMemAvailable:    6000000 kB\nSwapTotal:        204784 kB\n",
        "proc/loadavg": "0.52 0.58 0.59 1/257 1234\n",
        "proc/stat": "cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 1 1 1\n",
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
        "etc/group": "root:x:0:\nvideo:x:44:pi\nplugdev:x:46:pi\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "61300\n",
        "sys/class/thermal/thermal_zone0/trip_point_0_type": "critical\n",
        "sys/class/thermal/thermal_zone0/trip_point_0_temp": "110000\n",
        "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "0\n",
        "sys/class/video4linux/video0/name": "HD Pro Webcam C920\n",
        "sys/class/video4linux/video0/index": "0\n",
        "sys/class/video4linux/video0/device/bInterfaceNumber": "00\n",
        "sys/class/video4linux/video1/name": "HD Pro Webcam C920\n",
        "sys/class/video4linux/video1/index": "1\n",
        "sys/class/video4linux/video1/device/bInterfaceNumber": "00\n",
        "dev/video0": "",
        "dev/video1": "",
        "sys/bus/usb/devices/1-1/idVendor": "1a6e\n",
        "sys/bus/usb/devices/1-1/idProduct": "089a\n",
        "sys/bus/usb/devices/1-1/busnum": "1\n",
        "sys/bus/usb/devices/1-1/devnum": "4\n",
        "sys/bus/usb/devices/1-1/speed": "480\n",
        "dev/bus/usb/001/004": "",
        "dev/dri/renderD128": "",
    }
    for i in range(4):
        files |= {
            f"{cpu.format(i)}/scaling_governor": "ondemand\n",
            f"{cpu.format(i)}/scaling_driver": "cpufreq-dt\n",
            f"{cpu.format(i)}/cpuinfo_min_freq": "1500000\n",
            f"{cpu.format(i)}/cpuinfo_max_freq": "2400000\n",
            f"{cpu.format(i)}/scaling_max_freq": "2400000\n",
            f"{cpu.format(i)}/scaling_cur_freq": "1500000\n",
        }
    return write(tmp_path, files)


def examine(root: Path, probes: list[Probe] = OK) -> DoctorReport:
    return doctor(root=root, probe=lambda _: probes)


def changed(name: str, status: str, detail: str = "", **facts: object) -> list[Probe]:
    new = Probe(name, status, facts, detail)  # type: ignore[arg-type]
    return [new if probe.name == name else probe for probe in OK]


def found(report: DoctorReport, text: str) -> Finding:
    return next(finding for finding in report.findings if text in finding.what)


def test_raspberry_pi_is_read(raspberry_pi: Path) -> None:
    facts = examine(raspberry_pi).facts
    assert facts["system"]["board"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert facts["system"]["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert facts["processor"]["model"] == "Cortex-A76"
    assert facts["processor"]["features"] == ["asimd", "asimddp", "asimdhp", "fphp"]
    assert facts["clock"] == {
        "driver": "cpufreq-dt",
        "governors": ["ondemand"],
        "minimum_mhz": 1500,
        "maximum_mhz": 2400,
        "limit_mhz": 2400,
        "now_mhz": [1500] * 4,
    }
    assert facts["heat"]["zones"] == [{"name": "cpu-thermal", "celsius": 61.3, "limit_celsius": 110.0}]
    assert facts["heat"]["raspberry_pi"] == {"now": [], "since_boot": []}
    assert facts["memory"] == {"total_mb": 8443, "available_mb": 6144, "swap_mb": 210}
    assert facts["load"] == {"average": 0.52, "busy_jiffies": 150, "all_jiffies": 1000}


def test_camera_is_listed_once_and_by_name(raspberry_pi: Path) -> None:
    assert devices.cameras(Files(raspberry_pi)) == [
        {"source": 0, "device": "/dev/video0", "name": "HD Pro Webcam C920", "accessible": True, "ribbon": False}
    ]


def test_ribbon_camera_is_listed_once_and_codecs_are_no_cameras(tmp_path: Path) -> None:
    names = ["rp1-cfe-csi2_ch0", "rp1-cfe-embedded", "rpi-hevc-dec", "pispbe-input", "bcm2835-codec-decode"]
    for i, name in enumerate(names):
        write(tmp_path, {f"sys/class/video4linux/video{i}/name": name, f"dev/video{i}": ""})
    assert [(camera["device"], camera["ribbon"]) for camera in devices.cameras(Files(tmp_path))] == [
        ("/dev/video0", True)
    ]
    assert found(examine(tmp_path), "ribbon camera").fix == "libcamerify edgepose predict source=0"


def test_coral_on_usb_2_without_its_library_is_told_with_the_remedy(raspberry_pi: Path) -> None:
    report = examine(raspberry_pi)
    assert report.facts["coral"][0]["state"] == "waiting for its firmware"
    assert report.facts["coral"][0]["device"] == "/dev/bus/usb/001/004"
    assert found(report, "libedgetpu is not").fix == "sudo apt install ./libedgetpu1-std_*.deb"
    assert found(report, "USB 2").level == "warning"
    assert not report.healthy


def test_coral_pci_cards_are_found_with_and_without_driver(tmp_path: Path) -> None:
    card = {
        "sys/bus/pci/devices/0000:01:00.0/vendor": "0x1ac1\n",
        "sys/bus/pci/devices/0000:01:00.0/device": "0x089a\n",
    }
    assert devices.coral(Files(write(tmp_path, card)))[0]["state"] == "no driver"
    assert found(examine(tmp_path), "Coral PCIe card").fix == "sudo apt-get install gasket-dkms"
    found_card = devices.coral(Files(write(tmp_path, {"dev/apex_0": ""})))
    assert [(card["state"], card["device"]) for card in found_card] == [("ready", "/dev/apex_0")]


@pytest.mark.parametrize(
    ("value", "now", "since_boot"),
    [
        ("0", [], []),
        ("50005", ["under-voltage", "throttled"], ["under-voltage", "throttled"]),
        ("80008", ["soft temperature limit"], ["soft temperature limit"]),
        ("20000", [], ["clock capped"]),
    ],
)
def test_throttling_flags_mean_what_the_firmware_documents(
    value: str, now: list[str], since_boot: list[str], tmp_path: Path
) -> None:
    write(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": value})
    assert board.raspberry_pi_throttling(Files(tmp_path)) == {"now": now, "since_boot": since_boot}


def test_throttling_is_asked_of_vcgencmd_where_sysfs_has_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"usr/bin/vcgencmd": '#!/bin/sh\n[ "$1" = get_throttled ] && echo throttled=0x50000\n'})
    (tmp_path / "usr/bin/vcgencmd").chmod(0o755)
    expected = {"now": [], "since_boot": ["under-voltage", "throttled"]}
    assert board.raspberry_pi_throttling(Files(tmp_path)) == expected
    assert board.raspberry_pi_throttling(Files(tmp_path / "empty")) is None


def test_under_voltage_is_a_warning_that_names_the_power_supply(raspberry_pi: Path) -> None:
    write(raspberry_pi, {"sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "50005"})
    assert "power supply" in found(examine(raspberry_pi), "slows itself down now").what


@pytest.mark.parametrize(
    ("governor", "driver", "level"),
    [
        ("powersave", "cpufreq-dt", "warning"),
        ("powersave", "intel_pstate", "note"),
        ("ondemand", "cpufreq-dt", "note"),
        ("schedutil", "cpufreq-dt", "note"),
    ],
)
def test_governor_that_holds_or_moves_the_clock_is_told(governor: str, driver: str, level: str, tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu/cpu0/cpufreq"
    write(tmp_path, {f"{cpu}/scaling_governor": governor, f"{cpu}/scaling_driver": driver})
    finding = found(examine(tmp_path), f'governor "{governor}"')
    assert (finding.level, "scaling_governor" in str(finding.fix)) == (level, True)


def test_performance_governor_is_fine(tmp_path: Path) -> None:
    write(tmp_path, {"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance"})
    assert not [finding for finding in examine(tmp_path).findings if "governor" in finding.what]


@pytest.mark.parametrize(("millidegrees", "hot"), [("79000", False), ("80000", True)])
def test_heat_is_told_from_80_degrees(millidegrees: str, hot: bool, tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone0"
    write(tmp_path, {f"{zone}/type": "cpu-thermal", f"{zone}/temp": millidegrees})
    assert any("cool the board" in finding.what for finding in examine(tmp_path).findings) == hot


def test_sensor_of_the_processor_is_read_where_there_are_no_thermal_zones(tmp_path: Path) -> None:
    sensor = "sys/class/hwmon/hwmon3"
    write(tmp_path, {f"{sensor}/name": "k10temp", f"{sensor}/temp1_input": "71250", f"{sensor}/temp3_input": "69000"})
    write(tmp_path, {"sys/class/hwmon/hwmon1/name": "nvme", "sys/class/hwmon/hwmon1/temp1_input": "85000"})
    assert board.heat(Files(tmp_path))["zones"] == [{"name": "k10temp", "celsius": 71.25, "limit_celsius": None}]


def test_files_of_the_working_folder_are_not_imported_by_a_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"cv2.py": "raise SystemExit('wrong one')", "json.py": "raise SystemExit('wrong one')"})
    monkeypatch.chdir(tmp_path)
    probe = run_probe("opencv", probe_command("opencv"), 60)
    assert probe.status in ("ok", "missing"), probe.detail


def test_throttled_x86_cores_are_counted(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu/cpu{}/thermal_throttle/core_throttle_count"
    write(tmp_path, {cpu.format(0): "3", cpu.format(1): "4"})
    assert board.heat(Files(tmp_path))["x86_throttle_count"] == 7


def test_32_bit_python_is_a_problem(raspberry_pi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepose.doctor.board.struct.calcsize", lambda _: 4)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    problem = found(examine(raspberry_pi, changed("tflite", "missing")), "32-bit Python")
    assert problem.level == "problem"
    assert "the kernel is 64-bit already" in problem.what


def test_container_quota_limits_the_usable_cores(tmp_path: Path) -> None:
    write(tmp_path, {"sys/fs/cgroup/cpu.max": "50000 100000\n"})
    assert board.processor(Files(tmp_path))["usable_cores"] == 0.5


def test_empty_root_gives_a_report_without_errors(tmp_path: Path) -> None:
    report = examine(tmp_path)
    assert report.healthy
    assert report.facts["cameras"] == []
    assert report_text(report)


def test_this_machine_is_read() -> None:
    facts = examine(Path("/")).facts
    assert facts["processor"]["simd"] == _core.simd_level()
    assert facts["memory"]["total_mb"] > 100
    assert facts["system"]["python"] == platform.python_version()


def test_busy_processor_is_a_warning() -> None:
    before = {"busy_jiffies": 100, "all_jiffies": 1000}
    assert not list(busy_findings(before, {"busy_jiffies": 105, "all_jiffies": 1100}))
    assert "50% busy" in next(busy_findings(before, {"busy_jiffies": 150, "all_jiffies": 1100})).what


def test_each_missing_runtime_is_told_with_its_command(tmp_path: Path) -> None:
    report = examine(tmp_path)
    assert found(report, "OpenVINO is not installed").fix == 'pip install "edgepose[openvino]"'
    assert found(report, "OpenVINO is not installed").level == "note"


def test_no_runtime_at_all_is_a_problem(tmp_path: Path) -> None:
    none = [Probe(probe.name, "missing") for probe in OK]
    assert found(examine(tmp_path, none), "no runtime works").fix == "pip install ai-edge-litert"


def test_what_this_user_may_not_open_is_told_with_the_group_that_may(
    raspberry_pi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Files, "access", lambda self, path: False)
    report = examine(raspberry_pi)
    assert found(report, "camera /dev/video0").fix == "sudo usermod -aG video $USER"
    assert found(report, "Edge TPU /dev/bus/usb/001/004").fix == "sudo usermod -aG plugdev $USER"
    assert found(report, "GPU /dev/dri/renderD128").fix == "sudo usermod -aG render $USER"
    assert "NOT accessible to this user" in report_text(report)


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("missing", 0), ("crashed", 1)])
def test_command_fails_where_something_is_broken(
    status: str, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = examine(tmp_path, changed("openvino", status, "SIGILL"))
    monkeypatch.setattr("edgepose.command.doctor.doctor", lambda timeout: report)
    assert run() == code
    assert ("openvino does not work: SIGILL" in capsys.readouterr().out) == (code == 1)


def test_report_is_one_json_document(raspberry_pi: Path) -> None:
    report = examine(raspberry_pi)
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    assert report.to_dict()["healthy"] is False


def test_report_for_people_names_what_was_found(raspberry_pi: Path) -> None:
    text = report_text(examine(raspberry_pi, changed("edgetpu", "crashed", "the probe died of SIGSEGV")))
    for part in ("Raspberry Pi 5", "governor ondemand", "cpu-thermal 61 °C", "source=0 HD Pro Webcam C920"):
        assert part in text
    assert "libedgetpu:   CRASHED: the probe died of SIGSEGV" in text
    assert "problem: edgetpu does not work: the probe died of SIGSEGV" in text


@pytest.mark.parametrize(
    ("code", "status", "detail"),
    [
        ("import os; os.abort()", "crashed", "died of SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "died of SIGSEGV"),
        ("import sys; print('libfoo: no such device', file=sys.stderr); sys.exit(3)", "crashed", "no such device"),
        ("import time; time.sleep(60)", "timeout", "no answer in 0.5 s"),
        (None, "failed", "could be started"),
        ("print('hello')", "failed", "no readable answer"),
        ("print('[1]')", "failed", "no readable answer"),
        ('print(\'{"status": "missing", "detail": "none"}\')', "missing", "none"),
    ],
)
def test_probe_that_dies_hangs_or_babbles_is_reported(code: str | None, status: str, detail: str) -> None:
    timeout = 0.5 if status == "timeout" else 30
    command = ["/nowhere/python"] if code is None else [sys.executable, "-c", code]
    probe = run_probe("stand-in", command, timeout)
    assert (probe.name, probe.status) == ("stand-in", status)
    assert detail in probe.detail


def test_installed_runtimes_compute() -> None:
    pytest.importorskip("onnxruntime")
    probe = run_probe("onnxruntime", probe_command("onnxruntime"), 60)
    assert probe.status == "ok", probe.detail
    assert "CPUExecutionProvider" in probe.facts["providers"]


def test_tflite_probe_tells_of_xnnpack() -> None:
    pytest.importorskip("ai_edge_litert")
    probe = run_probe("tflite", probe_command("tflite"), 60)
    assert (probe.status, probe.facts.get("package")) == ("ok", "ai-edge-litert"), probe.detail
    assert probe.facts["xnnpack"] is True


@pytest.mark.slow
def test_command_prints_the_report_of_this_machine_as_one_json_object() -> None:
    command = [sys.executable, "-m", "edgepose.cli", "doctor", "json=true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    document = json.loads(done.stdout)
    assert done.returncode == (0 if document["healthy"] else 1)
    assert document["runtimes"]["opencv"]["status"] in ("ok", "missing")


@pytest.mark.slow
def test_every_probe_of_this_machine_ends_in_a_known_state() -> None:
    probes = probe_all(timeout=60)
    assert {probe.status for probe in probes} <= {"ok", "missing"}, probes


@pytest.fixture
def edgetpu_library(tmp_path: Path) -> Callable[[str], Path]:
    """Builds a stand-in for libedgetpu whose edgetpu_list_devices has this body."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")

    def build(body: str) -> Path:
        source, library = tmp_path / "edgetpu.c", tmp_path / "libedgetpu.so.1"
        source.write_text(
            "#include <stdlib.h>\n"
            "struct device { int type; const char* path; };\n"
            'const char* edgetpu_version(void) { return "stand-in 1.0"; }\n'
            "void edgetpu_free_devices(struct device* devices) { free(devices); }\n"
            f"struct device* edgetpu_list_devices(size_t* count) {{ {body} }}\n"
        )
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
        return library

    return build


def test_edgetpu_library_without_devices_works(edgetpu_library: Callable[[str], Path]) -> None:
    library = edgetpu_library("*count = 0; return 0;")
    probe = run_probe("edgetpu", probe_command("edgetpu", str(library)), 30)
    assert (probe.status, probe.facts) == ("ok", {"version": "stand-in 1.0", "devices": []}), probe.detail


def test_edgetpu_library_that_crashes_is_a_line_in_the_report(
    edgetpu_library: Callable[[str], Path], tmp_path: Path
) -> None:
    library = edgetpu_library("*(volatile int*)0 = 1; return 0;")
    probe = run_probe("edgetpu", probe_command("edgetpu", str(library)), 30)
    assert (probe.status, "SIGSEGV" in probe.detail) == ("crashed", True)
    probes = [probe if other.name == "edgetpu" else other for other in OK]
    assert "edgetpu does not work: the probe died of SIGSEGV" in report_text(examine(tmp_path, probes))


def test_missing_library_is_missing_and_a_broken_one_failed(tmp_path: Path) -> None:
    assert run_probe("edgetpu", probe_command("edgetpu", "libnowhere.so.1"), 30).status == "missing"
    broken = tmp_path / "libbroken.so"
    broken.write_bytes(b"not a library")
    assert run_probe("edgetpu", probe_command("edgetpu", str(broken)), 30).status == "failed"


def test_a_timeout_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 0 seconds"):
        doctor(timeout=0)
