"""PoseRunner on small models made on the spot: any size and batch, every tensor type, numbers that are none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from references import decode as reference

from edgepose import PoseResult, PoseRunner
from edgepose.contract import InputSpec, ResizeSpec
from edgepose.feeding import exported_size, input_size

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

Make = Callable[..., Path]

SIDE = 32
BLACK = np.zeros((SIDE, SIDE, 3), np.uint8)

each_onnx_runtime = pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])


def run(path: Path, picture: np.ndarray = BLACK, **options: Any) -> PoseResult:
    if options.get("backend") == "openvino":
        pytest.importorskip("openvino")
    with PoseRunner(path, threads=1, precision="f32", **options) as runner:
        return runner.predict(picture)


def decoded(*people: tuple[float, float, float]) -> np.ndarray:
    """(1, 56, N): people of (x, y, score), 8 pixels wide and 12 high, their keypoints in the middle."""
    columns = [[x, y, 8, 12, score, *[x, y, 0.5] * 17] for x, y, score in people]
    return np.array(columns, np.float32).T[None].copy()


# Numbers that are none


@pytest.fixture
def odd_people() -> np.ndarray:
    """Four people; of the first the score, of the second a corner, of the third two keypoints are no numbers."""
    tensor = decoded((6, 6, 0.9), (26, 6, 0.8), (6, 26, 0.7), (26, 26, 0.6))
    tensor[0, 4, 0] = np.nan
    tensor[0, 2, 1] = np.inf
    tensor[0, 5:7, 2] = np.nan, 3
    tensor[0, 9, 2] = -np.inf
    return tensor


@each_onnx_runtime
def test_people_that_are_no_numbers_are_left_out_and_keypoints_zeroed(
    make_onnx: Make, odd_people: np.ndarray, backend: str
) -> None:
    result = run(make_onnx({"output0": odd_people}, (1, 3, SIDE, SIDE)), spec="yolov8-pose", backend=backend)
    np.testing.assert_allclose(result.scores, [0.7, 0.6], atol=1e-6)
    for array in (result.boxes, result.keypoints, result.keypoint_scores):
        assert np.isfinite(array).all()
    np.testing.assert_array_equal(result.keypoints[0, :2], [[0, 0], [0, 0]])
    np.testing.assert_array_equal(result.keypoint_scores[0, :3], [0, 0, 0.5])
    np.testing.assert_allclose(result.keypoints[0, 2], [6, 26], atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("spec", "shape"), [("yolov8-pose", (1, 56, 20)), ("yolo26-pose", (1, 20, 57))])
def test_outputs_of_nothing_but_such_numbers_are_nobody(
    make_onnx: Make, value: float, spec: str, shape: tuple[int, ...]
) -> None:
    path = make_onnx({"output0": np.full(shape, value, np.float32)}, (1, 3, SIDE, SIDE))
    assert len(run(path, spec=spec)) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_movenet_without_numbers_is_nobody(make_onnx: Make, value: float) -> None:
    path = make_onnx({"pose": np.full((1, 1, 17, 3), value, np.float32)}, (1, SIDE, SIDE, 3))
    assert len(run(path)) == 0


def test_a_movenet_keypoint_that_is_no_number_is_zeroed(make_onnx: Make) -> None:
    pose = np.full((1, 1, 17, 3), 0.5, np.float32)
    pose[0, 0, 4, 1] = np.nan
    result = run(make_onnx({"pose": pose}, (1, SIDE, SIDE, 3)))
    assert len(result) == 1
    assert np.isfinite(result.boxes).all()
    np.testing.assert_array_equal(result.keypoints[0, 4], [0, 0])
    assert result.keypoint_scores[0, 4] == 0


# Any size, any batch


@pytest.fixture
def sized_runner(make_sized: Make, request: pytest.FixtureRequest) -> Iterator[Callable[..., PoseRunner]]:
    """Opens runners of the sized model in the runtime of the parametrization."""
    backend = request.getfixturevalue("backend")
    if backend == "openvino":
        pytest.importorskip("openvino")
    opened: list[PoseRunner] = []

    def open_runner(shape: tuple[Any, ...] = (), **options: Any) -> PoseRunner:
        given = {
            "backend": backend,
            "threads": 1,
            "precision": "f32",
            "conf": 0.0,
            "clip": False,
            "spec": "yolov8-pose",
        }
        opened.append(PoseRunner(make_sized(*shape), **{**given, **options}))
        return opened[-1]

    yield open_runner
    for runner in opened:
        runner.close()


def gray(level: int, width: int = SIDE, height: int = SIDE) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def input_side(result: PoseResult, longest: int) -> tuple[float, float]:
    """(width, height) of the model's input, told by the size of the person found; `longest`: the side asked for."""
    scale = longest / max(result.size)
    x0, y0, x1, y1 = result.boxes[0]
    return 2 * (x1 - x0) * scale, 2 * (y1 - y0) * scale


