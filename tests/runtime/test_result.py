"""PoseResult: what it holds, how it is cut, and what it is written as."""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgepose.contract import PeopleSpec
from edgepose.result import PoseResult, Speed

SPEC = PeopleSpec(
    class_names=("person", "dog"),
    keypoint_names=("nose", "left_eye", "right_eye"),
    skeleton=((0, 1), (0, 2)),
    flip=(0, 2, 1),
    sigmas=(0.026, 0.025, 0.025),
)


PERSON = {"class_id": 0, "class": "person", "score": 0.5, "box": [1, 2, 3, 4], "keypoints": [[0, 0, 0]] * 3}


def make(n: int = 4, spec: PeopleSpec = SPEC, seed: int = 0, **fields: object) -> PoseResult:
    rng = np.random.default_rng(seed)
    k = len(spec.keypoint_names) or 17
    corners = np.sort(rng.uniform(0, 640, (n, 2, 2)), axis=1).reshape(n, 4)
    return PoseResult(
        corners.astype(np.float32),
        np.sort(rng.random(n, np.float32))[::-1],
        rng.integers(0, 2, n).astype(np.int32),
        rng.uniform(0, 640, (n, k, 2)).astype(np.float32),
        rng.random((n, k), np.float32),
        (640, 480),
        spec,
        **fields,  # type: ignore[arg-type]
    )


@st.composite
def results(draw: st.DrawFn) -> PoseResult:
    n, k = draw(st.integers(0, 5)), draw(st.integers(0, 4))
    pixels = st.floats(-1e5, 1e5, width=32)
    unit = st.floats(0, 1, width=32)
    names = tuple(f"k{i}" for i in range(k))
    return PoseResult(
        draw(hnp.arrays(np.float32, (n, 4), elements=pixels)),
        draw(hnp.arrays(np.float32, n, elements=unit)),
        draw(hnp.arrays(np.int32, n, elements=st.integers(0, 1))),
        draw(hnp.arrays(np.float32, (n, k, 2), elements=pixels)),
        draw(hnp.arrays(np.float32, (n, k), elements=unit)),
        (draw(st.integers(1, 10000)), draw(st.integers(1, 10000))),
        PeopleSpec(("a", "b"), names, tuple((i, i + 1) for i in range(k - 1)), tuple(range(k)), (0.05,) * k),
        Speed(1.5, 2.5, 0.5),
        draw(st.none() | st.text()),
        draw(st.none() | st.integers(0, 2**40)),
        draw(st.none() | st.floats(0, 1e9)),
    )


def test_arrays_have_the_documented_dtypes_and_are_read_only() -> None:
    r = make()
    dtypes = (r.boxes.dtype, r.scores.dtype, r.class_ids.dtype, r.keypoints.dtype, r.keypoint_scores.dtype)
    assert dtypes == (np.float32, np.float32, np.int32, np.float32, np.float32)
    for array in (r.boxes, r.scores, r.class_ids, r.keypoints, r.keypoint_scores):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_the_callers_array_stays_writable() -> None:
    boxes = np.zeros((1, 4), np.float32)
    PoseResult(boxes, np.ones(1), np.zeros(1), np.zeros((1, 2, 2)), np.ones((1, 2)))
    boxes[0] = 1


def test_fields_cannot_be_assigned() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().size = (1, 1)  # type: ignore[misc]


@pytest.mark.parametrize("field", ["boxes", "scores", "class_ids", "keypoints", "keypoint_scores"])
def test_shapes_that_do_not_fit_are_refused(field: str) -> None:
    r = make()
    with pytest.raises(ValueError, match="keypoints \\(N, K, 2\\)"):
        dataclasses.replace(r, **{field: getattr(r, field)[:-1]})


def test_a_scalar_for_boxes_is_refused() -> None:
    with pytest.raises(ValueError, match="boxes \\(N, 4\\)"):
        dataclasses.replace(make(), boxes=np.float32(3))


def test_a_spec_that_names_another_number_of_keypoints_is_refused() -> None:
    with pytest.raises(ValueError, match="names 1 keypoints"):
        dataclasses.replace(make(), people=PeopleSpec(keypoint_names=("nose",)))


def test_len_and_iteration_give_the_people() -> None:
    r = make(3)
    people = list(r)
    assert len(r) == len(people) == 3
    assert people[1].score == float(r.scores[1])
    np.testing.assert_array_equal(people[2].keypoints, r.keypoints[2])
    assert people[0].class_name == r.class_name(int(r.class_ids[0]))


def test_integer_indices_count_from_both_ends() -> None:
    r = make(3)
    np.testing.assert_array_equal(r[-1].box, r.boxes[2])
    np.testing.assert_array_equal(r[np.int64(1)].box, r.boxes[1])
    with pytest.raises(IndexError):
        r[3]


