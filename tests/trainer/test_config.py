"""The settings: one YAML with every default, checked on load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from edgepose_trainer.config import Config, default_text, load_config, parse_setting, save_config


def test_the_yaml_holds_every_setting_once_with_a_comment() -> None:
    lines = [line for line in default_text().splitlines() if line and not line.startswith("#")]
    assert [line.split(":")[0] for line in lines] == list(Config.__dataclass_fields__)
    assert all(" # " in line for line in lines)


def test_overrides_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    mine = tmp_path / "my.yaml"
    mine.write_text("epochs: 7\nbatch: 4\n")
    config = load_config(mine, {"batch": 2})
    assert (config.epochs, config.batch, config.imgsz) == (7, 2, 640)


def test_the_saved_settings_load_to_the_same(tmp_path: Path) -> None:
    config = load_config(None, {"data": "a b: c.yaml", "freeze": [0, 1], "device": "0,1", "time": 0.5, "lr0": 1e-5})
    save_config(config, tmp_path / "args.yaml")
    assert load_config(tmp_path / "args.yaml") == config


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"epoch": 3}, ValueError, "unknown setting 'epoch': did you mean 'epochs'"),
        ({"batch": "many"}, TypeError, "'batch': got 'many' .str., expected int"),
        ({"cos_lr": 1}, TypeError, "'cos_lr': got 1 .int., expected bool"),
        ({"batch": 2.5}, TypeError, "'batch'"),
        ({"data": 3}, TypeError, "'data'"),
        ({"batch": 0}, ValueError, "'batch': got 0, expected at least 1"),
        ({"mosaic": 1.5}, ValueError, "'mosaic': got 1.5, expected 0 to 1"),
        ({"lr0": float("nan")}, ValueError, "'lr0'"),
        ({"optimizer": "adam"}, ValueError, "'optimizer'.*nearest: AdamW"),
        ({"task": "segment"}, ValueError, "'task'"),
        ({"imgsz_schedule": [[0.5, 16]]}, ValueError, "imgsz_schedule"),
        ({"imgsz_schedule": [["half", 96]]}, ValueError, "imgsz_schedule.*expected pairs"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load_config(None, settings)


def test_an_unknown_key_in_a_file_names_the_file(tmp_path: Path) -> None:
    mine = tmp_path / "my.yaml"
    mine.write_text("learning_rate: 1\n")
    with pytest.raises(ValueError, match=r"'learning_rate' in .*my\.yaml"):
        load_config(mine)


@pytest.mark.parametrize("text", ["- 1\n", "a: [\n", ""])
def test_a_file_that_is_no_settings_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"my\.yaml"):
        load_config(tmp_path / "my.yaml")


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="edgepose cfg"):
        load_config(tmp_path / "none.yaml")


def test_command_words_become_typed_settings() -> None:
    words = {
        "epochs": "3",
        "lr0": "1e-3",
        "cos_lr": "true",
        "device": "0,1",
        "data": "",
        "freeze": "[1, 2]",
        "amp": "bf16",
    }
    config = load_config(None, {key: parse_setting(key, text) for key, text in words.items()})
    assert (config.epochs, config.lr0, config.cos_lr, config.device) == (3, 0.001, True, "0,1")
    assert (config.data, config.freeze, config.amp) == (None, [1, 2], "bf16")


@pytest.mark.parametrize("text", ["", "null", "1", "2024-05-01", "a: b", "my runs #1", "true", "[a", " a "])
def test_text_is_taken_letter_by_letter(text: str) -> None:
    assert parse_setting("name", text) == text


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        *(("device", "0", 0), ("device", '"0"', "0"), ("cache", "ram", "ram"), ("cache", "true", True)),
        *(("amp", "bf16", "bf16"), ("pretrained", "null", None), ("resume", "runs #1/last.pt", "runs #1/last.pt")),
        *(("resume", "true", True), ("freeze", "10", 10), ("time", "0.5", 0.5)),
    ],
)
def test_a_setting_of_several_types_takes_each(key: str, text: str, value: Any) -> None:
    assert parse_setting(key, text) == value


@pytest.mark.parametrize(("key", "text"), [("epochs", "abc"), ("shear", "x"), ("cos_lr", "perhaps")])
def test_a_word_of_a_wrong_type_is_refused(key: str, text: str) -> None:
    with pytest.raises(TypeError, match=key):
        parse_setting(key, text)


@pytest.mark.parametrize("settings", [{"lr0": float("inf")}, {"degrees": float("nan")}, {"seed": 2**63}])
def test_numbers_that_nothing_can_take_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        load_config(None, settings)


def test_the_printed_defaults_are_yaml() -> None:
    assert yaml.safe_load(default_text()) == load_config().to_dict()
