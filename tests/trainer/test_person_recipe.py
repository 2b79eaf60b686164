"""The default model's recipe: what `ship.py` lets into the package, and what `measure.py` says of it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from edgepose_trainer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgepose_trainer.metrics import Found, Truth
from edgepose_trainer.nn import build_model
from PIL import Image

from edgepose.artifact import read_spec, write_spec
from edgepose.contract import DecoderSpec, InputSpec, ModelSpec, OutputSpec, PeopleSpec, Quantization
from edgepose.shipped import MODEL, PICTURES

RECIPE = Path(__file__).parents[2] / "trainer" / "recipes" / "person"
LEVELS = Quantization(0.05, 3)
SPEC = ModelSpec(
    input=InputSpec("images", layout="NHWC", dtype="int8", quantization=LEVELS),
    outputs=tuple(OutputSpec(role, role, 8, "NAC", "int8", LEVELS) for role in ("box", "score", "keypoints")),
    decoder=DecoderSpec("yolo_heads", kpt_shape=(17, 3)),
    people=PeopleSpec(class_names=("person",)),
    origin={"parity": {"ap": 0.25}},
)


def loaded(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, RECIPE / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def ship() -> ModuleType:
    return loaded("ship")


@pytest.fixture
def exported(tmp_path: Path) -> Callable[[ModelSpec], Path]:
    """A file that names itself a TFLite model and holds this spec; no runtime is asked to run it."""

    def make(spec: ModelSpec) -> Path:
        path = tmp_path / "best_int8.tflite"
        path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))
        write_spec(path, spec)
        return path

    return make


def checkpoint(path: Path, value: float, stem: int = 64) -> Path:
    """A small network all of whose weights are one number."""
    scale = {"scale": [0.33, 0.125, 64], "backbone": {"stem": stem, "stages": [[64, 1], [64, 1]]}}
    network = build_model({"nc": 1, "kpt_shape": [17, 3], **scale, "neck": {"levels": 2}, "head": {"reg_max": 8}})
    network.load_state_dict({k: torch.full_like(v, value) for k, v in network.state_dict().items()})
    save_checkpoint(path, Checkpoint(network))
    return path


def test_the_average_counts_a_file_as_often_as_it_is_named(tmp_path: Path) -> None:
    a, b = checkpoint(tmp_path / "a.pt", 1), checkpoint(tmp_path / "b.pt", 4)
    loaded("average").average(tmp_path / "mean.pt", [a, b, a], {"iou": 0.5})
    mean = load_checkpoint(tmp_path / "mean.pt")
    assert all(bool((value == 2).all()) for value in mean.model.parameters())
    assert mean.decoder.iou == 0.5


def test_other_networks_have_no_average(tmp_path: Path) -> None:
    a, b = checkpoint(tmp_path / "a.pt", 1), checkpoint(tmp_path / "b.pt", 1, stem=128)
    with pytest.raises(ValueError, match="another network than"):
        loaded("average").average(tmp_path / "mean.pt", [a, b], {})
    assert not (tmp_path / "mean.pt").exists()


def test_what_ships_keeps_its_parity_and_says_its_terms(
    ship: ModuleType, exported: Callable[[ModelSpec], Path], tmp_path: Path
) -> None:
    path = ship.ship(exported(SPEC), tmp_path / "person.tflite")
    spec = read_spec(path)
    assert spec is not None
    assert spec.origin["parity"] == {"ap": 0.25}
    assert spec.origin["license"] == "Apache-2.0"
    assert read_spec(tmp_path / "best_int8.tflite") == SPEC


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (SPEC._replace(input=InputSpec("images", layout="NHWC")), "takes and gives float32, int8"),
        (SPEC._replace(people=PeopleSpec(class_names=("hand",))), "finds 17 keypoints of hand"),
        (SPEC._replace(decoder=SPEC.decoder._replace(kpt_shape=(21, 3))), "finds 21 keypoints of person"),
    ],
)
def test_what_is_no_int8_person_model_does_not_ship(
    spec: ModelSpec, reason: str, ship: ModuleType, exported: Callable[[ModelSpec], Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=reason):
        ship.ship(exported(spec), tmp_path / "person.tflite")
    assert not (tmp_path / "person.tflite").exists()


def test_what_is_too_large_does_not_ship(
    ship: ModuleType, exported: Callable[[ModelSpec], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship, "MAX_MODEL_BYTES", 100)
    with pytest.raises(ValueError, match="the package has room for"):
        ship.ship(exported(SPEC), tmp_path / "person.tflite")


@pytest.fixture(scope="module")
def failures() -> ModuleType:
    return loaded("failures")


@pytest.fixture(scope="module")
def card() -> ModuleType:
    return loaded("card")


@pytest.fixture(scope="module")
def measure(card: ModuleType, failures: ModuleType) -> ModuleType:
    """It finds the two beside itself."""
    return loaded("measure")


def standing(turned: float = 0.0) -> np.ndarray:
    """Keypoints (17, 3) of a body of 100 pixels around (100, 100), turned by some degrees."""
    face = [(0, -50), (3, -53), (-3, -53), (6, -50), (-6, -50)]
    arms = [(15, -35), (-15, -35), (18, -15), (-18, -15), (18, 3), (-18, 3)]
    legs = [(9, 5), (-9, 5), (10, 28), (-10, 28), (10, 50), (-10, 50)]
    points = np.array([*face, *arms, *legs], float)
    cos, sin = np.cos(np.radians(turned)), np.sin(np.radians(turned))
    return np.column_stack([points @ np.array([[cos, sin], [-sin, cos]]) + 100, np.full(17, 2)])


@pytest.mark.parametrize(("turned", "expected"), [(0, 1.0), (60, 0.5), (90, 0.0), (180, -1.0)])
def test_uprightness_is_the_cosine_of_the_torsos_angle(turned: float, expected: float, failures: ModuleType) -> None:
    assert failures.uprightness(standing(turned)) == pytest.approx(expected, abs=1e-9)


def test_a_torso_that_is_not_labelled_is_neither_upright_nor_not(failures: ModuleType) -> None:
    keypoints = standing()
    keypoints[11, 2] = 0
    assert failures.uprightness(keypoints) is None


def test_every_person_is_in_just_one_group_of_each_kind(failures: ModuleType) -> None:
    values = np.random.default_rng(0).uniform([0, 0, -1, 0, 0], [0.5, 0.5, 1, 255, 1], (200, 5)).tolist()
    people = [failures.Person(a, b, c if e < 0.8 else None, d, e < 0.5) for a, b, c, d, e in values]
    people += [failures.Person(0.01, 0.0, 0.8, 60.0, True), failures.Person(0.05, 0.1, 0.0, 120.0, False)]  # at limits
    for title, groups in failures.GROUPS.items():
        counts = [sum(group(person) for group in groups.values()) for person in people]
        assert counts == [1] * len(people), title


def picture_of(failures: ModuleType, tmp_path: Path) -> Any:
    """200x200, left half black, right half at level 200: a person on each side, boxes side by side."""
    levels = np.zeros((200, 200), np.uint8)
    levels[:, 100:] = 200
    Image.fromarray(levels).save(tmp_path / "two.png")
    keypoints = np.stack([standing(), standing()])
    keypoints[0, :, 0] -= 50
    keypoints[1, :, 0] += 50
    boxes = np.array([[0, 50, 100, 150], [100, 50, 150, 150]], float)
    return failures.Picture(str(tmp_path / "two.png"), failures.Truth(boxes, np.zeros(2, np.int64), keypoints))


def test_people_are_described_by_their_own_box(failures: ModuleType, tmp_path: Path) -> None:
    dark, bright = failures.people(picture_of(failures, tmp_path))
    assert (dark.share, bright.share) == (0.25, 0.125)
    assert (dark.light, bright.light) == (0.0, pytest.approx(200.0))
    assert (dark.cut, bright.cut) == (True, False)
    assert dark.overlap == 0


def test_found_takes_a_sure_and_a_near_match(failures: ModuleType, tmp_path: Path) -> None:
    picture = picture_of(failures, tmp_path)
    keypoints = picture.truth.keypoints[..., :2].astype(np.float32)
    scores = np.array([0.9, 0.2], np.float32)  # the second under what `predict` asks for
    found = Found(picture.truth.boxes, scores, np.zeros(2, np.int64), keypoints, np.ones((2, 17)))
    first, second = failures.matched(picture, found)
    assert (first.best, first.found) == (pytest.approx(1.0), True)
    assert (second.best, second.found) == (pytest.approx(1.0), False)


@pytest.mark.parametrize(("seen", "expected"), [(0, (1.0, 0.0)), (1, (0.0, 1.0))])
def test_small_and_medium_people_have_an_ap_each(
    seen: int, expected: tuple[float, float], measure: ModuleType, failures: ModuleType, tmp_path: Path
) -> None:
    """One person of 20² pixels, whom COCO's own sizes leave out, and one of 60²; one of them is found."""
    Image.fromarray(np.zeros((200, 200), np.uint8)).save(tmp_path / "two.png")
    sides = np.array([[20.0], [60.0]])
    keypoints = np.stack([standing() * [side / 100, side / 100, 1] + [side, 0, 0] for side in sides[:, 0]])
    low = keypoints[..., :2].min(1)
    boxes = np.concatenate([low, low + sides / 0.53**0.5], 1)
    picture = failures.Picture(str(tmp_path / "two.png"), Truth(boxes, np.zeros(2, np.int64), keypoints))
    one = [seen]
    found = Found(boxes[one], np.ones(1), np.zeros(1, np.int64), keypoints[one, :, :2], np.ones((1, 17)))
    result = measure.accuracy([picture], [found])
    assert (result["AP small"], result["AP medium"]) == pytest.approx(expected)