def test_a_persons_keypoint_is_found_by_name() -> None:
    r = make(1)
    x, y, score = r[0].keypoint("left_eye")
    assert (x, y, score) == (*r.keypoints[0, 1].tolist(), float(r.keypoint_scores[0, 1]))
    with pytest.raises(KeyError, match="left_eye"):
        r[0].keypoint("lefteye")


@pytest.mark.parametrize(
    "index",
    [slice(1, 3), [2, 0], np.array([3]), [True, False, True, False], np.array([False] * 4), []],
    ids=["slice", "list", "array", "mask", "mask of none", "empty list"],
)
def test_cutting_takes_the_same_rows_of_every_array(index: object) -> None:
    r = make(4, source="a.jpg", frame=3, time=0.1)
    cut = r[index]  # type: ignore[call-overload]
    rows = slice(0, 0) if isinstance(index, list) and not index else index
    np.testing.assert_array_equal(cut.boxes, r.boxes[rows])
    np.testing.assert_array_equal(cut.scores, r.scores[rows])
    np.testing.assert_array_equal(cut.class_ids, r.class_ids[rows])
    np.testing.assert_array_equal(cut.keypoints, r.keypoints[rows])
    np.testing.assert_array_equal(cut.keypoint_scores, r.keypoint_scores[rows])
    assert (cut.size, cut.people, cut.source, cut.frame, cut.time) == (r.size, SPEC, "a.jpg", 3, 0.1)


def test_an_index_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="boolean mask"):
        make()[np.array([0.5])]
    with pytest.raises(IndexError):
        make()[[True, False]]


def test_filter_by_score_class_and_keypoints() -> None:
    r = make(40, seed=3)
    kept = r.filter(min_score=0.3, classes="dog", min_keypoint_score=0.5, min_keypoints=2)
    by_hand = [
        i
        for i in range(40)
        if r.scores[i] >= 0.3 and r.class_ids[i] == 1 and sum(s >= 0.5 for s in r.keypoint_scores[i]) >= 2
    ]
    assert 0 < len(by_hand) < 40
    assert kept == r[by_hand]
    assert r.filter() == r
    assert r.filter(classes=[0, "dog"]) == r
    assert r.filter(classes=r.class_ids[0]) == r.filter(classes=int(r.class_ids[0]))


@pytest.mark.parametrize(("classes", "message"), [("dgo", "did you mean 'dog'"), (2, "not one of 0 to 1")])
def test_filter_names_an_unknown_class(classes: str | int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().filter(classes=classes)


def test_empty_is_an_ordinary_result() -> None:
    r = PoseResult.empty((640, 480), SPEC)
    assert len(r) == 0
    assert r.keypoints.shape == (0, 3, 2)
    assert list(r) == r.to_rows() == r.to_coco(1) == []
    assert len(r.filter(min_score=0.5)) == 0
    assert PoseResult.from_json(r.to_json()) == r
    assert "nothing found" in r.summary()
    assert len(r.to_supervision()) == 0
    assert PoseResult.empty().keypoints.shape == (0, 17, 2)
    assert PoseResult.empty(num_keypoints=21).num_keypoints == 21


def test_equality_ignores_only_the_speed() -> None:
    r = make()
    assert dataclasses.replace(r, speed=Speed(9, 9, 9)) == r
    assert dataclasses.replace(r, frame=1) != r
    assert dataclasses.replace(r, boxes=r.boxes + 1) != r
    assert r[:2] != r
    assert r != "r"


@settings(max_examples=60, deadline=None)
@given(results())
def test_pickle_and_copy_give_an_equal_and_frozen_result(r: PoseResult) -> None:
    for again in (pickle.loads(pickle.dumps(r)), copy.deepcopy(r)):
        assert again == r
        assert again.speed == r.speed
        assert not again.boxes.flags.writeable


@settings(max_examples=60, deadline=None)
@given(results())
def test_json_gives_the_same_result_back_bit_for_bit(r: PoseResult) -> None:
    again = PoseResult.from_json(r.to_json())
    assert again == r
    assert again.speed == r.speed


def test_json_numbers_are_short() -> None:
    r = dataclasses.replace(make(1), scores=np.array([0.1], np.float32))
    assert '"score": 0.1,' in r.to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 7}, "version 7"),
        ({"width": "wide"}, "'width' is wrong"),
        ({"detections": 3}, "'detections' is wrong"),
        ({"detections": [{}]}, "no field"),
        ({"detections": [PERSON | {"box": [1, 2]}]}, "'box' should be of shape \\(4,\\)"),
        ({"detections": [PERSON | {"box": [1, 2, 3, "x"]}]}, "'box' is wrong"),
        ({"detections": [PERSON | {"class_id": 2**40}]}, "class_id"),
        ({"num_keypoints": -1}, "num_keypoints"),
        ({"num_keypoints": 10**12}, "num_keypoints"),
        ({"skeleton": [[0]]}, "'skeleton' is wrong"),
        ({"class_names": [1]}, "'class_names' is wrong"),
        ({"speed_ms": {"tea": 1}}, "'speed_ms' is wrong"),
        ({"frame": 0.5}, "'frame' is wrong"),
    ],
)
def test_a_wrong_document_is_refused_by_the_name_of_the_field(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PoseResult.from_dict(make().to_dict() | change)


def test_text_that_is_no_result_is_refused() -> None:
    for text in ("", "[]", "{", "{}"):
        with pytest.raises(ValueError, match=r".+"):
            PoseResult.from_json(text)


def test_csv_and_rows_say_the_same() -> None:
    r = make(3, source='a "b", c.jpg', frame=2)
    read = list(csv.DictReader(io.StringIO(r.to_csv())))
    rows = r.to_rows()
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows] == read
    assert " ".join(list(rows[0])[:11]) == "source frame time person class_id class score x1 y1 x2 y2"
    assert list(rows[0])[11:14] == ["nose_x", "nose_y", "nose_score"]
    assert r.to_csv(header=False) == r.to_csv().split("\r\n", 1)[1]


