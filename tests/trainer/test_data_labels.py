"""Labels: what is refused, and round trips between their forms."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepose_trainer.cli import convert
from edgepose_trainer.data import load_data_config
from edgepose_trainer.data.coco import read_coco, write_coco
from edgepose_trainer.data.convert import convert_labels, mirrored
from edgepose_trainer.data.formats import read_label_file, write_pickle, write_text
from edgepose_trainer.data.labels import (
    PictureLabels,
    drop_duplicates,
    format_text,
    label_stem,
    make_labels,
    parse_text,
)
from edgepose_trainer.data.scan import scan_split
from hypothesis import given, settings
from hypothesis import strategies as st

SHAPE = (3, 3)
ROW = "0 0.5 0.5 0.25 0.5 0.4 0.3 2 0.6 0.7 1 0 0 0"


@st.composite
def some_labels(draw: st.DrawFn, dims: int = 3) -> PictureLabels:
    """People whose boxes lie within the picture."""
    people, points = draw(st.integers(0, 4)), 3
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sides = rng.uniform(1e-3, 1, (people, 2)).astype(np.float32)
    middle = (sides / 2 + rng.uniform(0, 1, (people, 2)) * (1 - sides)).astype(np.float32)
    places = rng.uniform(1e-4, 1, (people, points, 2)).astype(np.float32)
    visible = rng.integers(0, 3, (people, points, 1)).astype(np.float32)
    if dims == 2:
        return make_labels(rng.integers(0, 2, people), np.c_[middle, sides], places * (visible > 0))
    return make_labels(rng.integers(0, 2, people), np.c_[middle, sides], np.concatenate([places, visible], 2))


def assert_same(a: PictureLabels, b: PictureLabels, tolerance: float = 0.0) -> None:
    np.testing.assert_array_equal(a.cls, b.cls)
    np.testing.assert_allclose(a.boxes, b.boxes, rtol=0, atol=tolerance)
    np.testing.assert_allclose(a.keypoints, b.keypoints, rtol=0, atol=tolerance)


def test_text_is_read_as_written() -> None:
    labels = parse_text(ROW + "\n\n" + "1 0.1 0.2 0.1 0.1 " + "0 0 0 " * 3, SHAPE, 2)
    np.testing.assert_array_equal(labels.cls, [0, 1])
    np.testing.assert_allclose(labels.boxes[0], [0.5, 0.5, 0.25, 0.5])
    np.testing.assert_allclose(labels.keypoints[0], [[0.4, 0.3, 2], [0.6, 0.7, 1], [0, 0, 0]], rtol=1e-6)


@given(labels=some_labels())
def test_text_gives_back_every_bit(labels: PictureLabels) -> None:
    assert_same(parse_text(format_text(labels, 3), SHAPE, 2), labels)


@given(labels=some_labels(dims=2))
def test_text_without_visibility_gives_back_every_bit(labels: PictureLabels) -> None:
    assert_same(parse_text(format_text(labels, 2), (3, 2), 2), labels)


@given(labels=some_labels(), dims=st.sampled_from([2, 3]))
@settings(max_examples=30)
def test_a_pickle_gives_back_every_bit(
    labels: PictureLabels, dims: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "labels.pkl"
    write_pickle(path, labels, dims)
    expected = labels if dims == 3 else make_labels(labels.cls, labels.boxes, labels.keypoints[..., :2])
    assert_same(read_label_file(path, (3, dims), 2), expected)


@given(labels=some_labels(), width=st.integers(10, 4000), height=st.integers(10, 4000))
@settings(max_examples=30)
def test_coco_json_gives_labels_back_within_rounding(
    labels: PictureLabels, width: int, height: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "coco.json"
    write_coco(path, [("a.jpg", width, height, labels)], ["one", "two"], ["a", "b", "c"], [(0, 1)])
    found = read_coco(path, SHAPE, ["one", "two"])["a.jpg"]
    assert found.labels is not None
    assert_same(found.labels, labels, 1e-6)


def test_coco_json_is_read_by_the_evaluators_own_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    labels = parse_text(ROW, SHAPE, 1)
    write_coco(tmp_path / "c.json", [("a.jpg", 200, 100, labels)], ["person"], ["a", "b", "c"], [(0, 2)])
    (annotation,) = coco.COCO(str(tmp_path / "c.json")).loadAnns([1])
    assert annotation["bbox"] == pytest.approx([75, 25, 50, 50])
    assert annotation["keypoints"] == pytest.approx([80, 30, 2, 120, 70, 1, 0, 0, 0], rel=1e-6)
    assert annotation["num_keypoints"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ROW + " 1", "row 1: 15 numbers"),
        ("0 0.5 0.5 0.25 0.5 0.4 0.3 2 0.6 0.7 1", "row 1: 11 numbers .2 keypoints., expected 14"),
        (ROW + "\n0 0.5 0.5 0.1 0.1", "row 2: 5 numbers .0 keypoints., expected 14"),
        ("0 0.5 0.5 0.1 0.1 0.4 0.3 0.6 0.7 0 0", r"row 1: 11 numbers .*kpt_shape: \[3, 2\] would fit"),
        (ROW.replace("0.25", "nan"), "NaN"),
        (ROW.replace("0.25", "inf"), "NaN or infinite"),
        (ROW.replace("0.25", "0"), "no width or height"),
        (ROW.replace("0.25", "-0.25"), "no width or height"),
        (ROW.replace("0 0.5", "0 1.5"), "outside 0 to 1"),
        (ROW.replace("0 0.5", "0 150"), "outside 0 to 1"),
        (ROW.replace("0.6", "1.2"), "keypoint is outside"),
        (ROW.replace("0.6", "-0.2"), "keypoint is outside"),
        (ROW.replace("0.7 1", "0.7 3"), "visibility is not 0, 1 or 2"),
        ("1" + ROW[1:], "class is not one of 0 to 0"),
        ("0.5" + ROW[1:], "class is not one of"),
        (ROW.replace("0.25", "wide"), "not a number"),
    ],
)
def test_a_broken_row_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_text(text, SHAPE, 1)


def test_text_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + ROW.encode() + b"\r\n")
    assert read_label_file(tmp_path / "a.txt", SHAPE, 1).cls.tolist() == [0]


def test_a_point_without_label_may_lie_anywhere() -> None:
    labels = parse_text(ROW.replace("0 0 0", "-7 9e300 0"), SHAPE, 1)
    np.testing.assert_array_equal(labels.keypoints[0, 2], [0, 0, 0])


def test_repeated_rows_are_dropped_in_order() -> None:
    other = ROW.replace("0.25", "0.75")
    labels, dropped = drop_duplicates(parse_text("\n".join([other, ROW, other, ROW]), SHAPE, 1))
    assert dropped == 2
    np.testing.assert_allclose(labels.boxes[:, 2], [0.75, 0.25])


def test_labels_lie_where_images_becomes_labels() -> None:
    assert label_stem("/images/set/images/train/a.b.jpg") == "/images/set/labels/train/a.b"
    assert label_stem(Path("images/a.jpg")) == "labels/a"
    assert label_stem("/set/photos/a.jpg") == "/set/photos/a"
    assert label_stem("/set/images.jpg") == "/set/images"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([1, 2], "must hold a dict"),
        ({"cls": np.zeros(1), "boxes": np.ones((1, 4))}, "must hold a dict with cls, boxes, keypoints"),
        ({"cls": np.zeros(1), "boxes": np.ones((2, 4)), "keypoints": np.ones((1, 3, 3))}, "boxes has shape"),
        ({"cls": np.zeros(1), "boxes": np.ones((1, 4)), "keypoints": np.ones((1, 4, 3))}, "keypoints has shape"),
        ({"cls": 0, "boxes": np.ones((1, 4)), "keypoints": np.ones((1, 3, 3))}, r"cls has shape \(\), expected \(1,\)"),
        ({"cls": [0], "boxes": [[1], [2, 3]], "keypoints": np.ones((1, 3, 3))}, "boxes must be an array of numbers"),
        ({"cls": ["a"], "boxes": np.ones((1, 4)), "keypoints": np.ones((1, 3, 3))}, "must be an array of numbers"),
        ({"cls": np.zeros(1), "boxes": np.full((1, 4), np.nan), "keypoints": np.ones((1, 3, 3))}, "NaN"),
    ],
)
def test_a_broken_pickle_is_refused(document: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(document))
    with pytest.raises(ValueError, match=message):
        read_label_file(tmp_path / "a.pkl", SHAPE, 1)


class _Hostile:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("harm-was-done"),)


def test_a_hostile_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"cls": _Hostile()}))
    with pytest.raises(ValueError, match="plain arrays"):
        read_label_file(tmp_path / "a.pkl", SHAPE, 1)
    assert not (tmp_path / "harm-was-done").exists()


@given(content=st.binary(max_size=200), start=st.booleans())
@settings(max_examples=200)
def test_any_bytes_as_a_pickle_are_refused_without_harm(
    content: bytes, start: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    good = pickle.dumps({"cls": np.zeros(1), "boxes": np.ones((1, 4)), "keypoints": np.ones((1, 3, 3))}, 4)
    path = tmp_path_factory.getbasetemp() / "any.pkl"
    path.write_bytes(good[: len(content) * 2] + content if start else content)
    try:
        labels = read_label_file(path, SHAPE, 1)
    except ValueError:
        return
    assert labels.keypoints.shape[1:] == SHAPE


# --- convert


def read_all(data: dict[str, Any]) -> dict[str, PictureLabels]:
    (scan,) = scan_split(load_data_config(data), "train")
    assert scan.problems == []
    return {p.stem: a.labels for p, a in zip(scan.pictures, scan.checked, strict=True) if a.labels is not None}


def some_rows() -> dict[str, list[list[float]]]:
    row = [float(v) for v in ROW.split()]
    return {"one": [row], "two": [row, [0, 0.3, 0.3, 0.2, 0.2, *([0.3, 0.25, 1.0] * 3)]], "nobody": []}


@pytest.mark.parametrize("to", ["pickle", "coco"])
def test_converted_labels_train_the_same(to: str, make_dataset: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    data = make_dataset(some_rows())
    before = read_all(data)
    report = convert_labels(data, to, tmp_path)
    assert report.files == (3 if to == "pickle" else 1)
    for path in (tmp_path / "labels/train").glob("*.txt"):
        path.unlink()
    if to == "coco":
        data["annotations"] = {"train": "annotations/train.json"}
    after = read_all(data)
    assert before.keys() == after.keys()
    for name, labels in before.items():
        assert_same(after[name], labels, 1e-6 if to == "coco" else 0.0)


def test_coco_json_alone_becomes_text_and_a_yaml(make_dataset: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    data = make_dataset(some_rows())
    data["keypoint_names"] = ["left_ear", "right_ear", "nose"]
    before = read_all(data)
    convert_labels(data, "coco", tmp_path / "json")
    document = json.loads((tmp_path / "json/annotations/train.json").read_text())
    for image in document["images"]:
        image["file_name"] = Path(image["file_name"]).name
    source = tmp_path / "person.json"
    source.write_text(json.dumps(document))
    convert_labels(source, "text", tmp_path / "out")
    config = load_data_config(tmp_path / "out/data.yaml")
    assert (config.flip_idx, config.keypoint_names) == ((1, 0, 2), ("left_ear", "right_ear", "nose"))
    for name, labels in before.items():
        assert_same(parse_text((tmp_path / f"out/labels/{name}.txt").read_text(), SHAPE, 1), labels, 1e-6)


def test_convert_replaces_nothing_unasked(make_dataset: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    data = make_dataset(some_rows())
    with pytest.raises(FileExistsError, match="overwrite=true"):
        convert_labels(data, "text", tmp_path)
    assert convert_labels(data, "text", tmp_path, overwrite=True).files == 3


def test_the_command_tells_what_is_left_out_from_what_is_only_reported(
    make_dataset: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_dataset({**some_rows(), "broken": [[1]]})
    (tmp_path / "labels/train/lost.txt").write_text("")
    (tmp_path / "data.yaml").write_text(json.dumps(data))
    assert convert(str(tmp_path / "data.yaml"), "pickle", str(tmp_path / "out")) == 0
    broken, lost = capsys.readouterr().err.splitlines()
    assert broken.startswith(f"left out: {tmp_path}/images/train/broken.png: row 1")
    assert lost.startswith(f"{tmp_path}/labels/train/lost.txt: labels without a picture")


def test_a_json_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    document = {
        "images": [{"id": 1, "file_name": "../../harm.jpg", "width": 10, "height": 10}],
        "annotations": [],
        "categories": [{"id": 1, "name": "p", "keypoints": ["a"]}],
    }
    (tmp_path / "c.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match="leads out of the folder"):
        convert_labels(tmp_path / "c.json", "text", tmp_path / "out")
    assert not list(tmp_path.glob("**/*.txt"))


@pytest.mark.parametrize(
    "category", [{"skeleton": [[0, 1]]}, {"skeleton": [[1]]}, {"skeleton": "ab"}, {"keypoints": ["a", "a"]}]
)
def test_a_json_whose_yaml_could_not_be_read_is_refused(category: dict[str, Any], tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "p", "keypoints": ["a", "b"], **category}]
    (tmp_path / "c.json").write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    with pytest.raises(ValueError, match=r"c\.json: its keypoints must have different names, its skeleton be pairs"):
        convert_labels(tmp_path / "c.json", "text", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_class_that_nobody_is_of_stays_a_class(tmp_path: Path) -> None:
    categories = [{"id": i, "name": name, "keypoints": ["a", "b"]} for i, name in enumerate(["saw", "drill"])]
    categories.append({"id": 2, "name": "tools"})  # of no annotation, and without keypoints
    drill = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "keypoints": [2, 2, 2, 4, 4, 2]}
    images = [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}]
    (tmp_path / "c.json").write_text(json.dumps({"images": images, "annotations": [drill], "categories": categories}))
    convert_labels(tmp_path / "c.json", "text", tmp_path / "out")
    assert (tmp_path / "out/labels/a.txt").read_text().startswith("1 ")
    assert "0: saw, 1: drill" in (tmp_path / "out/data.yaml").read_text()


def test_flip_order_comes_from_left_and_right() -> None:
    assert mirrored(["nose", "left_eye", "right_eye", "Right knee", "Left knee", "tail"]) == [0, 2, 1, 4, 3, 5]
    assert mirrored(["head", "LWrist", "RWrist", "L_ankle", "R_ankle"]) == [0, 2, 1, 4, 3]
    assert mirrored(["nose", "lefteye", "righteye", "EYERIGHT", "EYELEFT"]) == [0, 2, 1, 4, 3]


@pytest.mark.parametrize("names", [["point0", "point1"], ["nose", "left_eye"], ["linkes Auge", "rechtes Auge"]])
def test_names_that_tell_no_sides_give_no_flip_order(names: list[str], tmp_path: Path) -> None:
    """An order in which every point stays would swap left and right in each mirrored picture."""
    assert mirrored(names) is None
    categories = [{"id": 1, "name": "p", "keypoints": names}]
    (tmp_path / "c.json").write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    report = convert_labels(tmp_path / "c.json", "text", tmp_path / "out")
    assert "flip_idx" not in (tmp_path / "out/data.yaml").read_text()
    assert "mirrors no picture" in str(report.problems[-1])


def test_text_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a.txt", parse_text(ROW, SHAPE, 1), 3)

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_text(tmp_path / "a.txt", parse_text("", SHAPE, 1), 3)
    assert (tmp_path / "a.txt").read_text().startswith("0 0.5")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
