"""What a model YAML says: read, checked and turned into a list of layers.

Two forms are read. The compact one (`cfg/models/*.yaml`) gives the channels and blocks of each stage and the levels of
the neck. The field's one lists every layer as [from, repeats, module, args] under `backbone` and `head`. In both,
`scales` holds {letter: [depth, width, max_channels]}, and a file name such as `yolov8n-pose.yaml` picks the letter.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgepose_trainer.nn.blocks import ACTIVATIONS

MODELS = Path(__file__).resolve().parent.parent / "cfg" / "models"
MODULES = ("Conv", "C2f", "C2", "SPPF", "Concat", "Upsample", "Pose")

# Models come from other people's files too: nothing is allocated for numbers that no pose network has.
MAX_YAML_BYTES = 1 << 20
MAX_LAYERS = 256
MAX_REPEATS = 64
MAX_CHANNELS = 8192
MAX_CLASSES = 10_000
MAX_KEYPOINTS = 1024

_KEYS = {
    *("nc", "kpt_shape", "activation", "reg_max", "scale", "scales", "backbone", "neck", "head", "name", "heatmap"),
    *("depth_multiple", "width_multiple", "max_channels", "ch", "channels", "task", "yaml_file"),
}
_NAME = re.compile(r"(?P<family>yolov8)(?P<scale>[a-z])?(?P<p6>-p6)?-pose(?P<p6_last>-p6)?")


@dataclass(frozen=True)
class LayerSpec:
    """One layer. source: indices of the layers it reads (-1: the one before); args as the field's YAMLs give them."""

    source: tuple[int, ...]
    repeats: int
    module: str
    args: tuple[Any, ...]


@dataclass(frozen=True)
class NetworkConfig:
    """A checked model YAML with its scale chosen. `document` is plain data that gives the same network again."""

    name: str
    nc: int
    kpt_shape: tuple[int, int]
    activation: str
    reg_max: int
    heatmap: bool
    depth: float
    width: float
    max_channels: int
    layers: tuple[LayerSpec, ...]
    document: dict[str, Any]


def read_config(
    model: str | Path | Mapping[str, Any],
    *,
    nc: int | None = None,
    kpt_shape: Sequence[int] | None = None,
    scale: str | Sequence[float] | None = None,
) -> NetworkConfig:
    """Reads a model YAML (a path, or a name such as `yolov8n-pose.yaml`) or the dict it would hold.

    nc, kpt_shape and scale replace what the YAML says; scale is a letter of its `scales` or [depth, width,
    max_channels]. Raises FileNotFoundError for an unknown name, ValueError or TypeError for a YAML that is no network.
    """
    if isinstance(model, Mapping):
        document, name = dict(model), str(model.get("name", "custom"))
        letter = None
    else:
        path, letter = find_model_yaml(model)
        document, name = _load_yaml(path), Path(model).stem
    _check_keys(document)
    if nc is not None:
        document["nc"] = nc
    if kpt_shape is not None:
        document["kpt_shape"] = list(kpt_shape)
    return _checked(document, name, scale if scale is not None else document.get("scale"), letter)


def find_model_yaml(model: str | Path) -> tuple[Path, str | None]:
    """The file that a model path or name means, and the scale letter in its name.

    A file on disk comes first, then the file of all scales where it would be (`my/yolov8-pose.yaml` for
    `my/yolov8n-pose.yaml`), then `yolov8<letter>-pose[.yaml]` and `yolov8<letter>-p6-pose[.yaml]` of the package.
    """
    path = Path(model)
    match = _NAME.fullmatch(path.name.removesuffix(".yaml").removesuffix(".yml"))
    letter = match["scale"] if match else _letter_in(path.stem)
    if path.is_file():
        return path, letter
    if match:
        p6 = "-p6" if match["p6"] or match["p6_last"] else ""
        family = f"yolov8{p6}-pose.yaml"
        if (beside := path.with_name(family)).is_file():
            return beside, letter
        if path.parent == Path("."):
            return MODELS / family, letter
    raise FileNotFoundError(
        f"no model YAML {str(model)!r}: it is no file here, and the packaged ones are "
        "yolov8{p,t,n,s,m,l,x}-pose.yaml and yolov8{n,s,m,l,x}-p6-pose.yaml"
    )


def _letter_in(stem: str) -> str | None:
    match = re.search(r"yolov8([a-z])(?![a-z])", stem)
    return match[1] if match else None


