"""On real pictures: float exports keep the checkpoint's AP, int8 ones nearly; other programs read ours."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgepose_trainer.checkpoint import Checkpoint, save_checkpoint
from edgepose_trainer.model import PoseModel
from edgepose_trainer.nn import build_model
from exporting import assert_same_people, excited, people_of_artifact, people_of_checkpoint

from edgepose import PoseRunner

pytestmark = pytest.mark.slow

TRAINING_PICTURES = 200
VAL_PICTURES = 280
FEW = 70  # enough where nothing is rounded
CHECKPOINT_AP = 0.349
PEER = """
import json, sys
from ultralytics import YOLO
found = YOLO(sys.argv[1], task="pose")(sys.argv[2], imgsz=320, verbose=False)[0]
print(json.dumps([found.boxes.conf.tolist(), found.keypoints.xy.tolist()]))
"""


@pytest.fixture(scope="session")
def coco(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The YAMLs of all and of few validation pictures, and some of the training pictures."""
    root = tmp_path_factory.mktemp("coco")
    with zipfile.ZipFile(shared / "data" / "coco.zip") as archive:
        train = sorted(name for name in archive.namelist() if name.startswith("images/train/") and name[-1] != "/")
        step = len(train) // TRAINING_PICTURES
        val = [name for name in archive.namelist() if "/val/" in name and name[-1] != "/"]
        archive.extractall(root, [*train[::step], *val])
    few = sorted((root / "images" / "val").iterdir())[:: VAL_PICTURES // FEW]
    (root / "few.txt").write_text("".join(f"{path}\n" for path in few))
    found = {}
    for pictures, val in ((VAL_PICTURES, "images/val"), (FEW, "few.txt")):
        found[pictures] = root / f"coco{pictures}.yaml"
        text = f"path: {root}\ntrain: images/train\nval: {val}\nnames: {{0: person}}\nkpt_shape: [17, 3]\n"
        found[pictures].write_text(text)
    return found


@pytest.mark.parametrize(
    ("format", "arguments", "pictures", "loss"),
    [
        ("torchscript", {}, FEW, 0.001),
        ("onnx", {}, FEW, 0.001),
        ("onnx", {"half": True}, FEW, 0.001),
        ("onnx", {"int8": True}, VAL_PICTURES, 0.010),
        ("openvino", {}, FEW, 0.001),
        ("openvino", {"half": True}, FEW, 0.001),
        ("openvino", {"int8": True}, VAL_PICTURES, 0.010),
        ("tflite", {}, FEW, 0.001),
        ("tflite", {"half": True}, FEW, 0.001),
        ("tflite", {"int8": "dynamic"}, FEW, 0.010),
        ("tflite", {"int8": True}, VAL_PICTURES, 0.010),
    ],
)
def test_ap_on_real_pictures(
    format: str,
    arguments: dict[str, Any],
    pictures: int,
    loss: float,
    shared: Path,
    coco: dict[int, Path],
    tmp_path: Path,
    needs: Callable[[str], None],
) -> None:
    if format != "torchscript":
        needs(format)
    if arguments.get("int8") is True and format != "tflite":
        needs("nncf")
    model = PoseModel(shared / "models" / "yolov8n-pose.pt")
    path = model.export(format, imgsz=320, data=coco[pictures], out=tmp_path, **arguments)
    parity = PoseModel(path).runner().spec.origin["parity"]
    assert parity["pictures"] == pictures
    assert parity["ap"] >= parity["reference_ap"] - loss
    if pictures == VAL_PICTURES:
        assert parity["reference_ap"] == pytest.approx(CHECKPOINT_AP, abs=5e-4)


def test_val_gives_the_ap_that_the_gate_measured(
    shared: Path, coco: dict[int, Path], tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("onnx")
    path = PoseModel(shared / "models" / "yolov8n-pose.pt").export("onnx", imgsz=320, data=coco[FEW], out=tmp_path)
    parity = PoseModel(path).runner().spec.origin["parity"]
    assert PoseModel(path).val(data=coco[FEW], conf=0.001).pose.map == pytest.approx(parity["ap"], abs=1e-3)


def test_int8_tflite_predicts_faster_than_float(
    shared: Path, coco: dict[int, Path], tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("tflite")
    model = PoseModel(shared / "models" / "yolov8n-pose.pt")
    options: dict[str, Any] = {"imgsz": 320, "data": coco[FEW], "out": tmp_path, "verify": False}
    exports = [model.export("tflite", **options), model.export("tflite", int8=True, **options)]
    runners = [PoseRunner(path, threads=1) for path in exports]
    picture = np.full((480, 640, 3), 127, np.uint8)
    times: list[list[float]] = [[], []]
    for runner in runners:
        runner.warmup(3)
    for _ in range(50):
        for runner, kept in zip(runners, times, strict=True):
            kept.append(runner.predict(picture).speed.total)
    assert min(times[0]) >= 2.5 * min(times[1])


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_the_peer_itself_finds_the_same_people_with_our_decoded_tensor(
    format: str, shared: Path, tmp_path: Path, needs: Callable[[str], None]
) -> None:
    peer = os.environ.get("EDGEPOSE_PEER")
    if not peer:
        pytest.skip("needs EDGEPOSE_PEER, the folder of an environment that holds the peer")
    needs(format)
    path = PoseModel(shared / "models" / "yolov8n-pose.pt").export(
        format, imgsz=320, layout="ultralytics", out=tmp_path
    )
    command = f'. "{peer}/peer.env" && "{peer}/bin/python" -c "$0" "$1" "$2"'
    photo = shared / "data" / "bus.jpg"
    run = subprocess.run(["sh", "-c", command, PEER, path, photo], capture_output=True, text=True, check=True)
    scores, keypoints = json.loads(run.stdout.strip().splitlines()[-1])
    expected = PoseRunner(path, clip=False).predict(photo)
    # The peer lets OpenVINO compute in bfloat16.
    pixels, score = (0.5, 1e-3) if format == "onnx" else (12.0, 0.03)
    np.testing.assert_allclose(scores, expected.scores, atol=score)
    np.testing.assert_allclose(keypoints, expected.keypoints, atol=pixels)


@pytest.mark.parametrize("format", ["onnx", "openvino", "tflite"])
def test_four_levels_export_too(format: str, tmp_path: Path, pictures: list[Any], needs: Callable[[str], None]) -> None:
    needs(format)
    torch.manual_seed(4)
    network = excited(build_model("yolov8-p6-pose.yaml", scale=[0.33, 0.125, 1024]), (128, 128))
    save_checkpoint(tmp_path / "p6.pt", Checkpoint(network.eval()))
    path = PoseModel(tmp_path / "p6.pt").export(format, imgsz=(128, 192))
    options = {"precision": "f32"} if format == "openvino" else {}
    expected = people_of_checkpoint(tmp_path / "p6.pt", pictures, (128, 192))
    assert_same_people(people_of_artifact(path, pictures, **options), expected, 0.02, 2e-4)
