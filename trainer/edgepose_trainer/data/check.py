"""Looks a dataset over: what is broken, how the labels are spread, and what they look like."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgepose_trainer.data.config import SPLITS, DataConfig, load_data_config
from edgepose_trainer.data.dataset import PoseDataset, build_dataset
from edgepose_trainer.data.draw import contact_sheet, write_picture
from edgepose_trainer.data.files import write_whole

QUANTILES = (0, 5, 25, 50, 75, 95, 100)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """statistics: for each split what `label_statistics` gives. problems: for each split, text of each problem.
    files: what was written (report.json, problems.txt, and for each split a contact sheet and a plot)."""

    statistics: dict[str, dict[str, Any]]
    problems: dict[str, list[str]]
    files: list[Path]

    def summary(self, most: int = 20) -> str:
        """Some lines for a person; `most` problems of each split are named."""
        lines = []
        for split, numbers in self.statistics.items():
            lines.append(
                f"{split}: {numbers['pictures']} pictures ({numbers['background']} without people), "
                f"{numbers['people']} people, {len(self.problems[split])} problems"
            )
        for split, problems in self.problems.items():
            lines += [f"  {split}: {text}" for text in problems[:most]]
            if len(problems) > most:
                lines.append(f"  {split}: and {len(problems) - most} more, see problems.txt")
        return "\n".join([*lines, *(f"wrote {path}" for path in self.files)])


def check_dataset(
    data: str | os.PathLike[str] | Mapping[str, Any] | DataConfig,
    out: str | os.PathLike[str] = "runs/check",
    splits: Iterable[str] | None = None,
    count: int = 16,
    verbose: bool = False,
) -> CheckReport:
    """Checks every picture and label of the splits (default: all there are) and writes what it found into `out`.

    count: pictures on a contact sheet. verbose: bars on a terminal.
    Raises FileNotFoundError or ValueError where nothing is usable.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1 picture on a contact sheet, got {count}")
    config = data if isinstance(data, DataConfig) else load_data_config(data)
    wanted = list(splits) if splits else [s for s in SPLITS if config.has_split(s)]
    sets = {split: build_dataset(config, split, verbose=verbose) for split in wanted}
    statistics = {split: label_statistics(dataset) for split, dataset in sets.items()}
    problems = {split: [str(p) for p in dataset.problems] for split, dataset in sets.items()}
    for split, found in _shared_pictures(sets).items():
        problems[split] += found
    folder = Path(out)
    files = [folder / "report.json", folder / "problems.txt"]
    write_whole(files[0], json.dumps({"statistics": statistics, "problems": problems}, indent=1).encode())
    lines = [f"{split}\t{text}\n" for split, found in problems.items() for text in found]
    write_whole(files[1], "".join(lines).encode())
    for split, dataset in sets.items():
        files += [folder / f"{split}_pictures.jpg", folder / f"{split}_labels.png"]
        write_picture(files[-2], contact_sheet(dataset, count))
        plot_statistics(statistics[split], files[-1], f"{split}: {statistics[split]['people']} people")
    return CheckReport(statistics, problems, files)


def _shared_pictures(sets: Mapping[str, PoseDataset]) -> dict[str, list[str]]:
    """Pictures that are in more than one split: what is learned by heart there counts as accuracy."""
    first: dict[bytes, tuple[str, str]] = {}
    problems: dict[str, list[str]] = {split: [] for split in sets}
    for split, dataset in sets.items():
        for digest, path in zip(dataset.digests, dataset.paths, strict=True):
            where, other = first.setdefault(digest, (split, path))
            if where != split:
                problems[split].append(f"{path}: the same picture as {other} in {where} (picture kept)")
    return problems


def label_statistics(dataset: PoseDataset) -> dict[str, Any]:
    """Numbers of pictures, people, classes; people a picture; box sizes; for each keypoint how often it is what.

    box_side is the square root of a box's area relative to its picture's; box_pixels the same in the file's pixels,
    both as quantiles (in percent).
    """
    people = np.diff(dataset.offsets)
    owner = np.repeat(np.arange(len(dataset)), people)
    side = np.sqrt(dataset.boxes[:, 2:].prod(1).astype(np.float64))
    pixels = side * np.sqrt(dataset.sizes.prod(1))[owner]
    visibility = dataset.keypoints[..., 2]
    names = dataset.data.keypoint_names or [str(i) for i in range(dataset.data.num_keypoints)]
    many, pictures = np.unique(people, return_counts=True)
    counted = np.bincount(dataset.cls, minlength=dataset.data.num_classes)
    return {
        "pictures": len(dataset),
        "background": int((people == 0).sum()),
        "people": int(people.sum()),
        "classes": dict(zip(dataset.data.names, counted.tolist(), strict=True)),
        "people_per_picture": {str(n): int(c) for n, c in zip(many, pictures, strict=True)},
        "box_side": _quantiles(side),
        "box_pixels": _quantiles(pixels),
        "keypoints": {
            name: {
                "visible": int((visibility[:, k] == 2).sum()),
                "hidden": int((visibility[:, k] == 1).sum()),
                "not_labelled": int(((visibility[:, k] == 0) & dataset.known[:, k]).sum()),
                "unknown": int((~dataset.known[:, k]).sum()),
            }
            for k, name in enumerate(names)
        },
    }


def _quantiles(values: Any) -> dict[str, float]:
    if not len(values):
        return {}
    return {str(q): round(float(np.percentile(values, q)), 4) for q in QUANTILES}


def plot_statistics(numbers: Mapping[str, Any], path: Path, title: str) -> None:
    """People a picture, box sizes and keypoint visibility, as one .png."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 4.5), layout="constrained")
    figure.suptitle(title)
    left, middle, right = figure.subplots(1, 3)
    many = {int(n): c for n, c in numbers["people_per_picture"].items()}
    left.bar(list(many), list(many.values()))
    left.set(xlabel="people in a picture", ylabel="pictures", yscale="log")
    sides = numbers["box_side"]
    middle.plot(list(sides.values()), [float(q) for q in sides], marker="o")
    middle.set(xlabel="side of a box, of the picture's", ylabel="% of people smaller", xlim=(0, 1), ylim=(0, 100))
    _plot_visibility(right, numbers["keypoints"])
    write_whole(path, lambda file: figure.savefig(file, format="png", dpi=100))


def _plot_visibility(axes: Any, keypoints: Mapping[str, Mapping[str, int]]) -> None:
    bottom = np.zeros(len(keypoints))
    for kind, colour in (("visible", "C2"), ("hidden", "C1"), ("not_labelled", "0.6"), ("unknown", "0.85")):
        counts = np.array([numbers[kind] for numbers in keypoints.values()])
        axes.bar(list(keypoints), counts, bottom=bottom, label=kind.replace("_", " "), color=colour)
        bottom += counts
    axes.tick_params(axis="x", rotation=90)
    axes.set_ylabel("people")
    axes.legend()
