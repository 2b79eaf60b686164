"""What making training batches costs, against decoding alone, and against the budget of the training loop."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

import cv2
import numpy as np
import pytest
from claims import at_most
from edgepose_trainer.data import AugmentConfig, BatchKey, PoseDataset, build_dataset, load_data_config

SIZE, COUNT = 256, 64
# The network alone takes 22 ms a picture on two cores (45 images/s), so data may take 4 ms of one before it shows.
BUDGET_MS = 4.0


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("EDGEPOSE_CACHE", str(tmp_path / "cache"))
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    yield
    cv2.setNumThreads(before)


@pytest.fixture
def dataset(shared: Path, tmp_path: Path) -> PoseDataset:
    """Real photos with several people, with the default augmentation but no camera effects."""
    with zipfile.ZipFile(shared / "data" / "coco.zip") as file:
        pictures = [n for n in file.namelist() if n.startswith("images/train/") and n.endswith(".jpg")][:COUNT]
        file.extractall(tmp_path, pictures)
        file.extractall(tmp_path, [n.replace("images", "labels").replace(".jpg", ".txt") for n in pictures])
    data = {"path": str(tmp_path), "train": "images/train", "names": ["person"], "kpt_shape": [17, 3]}
    config = load_data_config({**data, "flip_idx": [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]})
    plain = AugmentConfig(blur=0, jpeg=0, noise=0, occlusion=0)
    return build_dataset(config, "train", SIZE, plain)


@pytest.mark.benchmark
def test_a_batch_costs_little_more_than_decoding_its_pictures(dataset: PoseDataset, side_by_side: Any) -> None:
    """Mosaic, affine, HSV and labels of a sample against decoding the four pictures of a mosaic and nothing else."""
    keys = [BatchKey(tuple(range(i, i + 16)), (SIZE, SIZE), epoch=1) for i in range(0, COUNT, 16)]
    batch = dataset[keys[0]]
    assert batch["images"].shape == (16, 3, SIZE, SIZE)
    assert len(batch["cls"]) > 16
    rng = np.random.default_rng(0)

    def ours() -> None:
        for key in keys:
            dataset[key]

    def decoding() -> None:
        for index in rng.integers(0, COUNT, 4 * COUNT).tolist():
            cv2.imread(dataset.paths[index])

    assert side_by_side(ours, decoding, rounds=8) > 0.25
    start = process_time()
    ours()
    assert (process_time() - start) / COUNT * 1e3 < at_most(BUDGET_MS)
