"""Training really learns: slow runs on real pictures."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgepose_trainer.config import load_config
from edgepose_trainer.train import train

from edgepose import coco

pytestmark = pytest.mark.slow

NO_AUGMENTATION = dict.fromkeys(
    (
        "mosaic",
        "translate",
        "scale",
        "aspect",
        "hsv_h",
        "hsv_s",
        "hsv_v",
        "fliplr",
        "blur",
        "jpeg",
        "noise",
        "occlusion",
    ),
    0.0,
)
QUIET: dict[str, Any] = {"device": "cpu", "verbose": False, "plots": False, "save_minutes": 0.0, "patience": 0}


def unpack(archive: Path, folder: Path, split: str, count: int, wanted: Callable[[str], bool] = bool) -> None:
    """The first pictures of a split of coco.zip whose label text is `wanted`, with their labels."""
    with zipfile.ZipFile(archive) as file:
        labels = sorted(n for n in file.namelist() if f"/{split}/" in n and n.endswith(".txt"))
        kept = [name for name in labels if wanted(file.read(name).decode())][:count]
        for name in [n for label in kept for n in (label, label.replace("labels", "images").replace(".txt", ".jpg"))]:
            target = folder / Path(*Path(name).parts[-3:])
            target.parent.mkdir(parents=True, exist_ok=True)
            with file.open(name) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy)


def shows_one_large_person(text: str) -> bool:
    """On a sixth of the picture or more, with ten labelled points or more."""
    rows = [[float(v) for v in line.split()] for line in text.splitlines()]
    return len(rows) == 1 and rows[0][3] * rows[0][4] >= 1 / 6 and sum(v > 0 for v in rows[0][7::3]) >= 10


def write_yaml(folder: Path, **document: Any) -> Path:
    path = folder / "data.yaml"
    path.write_text(json.dumps({"path": str(folder), "names": ["person"], **document}))
    return path


def test_sixteen_pictures_are_learned_by_heart(shared_data: Path, tmp_path: Path) -> None:
    """From scratch, without augmentation, to an OKS AP of 0.9 on the very same pictures."""
    unpack(shared_data / "coco.zip", tmp_path, "train", 16, shows_one_large_person)
    data = write_yaml(tmp_path, train="images/train", val="images/train", kpt_shape=[17, 3], flip_idx=coco.FLIP)
    config = load_config(
        None,
        QUIET | NO_AUGMENTATION | {
            "data": str(data), "project": str(tmp_path), "imgsz": 160, "batch": 16, "nbs": 16, "epochs": 700,
            "val_period": 100, "workers": 0, "cache": "ram", "optimizer": "AdamW", "lr0": 0.004, "lrf": 0.01,
            "cos_lr": True, "warmup_epochs": 10.0, "weight_decay": 0.0, "ema_decay": 0.99, "ema_tau": 100.0,
            "pose": 24.0,
        },
    )  # fmt: skip
    metrics = train(config).metrics
    assert metrics is not None
    assert metrics.pose.map >= 0.9


def keep_shoulders_and_hips(folder: Path) -> None:
    for path in (folder / "labels").rglob("*.txt"):
        rows = [line.split() for line in path.read_text().splitlines()]
        kept = [[*row[:5], *(v for k in (5, 6, 11, 12) for v in row[5 + 3 * k : 8 + 3 * k])] for row in rows]
        path.write_text("\n".join(" ".join(row) for row in kept) + "\n")


def test_a_trained_network_learns_four_other_keypoints_in_minutes(shared: Path, tmp_path: Path) -> None:
    """A checkpoint of 17 keypoints, trained on shoulders and hips alone, on 600 pictures."""
    unpack(shared / "data" / "coco.zip", tmp_path, "train", 600)
    unpack(shared / "data" / "coco.zip", tmp_path, "val", 280)
    keep_shoulders_and_hips(tmp_path)
    data = write_yaml(
        tmp_path, train="images/train", val="images/val", kpt_shape=[4, 3], flip_idx=[1, 0, 3, 2],
        keypoint_names=["left_shoulder", "right_shoulder", "left_hip", "right_hip"],
        sigmas=[0.079, 0.079, 0.107, 0.107],
    )  # fmt: skip
    config = load_config(
        None,
        QUIET | {
            "data": str(data), "project": str(tmp_path), "model": str(shared / "models" / "yolov8n-pose.pt"),
            "imgsz": 256, "batch": 16, "nbs": 16, "epochs": 20, "mosaic": 0.0, "scale": 0.3, "optimizer": "AdamW",
            "lr0": 0.002, "warmup_epochs": 1.0, "ema_decay": 0.99, "ema_tau": 50.0, "val_period": 5,
        },
    )  # fmt: skip
    metrics = train(config).metrics
    assert metrics is not None
    assert metrics.pose.map >= 0.18
