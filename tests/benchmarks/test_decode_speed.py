"""Decoding and NMS of a real network's tensor against vectorised numpy, the peer, and the bytes that must be read."""

from __future__ import annotations

import io
import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from claims import at_least
from PIL import Image
from references import decode as slow

from edgepose import _core

pytestmark = pytest.mark.benchmark

Detections = tuple[np.ndarray, ...]
IOU, MAX_DET = 0.7, 300
CROWD = "images/val/coco_000000014807.jpg"


class Picture:
    """What the network answers on one picture, and the way back to its pixels."""

    def __init__(self, pixels: np.ndarray, request: Any) -> None:
        self.size = pixels.shape[1::-1]
        self.transform = _core.Letterbox()(pixels, request.get_input_tensor().data)
        request.infer()
        self.output = request.get_output_tensor(0).data.copy()


@pytest.fixture(scope="module")
def pictures(shared: Path) -> dict[str, Picture]:
    openvino = pytest.importorskip("openvino")
    model = shared / "models/yolov8n-pose_int8_openvino_model/yolov8n-pose.xml"
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(model, "CPU", config).create_infer_request()
    with zipfile.ZipFile(shared / "data/coco.zip") as archive:
        crowd = Image.open(io.BytesIO(archive.read(next(n for n in archive.namelist() if n.endswith(CROWD)))))
    opened = {"bus": Image.open(shared / "data/bus.jpg"), "crowd": crowd}
    return {name: Picture(np.asarray(image)[..., ::-1], request) for name, image in opened.items()}


def numpy_chain(output: np.ndarray, transform: tuple[float, ...], size: tuple[int, int], conf: float) -> Detections:
    """The decoding that a careful numpy user writes: threshold first, greedy NMS on what is left, keypoints last."""
    attributes = output[0]
    scores = attributes[4]
    index = np.flatnonzero(scores > conf)
    index = index[np.argsort(-scores[index], kind="stable")]
    cx, cy, width, height = attributes[:4, index]
    x1, y1, x2, y2 = cx - width * 0.5, cy - height * 0.5, cx + width * 0.5, cy + height * 0.5
    areas = (x2 - x1) * (y2 - y1)
    kept = []
    rest = np.arange(len(index))
    while len(rest) and len(kept) < MAX_DET:
        best, rest = rest[0], rest[1:]
        kept.append(best)
        across = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest])
        down = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest])
        inter = np.maximum(across, 0) * np.maximum(down, 0)
        rest = rest[inter <= IOU * (areas[best] + areas[rest] - inter)]
    scale, pad = np.array(transform[:2], np.float32), np.array(transform[2:], np.float32)
    corners = np.stack([x1[kept], y1[kept], x2[kept], y2[kept]], 1).reshape(-1, 2, 2)
    boxes = np.clip((corners - pad) / scale, 0, size).reshape(-1, 4)
    poses = attributes[5:, index[kept]].T.reshape(-1, 17, 3)
    points = np.clip((poses[..., :2] - pad) / scale, 0, size)
    return boxes, scores[index[kept]], np.zeros(len(kept), np.int32), points, poses[..., 2]


def decoder(conf: float, **options: Any) -> _core.YoloDecoder:
    return _core.YoloDecoder(num_classes=1, kpt_shape=(17, 3), conf=conf, iou=IOU, max_det=MAX_DET, **options)


def assert_same(ours: Detections, theirs: Detections, places: float = 1e-3) -> None:
    assert len(ours[0]) == len(theirs[0]) > 2
    for part, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(part, other, rtol=0, atol=places)


@pytest.mark.parametrize("name", ["bus", "crowd"])
@pytest.mark.parametrize(("conf", "target"), [(0.25, 25), (0.001, 40)])
def test_decoded_tensor_against_numpy(
    name: str, conf: float, target: float, pictures: dict[str, Picture], side_by_side: Callable[..., float]
) -> None:
    picture = pictures[name]
    decode, outputs = decoder(conf), [picture.output]
    theirs = numpy_chain(picture.output, picture.transform, picture.size, conf)
    assert_same(decode(outputs, picture.transform, picture.size), theirs)
    ratio = side_by_side(
        lambda: decode(outputs, picture.transform, picture.size),
        lambda: numpy_chain(picture.output, picture.transform, picture.size, conf),
        rounds=400,
    )
    assert ratio >= at_least(target)


PEER = """
import json, sys, time
import numpy as np, torch
from ultralytics.utils import nms, ops
torch.set_num_threads(1)
path, conf, iou, max_det = sys.argv[1], *map(float, sys.argv[2:])
saved = np.load(path)
size = tuple(int(side) for side in saved["size"][::-1])

def once():
    output = torch.from_numpy(saved_output)
    found = nms.non_max_suppression(output.clone(), conf, iou, nc=1, max_det=int(max_det))[0]
    boxes = ops.scale_boxes((640, 640), found[:, :4], size)
    points = ops.scale_coords((640, 640), found[:, 6:].view(-1, 17, 3), size)
    return boxes, found[:, 4], points

saved_output = saved["output"]
def copy():
    torch.from_numpy(saved_output).clone()

def least(call):
    seconds = []
    for _ in range(60):
        start = time.perf_counter(); call(); seconds.append(time.perf_counter() - start)
    return min(seconds)

# The peer's NMS writes into its input: it gets a fresh copy each time, whose cost is taken off again.
boxes, scores, points = once()
print(json.dumps([least(once) - least(copy), boxes.tolist(), scores.tolist(), points.tolist()]))
"""


