"""Training, from top to bottom: `train` is the story, the functions below it are its steps in their order.

What makes a batch and a step is a function of the settings, the epoch and the batch number; the rest of a run's state
is in `last.pt`. So a run that was killed goes on with `resume` to the very same weights.
"""

from __future__ import annotations

import ctypes
import math
import os
import random
import shlex
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from edgepose.command.runs import new_run_folder
from edgepose_trainer import distributed
from edgepose_trainer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, transfer_weights
from edgepose_trainer.config import Config, default_settings, load_config, save_config
from edgepose_trainer.data import (
    AugmentConfig,
    Batch,
    DataConfig,
    Loader,
    build_dataset,
    build_loader,
    load_data_config,
)
from edgepose_trainer.data.check import label_statistics, plot_statistics
from edgepose_trainer.data.config import find_data_yaml
from edgepose_trainer.data.download import download_dataset
from edgepose_trainer.data.draw import save_batch_picture
from edgepose_trainer.data.progress import progress_bar
from edgepose_trainer.distributed import World
from edgepose_trainer.loss import Gains, PoseLoss
from edgepose_trainer.metrics import Metrics
from edgepose_trainer.nn import PoseNetwork, build_model
from edgepose_trainer.optim import MovingAverage, build_optimizer, choose_optimizer, freeze_layers, set_rates
from edgepose_trainer.plots import ValPictures, draw_history, draw_metrics
from edgepose_trainer.recorder import LOSS_NAMES, EpochLine, Recorder
from edgepose_trainer.validate import Validator, autocast, check_sizes, precision_of, to_input, validate

if TYPE_CHECKING:
    from edgepose_trainer.data.pictures import CacheMode

EVENTS = ("on_train_start", "on_epoch_start", "on_batch_end", "on_epoch_end", "on_checkpoint", "on_train_end")
"""What callbacks can be called at."""

Callback = Callable[["Run"], None]

RESUMABLE = (
    "resume",
    "model",
    "device",
    "workers",
    "cache",
    "threads",
    "verbose",
    "save_minutes",
    "save_batches",
    "plots",
)
"""Settings that may change when a run is resumed."""


@dataclass
class State:
    """Where a run is. epoch: the one in training, from 0; batch: its next batch; step: optimizer steps done."""

    epochs: int
    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_fitness: float = -1.0
    best_epoch: int = -1
    losses: list[float] = field(default_factory=lambda: [0.0] * len(LOSS_NAMES))

    @property
    def finished(self) -> bool:
        return self.epoch >= self.epochs


@dataclass
class Run:
    """A run and all that it works with; callbacks get it. metrics: of the last validation."""

    config: Config
    folder: Path
    world: World
    data: DataConfig
    network: PoseNetwork
    average: MovingAverage
    criterion: PoseLoss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loader: Loader
    val_loader: Loader | None
    state: State
    recorder: Recorder
    forward: nn.Module
    dtype: torch.dtype | None = None
    metrics: Metrics | None = None
    callbacks: Mapping[str, Sequence[Callback]] = field(default_factory=dict)
    validators: Sequence[Validator] = ()
    line: EpochLine | None = None
    save_failure: str = ""
    stop: bool = False

    def call(self, event: str) -> None:
        for callback in self.callbacks.get(event, ()):
            callback(self)

    def close(self) -> None:
        """Ends the loaders' workers, and what reduces gradients: it may not outlive its process group, whose threads
        it would wait for while it holds the interpreter's lock that they need to end."""
        self.forward = self.network
        self.loader.close()
        if self.val_loader is not None:
            self.val_loader.close()


@dataclass(frozen=True, slots=True)
class TrainResult:
    """folder: the run's; best and last: its checkpoints (None where nothing was saved); metrics: of the best weights,
    validated again at the end (None without validation); interrupted: stopped by Ctrl-C or SIGTERM before the end."""

    folder: Path
    best: Path | None
    last: Path | None
    metrics: Metrics | None
    interrupted: bool = False


