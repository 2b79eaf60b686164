"""Starts a function of edgepose in a new interpreter."""

from __future__ import annotations

import sys


def child_command(module: str, *arguments: str) -> list[str]:
    """The command line that calls `main(*arguments)` of a module in a fresh Python.

    It imports from where this process does; `python -m` would look into the working folder first, where a file may be
    called like a module.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; main(*{arguments!r})"
    return [sys.executable, "-c", code]
