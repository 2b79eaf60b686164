"""PoseRunner on real models with known answers, and on everything that can be handed to it."""

from __future__ import annotations

import csv
import importlib.util
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from edgepose import PoseResult, PoseRunner
from edgepose.artifact import open_artifact

REPO = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def onnx_model(shared: Path) -> Path:
    pytest.importorskip("onnxruntime")
    return shared / "models/yolov8n-pose_320.onnx"


@pytest.fixture(scope="module")
def openvino_model(shared: Path) -> Path:
    pytest.importorskip("openvino")
    return shared / "models/yolov8n-pose_int8_openvino_model"


@pytest.fixture(scope="module")
def movenet(shared: Path) -> Path:
    return shared / "models/movenet_single_pose_lightning_ptq.tflite"


@pytest.fixture(scope="module")
def bus(shared: Path) -> np.ndarray:
    """The bus picture, BGR."""
    return np.asarray(Image.open(shared / "data/bus.jpg"))[..., ::-1].copy()


@pytest.fixture(scope="module")
def runner(onnx_model: Path) -> Iterator[PoseRunner]:
    with PoseRunner(onnx_model) as runner:
        yield runner


@pytest.fixture(scope="module")
def eval_ap(shared: Path) -> ModuleType:
    """The reference: letterbox by OpenCV, decoding and NMS by plain numpy."""
    spec = importlib.util.spec_from_file_location("eval_ap", shared / "tools/eval_ap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_equals_reference(result: PoseResult, people: list[tuple[float, np.ndarray, np.ndarray]]) -> None:
    """Half a pixel and 0.005: off x86 the letterbox may be a level of 255 from OpenCV's, which moves the answer."""
    assert len(result) == len(people)
    for index, (score, keypoints, box) in enumerate(people):
        assert result.scores[index] == pytest.approx(score, abs=0.005)
        np.testing.assert_allclose(result.boxes[index], box, atol=0.5)
        np.testing.assert_allclose(result.keypoints[index], keypoints[:, :2], atol=0.5)
        np.testing.assert_allclose(result.keypoint_scores[index], keypoints[:, 2], atol=0.005)


def test_onnx_model_gives_the_reference_decoders_people(onnx_model: Path, bus: np.ndarray, eval_ap: ModuleType) -> None:
    pytest.importorskip("openvino")
    with PoseRunner(onnx_model, clip=False) as runner:
        assert_equals_reference(runner.predict(bus), eval_ap.ref(str(onnx_model), 320)(bus, conf=0.25))


def test_openvino_int8_model_gives_the_reference_decoders_people(
    openvino_model: Path, bus: np.ndarray, eval_ap: ModuleType
) -> None:
    with PoseRunner(openvino_model, precision="f32", clip=False) as runner:
        result = runner.predict(bus)
    assert_equals_reference(result, eval_ap.ref(str(openvino_model / "yolov8n-pose.xml"), 640)(bus, conf=0.25))
    assert len(result) == 4
    assert round(float(result.scores[2]), 2) >= 0.87


def test_movenet_agrees_with_its_published_keypoints(movenet: Path, shared: Path) -> None:
    with PoseRunner(movenet, conf=0.0) as runner:
        result = runner.predict(shared / "data/squat.bmp")
    with (shared / "models/movenet_single_pose_lightning_ptq_reference.csv").open() as file:
        expected = [(float(row["keypoint_x"]), float(row["keypoint_y"])) for row in csv.DictReader(file)]
    assert len(result) == 1
    # 0.03 of the picture, as its makers allow between kernels.
    np.testing.assert_allclose(result.keypoints[0] / result.size, expected, atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "known"),
    [("yolov8n-pose_320.onnx", 320, 0.349), ("yolov8n-pose_int8_openvino_model/yolov8n-pose.xml", 640, 0.429)],
)
def test_ap_on_real_pictures_is_the_references(shared: Path, name: str, size: int, known: float) -> None:
    pytest.importorskip("openvino")

    def ap(predictor: str) -> float:
        command = [sys.executable, str(shared / "tools/eval_ap.py"), str(shared / "data/coco.zip"), predictor]
        line = subprocess.run(
            [*command, str(shared / "models" / name), str(size), "val"], check=True, capture_output=True, text=True
        ).stdout
        return float(line.split(" AP=")[1].split()[0])

    ours, reference = ap("edgepose"), ap("ref")
    assert ours == pytest.approx(reference, abs=0.003)
    assert ours == pytest.approx(known, abs=0.003)


