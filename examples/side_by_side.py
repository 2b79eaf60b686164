"""A validator of your own: every few epochs, labelled people left, predicted people right, in one file a picture.

python examples/side_by_side.py my.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
from edgepose_trainer.metrics import Found, Metrics, Truth
from edgepose_trainer.plots import side_by_side
from edgepose_trainer.validate import Validator

from edgepose import PoseModel


class SideBySide(Validator):
    """Saves the first `count` validation pictures after every `every`-th epoch (and outside of training)."""

    def __init__(self, folder: str | Path, every: int = 5, count: int = 4) -> None:
        self.folder, self.every, self.count = Path(folder), every, count
        self.drawn: list[tuple[str, object]] = []

    def wants(self, epoch: int | None) -> bool:
        return epoch is None or epoch % self.every == 0

    def on_batch(self, paths: Sequence[str], found: Sequence[Found], truth: Sequence[Truth]) -> None:
        for path, one, labels in zip(paths, found, truth, strict=True):
            if len(self.drawn) < self.count:
                self.drawn.append((Path(path).stem, side_by_side(path, one, labels)))

    def on_end(self, metrics: Metrics, epoch: int | None) -> None:
        folder = self.folder / ("end" if epoch is None else f"epoch{epoch}")
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in self.drawn:
            cv2.imwrite(str(folder / f"{name}.jpg"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        print(f"AP {metrics.pose.map:.3f}: {len(self.drawn)} pictures in {folder}")
        self.drawn.clear()


if __name__ == "__main__":
    model = PoseModel("yolov8n-pose.yaml")
    model.train(data=sys.argv[1], epochs=30, imgsz=320, validators=[SideBySide("runs/side_by_side")])
