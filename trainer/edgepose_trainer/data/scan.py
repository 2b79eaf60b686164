"""Finds the pictures of a split with their labels, checks every one, and remembers the answers.

What is broken is listed by name and reason and left out. The answers are cached for each file by its size and time of
change, so that a second scan only asks the file system.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgepose_trainer.data import coco
from edgepose_trainer.data.config import DataConfig, SetConfig
from edgepose_trainer.data.files import cache_dir, write_whole
from edgepose_trainer.data.formats import find_label_file, read_label_file
from edgepose_trainer.data.labels import PictureLabels, drop_duplicates, empty_labels, label_stem
from edgepose_trainer.data.pictures import ENDINGS, check_picture
from edgepose_trainer.data.progress import Progress

CACHE_VERSION = 3
CHUNK = 64  # pictures that a thread checks before it reports


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. left_out: the picture is not used; otherwise it is used all the same."""

    path: str
    reason: str
    left_out: bool = True

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}{'' if self.left_out else ' (picture kept)'}"


@dataclass(frozen=True, slots=True)
class Checked:
    """The answer for one picture. stat: sizes and times of change of picture and labels, its key in the cache."""

    stat: tuple[int, int, int, int]
    height: int = 0
    width: int = 0
    orientation: int = 1
    digest: bytes = b""
    labels: PictureLabels | None = None
    broken: str = ""
    note: str = ""


@dataclass(slots=True)
class SplitScan:
    """The usable pictures of one set's split, in order, and the problems."""

    pictures: list[Path] = field(default_factory=list)
    checked: list[Checked] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def scan_split(data: DataConfig, split: str, progress: Progress | None = None) -> list[SplitScan]:
    """One `SplitScan` for each of data.sets. progress(done, total) is called now and then.

    Raises FileNotFoundError where the split or one of its folders is not there, ValueError where nothing is usable.
    """
    if not data.has_split(split):
        raise ValueError(f"{data.source} has no {split}: add {split}: with a folder, list or glob of pictures")
    scans = [_scan_set(data, part, split, progress) for part in data.sets]
    _leave_out_duplicates(scans)
    if not any(scan.pictures for scan in scans):
        first = [str(p) for scan in scans for p in scan.problems][:5]
        raise ValueError(f"{data.source}: no picture of {split} is usable: {'; '.join(first)}")
    return scans


def _scan_set(data: DataConfig, part: SetConfig, split: str, progress: Progress | None) -> SplitScan:
    scan = SplitScan()
    if not part.splits.get(split):
        return scan
    pictures = _find_pictures(data, part.splits[split], part.root, scan.problems)
    checked, lost = _check_all(data, part, split, pictures, progress)
    for path, answer in zip(pictures, checked, strict=True):
        if answer.broken:
            scan.problems.append(Problem(str(path), answer.broken))
            continue
        if answer.note:
            scan.problems.append(Problem(str(path), answer.note, left_out=False))
        scan.pictures.append(path)
        scan.checked.append(answer)
    scan.problems += lost if part.annotations.get(split) else _labels_without_picture(part.splits[split], pictures)
    return scan


def _find_pictures(data: DataConfig, entries: Sequence[Path], root: Path, problems: list[Problem]) -> list[Path]:
    found: dict[str, None] = {}
    for entry in entries:
        paths = list(_expand(data, entry, root))
        if not paths:
            problems.append(Problem(str(entry), f"no picture there (known endings: {', '.join(sorted(ENDINGS))})"))
        for path in paths:
            text = os.path.normpath(path)
            if text in found:
                problems.append(Problem(text, "listed twice, used once", left_out=False))
            elif os.path.splitext(text)[1].lower() not in ENDINGS:
                problems.append(Problem(text, f"not a picture (known endings: {', '.join(sorted(ENDINGS))})"))
            else:
                found[text] = None
    return [Path(text) for text in found]


def _expand(data: DataConfig, entry: Path, root: Path) -> Iterator[str]:
    text = str(entry)
    if entry.is_dir():
        yield from _pictures_below(text)
    elif entry.suffix == ".txt" and entry.is_file():
        yield from _listed(entry, root)
    elif entry.is_file():
        yield text
    elif glob.has_magic(text):
        inside = text.removeprefix(str(root))  # a root with brackets in its name is no pattern
        pattern = text if inside == text else glob.escape(str(root)) + inside
        yield from sorted(p for p in glob.glob(pattern, recursive=True) if os.path.splitext(p)[1].lower() in ENDINGS)
    else:
        raise FileNotFoundError(f"{data.source} names {text}, which is not there: correct that entry, or path")


