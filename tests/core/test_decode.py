"""The decoders of ready tensors (decoded, end-to-end, MoveNet) against a slow reference and a peer's output."""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references import decode as slow

from edgepose import _core

TRANSFORM = (0.5, 0.75, 3.0, -2.0)
SIZE = (90, 70)
ROW = {"num_classes": 1, "kpt_shape": (2, 3), "conf": 0.25, "iou": 0.7, "max_det": 300}

property_test = settings(deadline=None, derandomize=True, max_examples=60)


def decoder(rules: slow.Rules, **options: Any) -> _core.YoloDecoder:
    fields = {name: getattr(rules, name) for name in rules.__dataclass_fields__}
    return _core.YoloDecoder(**fields, **options)


def random_tensor(seed: int, rules: slow.Rules, anchors: int) -> np.ndarray:
    """Boxes on a half-pixel grid, crowded, and few distinct scores, so that ties and suppression are common."""
    rng = np.random.default_rng(seed)
    k, d = rules.kpt_shape
    output = np.empty((1, 4 + rules.num_classes + k * d, anchors), np.float32)
    output[0, :2] = rng.integers(0, 60, (2, anchors)) / 2
    output[0, 2:4] = rng.integers(0, 40, (2, anchors))
    output[0, 4 : 4 + rules.num_classes] = rng.integers(0, 33, (rules.num_classes, anchors)) / 32
    keypoints = output[0, 4 + rules.num_classes :].reshape(k, d, anchors)
    keypoints[:] = rng.uniform(-5, 50, keypoints.shape)
    if d == 3:
        keypoints[:, 2] = rng.uniform(0, 1, (k, anchors))
    return output


def assert_same(ours: slow.Detections, theirs: slow.Detections, places: float = 1e-4, scores: float = 1e-6) -> None:
    assert len(ours[0]) == len(theirs[0])
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6, atol=places)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=scores)
    np.testing.assert_array_equal(ours[2], theirs[2])
    np.testing.assert_allclose(ours[3], theirs[3], rtol=1e-6, atol=places)
    np.testing.assert_allclose(ours[4], theirs[4], rtol=0, atol=scores)


def spoil(output: np.ndarray, seed: int, share: float = 0.05) -> np.ndarray:
    """NaN and infinities here and there."""
    rng = np.random.default_rng(seed)
    bad = rng.choice(np.array([np.nan, np.inf, -np.inf], np.float32), output.shape)
    return np.where(rng.random(output.shape) < share, bad, output).astype(output.dtype)


rules_strategy = st.builds(
    slow.Rules,
    num_classes=st.sampled_from([1, 1, 2, 5]),
    kpt_shape=st.tuples(st.integers(1, 20), st.sampled_from([2, 3])),
    conf=st.sampled_from([0.0, 0.001, 0.25, 0.5, 0.96875, 1.0]),
    iou=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    max_det=st.sampled_from([1, 3, 300, 2**40]),
    max_candidates=st.sampled_from([1, 20, 30000, 2**40]),
    agnostic=st.booleans(),
    clip=st.booleans(),
)
anchors_strategy = st.one_of(st.integers(0, 40), st.integers(100, 400))


@property_test
@given(rules_strategy, anchors_strategy, st.integers(0, 2**32))
def test_float32_tensor_equals_the_slow_reference(rules: slow.Rules, anchors: int, seed: int) -> None:
    output = random_tensor(seed, rules, anchors)
    assert_same(decoder(rules)([output], TRANSFORM, SIZE), slow.decode_yolo(output, TRANSFORM, SIZE, rules))


@property_test
@given(rules_strategy, anchors_strategy, st.integers(0, 2**32))
def test_float16_tensor_equals_the_slow_reference(rules: slow.Rules, anchors: int, seed: int) -> None:
    output = random_tensor(seed, rules, anchors).astype(np.float16)
    assert_same(decoder(rules)([output], TRANSFORM, SIZE), slow.decode_yolo(output, TRANSFORM, SIZE, rules))