@each_onnx_runtime
@pytest.mark.parametrize(("imgsz", "side"), [(64, 64), (96, 96), (65, 96), (320, 320)])
def test_imgsz_is_rounded_up_to_the_stride_and_square(
    sized_runner: Callable[..., PoseRunner], backend: str, imgsz: int, side: int
) -> None:
    result = sized_runner(imgsz=imgsz).predict(gray(100, 80, 40))
    assert input_side(result, side) == pytest.approx((side, side), abs=1e-3)
    np.testing.assert_allclose(result.keypoints[0, 0], [40, 20], atol=0.5)


@each_onnx_runtime
def test_without_imgsz_a_dynamic_model_gets_640(sized_runner: Callable[..., PoseRunner], backend: str) -> None:
    assert input_side(sized_runner().predict(gray(100, 80, 40)), 640) == pytest.approx((640, 640), abs=1e-2)


@pytest.mark.parametrize(("kept", "expected"), [([96, 128], (96, 128)), ([0, 96], None), ([96], None), (96, None)])
def test_a_dynamic_model_remembers_the_size_that_it_was_exported_at(
    kept: Any, expected: tuple[int, int] | None
) -> None:
    spec = InputSpec("images", batch=None, resize=ResizeSpec(stride=32))
    default = exported_size({"export_imgsz": kept})
    assert default == expected
    assert input_size(spec, None, False, default) == (expected or (640, 640))
    assert input_size(spec, 64, False, default) == (64, 64)
    assert input_size(spec, None, True, default) == max(expected or (640, 640))


@each_onnx_runtime
def test_imgsz_of_two_is_height_and_width(sized_runner: Callable[..., PoseRunner], backend: str) -> None:
    result = sized_runner(imgsz=(64, 128)).predict(gray(100, 80, 40))
    assert input_side(result, 128) == pytest.approx((128, 64), abs=1e-3)


@each_onnx_runtime
def test_rect_follows_the_picture_from_one_to_the_next(sized_runner: Callable[..., PoseRunner], backend: str) -> None:
    runner = sized_runner(imgsz=128, rect=True)
    for width, height, expected in [(80, 40, (128, 64)), (40, 80, (64, 128)), (90, 50, (128, 96)), (80, 40, (128, 64))]:
        result = runner.predict(gray(100, width, height))
        assert input_side(result, 128) == pytest.approx(expected, abs=0.2)  # 71.1 rows of the 90x50 one are 71
        np.testing.assert_allclose(result.keypoints[0, 0], [width / 2, height / 2], atol=0.5)


@each_onnx_runtime
def test_rect_follows_a_region(sized_runner: Callable[..., PoseRunner], backend: str) -> None:
    result = sized_runner(imgsz=128, rect=True).predict(gray(100, 200, 200), roi=(20, 40, 100, 80))
    x0, y0, x1, y1 = result.boxes[0]
    scale = 128 / 80
    assert (2 * (x1 - x0) * scale, 2 * (y1 - y0) * scale) == pytest.approx((128, 64), abs=1e-3)
    np.testing.assert_allclose(result.keypoints[0, 0], [60, 60], atol=0.5)


@each_onnx_runtime
@pytest.mark.parametrize("batch", [1, 4, "batch"])
def test_a_list_longer_than_a_batch_keeps_its_order(
    sized_runner: Callable[..., PoseRunner], backend: str, batch: int | str
) -> None:
    """A dynamic model is given 16 at a time; a model of 4 at a time gets a last batch that is not full."""
    levels = np.linspace(10, 250, 22).astype(int)
    runner = sized_runner((batch, SIDE, SIDE))
    results = runner.predict([gray(int(level)) for level in levels])
    np.testing.assert_allclose([result.scores[0] for result in results], levels / 255, atol=1e-5)


