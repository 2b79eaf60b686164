"""The parity gate: what it measures, what it lets pass, and what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from edgepose_trainer.checkpoint import load_checkpoint, save_checkpoint
from edgepose_trainer.export import ParityError, verify
from edgepose_trainer.export import parity as gate
from edgepose_trainer.model import PoseModel
from exporting import assert_same_people

from edgepose.cli import main
from edgepose.result import PoseResult


def result(scores: list[float], shift: float = 0.0, kinds: list[int] | None = None) -> PoseResult:
    """People of 20 x 20 pixels in a row, each with one keypoint in the middle, in a picture of 200 x 100."""
    corners = np.arange(len(scores))[:, None] * 40 + np.array([0, 0, 20, 20]) + shift
    points = corners[:, None, :2] + 10
    classes = np.array(kinds or [0] * len(scores), np.int32)
    ones = np.ones((len(scores), 1), np.float32)
    return PoseResult(
        corners.astype(np.float32),
        np.array(scores, np.float32),
        classes,
        points.astype(np.float32),
        ones,
        size=(200, 100),
    )


def test_people_match_by_place_and_class_from_a_lower_score_on() -> None:
    first = result([0.9, 0.8, 0.3, 0.2])
    assert gate.match(first, result([0.9, 0.8, 0.12, 0.2])) == [(0, 0), (1, 1), (2, 2)]
    assert gate.match(first, result([0.9, 0.8, 0.05])) == [(0, 0), (1, 1)]
    assert gate.match(first, result([0.9, 0.8], kinds=[1, 0])) == [(1, 1)]
    assert gate.match(first, result([])) == []


def test_distances_are_in_pixels_of_the_input() -> None:
    seen = gate._Seen((50, 100))  # half the picture's size
    seen.add(result([0.9, 0.8], shift=1.0), result([0.9, 0.6]))
    np.testing.assert_allclose(np.concatenate(seen.distances), np.sqrt(2) / 2, rtol=1e-5)
    np.testing.assert_allclose(seen.scores, [0.0, 0.2], atol=1e-6)
    assert (seen.people, seen.known, seen.all_people) == (2, 4, 4)


def test_an_export_is_compared_with_the_checkpoint_and_says_so(
    person: Path, people_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"model={person}", "format=torchscript", f"data={people_data}", f"out={tmp_path}"]
    assert main(["export", *words]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-1] == str(tmp_path / "best.torchscript")
    assert any("people matched" in line and "100.0%" in line for line in lines)
    assert any(line.startswith("predict:") for line in lines)
    parity = PoseModel(lines[-1]).runner().spec.origin["parity"]
    assert parity["verified"]
    assert parity["passed"]
    assert parity["pictures"] == 4
    assert parity["keypoint_p99"] < 0.01
    assert parity["ap"] == pytest.approx(parity["reference_ap"], abs=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["best.torchscript"]


def test_the_same_weights_with_another_nms_are_compared_anew(person: Path, people_data: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(person)
    for iou in (0.9, 0.05):  # far apart: what the first keeps would fail the second
        checkpoint.settings |= {"iou": iou}
        save_checkpoint(tmp_path / f"{iou}.pt", checkpoint)
        path = PoseModel(tmp_path / f"{iou}.pt").export("torchscript", data=people_data)
        parity = PoseModel(path).runner().spec.origin["parity"]
        assert parity["ap"] == pytest.approx(parity["reference_ap"], abs=1e-3)
        assert parity["matched"] == 1.0


def test_two_that_find_nobody_prove_nothing(
    person: Path, people_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = load_checkpoint(person)
    with torch.no_grad():
        for parameter in checkpoint.model.head.parameters():
            parameter.fill_(torch.nan)
    save_checkpoint(tmp_path / "nan.pt", checkpoint)
    words = [f"model={tmp_path / 'nan.pt'}", "format=torchscript", f"data={people_data}", f"out={tmp_path}"]
    assert main(["export", *words]) == 0
    assert "neither of the two finds anybody" in capsys.readouterr().out
    assert not PoseModel(tmp_path / "nan.torchscript").runner().spec.origin["parity"]["verified"]
    with pytest.raises(ValueError, match="neither of the two finds anybody"):
        verify(tmp_path / "nan.torchscript", tmp_path / "nan.pt", people_data)


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_what_its_runtime_cannot_run_has_failed(
    error: type[Exception], person: Path, people_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error("an operator is missing")

    monkeypatch.setattr(PoseModel, "comparison_runner", refuse)
    with pytest.raises(ParityError, match="cannot be run: an operator is missing") as caught:
        PoseModel(person).export("torchscript", data=people_data, out=tmp_path)
    monkeypatch.undo()
    assert caught.value.parity is None
    parity = PoseModel(caught.value.path).runner().spec.origin["parity"]
    assert (parity["verified"], parity["passed"]) == (False, False)


def test_without_pictures_it_says_not_verified_and_why(
    person: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", f"model={person}", "format=torchscript", f"out={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "not verified: no pictures" in said
    parity = PoseModel(tmp_path / "best.torchscript").runner().spec.origin["parity"]
    assert not parity["verified"]
    assert "no pictures" in parity["reason"]


@pytest.fixture
def impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gate.TOLERANCES, "float32", gate.Tolerance(1.01, 0.1, 0.001, 0.001))


@pytest.mark.usefixtures("impossible")
def test_a_failed_gate_marks_the_artifact_keeps_it_and_ends_with_1(
    person: Path, people_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"model={person}", "format=torchscript", f"data={people_data}", f"out={tmp_path}"]
    assert main(["export", *words]) == 1
    said = capsys.readouterr()
    assert said.out.strip().splitlines()[-1] == str(tmp_path / "best.torchscript")
    assert "try:" in said.err
    parity = PoseModel(tmp_path / "best.torchscript").runner().spec.origin["parity"]
    assert parity["passed"] is False
    assert parity["failures"]


@pytest.mark.slow
@pytest.mark.usefixtures("impossible")
def test_the_facade_raises_with_the_path(person: Path, people_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="marked as failed") as failure:
        PoseModel(person).export("torchscript", data=people_data, out=tmp_path)
    assert failure.value.path == tmp_path / "best.torchscript"
    assert failure.value.path.is_file()


@pytest.mark.slow
def test_verify_compares_later_and_another_checkpoint_fails(
    person: Path, make_checkpoint: Callable[..., Path], people_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = PoseModel(person).export("torchscript")
    assert main(["verify", f"model={path}", f"against={person}", f"data={people_data}", "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    assert PoseModel(path).runner().spec.origin["parity"]["verified"]
    other = make_checkpoint()
    checkpoint = load_checkpoint(other)
    for branch in checkpoint.model.head.cv3:
        branch[-1].bias.data += 1.0  # type: ignore[index, union-attr, operator]
    save_checkpoint(other, checkpoint)
    assert "scores" in verify(path, other, people_data).failures[0]


def test_verify_without_data_asks_for_them(person: Path) -> None:
    path = PoseModel(person).export("torchscript")
    with pytest.raises(ValueError, match="pass data="):
        verify(path, person)


@pytest.mark.slow
def test_a_torchscript_is_predicted_with_and_validated(person: Path, people_data: Path, tmp_path: Path) -> None:
    path = PoseModel(person).export("torchscript", out=tmp_path)
    picture = next((people_data.parent / "images" / "val").iterdir())
    options = {"conf": 0.01, "clip": False}
    assert_same_people(
        PoseModel(path).runner(**options).predict([picture]),
        PoseModel(person).runner(**options).predict([picture]),
        0.01,
        1e-4,
    )
    assert PoseModel(path).val(data=people_data).images == 4


def test_info_describes_a_torchscript(person: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = PoseModel(person).export("torchscript", out=tmp_path)
    assert main(["info", f"model={path}", "json=true"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["format"], facts["runtime"], facts["problem"]) == ("torchscript", "torch", None)
    assert facts["spec"]["origin"]["checkpoint"] == "best.pt"