def train(
    config: Config,
    callbacks: Mapping[str, Sequence[Callback]] | None = None,
    validators: Iterable[Validator] = (),
) -> TrainResult:
    """Trains a network as the settings say.

    Raises ValueError or FileNotFoundError for settings, data or checkpoints that cannot work, RuntimeError where the
    batch does not fit into memory or the loss is no longer a number, OSError where nothing could be saved at the end.
    """
    config, checkpoint = read_resume(config)
    devices = distributed.parse_devices(config.device)
    if distributed.must_launch(devices):
        return train_elsewhere(config, devices, callbacks, validators)
    with (
        distributed.join(devices) as world,
        explained_memory_errors(config),
        closing(prepare(config, checkpoint, world, callbacks or {}, tuple(validators))) as run,
    ):
        run.call("on_train_start")
        with stop_signals() as stopped:
            while not run.state.finished and not run.stop:
                if not train_epoch(run, stopped):
                    return interrupted(run)
                fit_time(run)
                record_epoch(run, validate_epoch(run))
        return finish(run)


def read_resume(config: Config) -> tuple[Config, Checkpoint | None]:
    """With `resume`: the settings and the state that its last.pt holds."""
    if not config.resume:
        return config, None
    if config.resume is True and Path(config.model).suffix not in (".pt", ".pth"):
        raise ValueError(f"resume=true goes on with the last.pt that model= names, got model={config.model}")
    path = Path(config.model if config.resume is True else config.resume).resolve()
    checkpoint = load_checkpoint(path)
    if checkpoint.training is None:
        done = f"its training ended after {checkpoint.epoch} epochs" if checkpoint.epoch >= 0 else "it is no last.pt"
        raise ValueError(f"{path}: nothing to resume, {done}; to train it further: model={path} epochs=…")
    if path.parent.name != "weights":
        raise ValueError(f"{path}: expected <run>/weights/last.pt, for a run goes on in its folder; move the file back")
    settings = dict(checkpoint.settings)
    settings |= {key: getattr(config, key) for key in RESUMABLE if key != "model"}
    settings |= {"resume": str(path), "project": str(path.parents[2]), "name": path.parents[1].name}
    if config.data not in (None, settings.get("data")):  # it may have moved
        settings["data"] = str(find_data_yaml(config.data))
    tell_ignored(config, settings)
    return load_config(None, settings), checkpoint


def tell_ignored(config: Config, settings: Mapping[str, Any]) -> None:
    """Warns of settings that were given with `resume` and are another in the run, which goes on with its own."""
    given = {key: value for key, value in config.to_dict().items() if value != default_settings()[key]}
    if "project" in given:
        given["project"] = str(Path(config.project).resolve())
    taken = ("resume", "model", "data", "exist_ok")
    ignored = [key for key, value in given.items() if key not in taken and settings.get(key) != value]
    if ignored:
        warnings.warn(f"a resumed run keeps its own settings; not taken: {', '.join(ignored)}", stacklevel=3)


def train_elsewhere(
    config: Config, devices: list[torch.device], callbacks: Any, validators: Iterable[Validator]
) -> TrainResult:
    """One process a device, under torchrun; what they wrote is this call's result."""
    if callbacks or list(validators):
        raise ValueError(
            f"device={config.device!r} trains in processes of its own, which callbacks and validators cannot reach: "
            "run your script itself under torchrun"
        )
    folder = (
        Path(config.resume).parents[1]
        if isinstance(config.resume, str)
        else new_run_folder(config.project, config.name, config.exist_ok)
    )
    config = config.replace(project=str(folder.parent), name=folder.name, exist_ok=True)
    distributed.launch(config, devices)
    best, last = folder / "weights" / "best.pt", folder / "weights" / "last.pt"
    return TrainResult(folder, best if best.is_file() else None, last if last.is_file() else None, None)


# --- before the first epoch


