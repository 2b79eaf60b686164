"""Writes the settings' tables of train.md from cfg/default.yaml: `python docs/settings_tables.py`."""

from __future__ import annotations

import re
from pathlib import Path

from edgepose_trainer.config import default_text

PAGE = Path(__file__).with_name("train.md")


def tables() -> str:
    """A Markdown table for each section of the YAML."""
    parts = []
    for section in default_text().split("\n\n")[1:]:
        head, *lines = section.strip().splitlines()
        rows = [re.fullmatch(r"(\w+): (.*?) # (.*)", line) for line in lines]
        cells = [f"| `{row[1]}` | `{row[2]}` | {row[3]} |" for row in rows if row]
        parts.append("\n".join([f"**{head.lstrip('# ')}**", "", "| setting | default | |", "|---|---|---|", *cells]))
    return "\n\n".join(parts)


def with_tables(page: str) -> str:
    """The page with what stands between `<!-- settings -->` and `<!-- end -->` written anew."""
    return re.sub(
        r"(<!-- settings -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{tables()}\n{m[2]}", page, flags=re.DOTALL
    )


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
