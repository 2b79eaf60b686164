"""Help, written from the registry."""

from __future__ import annotations

import textwrap
from typing import Any

import edgepose
from edgepose.command.registry import TRAINER_VERBS, VERBS
from edgepose.command.verbs import Option, Verb

_WIDTH = 100


def overview() -> str:
    """What `edgepose help` prints."""
    verbs = {name: verb.summary for name, verb in VERBS.items()}
    lines = [
        f"edgepose {edgepose.__version__}: keypoint (pose) estimation on small computers",
        "",
        "usage: edgepose [pose] VERB key=value …",
        "       edgepose help VERB      the options of a verb",
        "       edgepose --version",
        "",
        "run models:",
        *_two_columns(verbs),
        "",
        'make models (needs the extra: pip install "edgepose[train]"):',
        *_two_columns(TRAINER_VERBS),
        "",
        "exit code: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C",
    ]
    return "\n".join(lines)


def verb_help(verb: Verb) -> str:
    """What `edgepose help VERB` prints."""
    lines = [verb.summary, "", f"usage: edgepose {verb.name} key=value …", "", "options:"]
    for option in verb.options:
        lines += _option_lines(option)
    if verb.examples:
        lines += ["", "examples:", *(f"  {example}" for example in verb.examples)]
    return "\n".join(lines)


def default_text(option: Option) -> str:
    """The default as one writes it on the command line; an empty text where nothing is the default."""
    if option.required:
        return "required"
    return _plain(option.default)


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join(_plain(part) for part in value)
    return str(value)


def _option_lines(option: Option) -> list[str]:
    default = default_text(option)
    note = {"": "", "required": " (required)"}.get(default, f" (default: {default})")
    again = "; may be given more than once" if option.repeated else ""
    text = textwrap.wrap(f"{option.help}{again}{note}", _WIDTH - 6)
    return [f"  {option.name}=<{option.kind.label}>", *(f"      {line}" for line in text)]


def _two_columns(rows: dict[str, str]) -> list[str]:
    width = max(len(name) for name in rows) + 2
    return [f"  {name:<{width}}{text}" for name, text in rows.items()]
