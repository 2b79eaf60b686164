"""The decoder of raw YOLOv8-pose heads against the formulas, every cell decoded in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references import decode as slow

from edgepose import _core

TRANSFORM = (0.5, 0.75, 3.0, -2.0)
SIZE = (190, 130)
LAYOUTS = ["NCHW", "NHWC", "NCA", "NAC"]
DTYPES = ["float32", "float16", "int8", "uint8"]

property_test = settings(deadline=None, derandomize=True, max_examples=60)


class Network:
    """Random heads of one shape: their tensors, and the dicts that describe them."""

    def __init__(
        self,
        rules: slow.Rules,
        seed: int = 0,
        *,
        layouts: tuple[str, ...] = ("NCHW",),
        dtypes: tuple[str, ...] = ("float32",),
        input_size: tuple[int, int] = (64, 96),
        strides: tuple[int, ...] = (8, 16, 32),
        reg_max: int = 16,
        separate_visibility: bool = False,
        heatmap: bool = False,
    ) -> None:
        self.rules, self.input_size, self.reg_max = rules, input_size, reg_max
        self.rng = np.random.default_rng(seed)
        self.outputs: list[np.ndarray] = []
        self.heads: list[dict[str, Any]] = []
        k, d = rules.kpt_shape
        channels = {"box": 4 * reg_max, "score": rules.num_classes, "keypoints": k * d}
        if separate_visibility:
            channels |= {"keypoints": 2 * k, "visibility": k}
        for stride in strides:
            for role, count in channels.items():
                index = len(self.heads)
                self._add(role, count, stride, layouts[index % len(layouts)], dtypes[index % len(dtypes)])
        if heatmap:
            self._add("heatmap", 4 * k, strides[0], layouts[-1], dtypes[-1])
        self._shuffle()

    def _add(self, role: str, channels: int, stride: int, layout: str, dtype: str) -> None:
        grid = (self.input_size[0] // stride, self.input_size[1] // stride)
        # A coarse grid of logits: distinct scores are far enough apart for every exp to order them alike.
        values = np.round(self.rng.normal(0, 2, (1, channels, *grid)) * 16) / 16
        head: dict[str, Any] = {"role": role, "stride": stride, "layout": layout, "dtype": dtype}
        if dtype in ("int8", "uint8"):
            head |= {"scale": float(self.rng.uniform(0.03, 0.1)), "zero_point": int(self.rng.integers(-20, 120))}
            info = np.iinfo(dtype)
            values = np.clip(np.round(values / head["scale"]) + head["zero_point"], info.min, info.max)
        tensor = values.astype(dtype)
        if layout in ("NHWC", "NAC"):
            tensor = np.ascontiguousarray(tensor.transpose(0, 2, 3, 1))
        shape = {"NCA": (1, channels, -1), "NAC": (1, grid[0] * grid[1], channels)}.get(layout, tensor.shape)
        self.outputs.append(tensor.reshape(shape))
        self.heads.append(head)

    def _shuffle(self) -> None:
        places = self.rng.permutation(len(self.outputs))
        outputs = [self.outputs[0]] * len(self.outputs)
        for place, head, output in zip(places, self.heads, self.outputs, strict=True):
            head["index"] = int(place)
            outputs[place] = output
        self.outputs = outputs

    def decoder(self, **options: Any) -> _core.YoloHeadsDecoder:
        fields = {name: getattr(self.rules, name) for name in self.rules.__dataclass_fields__}
        fields |= {"heads": self.heads, "reg_max": self.reg_max, "input_size": self.input_size}
        return _core.YoloHeadsDecoder(**fields | options)

    def slow(self) -> slow.Detections:
        return slow.decode_heads(self.outputs, self.heads, self.reg_max, self.input_size, TRANSFORM, SIZE, self.rules)

    def head(self, role: str, stride: int = 8) -> dict[str, Any]:
        return next(head for head in self.heads if head["role"] == role and head["stride"] == stride)


def in_order_of(ours: slow.Detections, theirs: slow.Detections) -> slow.Detections:
    """Theirs, people of equal scores in the order of ours."""
    near = abs(ours[1][:, None] - theirs[1]) <= 1e-6
    apart = abs(ours[0][:, None] - theirs[0]).sum(-1) + abs(ours[3][:, None] - theirs[3]).sum((-1, -2))
    order = np.where(near, apart, np.inf).argmin(1)
    assert sorted(order) == list(range(len(order)))
    return tuple(part[order] for part in theirs)  # type: ignore[return-value]


def assert_same(ours: slow.Detections, theirs: slow.Detections) -> None:
    assert len(ours[0]) == len(theirs[0])
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(ours[2], theirs[2])
    np.testing.assert_allclose(ours[3], theirs[3], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(ours[4], theirs[4], rtol=0, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("separate", [False, True])
def test_every_layout_and_type_equals_the_formulas(layout: str, dtype: str, num_classes: int, separate: bool) -> None:
    rules = slow.Rules(num_classes=num_classes, iou=0.5)
    network = Network(rules, layouts=(layout,), dtypes=(dtype,), separate_visibility=separate)
    expected = network.slow()
    assert len(expected[0]) > 5
    assert_same(network.decoder()(network.outputs, TRANSFORM, SIZE), expected)


@property_test
@given(
    st.builds(
        slow.Rules,
        num_classes=st.sampled_from([1, 2, 5]),
        kpt_shape=st.tuples(st.integers(1, 20), st.sampled_from([2, 3])),
        conf=st.sampled_from([0.0, 0.01, 0.25, 0.5, 0.9, 1.0]),
        iou=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
        max_det=st.sampled_from([1, 10, 2**40]),
        max_candidates=st.sampled_from([1, 50, 2**40]),
        agnostic=st.booleans(),
        clip=st.booleans(),
    ),
    st.integers(0, 2**32),
    st.lists(st.sampled_from(LAYOUTS), min_size=1, max_size=5),
    st.lists(st.sampled_from(DTYPES), min_size=1, max_size=5),
    st.sampled_from([(32, 32), (64, 32), (32, 96)]),
    st.sampled_from([(8, 16, 32), (16,), (8, 16), (4, 32)]),
    st.sampled_from([1, 2, 16, 17]),
    st.booleans(),
    st.booleans(),
)
def test_any_mixture_of_heads_equals_the_formulas(
    rules: slow.Rules,
    seed: int,
    layouts: list[str],
    dtypes: list[str],
    input_size: tuple[int, int],
    strides: tuple[int, ...],
    reg_max: int,
    separate: bool,
    heatmap: bool,
) -> None:
    network = Network(
        rules,
        seed,
        layouts=tuple(layouts),
        dtypes=tuple(dtypes),
        input_size=input_size,
        strides=strides,
        reg_max=reg_max,
        separate_visibility=separate and rules.kpt_shape[1] == 3,
        heatmap=heatmap,
    )
    ours, theirs = network.decoder()(network.outputs, TRANSFORM, SIZE), network.slow()
    assert_same(ours, in_order_of(ours, theirs) if heatmap and len(ours[0]) == len(theirs[0]) > 0 else theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_keypoints_move_to_the_peaks_of_the_heatmap(layout: str, dtype: str) -> None:
    rules = slow.Rules(iou=0.5)
    network = Network(rules, layouts=(layout,), dtypes=(dtype,), input_size=(128, 96), heatmap=True)
    found = network.decoder()(network.outputs, TRANSFORM, SIZE)
    assert_same(found, network.slow())
    without = [head for head in network.heads if head["role"] != "heatmap"]
    regressed = network.decoder(heads=without)(network.outputs, TRANSFORM, SIZE)
    number = {box.tobytes(): i for i, box in enumerate(regressed[0])}
    before = [number[box.tobytes()] for box in found[0]]
    assert (abs(found[3] - regressed[3][before]) > 1).any(axis=-1).mean() > 0.3
    assert before != sorted(before)
    assert (found[1] < regressed[1][before]).any()


def test_a_single_peak_takes_the_point_that_is_near_it() -> None:
    """A bump at (37.5, 22.5) pixels draws the point from 4 pixels away; a far higher one beside the box does not."""
    network = Network(slow.Rules(kpt_shape=(1, 2), clip=False), reg_max=1, strides=(8,), heatmap=True)
    box, score, keypoints, heatmap = (
        network.outputs[network.head(role)["index"]] for role in ("box", "score", "keypoints", "heatmap")
    )
    score[:], heatmap[:] = -9, -9
    score[0, 0, 3, 5] = 4  # the cell at (40, 24) pixels, its middle at (44, 28)
    box[0, :, 3, 5] = 3  # to 24 pixels on each side
    keypoints[0, :, 3, 5] = 0.1, -0.2
    y, x = np.mgrid[:16, :24] * 4 + 2.0
    probability = 0.9 * np.exp(-((x - 37.5) ** 2 + (y - 22.5) ** 2) / 72) + 1e-4
    probability[:, 20:] = 0.95
    quarters = np.log(probability / (1 - probability)).reshape(8, 2, 12, 2).transpose(1, 3, 0, 2)
    heatmap[0] = quarters.reshape(4, 8, 12)
    _, scores, _, points, _ = network.decoder()(network.outputs, (1.0, 1.0, 0.0, 0.0), (96, 64))
    np.testing.assert_allclose(points[0, 0], (37.5, 22.5), atol=0.75)
    peak = probability[:, :20].max()
    np.testing.assert_allclose(scores[0], np.sqrt(peak / (1 + np.exp(-4))), rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_heatmap_that_is_not_finite_gives_finite_points(value: float, level: str) -> None:
    network = Network(slow.Rules(), heatmap=True)
    heatmap = network.outputs[network.head("heatmap")["index"]]
    heatmap[network.rng.random(heatmap.shape) < 0.2] = value
    found = network.decoder()(network.outputs, TRANSFORM, SIZE)
    assert len(found[0]) > 5
    assert all(np.isfinite(part).all() for part in found)


def test_heatmaps_that_do_not_fit_are_refused() -> None:
    network = Network(slow.Rules(), heatmap=True)
    network.head("heatmap")["stride"] = 64
    with pytest.raises(ValueError, match="is that of no box, score and keypoints"):
        network.decoder()
    twice = Network(slow.Rules(), heatmap=True)
    twice._add("heatmap", 68, 16, "NCHW", "float32")
    twice.heads[-1]["index"] = len(twice.outputs) - 1
    with pytest.raises(ValueError, match="have the same role"):
        twice.decoder()
    wide = Network(slow.Rules(), heatmap=True)
    place = wide.head("heatmap")["index"]
    wide.outputs[place] = np.zeros((1, 17, 8, 12), np.float32)
    with pytest.raises(ValueError, match=r"heatmap, stride 8\) has shape .*expected \(1, 68, 8, 12\)"):
        wide.decoder()(wide.outputs, TRANSFORM, SIZE)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_instruction_set_gives_the_same_bits(dtype: str) -> None:
    before = _core.simd_level()
    for nms, num_classes, layout in (("iou", 1, "NCHW"), ("oks", 3, "NCA"), ("iou", 80, "NAC")):
        rules = slow.Rules(num_classes, conf=0.3, iou=0.5, nms=nms, sigmas=(0.05,) * 17)
        network = Network(rules, layouts=(layout,), dtypes=(dtype,), input_size=(160, 128))
        if "float" in dtype:
            for output in network.outputs:
                output[network.rng.random(output.shape) < 1e-3] = np.nan
        answers = []
        for name in _core.available_simd_levels():
            _core.set_simd_level(name)
            answers.append(network.decoder()(network.outputs, TRANSFORM, SIZE))
        _core.set_simd_level(before)
        assert len(answers[0][0]) > 10
        for answer in answers[1:]:
            for part, first in zip(answer, answers[0], strict=True):
                np.testing.assert_array_equal(part, first)


def test_suppression_by_oks_equals_the_formulas() -> None:
    rules = slow.Rules(num_classes=2, kpt_shape=(5, 3), nms="oks", sigmas=(0.05, 0.04, 0.03, 0.06, 0.1), iou=0.2)
    network = Network(rules)
    expected = network.slow()
    assert len(network.decoder(nms="iou", iou=1.0)(network.outputs, TRANSFORM, SIZE)[0]) > len(expected[0]) > 5
    assert_same(network.decoder()(network.outputs, TRANSFORM, SIZE), expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("conf", [0.0, 0.2, 0.5, 0.731, 1.0])
def test_the_threshold_in_integers_is_the_threshold_on_scores(dtype: str, conf: float, level: str) -> None:
    rules = slow.Rules(kpt_shape=(1, 2), conf=conf, iou=1.0, max_det=1000)
    network = Network(rules, input_size=(16, 16), strides=(1,), dtypes=(dtype,), reg_max=1)
    score = network.head("score", 1)
    score |= {"scale": 0.05, "zero_point": 7}
    info = np.iinfo(dtype)
    stored = np.arange(info.min, info.max + 1, dtype=dtype).reshape(1, 1, 16, 16)
    network.outputs[score["index"]] = stored
    scores = network.decoder()(network.outputs, TRANSFORM, SIZE)[1]
    every = slow.sigmoid(slow.real(stored, 0.05, 7)).ravel()
    np.testing.assert_allclose(np.sort(scores), np.sort(every[every > conf]), atol=1e-7)


def test_a_tensor_whose_integers_never_pass_finds_nobody(level: str) -> None:
    network = Network(slow.Rules(conf=0.9), dtypes=("int8",))
    for stride in (8, 16, 32):
        network.head("score", stride)["scale"] = 0.001
    assert len(network.decoder()(network.outputs, TRANSFORM, SIZE)[0]) == 0


@pytest.mark.parametrize("input_size", [(64, 64), (96, 32), (128, 160)])
def test_a_dynamic_input_size_is_read_from_the_tensors(input_size: tuple[int, int]) -> None:
    network = Network(slow.Rules(), layouts=("NCA", "NHWC", "NAC"), input_size=input_size)
    assert_same(network.decoder(input_size=None)(network.outputs, TRANSFORM, SIZE), network.slow())


def test_flat_layouts_need_the_input_size() -> None:
    with pytest.raises(ValueError, match="input_size is not given"):
        Network(slow.Rules(), layouts=("NCA", "NAC")).decoder(input_size=None)


def test_a_box_whose_logits_are_not_finite_is_dropped(level: str) -> None:
    for bad in (np.nan, np.inf):
        network = Network(slow.Rules(iou=1.0, max_det=10**6))
        before = len(network.decoder()(network.outputs, TRANSFORM, SIZE)[0])
        box, score = (network.outputs[network.head(role)["index"]] for role in ("box", "score"))
        box[0, 20, 2, 3] = bad
        score[0, 0, 2, 3] = 5
        box[0, 20, 2, 4] = bad
        score[0, 0, 2, 4] = -5
        found = network.decoder()(network.outputs, TRANSFORM, SIZE)
        assert all(np.isfinite(part).all() for part in found)
        assert before - 2 <= len(found[0]) <= before


def test_a_keypoint_that_is_not_finite_becomes_the_origin_with_score_0(level: str) -> None:
    network = Network(slow.Rules(kpt_shape=(3, 3), conf=0.99))
    score, keypoints = (network.outputs[network.head(role, 32)["index"]] for role in ("score", "keypoints"))
    score[0, 0, 1, 2] = 10
    keypoints[0, 0, 1, 2] = np.nan
    keypoints[0, 4, 1, 2] = np.inf
    keypoints[0, 8, 1, 2] = np.nan
    found = network.decoder()(network.outputs, TRANSFORM, SIZE)
    np.testing.assert_array_equal(found[3][0], 0)
    np.testing.assert_array_equal(found[4][0], 0)


def test_a_score_that_is_not_finite_never_passes(level: str) -> None:
    network = Network(slow.Rules(conf=0.0))
    for stride in (8, 16, 32):
        network.outputs[network.head("score", stride)["index"]][:] = np.nan
    network.outputs[network.head("score")["index"]][0, 0, 0, 0] = np.inf
    assert len(network.decoder()(network.outputs, TRANSFORM, SIZE)[0]) == 0


def test_extra_outputs_are_not_read() -> None:
    network = Network(slow.Rules())
    assert_same(network.decoder()([*network.outputs, np.zeros(3, np.float32)], TRANSFORM, SIZE), network.slow())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"role": "boxes"}, "head role is 'boxes'"),
        ({"layout": "HWC"}, "head layout is 'HWC'"),
        ({"dtype": "float64"}, "dtype is 'float64'"),
        ({"scale": 0.0}, "scale is 0"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"zero_point": 70000}, "zero point is 70000"),
        ({"stride": 0}, "stride of output"),
        ({"stride": 64}, "no box head of stride 64|no score head of stride 8"),
        ({"index": -1}, "index of a head is -1"),
        ({"bias": 1}, "unknown key 'bias'"),
    ],
)
def test_a_bad_head_is_refused(change: dict[str, Any], message: str) -> None:
    network = Network(slow.Rules())
    network.head("score").update(change)
    with pytest.raises(ValueError, match=message):
        network.decoder()


def test_a_head_without_a_field_is_refused() -> None:
    network = Network(slow.Rules())
    del network.head("score")["layout"]
    with pytest.raises(ValueError, match="a head has no 'layout'"):
        network.decoder()


def test_a_head_field_of_the_wrong_type_is_refused() -> None:
    network = Network(slow.Rules())
    network.head("score")["stride"] = "8"
    with pytest.raises(TypeError, match="'stride' of a head is '8'"):
        network.decoder()


def test_two_heads_of_one_role_are_refused() -> None:
    network = Network(slow.Rules())
    network.head("score")["role"] = "box"
    with pytest.raises(ValueError, match="have the same role"):
        network.decoder()


def test_two_heads_of_one_output_are_refused() -> None:
    network = Network(slow.Rules())
    network.head("score")["index"] = network.head("box")["index"]
    with pytest.raises(ValueError, match="named by two heads"):
        network.decoder()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": []}, "heads is empty"),
        ({"reg_max": 0}, "reg_max is 0"),
        ({"input_size": (0, 64)}, "input_size is"),
        ({"input_size": (60, 64)}, "multiples of stride 8"),
        ({"conf": 2}, "conf is 2"),
        ({"kpt_shape": (0, 3)}, "is 0, expected at least 1"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Network(slow.Rules()).decoder(**options)


def test_visibility_without_a_place_for_it_is_refused() -> None:
    network = Network(slow.Rules(), separate_visibility=True)
    with pytest.raises(ValueError, match="needs kpt_shape"):
        network.decoder(kpt_shape=(17, 2))


def test_outputs_that_do_not_fit_are_refused() -> None:
    network = Network(slow.Rules())
    decode = network.decoder()
    place = network.head("keypoints")["index"]
    for output, message in (
        (
            np.zeros((1, 51, 8, 11), np.float32),
            r"\(keypoints, stride 8\) has shape \(1, 51, 8, 11\), expected \(1, 51, 8, 12\)",
        ),
        (np.zeros((1, 34, 8, 12), np.float32), r"expected \(1, 51, 8, 12\)"),
        (np.zeros((1, 51, 96), np.float32), r"expected \(1, 51, 8, 12\)"),
        (np.zeros((1, 51, 8, 12), np.int8), "is int8, expected float32"),
    ):
        outputs = list(network.outputs)
        outputs[place] = output
        with pytest.raises(ValueError, match=message):
            decode(outputs, TRANSFORM, SIZE)
    with pytest.raises(ValueError, match="got 8 output tensors, expected at least 9"):
        decode(network.outputs[:8], TRANSFORM, SIZE)


def test_tensors_of_two_input_sizes_are_refused() -> None:
    small, large = Network(slow.Rules(), input_size=(64, 64)), Network(slow.Rules(), input_size=(96, 96))
    outputs = list(small.outputs)
    place = small.head("box", 32)["index"]
    outputs[place] = large.outputs[place]
    with pytest.raises(ValueError, match="has shape"):
        small.decoder(input_size=None)(outputs, TRANSFORM, SIZE)
