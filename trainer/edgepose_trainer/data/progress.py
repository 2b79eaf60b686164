"""Progress of long steps, on the error output of a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Progress = Callable[[int, int], None]


def progress_bar(text: str, unit: str, show: bool) -> Progress | None:
    """progress(done, total) that draws a bar; it is made at the first call, and ends when done reaches total.

    None where nothing is to be shown. unit: "B" counts in bytes.
    """
    if not show:
        return None
    from tqdm import tqdm

    bars: list[Any] = []

    def progress(done: int, total: int) -> None:
        if not bars:
            scaled = unit == "B"
            bars.append(tqdm(total=total, desc=text, unit=unit, unit_scale=scaled, disable=None, leave=False))
        bars[0].update(done - bars[0].n)
        if done >= total:
            bars.pop().close()

    return progress
