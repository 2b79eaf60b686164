"""`Stream`: the results of a source, one at a time, and what became of the source meanwhile."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgepose.result import PoseResult
    from edgepose.sources import Frame, Source


class Stream:
    """An iterator of results; made by `PoseRunner.stream`.

    Each frame is read and predicted on when its result is asked for, so that memory stays flat. The source is closed
    when it ends, by `close`, at the end of a `with`, or when nobody holds the stream any more.
    """

    def __init__(self, source: Source, predict: Callable[[Frame], PoseResult]) -> None:
        self._source = source
        self._results = _results(source, predict)
        self._finalizer = weakref.finalize(self, source.close)

    @property
    def total(self) -> int | None:
        """How many results will come (as a video file says), None where nobody knows before the end."""
        return self._source.total

    @property
    def fps(self) -> float | None:
        """Frames a second of the video or stream that is read, None for pictures or where it does not say."""
        return self._source.fps

    @property
    def live(self) -> bool:
        """Whether it is a camera or network stream, whose frames are dropped when nobody takes them in time."""
        return self._source.live

    @property
    def dropped(self) -> int:
        """How many frames of a live source were replaced by newer ones before they were predicted on."""
        return self._source.dropped

    @property
    def problems(self) -> list[tuple[str, Exception]]:
        """(name, error) of what was passed over with `on_error="skip"`, and of videos that end early."""
        return self._source.problems

    def __iter__(self) -> Iterator[PoseResult]:
        return self

    def __next__(self) -> PoseResult:
        return next(self._results)

    def close(self) -> None:
        """Frees files, cameras and the reading thread; safe to call twice, and from any thread."""
        self._finalizer()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _results(source: Source, predict: Callable[[Frame], PoseResult]) -> Iterator[PoseResult]:
    with source:
        for frame in source:
            try:
                result = predict(frame)
            except (ValueError, TypeError) as error:
                if frame.time is not None:  # it would fail on every other frame too
                    raise
                source.pass_over(frame.source or f"picture {frame.index}", error)
                continue
            yield result.with_source(frame.source or None, frame.index, frame.time)
