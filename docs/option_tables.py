"""Writes the option tables of command.md from the command's registry: `python docs/option_tables.py`."""

from __future__ import annotations

import re
from pathlib import Path

from edgepose.command.registry import VERBS
from edgepose.command.usage import default_text
from edgepose.command.verbs import Verb

PAGE = Path(__file__).with_name("command.md")


def table(verb: Verb) -> str:
    """The verb's options as a Markdown table."""
    rows = ["| option | value | default | |", "|---|---|---|---|"]
    for option in verb.options:
        default = default_text(option)
        shown = default if default in ("", "required") else f"`{default}`"
        again = "; may be given more than once" if option.repeated else ""
        kind = option.kind.label.replace("|", "\\|")
        rows.append(f"| `{option.name}` | {kind} | {shown} | {option.help}{again} |")
    return "\n".join(rows)


def with_tables(page: str) -> str:
    """The page with every `<!-- options of VERB --> … <!-- end -->` filled anew."""
    for verb in VERBS.values():
        pattern = rf"(<!-- options of {verb.name} -->\n).*?(<!-- end -->)"
        page, count = re.subn(pattern, lambda m, v=verb: f"{m[1]}{table(v)}\n{m[2]}", page, flags=re.DOTALL)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"{PAGE.name} should have one table of options of {verb.name}, it has {count}")
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
