"""What comes inside the package: the default model, and what takes it where no model is named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepose import PoseRunner, cli, shipped
from edgepose.artifact import read_spec
from edgepose.benchmark import run_case
from edgepose.coco import KEYPOINT_NAMES, SIGMAS

# Read off the photos by eye, in pixels.
PLACES = {
    "astronaut.jpg": {"nose": (223, 127), "left_eye": (247, 104), "right_eye": (201, 101)},
    "photographer.jpg": {"nose": (252, 158), "right_ear": (187, 140)},
}
WITHIN = 60  # half a head


@pytest.fixture
def default_model() -> Path:
    pytest.importorskip("ai_edge_litert")
    if not shipped.MODEL.is_file():
        pytest.skip("the default model is not made yet: edgepose/assets/person.tflite")
    return shipped.MODEL


@pytest.fixture
def missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shipped, "MODEL", tmp_path / "person.tflite")
    return tmp_path / "person.tflite"


@pytest.fixture
def other(movenet: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """MoveNet in the place of the default model, so that what takes it is tested where none is made yet."""
    monkeypatch.setattr(shipped, "MODEL", movenet)
    return movenet


def test_the_default_model_fits_into_the_package(default_model: Path) -> None:
    assert default_model.stat().st_size <= shipped.MAX_MODEL_BYTES


def test_the_default_model_is_int8_all_through(default_model: Path) -> None:
    """The runtime's own list of tensors: int32 are biases and shapes."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(default_model))
    kinds = {np.dtype(tensor["dtype"]).name for tensor in interpreter.get_tensor_details() if tensor["shape"].size}
    assert kinds <= {"int8", "int32"}
    ends = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    assert {np.dtype(tensor["dtype"]).name for tensor in ends} == {"int8"}


def test_the_default_model_finds_cocos_keypoints_of_a_person(default_model: Path) -> None:
    spec = read_spec(default_model)
    assert spec is not None
    assert spec.people.class_names == ("person",)
    assert spec.decoder.kpt_shape[0] == 17
    assert spec.people.keypoint_names == KEYPOINT_NAMES
    assert spec.people.sigmas == pytest.approx(SIGMAS)


def test_the_default_model_says_its_terms_and_notice_names_its_data(default_model: Path) -> None:
    spec = read_spec(default_model)
    assert spec is not None
    assert spec.origin["license"] == "Apache-2.0"
    notice = (Path(__file__).parents[2] / "NOTICE").read_text(encoding="utf-8")
    for data in ("COCO 2017", "MPII", "LSP Extended"):
        assert data in spec.origin["training_data"]
        assert data in notice


def test_the_default_model_is_as_good_as_its_export_says_the_checkpoint_is(default_model: Path) -> None:
    spec = read_spec(default_model)
    assert spec is not None
    parity = spec.origin["parity"]
    assert parity["pictures"] == 280
    assert parity["ap"] >= parity["reference_ap"] - 0.010


@pytest.mark.parametrize("picture", shipped.PICTURES, ids=lambda path: path.stem)
def test_the_default_model_finds_the_one_person_of_each_photo(default_model: Path, picture: Path) -> None:
    result = PoseRunner().predict(picture)
    assert len(result) == 1
    for name, place in PLACES[picture.name].items():
        assert np.hypot(*np.subtract(result[0].keypoint(name)[:2], place)) < WITHIN, name


@pytest.mark.parametrize("picture", shipped.PICTURES, ids=lambda path: path.stem)
def test_a_photo_that_ships_says_its_terms_and_is_whole(picture: Path) -> None:
    assert f"`{picture.name}`" in (shipped.ASSETS / "README.md").read_text(encoding="utf-8")
    with Image.open(picture) as opened:
        assert opened.size == (512, 512)
        opened.load()


def test_no_model_named_is_the_default_one(other: Path) -> None:
    with PoseRunner() as ours, PoseRunner(other) as named:
        assert ours.predict(shipped.PICTURES[0]) == named.predict(shipped.PICTURES[0])


def test_predict_without_a_word_prints_tables_and_draws_the_photos(
    other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["predict"]) == 0
    printed = capsys.readouterr().out
    for picture in shipped.PICTURES:
        assert picture.name in printed
        drawn, photo = (np.asarray(Image.open(p)) for p in (Path("runs/pose/predict") / picture.name, picture))
        assert drawn.shape == photo.shape
        assert (np.abs(drawn.astype(int) - photo) > 60).any(2).mean() > 0.002  # lines, not the JPEG's noise alone
    assert len(re.findall(r"^0 +person +0\.", printed, re.MULTILINE)) == 2


def test_info_without_a_model_describes_the_default_one(other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(other)


@pytest.mark.parametrize("words", [["predict"], ["info"], ["demo", "page=true", "port=0"]])
def test_a_build_without_the_model_says_so(
    words: list[str], missing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert str(missing) in error
    assert "this build of edgepose has no model inside; name one" in error
    with pytest.raises(FileNotFoundError, match="no model inside"):
        PoseRunner()


def test_a_benchmark_case_of_no_model_is_of_the_default_one(default_model: Path) -> None:
    request = {"options": {"conf": 0.25}, "source": str(shipped.PICTURES[1]), "runs": 2, "warmup": 1}
    case = run_case(None, "auto", 1, request, 60)
    assert (case.status, case.model, case.facts["people"]) == ("ok", "default model", 1)