def test_columns_are_numbered_where_the_names_are_missing_or_double() -> None:
    for names in ((), ("tip", "tip", "base")):
        r = dataclasses.replace(make(1), people=PeopleSpec(keypoint_names=names))
        assert list(r.to_rows()[0])[-3:] == ["keypoint2_x", "keypoint2_y", "keypoint2_score"]


def test_pandas_and_polars_take_the_rows() -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    r = make(3, frame=2)
    for frame in (pandas.DataFrame(r.to_rows()), polars.DataFrame(r.to_rows())):
        assert len(frame) == 3
        np.testing.assert_array_equal(np.asarray(frame["nose_x"], np.float32), r.keypoints[:, 0, 0])
        np.testing.assert_array_equal(np.asarray(frame["score"], np.float32), r.scores)


def test_coco_results_are_read_by_pycocotools() -> None:
    coco_tools = pytest.importorskip("pycocotools.coco")
    r = make(3)
    coco = coco_tools.COCO()
    coco.dataset = {"images": [{"id": 7}], "annotations": [], "categories": [{"id": 1}, {"id": 2}]}
    coco.createIndex()
    read = coco.loadRes(json.loads(json.dumps(r.to_coco(7)))).loadAnns([1, 2, 3])
    for i, ann in enumerate(read):
        assert ann["image_id"] == 7
        assert ann["category_id"] == r.class_ids[i] + 1
        np.testing.assert_allclose(np.array(ann["keypoints"]).reshape(3, 3)[:, :2], r.keypoints[i], rtol=1e-6)


def test_coco_boxes_are_corner_and_size_and_categories_can_be_given() -> None:
    r = make(2)
    coco = r.to_coco("000.jpg", category_ids=[18, 44])
    np.testing.assert_allclose(coco[0]["bbox"][2:], r.boxes[0, 2:] - r.boxes[0, :2], atol=1e-3)
    assert [c["category_id"] for c in coco] == [[18, 44][i] for i in r.class_ids.tolist()]
    with pytest.raises(ValueError, match="category_ids has 0"):
        r.to_coco(1, category_ids=[])


def test_supervision_key_points_carry_everything() -> None:
    pytest.importorskip("supervision")
    r = make(3)
    points = r.to_supervision()
    np.testing.assert_array_equal(points.xy, r.keypoints)
    np.testing.assert_array_equal(points.keypoint_confidence, r.keypoint_scores)
    np.testing.assert_array_equal(points.detection_confidence, r.scores)
    np.testing.assert_array_equal(points.class_id, r.class_ids)
    assert points.data["class_name"].tolist() == [p.class_name for p in r]
    points.xy[0] = 0  # supervision's users change it; the result does not follow
    assert r.keypoints[0].any()


def test_repr_is_one_line_and_names_the_best() -> None:
    text = repr(make(6, source="bus.jpg", frame=1, speed=Speed(1, 2, 3)))
    assert "\n" not in text
    for part in ("2 more", "640x480", "'bus.jpg'", "frame=1", "6.0 ms"):
        assert part in text


def test_summary_has_a_line_a_person_and_counts_seen_keypoints() -> None:
    r = make(3, source="bus.jpg", speed=Speed(1, 2, 3))
    lines = r.summary(kpt_conf=0.5).splitlines()
    assert len(lines) == 2 + 3
    assert lines[0].startswith("bus.jpg 640x480: ")
    assert lines[0].endswith("(preprocess 1.0 ms, inference 2.0 ms, decode 3.0 ms)")
    assert lines[2].endswith(f"{(r.keypoint_scores[0] >= 0.5).sum()}/3")


def test_importing_the_result_imports_none_of_what_its_forms_need() -> None:
    code = "import edgepose.result, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"PIL", "cv2", "csv", "urllib.request", "http.client", "pandas", "supervision", "edgepose.result_formats"}
    assert heavy.isdisjoint(loaded)
