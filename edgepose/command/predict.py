"""`edgepose predict`: finds people in every picture of a source, prints, shows and saves them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from edgepose.command.interrupt import Uninterrupted
from edgepose.command.pipe import mute
from edgepose.command.runs import new_run_folder
from edgepose.command.sinks import (
    CocoDocuments,
    CsvSink,
    DrawingSink,
    JsonSink,
    PictureFiles,
    Sink,
    VideoFiles,
    plain_documents,
)
from edgepose.command.window import Window, WindowClosed
from edgepose.shipped import PICTURES

if TYPE_CHECKING:
    from edgepose.result import PoseResult
    from edgepose.sources import Frame, Source

DEFAULT_FPS = 25.0  # of a stream that does not tell its own
_LISTED = 5
_TABLES = 2  # so many pictures, the photos that ship among them, have a table each; more have a line each


class Predictor(Protocol):
    """What finds people: a `PoseRunner`, or the trainer's stand-in for a checkpoint."""

    def predict(self, source: Any, *, color: str | None = None) -> PoseResult: ...


@dataclass(slots=True)
class Tally:
    """What a run came to. failed: (name, reason) of what could not be read, of which `told` were printed and `skipped`
    came from the source. speed: sums of each stage, ms."""

    folder: Path | None = None
    frames: int = 0
    people: int = 0
    dropped: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    told: int = 0
    skipped: int = 0
    speed: dict[str, float] = field(default_factory=dict)
    written: list[Path] = field(default_factory=list)

    def add(self, result: PoseResult) -> None:
        self.frames += 1
        self.people += len(result)
        for stage, ms in result.speed._asdict().items():
            self.speed[stage] = self.speed.get(stage, 0.0) + ms


def run(
    source: str | None = None,
    model: str | None = None,
    conf: float = 0.25,
    iou: float | None = None,
    max_det: int = 300,
    classes: Sequence[int] | None = None,
    nms: Any = None,
    agnostic: bool = False,
    imgsz: int | Sequence[int] | None = None,
    device: str = "auto",
    precision: str | None = None,
    spec: str | None = None,
    rect: bool = False,
    backend: str = "auto",
    threads: int | None = None,
    save: bool = True,
    show: bool = False,
    save_json: bool = False,
    save_csv: bool = False,
    save_coco: bool = False,
    line_width: int | None = None,
    vid_stride: int = 1,
    name: str = "predict",
    project: str = "runs/pose",
    exist_ok: bool = False,
    verbose: bool = False,
) -> int:
    """Returns 0, or 1 where nothing could be read. Raises KeyboardInterrupt after completing the files."""
    from edgepose.runner import PoseRunner

    with PoseRunner(
        model,
        conf=conf,
        iou=iou,
        max_det=max_det,
        nms=nms,
        agnostic=agnostic,
        imgsz=imgsz,
        device=device,
        precision=precision,
        spec=spec,
        rect=rect,
        backend=backend,
        threads=threads,
        verbose=verbose,
    ) as runner:
        return predict_source(
            runner,
            source,
            classes=classes,
            save=save,
            show=show,
            save_json=save_json,
            save_csv=save_csv,
            save_coco=save_coco,
            line_width=line_width,
            vid_stride=vid_stride,
            name=name,
            project=project,
            exist_ok=exist_ok,
        )


def predict_source(
    predictor: Predictor,
    source: str | None,
    *,
    classes: Sequence[int] | None = None,
    save: bool = True,
    show: bool = False,
    save_json: bool = False,
    save_csv: bool = False,
    save_coco: bool = False,
    line_width: int | None = None,
    vid_stride: int = 1,
    name: str = "predict",
    project: str = "runs/pose",
    exist_ok: bool = False,
) -> int:
    """Runs any `predictor` over the source (None: the photos that ship), as `edgepose predict` does; the exit code."""
    from edgepose.sources import open_source

    if line_width is not None and line_width < 1:
        raise ValueError(f"line_width={line_width}: expected at least 1 pixel")
    with open_source(list(PICTURES) if source is None else source, vid_stride=vid_stride, on_error="skip") as frames:
        window: list[Sink] = [DrawingSink([Window()], line_width)] if show else []
        wanted = [name for name, on in (("json", save_json), ("csv", save_csv), ("coco", save_coco)) if on]
        folder = new_run_folder(project, name, exist_ok) if save or wanted else None
        sinks = _text_sinks(folder, wanted) if folder is not None else []
        if folder is not None and save:
            videos = VideoFiles(folder, lambda: _frame_rate(frames, vid_stride))
            sinks.append(DrawingSink((PictureFiles(folder), videos), line_width))
        tally = Tally(folder)
        with _closing([*sinks, *window], tally):
            interrupted = _predict_all(predictor, frames, sinks, window, classes, tally)
        tally.dropped = frames.dropped
    say(summary_text(tally) or "nothing was read", sys.stdout)
    if interrupted:
        raise KeyboardInterrupt
    return 1 if tally.frames == 0 else 0


