"""The project's validation against the known answer and the plain tool beside the models."""

from __future__ import annotations

import importlib.util
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepose_trainer.checkpoint import load_checkpoint

from edgepose import PoseModel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def val_pictures(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco_val")
    with zipfile.ZipFile(shared / "data" / "coco.zip") as file:
        file.extractall(folder, [name for name in file.namelist() if "/val/" in name])
    return folder


def tool_answer(shared: Path, size: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> float:
    """AP by tools/eval_ap.py, whose own letterbox, decoder and evaluation run the network here."""
    specification = importlib.util.spec_from_file_location("eval_ap", shared / "tools" / "eval_ap.py")
    assert specification is not None
    assert specification.loader is not None
    tool: Any = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(tool)
    network = load_checkpoint(shared / "models" / "yolov8n-pose.pt").model.folded()

    def predictor(model: str, size: int) -> Callable[..., Any]:
        @torch.inference_mode()
        def predict(image: Any, conf: float = 0.001) -> Any:
            x, ratio, left, top = tool.letterbox(image, size)
            decoded: Any = network.decode(network.raw(torch.from_numpy(x)))
            return tool.decode(decoded.numpy(), ratio, left, top, conf)

        return predict

    tool.ref = predictor
    monkeypatch.setattr(sys, "argv", ["eval_ap", str(shared / "data" / "coco.zip"), "ref", "-", str(size), "val"])
    tool.main()
    found = re.search(r"AP=([0-9.]+)", capsys.readouterr().out)
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize(("size", "known"), [(320, 0.349), (640, 0.433)])
def test_validation_gives_the_known_accuracy_and_the_tools(
    shared: Path,
    val_pictures: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    known: float,
) -> None:
    data = {
        "path": str(val_pictures),
        "train": "images/val",
        "val": "images/val",
        "names": ["person"],
        "kpt_shape": [17, 3],
    }
    model = PoseModel(shared / "models" / "yolov8n-pose.pt")
    ours = model.val(data=data, imgsz=size, workers=0, device="cpu", amp=False).pose.map
    assert ours == pytest.approx(known, abs=0.003)
    # As training measures: eight bits of mantissa moved it by 0.001.
    assert model.val(data=data, imgsz=size, workers=0, device="cpu").pose.map == pytest.approx(known, abs=0.003)
    assert ours == pytest.approx(tool_answer(shared, size, capsys, monkeypatch), abs=0.001)