def _load_yaml(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_YAML_BYTES:
        raise ValueError(f"{path} is larger than {MAX_YAML_BYTES} bytes: that is no model YAML")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable as YAML: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds {type(document).__name__}, expected a mapping with backbone and head")
    return document


def _check_keys(document: Mapping[str, Any]) -> None:
    for key in document:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, 1, 0)[0]
            hint = "; a data YAML goes to data=" if key in ("path", "train", "val") else ""
            raise ValueError(f"unknown key {key!r} in the model YAML; the nearest known one is {near!r}{hint}")
    for key in ("backbone", "head"):
        if key not in document:
            raise ValueError(f"the model YAML has no {key!r}")
    if document.get("task", "pose") != "pose":
        raise ValueError(f"the model YAML is for task {document['task']!r}; edgepose trains pose models")
    if document.get("ch", document.get("channels", 3)) != 3:
        raise ValueError("the model YAML asks for another number of input channels than 3")


def _checked(document: dict[str, Any], name: str, scale: Any, letter: str | None) -> NetworkConfig:
    nc = check_int(document.get("nc", 1), "nc", 1, MAX_CLASSES)
    kpt_shape = check_kpt_shape(document.get("kpt_shape", [17, 3]))
    activation = _activation(document.get("activation", "silu"))
    depth, width, max_channels = _scale(document, scale, letter, name)
    compact = isinstance(document["backbone"], Mapping)
    head = document["head"]
    reg_max = document.get("reg_max", head.get("reg_max", 16) if isinstance(head, Mapping) else 16)
    rows = _expand(document) if compact else [*_rows(document, "backbone"), *_rows(document, "head")]
    reg_max = check_int(reg_max, "reg_max", 2, 64)
    heatmap = document.get("heatmap", False)
    if not isinstance(heatmap, bool):
        raise TypeError(f"heatmap must be true or false, got {heatmap!r}")
    plain = {"name": name, "nc": nc, "kpt_shape": list(kpt_shape), "activation": activation}
    plain |= {"scale": [depth, width, max_channels], "reg_max": reg_max}
    plain |= {"heatmap": True} if heatmap else {}
    plain |= {key: document[key] for key in ("backbone", "neck", "head") if key in document}
    return NetworkConfig(
        name=name,
        nc=nc,
        kpt_shape=kpt_shape,
        activation=activation,
        reg_max=reg_max,
        heatmap=heatmap,
        depth=depth,
        width=width,
        max_channels=max_channels,
        layers=tuple(_layer(row, index) for index, row in enumerate(rows)),
        document=plain,
    )


def check_int(value: Any, what: str, low: int, high: int) -> int:
    """The value, where it is a whole number in low..high."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an integer, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{what} must be in {low}..{high}, got {value}")
    return value


def check_kpt_shape(value: Any) -> tuple[int, int]:
    """[K, D] with D 2 (x, y) or 3 (x, y, visibility)."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ValueError(f"kpt_shape must be [keypoints, 2 or 3], got {value!r}")
    return check_int(value[0], "kpt_shape[0]", 1, MAX_KEYPOINTS), check_int(value[1], "kpt_shape[1]", 2, 3)


def _activation(value: Any) -> str:
    """silu, SiLU, nn.SiLU() and torch.nn.SiLU() all name the same; nothing is evaluated."""
    name = str(value).rsplit(".", 1)[-1].removesuffix("()").lower()
    if name not in ACTIVATIONS:
        near = difflib.get_close_matches(name, ACTIVATIONS, 1, 0)[0]
        raise ValueError(f"unknown activation {value!r}; the nearest of {sorted(ACTIVATIONS)} is {near!r}")
    return name


def _scale(document: Mapping[str, Any], scale: Any, letter: str | None, name: str) -> tuple[float, float, int]:
    if isinstance(scale, Sequence) and not isinstance(scale, str):
        return _numbers(scale, "scale")
    scales = document.get("scales")
    if not scales:
        depth, width = document.get("depth_multiple", 1.0), document.get("width_multiple", 1.0)
        return _numbers([depth, width, document.get("max_channels", MAX_CHANNELS)], "depth_multiple, width_multiple")
    if not isinstance(scales, Mapping):
        raise TypeError(f"scales must map a letter to [depth, width, max_channels], got {scales!r}")
    chosen = scale or letter
    if not chosen:
        chosen = next(iter(scales))
        warnings.warn(f"{name} names no scale of {list(scales)}; {chosen!r} is taken", UserWarning, stacklevel=5)
    if chosen not in scales:
        raise ValueError(f"{name}: no scale {chosen!r} among {list(scales)}")
    return _numbers(scales[chosen], f"scales[{chosen!r}]")


def _numbers(value: Any, what: str) -> tuple[float, float, int]:
    good = isinstance(value, Sequence) and len(value) == 3
    if not good or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in value):
        raise ValueError(f"{what} must be [depth, width, max_channels], got {value!r}")
    depth, width, most = float(value[0]), float(value[1]), float(value[2])
    if not (0 < depth <= 8 and 0 < width <= 8 and 8 <= most <= MAX_CHANNELS):
        raise ValueError(f"{what}: depth and width must be above 0 and at most 8, max_channels 8..{MAX_CHANNELS}")
    return depth, width, int(most)


