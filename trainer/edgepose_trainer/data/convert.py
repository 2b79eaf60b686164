"""Labels from one form to another: YOLO-pose text, pickles of arrays, COCO keypoint JSON."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from edgepose_trainer.data.coco import read_coco, read_document, write_coco
from edgepose_trainer.data.config import SPLITS, DataConfig, SetConfig, load_data_config
from edgepose_trainer.data.files import write_whole
from edgepose_trainer.data.formats import write_pickle, write_text
from edgepose_trainer.data.labels import PictureLabels, label_stem
from edgepose_trainer.data.progress import progress_bar
from edgepose_trainer.data.scan import Problem, SplitScan, scan_split

FORMS = ("text", "pickle", "coco")


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """files: how many were written, and below which folder. problems: pictures that could not be converted."""

    out: Path
    files: int
    problems: list[Problem]


def convert_labels(
    source: str | os.PathLike[str] | Mapping[str, Any],
    to: str,
    out: str | os.PathLike[str],
    splits: Iterable[str] | None = None,
    overwrite: bool = False,
    verbose: bool = False,
) -> ConvertReport:
    """Writes the labels of a dataset YAML, or of a COCO keypoint JSON, in the form `to` below the folder `out`.

    text and pickle: one file a picture in out/labels/…, which is where training looks for them when out is the
    dataset's own `path`. coco: out/annotations/SPLIT.json. From a JSON a data.yaml is written too.
    Raises FileExistsError, before anything is written, where a file is there already and overwrite is False.
    """
    if to not in FORMS:
        raise ValueError(f"to must be one of {', '.join(FORMS)}, got {to!r}")
    folder = Path(out)
    if not isinstance(source, Mapping) and Path(source).suffix.lower() == ".json":
        return _convert_json(Path(source), to, folder, overwrite)
    data = load_data_config(source)
    wanted = list(splits) if splits else [s for s in SPLITS if data.has_split(s)]
    scans = [(split, part, scan) for split in wanted for part, scan in _scanned(data, split, verbose)]
    problems = [problem for _, _, scan in scans for problem in scan.problems]
    many = len(data.sets) > 1
    if to == "coco":
        count = _write_jsons(data, scans, folder, many, overwrite)
    else:
        files = [item for split, part, scan in scans for item in _label_files(part, scan, split, folder, many)]
        count = _write_files(files, to, data.kpt_shape[1], overwrite)
    return ConvertReport(folder, count, problems)


def _scanned(data: DataConfig, split: str, verbose: bool) -> Iterable[tuple[SetConfig, SplitScan]]:
    progress = progress_bar(f"checking {split}", " pictures", verbose)
    return zip(data.sets, scan_split(data, split, progress), strict=True)


def _label_files(
    part: SetConfig, scan: SplitScan, split: str, folder: Path, many: bool
) -> Iterable[tuple[Path, PictureLabels]]:
    """Where each picture's labels go: their own place below the set's path, taken over to `folder`."""
    base = folder / part.name if many else folder
    for picture, answer in zip(scan.pictures, scan.checked, strict=True):
        if answer.labels is not None:
            stem = Path(label_stem(picture))
            inside = stem.relative_to(part.root) if stem.is_relative_to(part.root) else Path("labels", split, stem.name)
            yield base / inside, answer.labels


def _write_files(files: Sequence[tuple[Path, PictureLabels]], to: str, dims: int, overwrite: bool) -> int:
    ending, write = (".txt", write_text) if to == "text" else (".pkl", write_pickle)
    targets = [stem.with_name(stem.name + ending) for stem, _ in files]
    _check_targets(targets, overwrite)
    for target, (_, labels) in zip(targets, files, strict=True):
        write(target, labels, dims)
    return len(targets)


def _check_targets(targets: Sequence[Path], overwrite: bool) -> None:
    if len(set(targets)) != len(targets):
        twice = next(t for i, t in enumerate(targets) if t in targets[:i])
        raise ValueError(f"two pictures would share the labels {twice}: give them different names")
    there = [t for t in targets if t.exists()]
    if there and not overwrite:
        raise FileExistsError(
            f"{len(there)} of the files are there already, such as {there[0]}: overwrite=true replaces"
        )


def _write_jsons(
    data: DataConfig, scans: Sequence[tuple[str, SetConfig, SplitScan]], folder: Path, many: bool, overwrite: bool
) -> int:
    targets = [folder / "annotations" / f"{part.name + '_' if many else ''}{split}.json" for split, part, _ in scans]
    used = [(target, item) for target, item in zip(targets, scans, strict=True) if item[2].pictures]
    _check_targets([target for target, _ in used], overwrite)
    names = data.keypoint_names or [f"point{i}" for i in range(data.num_keypoints)]
    for target, (_, part, scan) in used:
        pictures = [
            (os.path.relpath(path, part.root), answer.width, answer.height, answer.labels)
            for path, answer in zip(scan.pictures, scan.checked, strict=True)
            if answer.labels is not None
        ]
        write_coco(target, pictures, data.names, names, data.skeleton)
    return len(used)


def _convert_json(source: Path, to: str, folder: Path, overwrite: bool) -> ConvertReport:
    if to == "coco":
        raise ValueError(f"{source} is COCO JSON already: to=text or to=pickle")
    document = _describe(source)
    kpt_shape: tuple[int, int] = tuple(document["kpt_shape"])
    pictures = read_coco(source, kpt_shape, list(document["names"].values()))
    problems = [Problem(name, p.reason) for name, p in pictures.items() if p.labels is None]
    files = [(folder / _place(name), p.labels) for name, p in pictures.items() if p.labels is not None]
    _check_targets([folder / "data.yaml"], overwrite)
    count = _write_files(files, to, kpt_shape[1], overwrite)
    text = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, allow_unicode=True)
    write_whole(folder / "data.yaml", text.encode())
    if "flip_idx" not in document:
        reason = (
            "its keypoint names tell no left and right points that change places in a mirror: flip_idx is left out of "
            "data.yaml, and training mirrors no picture; add it by hand"
        )
        problems.append(Problem(str(source), reason, left_out=False))
    return ConvertReport(folder, count + 1, problems)


def _place(file_name: str) -> Path:
    """labels/NAME for a picture that the JSON calls NAME; untrusted, so nothing may lead out of the folder."""
    path = PurePosixPath(file_name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(
            f"a picture is called {file_name!r}, which leads out of the folder: make each file_name relative to the "
            "folder of the pictures"
        )
    parts = path.parts[1:] if path.parts[0] == "images" else path.parts
    return Path("labels", *parts).with_suffix("")


def _describe(source: Path) -> dict[str, Any]:
    """The dataset YAML of a COCO JSON, with its pictures in images/ beside labels/."""
    whole = read_document(source)
    used = {str(a.get("category_id")) for a in whole["annotations"]}
    categories = [c for c in whole["categories"] if c.get("keypoints") or str(c.get("id")) in used]
    points = [c.get("keypoints") for c in categories]
    if not categories or not isinstance(points[0], list) or not points[0] or any(p != points[0] for p in points):
        raise ValueError(f"{source}: its categories must have keypoints, the same ones each")
    names = [str(n) for n in points[0]]
    document = {
        "path": ".",
        "train": "images",
        "names": {i: str(c.get("name")) for i, c in enumerate(categories)},
        "kpt_shape": [len(names), 3],
        "keypoint_names": names,
    }
    if flip := mirrored(names):
        document["flip_idx"] = flip
    try:
        document["skeleton"] = [[a - 1, b - 1] for a, b in categories[0].get("skeleton") or []]
        load_data_config(document)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{source}: its keypoints must have different names, its skeleton be pairs of them counted from 1 ({error})"
        ) from None
    return document


_SIDES = {"left": "right", "l": "r"}
_SIDE = re.compile(r"^(left|right)|(left|right)$", re.IGNORECASE)  # also where no letter tells the word's end
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\d_]+")


def mirrored(names: Sequence[str]) -> list[int] | None:
    """flip_idx from names: left_eye and right_eye change places, as do LWrist and RWrist, and a point of no side stays.
    None where no two points are a pair, or one of a side has no counterpart: then the names do not tell."""
    words = [tuple(word.lower() for word in _WORDS.findall(_SIDE.sub(r" \g<0> ", name))) for name in names]
    sides = _SIDES | {right: left for left, right in _SIDES.items()}
    others = [tuple(sides.get(word, word) for word in point) for point in words]
    if others == words or len(set(words)) < len(words) or not set(others) <= set(words):
        return None
    return [words.index(other) for other in others]
