"""The dataset YAML: where the pictures are and what their labels mean. docs/data.md describes every key."""

from __future__ import annotations

import difflib
import logging
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepose import coco
from edgepose.modelfiles.yaml import parse_yaml

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
SET_KEYS = ("path", *SPLITS, "annotations", "partly_labelled", "background_weight", "unknown_keypoints", "repeat")
LABEL_KEYS = ("names", "nc", "kpt_shape", "flip_idx", "keypoint_names", "kpt_names", "skeleton", "sigmas")
TOP_KEYS = (*SET_KEYS, *LABEL_KEYS, "sets", "download")
FOREIGN_KEYS = ("roboflow", "channels")  # written by other tools, without meaning here

SHIPPED = Path(__file__).resolve().parent.parent / "cfg" / "data"


@dataclass(frozen=True, slots=True)
class SetConfig:
    """Pictures that were labelled in one way.

    splits: for each split the folders, globs, .txt lists and pictures it consists of (absolute).
    annotations: for each split its COCO keypoint JSON files, where labels do not lie beside the pictures.
    background_weight: 0..1, the weight of "nobody is here" where no person is labelled.
    unknown_keypoints: indices of the points for which v = 0 says nothing.
    repeat: how often its pictures are seen in an epoch of training.
    """

    name: str
    root: Path
    splits: Mapping[str, tuple[Path, ...]]
    annotations: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    background_weight: float = 1.0
    unknown_keypoints: tuple[int, ...] = ()
    repeat: int = 1


