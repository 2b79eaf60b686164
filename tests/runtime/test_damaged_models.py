"""Damaged models of each format, 200 each: a clear exception or an ordinary answer, never a dead process.

The models are opened in one child process, which is what would die; each mutation is written, opened and run.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Make = Callable[..., Path]

MUTATIONS = 200

# Opens argv[1] (and runs it) each time a line arrives; answers "ran" or the exception's type and message.
WORKER = """
import sys, warnings
from edgepose.artifact import open_artifact
for _ in sys.stdin:
    try:
        artifact = open_artifact(sys.argv[1], threads=1)
        buffer = artifact.backend.input_buffer(tuple(side or 32 for side in artifact.backend.inputs[0].shape))
        buffer[...] = 0
        for output in artifact.backend.infer():
            output.sum()
        artifact.close()
        print("ran", flush=True)
    except Exception as error:
        print(type(error).__name__ + ": " + " ".join(str(error).split()), flush=True)
"""


class Worker:
    """The child process that opens whatever lies at the path."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-W", "ignore", "-c", WORKER, str(path)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def open(self) -> str:
        """What opening the model came to; an empty string where the process died of it."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        self._process.communicate()


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Bits flipped, an end cut off, a stretch made garbage or taken out: anywhere, at the start or at the end."""
    damaged = bytearray(content)
    size = len(damaged)
    window = chance.choice([(0, size), (0, min(size, 50_000)), (max(0, size - 50_000), size)])
    at = chance.randrange(*window)
    kind = chance.randrange(4)
    if kind == 0:
        for _ in range(chance.choice([1, 8, 64])):
            damaged[chance.randrange(*window)] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del damaged[at:]
    elif kind == 2:
        length = chance.randrange(1, 2000)
        damaged[at : at + length] = chance.randbytes(min(length, size - at))
    else:
        del damaged[at : at + chance.randrange(1, 64)]
    return bytes(damaged)


def assert_survives(opened: Path, damaged: Path, mutations: int) -> None:
    content = damaged.read_bytes()
    chance = random.Random(f"{damaged.name} {mutations}")
    worker = Worker(opened)
    for i in range(mutations):
        damaged.write_bytes(mutate(content, chance))
        answer = worker.open()
        assert answer, f"mutation {i} of {damaged.name} ended the process"
        kind, _, message = answer.partition(": ")
        assert kind in ("ran", "ValueError", "RuntimeError"), f"mutation {i} of {damaged.name}: {answer}"
        assert kind == "ran" or str(opened.stem) in message or kind == "RuntimeError", answer
    damaged.write_bytes(content)
    assert worker.open() == "ran"
    worker.close()


@pytest.fixture
def real_onnx(shared: Path, tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    return Path(shutil.copy(shared / "models/yolov8n-pose_320.onnx", tmp_path / "model.onnx"))


@pytest.fixture
def real_openvino(shared: Path, tmp_path: Path) -> Path:
    pytest.importorskip("openvino")
    folder = tmp_path / "model"
    shutil.copytree(shared / "models/yolov8n-pose_int8_openvino_model", folder)
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


@pytest.fixture
def real_tflite(movenet: Path, tmp_path: Path) -> Path:
    path = tmp_path / "model.tflite"
    path.write_bytes(movenet.read_bytes())
    return path


def test_ten_damaged_onnx_models(real_onnx: Path) -> None:
    real_onnx.chmod(0o644)
    assert_survives(real_onnx, real_onnx, 10)


def test_ten_damaged_openvino_topologies(real_openvino: Path) -> None:
    assert_survives(real_openvino, real_openvino / "yolov8n-pose.xml", 10)


def test_two_damaged_openvino_weights(real_openvino: Path) -> None:
    assert_survives(real_openvino, real_openvino / "yolov8n-pose.bin", 2)


def test_five_damaged_tflite_models(real_tflite: Path) -> None:
    assert_survives(real_tflite, real_tflite, 5)


@pytest.mark.slow
def test_200_damaged_onnx_models(real_onnx: Path) -> None:
    real_onnx.chmod(0o644)
    assert_survives(real_onnx, real_onnx, MUTATIONS)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["xml", "bin"])
def test_200_damaged_openvino_models(real_openvino: Path, part: str) -> None:
    assert_survives(real_openvino, real_openvino / f"yolov8n-pose.{part}", MUTATIONS)


@pytest.mark.slow
def test_200_damaged_tflite_models(real_tflite: Path) -> None:
    assert_survives(real_tflite, real_tflite, MUTATIONS)