def _pictures_below(folder: str) -> Iterator[str]:
    """Links to folders are followed, after the folders themselves; no folder is entered twice."""
    entered: set[str] = set()
    for where, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(where)) in entered:
            folders.clear()
            continue
        entered.add(real)
        folders.sort(key=lambda name: (os.path.islink(os.path.join(where, name)), name))
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in ENDINGS:
                yield os.path.join(where, name)


def _listed(path: Path, root: Path) -> Iterator[str]:
    """Lines of a .txt list: relative to the list's own folder, or, where no such file is there, to the set's path.
    Lists made on Windows have backslashes."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8, save it as such: {error}") from None
    for line in filter(None, map(str.strip, lines)):
        places = [str(folder / text) for text in (line, line.replace("\\", "/")) for folder in (path.parent, root)]
        yield next(filter(os.path.isfile, places), places[1])


def _labels_without_picture(entries: Sequence[Path], pictures: Sequence[Path]) -> list[Problem]:
    stems = {label_stem(picture) for picture in pictures}
    problems = []
    for folder, picture_folder in _label_folders(entries, pictures).items():
        names = os.listdir(picture_folder) if os.path.isdir(picture_folder) else []
        there = {base for base, ending in map(os.path.splitext, names) if ending.lower() in ENDINGS}
        for name in sorted(os.listdir(folder)):
            base, ending = os.path.splitext(name)
            path = os.path.join(folder, name)
            if ending in (".txt", ".pkl") and base not in there and os.path.splitext(path)[0] not in stems:
                problems.append(Problem(path, "labels without a picture", left_out=False))
    return problems


def _label_folders(entries: Sequence[Path], pictures: Sequence[Path]) -> dict[str, str]:
    """Folders of labels, and where their pictures lie: beside the pictures found, and below the folders named."""
    found = {os.path.dirname(label_stem(picture)): os.path.dirname(picture) for picture in pictures}
    for entry in map(os.path.normpath, entries):
        top = os.path.dirname(label_stem(os.path.join(entry, "any")))
        for folder, _, _ in os.walk(top) if os.path.isdir(entry) else ():
            found.setdefault(folder, os.path.normpath(os.path.join(entry, os.path.relpath(folder, top))))
    # Where labels lie among the pictures, other .txt files may lie too.
    return {labels: pictures for labels, pictures in found.items() if labels != pictures and os.path.isdir(labels)}


def _leave_out_duplicates(scans: Sequence[SplitScan]) -> None:
    first: dict[bytes, Path] = {}
    for scan in scans:
        keep = []
        for i, (path, answer) in enumerate(zip(scan.pictures, scan.checked, strict=True)):
            original = first.setdefault(answer.digest, path)
            if original is path:
                keep.append(i)
            else:
                scan.problems.append(Problem(str(path), f"the same picture as {original}"))
        scan.pictures = [scan.pictures[i] for i in keep]
        scan.checked = [scan.checked[i] for i in keep]


# --- checking, and the cache of its answers


def _check_all(
    data: DataConfig, part: SetConfig, split: str, pictures: Sequence[Path], progress: Progress | None
) -> tuple[list[Checked], list[Problem]]:
    """The answer for each picture, and the labels without a picture of COCO JSON."""
    place = _cache_path(data, part, split)
    known, lost = load_answers(place, data.num_keypoints)
    source = _Labels(data, part, split)
    answers = [known.get(str(p)) for p in pictures]
    stats = [_stat(p, source) for p in pictures]
    stale = [i for i, (a, s) in enumerate(zip(answers, stats, strict=True)) if a is None or a.stat != s]
    changed = bool(stale) or len(known) != len(pictures)
    if changed:
        source.prepare()
        lost = source.without_picture(pictures)
    for done, (i, answer) in enumerate(_check_stale(pictures, stats, source, stale), 1):
        answers[i] = answer
        if progress and (done % CHUNK == 0 or done == len(stale)):
            progress(done, len(stale))
    final = [a for a in answers if a is not None]
    if changed:
        save_answers(place, pictures, final, lost)
    return final, lost


def _check_stale(
    pictures: Sequence[Path], stats: Sequence[tuple[int, int, int, int]], source: _Labels, stale: Sequence[int]
) -> Iterator[tuple[int, Checked]]:
    """Checks the pictures of these numbers, in threads: decoding and hashing run without the interpreter's lock."""

    def check(chunk: Sequence[int]) -> list[tuple[int, Checked]]:
        return [(i, _check(pictures[i], stats[i], source)) for i in chunk]

    chunks = [stale[i : i + CHUNK] for i in range(0, len(stale), CHUNK)]
    with warnings.catch_warnings(), ThreadPoolExecutor(min(32, 2 * (os.cpu_count() or 1))) as pool:
        warnings.filterwarnings("ignore", module="PIL")  # damaged EXIF and the like does not harm the pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for answers in pool.map(check, chunks):
            yield from answers