@dataclass(frozen=True, slots=True)
class Download:
    """One archive: unpacked into `into` (absolute), checked against size (bytes) and sha256 where they are known.

    within: the folder of the YAML; nothing is unpacked outside of it.
    """

    url: str
    into: Path
    within: Path
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class DataConfig:
    """A dataset. kpt_shape is (K, D) with D 2 (x, y) or 3 (x, y, v); sigmas has K entries; flip_idx K or none."""

    source: str
    names: tuple[str, ...]
    kpt_shape: tuple[int, int]
    flip_idx: tuple[int, ...]
    keypoint_names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    sets: tuple[SetConfig, ...]
    downloads: tuple[Download, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @property
    def num_keypoints(self) -> int:
        return self.kpt_shape[0]

    def has_split(self, split: str) -> bool:
        return any(s.splits.get(split) for s in self.sets)

    def people(self) -> dict[str, Any]:
        """What the labels mean, as a checkpoint keeps it (`Checkpoint.people`)."""
        return {
            "names": dict(enumerate(self.names)),
            "flip_idx": list(self.flip_idx),
            "keypoint_names": list(self.keypoint_names),
            "skeleton": [list(pair) for pair in self.skeleton],
            "sigmas": list(self.sigmas),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data with absolute paths that `load_data_config` takes: what a checkpoint remembers."""
        return {**self.people(), "kpt_shape": list(self.kpt_shape), "sets": [_set_to_dict(s) for s in self.sets]}


def load_data_config(data: str | os.PathLike[str] | Mapping[str, Any]) -> DataConfig:
    """Reads and checks a dataset YAML, or the same as a dict.

    A path that does not exist is looked for among the shipped YAMLs (coco8-pose.yaml). Relative paths in a YAML count
    from its own folder; in a dict from the working folder; in a shipped YAML from `datasets_dir()`.
    Raises FileNotFoundError, TypeError or ValueError, which name the key and what was expected.
    """
    if isinstance(data, Mapping):
        return _parse(dict(data), Path.cwd(), "data")
    path = find_data_yaml(data)
    base = datasets_dir() if path.parent == SHIPPED else path.parent
    document = parse_yaml(path.read_bytes(), str(path))
    if not isinstance(document, dict):
        raise ValueError(f"{path}: a dataset YAML holds keys such as path, train, val, names; got {document!r:.60}")
    return _parse(document, base, str(path))


def find_data_yaml(data: str | os.PathLike[str]) -> Path:
    """The YAML itself, or the shipped one of that name. Raises FileNotFoundError."""
    path = Path(data).expanduser()
    if path.is_file():
        return path.resolve()
    shipped = SHIPPED / path.name
    if path.parent == Path(".") and shipped.is_file():
        return shipped
    known = sorted(p.name for p in SHIPPED.glob("*.yaml"))
    raise FileNotFoundError(
        f"no dataset YAML {str(data)!r}{_nearest(path.name, known)}; shipped ones: {', '.join(known)}"
    )


def datasets_dir() -> Path:
    """Where shipped datasets are downloaded to: $EDGEPOSE_DATASETS, else `datasets` in the working folder."""
    return Path(os.environ.get("EDGEPOSE_DATASETS", "datasets")).expanduser().resolve()


def _nearest(key: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(key, list(known), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _check_keys(document: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in document:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}{_nearest(str(key), known)}; known: {', '.join(known)}")


def _parse(document: dict[str, Any], base: Path, where: str) -> DataConfig:
    _check_keys(document, (*TOP_KEYS, *FOREIGN_KEYS), where)
    names = _names(document, where)
    kpt_shape = _kpt_shape(document, where)
    count = kpt_shape[0]
    flip_idx = _flip_idx(document.get("flip_idx"), count, where)
    named = _keypoint_names(document, count, where)
    mirrored = flip_idx == coco.FLIP or (flip_idx == () and names == ("person",))
    human = count == 17 and mirrored and named in ((), coco.KEYPOINT_NAMES)
    keypoint_names = coco.KEYPOINT_NAMES if human else named
    skeleton = _skeleton(document.get("skeleton"), count, where) or (coco.SKELETON if human else ())
    return DataConfig(
        source=where,
        names=names,
        kpt_shape=kpt_shape,
        flip_idx=flip_idx,
        keypoint_names=keypoint_names,
        skeleton=skeleton,
        sigmas=_sigmas(document.get("sigmas"), count, where),
        sets=_sets(document, base, count, keypoint_names, where),
        downloads=_downloads(document.get("download"), base, document.get("path"), where),
    )


def _names(document: Mapping[str, Any], where: str) -> tuple[str, ...]:
    names, nc = document.get("names"), document.get("nc")
    if names is None:
        if not isinstance(nc, int) or nc < 1:
            raise ValueError(f"{where}: names is missing; give names: {{0: person}} (one name for each class)")
        names = [f"class{i}" for i in range(nc)]
    if isinstance(names, Mapping):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise ValueError(f"{where}: names must number the classes 0 to {len(names) - 1}, got {list(names)}")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(n, (str, int)) for n in names):
        raise ValueError(f"{where}: names must be a list or mapping of class names, got {names!r:.80}")
    if nc is not None and nc != len(names):
        raise ValueError(f"{where}: nc is {nc!r} but names has {len(names)} entries; leave nc out or make them agree")
    return tuple(str(n) for n in names)


def _kpt_shape(document: Mapping[str, Any], where: str) -> tuple[int, int]:
    shape = document.get("kpt_shape")
    good = isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, int) for n in shape)
    if not good or shape[0] < 1 or shape[1] not in (2, 3):  # type: ignore[index]
        raise ValueError(
            f"{where}: kpt_shape must be [number of keypoints, 2 (x, y) or 3 (x, y, visibility)], got {shape!r}"
        )
    return shape[0], shape[1]  # type: ignore[index]


def _flip_idx(value: Any, count: int, where: str) -> tuple[int, ...]:
    if not value:
        return ()
    whole = isinstance(value, list) and all(isinstance(i, int) for i in value)
    if not whole or sorted(value) != list(range(count)):
        raise ValueError(f"{where}: flip_idx must hold each of 0 to {count - 1} once, got {value!r}")
    if any(value[value[i]] != i for i in range(count)):
        raise ValueError(f"{where}: flip_idx must give each point back when applied twice, got {value!r}")
    return tuple(value)


def _keypoint_names(document: Mapping[str, Any], count: int, where: str) -> tuple[str, ...]:
    value = document.get("keypoint_names", document.get("kpt_names"))
    if isinstance(value, Mapping):  # the other tools' form: names for each class
        lists = [value[key] for key in sorted(value, key=str)]
        if any(names != lists[0] for names in lists):
            log.warning("%s: kpt_names differ between classes; those of the first class name the points of all", where)
        value = lists[0] if lists else None
    if not value:
        return ()
    if not isinstance(value, list) or len(value) != count or len(set(map(str, value))) != count:
        raise ValueError(f"{where}: keypoint_names must be {count} different names (kpt_shape), got {value!r:.120}")
    return tuple(str(v) for v in value)


def _skeleton(value: Any, count: int, where: str) -> tuple[tuple[int, int], ...]:
    if not value:
        return ()
    for pair in value if isinstance(value, list) else [value]:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(i, int) and 0 <= i < count for i in pair):
            raise ValueError(f"{where}: skeleton must be pairs of keypoint indices 0 to {count - 1}, got {pair!r}")
    return tuple((a, b) for a, b in value)


def _sigmas(value: Any, count: int, where: str) -> tuple[float, ...]:
    if not value:
        return coco.SIGMAS if count == 17 else (1.0 / count,) * count
    if not isinstance(value, list) or len(value) != count or not all(_is_number(v) and 0 < v < math.inf for v in value):
        raise ValueError(
            f"{where}: sigmas must be {count} positive numbers (one for each keypoint), got {value!r:.120}"
        )
    return tuple(float(v) for v in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _sets(
    document: dict[str, Any], base: Path, count: int, keypoint_names: Sequence[str], where: str
) -> tuple[SetConfig, ...]:
    common = {k: v for k, v in document.items() if k in SET_KEYS}
    parts = document.get("sets")
    if parts is None:
        parts = [{"path": root} for root in _as_list(common.pop("path", None) or ".", f"{where}: path")]
    else:
        path = common.pop("path", None) or "."
        if not isinstance(path, str):
            raise ValueError(f"{where}: path must be one folder where sets are given, got {path!r:.80}")
        base = base / Path(path).expanduser()
    if not isinstance(parts, list) or not parts or not all(isinstance(p, Mapping) for p in parts):
        raise ValueError(f"{where}: sets must be a list of mappings with {', '.join(SET_KEYS)}, got {parts!r:.80}")
    sets = tuple(
        _set({**common, **p}, p, base, count, keypoint_names, f"{where}: sets[{i}]") for i, p in enumerate(parts)
    )
    if not any(s.splits for s in sets):
        raise ValueError(
            f"{where}: none of train, val, test is given; name at least one folder, list or glob of pictures"
        )
    return sets


def _set(
    value: dict[str, Any], own: Mapping[str, Any], base: Path, count: int, keypoint_names: Sequence[str], where: str
) -> SetConfig:
    _check_keys(own, SET_KEYS, where)
    root = (base / Path(str(value.get("path") or ".")).expanduser()).resolve()
    splits = {s: _paths(value[s], root, f"{where}: {s}") for s in SPLITS if value.get(s)}
    annotations = value.get("annotations") or {}
    if not isinstance(annotations, Mapping):
        raise ValueError(f"{where}: annotations must map a split to its COCO JSON file, got {annotations!r:.80}")
    _check_keys(annotations, SPLITS, f"{where}: annotations")
    return SetConfig(
        name=root.name,
        root=root,
        splits=splits,
        annotations={s: _paths(v, root, f"{where}: annotations: {s}") for s, v in annotations.items() if v},
        background_weight=_background_weight(value, where),
        unknown_keypoints=_unknown(value.get("unknown_keypoints"), count, keypoint_names, where),
        repeat=_repeat(value.get("repeat", 1), where),
    )


def _as_list(value: Any, where: str) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(v, (str, os.PathLike)) for v in values):
        raise ValueError(f"{where} must be a path or a list of paths, got {value!r:.80}")
    return [str(v) for v in values]


def _paths(value: Any, root: Path, where: str) -> tuple[Path, ...]:
    return tuple(root / Path(v).expanduser() for v in _as_list(value, where))


def _background_weight(value: Mapping[str, Any], where: str) -> float:
    partly = value.get("partly_labelled", False)
    if not isinstance(partly, bool):
        raise ValueError(f"{where}: partly_labelled must be true or false, got {partly!r}")
    weight = value.get("background_weight", 0.0 if partly else 1.0)
    if not _is_number(weight) or not 0 <= weight <= 1:
        raise ValueError(f"{where}: background_weight must be a number from 0 to 1, got {weight!r}")
    return float(weight)


def _repeat(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 100:
        raise ValueError(f"{where}: repeat must be a whole number from 1 to 100, got {value!r}")
    return value


def _unknown(value: Any, count: int, keypoint_names: Sequence[str], where: str) -> tuple[int, ...]:
    if value is None or value is False:
        return ()
    if value is True:
        return tuple(range(count))
    points = []
    for point in value if isinstance(value, list) else [value]:
        if isinstance(point, str) and point not in keypoint_names:
            raise ValueError(
                f"{where}: unknown_keypoints names {point!r}{_nearest(point, keypoint_names)}, not a keypoint"
            )
        index = keypoint_names.index(point) if isinstance(point, str) else point
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
            raise ValueError(f"{where}: unknown_keypoints must be true, or keypoint names or indices, got {point!r}")
        points.append(index)
    return tuple(sorted(set(points)))


def _downloads(value: Any, base: Path, path: Any, where: str) -> tuple[Download, ...]:
    root = (base / Path(path).expanduser()).resolve() if isinstance(path, str) else base
    return tuple(
        _download(item, root, base, f"{where}: download")
        for item in (value if isinstance(value, list) else [value] if value else [])
    )


def _download(item: Any, root: Path, base: Path, where: str) -> Download:
    item = {"url": item} if isinstance(item, str) else item
    if not isinstance(item, Mapping):
        raise ValueError(f"{where} must be a URL or a mapping with url, into, size, sha256, got {item!r:.80}")
    _check_keys(item, ("url", "into", "size", "sha256"), where)
    url, size, sha256 = item.get("url"), item.get("size"), item.get("sha256")
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        raise ValueError(f"{where}: url must start with https:// or http://, got {url!r:.80}")
    if size is not None and (not isinstance(size, int) or size < 1):
        raise ValueError(f"{where}: size must be the number of bytes, got {size!r}")
    if sha256 is not None and not (isinstance(sha256, str) and re.fullmatch("[0-9A-Fa-f]{64}", sha256)):
        raise ValueError(f"{where}: sha256 must be 64 hexadecimal digits, got {sha256!r}")
    into = (root / str(item.get("into") or ".")).resolve()
    return Download(url, into, base.resolve(), size, sha256.lower() if sha256 else None)


def _set_to_dict(value: SetConfig) -> dict[str, Any]:
    out: dict[str, Any] = {"path": str(value.root)}
    out.update({split: [str(p) for p in paths] for split, paths in value.splits.items()})
    if value.annotations:
        out["annotations"] = {split: [str(p) for p in paths] for split, paths in value.annotations.items()}
    out["background_weight"] = value.background_weight
    out["unknown_keypoints"] = list(value.unknown_keypoints)
    out["repeat"] = value.repeat
    return out
