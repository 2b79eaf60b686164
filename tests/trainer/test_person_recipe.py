"""The default model's recipe: what `ship.py` lets into the package."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from edgepose.artifact import read_spec, write_spec
from edgepose.contract import DecoderSpec, InputSpec, ModelSpec, OutputSpec, PeopleSpec, Quantization

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