@each_onnx_runtime
def test_no_more_pictures_are_decoded_than_the_model_is_given(
    sized_runner: Callable[..., PoseRunner], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = sized_runner((4, SIDE, SIDE))
    events: list[str] = []
    load, infer = runner._load, runner._backend.infer
    monkeypatch.setattr(runner, "_load", lambda *given: (events.append("load"), load(*given))[1])
    monkeypatch.setattr(runner._backend, "infer", lambda: (events.append("infer"), infer())[1])
    runner.predict([gray(100) for _ in range(10)])
    assert events == [*["load"] * 4, "infer"] * 2 + ["load"] * 2 + ["infer"]


@each_onnx_runtime
def test_a_batch_with_rect_holds_each_of_its_pictures(sized_runner: Callable[..., PoseRunner], backend: str) -> None:
    sizes = [(80, 40), (40, 80), (60, 60)]
    results = sized_runner(imgsz=64, rect=True).predict([gray(100, *size) for size in sizes])
    for result, size in zip(results, sizes, strict=True):
        assert result.size == size
        assert input_side(result, 64) == pytest.approx((64, 64), abs=1e-3)
        np.testing.assert_allclose(result.keypoints[0, 0], np.array(size) / 2, atol=0.5)


@each_onnx_runtime
def test_a_region_is_looked_at_in_each_of_several_pictures(
    sized_runner: Callable[..., PoseRunner], backend: str
) -> None:
    results = sized_runner(imgsz=64).predict([gray(50, 80, 80), gray(200, 90, 90)], roi=(0, 0, 40, 40))
    assert [round(float(result.scores[0]) * 255) for result in results] == [50, 200]
    np.testing.assert_allclose([result.keypoints[0, 0] for result in results], [[20, 20]] * 2, atol=0.5)


@pytest.mark.parametrize("imgsz", [0, -32, (64,), (64, 0), (1, 2, 3)])
def test_an_imgsz_that_is_none_is_refused(make_sized: Make, imgsz: Any) -> None:
    with pytest.raises(ValueError, match=r"expected one side or \(height, width\) in whole pixels"):
        PoseRunner(make_sized(), spec="yolov8-pose", imgsz=imgsz)


@pytest.mark.parametrize("imgsz", ["640", 320.5, (64, "64"), True, (64, True), ()])
def test_an_imgsz_of_another_type_is_refused(make_sized: Make, imgsz: Any) -> None:
    with pytest.raises(TypeError, match=r"expected one side or \(height, width\) in whole pixels"):
        PoseRunner(make_sized(), spec="yolov8-pose", imgsz=imgsz)


def test_an_imgsz_larger_than_any_input_is_refused(make_sized: Make) -> None:
    with pytest.raises(ValueError, match="1 to 16384"):
        PoseRunner(make_sized(), spec="yolov8-pose", imgsz=10**9)


# Every tensor type


def spec_of(side: int = SIDE, **inputs: Any) -> dict[str, Any]:
    return {
        "schema": "1.0",
        "input": {"name": "images", "resize": {"size": [side, side]}, **inputs},
        "outputs": [{"name": "output0", "role": "detections"}],
        "decoder": {"type": "yolo"},
    }


@each_onnx_runtime
@pytest.mark.parametrize(
    ("dtype", "quantization", "std", "stored"),
    [
        ("float32", None, 255.0, 100 / 255),
        ("float16", None, 255.0, 100 / 255),
        ("uint8", None, 1.0, 100),
        ("uint8", {"scale": 0.02, "zero_point": 10}, 255.0, round(100 / 255 / 0.02) + 10),
        ("int8", {"scale": 1 / 255, "zero_point": -128}, 255.0, -28),
    ],
)
def test_inputs_of_every_type_hold_what_the_spec_says(
    make_onnx: Make, backend: str, dtype: str, quantization: Any, std: float, stored: float
) -> None:
    """The model adds the mean of its input as it is stored to the places; level 100 everywhere."""
    path = make_onnx({"output0": decoded((200, 200, 900))}, (1, 3, SIDE, SIDE), dtype=dtype)
    spec = spec_of(dtype=dtype, quantization=quantization, std=[std] * 3)
    result = run(path, gray(100), spec=spec, backend=backend, clip=False)
    np.testing.assert_allclose(result.keypoints[0, 0], [200 + stored] * 2, rtol=1e-3)


SCALES = {"float32": (1.0, 0), "float16": (1.0, 0), "int8": (0.25, -100), "uint8": (0.25, 7)}


def stored_and_meant(real: np.ndarray, dtype: str, scale: float, zero_point: int) -> tuple[np.ndarray, np.ndarray]:
    """The tensor as a model of that type gives it, and the real numbers that this stands for."""
    if dtype.startswith("float"):
        stored = real.astype(dtype)
        return stored, stored.astype(np.float32)
    limits = np.iinfo(dtype)
    stored = np.clip(np.round(real / scale) + zero_point, limits.min, limits.max).astype(dtype)
    return stored, ((stored.astype(np.float64) - zero_point) * scale).astype(np.float32)


def output_spec(dtype: str, scale: float, zero_point: int) -> dict[str, Any]:
    quantization = None if dtype.startswith("float") else {"scale": scale, "zero_point": zero_point}
    return {"dtype": dtype, "quantization": quantization}


def rules(kpt_shape: tuple[int, int]) -> reference.Rules:
    sigmas = (1 / kpt_shape[0],) * kpt_shape[0]
    return reference.Rules(num_classes=1, kpt_shape=kpt_shape, conf=0.25, iou=0.7, max_det=300, sigmas=sigmas)


def assert_same(result: PoseResult, expected: reference.Detections) -> None:
    found = (result.boxes, result.scores, result.class_ids, result.keypoints, result.keypoint_scores)
    assert len(result) > 0
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


@each_onnx_runtime
@pytest.mark.parametrize("dtype", SCALES)
def test_a_decoded_tensor_of_every_type_is_read_as_its_real_numbers(make_onnx: Make, backend: str, dtype: str) -> None:
    chance = np.random.default_rng(1)
    real = chance.uniform(0, 31, (1, 56, 40)).astype(np.float32)
    real[0, 4::3] = chance.uniform(0, 1, real[0, 4::3].shape)
    stored, meant = stored_and_meant(real, dtype, *SCALES[dtype])
    spec = spec_of()
    spec["outputs"][0] |= output_spec(dtype, *SCALES[dtype])
    result = run(make_onnx({"output0": stored}, (1, 3, SIDE, SIDE)), spec=spec, backend=backend)
    assert_same(result, reference.decode_yolo(meant, (1, 1, 0, 0), (SIDE, SIDE), rules((17, 3))))


@pytest.mark.parametrize(
    ("asked", "given", "found"),
    [
        ({}, {}, 2),
        ({"nms": "oks"}, {}, 1),
        ({"nms": "oks"}, {"nms": "iou"}, 2),
        ({"nms": "oks", "iou": 1.0}, {}, 2),
        ({"nms": "oks", "iou": 1.0}, {"nms": "iou", "iou": 0.5}, 1),
        ({"nms": "iou", "iou": 1.0}, {"nms": "oks"}, 1),
    ],
)
def test_what_nms_compares_is_the_models_unless_something_else_is_given(
    make_onnx: Make, asked: dict[str, Any], given: dict[str, Any], found: int
) -> None:
    """Two boxes with an IoU of 0.6 and the same keypoints."""
    tensor = np.zeros((1, 56, 2), np.float32)
    tensor[0, :5] = [[16, 18.5], [16, 16], [10, 10], [10, 10], [0.9, 0.8]]
    spec = spec_of()
    spec["decoder"] |= asked
    assert len(run(make_onnx({"output0": tensor}, (1, 3, SIDE, SIDE)), spec=spec, **given)) == found


@pytest.mark.parametrize(("asked", "given", "found"), [(0.7, None, 2), (0.5, None, 1), (0.5, 0.7, 2), (0.7, 0.5, 1)])
def test_the_overlap_of_nms_is_the_models_unless_another_is_given(
    make_onnx: Make, asked: float, given: float | None, found: int
) -> None:
    """Two boxes of 10 x 10 pixels with an IoU of 0.6, 2.5 pixels apart."""
    tensor = np.zeros((1, 56, 2), np.float32)
    tensor[0, :5] = [[16, 18.5], [16, 16], [10, 10], [10, 10], [0.9, 0.8]]
    spec = spec_of()
    spec["decoder"]["iou"] = asked
    result = run(make_onnx({"output0": tensor}, (1, 3, SIDE, SIDE)), spec=spec, iou=given)
    assert len(result) == found


@each_onnx_runtime
@pytest.mark.parametrize("dtype", SCALES)
@pytest.mark.parametrize("layout", ["NCHW", "NAC"])
def test_raw_heads_of_every_type_are_read_as_their_real_numbers(
    make_onnx: Make, backend: str, dtype: str, layout: str
) -> None:
    chance = np.random.default_rng(2)
    outputs, meant, heads, documents = {}, [], [], []
    for stride in (8, 16):
        cells = SIDE // stride
        for role, channels in (("box", 64), ("score", 1), ("keypoints", 6)):
            shape = (1, channels, cells, cells) if layout == "NCHW" else (1, cells * cells, channels)
            tensor, numbers = stored_and_meant(chance.normal(0, 3, shape), dtype, *SCALES[dtype])
            name = f"{role}{stride}"
            outputs[name] = tensor
            head = {"role": role, "stride": stride, "layout": layout}
            documents.append({"name": name, **head, **output_spec(dtype, *SCALES[dtype])})
            heads.append({**head, "index": len(meant)})
            meant.append(numbers)
    spec = {**spec_of(), "outputs": documents, "decoder": {"type": "yolo_heads", "kpt_shape": [2, 3]}}
    result = run(make_onnx(outputs, (1, 3, SIDE, SIDE)), spec=spec, backend=backend)
    expected = reference.decode_heads(meant, heads, 16, (SIDE, SIDE), (1, 1, 0, 0), (SIDE, SIDE), rules((2, 3)))
    assert_same(result, expected)


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
@pytest.mark.parametrize("level", [60, 255])
def test_a_tflite_model_is_fed_and_read_in_its_own_integers(make_tflite: Make, dtype: str, level: int) -> None:
    """The model hands its input on as its outputs, in the same scale 0.05 and zero point 3: the level over 255."""
    scale, zero_point = (1.0, 0) if dtype == "float32" else (0.05, 3)
    layout = {"stride": 8, "layout": "NAC", "dtype": dtype}
    spec = {
        **spec_of(8, layout="NHWC", dtype=dtype, quantization=output_spec(dtype, scale, zero_point)["quantization"]),
        "outputs": [{"name": role, "role": role, **layout} for role in ("box", "score", "keypoints")],
        "decoder": {"type": "yolo_heads", "kpt_shape": [2, 3]},
    }
    path = make_tflite({"box": 64, "score": 1, "keypoints": 6}, dtype=dtype)
    result = run(path, gray(level, 8, 8), spec=spec)
    value = stored_and_meant(np.full(64, level / 255, np.float32), dtype, scale, zero_point)[1]
    heads = [{"role": o["role"], "index": i, "stride": 8, "layout": "NAC"} for i, o in enumerate(spec["outputs"])]
    meant = [value[:n].reshape(1, 1, n) for n in (64, 1, 6)]
    assert_same(result, reference.decode_heads(meant, heads, 16, (8, 8), (1, 1, 0, 0), (8, 8), rules((2, 3))))


def test_outputs_that_do_not_fit_once_the_model_runs_are_an_error(tmp_path: Path) -> None:
    """Nothing is known of the number of rows, which is the input's height, before the model has run."""
    floats = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("ReduceMean", ["images"], ["output0"], axes=[1], keepdims=0)],
        "rows",
        [onnx.helper.make_tensor_value_info("images", floats, [1, 3, "height", "width"])],
        [onnx.helper.make_tensor_value_info("output0", floats, [1, "height", "width"])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "rows.onnx")
    with PoseRunner(tmp_path / "rows.onnx", spec="yolov8-pose", imgsz=64) as runner:
        message = re.escape("has shape (1, 64, 64), expected (1, 56, any)")
        with pytest.raises(ValueError, match=message):
            runner.predict(BLACK)
