"""What is printed into a pipe whose reader has left, as in `edgepose doctor | head -1`."""

from __future__ import annotations

import os
from typing import IO


def mute(stream: IO[str]) -> None:
    """From now on what is printed there goes nowhere, and raises no BrokenPipeError, at the program's end neither."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
