"""Finding pictures and labels, what is left out and why, and the cache of the answers."""

from __future__ import annotations

import io
import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import edgepose_trainer.data.scan as scan_module
import numpy as np
import pytest
from edgepose_trainer.data import build_dataset, load_data_config
from edgepose_trainer.data.coco import read_coco
from edgepose_trainer.data.pictures import check_picture, read_picture
from edgepose_trainer.data.scan import Problem, SplitScan, scan_split
from PIL import Image

Make = Callable[..., dict[str, Any]]
GOOD = [0, 0.5, 0.5, 0.25, 0.5, 0.4, 0.3, 2, 0.6, 0.7, 1, 0, 0, 0]


def scan(data: dict[str, Any]) -> SplitScan:
    (found,) = scan_split(load_data_config(data), "train")
    return found


def names(found: SplitScan) -> list[str]:
    return [p.stem for p in found.pictures]


def the_problem(found: SplitScan) -> Problem:
    (problem,) = found.problems
    return problem


def test_a_picture_without_labels_is_background(make_dataset: Make) -> None:
    found = scan(make_dataset({"a": [GOOD], "b": None, "c": []}))
    assert names(found) == ["a", "b", "c"]
    assert [len(a.labels) for a in found.checked if a.labels is not None] == [1, 0, 0]
    assert found.problems == []


def test_labels_without_a_picture_are_reported(make_dataset: Make, tmp_path: Path) -> None:
    data = make_dataset({"a": [GOOD]})
    (tmp_path / "labels/train/lost.txt").write_text("")
    problem = the_problem(scan(data))
    assert (Path(problem.path).name, problem.reason, problem.left_out) == (
        "lost.txt",
        "labels without a picture",
        False,
    )


@pytest.mark.parametrize("lost", ["labels/train/more/a.txt", "labels/train/phone.txt"])
def test_labels_whose_picture_is_of_another_kind_or_folder_are_reported(
    lost: str, make_dataset: Make, tmp_path: Path
) -> None:
    data = make_dataset({"a": [GOOD]})
    (tmp_path / "images/train/phone.heic").write_bytes(b"")
    (tmp_path / lost).parent.mkdir(exist_ok=True)
    (tmp_path / lost).write_text("")
    assert the_problem(scan(data)).path == str(tmp_path / lost)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([*GOOD, 1], "15 numbers"),
        ([0, 1.5, *GOOD[2:]], "outside 0 to 1"),
        ([0, float("nan"), *GOOD[2:]], "NaN"),
        ([0, 0.5, 0.5, -0.2, *GOOD[4:]], "no width or height"),
    ],
)
def test_a_broken_label_leaves_its_picture_out(row: list[float], reason: str, make_dataset: Make) -> None:
    found = scan(make_dataset({"a": [GOOD], "b": [GOOD, row]}))
    assert names(found) == ["a"]
    assert reason in the_problem(found).reason
    assert Path(the_problem(found).path).name == "b.png"


@pytest.mark.parametrize("kind", ["folder", "dead link"])
def test_labels_that_are_no_file_leave_their_picture_out(kind: str, make_dataset: Make, tmp_path: Path) -> None:
    data = make_dataset({"a": [GOOD], "b": None})
    labels = tmp_path / "labels/train/b.txt"
    labels.mkdir() if kind == "folder" else labels.symlink_to("nowhere.txt")
    found = scan(data)
    assert names(found) == ["a"]
    assert "a folder, or a link that leads nowhere" in the_problem(found).reason


def test_repeated_rows_are_reported_and_dropped(make_dataset: Make) -> None:
    found = scan(make_dataset({"a": [GOOD, GOOD]}))
    assert names(found) == ["a"]
    assert "1 repeated row" in the_problem(found).reason
    assert len(build_dataset(load_data_config(make_dataset({"a": [GOOD, GOOD]}))).labels(0)) == 1


def jpeg(seed: int = 0) -> bytes:
    picture = cv2.resize(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8), (96, 64))
    return bytes(cv2.imencode(".jpg", picture)[1])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty .0 bytes."),
        (jpeg()[: len(jpeg()) // 2], "truncated"),
        (b"not a picture at all", "cannot be decoded: its content is of no known kind"),
        (jpeg()[:30], "cannot be decoded"),
    ],
)
def test_a_broken_picture_is_left_out(content: bytes, reason: str, make_dataset: Make, tmp_path: Path) -> None:
    data = make_dataset({"a": [GOOD]})
    (tmp_path / "images/train/broken.jpg").write_bytes(content)
    found = scan(data)
    assert names(found) == ["a"]
    with pytest.raises(ValueError, match=reason):
        raise ValueError(the_problem(found).reason)