def test_every_way_to_hand_over_a_picture_gives_the_same_people(
    runner: PoseRunner, shared: Path, bus: np.ndarray
) -> None:
    path = shared / "data/bus.jpg"
    expected = runner.predict(bus)
    assert len(expected) >= 3
    rgb = np.ascontiguousarray(bus[..., ::-1])
    for result in [
        runner.predict(path),
        runner.predict(str(path)),
        runner.predict(path.read_bytes()),
        runner.predict(Image.open(path)),
        runner.predict(rgb, color="RGB"),
        runner.predict(rgb[..., ::-1]),
        runner.predict(np.asfortranarray(bus)),
        runner(bus),
    ]:
        np.testing.assert_array_equal(result.keypoints, expected.keypoints)


def test_a_list_gives_a_list_in_order(runner: PoseRunner, bus: np.ndarray) -> None:
    gray = np.full((100, 60, 3), 114, np.uint8)
    results = runner.predict([bus, gray, bus])
    assert [len(result) for result in results] == [len(results[0]), 0, len(results[0])]
    assert [result.size for result in results] == [(810, 1080), (60, 100), (810, 1080)]
    assert runner.predict([]) == []


def test_a_numpy_batch_gives_a_list(runner: PoseRunner, bus: np.ndarray) -> None:
    results = runner.predict(np.stack([bus, bus]))
    assert len(results) == 2
    np.testing.assert_array_equal(results[0].boxes, results[1].boxes)


def test_a_region_is_looked_at_as_its_crop_is_and_found_in_the_whole_pictures_pixels(
    runner: PoseRunner, bus: np.ndarray
) -> None:
    x0, y0, x1, y1 = 0, 350, 420, 950
    crop = runner.predict(bus[y0:y1, x0:x1])
    inside = runner.predict(bus, roi=(x0, y0, x1, y1))
    assert len(crop) >= 2
    np.testing.assert_allclose(inside.keypoints, crop.keypoints + np.float32([x0, y0]), atol=1e-3)
    assert inside.size == (810, 1080)


def test_a_pickled_runner_gives_the_same_people(runner: PoseRunner, bus: np.ndarray) -> None:
    with pickle.loads(pickle.dumps(runner)) as copy:
        np.testing.assert_array_equal(copy.predict(bus).keypoints, runner.predict(bus).keypoints)


def test_two_threads_in_one_runner_are_told_apart_or_served(runner: PoseRunner, bus: np.ndarray) -> None:
    expected = runner.predict(bus).keypoints
    outcomes: list[object] = []

    def predict() -> None:
        for _ in range(10):
            try:
                outcomes.append(np.array_equal(runner.predict(bus).keypoints, expected))
            except RuntimeError as error:
                outcomes.append("one PoseRunner for each thread" in str(error))

    threads = [threading.Thread(target=predict) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 20


def test_confidence_bounds_the_scores(onnx_model: Path, bus: np.ndarray) -> None:
    with PoseRunner(onnx_model, conf=0.8) as runner:
        result = runner.predict(bus)
    assert len(result) >= 1
    assert result.scores.min() >= 0.8


def test_max_det_bounds_the_people(onnx_model: Path, bus: np.ndarray) -> None:
    with PoseRunner(onnx_model, max_det=2) as runner:
        assert len(runner.predict(bus)) == 2


def test_oks_suppression_finds_the_people_too(onnx_model: Path, bus: np.ndarray, runner: PoseRunner) -> None:
    with PoseRunner(onnx_model, nms="oks") as by_oks:
        assert len(by_oks.predict(bus)) == len(runner.predict(bus))


def test_nobody_found_is_an_ordinary_result(runner: PoseRunner) -> None:
    result = runner.predict(np.full((480, 640, 3), 114, np.uint8))
    assert len(result) == 0
    assert result.keypoints.shape == (0, 17, 2)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 10000, 3), (10000, 1, 3)])
def test_extreme_pictures_are_read(runner: PoseRunner, shape: tuple[int, ...]) -> None:
    assert runner.predict(np.zeros(shape, np.uint8)).size == (shape[1], shape[0])