class _Labels:
    """Where the labels of a set's split come from: files beside the pictures, or COCO JSON (read when first needed)."""

    def __init__(self, data: DataConfig, part: SetConfig, split: str) -> None:
        self.data = data
        self.json = part.annotations.get(split, ())
        self.roots = [str(p) for p in (*part.splits[split], part.root)]
        self._pictures: dict[str, coco.CocoPicture] | None = None
        for path in self.json:
            if not path.is_file():
                raise FileNotFoundError(f"{data.source} names the annotations {path}, which are not there")
        if self.json:
            stats = [os.stat(p) for p in self.json]
            self.json_stat = (sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats))

    def stat(self, picture: Path) -> tuple[int, int]:
        if self.json:
            return self.json_stat
        stem = label_stem(picture)
        for ending in (".txt", ".pkl"):
            try:
                found = os.stat(stem + ending)
            except OSError:
                continue
            return found.st_size, found.st_mtime_ns
        return -1, -1

    def prepare(self) -> None:
        if self.json and self._pictures is None:
            shape, names, points = self.data.kpt_shape, self.data.names, self.data.keypoint_names
            self._pictures = {}
            for path in self.json:
                for name, picture in coco.read_coco(path, shape, names, points).items():
                    coco.add_picture(self._pictures, name, picture)

    def read(self, picture: Path, size: tuple[int, int]) -> PictureLabels:
        if not self.json:
            path = find_label_file(picture)
            return read_label_file(path, self.data.kpt_shape, self.data.num_classes) if path else self._nobody()
        assert self._pictures is not None
        name = self._name(picture)
        if name is None:
            return self._nobody()
        found = self._pictures[name]
        if found.labels is None:
            raise ValueError(found.reason)
        if (found.width > found.height) != (size[1] > size[0]) and (found.width, found.height) == size:
            raise ValueError(f"the picture is {size[1]} x {size[0]} as EXIF turns it, the JSON describes it unturned")
        return found.labels

    def _name(self, picture: Path) -> str | None:
        """What the JSON calls a picture: its path from the split's folder or the set's, or any end of its path."""
        assert self._pictures is not None
        ends = (str(Path(*picture.parts[i:])) for i in range(len(picture.parts)))
        names = itertools.chain((os.path.relpath(picture, root) for root in self.roots), ends)
        return next((name for name in names if name in self._pictures), None)

    def without_picture(self, pictures: Sequence[Path]) -> list[Problem]:
        """What the JSON labels and is no picture here; those on disk that the split does not name are passed over."""
        if not self._pictures:
            return []
        folders = {picture.parent for picture in pictures if picture.parent.is_dir()}
        here = {self._name(folder / name) for folder in folders for name in os.listdir(folder)}
        problems = []
        for name, found in self._pictures.items():
            nobody = found.labels is not None and not len(found.labels)
            if not nobody and name not in here:
                why = f" ({found.reason})" if found.reason else ""
                problems.append(Problem(name, f"labels without a picture{why}", left_out=False))
        return problems

    def _nobody(self) -> PictureLabels:
        return empty_labels(self.data.num_keypoints)


def _stat(picture: Path, source: _Labels) -> tuple[int, int, int, int]:
    try:
        found = os.stat(picture)
    except (OSError, ValueError):
        return -1, -1, -1, -1
    return found.st_size, found.st_mtime_ns, *source.stat(picture)