def prepare(
    config: Config,
    checkpoint: Checkpoint | None,
    world: World,
    callbacks: Mapping[str, Sequence[Callback]],
    validators: Sequence[Validator],
) -> Run:
    """Everything a run needs, new or as the checkpoint left it."""
    set_machine(config)
    if world.device.type == "cpu":
        keep_freed_memory()
    config = with_whole_paths(config)
    data = read_data(config, checkpoint)
    network, notes = build_network(config, data, checkpoint)  # before the download: a wrong name is told at once
    bar = progress_bar("downloading", "B", config.verbose)
    distributed.share(download_dataset(data, bar) if world.main else None, world)
    frozen = freeze_layers(network, config.freeze)
    network.to(world.device)
    if config.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.sync_bn:
        distributed.sync_batch_norm(network, world)
    loader, val_loader = build_loaders(config, data, network, world)
    config = choose_optimizer(
        config, len(loader) * config.epochs // max(1, round(config.nbs / config.batch)), network.nc
    )
    optimizer = build_optimizer(network, config)
    dtype = precision_of(config.amp, world.device)
    folder = distributed.share(run_folder(config) if world.main else None, world)
    config = config.replace(project=str(folder.parent), name=folder.name)
    run = Run(
        config=config,
        folder=folder,
        world=world,
        data=data,
        network=network,
        average=MovingAverage(network, config.ema_decay, config.ema_tau),
        criterion=build_loss(config, data, network, world),
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(world.device.type, enabled=dtype == torch.float16),
        loader=loader,
        val_loader=val_loader,
        state=State(config.epochs),
        recorder=Recorder(folder, config.tensorboard and world.main, checkpoint.epoch if checkpoint else 0),
        forward=distributed.parallel(network, world),
        dtype=dtype,
        callbacks=callbacks if world.main else {},
        validators=validators,
    )
    if checkpoint is not None:
        restore(run, checkpoint)
    if world.main:
        # Training again from it never writes into this run's folder; the launcher of several processes asks them to.
        save_config(config.replace(resume=None, exist_ok=False), folder / "args.yaml")
        announce(run, [*notes, *([f"frozen: {len(frozen)} tensors"] if frozen else [])])
    return run


