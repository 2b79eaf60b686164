"""Drawing: what is painted where, in which colour, and that nothing else of the picture changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgepose import drawing
from edgepose.contract import PeopleSpec
from edgepose.drawing import SIDE_COLORS, class_color, draw, keypoint_sides
from edgepose.result import PoseResult

SPEC = PeopleSpec(
    keypoint_names=("nose", "left_wrist", "right_wrist"), skeleton=((0, 1), (0, 2), (1, 2)), flip=(0, 2, 1)
)
POINTS = [[100.5, 40.5], [40.5, 120.5], [160.5, 120.5]]
SIZE = (200, 160)


def one_person(
    points: object = POINTS,
    scores: object = (1, 1, 1),
    box: object = (20, 20, 180, 140),
    spec: PeopleSpec = SPEC,
    size: tuple[int, int] = SIZE,
) -> PoseResult:
    keypoints = np.array([points], np.float32)
    return PoseResult(
        np.array([box], np.float32), np.ones(1), np.zeros(1), keypoints, np.array([scores], np.float32), size, spec
    )


def gray_picture(size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full((size[1], size[0], 3), 90, np.uint8)


def test_each_side_has_its_colour_at_its_keypoint() -> None:
    image = draw(gray_picture(), one_person(), color="RGB")
    for (x, y), side in zip(POINTS, ("centre", "left", "right"), strict=True):
        assert tuple(image[int(y), int(x)]) == SIDE_COLORS[side]


def test_limbs_take_the_side_of_their_ends() -> None:
    image = draw(gray_picture(), one_person(), color="RGB", line_width=6)
    for (a, b), side in {(0, 1): "left", (0, 2): "right", (1, 2): "centre"}.items():
        x, y = (np.array(POINTS[a]) + np.array(POINTS[b])) / 2
        assert tuple(image[int(y), int(x)]) == SIDE_COLORS[side]


def test_left_and_right_differ_for_colour_blind_eyes() -> None:
    # protanopia and deuteranopia, H. Brettel et al. 1997 in the linear form of F. Viénot et al. 1999
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    protan = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    deutan = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    for blind in (np.eye(3), protan, deutan):
        left, right, centre = (
            np.linalg.inv(to_lms) @ blind @ to_lms @ (np.array(SIDE_COLORS[s]) / 255) ** 2.2
            for s in ("left", "right", "centre")
        )
        assert min(np.linalg.norm(left - right), np.linalg.norm(left - centre), np.linalg.norm(right - centre)) > 0.4


def test_hidden_keypoints_and_their_limbs_are_left_out() -> None:
    image = draw(gray_picture(), one_person(scores=(1, 0.4, 1)), boxes=False, labels=False)
    assert (image[118:124, 38:44] == 90).all()
    assert (image[78:84, 68:73] == 90).all()
    everything = draw(gray_picture(), one_person(scores=(1, 0.4, 1)), boxes=False, labels=False, kpt_conf=0.4)
    assert (everything[118:124, 38:44] != 90).any()


def test_pixels_away_from_the_drawing_stay_as_they_were() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (160, 200, 3), np.uint8)
    before = picture.copy()
    image = draw(picture, one_person(), labels=False, line_width=2)
    np.testing.assert_array_equal(picture, before)  # a copy is drawn on
    np.testing.assert_array_equal(image[:18], picture[:18])
    np.testing.assert_array_equal(image[126:136, 30:170], picture[126:136, 30:170])
    assert (image != picture).any()


def test_a_stroke_covers_the_area_of_its_capsule() -> None:
    canvas = np.zeros((100, 100, 3), np.uint8)
    drawing._stroke(canvas, (20.3, 30.7), (70.1, 60.2), 7.0, np.array([255, 255, 255], np.float32))
    length = np.hypot(70.1 - 20.3, 60.2 - 30.7)
    assert canvas[..., 0].sum() / 255 == pytest.approx(7.0 * length + np.pi * 3.5**2, rel=0.01)


def test_the_box_lies_on_its_pixels_in_the_class_colour() -> None:
    image = draw(gray_picture(), one_person(scores=(0, 0, 0)), color="RGB", labels=False, line_width=1)
    expected = gray_picture()
    for line in (np.s_[20, 20:181], np.s_[140, 20:181], np.s_[20:141, 20], np.s_[20:141, 180]):
        expected[line] = class_color(0)
    np.testing.assert_array_equal(image, expected)


def test_boxes_of_two_classes_differ() -> None:
    assert len({class_color(i) for i in range(6)}) == 6


def test_bgr_is_rgb_reversed() -> None:
    result = one_person()
    rgb = draw(gray_picture(), result, color="RGB")
    np.testing.assert_array_equal(draw(gray_picture(), result), rgb[..., ::-1])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_pillow_gives_pillow_with_the_same_drawing(mode: str) -> None:
    picture = Image.fromarray(gray_picture()).convert(mode)
    drawn = draw(picture, one_person())
    assert drawn.mode == ("RGBA" if mode == "RGBA" else "RGB")
    expected = draw(np.array(picture.convert("RGB")), one_person(), color="RGB")
    np.testing.assert_array_equal(np.asarray(drawn.convert("RGB")), expected)


@pytest.mark.parametrize("shape", [(160, 200), (160, 200, 1)])
def test_gray_pictures_come_back_in_colour(shape: tuple[int, ...]) -> None:
    expected = draw(gray_picture(), one_person())
    np.testing.assert_array_equal(draw(np.full(shape, 90, np.uint8), one_person()), expected)


def test_what_is_drawn_on_a_transparent_picture_is_opaque() -> None:
    picture = np.dstack([gray_picture(), np.zeros((160, 200), np.uint8)])
    drawn = draw(picture, one_person())
    assert drawn[40, 100, 3] == 255
    assert drawn[5, 5, 3] == 0


def test_views_with_strides_are_drawn_on_like_their_copies() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (160, 200, 3), np.uint8)
    view = picture[::-1, ::-1, ::-1]
    view.setflags(write=False)
    np.testing.assert_array_equal(draw(view, one_person()), draw(view.copy(), one_person()))


def test_the_label_is_text_above_the_box_and_inside_where_there_is_no_room() -> None:
    ground = np.array(class_color(0))
    above = draw(gray_picture(), one_person(scores=(0, 0, 0), box=(20, 60, 180, 140)), color="RGB")
    label = above[45:58, 20:60].reshape(-1, 3)
    assert (label == ground).all(axis=1).any()
    assert (label < 40).all(axis=1).any()  # ink
    inside = draw(gray_picture(), one_person(scores=(0, 0, 0), box=(20, 0, 180, 140)), color="RGB")
    assert (inside[2:12, 22:60].reshape(-1, 3) < 40).all(axis=1).any()


def test_a_label_at_the_right_border_stays_in_the_picture() -> None:
    def label_area(box: tuple[int, int, int, int]) -> int:
        person = one_person(scores=(0, 0, 0), box=box)
        return int((draw(gray_picture(), person) != draw(gray_picture(), person, labels=False)).any(2).sum())

    assert label_area((170, 60, 199, 140)) == pytest.approx(label_area((20, 60, 49, 140)), rel=0.05)


coordinates = st.floats(-400, 600, width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30])


@settings(max_examples=60, deadline=None)
@example([(0.0, 0.0), (0.0, 0.0), (0.0, 1.2e-38)], [0.0, 0.0, 0.0, 0.0], (1, 1))
@given(
    st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=3),
    st.lists(coordinates, min_size=4, max_size=4),
    st.sampled_from([(1, 1), (3, 50), (200, 160)]),
)
def test_no_place_is_too_far_away_to_draw(points: object, box: object, size: tuple[int, int]) -> None:
    picture = gray_picture(size)
    assert draw(picture, one_person(points=points, box=box, size=size)).shape == picture.shape


def test_nobody_leaves_the_picture_as_it_was() -> None:
    picture = gray_picture()
    np.testing.assert_array_equal(draw(picture, PoseResult.empty(SIZE)), picture)


def test_keypoints_without_names_or_skeleton_are_drawn() -> None:
    points = np.linspace([20, 20], [180, 140], 21)
    result = one_person(points=points, scores=np.ones(21), spec=PeopleSpec())
    image = draw(gray_picture(), result, color="RGB", boxes=False, labels=False)
    for x, y in points:
        assert tuple(image[int(y), int(x)]) == SIDE_COLORS["centre"]


@pytest.mark.parametrize(
    ("spec", "sides"),
    [
        (PeopleSpec(keypoint_names=("nose", "left_eye", "right_eye")), ("centre", "left", "right")),
        (PeopleSpec(keypoint_names=("head", "LeftHand", "RightHand")), ("centre", "left", "right")),
        (PeopleSpec(keypoint_names=("l_ear", "r_ear", "r-ear2")), ("left", "right", "right")),
        (PeopleSpec(keypoint_names=("collar", "rim", "leftover")), ("centre", "centre", "centre")),
        (PeopleSpec(flip=(0, 2, 1)), ("centre", "left", "right")),
        (PeopleSpec(), ("centre", "centre", "centre")),
    ],
)
def test_sides_are_read_from_names_and_else_from_the_flip_order(spec: PeopleSpec, sides: tuple[str, ...]) -> None:
    assert keypoint_sides(spec, 3) == sides


def test_lines_grow_with_the_person_and_the_picture() -> None:
    def painted(scale: int) -> float:
        size = (SIZE[0] * scale, SIZE[1] * scale)
        points = np.array(POINTS) * scale
        box = np.array([20, 20, 180, 140]) * scale
        drawn = draw(gray_picture(size), one_person(points=points, box=box, size=size), boxes=False, labels=False)
        return float((drawn != 90).any(axis=2).mean())

    assert painted(8) == pytest.approx(painted(4), rel=0.15)  # one pixel wide lines would halve it


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (np.zeros((160, 200, 3), np.float32), ValueError),
        (np.zeros((160, 200, 2), np.uint8), ValueError),
        (np.zeros((160, 199, 3), np.uint8), ValueError),
        ("bus.jpg", TypeError),
    ],
)
def test_other_pictures_are_refused(image: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"199x160|uint8|Pillow picture"):
        draw(image, one_person())  # type: ignore[type-var]
    with pytest.raises(ValueError, match="'HSV'"):
        draw(gray_picture(), one_person(), color="HSV")  # type: ignore[arg-type]


def test_plot_finds_the_picture_the_result_came_from(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture = np.random.default_rng(0).integers(0, 256, (160, 200, 3), np.uint8)
    Image.fromarray(picture).save(path)
    result = dataclasses.replace(one_person(), source=str(path))
    expected = draw(picture, result, color="RGB")
    np.testing.assert_array_equal(result.plot(color="RGB"), expected)
    np.testing.assert_array_equal(result.plot(), expected[..., ::-1])
    np.testing.assert_array_equal(one_person().plot(path), expected[..., ::-1])
    np.testing.assert_array_equal(
        result.plot(picture, color="RGB", boxes=False), draw(picture, result, color="RGB", boxes=False)
    )
    with pytest.raises(ValueError, match=r"give it: plot\(image\)"):
        one_person().plot()
