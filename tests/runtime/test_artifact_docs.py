"""The examples of docs/artifact.md are specs that load."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from edgepose.contract import ModelSpec
from edgepose.known import NAMED_SPECS

PAGE = (Path(__file__).parents[2] / "docs/artifact.md").read_text()


def test_the_spec_that_the_page_shows_loads() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert ModelSpec.from_dict(yaml.safe_load(example)).decoder.kpt_shape == (4, 2)


def test_the_page_names_every_named_spec() -> None:
    assert all(f"`{name}`" in PAGE for name in NAMED_SPECS)


def test_the_page_describes_every_field() -> None:
    spec = ModelSpec.from_dict(yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0])).to_dict()
    fields = {*spec["input"], *spec["outputs"][0], *spec["decoder"], *spec["people"], "schema", "origin"} - {"resize"}
    fields |= {f"resize.{name}" for name in spec["input"]["resize"]}
    assert [name for name in sorted(fields) if f"`{name}`" not in PAGE] == []
