"""Settings: cfg/default.yaml holds each with its default and meaning, `Config` its type; `load_config` checks."""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from edgepose.contract import SUPPRESSIONS
from edgepose.modelfiles.files import write_atomically
from edgepose.modelfiles.yaml import parse_yaml

DEFAULTS = Path(__file__).parent / "cfg" / "default.yaml"


@dataclass(frozen=True, slots=True)
class Config:
    """All settings, checked. cfg/default.yaml says what each means; this class says which types it may have."""

    task: str
    model: str
    pretrained: str | None
    data: str | None

    epochs: int
    time: float | None
    patience: int
    fraction: float

    imgsz: int
    batch: int
    nbs: int
    multi_scale: float
    imgsz_schedule: list[Any] | None
    rect: bool

    device: str | int | None
    workers: int
    cache: bool | str
    amp: bool | str
    channels_last: bool
    sync_bn: bool
    threads: int | None
    seed: int
    deterministic: bool

    project: str
    name: str
    exist_ok: bool
    save: bool
    save_period: int
    save_minutes: float
    save_batches: int
    resume: bool | str | None
    val: bool
    val_period: int
    plots: bool
    tensorboard: bool
    verbose: bool

    optimizer: str
    lr0: float
    lrf: float
    cos_lr: bool
    momentum: float
    weight_decay: float
    warmup_epochs: float
    warmup_momentum: float
    warmup_bias_lr: float
    clip: float
    ema_decay: float
    ema_tau: float
    freeze: int | list[Any] | None

    box: float
    cls: float
    dfl: float
    pose: float
    pose_l1: float
    heatmap: float
    kobj: float

    mosaic: float
    close_mosaic: int
    degrees: float
    translate: float
    scale: float
    aspect: float
    shear: float
    hsv_h: float
    hsv_s: float
    hsv_v: float
    fliplr: float
    flipud: float
    blur: float
    jpeg: float
    noise: float
    occlusion: float

    split: str
    conf: float
    iou: float
    nms: str
    max_det: int

    def __post_init__(self) -> None:
        _check_ranges(self)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def replace(self, **changes: Any) -> Config:
        """A copy with some settings changed, checked as in `load_config`."""
        return replace(self, **check_settings(changes))


CHOICES: dict[str, tuple[Any, ...]] = {
    "task": ("pose",),
    "cache": (False, True, "ram", "disk"),
    "amp": (True, False, "bf16", "fp16"),
    "optimizer": ("auto", "SGD", "AdamW"),
    "split": ("train", "val", "test"),
    "nms": SUPPRESSIONS,
}

AT_LEAST = {
    "epochs": 1, "patience": 0, "imgsz": 32, "batch": 1, "nbs": 1, "workers": 0, "threads": 1, "seed": 0,
    "save_period": 0, "save_minutes": 0, "save_batches": 0, "val_period": 1, "warmup_epochs": 0, "clip": 0,
    "close_mosaic": 0, "max_det": 1, "box": 0, "cls": 0, "dfl": 0, "pose": 0, "pose_l1": 0, "heatmap": 0, "kobj": 0,
    "weight_decay": 0,
}  # fmt: skip
ABOVE_ZERO = ("time", "lr0", "lrf", "ema_tau", "fraction")
SHARES = (
    "fraction", "multi_scale", "momentum", "warmup_momentum", "ema_decay", "mosaic", "translate", "scale", "aspect",
    "hsv_h", "hsv_s", "hsv_v", "fliplr", "flipud", "blur", "jpeg", "noise", "occlusion", "conf", "iou",
)  # fmt: skip


@cache
def default_settings() -> Mapping[str, Any]:
    """The settings of cfg/default.yaml as plain data."""
    return types.MappingProxyType(_read_yaml(DEFAULTS))


def default_text() -> str:
    """cfg/default.yaml with its comments, as `edgepose cfg` prints it."""
    return DEFAULTS.read_text(encoding="utf-8")


