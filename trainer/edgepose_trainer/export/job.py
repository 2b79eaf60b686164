"""One export: what it works on, where it may write, and where the converter's chatter goes."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from edgepose.contract import InputSpec, OutputSpec, ResizeSpec
from edgepose_trainer.checkpoint import Checkpoint
from edgepose_trainer.export.arguments import Arguments
from edgepose_trainer.export.calibration import Calibration
from edgepose_trainer.export.prepare import INPUT, Traced, prepare

Report = Callable[[str], None]

_streams = threading.Lock()


@dataclass(frozen=True)
class Converted:
    """What a converter made: a file or folder in the job's folder, how it is fed, and what comes out.

    metadata: what the converter has to say of itself, for the artifact's origin. report: lines for the user.
    stand_in: a file that computes the same and runs here, where the artifact itself does not.
    """

    path: Path
    input: InputSpec
    outputs: tuple[OutputSpec, ...]
    metadata: dict[str, Any] = field(default_factory=dict)
    report: tuple[str, ...] = ()
    stand_in: Path | None = None


@dataclass
class Job:
    """What a converter gets.

    name: of the checkpoint, without its ending. size: (height, width) of the input. folder: private to this export,
    beside the place of the artifact, removed afterwards. calibration: the pictures of a static int8 export.
    """

    checkpoint: Checkpoint
    arguments: Arguments
    name: str
    size: tuple[int, int]
    folder: Path
    report: Report
    calibration: Calibration | None = None

    @property
    def artifact_name(self) -> str:
        return self.name + self.arguments.format.suffixes[self.arguments.precision]

    @cached_property
    def stride(self) -> int:
        return self.checkpoint.model.stride

    def traced(self, **changes: Any) -> Traced:
        """The network as these arguments ask for it; see `prepare`."""
        half = self.arguments.precision == "float16"
        options: dict[str, Any] = {"batch": self.arguments.batch, "layout": self.arguments.layout, "half": half}
        return prepare(self.checkpoint.model, self.size, **{**options, **changes})

    def input_spec(self, **changes: Any) -> InputSpec:
        """How the traced network is fed: RGB, NCHW, 0..1, letterboxed; `changes` are a format's own."""
        dynamic = self.arguments.dynamic
        spec = InputSpec(
            INPUT,
            batch=None if dynamic else self.arguments.batch,
            resize=ResizeSpec(size=None if dynamic else self.size, stride=self.stride),
        )
        return spec._replace(**changes)

    def pictures(self) -> Calibration:
        """The calibration pictures; the arguments made sure that a static int8 export has them."""
        if self.calibration is None:
            raise RuntimeError("static int8 without calibration pictures")
        return self.calibration


@contextlib.contextmanager
def working_folder(target: Path) -> Iterator[Path]:
    """A folder beside the artifact's place that is gone afterwards, whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_into_place(made: Path, target: Path) -> None:
    """Puts a finished file or folder at its place; what was there is replaced in one step (a folder: in two)."""
    if not made.is_dir():
        os.replace(made, target)
        return
    old = made.with_name(f"{made.name}.old")
    if target.exists():
        os.replace(target, old)
    os.replace(made, target)


@contextlib.contextmanager
def chatter_to(log: Path) -> Iterator[None]:
    """Sends everything that is written to standard output and error into a file: converters print from C++ too.

    One at a time in a process: a second thread waits.
    """
    with _streams, open(log, "ab", buffering=0) as file:
        _flush()
        kept = [os.dup(1), os.dup(2)]
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        handler = logging.FileHandler(log)
        handler.setLevel(logging.INFO)
        root = logging.getLogger()
        handlers, root.handlers = root.handlers, [handler]
        python = sys.stdout, sys.stderr
        text = open(log, "a", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
        sys.stdout = sys.stderr = text
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            sys.stdout, sys.stderr = python
            root.handlers = handlers
            handler.close()
            text.close()
            _flush()
            for target, descriptor in enumerate(kept, 1):
                os.dup2(descriptor, target)
                os.close(descriptor)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