def test_the_cards_tables_are_those_of_the_measurement(card: ModuleType) -> None:
    page = card.PAGE.read_text(encoding="utf-8")
    measured = json.loads(card.MEASURED.read_text(encoding="utf-8")) if card.MEASURED.is_file() else None
    assert card.with_tables(page, measured) == page, "run: python trainer/recipes/person/card.py"


def test_the_card_is_of_the_model_that_ships(card: ModuleType) -> None:
    if not MODEL.is_file():
        pytest.skip("the default model is not made yet: edgepose/assets/person.tflite")
    assert card.MEASURED.is_file(), "run trainer/recipes/person/measure.py"
    measured = json.loads(card.MEASURED.read_text(encoding="utf-8"))
    assert measured["model"]["sha256"] == hashlib.sha256(MODEL.read_bytes()).hexdigest(), "measure.py saw another file"
    assert card.SHEET.is_file()


def measurement(card: ModuleType, ap: float = 0.1234) -> dict[str, Any]:
    """As measure.py makes it, of numbers made up."""
    row = {"AP": ap, "AP small": float("nan"), "OKS": 0.7}
    torso = {"upright": {"people": 30, "found": 0.5, "OKS": 0.25}, "upside down": {"people": 3, "found": 0, "OKS": 0}}
    failures = {card.INT8: {"torso": torso}, card.PEER: {"torso": torso}}
    return {
        "model": {"bytes": 3_500_000, "sha256": "abc", "size": 256},
        "accuracy": {"coco": {card.INT8: row, card.FLOAT: row | {"AP": 0.13}}, "lspet": {card.INT8: row}},
        "failures": {"coco": failures, "lspet": failures},
        "latency": {
            "processor": "a board",
            "pictures": 9,
            "ms": {card.INT8: 4.0, card.MOVENET: 3.0},
            "ratio": {card.INT8: 1.0, card.MOVENET: 0.8},
        },
    }