def test_a_tiny_picture_is_left_out(make_dataset: Make) -> None:
    with pytest.raises(ValueError, match="smaller than 10 pixels"):
        scan(make_dataset({"a": [GOOD]}, size=(9, 40)))


def test_a_decompression_bomb_is_left_out(make_dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    data = make_dataset({"a": [GOOD]})
    Image.new("1", (150, 100)).save(tmp_path / "images/train/bomb.png")
    assert "decompression bomb" in the_problem(scan(data)).reason


def test_the_same_picture_twice_is_used_once(make_dataset: Make, tmp_path: Path) -> None:
    data = make_dataset({"a": [GOOD]})
    (tmp_path / "images/train/b.png").write_bytes((tmp_path / "images/train/a.png").read_bytes())
    found = scan(data)
    assert names(found) == ["a"]
    assert "the same picture as" in the_problem(found).reason


def test_a_path_listed_twice_is_used_once(make_dataset: Make) -> None:
    data = make_dataset({"a": [GOOD]})
    data["train"] = ["images/train", "images/train/a.png"]
    found = scan(data)
    assert names(found) == ["a"]
    assert "listed twice" in the_problem(found).reason


def test_nothing_usable_is_an_error_that_says_why(make_dataset: Make) -> None:
    with pytest.raises(ValueError, match=r"no picture of train is usable: .*a\.png: row 1: 2 numbers"):
        scan(make_dataset({"a": [[0, 1]]}))


def test_an_empty_folder_is_an_error(make_dataset: Make, tmp_path: Path) -> None:
    data = make_dataset({})
    (tmp_path / "images/train").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"images/train: no picture there .known endings: \.bmp"):
        scan(data)


def test_an_entry_without_pictures_beside_others_is_reported(make_dataset: Make) -> None:
    data = {**make_dataset({"a": [GOOD]}), "train": ["images/train", "images/*/none*.png"]}
    assert the_problem(scan(data)).path.endswith("images/*/none*.png")


def test_a_missing_folder_is_named(make_dataset: Make) -> None:
    data = {**make_dataset({"a": [GOOD]}), "train": "images/nowhere"}
    with pytest.raises(FileNotFoundError, match="images/nowhere, which is not there"):
        scan(data)


def test_a_missing_split_is_named(make_dataset: Make) -> None:
    with pytest.raises(ValueError, match="has no val"):
        scan_split(load_data_config(make_dataset({"a": [GOOD]})), "val")


def test_globs_lists_and_files_name_pictures(make_dataset: Make, tmp_path: Path) -> None:
    data = make_dataset({name: [GOOD] for name in ("a1", "a2", "b1", "c1")})
    (tmp_path / "list.txt").write_text("./images/train/c1.png\nimages/train/missing.png\n\n")
    data["train"] = ["images/*/a*.png", "images/train/b1.png", "list.txt"]
    found = scan(data)
    assert names(found) == ["a1", "a2", "b1", "c1"]
    assert the_problem(found).reason == "no such file"


def test_a_list_from_windows_is_read(make_dataset: Make, tmp_path: Path) -> None:
    data = make_dataset({"a": [GOOD], "b": [GOOD]})
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfimages\\train\\a.png\r\n.\\images\\train\\b.png\r\n")
    assert names(scan({**data, "train": "list.txt"})) == ["a", "b"]


@pytest.mark.parametrize("line", ["x" * 5000 + ".png", "x\0.png"])
def test_a_line_that_is_no_path_is_left_out(line: str, make_dataset: Make, tmp_path: Path) -> None:
    data = make_dataset({"a": [GOOD]})
    (tmp_path / "list.txt").write_text(f"images/train/a.png\n{line}\n")
    found = scan({**data, "train": "list.txt"})
    assert names(found) == ["a"]
    assert the_problem(found).left_out