@pytest.mark.parametrize(
    ("picture", "error"),
    [
        (np.zeros((0, 0, 3), np.uint8), ValueError),
        (np.zeros((10, 10, 5), np.uint8), ValueError),
        (np.zeros((10, 10, 3), np.float32), (TypeError, ValueError)),
        (np.zeros(10, np.uint8), ValueError),
        (None, TypeError),
        (12.5, TypeError),
    ],
)
def test_what_is_no_picture_is_refused(runner: PoseRunner, picture: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        runner.predict(picture)  # type: ignore[call-overload]


def test_a_read_only_strided_picture_is_read(runner: PoseRunner, bus: np.ndarray) -> None:
    view = bus[::2, ::2]
    expected = runner.predict(view.copy())
    view.setflags(write=False)
    np.testing.assert_array_equal(runner.predict(view).boxes, expected.boxes)


def test_an_unknown_option_names_the_nearest(onnx_model: Path) -> None:
    with pytest.raises(TypeError, match="did you mean 'threads'"):
        PoseRunner(onnx_model, thread=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "value"),
    {
        "conf": None,
        "iou": True,
        "nms": 3,
        "max_det": 1.5,
        "max_candidates": "9",
        "color": 3,
        "backend": None,
        "device": 3,
        "threads": "2",
    }.items(),
)
def test_an_option_of_another_type_is_named(onnx_model: Path, option: str, value: object) -> None:
    with pytest.raises(TypeError, match=rf"got {option}="):
        PoseRunner(onnx_model, **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("option", "value"), [("conf", 1.1), ("conf", float("nan")), ("iou", -0.1), ("max_det", 0)])
def test_an_option_out_of_range_is_named(onnx_model: Path, option: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{option} is "):
        PoseRunner(onnx_model, **{option: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("roi", [(0, 0, 5), (0.5, 0, 5, 5), "abcd", 7])
def test_what_is_no_region_is_refused(runner: PoseRunner, bus: np.ndarray, roi: object) -> None:
    with pytest.raises(TypeError, match="got roi="):
        runner.predict(bus, roi=roi)  # type: ignore[call-overload]


@pytest.mark.parametrize("roi", [(0, 0, 0, 0), (-1, 0, 5, 5), (0, 0, 5000, 5), (5, 5, 2, 2)])
def test_a_region_outside_the_picture_is_refused(runner: PoseRunner, bus: np.ndarray, roi: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="0 <= x0 < x1 <= 810"):
        runner.predict(bus, roi=roi)  # type: ignore[call-overload]


@pytest.mark.parametrize("model", ["onnx_model", "openvino_model", "movenet"])
def test_a_closed_runner_says_so(request: pytest.FixtureRequest, bus: np.ndarray, model: str) -> None:
    closed = PoseRunner(request.getfixturevalue(model))
    closed.close()
    closed.close()
    with pytest.raises(RuntimeError, match="closed"):
        closed.predict(bus)


def test_an_open_artifact_takes_no_options_of_loading_and_is_not_pickled(onnx_model: Path) -> None:
    artifact = open_artifact(onnx_model)
    with pytest.raises(ValueError, match="threads=3: the model is open already"):
        PoseRunner(artifact, threads=3)
    with PoseRunner(artifact) as runner, pytest.raises(TypeError, match="make it of the model's path"):
        pickle.dumps(runner)


def test_an_unknown_colour_order_is_refused(onnx_model: Path) -> None:
    with pytest.raises(ValueError, match="expected one of BGR"):
        PoseRunner(onnx_model, color="BRG")


def test_another_size_than_a_fixed_models_is_refused(onnx_model: Path) -> None:
    with pytest.raises(ValueError, match="fixed at 320x320"):
        PoseRunner(onnx_model, imgsz=640)


def test_stage_times_are_told(runner: PoseRunner, bus: np.ndarray) -> None:
    speed = runner.predict(bus).speed
    assert min(speed.preprocess, speed.inference, speed.decode) > 0
    assert speed.total == pytest.approx(sum(speed))


@pytest.mark.parametrize("model", ["onnx_model", "movenet"])
def test_closing_from_another_thread_lets_the_prediction_end(
    request: pytest.FixtureRequest, bus: np.ndarray, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = PoseRunner(request.getfixturevalue(model))
    expected = len(runner.predict(bus))
    infer = runner._backend.infer

    def close_meanwhile() -> list[np.ndarray]:
        closing = threading.Thread(target=runner.close)
        closing.start()
        closing.join(60)
        return infer()

    monkeypatch.setattr(runner._backend, "infer", close_meanwhile)
    assert len(runner.predict(bus)) == expected
    with pytest.raises(RuntimeError, match="closed"):
        runner.predict(bus)
    with pytest.raises(Exception, match=r"before input_buffer|NoneType"):
        infer()  # the backend went at the prediction's end


def test_a_number_of_more_than_64_bits_is_refused(movenet: Path) -> None:
    with pytest.raises(ValueError, match=r"max_det=.*below 2\^63"):
        PoseRunner(movenet, max_det=10**20)