def test_a_measurement_fills_every_table_of_the_card(card: ModuleType) -> None:
    page = card.with_tables(card.PAGE.read_text(encoding="utf-8"), measurement(card))
    assert "3.5 MB, input 256x256, SHA-256 `abc`." in page
    assert "|  | AP | OKS |" in page  # nobody has an AP of small people: no column
    assert "| default model, int8 | 0.123 | 0.700 |" in page
    assert "| torso | upright | 30 | 50 % | 0.250 | 50 % | 0.250 |" in page
    assert "| MoveNet Lightning, int8 | 3.0 | 0.80 |" in page
    assert "- COCO, torso: upright: 50 % of 30 people are found" in page
    assert "torso: upside down:" not in page  # too few to be named
    assert card.NOT_MEASURED not in page


@pytest.mark.parametrize(("ap", "verdict"), [(0.1234, "**missed**"), (0.2, "met")])
def test_the_card_says_which_goals_are_missed(ap: float, verdict: str, card: ModuleType) -> None:
    table = card.goal_table(measurement(card, ap))
    assert f"| AP on COCO | at least 0.200 | {ap:.3f} | {verdict} |" in table
    assert "| time of a `predict` / MoveNet's | at most 2.00 | 1.25 | met |" in table


@pytest.mark.slow
@pytest.mark.parametrize("model", ["movenet_single_pose_lightning_ptq.tflite", "yolov8n-pose_320.onnx"])
def test_accuracy_is_that_of_the_plain_tool(model: str, measure: ModuleType, shared: Path, tmp_path: Path) -> None:
    """tools/eval_ap.py decodes the pictures, pairs them with their labels and scores them by its own code."""
    path = shared / "models" / model
    command = [sys.executable, str(shared / "tools/eval_ap.py"), str(shared / "data/coco.zip"), "edgepose", str(path)]
    done = subprocess.run([*command, "320", "val"], check=True, capture_output=True, text=True)
    expected = {name: float(value) for name, value in re.findall(r"(AP|AP50|AR|bigOKS)=([0-9.]+)", done.stdout)}
    with zipfile.ZipFile(shared / "data" / "coco.zip") as archive:
        archive.extractall(tmp_path, [name for name in archive.namelist() if "/val/" in name])
    chosen = measure.pictures(tmp_path)
    ours = measure.accuracy(chosen, measure.predictions({model: path}, 320, chosen)[model])
    ours["bigOKS"] = ours.pop("OKS")
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=0.001)


@pytest.mark.slow
def test_the_latency_of_a_model_beside_itself_is_the_same(
    measure: ModuleType, failures: ModuleType, shared: Path
) -> None:
    movenet = shared / "models" / "movenet_single_pose_lightning_ptq.tflite"
    chosen = [failures.Picture(str(PICTURES[0]), None)] * 30
    times = measure.latency({"one": movenet, "the same": movenet}, chosen)
    assert times["ratio"] == {"one": 1.0, "the same": pytest.approx(1.0, abs=0.2)}
    assert times["ms"]["one"] > 0