def _rows(document: Mapping[str, Any], key: str) -> list[Any]:
    rows = document[key]
    if not isinstance(rows, list) or len(rows) > MAX_LAYERS:
        raise ValueError(f"{key} must be a list of at most {MAX_LAYERS} layers [from, repeats, module, args]")
    return rows


def _layer(row: Any, index: int) -> LayerSpec:
    where = f"layer {index}"
    if not isinstance(row, (list, tuple)) or len(row) != 4 or not isinstance(row[3], (list, tuple)):
        raise ValueError(f"{where}: expected [from, repeats, module, args], got {row!r}")
    source = tuple(row[0]) if isinstance(row[0], (list, tuple)) else (row[0],)
    for number in source:
        check_int(number, f"{where}: from", -max(index, 1), max(index - 1, -1))
    module = str(row[2]).removeprefix("nn.")
    if module not in MODULES:
        near = difflib.get_close_matches(module, MODULES, 1, 0)[0]
        raise ValueError(f"{where}: unknown module {row[2]!r}; known are {list(MODULES)}, the nearest {near!r}")
    return LayerSpec(source, check_int(row[1], f"{where}: repeats", 1, MAX_REPEATS), module, tuple(row[3]))


def _expand(document: Mapping[str, Any]) -> list[list[Any]]:
    """The compact form as layers: backbone, SPPF, top-down and bottom-up paths (PAN), head."""
    _only(document["head"], {"reg_max"}, "head")
    stem, stages = _backbone(document["backbone"])
    levels, outputs, block, repeats = _neck(document.get("neck"), len(stages))
    rows: list[list[Any]] = [[-1, 1, "Conv", [stem, 3, 2]]]
    ends: list[int] = []
    for channels, blocks in stages:
        rows += [[-1, 1, "Conv", [channels, 3, 2]], [-1, blocks, "C2f", [channels, True]]]
        ends.append(len(rows) - 1)
    rows.append([-1, 1, "SPPF", [stages[-1][0], 5]])
    ends[-1] = len(rows) - 1
    lateral = [ends[-1]]
    for level in range(2, levels + 1):
        rows += [[-1, 1, "Upsample", [2]], [[-1, ends[-level]], 1, "Concat", [1]]]
        rows.append([-1, repeats, block, [stages[-level][0], False]])
        lateral.append(len(rows) - 1)
    found = [lateral.pop()]
    for level in range(levels - 1, levels - outputs, -1):
        rows += [[-1, 1, "Conv", [stages[-level - 1][0], 3, 2]], [[-1, lateral.pop()], 1, "Concat", [1]]]
        rows.append([-1, repeats, block, [stages[-level][0], False]])
        found.append(len(rows) - 1)
    rows.append([found, 1, "Pose", ["nc", "kpt_shape"]])
    return rows


def _backbone(backbone: Mapping[str, Any]) -> tuple[int, list[tuple[int, int]]]:
    _only(backbone, {"stem", "stages"}, "backbone")
    stages = backbone.get("stages")
    if not isinstance(stages, list) or not 1 <= len(stages) <= 8:
        raise ValueError(f"backbone: stages must be a list of 1 to 8 [channels, blocks], got {stages!r}")
    checked = []
    for stage in stages:
        if not isinstance(stage, (list, tuple)) or len(stage) != 2:
            raise ValueError(f"backbone: a stage is [channels, blocks], got {stage!r}")
        channels = check_int(stage[0], "backbone: channels", 8, MAX_CHANNELS)
        checked.append((channels, check_int(stage[1], "backbone: blocks", 1, MAX_REPEATS)))
    return check_int(backbone.get("stem"), "backbone: stem", 8, MAX_CHANNELS), checked


def _neck(neck: Any, stages: int) -> tuple[int, int, str, int]:
    """Levels of the top-down path, and how many of them, finest first, the head reads; the block and its repeats."""
    neck = neck or {}
    _only(neck, {"levels", "outputs", "block", "repeats"}, "neck")
    levels = check_int(neck.get("levels", min(3, stages)), "neck: levels", 1, stages)
    outputs = check_int(neck.get("outputs", levels), "neck: outputs", 1, levels)
    if (block := neck.get("block", "C2f")) not in ("C2f", "C2"):
        raise ValueError(f"neck: block must be C2f or C2, got {block!r}")
    return levels, outputs, block, check_int(neck.get("repeats", 3), "neck: repeats", 1, MAX_REPEATS)


def _only(mapping: Any, known: set[str], what: str) -> None:
    if not isinstance(mapping, Mapping):
        raise TypeError(f"{what} must be a mapping in the compact form, got {type(mapping).__name__}")
    for key in mapping:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1, 0)[0]
            raise ValueError(f"{what}: unknown key {key!r}; the nearest is {near!r}")