def test_a_list_in_another_encoding_is_named(make_dataset: Make, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("größe.png\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"list\.txt is not text in UTF-8, save it as such"):
        scan({**make_dataset({"a": [GOOD]}), "train": "list.txt"})


def test_linked_folders_are_searched_and_loops_end(make_dataset: Make, tmp_path: Path) -> None:
    data = make_dataset({"a": [GOOD]})
    (tmp_path / "elsewhere").mkdir()
    cv2.imwrite(str(tmp_path / "elsewhere/b.png"), np.full((40, 40, 3), 9, np.uint8))
    (tmp_path / "images/train/a_link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images/train/loop").symlink_to(tmp_path / "images")
    found = scan(data)
    assert names(found) == ["a", "b"]
    assert found.problems == []


def test_a_root_with_brackets_is_no_pattern(make_dataset: Make, tmp_path: Path) -> None:
    data = make_dataset({"a": [GOOD]})
    (tmp_path / "set [1]").mkdir()
    (tmp_path / "images").rename(tmp_path / "set [1]/images")
    assert names(scan({**data, "path": str(tmp_path / "set [1]"), "train": "images/*/*.png"})) == ["a"]


def test_a_list_elsewhere_counts_from_the_sets_path(make_dataset: Make, tmp_path: Path) -> None:
    data = make_dataset({"a": [GOOD]})
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/train.txt").write_text("images/train/a.png\n")
    data["train"] = "lists/train.txt"
    assert names(scan(data)) == ["a"]


@pytest.mark.parametrize("ending", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(orientation: int, ending: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :20], pixels[:20, 40:], pixels[20:, :20] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, ending, exif=exif, quality=95)
    path = tmp_path / f"a.{ending.lower()}"
    path.write_bytes(buffer.getvalue())
    # the eight orientations of the EXIF standard as array operations
    turned = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1), 7: np.rot90(pixels, 2).transpose(1, 0, 2), 8: np.rot90(pixels, 1),
    }[orientation]  # fmt: skip
    info = check_picture(path)
    read = read_picture(path, info.orientation)
    assert (info.height, info.width) == read.shape[:2] == turned.shape[:2]
    assert np.abs(read.astype(int) - turned).mean() < 6


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16", "1"])
def test_every_kind_of_picture_is_read_as_rgb(mode: str, tmp_path: Path) -> None:
    base = Image.fromarray(np.full((20, 30), 130, np.uint8))
    picture = Image.fromarray(np.full((20, 30), 130 * 257, np.uint16)) if mode == "I;16" else base.convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture.save(path)
    info = check_picture(path)
    read = read_picture(path)
    assert (info.height, info.width, 3) == read.shape
    if mode != "1":
        assert np.abs(read.astype(int) - 130).max() <= 4