def load_config(cfg: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Defaults, then the YAML file `cfg`, then `overrides`; later ones win.

    Raises FileNotFoundError, ValueError (unknown key: names the nearest; value out of range) or TypeError.
    """
    settings = dict(default_settings())
    if cfg is not None:
        settings |= check_settings(_read_yaml(Path(cfg)), where=str(cfg))
    settings |= check_settings(overrides or {})
    return Config(**settings)


def save_config(config: Config, path: Path) -> None:
    """Writes the full settings as YAML; `load_config(path)` gives the same back."""
    text = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)
    write_atomically(str(path), [text.encode()])


def parse_setting(key: str, text: str) -> Any:
    """The value that a word of the command gives a setting: "3", "true", "null" or "[[0, 160], [0.5, 256]]" are read as
    YAML; what a setting of text does not take so is the text itself, letter by letter.

    Raises TypeError for a value of a wrong type.
    """
    kinds = _field_types()[key]
    try:
        value = yaml.safe_load(text) if text else None
    except yaml.YAMLError:
        value = text
    if value is None and type(None) in kinds:
        return None
    text_alone = set(kinds) <= {str, type(None)}
    if text_alone or (isinstance(value, str) and str in kinds and text[0] not in "\"'"):  # YAML ends it at a " #"
        return text
    return _convert(key, value, kinds)


def check_settings(settings: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """The settings with each value in its own type; ValueError for an unknown key, TypeError for a wrong type."""
    kinds = _field_types()
    checked = {}
    for key, value in settings.items():
        if key not in kinds:
            raise ValueError(_unknown(key, kinds, where))
        checked[key] = _convert(key, value, kinds[key])
    return checked


def _unknown(key: object, known: Mapping[str, object], where: str) -> str:
    near = difflib.get_close_matches(str(key), list(known), n=1, cutoff=0.0)
    place = f" in {where}" if where else ""
    return f"unknown setting {key!r}{place}: did you mean {near[0]!r}? `edgepose cfg` lists all"


@cache
def _field_types() -> dict[str, tuple[type, ...]]:
    """For each setting the plain types that it may have."""
    hints = typing.get_type_hints(Config)
    return {name: _plain_types(hints[name]) for name in Config.__dataclass_fields__}


def _plain_types(hint: Any) -> tuple[type, ...]:
    if isinstance(hint, types.UnionType):
        return tuple(kind for arm in typing.get_args(hint) for kind in _plain_types(arm))
    return (typing.get_origin(hint) or hint,)


def _convert(key: str, value: Any, kinds: tuple[type, ...]) -> Any:
    if isinstance(value, Path) and str in kinds:
        value = str(value)
    if isinstance(value, tuple) and list in kinds:
        value = list(value)
    if type(value) in kinds:
        return value
    if float in kinds and (number := _as_float(value)) is not None:
        return number
    if int in kinds and isinstance(value, float) and value.is_integer():
        return int(value)
    names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
    raise TypeError(f"setting {key!r}: got {value!r} ({type(value).__name__}), expected {names}")


def _as_float(value: Any) -> float | None:
    """Numbers, and strings such as "1e-3", which YAML 1.1 does not take for a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _check_ranges(config: Config) -> None:
    for key, allowed in CHOICES.items():
        value = getattr(config, key)
        if value not in allowed:
            near = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1, cutoff=0.0)[0]
            raise ValueError(f"setting {key!r}: got {value!r}, expected one of {list(allowed)}; nearest: {near}")
    for key, least in AT_LEAST.items():
        _require(config, key, lambda v, least=least: v >= least, f"at least {least}")
    for key in ABOVE_ZERO:
        _require(config, key, lambda v: v > 0, "more than 0")
    for key in SHARES:
        _require(config, key, lambda v: 0 <= v <= 1, "0 to 1")
    for key, value in config.to_dict().items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"setting {key!r}: got {value}, expected a finite number")
    _require(config, "seed", lambda v: v < 2**63, "less than 2^63")
    for stage in config.imgsz_schedule or []:
        _check_stage(stage)


def _require(config: Config, key: str, holds: Any, expected: str) -> None:
    value = getattr(config, key)
    if value is not None and not holds(value):
        raise ValueError(f"setting {key!r}: got {value}, expected {expected}")


def _check_stage(stage: Any) -> None:
    pair = isinstance(stage, list) and len(stage) == 2 and all(type(value) in (int, float) for value in stage)
    if not (pair and 0 <= stage[0] < 1 and stage[1] >= 32):
        raise ValueError(
            f"setting 'imgsz_schedule': got {stage!r}, expected pairs [share of the run from 0 to 1, side from 32 up]"
        )


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"settings file {str(path)!r} does not exist; `edgepose cfg` prints one to start from")
    settings = parse_yaml(path.read_bytes(), f"settings file {str(path)!r}")
    if not isinstance(settings, dict):
        raise ValueError(f"settings file {str(path)!r}: expected `key: value` lines, got {type(settings).__name__}")
    return settings
