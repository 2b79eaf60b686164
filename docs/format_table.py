"""Writes the table of formats of export.md from the exporter's registry: `python docs/format_table.py`."""

from __future__ import annotations

import re
from pathlib import Path

from edgepose_trainer.export.registry import markdown_table

PAGE = Path(__file__).with_name("export.md")


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    table = f"<!-- formats -->\n{markdown_table()}\n<!-- end -->"
    PAGE.write_text(
        re.sub(r"<!-- formats -->.*?<!-- end -->", lambda _: table, text, flags=re.DOTALL), encoding="utf-8"
    )
