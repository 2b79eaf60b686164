"""Small datasets that the tests of the trainer make for themselves."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Scans and pictures are cached in a folder of the test run, not the user's."""
    monkeypatch.setenv("EDGEPOSE_CACHE", str(tmp_path_factory.getbasetemp() / "edgepose-cache"))


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """make_dataset({"a": [row, …], "b": None}) writes images/train/a.png, labels/train/a.txt …; None: no label file.

    A row is (class, cx, cy, w, h, x, y, v, …). Returns the dataset as a dict; K = 3 with points 0 and 1 mirrored.
    """

    def make(
        pictures: Mapping[str, Sequence[Sequence[float]] | None], split: str = "train", size: tuple[int, int] = (48, 64)
    ) -> dict[str, Any]:
        rng = np.random.default_rng(len(pictures))
        for name, rows in pictures.items():
            picture = tmp_path / "images" / split / f"{name}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(picture), rng.integers(0, 256, (*size, 3), dtype=np.uint8))
            if rows is not None:
                labels = tmp_path / "labels" / split / f"{name}.txt"
                labels.parent.mkdir(parents=True, exist_ok=True)
                labels.write_text("".join(" ".join(f"{v:g}" for v in row) + "\n" for row in rows))
        return {
            "path": str(tmp_path),
            split: f"images/{split}",
            "names": ["thing"],
            "kpt_shape": [3, 3],
            "flip_idx": [1, 0, 2],
        }

    return make


@pytest.fixture(scope="session")
def photos(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few real pictures with labels of each set: photos/coco/images/train/…"""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("coco", "lspet", "mpii"):
        with zipfile.ZipFile(shared_data / f"{name}.zip") as file:
            names = [n for n in file.namelist() if "/train/" in n or n.startswith("images/train/")]
            for image in [n for n in names if n.endswith(".jpg")][:12]:
                for member in (image, image.replace("images", "labels").replace(".jpg", ".txt")):
                    target = folder / name / Path(*Path(member).parts[-3:])
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(file.read(member))
    return folder


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Path:
    return shared / "data"
