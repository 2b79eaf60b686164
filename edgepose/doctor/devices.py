"""Cameras, Coral devices, render nodes, and whether this user may open them."""

from __future__ import annotations

import os
from typing import Any, Final

from edgepose.doctor.files import Files

# USB ids of the Coral USB Accelerator: before libedgetpu has loaded its firmware, and after.
_CORAL_USB: Final = {("1a6e", "089a"): "waiting for its firmware", ("18d1", "9302"): "ready"}
# The Raspberry Pi's video nodes that are no cameras (codecs, image processors), and those of its ribbon cameras.
_CODECS: Final = ("bcm2835-codec", "bcm2835-isp", "pispbe", "rpivid", "rpi-hevc")
_RIBBON: Final = ("unicam", "rp1-cfe")
_CORAL_PCI: Final = ("0x1ac1", "0x089a")


def cameras(files: Files) -> list[dict[str, Any]]:
    """V4L2 nodes that take pictures: number for `source=`, device, name, whether this user may open it, and whether it
    is on a ribbon cable (CSI) and read through libcamera."""
    found: list[dict[str, Any]] = []
    for path in files.glob("sys/class/video4linux/video[0-9]*"):
        node, name = path.rpartition("/")[2], files.text(f"{path}/name") or ""
        ribbon = name.startswith(_RIBBON)
        # A USB camera's second node (index 1) gives metadata, no pictures; a ribbon camera has one for each stage.
        second = files.integer(f"{path}/index") == 1 and _is_usb(files, path)
        if name.startswith(_CODECS) or second or (ribbon and any(camera["ribbon"] for camera in found)):
            continue
        found.append(
            {
                "source": int(node.removeprefix("video")),
                "device": f"/dev/{node}",
                "name": name or None,
                "accessible": files.access(f"dev/{node}"),
                "ribbon": ribbon,
            }
        )
    return found


def _is_usb(files: Files, path: str) -> bool:
    return files.exists(f"{path}/device/bInterfaceNumber")


def coral(files: Files) -> list[dict[str, Any]]:
    """Coral devices: USB ones with their link speed in Mbit/s, PCIe ones with their /dev/apex_* node."""
    return [*_coral_usb(files), *_coral_pci(files)]


def _coral_usb(files: Files) -> list[dict[str, Any]]:
    found = []
    for path in files.glob("sys/bus/usb/devices/*/idVendor"):
        folder = path.removesuffix("/idVendor")
        ids = (files.text(path) or "", files.text(f"{folder}/idProduct") or "")
        if ids in _CORAL_USB:
            bus, number = files.integer(f"{folder}/busnum") or 0, files.integer(f"{folder}/devnum") or 0
            node = f"dev/bus/usb/{bus:03d}/{number:03d}"
            found.append(
                {
                    "bus": "usb",
                    "state": _CORAL_USB[ids],
                    "device": f"/{node}",
                    "accessible": files.access(node),
                    "mbit_per_s": files.integer(f"{folder}/speed"),
                }
            )
    return found


def _coral_pci(files: Files) -> list[dict[str, Any]]:
    nodes = files.glob("dev/apex_[0-9]*")
    cards = [
        path
        for path in files.glob("sys/bus/pci/devices/*/vendor")
        if (files.text(path), files.text(path.replace("/vendor", "/device"))) == _CORAL_PCI
    ]
    found = [
        {"bus": "pci", "state": "ready", "device": f"/{node}", "accessible": files.access(node), "mbit_per_s": None}
        for node in nodes
    ]
    without_driver = {"bus": "pci", "state": "no driver", "device": None, "accessible": False, "mbit_per_s": None}
    return found + [dict(without_driver) for _ in cards[len(nodes) :]]


def render_nodes(files: Files) -> list[dict[str, Any]]:
    """GPUs as the kernel shows them to programs that compute."""
    return [{"device": f"/{node}", "accessible": files.access(node)} for node in files.glob("dev/dri/renderD*")]


def groups(files: Files) -> list[str]:
    """Names of the groups that this process is in."""
    names = {}
    for line in (files.text("etc/group") or "").splitlines():
        name, _, rest = line.partition(":")
        names[rest.split(":")[1] if rest.count(":") else ""] = name
    return sorted(names.get(str(number), str(number)) for number in {*os.getgroups(), os.getegid()})
