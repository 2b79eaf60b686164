"""Networks: published sizes, both forms of YAML, decoding, folding, export heads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")

from edgepose_trainer.nn import HeadTensors, PoseNetwork, RawHeads, build_model, model_info  # noqa: E402
from edgepose_trainer.nn.blocks import SPPF, C2f, Conv  # noqa: E402
from edgepose_trainer.nn.config import read_config  # noqa: E402

PUBLISHED = {
    "yolov8n-pose": (3_289_964, 9.2),
    "yolov8s-pose": (11_615_724, 30.2),
    "yolov8m-pose": (26_447_596, 81.0),
    "yolov8l-pose": (44_465_580, 168.6),
    "yolov8x-pose": (69_462_204, 263.2),
    "yolov8x-p6-pose": (99_141_280, 1066.4),
}

TINY: dict[str, Any] = {
    "nc": 2,
    "kpt_shape": [3, 3],
    "scale": [0.33, 0.125, 64],
    "backbone": {"stem": 64, "stages": [[64, 1], [64, 1], [64, 1]]},
    "neck": {"levels": 2, "block": "C2f", "repeats": 1},
    "head": {"reg_max": 4},
}


def on_meta(*args: Any, **kwargs: Any) -> PoseNetwork:
    with torch.device("meta"):
        return build_model(*args, **kwargs)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_flops_equal_the_published_ones(name: str) -> None:
    info = model_info(on_meta(f"{name}.yaml"))
    parameters, gflops = PUBLISHED[name]
    assert info["parameters"] == parameters
    assert round(info["flops"] / 1e9, 1) == gflops
    assert type(info["flops"]) is int
    assert sum(row["flops"] for row in info["layers"]) == info["flops"]
    assert sum(row["parameters"] for row in info["layers"]) == info["parameters"]
    json.dumps(info)


def test_the_head_reads_the_finest_levels_that_the_neck_gives_out() -> None:
    """The pictures' sides are still multiples of the deepest layer's stride."""
    network = build_model({**TINY, "neck": {"levels": 3, "outputs": 2}}).eval()
    assert network.strides == [4, 8]
    assert network.stride == 16
    with torch.no_grad():
        raw = network.raw(torch.rand(1, 3, 48, 80))
    assert [tuple(level.shape[2:]) for level in raw.score] == [(12, 20), (6, 10)]


def test_flops_grow_with_the_area() -> None:
    network = on_meta("yolov8n-pose")
    assert model_info(network, 320)["flops"] * 4 == model_info(network, 640)["flops"]
    with pytest.raises(ValueError, match="multiple of the largest stride 32"):
        model_info(network, 300)


@pytest.mark.parametrize(("scale", "width"), [("t", 0.1875), ("p", 0.125)])
def test_scales_below_n_are_letters_of_the_same_yaml(scale: str, width: float) -> None:
    network = on_meta(f"yolov8{scale}-pose.yaml")
    same = on_meta("yolov8-pose.yaml", scale=[0.33, width, 1024])
    assert model_info(network)["parameters"] == model_info(same)["parameters"] < 3_289_964 * 0.65
    assert network.model[0].conv.out_channels == math.ceil(64 * width / 8) * 8


@pytest.mark.parametrize("kpt_shape", [(1, 2), (4, 3), (21, 3), (17, 2)])
@pytest.mark.parametrize("nc", [1, 5])
def test_any_keypoints_and_classes_give_outputs_of_their_shape(kpt_shape: tuple[int, int], nc: int) -> None:
    network = build_model(TINY, kpt_shape=kpt_shape, nc=nc)
    images = torch.rand(2, 3, 32, 64)
    raw = network.train()(images)
    assert isinstance(raw, RawHeads)
    assert [tuple(x.shape) for x in raw.score] == [(2, nc, 4, 8), (2, nc, 2, 4)]
    assert raw.keypoints[0].shape[1] == kpt_shape[0] * kpt_shape[1]
    with torch.no_grad():
        decoded = network.eval()(images)
    assert decoded.shape == (2, 4 + nc + kpt_shape[0] * kpt_shape[1], 4 * 8 + 2 * 4)
    assert decoded.dtype == torch.float32


def decode_by_loops(raw: RawHeads, strides: list[int], reg_max: int, points: int) -> np.ndarray:
    """Decoding of the first picture as the brief of the format says it, cell by cell."""
    rows = []
    for level, stride in enumerate(strides):
        box, score, keypoints = (tensors[level][0].double().numpy() for tensors in raw[:3])
        for y in range(box.shape[1]):
            for x in range(box.shape[2]):
                logits = box[:, y, x].reshape(4, reg_max)
                weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
                left, top, right, bottom = (weights * np.arange(reg_max)).sum(1)
                x1, y1, x2, y2 = x + 0.5 - left, y + 0.5 - top, x + 0.5 + right, y + 0.5 + bottom
                row = [(x1 + x2) / 2 * stride, (y1 + y2) / 2 * stride, (x2 - x1) * stride, (y2 - y1) * stride]
                row += [1 / (1 + math.exp(-v)) for v in score[:, y, x]]
                for px, py, v in keypoints[:, y, x].reshape(points, 3):
                    row += [(px * 2 + x) * stride, (py * 2 + y) * stride, 1 / (1 + math.exp(-v))]
                rows.append(row)
    return np.array(rows).T


def test_decoding_equals_the_formula_cell_by_cell() -> None:
    torch.manual_seed(0)
    network = build_model(TINY)
    sizes = [(3, 5), (2, 3)]
    raw = RawHeads(*([torch.randn(1, c, *size) for size in sizes] for c in (16, 2, 9)))
    expected = decode_by_loops(raw, network.strides, 4, 3)
    np.testing.assert_allclose(network.decode(raw)[0].numpy(), expected, rtol=1e-5, atol=1e-4)


def with_running_statistics(network: PoseNetwork) -> PoseNetwork:
    """Batch norms that do something, as after training."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 2.0)
    return network.eval()