@property_test
@given(
    rules_strategy,
    anchors_strategy,
    st.integers(0, 2**32),
    st.sampled_from([np.int8, np.uint8]),
    st.sampled_from([1 / 64, 0.0123, 0.5]),
    st.integers(-100, 100),
)
def test_quantized_tensor_equals_the_slow_reference(
    rules: slow.Rules, anchors: int, seed: int, dtype: type, scale: float, zero_point: int
) -> None:
    shape = random_tensor(seed, rules, anchors).shape
    info = np.iinfo(dtype)
    output = np.random.default_rng(seed).integers(info.min, info.max, shape, dtype, endpoint=True)
    ours = decoder(rules, scale=scale, zero_point=zero_point)([output], TRANSFORM, SIZE)
    assert_same(ours, slow.decode_yolo(output, TRANSFORM, SIZE, rules, scale, zero_point))


@property_test
@given(rules_strategy, anchors_strategy, st.integers(0, 2**32))
def test_numbers_that_are_not_finite_are_passed_over(rules: slow.Rules, anchors: int, seed: int) -> None:
    output = spoil(random_tensor(seed, rules, anchors), seed)
    ours = decoder(rules)([output], TRANSFORM, SIZE)
    assert all(np.isfinite(part).all() for part in ours)
    with np.errstate(invalid="ignore"):
        assert_same(ours, slow.decode_yolo(output, TRANSFORM, SIZE, rules))


@property_test
@given(rules_strategy, st.integers(0, 300), st.integers(0, 2**32))
def test_suppression_by_oks_equals_the_slow_reference(rules: slow.Rules, anchors: int, seed: int) -> None:
    sigmas = tuple(np.random.default_rng(seed).uniform(0.1, 2, rules.kpt_shape[0]))
    rules = rules.but(nms="oks", sigmas=sigmas, conf=max(rules.conf, 0.25))
    output = spoil(random_tensor(seed, rules, anchors), seed, share=0.01)
    with np.errstate(invalid="ignore"):
        assert_same(decoder(rules)([output], TRANSFORM, SIZE), slow.decode_yolo(output, TRANSFORM, SIZE, rules))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
@pytest.mark.parametrize("nms", ["iou", "oks"])
def test_every_instruction_set_gives_the_same_bits(dtype: str, nms: str) -> None:
    before = _core.simd_level()
    for num_classes, seed in ((1, 0), (7, 1), (80, 2)):
        rules = slow.Rules(num_classes, (17, 3), 0.3, 0.5, max_det=1000, nms=nms, sigmas=(0.3,) * 17)
        output = random_tensor(seed, rules, 1237)
        output = spoil(output, seed, 0.01).astype(dtype) if "float" in dtype else (output * 2).astype(dtype)
        answers = []
        for name in _core.available_simd_levels():
            _core.set_simd_level(name)
            answers.append(decoder(rules, scale=0.5 if "int" in dtype else 1.0)([output], TRANSFORM, SIZE))
        _core.set_simd_level(before)
        assert len(answers[0][0]) > 10
        for answer in answers[1:]:
            for part, first in zip(answer, answers[0], strict=True):
                np.testing.assert_array_equal(part, first)


