"""`edgepose demo`: people in front of the camera, live, in a window or on a page on localhost."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING

from edgepose.command.page import Page
from edgepose.command.window import Window, WindowClosed

if TYPE_CHECKING:
    from edgepose.runner import PoseRunner
    from edgepose.sources import Frame, Source

_SMOOTHING = 0.9  # share of the frame rate's old value in its new one


def run(
    source: str = "0",
    model: str | None = None,
    conf: float = 0.25,
    device: str = "auto",
    backend: str = "auto",
    threads: int | None = None,
    page: bool | None = None,
    host: str = "127.0.0.1",
    port: int = 8008,
) -> int:
    """Runs until Ctrl-C, or until the window is closed. Returns 0."""
    from edgepose.runner import PoseRunner

    with PoseRunner(model, conf=conf, device=device, backend=backend, threads=threads) as runner:
        frames = endless(source)
        try:
            first = next(frames)
            with closing(open_target(page, host, port)) as target:
                show(runner, chain([first], frames), target)
        except (KeyboardInterrupt, WindowClosed):
            return 0
    return 0


def open_target(page: bool | None, host: str, port: int) -> Page | Window:
    """The page, or a window; page=None: a window where one can open."""
    if not page:
        try:
            return Window()
        except (RuntimeError, ImportError) as error:
            if page is False:
                raise
            print(f"no window: {error}", file=sys.stderr)
    shown = Page(host, port)
    print(f"the demo is at {shown.url} (Ctrl-C ends it)", flush=True)
    return shown


def show(runner: PoseRunner, frames: Iterable[Frame], target: Page | Window) -> None:
    """Predicts on the frames and hands them on drawn."""
    from edgepose.drawing import draw

    rate, before = 0.0, time.perf_counter()
    for frame in frames:
        result = runner.predict(frame.image, color=frame.color)
        now = time.perf_counter()
        rate = _SMOOTHING * rate + (1 - _SMOOTHING) / max(now - before, 1e-6) if rate else 1 / max(now - before, 1e-6)
        before = now
        drawn = draw(frame.image, result, color=frame.color)
        if isinstance(target, Page):
            target.tell(fps=rate, people=len(result), speed=result.speed._asdict(), runtime=runner.backend)
        target.add(frame, drawn[..., ::-1] if frame.color == "RGB" else drawn)


def endless(source: str) -> Iterator[Frame]:
    """The source's frames; those of files again and again, videos at the speed they were taken at.

    Raises ValueError where the source gives no frame at all, else as `open_source` does.
    """
    from edgepose.sources import open_source

    while True:
        with open_source(source) as frames:
            count = 0
            for frame in _paced(frames):
                count += 1
                yield frame
            if not count:
                raise ValueError(f"source={source}: it has no picture or frame to show")


def _paced(frames: Source) -> Iterator[Frame]:
    started = time.perf_counter()
    for frame in frames:
        if frame.time is not None and not frames.live:
            time.sleep(max(0.0, started + frame.time - time.perf_counter()))
        yield frame
