"""`export_model`: from a checkpoint to a finished, verified artifact. `verify`: the same comparison, later."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from edgepose.artifact import read_spec, write_spec
from edgepose.contract import ModelSpec
from edgepose.feeding import exported_size
from edgepose_trainer.checkpoint import Checkpoint
from edgepose_trainer.data import DataConfig, load_data_config
from edgepose_trainer.export.arguments import Arguments, check_arguments, check_folder
from edgepose_trainer.export.calibration import CALIBRATED, Calibration, load_calibration
from edgepose_trainer.export.job import Converted, Job, Report, chatter_to, move_into_place, working_folder
from edgepose_trainer.export.parity import TOLERANCES, Parity, ParityError, advice, compare, verification_data
from edgepose_trainer.export.registry import format_of_artifact
from edgepose_trainer.export.spec import model_spec

log = logging.getLogger(__name__)

DEFAULT_SIZE = 640


def export_model(
    checkpoint: Checkpoint,
    source: str | os.PathLike[str],
    format: str = "onnx",
    *,
    report: Report = log.info,
    **arguments: Any,
) -> Path:
    """Writes the model for a runtime and compares it with the checkpoint; returns the file or folder.

    source: the checkpoint's file; the artifact is put beside it (or in `out`) under its name. report: gets what is
    worth telling, in lines. arguments: see docs/export.md.

    Raises ParityError for an artifact that is there but does not do what the checkpoint does; TypeError or ValueError
    for wrong arguments and unusable data, ImportError for a missing converter, OSError for a folder that cannot be
    written, RuntimeError that names a log where the converter failed.
    """
    asked = check_arguments(format, arguments)
    _check_converter(asked)
    _check_layout(checkpoint, asked)
    source = Path(source)
    folder = asked.out or source.parent
    check_folder(folder)
    size = _size(checkpoint, asked)
    calibration = _calibration(checkpoint, asked, size, report)
    target = folder / (source.stem + asked.format.suffixes[asked.precision])
    with working_folder(target) as work:
        job = Job(checkpoint, asked, source.stem, size, work, report, calibration)
        made = _convert(job, folder / f"{source.stem}_{asked.format.name}.log", report)
        spec = model_spec(job, made, source)
        parity = _finish(job, made, spec, source)
        target = folder / made.path.name
        for line in made.report:
            report(line)
        for path in (made.path, made.stand_in):
            if path is not None:
                sidecar = path.with_name(path.name + ".edgepose.json")
                if sidecar.is_file():
                    move_into_place(sidecar, folder / sidecar.name)
                move_into_place(path, folder / path.name)
    if isinstance(parity, CannotRun):
        raise ParityError(f"{target} is written, and marked as failed: {parity}. {advice('float32', ())}", target, None)
    _tell_usage(report, job, target, parity)
    if isinstance(parity, Parity) and not parity.passed:
        raise ParityError(
            f"{target} is written, and marked as failed: {'; '.join(parity.failures)}. "
            f"{advice(asked.precision, parity.failures)}",
            target,
            parity,
        )
    return target


def verify(
    model: str | os.PathLike[str],
    against: str | os.PathLike[str],
    data: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    report: Report = log.info,
) -> Parity:
    """Compares an artifact with the checkpoint that it is from (or any model with another) on real pictures, and
    writes the outcome into the artifact's metadata where it has any.

    data: a data YAML; without it the data that the checkpoint remembers. Raises ValueError where there is none.
    """
    from edgepose_trainer.model import PoseModel

    first, second = PoseModel(model), PoseModel(against)
    remembered = second.checkpoint.data if second.checkpoint is not None else None
    chosen = data if data is not None else remembered
    if not chosen:
        raise ValueError(f"{against} does not remember the data it was trained on: pass data=, such as data=my.yaml")
    spec = first.runner().spec
    size = _verified_size(spec, second.checkpoint)
    parity = _compare(first, second, load_data_config(chosen), spec, size)
    if first.checkpoint is None:
        entry = format_of_artifact(first.path)
        writer = (entry.write_spec if entry is not None else None) or write_spec
        _mark(first.path, spec, {"verified": True, **parity.to_dict()}, writer)
    report(parity.table())
    return parity


def _check_converter(asked: Arguments) -> None:
    missing = asked.format.missing(asked.precision)
    if missing:
        raise ImportError(
            f"format={asked.format.name} needs {', '.join(missing)}, which "
            f"{'is' if len(missing) == 1 else 'are'} not installed here: "
            f'pip install "edgepose[{asked.format.extra}]"'
        )


def _check_layout(checkpoint: Checkpoint, asked: Arguments) -> None:
    if asked.layout == "ultralytics" and checkpoint.model.head.heatmap is not None:
        raise ValueError(
            "layout=ultralytics: its one decoded tensor has no place for this network's heatmaps, and without them the "
            "keypoints are others; leave layout out, PoseRunner reads raw heads by itself"
        )


def _size(checkpoint: Checkpoint, asked: Arguments) -> tuple[int, int]:
    """The input's size, checked against the network's largest stride."""
    remembered = checkpoint.settings.get("imgsz")
    side = remembered if isinstance(remembered, int) else DEFAULT_SIZE
    stride = checkpoint.model.stride
    size = asked.size or (-(-side // stride) * stride,) * 2
    if any(length % stride for length in size):
        near = ",".join(str(max(1, round(length / stride)) * stride) for length in size)
        raise ValueError(f"imgsz={size[0]},{size[1]}: expected multiples of {stride}, such as imgsz={near}")
    return size[0], size[1]


def _data(checkpoint: Checkpoint, asked: Arguments) -> DataConfig | None:
    """The data named, else those that the checkpoint remembers; None where it remembers none."""
    chosen = asked.data if asked.data is not None else checkpoint.data or None
    return None if chosen is None else load_data_config(chosen)


def _calibration(checkpoint: Checkpoint, asked: Arguments, size: tuple[int, int], report: Report) -> Calibration | None:
    if asked.precision not in CALIBRATED:
        return None
    data = _data(checkpoint, asked)
    if data is None:
        raise ValueError(
            "int8=true finds the ranges of its tensors on real pictures, and the checkpoint remembers no data set: "
            "pass data=, such as data=my.yaml (nothing is downloaded or made up in its place)"
        )
    with _Bar("calibration pictures") as bar:
        calibration = load_calibration(data, size, asked.fraction, asked.calibration, bar)
    report(f"calibrating on {len(calibration)} pictures of {calibration.source} ({calibration.split})")
    for problem in calibration.problems[:5]:
        report(f"  left out: {problem}")
    if len(calibration.problems) > 5:
        report(f"  left out: {len(calibration.problems) - 5} more; see: edgepose check data={asked.data or '…'}")
    return calibration


def _convert(job: Job, log_path: Path, report: Report) -> Converted:
    """Runs the converter, its chatter in a log file that stays only where something goes wrong."""
    report(f"converting to {job.arguments.format.name}, {job.arguments.precision}, {job.size[0]}x{job.size[1]} …")
    chatter = job.folder / "converter.log"
    try:
        with chatter_to(chatter):
            made = job.arguments.format.convert(job)
    except (MemoryError, KeyboardInterrupt, OSError):
        raise
    except BaseException as error:
        move_into_place(chatter, log_path)
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RuntimeError(
            f"{job.arguments.format.name}: the converter failed: {first[:300]} (all that it said is in {log_path})"
        ) from error
    return made


class CannotRun(RuntimeError):
    """What a runtime says of an artifact that it cannot run."""


def _finish(job: Job, made: Converted, spec: ModelSpec, source: Path) -> Parity | CannotRun | str:
    """Writes the metadata, compares where that can be done, and writes the outcome too. A text: why it was not."""
    writer = job.arguments.format.write_spec or write_spec
    writer(made.path, spec)
    if made.stand_in is not None:
        writer(made.stand_in, spec)
    outcome = _verified(job, made, spec)
    told = {"verified": True, **outcome.to_dict()} if isinstance(outcome, Parity) else _unverified(str(outcome))
    if isinstance(outcome, CannotRun):
        told["passed"] = False
    for path in (made.path, made.stand_in):
        if path is not None:
            _mark(path, spec, told, writer)
    return outcome


def _unverified(reason: str) -> dict[str, Any]:
    return {"verified": False, "reason": reason[:500]}


def _mark(path: Path, spec: ModelSpec, parity: dict[str, Any], writer: Callable[[Path, ModelSpec], None]) -> None:
    """Writes the outcome of a verification into an artifact's metadata, if it has edgepose's."""
    try:
        kept = read_spec(path) or spec
    except (ValueError, OSError):
        kept = spec
    writer(path, kept._replace(origin={**kept.origin, "parity": parity}))


def _verified(job: Job, made: Converted, spec: ModelSpec) -> Parity | CannotRun | str:
    """The comparison, or why there is none."""
    from edgepose_trainer.model import PoseModel

    if not job.arguments.verify:
        return "verify=false"
    if made.stand_in is None and job.arguments.format.not_run:
        return job.arguments.format.not_run
    try:
        data = _data(job.checkpoint, job.arguments)
        if data is None:
            return "no pictures: neither data= nor a data set that the checkpoint remembers"
        reference = PoseModel.of_checkpoint(job.checkpoint, job.name)
        return _compare(PoseModel(made.stand_in or made.path), reference, data, spec, job.size)
    except CannotRun as error:
        return error
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        # The artifact is done: what keeps it from being compared is told, and does not throw it away.
        return f"the comparison could not be made: {error}"


def _compare(model: Any, reference: Any, data: DataConfig, spec: ModelSpec, size: tuple[int, int]) -> Parity:
    precision = str(spec.origin.get("precision", "float32"))
    options: dict[str, Any] = {"conf": 0.001, "clip": False}
    try:
        ours = model.comparison_runner(size if spec.input.resize.size is None else None, **options)
        ours.warmup()
    except (ValueError, RuntimeError) as error:
        raise CannotRun(f"{model.path.name} cannot be run: {error}") from error
    theirs = reference.comparison_runner(size, **options)
    dataset = verification_data(data, size)
    with _Bar("verifying") as bar:
        known = precision if precision in TOLERANCES else "float32"
        key = _weights_key(reference.checkpoint)
        return compare(ours, theirs, dataset, data, known, size, bar, key)


def _weights_key(checkpoint: Checkpoint | None) -> str:
    """A name for the weights; none for an artifact."""
    if checkpoint is None:
        return ""
    key = hashlib.blake2b(repr(checkpoint.model.config).encode(), digest_size=16)
    for tensor in checkpoint.model.state_dict().values():
        key.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return key.hexdigest()


def _verified_size(spec: ModelSpec, checkpoint: Checkpoint | None) -> tuple[int, int]:
    """The fixed size of the artifact, or the one that it was exported at."""
    if spec.input.resize.size is not None:
        return spec.input.resize.size
    if (kept := exported_size(spec.origin)) is not None:
        return kept
    side = checkpoint.settings.get("imgsz") if checkpoint is not None else None
    side = side if isinstance(side, int) else DEFAULT_SIZE
    return side, side


def _tell_usage(report: Report, job: Job, target: Path, parity: Parity | str) -> None:
    """How to go on with the artifact."""
    report(parity.table() if isinstance(parity, Parity) else f"not verified: {parity}")
    model, data = shlex.quote(f"model={target}"), shlex.quote(f"data={job.arguments.data or 'my.yaml'}")
    report(f"predict:  edgepose predict {model} source=photo.jpg")
    report(f"validate: edgepose val {model} {data}")
    report(f"deploy:   copy {target.name} to the device, {job.arguments.format.deploy.format(name=target.name)}")


class _Bar:
    """A progress bar on standard error, made at the first step; callable with (done, total)."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __call__(self, done: int, total: int) -> None:
        if self.bar is None:
            self.bar = tqdm(total=total, desc=self.what, leave=False, file=sys.stderr, disable=None)
        self.bar.update(done - self.bar.n)

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()