def test_folding_keeps_the_outputs_and_the_network_it_was_made_from() -> None:
    network = with_running_statistics(build_model(TINY))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        folded = network.folded()
        torch.testing.assert_close(folded(images), network(images), rtol=1e-4, atol=1e-3)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
    assert sum(p.numel() for p in folded.parameters()) == model_info(network, 64)["parameters"]


@pytest.mark.parametrize("split", [True, False])
def test_export_heads_are_the_raw_heads_in_pieces(split: bool) -> None:
    network = with_running_statistics(build_model(TINY))
    heads = HeadTensors(network, split_visibility=split)
    images = torch.rand(1, 3, 64, 32)
    with torch.no_grad():
        raw = network.raw(images)
        found = dict(zip(heads.outputs, heads(images), strict=True))
    for level, stride in enumerate(network.strides):
        close = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(found["box", stride], raw.box[level], **close)
        torch.testing.assert_close(found["score", stride], raw.score[level], **close)
        points = raw.keypoints[level].unflatten(1, (3, 3))
        if split:
            torch.testing.assert_close(found["keypoints", stride], points[:, :, :2].flatten(1, 2), **close)
            torch.testing.assert_close(found["visibility", stride], points[:, :, 2], **close)
        else:
            torch.testing.assert_close(found["keypoints", stride], raw.keypoints[level], **close)


def test_channels_last_goes_through_the_whole_network() -> None:
    network = build_model(TINY).to(memory_format=torch.channels_last).train()
    raw = network(torch.rand(2, 3, 64, 64).to(memory_format=torch.channels_last))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in raw.tensors())


@pytest.mark.slow
def test_decoded_network_exports_with_another_picture_size_than_the_trace() -> None:
    network = build_model(TINY).eval()
    side = torch.export.Dim("side", min=2, max=8)
    program = torch.export.export(
        network, (torch.rand(1, 3, 64, 64),), dynamic_shapes={"images": {2: side * 16, 3: side * 16}}
    )
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), network(images), rtol=1e-4, atol=1e-4)


def as_listed(name: str) -> dict[str, Any]:
    """A packaged model in the field's form: every layer as [from, repeats, module, args]."""
    config = read_config(name)
    rows = [
        [s.source[0] if len(s.source) == 1 else list(s.source), s.repeats, s.module, list(s.args)]
        for s in config.layers
    ]
    for row in rows:
        if row[2] == "Upsample":
            row[2:] = ["nn.Upsample", ["None", 2, "nearest"]]
    scales = {letter: [0.33, width, 1024] for letter, width in (("n", 0.25), ("s", 0.5))}
    return {"nc": 1, "kpt_shape": [17, 3], "scales": scales, "backbone": rows[:10], "head": rows[10:]}


def test_a_yaml_that_lists_every_layer_gives_the_same_network(tmp_path: Path) -> None:
    path = tmp_path / "my-yolov8s-pose.yaml"
    path.write_text(yaml.safe_dump(as_listed("yolov8n-pose.yaml")))
    assert model_info(on_meta(path))["parameters"] == PUBLISHED["yolov8s-pose"][0]
    assert model_info(on_meta(path, scale="n"))["parameters"] == PUBLISHED["yolov8n-pose"][0]


def test_a_scale_in_the_name_picks_it_from_the_file_of_all_scales(tmp_path: Path) -> None:
    (tmp_path / "yolov8-pose.yaml").write_text(yaml.safe_dump({**as_listed("yolov8n-pose.yaml"), "nc": 7}))
    config = read_config(tmp_path / "yolov8s-pose.yaml")
    assert (config.nc, config.width) == (7, 0.5)
    with pytest.raises(FileNotFoundError):
        read_config(tmp_path / "yolov8s-p6-pose.yaml")


