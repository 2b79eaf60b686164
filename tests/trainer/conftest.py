"""Small datasets that the tests of the trainer make for themselves."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Scans and pictures are cached in a folder of the test run, not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPOSE_CACHE", str(tmp_path_factory.getbasetemp() / "edgepose-cache"))
        yield


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Networks this small gain nothing from more, and test runs side by side do not hold each other up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


COLOURS = ((255, 60, 60), (60, 255, 60), (60, 60, 255), (255, 255, 60))


def draw_person(rng: np.random.Generator, picture: Any) -> str:
    """A body with four coloured corners; its label line: box, left and right shoulder, left and right hip."""
    height, width = picture.shape[:2]
    w, h = rng.uniform(0.3, 0.5) * width, rng.uniform(0.4, 0.7) * height
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    cv2.rectangle(picture, (int(x), int(y)), (int(x + w), int(y + h)), (40, 40, 40), -1)
    inner = [(0.85, 0.15), (0.15, 0.15), (0.85, 0.85), (0.15, 0.85)]
    points = [(x + fx * w, y + fy * h) for fx, fy in inner]
    for point, colour in zip(points, COLOURS, strict=True):
        cv2.circle(picture, (int(point[0]), int(point[1])), 4, colour, -1)
    numbers = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
    for px, py in points:
        numbers += [px / width, py / height, 2]
    return "0 " + " ".join(f"{v:.6f}" for v in numbers)


def write_split(root: Path, split: str, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for folder in ("images", "labels"):
        (root / folder / split).mkdir(parents=True)
    for number in range(count):
        picture = np.full((72, 96, 3), rng.integers(120, 256, 3), np.uint8)
        lines = [draw_person(rng, picture) for _ in range(int(rng.integers(1, 3)))]
        cv2.imwrite(str(root / "images" / split / f"{number:03d}.png"), picture)
        (root / "labels" / split / f"{number:03d}.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def make_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make_data(train=12, val=4)` draws a data set and gives its YAML."""

    def make(train: int = 12, val: int = 4, seed: int = 0) -> Path:
        root = tmp_path_factory.mktemp("drawn")
        write_split(root, "train", train, seed)
        write_split(root, "val", val, seed + 1)
        document = (
            f"path: {root}\ntrain: images/train\nval: images/val\nnames: {{0: person}}\nkpt_shape: [4, 3]\n"
            "flip_idx: [1, 0, 3, 2]\nkeypoint_names: [left_shoulder, right_shoulder, left_hip, right_hip]\n"
            "skeleton: [[0, 1], [2, 3], [0, 2], [1, 3]]\n"
        )
        (root / "data.yaml").write_text(document)
        return root / "data.yaml"

    return make


@pytest.fixture(scope="session")
def drawn_data(make_data: Callable[..., Path]) -> Path:
    """The YAML of 12 + 4 drawn pictures."""
    return make_data()


@pytest.fixture(scope="session")
def tiny_settings(drawn_data: Path) -> dict[str, Any]:
    """Settings of a run that takes seconds: the narrowest network, 64 pixels, one thread."""
    return {
        "model": "yolov8p-pose.yaml", "data": str(drawn_data), "epochs": 3, "imgsz": 64, "batch": 4, "nbs": 8,
        "workers": 0, "threads": 1, "plots": False, "verbose": False, "device": "cpu", "warmup_epochs": 1.0,
        "close_mosaic": 1,
    }  # fmt: skip
