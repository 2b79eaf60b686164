"""The Python on the pages that a user reads runs: each page from top to bottom, in one namespace, in a fresh folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepose.shipped import MODEL

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: str) -> list[str]:
    return re.findall(r"^ *```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def write_clip(path: str, picture: Path) -> None:
    """Three frames of a picture."""
    cv2 = pytest.importorskip("cv2")
    frame = cv2.imread(str(picture))
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"mp4v"), 10, frame.shape[1::-1])
    for _ in range(3):
        writer.write(frame)
    writer.release()


def model_and_photo(shared: Path) -> None:
    pytest.importorskip("onnxruntime")
    shutil.copy(shared / "data/bus.jpg", "photo.jpg")
    shutil.copy(shared / "models/yolov8n-pose_320.onnx", "pose.onnx")


def default_model_and_photo(shared: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    if not MODEL.is_file():
        pytest.skip("the default model is not made yet: edgepose/assets/person.tflite")
    shutil.copy(shared / "data/bus.jpg", "photo.jpg")


def with_clip(shared: Path) -> None:
    model_and_photo(shared)
    write_clip("clip.mp4", shared / "data/bus.jpg")


def with_tflite(shared: Path) -> None:
    model_and_photo(shared)
    pytest.importorskip("ai_edge_litert")
    shutil.copy(shared / "models/movenet_single_pose_lightning_ptq.tflite", "pose_int8.tflite")


def data_set(shared: Path) -> None:
    """my.yaml: one labelled picture, two keypoints."""
    for kind in ("images", "labels"):
        Path(kind, "train").mkdir(parents=True)
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save("images/train/a.png")
    Path("labels/train/a.txt").write_text("0 0.5 0.5 0.4 0.4 0.4 0.4 2 0.6 0.6 2\n")
    Path("my.yaml").write_text("path: .\ntrain: images/train\nval: images/train\nnames: [hand]\nkpt_shape: [2, 3]\n")


# What a page's examples find in the working folder.
FILES: dict[str, Callable[[Path], None]] = {
    "README.md": default_model_and_photo,
    "docs/results.md": with_clip,
    "docs/data.md": data_set,
}
SLOW = {"docs/benchmark.md": with_tflite}
ELSEWHERE = {"docs/train.md", "docs/export.md"}  # tests/trainer/test_docs_train.py, tests/export/test_onnx.py
NEED_HARDWARE = {"docs/boards/coral.md", "docs/boards/raspberry-pi.md"}


def run_page(page: str) -> None:
    names: dict[str, object] = {}
    for number, block in enumerate(blocks(page)):
        exec(compile(block, f"{page}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", FILES)
def test_the_examples_of_a_page_run(page: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    FILES[page](shared)
    run_page(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW)
def test_the_slow_examples_of_a_page_run(
    page: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    SLOW[page](shared)
    run_page(page)


@pytest.mark.parametrize("page", sorted(NEED_HARDWARE))
def test_the_examples_that_need_hardware_are_python(page: str) -> None:
    for block in blocks(page):
        compile(block, page, "exec")


def test_no_page_with_examples_is_left_out() -> None:
    pages = {page.relative_to(ROOT).as_posix() for page in PAGES if blocks(page.relative_to(ROOT).as_posix())}
    assert pages == {*FILES, *SLOW, *ELSEWHERE, *NEED_HARDWARE}