def _peer_decode(shared: Path) -> Any:
    spec = importlib.util.spec_from_file_location("eval_ap", shared / "tools/eval_ap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.decode


@pytest.mark.parametrize("conf", [0.25, 0.001])
def test_a_real_network_decodes_as_the_evaluation_script_does(shared: Path, conf: float, level: str) -> None:
    pytest.importorskip("cv2")
    decode = _peer_decode(shared)
    ours = _core.YoloDecoder(num_classes=1, kpt_shape=(17, 3), conf=conf, iou=0.7, max_det=300, clip=False)
    people = 0
    for picture in np.load(shared / "reference/yolov8n-pose_320.npz")["decoded"]:
        expected = decode(picture[None], 0.5, 10, 20, conf)
        boxes, scores, _, keypoints, keypoint_scores = ours([picture[None]], (0.5, 0.5, 10, 20), (640, 640))
        people += len(expected)
        assert len(boxes) == len(expected)
        for i, (score, points, box) in enumerate(expected):
            assert scores[i] == np.float32(score)
            np.testing.assert_allclose(boxes[i], box, rtol=0, atol=1e-3)
            np.testing.assert_allclose(keypoints[i], points[:, :2], rtol=0, atol=1e-3)
            np.testing.assert_array_equal(keypoint_scores[i], points[:, 2])
    assert people >= 9


def test_equal_scores_come_in_the_order_of_their_anchors(level: str) -> None:
    output = np.zeros((1, 4 + 1 + 6, 1000), np.float32)
    output[0, 0] = np.arange(1000) * 100
    output[0, 2:4] = 10
    output[0, 4] = 0.5
    output[0, 4, ::3] = 0.75
    boxes, scores, *_ = _core.YoloDecoder(**ROW | {"max_det": 5000, "clip": False})([output], (1, 1, 0, 0), SIZE)
    anchors = np.round((boxes[:, 0] + 5) / 100).astype(int)
    best, rest = np.arange(0, 1000, 3), np.setdiff1d(np.arange(1000), np.arange(0, 1000, 3))
    np.testing.assert_array_equal(anchors, np.concatenate([best, rest]))
    assert (np.diff(scores) <= 0).all()


def test_only_the_best_max_candidates_enter_nms() -> None:
    output = np.zeros((1, 11, 300), np.float32)
    output[0, 0] = np.arange(300) * 100
    output[0, 2:4] = 10
    output[0, 4] = np.linspace(0.5, 0.9, 300)
    boxes, *_ = _core.YoloDecoder(**ROW, max_candidates=7, clip=False)([output], (1, 1, 0, 0), SIZE)
    np.testing.assert_allclose(boxes[:, 0], (299 - np.arange(7)) * 100 - 5)


def test_fractions_of_the_input_become_pixels() -> None:
    rules = slow.Rules(kpt_shape=(3, 3))
    output = random_tensor(0, rules, 200)
    fractions = output.copy()
    fractions[0, [0, 2]] /= 64
    fractions[0, [1, 3]] /= 32
    fractions[0, 5::3] /= 64
    fractions[0, 6::3] /= 32
    ours = decoder(rules, coord_scale=(64, 32))([fractions], TRANSFORM, SIZE)
    assert_same(ours, slow.decode_yolo(output, TRANSFORM, SIZE, rules))


def test_a_strided_tensor_reads_like_its_copy() -> None:
    rules = slow.Rules(num_classes=2, kpt_shape=(3, 3))
    wide = random_tensor(0, rules, 200).repeat(2, axis=2)
    view = wide[..., ::-2]
    assert not view.flags.c_contiguous
    assert_same(decoder(rules)([view], TRANSFORM, SIZE), decoder(rules)([view.copy()], TRANSFORM, SIZE), 0, 0)


def test_a_misaligned_tensor_reads_like_its_copy() -> None:
    rules = slow.Rules(kpt_shape=(3, 3))
    output = random_tensor(0, rules, 200)
    buffer = np.zeros(output.nbytes + 1, np.uint8)
    view = buffer[1:].view(np.float32).reshape(output.shape)
    view[:] = output
    assert_same(decoder(rules)([view], TRANSFORM, SIZE), decoder(rules)([output], TRANSFORM, SIZE), 0, 0)


def test_arrays_have_their_shapes_and_types_when_nothing_is_found(level: str) -> None:
    found = _core.YoloDecoder(**ROW)([np.zeros((1, 11, 50), np.float32)], (1, 1, 0, 0), SIZE)
    assert [part.shape for part in found] == [(0, 4), (0,), (0,), (0, 2, 2), (0, 2)]
    assert [part.dtype for part in found] == [np.float32, np.float32, np.int32, np.float32, np.float32]


def test_results_are_new_arrays_each_time() -> None:
    rules = slow.Rules(kpt_shape=(2, 3))
    decode = decoder(rules)
    first = decode([random_tensor(0, rules, 200)], TRANSFORM, SIZE)
    before = [part.copy() for part in first]
    decode([random_tensor(1, rules, 200)], TRANSFORM, SIZE)
    for part, copy in zip(first, before, strict=True):
        np.testing.assert_array_equal(part, copy)


def test_one_decoder_may_be_called_from_several_threads() -> None:
    rules = slow.Rules(kpt_shape=(17, 3), conf=0.1, iou=0.9)
    decode = decoder(rules)
    outputs = [random_tensor(seed, rules, 3000 + seed) for seed in range(4)]
    expected = [decode([output], TRANSFORM, SIZE) for output in outputs]

    def repeat(i: int) -> None:
        for _ in range(50):
            assert_same(decode([outputs[i]], TRANSFORM, SIZE), expected[i], 0, 0)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(repeat, range(4)))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("conf", -0.1, "conf is -0.1"),
        ("conf", float("nan"), "conf is nan"),
        ("iou", 1.5, "iou is 1.5"),
        ("max_det", 0, "max_det is 0"),
        ("max_candidates", -1, "max_candidates is -1"),
        ("num_classes", 0, "num_classes is 0"),
        ("kpt_shape", (0, 3), r"kpt_shape\[0\] is 0"),
        ("kpt_shape", (17, 4), r"kpt_shape\[1\] is 4"),
        ("nms", "soft", "nms is 'soft', expected 'iou' or 'oks'"),
        ("nms", "oks", "number of sigmas is 0, expected 2"),
        ("sigmas", (0.1,), "number of sigmas is 1, expected 2"),
        ("sigmas", (0.1, float("nan")), "sigma is nan"),
        ("scale", 0.0, "scale is 0"),
        ("scale", float("nan"), "scale is nan"),
        ("scale", float("inf"), "scale is inf"),
        ("zero_point", 10**6, "zero point is 1000000"),
        ("coord_scale", (0.0, 1.0), "coord_scale is"),
    ],
)
def test_a_bad_option_is_named(option: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _core.YoloDecoder(**ROW | {option: value})


@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [
        ([], ValueError, "got 0 output tensors, expected 1"),
        ([np.zeros((1, 11, 5), np.float32)] * 2, ValueError, "got 2 output tensors"),
        ([np.zeros((1, 12, 5), np.float32)], ValueError, r"shape \(1, 12, 5\), expected \(1, 11, any\)"),
        ([np.zeros((2, 11, 5), np.float32)], ValueError, r"shape \(2, 11, 5\)"),
        ([np.zeros((11, 5), np.float32)], ValueError, r"shape \(11, 5\)"),
        ([np.zeros((1, 1, 1, 11, 5), np.float32)], ValueError, "5 dimensions"),
        ([np.float32(3)], TypeError, "expected a numpy array"),
        ([np.zeros((1, 11, 5))], ValueError, "dtype float64, expected float32"),
        ([np.zeros((1, 11, 5), ">f4")], ValueError, "dtype >f4, expected float32"),
        ([[[0.0]]], TypeError, "output 0 is a list, expected a numpy array"),
        (3, TypeError, "outputs is not a sequence"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(outputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _core.YoloDecoder(**ROW)(outputs, (1, 1, 0, 0), SIZE)


@pytest.mark.parametrize(
    ("transform", "size", "message"),
    [
        ((0, 1, 0, 0), SIZE, "transform scale is 0"),
        ((1, float("nan"), 0, 0), SIZE, "transform scale is nan"),
        ((1, 1, float("inf"), 0), SIZE, "transform pad is inf"),
        ((1, 1, 0, 0), (0, 5), "source width is 0"),
        ((1, 1, 0, 0), (5, -1), "source height is -1"),
    ],
)
def test_a_bad_transform_or_size_is_named(transform: Any, size: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _core.YoloDecoder(**ROW)([np.zeros((1, 11, 5), np.float32)], transform, size)


def end2end_rows(seed: int, rows: int, k: int, d: int, classes: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    output = rng.uniform(0, 60, (1, rows, 6 + k * d)).astype(np.float32)
    output[0, :, 4] = rng.integers(0, 33, rows) / 32
    output[0, :, 5] = rng.integers(-1, classes + 1, rows)
    return output


@property_test
@given(
    st.integers(0, 60),
    st.integers(1, 17),
    st.sampled_from([2, 3]),
    st.sampled_from([0.0, 0.25, 1.0]),
    st.sampled_from([1, 10, 300]),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_end_to_end_rows_are_filtered_and_ordered(
    rows: int, k: int, d: int, conf: float, max_det: int, clip: bool, seed: int
) -> None:
    output = end2end_rows(seed, rows, k, d, classes=3)
    ours = _core.YoloEnd2EndDecoder(num_classes=3, kpt_shape=(k, d), conf=conf, max_det=max_det, clip=clip)
    table = output[0][(output[0, :, 4] > conf) & (output[0, :, 5] >= 0) & (output[0, :, 5] < 3)]
    table = table[slow.order(table[:, 4])][:max_det]
    points = table[:, 6:].reshape(-1, k, d)
    visibility = points[..., 2] if d == 3 else np.ones(points.shape[:2])
    expected = slow.to_source(
        table[:, :4], table[:, 4], table[:, 5].astype(int), points[..., :2], visibility, TRANSFORM, SIZE, clip
    )
    assert_same(ours([output], TRANSFORM, SIZE), expected)


def test_an_end_to_end_row_that_is_not_finite_is_left_out() -> None:
    output = np.array([[[1, 2, 3, 4, 0.9, 0, 5, 6, 0.5]] * 4], np.float32)
    output[0, 0, 4] = np.nan
    output[0, 1, 2] = np.inf
    output[0, 2, 5] = np.nan
    found = _core.YoloEnd2EndDecoder(num_classes=1, kpt_shape=(1, 3), conf=0.1, max_det=9)([output], (1, 1, 0, 0), SIZE)
    assert len(found[0]) == 1


def test_an_end_to_end_tensor_of_another_shape_is_refused() -> None:
    ours = _core.YoloEnd2EndDecoder(num_classes=1, kpt_shape=(17, 3), conf=0.1, max_det=9)
    with pytest.raises(ValueError, match=r"shape \(1, 300, 56\), expected \(1, any, 57\)"):
        ours([np.zeros((1, 300, 56), np.float32)], (1, 1, 0, 0), SIZE)


def movenet_output(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 0.9, (1, 1, 17, 3)).astype(np.float32)


def test_movenet_gives_one_person_in_source_pixels(level: str) -> None:
    output = movenet_output()
    ours = _core.MoveNetDecoder(conf=0.1, input_size=(192, 256))
    boxes, scores, class_ids, keypoints, keypoint_scores = ours([output], (0.4, 0.5, 8, 16), (640, 400))
    y, x, score = output[0, 0].astype(np.float64).T
    expected = np.stack([np.clip((x * 256 - 8) / 0.4, 0, 640), np.clip((y * 192 - 16) / 0.5, 0, 400)], 1)
    np.testing.assert_allclose(keypoints[0], expected, atol=1e-3)
    np.testing.assert_allclose(boxes[0], [*expected.min(0), *expected.max(0)], atol=1e-3)
    np.testing.assert_array_equal(keypoint_scores[0], output[0, 0, :, 2])
    assert scores[0] == pytest.approx(score.mean(), abs=1e-6)
    assert class_ids.tolist() == [0]


def test_movenet_person_below_the_confidence_is_left_out() -> None:
    assert len(_core.MoveNetDecoder(conf=0.95, input_size=(192, 192))([movenet_output()], (1, 1, 0, 0), SIZE)[0]) == 0


def test_movenet_point_that_is_not_finite_does_not_move_the_box() -> None:
    output = movenet_output()
    output[0, 0, 3, 0] = np.nan
    output[0, 0, 4, 1] = np.inf
    output[0, 0, 5, 2] = np.nan
    found = _core.MoveNetDecoder(conf=0.1, input_size=(100, 100), clip=False)([output], (1, 1, 0, 0), SIZE)
    np.testing.assert_array_equal(found[3][0, 3:6], 0)
    np.testing.assert_array_equal(found[4][0, 3:6], 0)
    good = np.delete(output[0, 0], [3, 4, 5], axis=0)
    np.testing.assert_allclose(found[0][0, :2], good[:, [1, 0]].min(0) * 100, atol=1e-4)
    assert found[1][0] == pytest.approx(good[:, 2].sum() / 17)


def test_movenet_with_no_finite_point_finds_nobody() -> None:
    output = np.full((1, 1, 17, 3), np.nan, np.float32)
    assert len(_core.MoveNetDecoder(conf=0.0, input_size=(192, 192))([output], (1, 1, 0, 0), SIZE)[0]) == 0


def test_movenet_quantized_equals_its_real_numbers() -> None:
    stored = np.random.default_rng(0).integers(20, 250, (1, 1, 17, 3), np.uint8)
    quantized = _core.MoveNetDecoder(conf=0.1, input_size=(192, 192), scale=1 / 256, zero_point=3)
    plain = _core.MoveNetDecoder(conf=0.1, input_size=(192, 192))
    real = slow.real(stored, 1 / 256, 3)
    assert_same(quantized([stored], TRANSFORM, SIZE), plain([real], TRANSFORM, SIZE), 0, 0)


def test_movenet_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 17, 3\), expected \(1, 1, 17, 3\)"):
        _core.MoveNetDecoder(conf=0.1, input_size=(192, 192))([np.zeros((1, 17, 3), np.float32)], TRANSFORM, SIZE)
