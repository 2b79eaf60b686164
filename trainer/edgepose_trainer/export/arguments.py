"""What was asked of an export, checked before anything is loaded or converted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepose.options import unknown_option
from edgepose_trainer.export.calibration import CALIBRATED
from edgepose_trainer.export.registry import COMMON_ARGUMENTS, Format, find_format, formats

DEFAULTS: dict[str, Any] = {
    "imgsz": None,
    "half": False,
    "int8": False,
    "dynamic": False,
    "batch": 1,
    "opset": None,
    "simplify": True,
    "layout": "edgepose",
    "data": None,
    "fraction": None,
    "calibration": "auto",
    "device": None,
    "out": None,
    "verify": True,
}
"""Every argument of an export with its default; docs/export.md says what each means."""

INT8_WORDS = ("mixed", "dynamic")
"""What int8 may say beside true and false."""

LAYOUTS = ("edgepose", "ultralytics")
MAX_SIDE, MAX_BATCH = 8192, 1024
OPSETS = (13, 23)


@dataclass(frozen=True, slots=True)
class Arguments:
    """Checked arguments. size: (height, width) of the input, None for the checkpoint's own.

    precision: "float32", "float16", "int8" (static, weights and activations), "mixed" (the same, but sensitive last
    convolutions in float) or "dynamic" (int8 weights, ranges of activations found while running).
    """

    format: Format
    size: tuple[int, int] | None
    precision: str
    dynamic: bool
    batch: int
    opset: int | None
    simplify: bool
    layout: str
    data: Any
    fraction: float | None
    calibration: str
    device: str | int | None
    out: Path | None
    verify: bool


def check_arguments(format: str, given: Mapping[str, Any]) -> Arguments:
    """The arguments of an export in one form.

    Raises TypeError for an unknown argument or a value of a wrong type, ValueError for an unknown format, a value out
    of range, or an argument that this format does not take.
    """
    found = find_format(format)
    for name in given:
        if name not in DEFAULTS:
            raise TypeError(unknown_option(name, list(DEFAULTS), "argument of export"))
    _check_fit(found, given)
    values = {**DEFAULTS, **given}
    _check_flags(values)
    layout = _choice(values, "layout", LAYOUTS)
    precision = _precision(found, values)
    if layout == "ultralytics" and precision in (*CALIBRATED, "dynamic"):
        raise ValueError(
            "layout=ultralytics with int8: pixels and scores in one int8 tensor share one scale, and the scores "
            "collapse (AP 0.000 where raw heads keep 0.348); leave layout out, PoseRunner reads raw heads by itself"
        )
    return Arguments(
        format=found,
        size=_size(values["imgsz"]),
        precision=precision,
        dynamic=values["dynamic"],
        batch=_integer(values, "batch", 1, MAX_BATCH),
        opset=None if values["opset"] is None else _integer(values, "opset", *OPSETS),
        simplify=values["simplify"],
        layout=layout,
        data=values["data"],
        fraction=_fraction(values["fraction"], precision),
        calibration=_choice(values, "calibration", found.calibrations),
        device=values["device"],
        out=None if values["out"] is None else Path(values["out"]),
        verify=values["verify"],
    )


def _check_fit(found: Format, given: Mapping[str, Any]) -> None:
    takes = (*COMMON_ARGUMENTS, *found.arguments)
    for name, value in given.items():
        if name in takes or value == DEFAULTS[name]:
            continue
        others = [entry.name for entry in formats().values() if name in entry.arguments]
        raise ValueError(
            f"{name}={value} does not fit format={found.name}, which takes {', '.join(takes)}"
            + (f"; {name} fits {', '.join(others)}" if others else "")
        )
    layout = given.get("layout", "edgepose")
    if layout in LAYOUTS and layout not in found.layouts:
        able = [entry.name for entry in formats().values() if layout in entry.layouts]
        raise ValueError(f"layout={layout} does not fit format={found.name}; it fits {', '.join(able)}")


def _check_flags(values: Mapping[str, Any]) -> None:
    for name in ("half", "dynamic", "simplify", "verify"):
        if not isinstance(values[name], bool):
            raise TypeError(f"{name}={values[name]!r}: expected true or false")
    if values["int8"] not in (True, False, *INT8_WORDS):
        raise ValueError(f"int8={values['int8']!r}: expected true, false, mixed or dynamic (int8 weights alone)")
    if values["half"] and values["int8"]:
        raise ValueError("half=true and int8=true: choose one precision")
    if values["dynamic"] and values["batch"] != 1:
        raise ValueError(f"dynamic=true takes any batch: leave batch={values['batch']} out")


def _precision(found: Format, values: Mapping[str, Any]) -> str:
    int8 = values["int8"]
    precision = str(int8) if int8 in INT8_WORDS else "int8" if int8 else "float16" if values["half"] else "float32"
    if found.name == "edgetpu" and precision == "float32":
        return "int8"  # the Edge TPU computes in nothing else
    if precision == "int8" and "int8" not in found.precisions and "dynamic" in found.precisions:
        return "dynamic"  # int8 weights are all the int8 that this format has
    if precision not in found.precisions:
        raise ValueError(
            f"format={found.name} comes in {', '.join(found.precisions)}, "
            f"not in {precision} (int8={int8}, half={values['half']})"
        )
    return precision


def _choice(values: Mapping[str, Any], name: str, choices: Sequence[str]) -> str:
    value = values[name]
    if value not in choices:
        raise ValueError(unknown_option(str(value), choices, name))
    return str(value)


def _integer(values: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = values[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected an integer")
    if not low <= value <= high:
        raise ValueError(f"{name}={value}: expected {low} to {high}")
    return value


def _fraction(value: Any, precision: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"fraction={value!r}: expected a number above 0, at most 1")
    if not 0 < value <= 1:
        raise ValueError(f"fraction={value}: expected a number above 0, at most 1")
    if precision not in CALIBRATED:
        raise ValueError(f"fraction={value}: the share of the training pictures that int8=true calibrates on")
    return float(value)


def _size(value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = (value, value) if isinstance(value, int) else value
    if not isinstance(sides, Sequence) or isinstance(sides, str) or len(sides) not in (1, 2):
        raise TypeError(f"imgsz={value!r}: expected one side, or height,width, in pixels")
    height, width = (sides[0], sides[-1])
    for side in (height, width):
        if not isinstance(side, int) or isinstance(side, bool):
            raise TypeError(f"imgsz={value!r}: expected one side, or height,width, in pixels")
        if not 1 <= side <= MAX_SIDE:
            raise ValueError(f"imgsz={value!r}: expected 1 to {MAX_SIDE} pixels")
    return height, width


def check_folder(folder: Path) -> None:
    """Raises OSError where no file can be made in the folder, before minutes are spent on its content."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} is not writable: pass out=FOLDER")
