"""Pictures of a run: losses and metrics over epochs, curves, errors by keypoint, predicted beside labelled people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgepose_trainer.data.files import write_whole
from edgepose_trainer.data.pictures import read_picture
from edgepose_trainer.metrics import Found, Metrics, Truth
from edgepose_trainer.recorder import read_rows
from edgepose_trainer.validate import Validator

UInt8 = NDArray[np.uint8]

LABELLED, PREDICTED, LIMB = (80, 220, 80), (240, 60, 60), (235, 160, 60)
LEAST_SCORE = 0.25


def draw_history(table: Path, out: Path) -> None:
    """results.csv as curves: losses, then metrics, over epochs."""
    rows = read_rows(table)
    names = [name for name in rows[0] if name.startswith(("loss/", "pose/", "box/")) or name in ("f1", "pck")]
    columns = math.ceil(len(names) / 3)
    figure = _figure(3.2 * columns, 8)
    axes = figure.subplots(3, columns, squeeze=False).ravel()
    for ax, name in zip(axes, names, strict=False):
        points = [(int(row["epoch"]), float(row[name])) for row in rows if row.get(name)]
        ax.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else "")
        ax.set(title=name, xlabel="epoch")
        ax.grid(alpha=0.3)
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    _save(figure, out)


def draw_metrics(metrics: Metrics, folder: Path) -> None:
    """pr_curve.png, f1_curve.png and keypoint_error.png."""
    curves = metrics.curves
    figure = _figure(6, 5)
    ax = figure.subplots()
    ax.plot(curves.recall, curves.precision)
    ax.plot([metrics.recall], [metrics.precision], "o", label=f"best F1 {metrics.f1:.3f}")
    ax.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="people at OKS 0.5")
    ax.legend()
    _save(figure, folder / "pr_curve.png")
    figure = _figure(6, 5)
    ax = figure.subplots()
    for name in ("precision", "recall", "f1"):
        ax.plot(curves.scores, getattr(curves, name), label=name)
    ax.axvline(metrics.threshold, linestyle=":", color="0.4", label=f"score {metrics.threshold:.3f}")
    ax.set(xlabel="score", xlim=(0, 1), ylim=(0, 1.02), title="people at OKS 0.5")
    ax.legend()
    _save(figure, folder / "f1_curve.png")
    _draw_keypoint_error(metrics, folder / "keypoint_error.png")


def _draw_keypoint_error(metrics: Metrics, out: Path) -> None:
    count = len(metrics.keypoint_error)
    names = metrics.keypoint_names or tuple(str(i) for i in range(count))
    figure = _figure(max(6, 0.5 * count), 7)
    top, bottom = figure.subplots(2, 1)
    top.bar(names, np.nan_to_num(metrics.keypoint_error))
    top.set(ylabel="mean error / torso diagonal", title=f"matched people above score {metrics.threshold:.3f}")
    bottom.bar(names, np.nan_to_num(metrics.keypoint_pck), color="C2")
    bottom.set(ylabel="share within 0.2", ylim=(0, 1))
    for ax in (top, bottom):
        ax.tick_params(axis="x", rotation=90)
    _save(figure, out)


class ValPictures(Validator):
    """Keeps the first `count` validated pictures, and draws them, predicted beside labelled."""

    def __init__(self, count: int = 8, skeleton: Sequence[tuple[int, int]] = ()) -> None:
        self.count, self.skeleton = count, skeleton
        self.kept: list[tuple[str, Found, Truth]] = []

    def on_batch(self, paths: Sequence[str], found: Sequence[Found], truth: Sequence[Truth]) -> None:
        room = self.count - len(self.kept)
        self.kept += list(zip(paths, found, truth, strict=True))[:room]

    def save(self, out: Path) -> None:
        """Writes one picture with a row for each kept one: labelled left, predicted right."""
        rows = [side_by_side(path, found, truth, self.skeleton) for path, found, truth in self.kept]
        if not rows:
            return
        half = math.ceil(len(rows) / 2)
        columns = [_stack(rows[:half]), _stack(rows[half:])] if len(rows) > 1 else [rows[0]]
        height = max(column.shape[0] for column in columns)
        sheet = np.concatenate([_pad_to(column, height) for column in columns], 1)
        write_whole(out, cv2.imencode(".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes())


def side_by_side(
    path: str, found: Found, truth: Truth, skeleton: Sequence[tuple[int, int]] = (), side: int = 320
) -> UInt8:
    """(side, 2 side, 3) RGB: the labelled people left, those predicted with a score of at least 0.25 right."""
    picture = read_picture(Path(path))
    scale = side / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    left, right = _canvas(small, side), _canvas(small, side)
    for box, points in zip(truth.boxes, truth.keypoints, strict=True):
        draw_person(left, box * scale, points[:, :2] * scale, points[:, 2] > 0, skeleton, LABELLED)
    for i in np.flatnonzero(found.scores >= LEAST_SCORE):
        seen = found.keypoint_scores[i] >= 0.5
        draw_person(right, found.boxes[i] * scale, found.keypoints[i] * scale, seen, skeleton, PREDICTED)
    return np.concatenate([left, right], 1)


def draw_person(
    canvas: UInt8, box: Any, points: Any, shown: Any, skeleton: Sequence[tuple[int, int]], colour: tuple[int, int, int]
) -> None:
    """Draws one person in pixels of the canvas, in place. shown (K,): which points are drawn."""
    corners = [int(v) for v in box]
    cv2.rectangle(canvas, (corners[0], corners[1]), (corners[2], corners[3]), colour, 1)
    places = [(int(x), int(y)) for x, y in points]
    for a, b in skeleton:
        if shown[a] and shown[b]:
            cv2.line(canvas, places[a], places[b], LIMB, 1, cv2.LINE_AA)
    for place, visible in zip(places, shown, strict=True):
        if visible:
            cv2.circle(canvas, place, 2, colour, -1, cv2.LINE_AA)


def _canvas(picture: Any, side: int) -> UInt8:
    canvas = np.full((side, side, 3), 114, np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    return canvas


def _stack(rows: Sequence[UInt8]) -> UInt8:
    return np.concatenate(rows, 0)


def _pad_to(column: UInt8, height: int) -> UInt8:
    return np.pad(column, ((0, height - column.shape[0]), (0, 0), (0, 0)), constant_values=255)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('plots need matplotlib: pip install "edgepose[train]", or plots=false') from error
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, out: Path) -> None:
    write_whole(out, lambda file: figure.savefig(file, format="png", dpi=100))