def set_machine(config: Config) -> None:
    """Threads, seeds, determinism."""
    if config.threads:
        torch.set_num_threads(config.threads)
    random.seed(config.seed)
    np.random.seed(config.seed % 2**32)
    torch.manual_seed(config.seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic matrix products of CUDA ask for
    torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    # Filling new memory guards against reads before writes; it makes nothing deterministic and costs 7 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not config.deterministic
    torch.backends.cudnn.deterministic = config.deterministic


def keep_freed_memory() -> None:
    """Tells glibc's malloc to keep what is freed: every step asks for the same memory again, and to have it mapped and
    filled with zeros anew takes a tenth of a step on a CPU. Other allocators are left alone."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        _ = mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)  # old ones refuse more than 32 MiB


def with_whole_paths(config: Config) -> Config:
    """Files named from the working folder by their whole paths: a run goes on, or is run again, from any folder."""
    named = {key: getattr(config, key) for key in ("model", "pretrained", "data")}
    whole = {key: str(Path(name).absolute()) for key, name in named.items() if name and Path(name).is_file()}
    return config.replace(**whole)


def read_data(config: Config, checkpoint: Checkpoint | None) -> DataConfig:
    """The data YAML; of a run that goes on without it, what its checkpoint remembers of it."""
    if config.data is None:
        raise ValueError("train needs data=: a dataset YAML, such as data=coco8-pose.yaml")
    if checkpoint is None:
        return load_data_config(config.data)
    try:
        data = load_data_config(config.data)
    except FileNotFoundError:
        data = load_data_config(checkpoint.data)
    network = checkpoint.model
    if (data.num_classes, data.kpt_shape) != (network.nc, network.kpt_shape):
        raise ValueError(
            f"{config.data} has {data.num_classes} classes with keypoints {list(data.kpt_shape)}, the run that goes on "
            f"{network.nc} with {list(network.kpt_shape)}"
        )
    return data


def run_folder(config: Config) -> Path:
    """A new folder, or the one of the run that goes on, without what it was killed in the middle of writing."""
    if isinstance(config.resume, str):
        folder = Path(config.project) / config.name
        for part in (folder / "weights").glob(".*.tmp"):
            part.unlink()
        return folder
    folder = new_run_folder(config.project, config.name, config.exist_ok)
    (folder / "weights").mkdir(exist_ok=True)
    return folder


def build_network(config: Config, data: DataConfig, checkpoint: Checkpoint | None) -> tuple[PoseNetwork, list[str]]:
    """The network to train, and what there is to say about where its weights come from."""
    if checkpoint is not None:
        return build_model(checkpoint.model.config.document), []
    plan: Any = config.model
    starts = {}
    suffix = Path(config.model).suffix.lower()
    if suffix not in ("", ".yaml", ".yml", ".pt", ".pth"):
        raise ValueError(f"model={config.model}: expected a .yaml or a .pt; of an exported model, the one it is from")
    if suffix in (".pt", ".pth"):
        starts[config.model] = load_checkpoint(config.model).model
        plan = starts[config.model].config.document
    if config.pretrained is not None:
        starts[config.pretrained] = load_checkpoint(config.pretrained).model
    network = build_model(plan, kpt_shape=data.kpt_shape, nc=data.num_classes)
    return network, [f"weights of {name}: {transfer_weights(network, s.state_dict())}" for name, s in starts.items()]


def build_loaders(config: Config, data: DataConfig, network: PoseNetwork, world: World) -> tuple[Loader, Loader | None]:
    """Training batches for this process; validation batches for the first process alone."""
    stride = network.stride
    sizes = [config.imgsz, *(int(stage[1]) for stage in config.imgsz_schedule or [])]
    check_sizes(sizes, stride)
    cache = cast("CacheMode | bool", config.cache)
    augment = AugmentConfig(**{f.name: getattr(config, f.name) for f in fields(AugmentConfig)})
    dataset = build_dataset(
        data, "train", max(sizes), augment, cache, verbose=config.verbose and world.main, fraction=config.fraction
    )
    loader = build_loader(
        dataset,
        config.batch,
        config.workers,
        config.seed,
        world.rank,
        world.size,
        shuffle=True,
        multi_scale=config.multi_scale,
        stride=stride,
        pin_memory=world.device.type == "cuda",
    )
    if not (config.val and world.main):
        return loader, None
    if not data.has_split("val"):
        raise ValueError(f"{data.source} has no val pictures: add `val:` to it, or train with val=false")
    val_dataset = build_dataset(data, "val", config.imgsz, None, cache, verbose=config.verbose, rect=config.rect)
    return loader, build_loader(val_dataset, config.batch, config.workers, stride=stride)


def build_loss(config: Config, data: DataConfig, network: PoseNetwork, world: World) -> PoseLoss:
    gains = Gains(**{gain.name: getattr(config, gain.name) for gain in fields(Gains)})
    return PoseLoss(network, gains, data.sigmas, distributed=world.size > 1)


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Puts a run where its checkpoint was written."""
    training = checkpoint.training
    assert training is not None
    run.network.load_state_dict(training["network"])
    run.average.network.load_state_dict(checkpoint.model.state_dict())
    run.average.steps = training["average_steps"]
    run.optimizer.load_state_dict(training["optimizer"])
    run.scaler.load_state_dict(training["scaler"])
    run.state = State(**training["state"])
    set_random_states(training["random"])


def random_states() -> dict[str, Any]:
    """The states of every generator that a run or its callbacks may draw from."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: Mapping[str, Any]) -> None:
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    name, numbers, *rest = states["numpy"]
    np.random.set_state((name, numbers.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])


def announce(run: Run, notes: Sequence[str]) -> None:
    """The head of a run: what is trained, on what, how, where to."""
    config, state = run.config, run.state
    parameters = sum(p.numel() for p in run.network.parameters())
    pictures = len(run.loader.dataset)
    val = f", {len(run.val_loader.dataset)} to validate" if run.val_loader else ""
    precision = str(run.dtype or torch.float32).removeprefix("torch.")
    lines = [
        f"{run.network.config.name}: {parameters:,} parameters, nc {run.network.nc}, kpt_shape {run.network.kpt_shape}",
        *notes,
        f"data {run.data.source}: {pictures} pictures to train{val}",
        *left_out(run),
        f"{config.optimizer} lr0={config.lr0:g}, batch {config.batch}, imgsz {config.imgsz}, {precision} on "
        f"{run.world.device} x {run.world.size}",
        f"results in {run.folder}",
    ]
    if state.epoch or state.batch:
        lines.append(f"going on at epoch {state.epoch + 1} of {state.epochs}, batch {state.batch + 1}")
    if config.verbose:
        print("\n".join(lines), file=sys.stderr)


def left_out(run: Run, most: int = 5) -> list[str]:
    """The first of the pictures that are not used, with the reason, and how many more there are."""
    datasets = [loader.dataset for loader in (run.loader, run.val_loader) if loader is not None]
    problems = [problem for dataset in datasets for problem in dataset.problems if problem.left_out]
    lines = [f"  left out: {problem}" for problem in problems[:most]]
    if len(problems) > most:
        lines.append(f"  left out: {len(problems) - most} more; see: edgepose check data={run.config.data}")
    return lines


# --- an epoch


def train_epoch(run: Run, stopped: Callable[[], bool]) -> bool:
    """Trains the rest of the present epoch. False: a stop was asked for, the state is at a step's end and saved."""
    config, state = run.config, run.state
    run.call("on_epoch_start")
    begin_epoch(run)
    line = EpochLine(state.epoch, state.epochs, len(run.loader), state.batch, config.verbose and run.world.main)
    losses = torch.tensor(state.losses, dtype=torch.float64, device=run.world.device)
    clock, saved_at, since_save, summed = time.monotonic(), time.monotonic(), 0, 0
    for batch in run.loader:
        if state.batch == 0 and is_worth_a_picture(run):
            picture = run.folder / f"train_batch_epoch{state.epoch + 1}.jpg"
            with going_on_without(picture):
                save_batch_picture(batch, picture, run.data)
        summed_wanted = set_rates(
            run.optimizer, config, state.epoch * len(run.loader) + state.batch, len(run.loader), state.epochs
        )
        losses += backward(run, batch)
        state.batch, summed, since_save = state.batch + 1, summed + 1, since_save + 1
        state.seconds, clock = state.seconds + time.monotonic() - clock, time.monotonic()
        show(run, line, losses, len(batch["images"]) * run.world.size)
        run.call("on_batch_end")
        if summed < summed_wanted and state.batch < len(run.loader):
            continue
        step(run)
        summed = 0
        stop = distributed.agree(stopped(), run.world)
        if stop or is_save_due(config, time.monotonic() - saved_at, since_save):
            state.losses = checked(losses, run).tolist()
            save(run, "last.pt")
            saved_at, since_save = time.monotonic(), 0
        if stop:
            line.close()
            return False
    state.losses = (checked(distributed.total(losses, run.world), run) / run.world.size).tolist()
    run.line = line
    return True


def is_worth_a_picture(run: Run) -> bool:
    """The first batch of the run, and the first without mosaic, are drawn."""
    config, state = run.config, run.state
    return config.plots and run.world.main and state.epoch in (0, state.epochs - config.close_mosaic)


def begin_epoch(run: Run) -> None:
    """Chooses the epoch's batches; frozen layers keep their batch norm statistics too."""
    config, state = run.config, run.state
    mosaic = state.epochs - state.epoch > config.close_mosaic
    run.loader.set_epoch(state.epoch, state.batch, imgsz=scheduled_size(config, state), mosaic=mosaic)
    run.network.train()
    for layer in run.network.model:
        if not any(p.requires_grad for p in layer.parameters()):
            layer.eval()


def scheduled_size(config: Config, state: State) -> int:
    """Progressive resolution: the size of the last stage that has begun (imgsz before the first)."""
    done = state.epoch / state.epochs
    begun = [int(size) for share, size in sorted(config.imgsz_schedule or []) if share <= done]
    return begun[-1] if begun else config.imgsz


def backward(run: Run, batch: Batch) -> Tensor:
    """Adds the batch's gradients; returns its loss items (5,) in the order of LOSS_NAMES, detached."""
    device = run.world.device
    images = to_input(batch["images"], device)
    with autocast(run.dtype, device):
        heads = run.forward(images)
    loss, items = run.criterion(heads, cast("Mapping[str, Tensor]", batch))
    torch.autograd.backward(run.scaler.scale(loss))
    return torch.stack([items[name] for name in LOSS_NAMES]).double()


def step(run: Run) -> None:
    """One step of the optimizer and the average."""
    if run.config.clip:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.network.parameters(), run.config.clip)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.zero_grad()
    run.average.update()
    run.state.step += 1


