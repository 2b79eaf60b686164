"""Who is found and who is not: people by their size, crowding, pose and light."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from edgepose_trainer.metrics import BOX_AREA_SHARE, Found, Truth, box_iou, oks
from numpy.typing import NDArray

from edgepose.coco import SIGMAS
from edgepose.pictures import load_picture

MOST_PEOPLE = 20  # of a picture that COCO's evaluation of keypoints counts
FOUND_SCORE, FOUND_OKS = 0.25, 0.5  # "found": at the score that predict asks for, at COCO's loosest OKS
SHOULDERS, HIPS = [5, 6], [11, 12]

Group = Callable[["Person"], bool]


@dataclass(frozen=True)
class Picture:
    """A labelled picture: its file, and its people in its pixels."""

    path: str
    truth: Truth


@dataclass(frozen=True)
class Person:
    """What may make a labelled person hard to find.

    share: of the picture that the box covers. overlap: the largest IoU with another labelled box. upright: cosine of
    the torso's angle to the vertical, None without shoulders or hips. light: mean level 0..255 within the box.
    cut: the box touches the picture's edge.
    """

    share: float
    overlap: float
    upright: float | None
    light: float
    cut: bool


@dataclass(frozen=True)
class Match:
    """How well a person was found. best: OKS of the best match, 0 without one. found: see FOUND_SCORE."""

    person: Person
    best: float
    found: bool


def intervals(value: Callable[[Person], float], *limits: float) -> dict[str, Group]:
    """People by a value: under the first limit, from there to the next, …"""
    edges = [-math.inf, *limits, math.inf]
    return {
        interval_name(low, high): lambda person, low=low, high=high: low <= value(person) < high  # type: ignore[misc]
        for low, high in pairwise(edges)
    }


def interval_name(low: float, high: float) -> str:
    if low == -math.inf:
        return f"under {high:g}"
    return f"{low:g} and more" if high == math.inf else f"{low:g} to {high:g}"


GROUPS: dict[str, dict[str, Group]] = {
    "size, % of the picture": intervals(lambda p: 100 * p.share, 1, 5, 20),
    "overlap with another, IoU": {
        "none": lambda p: p.overlap == 0,
        "under 0.1": lambda p: 0 < p.overlap < 0.1,
        "0.1 to 0.3": lambda p: 0.1 <= p.overlap < 0.3,
        "0.3 and more": lambda p: p.overlap >= 0.3,
    },
    "torso": {
        "upright": lambda p: p.upright is not None and p.upright >= 0.8,
        "leaning or lying": lambda p: p.upright is not None and 0 <= p.upright < 0.8,
        "upside down": lambda p: p.upright is not None and p.upright < 0,
        "not all labelled": lambda p: p.upright is None,
    },
    "light in the box, level of 255": intervals(lambda p: p.light, 60, 90, 120),
    "box": {"inside the picture": lambda p: not p.cut, "touches the edge": lambda p: p.cut},
}


def failures(chosen: Sequence[Picture], found: Sequence[Found]) -> dict[str, dict[str, dict[str, float]]]:
    """Of each group of GROUPS: people, the share of them found, the mean OKS of their best matches."""
    matches = [match for pair in zip(chosen, found, strict=True) for match in matched(*pair)]
    tables = {title: by_group(matches, groups) for title, groups in GROUPS.items()}
    return {title: table for title, table in tables.items() if len(table) > 1}


def by_group(matches: Sequence[Match], groups: Mapping[str, Group]) -> dict[str, dict[str, float]]:
    """A summary of each group that has people."""
    members = {name: [match for match in matches if group(match.person)] for name, group in groups.items()}
    return {name: summary(part) for name, part in members.items() if part}


def summary(matches: Sequence[Match]) -> dict[str, float]:
    return {
        "people": len(matches),
        "found": float(np.mean([match.found for match in matches])),
        "OKS": float(np.mean([match.best for match in matches])),
    }


def matched(picture: Picture, found: Found) -> Iterator[Match]:
    """Each person with a labelled keypoint, and how well it was found."""
    best, sure = best_oks(found, picture.truth), best_oks(found, picture.truth, FOUND_SCORE)
    for i, person in enumerate(people(picture)):
        if labelled(picture.truth)[i]:
            yield Match(person, float(best[i]), bool(sure[i] >= FOUND_OKS))


def best_oks(found: Found, truth: Truth, least: float = 0.0) -> NDArray[np.float64]:
    """(M,): the OKS of the best match of each person among the first MOST_PEOPLE of at least that score."""
    keep = np.flatnonzero(found.scores >= least)[:MOST_PEOPLE]
    if not len(keep):
        return np.zeros(len(truth.boxes))
    similarity = oks(found.keypoints[keep], truth.keypoints, box_areas(truth) * BOX_AREA_SHARE, np.asarray(SIGMAS))
    return np.asarray(similarity.max(0))


def labelled(truth: Truth) -> NDArray[np.bool_]:
    """(M,): who has a labelled keypoint."""
    return np.asarray((truth.keypoints[..., 2] > 0).any(1))


def box_areas(truth: Truth) -> NDArray[np.float64]:
    return np.asarray((truth.boxes[:, 2:] - truth.boxes[:, :2]).prod(1))


def people(picture: Picture) -> list[Person]:
    truth, image = picture.truth, load_picture(picture.path)[0]
    gray = image if image.ndim == 2 else image @ np.array([0.299, 0.587, 0.114])
    height, width = gray.shape
    overlaps = box_iou(truth.boxes, truth.boxes)
    np.fill_diagonal(overlaps, 0)
    corners = np.clip(truth.boxes, 0, [width, height, width, height])
    return [
        Person(
            share=float(area) / (height * width),
            overlap=float(overlap.max()),
            upright=uprightness(keypoints),
            light=float(gray[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))].mean()),
            cut=bool(x0 <= 1 or y0 <= 1 or x1 >= width - 1 or y1 >= height - 1),
        )
        for area, overlap, keypoints, (x0, y0, x1, y1) in zip(
            box_areas(truth), overlaps, truth.keypoints, corners, strict=True
        )
    ]


def uprightness(keypoints: NDArray[Any]) -> float | None:
    """Cosine of the torso's angle to the vertical, -1 for upside down; keypoints (17, 3). None where it is unknown."""
    if not (keypoints[SHOULDERS + HIPS, 2] > 0).all():
        return None
    torso = keypoints[HIPS, :2].mean(0) - keypoints[SHOULDERS, :2].mean(0)
    length = float(np.hypot(*torso))
    return float(torso[1]) / length if length else None