def test_the_packaged_yaml_without_a_scale_is_the_fields_smallest() -> None:
    with pytest.warns(UserWarning, match="'n' is taken"):
        network = on_meta("yolov8-pose.yaml")
    assert model_info(network)["parameters"] == PUBLISHED["yolov8n-pose"][0]


def test_a_yaml_whose_name_has_no_scale_takes_the_first_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(as_listed("yolov8n-pose.yaml")))
    with pytest.warns(UserWarning, match="'n' is taken"):
        network = on_meta(path)
    assert model_info(network)["parameters"] == PUBLISHED["yolov8n-pose"][0]


def test_the_stored_document_gives_the_same_network_again() -> None:
    for network in (on_meta("yolov8m-pose", nc=3, kpt_shape=[4, 2]), on_meta(TINY)):
        again = PoseNetwork(read_config(json.loads(json.dumps(network.config.document))))
        shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in (network, again)]
        assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("given", "layer"),
    [("nn.SiLU()", "SiLU"), ("relu", "ReLU"), ("torch.nn.ReLU6()", "ReLU6"), ("Hardswish", "Hardswish")],
)
def test_the_activation_is_chosen_by_name_without_evaluating_it(given: str, layer: str) -> None:
    network = build_model({**TINY, "activation": given})
    kinds = {type(m.act).__name__ for m in network.modules() if isinstance(m, Conv)}
    assert kinds == {layer}


def test_priors_start_with_five_people_a_picture_of_640() -> None:
    network = build_model({**TINY, "nc": 1})
    for branch, stride in zip(network.head.cv3, network.strides, strict=True):
        probability = torch.sigmoid(branch[-1].bias).item()
        assert probability * (640 / stride) ** 2 == pytest.approx(5, rel=0.01)


def test_sppf_equals_pools_of_growing_size_side_by_side() -> None:
    layer = SPPF(8, 8, 5).eval()
    x = torch.randn(1, 8, 20, 20)
    with torch.no_grad():
        first = layer.cv1(x)
        pools = [torch.nn.functional.max_pool2d(first, k, 1, k // 2) for k in (5, 9, 13)]
        torch.testing.assert_close(layer(x), layer.cv2(torch.cat([first, *pools], 1)))


def test_c2f_sends_every_bottleneck_on() -> None:
    layer = C2f(8, 8, 3, True).eval()
    assert layer.cv2.conv.in_channels == (2 + 3) * 4
    x = torch.randn(1, 8, 6, 6)
    with torch.no_grad():
        a, b = layer.cv1(x).chunk(2, 1)
        c = b + layer.m[0].cv2(layer.m[0].cv1(b))
        d = c + layer.m[1].cv2(layer.m[1].cv1(c))
        e = d + layer.m[2].cv2(layer.m[2].cv1(d))
        torch.testing.assert_close(layer(x), layer.cv2(torch.cat([a, b, c, d, e], 1)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"kpt_shap": [17, 3]}, ValueError, "nearest known one is 'kpt_shape'"),
        ({"kpt_shape": [17, 4]}, ValueError, r"kpt_shape\[1\] must be in 2..3, got 4"),
        ({"kpt_shape": 17}, ValueError, "kpt_shape must be"),
        ({"nc": 0}, ValueError, "nc must be in"),
        ({"nc": "1"}, TypeError, "nc must be an integer, got '1'"),
        ({"activation": "siluu"}, ValueError, "is 'silu'"),
        ({"scale": [0.33, -1, 64]}, ValueError, "above 0"),
        ({"head": {"regmax": 4}}, ValueError, "nearest is 'reg_max'"),
        ({"neck": {"levels": 9}}, ValueError, "neck: levels must be in 1..3"),
        ({"neck": {"levels": 2, "outputs": 3}}, ValueError, "neck: outputs must be in 1..2"),
        ({"backbone": {"stem": 64, "stages": [[1 << 40, 1]]}}, ValueError, "channels must be in"),
        ({"backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": [[-1, 1, "C2ff", [8]]]}, ValueError, "nearest 'C2f'"),
        ({"backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": []}, ValueError, "Pose head must be the last layer"),
        ({"backbone": [[5, 1, "Conv", [8, 3, 2]]], "head": []}, ValueError, "layer 0: from must be in"),
        ({"task": "segment"}, ValueError, "trains pose models"),
    ],
)
def test_a_wrong_yaml_is_refused_with_the_reason(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        on_meta({**TINY, **change})


def test_an_unknown_model_name_says_which_there_are() -> None:
    with pytest.raises(FileNotFoundError, match=r"yolov8\{p,t,n,s,m,l,x\}-pose.yaml"):
        build_model("yolov9n-pose.yaml")
    with pytest.raises(ValueError, match="no scale 'q' among"):
        build_model("yolov8q-pose.yaml")


def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(b"\xff\xfe\x00[")
    with pytest.raises(ValueError, match="not readable as YAML"):
        build_model(path)
    path.write_text("- 1\n- 2\n")
    with pytest.raises(ValueError, match="expected a mapping"):
        build_model(path)