def show(run: Run, line: EpochLine, losses: Tensor, pictures: int) -> None:
    """The live line; on GPUs the losses are fetched every tenth batch only, since that waits for the GPU."""
    state = run.state
    fetch = run.world.device.type == "cpu" or state.batch % 10 == 0 or state.batch == len(run.loader)
    done = state.epoch + state.batch / len(run.loader)
    left = state.seconds / max(done, 1e-9) * (state.epochs - done)
    means = (checked(losses, run) / state.batch).tolist() if fetch else None
    line.update(pictures, means, run.world.device, left)


def checked(losses: Tensor, run: Run) -> Tensor:
    """The losses, where they are numbers; a checkpoint of a run gone astray is never written."""
    if not bool(torch.isfinite(losses).all()):
        raise RuntimeError(
            f"the loss is no longer a number in epoch {run.state.epoch + 1}, batch {run.state.batch}: lower lr0 "
            f"(now {run.config.lr0:g}) or train with amp=false; checkpoints so far are in {run.folder / 'weights'}"
        )
    return losses


def is_save_due(config: Config, seconds: float, batches: int) -> bool:
    minutes = config.save_minutes and seconds >= 60 * config.save_minutes
    return bool(minutes or (config.save_batches and batches >= config.save_batches))


def fit_time(run: Run) -> None:
    """With `time`: as many epochs as fit into it, as long as those so far; at least the one just trained."""
    state, hours = run.state, run.config.time
    if hours is not None:
        done = state.epoch + 1
        fitting = math.floor(hours * 3600 / (state.seconds / done))
        state.epochs = distributed.share(max(done, fitting), run.world)


