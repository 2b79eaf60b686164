"""The whole of predict against the bare runtime call on a ready tensor: what edgepose costs on top of the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from claims import at_most
from PIL import Image

from edgepose import PoseRunner

pytestmark = pytest.mark.benchmark


@pytest.fixture
def bus(shared: Path) -> np.ndarray:
    """810x1080, BGR."""
    return np.asarray(Image.open(shared / "data/bus.jpg"))[..., ::-1].copy()


def test_openvino_int8_at_640(shared: Path, bus: np.ndarray, side_by_side: Callable[..., float]) -> None:
    openvino = pytest.importorskip("openvino")
    model = shared / "models/yolov8n-pose_int8_openvino_model"
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(model / "yolov8n-pose.xml", "CPU", config)
    request = compiled.create_infer_request()
    tensor = request.get_input_tensor()
    tensor.data[:] = 0.5
    with PoseRunner(model, precision="f32", threads=1) as runner:
        assert len(runner.predict(bus)) == 4
        ratio = side_by_side(lambda: runner.predict(bus), request.infer, rounds=60)
    assert 1 / ratio <= at_most(1.06)


def test_onnx_at_320(shared: Path, bus: np.ndarray, side_by_side: Callable[..., float]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = shared / "models/yolov8n-pose_320.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {"images": np.full((1, 3, 320, 320), 0.5, np.float32)}
    with PoseRunner(model, backend="onnxruntime", threads=1) as runner:
        assert len(runner.predict(bus)) >= 3
        ratio = side_by_side(lambda: runner.predict(bus), lambda: session.run(None, feed), rounds=100)
    assert 1 / ratio <= at_most(1.04)


def test_movenet(shared: Path, side_by_side: Callable[..., float]) -> None:
    litert: Any = pytest.importorskip("ai_edge_litert.interpreter")
    model = shared / "models/movenet_single_pose_lightning_ptq.tflite"
    picture = np.asarray(Image.open(shared / "data/squat.bmp").convert("RGB"))[..., ::-1].copy()
    interpreter = litert.Interpreter(str(model), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.full((1, 192, 192, 3), 100, np.uint8))
    with PoseRunner(model, threads=1) as runner:
        assert runner.predict(picture).scores[0] > 0.3
        ratio = side_by_side(lambda: runner.predict(picture), interpreter.invoke, rounds=200)
    assert 1 / ratio <= at_most(1.08)
