"""docs/train.md does what it says, on a small set, from end to end."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgepose.cli import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.DOTALL)

# What makes the page's commands small enough for a test.
SMALL = {
    "yolov8n-pose.yaml": "yolov8p-pose.yaml",
    "epochs=100": "epochs=1",
    "epochs=2": "epochs=1",
    "imgsz=320": "imgsz=64",
}


def loaded(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_page_from_top_to_bottom(drawn_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(drawn_data, "my.yaml")
    shutil.copy(next((drawn_data.parent / "images" / "val").glob("*.png")), "photo.jpg")
    names: dict[str, Any] = {}
    for language, text in BLOCKS:
        for long, short in SMALL.items():
            text = text.replace(long, short)
        if language == "python":
            exec(text, names)
        else:
            for line in text.splitlines():
                assert main(line.split()[1:]) == 0, line
    assert Path("runs/pose/train/weights/best.pt").is_file()
    assert Path("runs/check/report.json").is_file()


def test_the_example_validator_draws_at_its_interval(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    from edgepose_trainer.config import load_config
    from edgepose_trainer.train import train

    example = loaded(ROOT / "examples" / "side_by_side.py")
    watcher = example.SideBySide(tmp_path / "drawn", every=2, count=3)
    train(load_config(None, tiny_settings | {"project": str(tmp_path)}), validators=[watcher])
    drawn = {path.parent.name for path in (tmp_path / "drawn").glob("*/*.jpg")}
    assert drawn == {"epoch2", "end"}
    assert len(list((tmp_path / "drawn" / "epoch2").iterdir())) == 3


def test_the_settings_tables_are_those_of_the_yaml() -> None:
    tables = loaded(ROOT / "docs" / "settings_tables.py")
    assert tables.with_tables(PAGE) == PAGE, f"run: {Path(sys.executable).name} docs/settings_tables.py"