@pytest.mark.parametrize("error", [OverflowError, struct.error, KeyError])
def test_a_picture_that_no_decoder_survives_is_listed_as_broken(
    error: type[Exception], make_dataset: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("too large to convert")

    data = make_dataset({"a": [GOOD]})
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(ValueError, match="cannot be decoded"):
        scan(data)


def test_a_picture_that_would_start_a_program_is_not_read(tmp_path: Path) -> None:
    """PostScript, which Pillow hands to Ghostscript."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(ValueError, match="no known kind"):
        check_picture(path)
    with pytest.raises(OSError, match="cannot identify"):
        read_picture(path)


def test_red_is_the_first_channel(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), (250, 10, 30)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png")[0, 0], [250, 10, 30])


def test_coco_json_is_a_source_of_labels(make_dataset: Make, tmp_path: Path) -> None:
    data = make_dataset({"a": None, "b": None, "c": None})
    person = {"image_id": 1, "category_id": 7, "bbox": [16, 12, 16, 24], "keypoints": [20, 15, 2, 0, 0, 0, 30, 30, 1]}
    document = {
        "images": [{"id": i, "file_name": f"{n}.png", "width": 64, "height": 48} for i, n in enumerate("abc", 1)],
        "annotations": [
            {**person, "id": 1},
            {**person, "id": 2, "iscrowd": 1},
            {**person, "id": 3, "image_id": 2, "keypoints": [1, 2]},
        ],
        "categories": [{"id": 7, "name": "thing", "keypoints": ["a", "b", "c"]}],
    }
    (tmp_path / "train.json").write_text(json.dumps(document))
    data["annotations"] = {"train": "train.json"}
    found = scan(data)
    assert names(found) == ["a", "c"]
    assert "expected 3 x (x, y, v)" in the_problem(found).reason
    labels = found.checked[0].labels
    assert labels is not None
    np.testing.assert_allclose(labels.boxes, [[24 / 64, 24 / 48, 16 / 64, 24 / 48]], rtol=1e-6)
    np.testing.assert_allclose(labels.keypoints[0, 0], [20 / 64, 15 / 48, 2], rtol=1e-6)


def coco_document(*names: str) -> dict[str, Any]:
    """One person in each picture of these names."""
    person = {"category_id": 1, "bbox": [16, 12, 16, 24], "keypoints": [20, 15, 2, 0, 0, 0, 30, 30, 1]}
    return {
        "images": [{"id": i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(names)],
        "annotations": [{**person, "id": i, "image_id": i} for i in range(len(names))],
        "categories": [{"id": 1, "name": "thing"}],
    }


def scan_json(data: dict[str, Any], folder: Path, **documents: dict[str, Any]) -> SplitScan:
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    return scan({**data, "annotations": {"train": [f"{name}.json" for name in documents]}})


@pytest.mark.parametrize(
    "name", ["a.png", "./a.png", "train/a.png", "images\\train\\a.png", "{folder}/images/train/a.png"]
)
def test_coco_json_may_call_a_picture_by_any_end_of_its_path(name: str, make_dataset: Make, tmp_path: Path) -> None:
    found = scan_json(make_dataset({"a": None}), tmp_path, train=coco_document(name.format(folder=tmp_path)))
    assert [len(a.labels) for a in found.checked if a.labels is not None] == [1]
    assert found.problems == []


def test_labels_of_coco_json_without_a_picture_are_reported_each_time(
    make_dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, document = make_dataset({"a": None}), coco_document("a.png", "gone.png", "val2017/a.png")
    document["annotations"].append({**document["annotations"][0], "image_id": 99})
    first = scan_json(data, tmp_path, train=document)
    monkeypatch.setattr(scan_module.coco, "read_coco", lambda *_: pytest.fail("read again"))
    for found in (first, scan({**data, "annotations": {"train": "train.json"}})):
        assert [p.path for p in found.problems] == ["gone.png", "val2017/a.png", "image_id 99"]
        assert not any(p.left_out for p in found.problems)


def categories(*named: tuple[str, list[str]]) -> dict[str, Any]:
    one = {"image_id": 1, "bbox": [1, 1, 9, 9], "keypoints": [2, 2, 2, 4, 4, 2]}
    people = [{"id": i, "category_id": i, **one} for i in (1, 2)]
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": people[: len(named)],
        "categories": [{"id": i, "name": name, "keypoints": points} for i, (name, points) in enumerate(named, 1)],
    }


POINTS = ["tip", "end"]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ([("saw", POINTS), ("Drill", POINTS)], r"its categories \['Drill'\] are not among names"),
        ([], r"its categories \[\] are not among names"),
        ([("Drill", POINTS), ("Saw", POINTS)], r"its categories \['Drill', 'Saw'\] are not among names"),
        ([("saw", POINTS), ("drill", ["end", "tip"])], r"keypoints of 'drill' are in the order \['end', 'tip'\]"),
    ],
)
def test_coco_json_that_says_other_things_than_the_yaml_is_refused(
    named: list[tuple[str, list[str]]], message: str, tmp_path: Path
) -> None:
    (tmp_path / "c.json").write_text(json.dumps(categories(*named)))
    with pytest.raises(ValueError, match=message):
        read_coco(tmp_path / "c.json", (2, 3), ["saw", "drill"], POINTS)


def test_a_single_category_may_be_called_otherwise_and_others_without_keypoints_stand_aside(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(categories(("human", POINTS))))
    assert len(read_coco(tmp_path / "c.json", (2, 3), ["person"], POINTS)["a.png"].labels or []) == 1
    (tmp_path / "c.json").write_text(json.dumps(categories(("person", POINTS), ("car", []))))
    assert len(read_coco(tmp_path / "c.json", (2, 3), ["person"], POINTS)["a.png"].labels or []) == 1


def test_coco_json_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(coco_document("a.png")), encoding="utf-8-sig")
    assert list(read_coco(tmp_path / "a.json", (3, 3), ["thing"])) == ["a.png"]


def test_pictures_that_a_split_does_not_name_are_not_missed_by_coco_json(make_dataset: Make, tmp_path: Path) -> None:
    data = {**make_dataset({"a": None, "b": None}), "train": "images/train/a.png"}
    assert scan_json(data, tmp_path, train=coco_document("a.png", "b.png")).problems == []


def test_a_picture_with_labels_twice_in_coco_json_is_left_out(make_dataset: Make, tmp_path: Path) -> None:
    data, nobody = make_dataset({"a": None, "b": None, "c": None}), coco_document("b.png")
    nobody["annotations"] = []
    found = scan_json(
        data, tmp_path, one=coco_document("a.png", "a.png", "b.png", "c.png"), two=coco_document("c.png"), three=nobody
    )
    assert names(found) == ["b"]
    assert all("twice" in p.reason for p in found.problems)


@pytest.mark.parametrize("change", [{"id": [1]}, {"image_id": {}}, {"category_id": []}])
def test_coco_json_with_ids_that_are_none_is_refused(
    change: dict[str, Any], make_dataset: Make, tmp_path: Path
) -> None:
    document = coco_document("a.png")
    document["images" if "id" in change else "annotations"][0].update(change)
    with pytest.raises(ValueError, match=r"train\.json is not COCO keypoint JSON: unhashable"):
        scan_json(make_dataset({"a": None}), tmp_path, train=document)


def test_sizes_of_coco_json_may_be_written_with_a_point(make_dataset: Make, tmp_path: Path) -> None:
    document = coco_document("a.png", "b.png")
    document["images"][0].update(width=64.0, height=48.0)
    document["images"][1].update(width=None)
    found = scan_json(make_dataset({"a": None, "b": None}), tmp_path, train=document)
    assert names(found) == ["a"]
    assert "must be pixels, got None and 48" in the_problem(found).reason


# --- the cache


def test_a_second_scan_decodes_nothing(make_dataset: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_dataset({"a": [GOOD], "b": [GOOD, GOOD], "c": None, "d": [[1]]})
    first = scan(data)
    monkeypatch.setattr(scan_module, "check_picture", lambda _: pytest.fail("decoded again"))
    second = scan(data)
    assert second.pictures == first.pictures
    assert second.problems == first.problems
    for a, b in zip(first.checked, second.checked, strict=True):
        assert a.labels is not None
        assert b.labels is not None
        np.testing.assert_array_equal(a.labels.keypoints, b.labels.keypoints)
        np.testing.assert_array_equal(a.labels.boxes, b.labels.boxes)
        assert (a.digest, a.height, a.width) == (b.digest, b.height, b.width)


@pytest.mark.parametrize("what", ["labels", "picture", "new labels", "gone labels"])
def test_a_changed_file_is_checked_again(what: str, make_dataset: Make, tmp_path: Path) -> None:
    data = make_dataset({"a": [GOOD], "b": None})
    assert names(scan(data)) == ["a", "b"]
    label, later = tmp_path / "labels/train/a.txt", time.time() + 5
    if what == "labels":
        label.write_text(label.read_text() * 2)
        os.utime(label, (later, later))
    elif what == "picture":
        (tmp_path / "images/train/a.png").write_bytes(b"")
    elif what == "new labels":
        (tmp_path / "labels/train/b.txt").write_text(label.read_text())
    else:
        label.unlink()
    found = scan(data)
    people = [len(a.labels) for a in found.checked if a.labels is not None]
    expected = {"labels": [1, 0], "picture": [0], "new labels": [1, 1], "gone labels": [0, 0]}
    assert people == expected[what]
    assert len(found.problems) == (what in ("labels", "picture"))


@pytest.mark.parametrize("damage", ["empty", "noise", "cut", "shape", "pickle"])
def test_a_damaged_cache_is_ignored(damage: str, make_dataset: Make) -> None:
    data = make_dataset({"a": [GOOD], "b": [GOOD]})
    scan(data)
    (place,) = [p for p in scan_module.cache_dir().glob("scans/*.npz") if p.name.startswith(Path(data["path"]).name)]
    content = place.read_bytes()
    if damage in ("empty", "noise", "cut"):
        place.write_bytes({"empty": b"", "noise": b"x" * 500, "cut": content[: len(content) // 2]}[damage])
    else:
        with np.load(place) as file:
            columns = {name: file[name] for name in file.files}
        columns["boxes"] = np.array([{}] * 2, object) if damage == "pickle" else columns["boxes"][:1]
        np.savez(place, **columns)
    assert names(scan(data)) == ["a", "b"]


def test_a_cache_that_cannot_be_written_is_a_warning(make_dataset: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_dataset({"a": [GOOD]})

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(scan_module, "write_whole", refuse)
    with pytest.warns(UserWarning, match="cannot be remembered"):
        assert names(scan(data)) == ["a"]


def test_real_pictures_have_no_problems(photos: Path) -> None:
    for name in ("coco", "lspet", "mpii"):
        data = {"path": str(photos / name), "train": "images/train", "names": ["person"], "kpt_shape": [17, 3]}
        found = scan(data)
        assert len(found.pictures) == 12
        assert found.problems == []


@pytest.mark.parametrize("ending", [".jpg", ".png"])
@pytest.mark.parametrize("reduce", [2, 4, 8])
def test_a_reduced_picture_is_the_mean_of_its_pixels(reduce: int, ending: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(60, 200, (12, 15, 3), dtype=np.uint8)
    picture = cv2.resize(noise, (120, 96), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(tmp_path / f"a{ending}"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    mean = picture.reshape(96 // reduce, reduce, 120 // reduce, reduce, 3).mean((1, 3))
    read = read_picture(tmp_path / f"a{ending}", reduce=reduce)
    assert read.shape == mean.shape
    assert np.abs(read - mean).mean() < 2.5