def validate_epoch(run: Run) -> Metrics | None:
    """Accuracy of the averaged weights, in the arithmetic of training; None in epochs without validation, and in
    processes but the first."""
    state, config = run.state, run.config
    last = state.epoch + 1 == state.epochs
    if run.val_loader is None or ((state.epoch + 1) % config.val_period and not last):
        return None
    start = time.monotonic()
    metrics = validate(
        run.average.network,
        run.val_loader,
        run.data,
        config,
        run.world.device,
        run.validators,
        state.epoch + 1,
        run.dtype,
    )
    state.seconds += time.monotonic() - start
    return metrics


def record_epoch(run: Run, metrics: Metrics | None) -> None:
    """Ends an epoch: table, checkpoints, early stopping."""
    config, state = run.config, run.state
    line, losses = run.line, [value / len(run.loader) for value in state.losses]
    assert line is not None
    line.close(metrics)
    run.metrics = metrics or run.metrics
    state.epoch, state.batch, state.losses = state.epoch + 1, 0, [0.0] * len(LOSS_NAMES)
    fitness = metrics.fitness if metrics else math.nan
    if metrics and math.isnan(fitness):
        warnings.warn("no person of val has a labelled keypoint: best.pt is the newest, not the best", stacklevel=1)
    better = fitness > state.best_fitness
    if better:
        state.best_fitness, state.best_epoch = fitness, state.epoch
    if run.world.main:
        rates = {f"lr/{group['role']}": group["lr"] for group in run.optimizer.param_groups}
        row = {f"loss/{name}": value for name, value in zip(LOSS_NAMES, losses, strict=True)}
        speed = {"images_per_second": line.speed, "seconds": state.seconds}
        with going_on_without(run.recorder.path):
            run.recorder.add({"epoch": state.epoch, **speed, **row, **(metrics.to_dict() if metrics else {}), **rates})
        run.call("on_epoch_end")
    worse = not better and not math.isnan(fitness)  # an epoch without validation says nothing
    tired = worse and 0 < config.patience <= state.epoch - state.best_epoch
    run.stop = distributed.share(run.stop or tired, run.world)
    save_epoch(run, better)


def save_epoch(run: Run, better: bool) -> None:
    """last.pt comes last: a run killed before it is written repeats the epoch, and with it the other files."""
    state, period = run.state, run.config.save_period
    if better or state.best_epoch < 0:  # until one is known to be the best, the newest stands for it
        save(run, "best.pt", training=False)
    if period and state.epoch % period == 0:
        save(run, f"epoch{state.epoch}.pt", training=False)
    save(run, "last.pt")


# --- checkpoints and the end


@contextmanager
def going_on_without(path: Path) -> Iterator[None]:
    """A full disk costs a table's row or a picture, not the run."""
    try:
        yield
    except OSError as error:
        warnings.warn(f"{path} was not written: {error}. Free some space; training goes on", stacklevel=3)


def save(run: Run, name: str, training: bool = True) -> None:
    """Writes a checkpoint. Where the disk is full the one that was there stays, training goes on, and the next save
    tries again."""
    if not (run.world.main and run.config.save):
        return
    path = run.folder / "weights" / name
    try:
        save_checkpoint(path, snapshot(run, training))
        run.save_failure = ""
    except OSError as error:
        run.save_failure = f"{path} was not written: {error}"
        kept = "the one before is still good" if path.is_file() else "there is none yet"
        warnings.warn(f"{run.save_failure}; {kept}. Free some space: the next save tries again", stacklevel=2)
        return
    run.call("on_checkpoint")


