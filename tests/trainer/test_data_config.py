"""The dataset YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from edgepose_trainer.data import load_data_config
from edgepose_trainer.data.config import SHIPPED

from edgepose import coco

BASE: dict[str, Any] = {"train": "images/train", "names": ["person"], "kpt_shape": [4, 3]}


def with_keys(**changes: Any) -> dict[str, Any]:
    return {**BASE, **changes}


def test_relative_paths_count_from_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(with_keys(path="set", val="images/val")))
    (part,) = load_data_config(tmp_path / "data.yaml").sets
    assert part.root == tmp_path / "set"
    assert part.splits == {"train": (tmp_path / "set/images/train",), "val": (tmp_path / "set/images/val",)}


def test_several_roots_become_several_sets(tmp_path: Path) -> None:
    data = load_data_config(with_keys(path=[str(tmp_path / "a"), str(tmp_path / "b")]))
    assert [part.splits["train"][0] for part in data.sets] == [tmp_path / "a/images/train", tmp_path / "b/images/train"]


def test_sets_have_their_own_settings_and_inherit_the_rest() -> None:
    first = {"path": "a", "train": ["images/one", "images/two/*.jpg"], "unknown_keypoints": ["nose", 2]}
    second = {"path": "b", "background_weight": 0.25}
    names = ["nose", "chin", "left", "right"]
    data = load_data_config(with_keys(path="/data", sets=[first, second], keypoint_names=names, partly_labelled=True))
    assert [part.background_weight for part in data.sets] == [0.0, 0.25]
    assert [part.unknown_keypoints for part in data.sets] == [(0, 2), ()]
    assert [str(p) for p in data.sets[0].splits["train"]] == ["/data/a/images/one", "/data/a/images/two/*.jpg"]
    assert [str(p) for p in data.sets[1].splits["train"]] == ["/data/b/images/train"]


def test_a_path_in_the_home_folder_is_found_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    plain = load_data_config(with_keys(path="~/x", download="https://x/y.zip"))
    assert [plain.sets[0].root, plain.downloads[0].into] == [tmp_path / "x"] * 2
    assert load_data_config(with_keys(path="~", sets=[{"path": "x"}])).sets[0].root == tmp_path / "x"


def test_unknown_keypoints_true_means_all() -> None:
    assert load_data_config(with_keys(unknown_keypoints=True)).sets[0].unknown_keypoints == (0, 1, 2, 3)


def test_seventeen_points_take_cocos_names_and_sigmas() -> None:
    data = load_data_config(with_keys(kpt_shape=[17, 3], flip_idx=list(coco.FLIP)))
    assert (data.keypoint_names[0], data.sigmas, len(data.skeleton)) == ("nose", coco.SIGMAS, 19)


def test_other_keypoints_take_even_sigmas() -> None:
    assert load_data_config(BASE).sigmas == (0.25,) * 4


@pytest.mark.parametrize("name", sorted(p.name for p in SHIPPED.glob("*.yaml")))
def test_shipped_yamls_are_found_by_name_and_say_where_they_come_from(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = load_data_config(name)
    assert data.downloads
    assert all(part.root.is_relative_to(tmp_path / "datasets") for part in data.sets)


def test_a_config_survives_its_dict_form() -> None:
    data = load_data_config(with_keys(path="x", sets=[{"path": "a", "annotations": {"train": "a.json"}}]))
    again = load_data_config(data.to_dict())
    assert again.to_dict() == data.to_dict()
    assert again.sets[0] == data.sets[0]


def test_keys_that_other_tools_write_are_taken() -> None:
    kpt_names = {0: ["a", "b", "c", "d"]}
    data = load_data_config(with_keys(kpt_names=kpt_names, channels=3, roboflow={"license": "MIT"}, nc=1))
    assert data.keypoint_names == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tran": "x"}, "unknown key 'tran' .did you mean 'train'"),
        ({"sets": [{"path": "a", "partly_labeled": True}]}, "did you mean 'partly_labelled'"),
        ({"names": None}, "names is missing"),
        ({"names": {0: "a", 2: "b"}}, "must number the classes 0 to 1"),
        ({"nc": 2}, "nc is 2 but names has 1"),
        ({"kpt_shape": [4, 4]}, "kpt_shape must be"),
        ({"kpt_shape": None}, "kpt_shape must be"),
        ({"flip_idx": [0, 1, 2]}, "flip_idx must hold each of 0 to 3 once"),
        ({"flip_idx": [0, 1, 2, "a"]}, "flip_idx must hold each of 0 to 3 once"),
        ({"flip_idx": [1.0, 0.0, 2.0, 3.0]}, "flip_idx must hold each of 0 to 3 once"),
        ({"flip_idx": [1, 2, 3, 0]}, "give each point back"),
        ({"skeleton": [[0, 4]]}, "keypoint indices 0 to 3"),
        ({"sigmas": [0.1, 0.1, 0.1, float("inf")]}, "sigmas must be 4 positive numbers"),
        ({"sigmas": [0.1, 0.1]}, "sigmas must be 4 positive numbers"),
        ({"keypoint_names": ["a", "a", "b", "c"]}, "4 different names"),
        ({"unknown_keypoints": [4]}, "unknown_keypoints must be"),
        ({"keypoint_names": ["nose", "b", "c", "d"], "unknown_keypoints": ["nos"]}, "did you mean 'nose'"),
        ({"background_weight": 2}, "from 0 to 1"),
        ({"repeat": 0}, "repeat must be a whole number from 1 to 100"),
        ({"partly_labelled": "yes"}, "true or false"),
        ({"train": None}, "none of train, val, test"),
        ({"train": 3}, "must be a path or a list of paths"),
        ({"download": "ftp://x/y.zip"}, "must start with https"),
        ({"download": {"url": "https://x/y.zip", "sha256": "g" * 64}}, "64 hexadecimal digits"),
        ({"path": ["a", "b"], "sets": [{"path": "c"}]}, "path must be one folder where sets are given"),
    ],
)
def test_a_mistake_is_named(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_data_config(with_keys(**changes))


def test_a_missing_yaml_names_the_shipped_ones() -> None:
    with pytest.raises(FileNotFoundError, match=r"did you mean 'coco8-pose\.yaml'"):
        load_data_config("coco8pose.yaml")


def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_bytes(b"\x00\x01: [")
    with pytest.raises(ValueError, match="not a YAML document"):
        load_data_config(tmp_path / "data.yaml")