def run_peer(picture: Picture, conf: float, folder: Path) -> tuple[float, Detections]:
    """Seconds that the peer takes on the same tensor, and what it finds."""
    peer = os.environ.get("EDGEPOSE_PEER")
    if peer is None:
        pytest.skip("needs EDGEPOSE_PEER, the folder of an environment that holds the peer")
    np.savez(folder / "output.npz", output=picture.output, size=picture.size)
    environment = {"PYTHONPATH": f"{peer}/stub", "YOLO_CONFIG_DIR": peer, "YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0"}
    command = [f"{peer}/bin/python", "-c", PEER, str(folder / "output.npz"), str(conf), str(IOU), str(MAX_DET)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    seconds, *found = json.loads(done.stdout.splitlines()[-1])
    return seconds, tuple(np.array(part, np.float32) for part in found)


def least_seconds(call: Callable[[], Any], rounds: int = 500) -> float:
    def seconds() -> float:
        start = perf_counter()
        call()
        return perf_counter() - start

    return min(seconds() for _ in range(rounds))


@pytest.mark.parametrize("name", ["bus", "crowd"])
@pytest.mark.parametrize("conf", [0.25, 0.001])
def test_decoded_tensor_against_the_peer(
    name: str, conf: float, pictures: dict[str, Picture], tmp_path: Path, benchmark: Any
) -> None:
    picture = pictures[name]
    decode, outputs = decoder(conf), [picture.output]
    before = least_seconds(lambda: decode(outputs, picture.transform, picture.size))
    theirs, (boxes, scores, points) = run_peer(picture, conf, tmp_path)
    ours = decode(outputs, picture.transform, picture.size)
    assert_same((ours[0], ours[1], ours[3], ours[4]), (boxes, scores, points[..., :2], points[..., 2]), places=0.02)
    after = least_seconds(lambda: decode(outputs, picture.transform, picture.size))
    ratio = theirs / min(before, after)
    benchmark.extra_info.update(ours_us=1e6 * min(before, after), theirs_us=1e6 * theirs, ratio=round(ratio, 1))
    benchmark.pedantic(lambda: decode(outputs, picture.transform, picture.size), rounds=3)
    assert ratio >= at_least(60)


@pytest.mark.parametrize("conf", [0.25, 0.001])
def test_decoded_tensor_against_reading_its_scores(
    conf: float, pictures: dict[str, Picture], side_by_side: Callable[..., float]
) -> None:
    """The floor: no decoder does without reading the row of scores once. Reported; bounded loosely."""
    picture = pictures["bus"]
    decode, outputs = decoder(conf), [picture.output]
    scores = picture.output[0, 4]
    found = decode(outputs, picture.transform, picture.size)
    assert found[1][0] == scores.max()
    ratio = side_by_side(lambda: decode(outputs, picture.transform, picture.size), scores.max, rounds=400)
    assert 1 / ratio < 100


def quantized_heads(seed: int = 0) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Raw int8 heads at 640 with some 40 cells that pass, laid out as TFLite does."""
    rng = np.random.default_rng(seed)
    heads, outputs = [], []
    for stride in (8, 16, 32):
        side = 640 // stride
        for role, channels in (("box", 64), ("score", 1), ("keypoints", 34), ("visibility", 17)):
            values = rng.integers(-60, 60, (1, side, side, channels), np.int8)
            if role == "score":
                values = np.where(rng.random(values.shape) < 0.005, rng.integers(0, 60, values.shape), -100)
            heads.append(
                {"role": role, "index": len(heads), "stride": stride, "layout": "NHWC", "dtype": "int8", "scale": 0.1}
            )
            outputs.append(values.astype(np.int8))
    return heads, outputs


def test_raw_int8_heads_against_numpy(side_by_side: Callable[..., float]) -> None:
    """Only survivors are decoded: compared with numpy that decodes what passes, in the same way."""
    heads, outputs = quantized_heads()
    rules = slow.Rules(conf=0.5)
    decode = _core.YoloHeadsDecoder(
        heads=heads, num_classes=1, kpt_shape=(17, 3), conf=0.5, iou=IOU, max_det=MAX_DET, input_size=(640, 640)
    )
    transform, size = (1.0, 1.0, 0.0, 0.0), (640, 640)
    expected = slow.decode_heads(outputs, heads, 16, (640, 640), transform, size, rules)
    assert_same(decode(outputs, transform, size), expected)

    def survivors_in_numpy() -> None:
        for start in range(0, len(outputs), 4):
            box, score, keypoints, visibility = (
                output.reshape(-1, output.shape[-1]) for output in outputs[start : start + 4]
            )
            cells = np.flatnonzero(score[:, 0] > 0)
            weights = np.exp(box[cells].reshape(-1, 4, 16).astype(np.float32) * np.float32(0.1))
            (weights * np.arange(16, dtype=np.float32)).sum(-1) / weights.sum(-1)
            keypoints[cells].astype(np.float32) * np.float32(0.1)
            1 / (1 + np.exp(visibility[cells].astype(np.float32) * np.float32(-0.1)))

    ratio = side_by_side(lambda: decode(outputs, transform, size), survivors_in_numpy, rounds=400)
    assert ratio >= at_least(5)