def snapshot(run: Run, training: bool) -> Checkpoint:
    """The averaged network with all that it needs to be used, and with what resume needs if `training`."""
    state, data = run.state, run.data
    whole = None
    if training:
        whole = {
            "network": run.network.state_dict(),
            "average_steps": run.average.steps,
            "optimizer": run.optimizer.state_dict(),
            "scaler": run.scaler.state_dict(),
            "state": asdict(state),
            "random": random_states(),
        }
    metrics = run.metrics.to_dict() if run.metrics else {}
    origin = {"producer": "edgepose", "data": data.source}
    return Checkpoint(
        run.average.network, data.people(), run.config.to_dict(), data.to_dict(), state.epoch, metrics, whole, origin
    )


def interrupted(run: Run) -> TrainResult:
    """Stopped at a safe point: says how to go on."""
    last = run.folder / "weights" / "last.pt"
    saved = last.is_file() and run.config.save and not run.save_failure
    if run.world.main and run.config.verbose:
        where = f"stopped in epoch {run.state.epoch + 1}, after batch {run.state.batch} of {len(run.loader)}"
        ending = f"go on with: {resume_command(last, run.config)}" if saved else "nothing was saved"
        print(f"{where}; {ending}", file=sys.stderr)
    run.recorder.close()
    return TrainResult(run.folder, None, last if saved else None, run.metrics, interrupted=True)


def resume_command(last: Path, config: Config) -> str:
    """Goes on on this machine: names the settings that resume does not take from the run, unless they are defaults."""
    machine = {key: getattr(config, key) for key in RESUMABLE if key not in ("resume", "model")}
    texts = {True: "true", False: "false"}
    words = [
        f"{key}={texts[value] if isinstance(value, bool) else value}"
        for key, value in machine.items()
        if value != default_settings()[key]
    ]
    return shlex.join(["edgepose", "train", f"resume={last}", *words])


def finish(run: Run) -> TrainResult:
    """The best weights, measured as after every epoch, and drawn."""
    if not run.world.main:
        return TrainResult(run.folder, None, None, None)
    save(run, "last.pt", training=False)
    weights = run.folder / "weights"
    best, last = (path if path.is_file() else None for path in (weights / "best.pt", weights / "last.pt"))
    if run.val_loader is not None:
        pictures = ValPictures(skeleton=run.data.skeleton)
        validators = [*run.validators, *([pictures] if run.config.plots else [])]
        network = load_checkpoint(best).model if best else run.average.network
        device, dtype = run.world.device, run.dtype
        run.metrics = validate(network, run.val_loader, run.data, run.config, device, validators, dtype=dtype)
    if run.config.plots:
        draw_run(run, pictures if run.val_loader is not None else None)
    run.call("on_train_end")
    run.recorder.close()
    if run.save_failure:
        raise OSError(f"training is done, but {run.save_failure}")
    return TrainResult(run.folder, best, last, run.metrics)


def draw_run(run: Run, pictures: ValPictures | None) -> None:
    """Losses and metrics over epochs, label statistics, and of the best weights: curves, errors, pictures."""
    draw_history(run.recorder.path, run.folder / "results.png")
    statistics = label_statistics(run.loader.dataset)
    plot_statistics(statistics, run.folder / "labels.png", f"{statistics['people']} people to train on")
    if run.metrics is not None and pictures is not None:
        draw_metrics(run.metrics, run.folder)
        pictures.save(run.folder / "val_pictures.jpg")


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask for a stop at the next safe point; a second Ctrl-C stops at once (KeyboardInterrupt).

    torchrun passes a Ctrl-C on that its processes got already: the same one again is no second one.
    """
    asked: list[float] = []

    def ask(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if asked and number == signal.SIGINT and now - asked[0] > SAME_CTRL_C_S:
            raise KeyboardInterrupt
        asked.append(now)

    watched = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, ask) for number in watched}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def explained_memory_errors(config: Config) -> Iterator[None]:
    """An allocator's complaint as a MemoryError that says what to change."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not any(w in text for w in OUT_OF_MEMORY):
            raise
        reason = (text or type(error).__name__).strip().splitlines()[0][:200]
        raise MemoryError(
            f"batch={config.batch} at imgsz={config.imgsz} does not fit into memory ({reason}); try "
            f"batch={max(1, config.batch // 2)} (nbs={config.nbs} keeps the step's size), a smaller imgsz, fewer "
            "workers, or cache=false"
        ) from error


SAME_CTRL_C_S = 1.0
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "is killed by signal: Killed")


if __name__ == "__main__":
    train(load_config(sys.argv[1]))
