"""docs/data.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from edgepose_trainer.data import AugmentConfig, load_data_config
from edgepose_trainer.data.config import TOP_KEYS

TEXT = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_a_dataset(example: str) -> None:
    assert load_data_config(yaml.safe_load(example)).has_split("train")


@pytest.mark.parametrize("key", [*TOP_KEYS, *AugmentConfig.__slots__])
def test_every_key_is_described(key: str) -> None:
    assert f"`{key}`" in TEXT