def _check(picture: Path, stat: tuple[int, int, int, int], source: _Labels) -> Checked:
    try:
        info = check_picture(picture)
        labels, repeated = drop_duplicates(source.read(picture, (info.height, info.width)))
    except FileNotFoundError:
        return Checked(stat, broken="no such file")
    except (ValueError, OSError) as error:
        return Checked(stat, broken=str(error))
    note = f"{repeated} repeated row(s) of labels dropped" if repeated else ""
    return Checked(stat, info.height, info.width, info.orientation, info.digest, labels, note=note)


def _cache_path(data: DataConfig, part: SetConfig, split: str) -> Path:
    entries = [str(p) for p in (*part.splits[split], *part.annotations.get(split, ()))]
    key = repr((CACHE_VERSION, entries, data.kpt_shape, data.names))
    return cache_dir() / "scans" / f"{part.name}-{split}-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}.npz"


def save_answers(place: Path, pictures: Sequence[Path], answers: Sequence[Checked], lost: Sequence[Problem]) -> None:
    """All answers in one .npz; a folder that cannot be written to costs the next scan its speed, nothing else."""
    labels = [a.labels for a in answers if a.labels is not None]
    columns: dict[str, Any] = {
        "paths": np.array([str(p) for p in pictures]),
        "stats": np.array([a.stat for a in answers], np.int64).reshape(-1, 4),
        "sizes": np.array([(a.height, a.width, a.orientation) for a in answers], np.int64).reshape(-1, 3),
        "digests": np.array([a.digest.hex() for a in answers]),
        "broken": np.array([a.broken for a in answers]),
        "notes": np.array([a.note for a in answers]),
        "lost": np.array([(p.path, p.reason) for p in lost]).reshape(-1, 2),
        "counts": np.array([-1 if a.labels is None else len(a.labels) for a in answers], np.int64),
        "cls": np.concatenate([p.cls for p in labels]) if labels else np.zeros(0, np.int32),
        "boxes": np.concatenate([p.boxes for p in labels]) if labels else np.zeros((0, 4), np.float32),
        "keypoints": np.concatenate([p.keypoints for p in labels]) if labels else np.zeros((0, 0, 3), np.float32),
    }

    def write(file: BinaryIO) -> None:
        np.savez(file, **columns)

    try:
        write_whole(place, write)
    except OSError as error:
        warnings.warn(f"the scan cannot be remembered in {place.parent}: {error}", stacklevel=2)


def load_answers(place: Path, num_keypoints: int) -> tuple[dict[str, Checked], list[Problem]]:
    """Path -> remembered answer, and labels without a picture; empty where there is no cache or it is damaged."""
    try:
        with open(place, "rb") as content, np.load(content, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
        lost = [Problem(path, reason, left_out=False) for path, reason in columns["lost"].tolist()]
        return _answers(columns, num_keypoints), lost
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile, NotImplementedError):
        return {}, []


def _answers(columns: dict[str, NDArray[np.generic]], num_keypoints: int) -> dict[str, Checked]:
    counts = columns["counts"].astype(np.int64)
    ends = np.cumsum(np.maximum(counts, 0))
    total = int(ends[-1]) if len(ends) else 0
    cls, boxes, points = columns["cls"], columns["boxes"], columns["keypoints"]
    if (cls.shape, boxes.shape) != ((total,), (total, 4)) or (total and points.shape != (total, num_keypoints, 3)):
        raise ValueError("the columns do not belong together")
    points = points.reshape(total, num_keypoints, 3)
    people = PictureLabels(cls.astype(np.int32), boxes.astype(np.float32), points.astype(np.float32))
    text = {name: columns[name].tolist() for name in ("paths", "stats", "sizes", "digests", "broken", "notes")}
    answers = {}
    for i, (path, count, end) in enumerate(zip(text["paths"], counts.tolist(), ends.tolist(), strict=True)):
        part = slice(end - max(count, 0), end)
        labels = None if count < 0 else PictureLabels(people.cls[part], people.boxes[part], people.keypoints[part])
        height, width, orientation = text["sizes"][i]
        digest = bytes.fromhex(text["digests"][i])
        answers[path] = Checked(
            tuple(text["stats"][i]), height, width, orientation, digest, labels, text["broken"][i], text["notes"][i]
        )
    return answers