def _frame_rate(frames: Source, vid_stride: int) -> float:
    """Of the annotated video. A live source's frames are dropped when they come too fast; it is written as it says."""
    return (frames.fps or DEFAULT_FPS) / (1 if frames.live else vid_stride)


def _text_sinks(folder: Path, wanted: Sequence[str]) -> list[Sink]:
    makers: dict[str, Callable[[], Sink]] = {
        "json": lambda: JsonSink(folder / "results.json", plain_documents),
        "csv": lambda: CsvSink(folder / "results.csv"),
        "coco": lambda: JsonSink(folder / "coco.json", CocoDocuments()),
    }
    return [makers[kind]() for kind in wanted]


@contextmanager
def _closing(sinks: Sequence[Sink], tally: Tally) -> Iterator[None]:
    """Completes the files at the end, or drops the unfinished ones where something went wrong."""
    try:
        yield
        with Uninterrupted():
            for sink in sinks:
                tally.written += sink.close()
    except BaseException:
        for sink in sinks:
            sink.discard()
        raise
    finally:
        if tally.folder is not None:
            with suppress(OSError):
                tally.folder.rmdir()  # where nothing was written into it


def _predict_all(
    predictor: Predictor,
    frames: Source,
    files: Sequence[Sink],
    window: Sequence[Sink],
    classes: Sequence[int] | None,
    tally: Tally,
) -> bool:
    """Predicts on every frame. Returns whether Ctrl-C ended it early; q in the window ends it too."""
    tell, guard = _teller(frames), Uninterrupted()
    try:
        for frame in _progress(frames):
            _tell_failures(frames, tally, tell)
            result = _predict_one(predictor, frame, tally)
            if result is None:
                continue
            result = result.with_source(frame.source, frame.index, frame.time)
            result = result if classes is None else result.filter(classes=classes)
            if frame.time is None:
                table = result.summary()
                few = frames.total is not None and frames.total <= _TABLES
                tell(table if few else table.partition("\n")[0], sys.stdout)
            with guard:
                for sink in files:
                    sink.add(frame, result)
                tally.add(result)
            for sink in window:
                sink.add(frame, result)
    except KeyboardInterrupt:
        return True
    except WindowClosed:
        return False
    finally:
        _tell_failures(frames, tally, tell)
    return False


def _predict_one(predictor: Predictor, frame: Frame, tally: Tally) -> PoseResult | None:
    """The result, or None for a picture that cannot be predicted on (its failure is in the tally)."""
    try:
        return predictor.predict(frame.image, color=frame.color)
    except ValueError as error:
        if frame.time is not None:
            raise
        tally.failed.append((str(frame.source), str(error)))
        return None


def _tell_failures(frames: Source, tally: Tally, tell: Callable[[str, IO[str]], None]) -> None:
    """Moves what the source could not read since the last call into the tally, and says so at once."""
    new = [(name, str(error)) for name, error in frames.problems[tally.skipped :]]
    tally.skipped += len(new)
    tally.failed += new
    for name, reason in tally.failed[tally.told :]:
        tell(f"skipped {reason if name in reason else f'{name}: {reason}'}", sys.stderr)
    tally.told = len(tally.failed)


def _progress(frames: Source) -> Iterable[Frame]:
    """The frames, with a bar on the error output where that is a terminal and there is more than one."""
    if frames.total == 1 or not sys.stderr.isatty():
        return frames
    from tqdm import tqdm

    unit = "frame" if frames.live or frames.fps else "picture"
    bar: Iterable[Frame] = tqdm(frames, total=frames.total, unit=unit, leave=False)
    return bar


def _teller(frames: Source) -> Callable[[str, IO[str]], None]:
    """Prints a line, above the bar where there is one."""
    if frames.total == 1 or not sys.stderr.isatty():
        return say
    from tqdm import tqdm

    def above_the_bar(text: str, file: IO[str]) -> None:
        with tqdm.external_write_mode(file=file):
            say(text, file)

    return above_the_bar


def say(text: str, file: IO[str]) -> None:
    """Prints a line. Where the reader of a pipe has left (`| head`) there is nobody to tell; the files are written."""
    try:
        print(text, file=file, flush=True)
    except BrokenPipeError:
        mute(file)


def summary_text(tally: Tally) -> str:
    """What a run came to, for its last lines."""
    lines = []
    if tally.frames:
        each = ", ".join(f"{stage} {total / tally.frames:.2f} ms" for stage, total in tally.speed.items())
        lines.append(f"{tally.frames} read, {tally.people} found; each: {each}")
    if tally.dropped:
        lines.append(f"{tally.dropped} frames came faster than they could be looked at and were dropped")
    if tally.failed:
        lines.append(f"{len(tally.failed)} could not be read")
    names = [path.name for path in tally.written]
    if len(names) > _LISTED:
        names = [*names[:_LISTED], f"… {len(names) - _LISTED} more"]
    if names:
        lines.append(f"results in {tally.folder}: {', '.join(names)}")
    return "\n".join(lines)
