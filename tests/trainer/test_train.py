"""The training loop: schedules, averages, checkpoints, and what it says when something goes wrong."""

from __future__ import annotations

import json
import math
import multiprocessing
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import edgepose_trainer.train as train_module
import pytest
import torch
from edgepose_trainer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgepose_trainer.config import load_config
from edgepose_trainer.nn import build_model
from edgepose_trainer.optim import (
    MovingAverage,
    build_optimizer,
    choose_optimizer,
    freeze_layers,
    learning_rate_share,
    set_rates,
)
from edgepose_trainer.recorder import read_rows
from edgepose_trainer.train import Run, State, TrainResult, scheduled_size, train


def run(settings: dict[str, Any], folder: Path, callbacks: Any = None, **more: Any) -> TrainResult:
    return train(load_config(None, settings | {"project": str(folder)} | more), callbacks)


# --- schedules and averages


@pytest.mark.parametrize("cosine", [False, True])
def test_the_learning_rate_falls_from_lr0_to_its_last_share(cosine: bool) -> None:
    config = load_config(None, {"cos_lr": cosine, "lrf": 0.1})
    shares = [learning_rate_share(config, p) for p in (0.0, 0.25, 0.5, 1.0)]
    quarter = 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2 if cosine else 0.775
    assert shares == pytest.approx([1.0, quarter, 0.55, 0.1])


def test_the_warm_up_raises_rate_momentum_and_step_size() -> None:
    config = load_config(None, {"optimizer": "SGD", "lr0": 0.1, "lrf": 1.0, "batch": 16, "warmup_epochs": 2.0})
    optimizer = build_optimizer(build_model("yolov8p-pose.yaml"), config)
    seen = []
    for batch in (0, 10, 20, 50):
        summed = set_rates(optimizer, config, batch, per_epoch=10, epochs=10)
        rates = {group["role"]: group["lr"] for group in optimizer.param_groups}
        seen.append((rates["weight"], rates["bias"], optimizer.param_groups[0]["momentum"], summed))
    expected = [(0, 0.1, 0.8, 1), (0.05, 0.1, 0.8685, 2), (0.1, 0.1, 0.937, 4), (0.1, 0.1, 0.937, 4)]
    assert [pytest.approx(row) for row in expected] == seen


def test_auto_takes_adamw_for_short_runs_and_sgd_for_long_ones() -> None:
    config = load_config()
    assert choose_optimizer(config, 100, nc=1).optimizer == "AdamW"
    assert choose_optimizer(config, 100, nc=1).lr0 == pytest.approx(0.002)
    assert choose_optimizer(config, 100_000, nc=1).optimizer == "SGD"


@pytest.mark.parametrize("steps", [100, 100_000])
def test_a_rate_that_was_given_stays(steps: int) -> None:
    config = choose_optimizer(load_config(None, {"lr0": 1e-4, "momentum": 0.8}), steps, nc=1)
    assert (config.lr0, config.momentum) == (1e-4, 0.8)


def test_only_convolution_weights_decay() -> None:
    network = build_model("yolov8p-pose.yaml")
    groups = {g["role"]: g for g in build_optimizer(network, load_config(None, {"optimizer": "SGD"})).param_groups}
    assert [groups[r]["weight_decay"] for r in ("bias", "norm", "weight")] == [0, 0, 0.0005]
    assert all(p.ndim == 4 for p in groups["weight"]["params"])
    assert sum(len(g["params"]) for g in groups.values()) == sum(p.requires_grad for p in network.parameters())


def test_the_moving_average_follows_its_formula() -> None:
    network = build_model("yolov8p-pose.yaml")
    average = MovingAverage(network, decay=0.9, tau=5.0)
    start = average.network.state_dict()["model.0.conv.weight"].clone()
    expected = start.clone()
    for step in (1, 2, 3):
        with torch.no_grad():
            network.get_parameter("model.0.conv.weight").add_(step)
        average.update()
        decay = 0.9 * (1 - math.exp(-step / 5))
        expected = decay * expected + (1 - decay) * network.get_parameter("model.0.conv.weight").detach()
    torch.testing.assert_close(average.network.state_dict()["model.0.conv.weight"], expected)


def test_progressive_resolution_takes_the_last_stage_that_has_begun() -> None:
    config = load_config(None, {"imgsz": 64, "imgsz_schedule": [[0.5, 128], [0.2, 96]]})
    sizes = [scheduled_size(config, State(epochs=10, epoch=epoch)) for epoch in (0, 1, 2, 4, 5, 9)]
    assert sizes == [64, 64, 96, 96, 128, 128]


def test_freezing_an_unknown_layer_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no layer 99"):
        freeze_layers(build_model("yolov8p-pose.yaml"), [99])


# --- a run


def test_frozen_layers_keep_weights_and_statistics(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    before: dict[str, torch.Tensor] = {}

    def remember(run: Run) -> None:
        before.update({name: value.clone() for name, value in run.network.state_dict().items()})

    result = run(tiny_settings, tmp_path, {"on_train_start": [remember]}, freeze=3, epochs=1, val=False)
    assert result.last is not None
    after = load_checkpoint(result.last).model.state_dict()
    frozen = [name for name in before if name.startswith(("model.0.", "model.1.", "model.2."))]
    assert [name for name in frozen if not torch.equal(before[name], after[name])] == []
    assert any(not torch.equal(before[name], after[name]) for name in before if name not in frozen)


def test_training_lowers_the_loss(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    result = run(tiny_settings, tmp_path, epochs=12, val=False, mosaic=0.0, lr0=0.01, optimizer="AdamW")
    rows = [line.split(",") for line in (result.folder / "results.csv").read_text().splitlines()]
    column = rows[0].index("loss/pose")
    assert float(rows[-1][column]) < 0.9 * float(rows[1][column])


def test_gradients_are_clipped_to_their_norm(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    """SGD without momentum moves the weights by at most rate x norm a step."""
    weights: list[torch.Tensor] = []

    def remember(run: Run) -> None:
        weights.append(torch.cat([p.detach().flatten() for p in run.network.parameters()]))

    run(
        tiny_settings, tmp_path, {"on_train_start": [remember], "on_batch_end": [remember]},
        epochs=1, val=False, nbs=4, optimizer="SGD", lr0=1.0, lrf=1.0, momentum=0.0, warmup_epochs=0.0,
        weight_decay=0.0, clip=0.01,
    )  # fmt: skip
    moved = [float((after - before).norm()) for before, after in pairwise(weights)]
    assert moved == [0.0, *[pytest.approx(0.01, rel=1e-3)] * (len(moved) - 1)]  # a batch ends before its step


def test_multi_scale_accumulation_and_progressive_sizes_train(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    steps: list[int] = []
    result = run(
        tiny_settings, tmp_path, {"on_train_end": [lambda run: steps.append(run.state.step)]},
        epochs=2, val=False, multi_scale=0.5, imgsz_schedule=[[0.5, 96]], nbs=12, warmup_epochs=0.0, optimizer="SGD",
    )  # fmt: skip
    assert steps == [2]  # three batches of four a step, three batches an epoch
    assert result.last is not None


def test_patience_ends_a_run_that_does_not_improve(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    result = run(tiny_settings, tmp_path, epochs=9, patience=2, optimizer="SGD", lr0=1e-9)
    assert len((result.folder / "results.csv").read_text().splitlines()) == 1 + 3


def test_patience_counts_validated_epochs_alone(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    """The best of epoch 2 stands until epoch 4 was measured."""
    result = run(tiny_settings, tmp_path, epochs=9, patience=1, val_period=2, optimizer="SGD", lr0=1e-9)
    assert len((result.folder / "results.csv").read_text().splitlines()) == 1 + 4


def test_a_val_set_without_keypoints_ends_no_run_and_leaves_the_newest_weights(
    tiny_settings: dict[str, Any], make_dataset: Callable[..., Any], tmp_path: Path
) -> None:
    """Patience counts epochs that were worse; an epoch without AP is none."""
    blind = make_dataset({"a": [(0, 0.5, 0.5, 0.6, 0.6, *[0.5, 0.5, 0] * 3)]}, "val")
    data = make_dataset({"a": [(0, 0.5, 0.5, 0.6, 0.6, *[0.5, 0.5, 2] * 3)] * 2}) | {"val": blind["val"]}
    (tmp_path / "data.yaml").write_text(json.dumps(data))
    with pytest.warns(UserWarning, match=r"best\.pt is the newest"):
        result = run(tiny_settings, tmp_path, epochs=4, patience=1, data=str(tmp_path / "data.yaml"))
    assert len((result.folder / "results.csv").read_text().splitlines()) == 1 + 4
    assert result.best is not None
    assert load_checkpoint(result.best).epoch == 4


def test_two_classes_train_and_are_validated(
    tiny_settings: dict[str, Any], make_data: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_data()
    data.write_text(data.read_text().replace("names: {0: person}", "names: {0: adult, 1: child}"))
    for label in (data.parent / "labels").rglob("*.txt"):
        rows = label.read_text().splitlines()
        label.write_text("".join(f"{i % 2}{row[1:]}\n" for i, row in enumerate(rows)))
    result = run(tiny_settings, tmp_path, epochs=1, data=str(data), model="yolov8n-pose.yaml")
    assert result.metrics is not None
    assert result.best is not None
    assert load_checkpoint(result.best).people["names"] == {0: "adult", 1: "child"}


def test_what_is_used_is_not_listed_as_left_out(
    tiny_settings: dict[str, Any], make_data: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data()
    labels = data.parent / "labels/train"
    (labels / "000.txt").write_text((labels / "000.txt").read_text() * 2)  # repeated rows
    (labels / "001.txt").write_text("0 1 2\n")
    run(tiny_settings, tmp_path, epochs=1, val=False, data=str(data), verbose=True)
    told = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(told) == 1
    assert "001.png" in told[0]


def test_an_exported_model_is_nothing_to_train(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model=a\.onnx: expected a \.yaml or a \.pt"):
        run(tiny_settings, tmp_path, model="a.onnx")


def test_a_time_limit_sets_the_epochs(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    result = run(tiny_settings, tmp_path, epochs=1000, time=0.5 / 3600, val=False)
    assert len((result.folder / "results.csv").read_text().splitlines()) < 20


def test_the_last_epoch_that_fits_the_time_is_validated(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    result = run(tiny_settings, tmp_path, epochs=1000, time=0.5 / 3600, val_period=1000)
    assert result.best is not None


def test_save_period_keeps_checkpoints_and_the_end_drops_the_training_state(
    tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    result = run(tiny_settings, tmp_path, epochs=2, save_period=1, val=False)
    names = {path.name for path in (result.folder / "weights").iterdir()}
    assert names == {"last.pt", "best.pt", "epoch1.pt", "epoch2.pt"}
    assert result.last is not None
    with pytest.raises(ValueError, match="nothing to resume"):
        train(load_config(None, {"resume": str(result.last)}))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_events_are_written_where_wanted(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    result = run(tiny_settings, tmp_path, epochs=1, val=False, tensorboard=True)
    assert list(result.folder.glob("events.out.tfevents.*"))


def test_runs_never_share_a_folder(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    folders = [run(tiny_settings, tmp_path, epochs=1, val=False).folder.name for _ in range(2)]
    assert folders == ["train", "train2"]


def test_a_checkpoint_of_other_keypoints_is_taken_over_where_it_fits(
    tiny_settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = build_model("yolov8p-pose.yaml")
    save_checkpoint(tmp_path / "start.pt", Checkpoint(start))
    run(tiny_settings, tmp_path, epochs=1, val=False, verbose=True, pretrained=str(tmp_path / "start.pt"))
    notes = capsys.readouterr().err
    assert "left as they were: model.22.cv4" in notes
    assert "results in" in notes


def test_pretrained_weights_come_over_those_of_a_checkpoint_as_the_model(
    tiny_settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("model", "other"):
        save_checkpoint(tmp_path / f"{name}.pt", Checkpoint(build_model("yolov8p-pose.yaml", kpt_shape=[4, 3])))
    starts = {"model": str(tmp_path / "model.pt"), "pretrained": str(tmp_path / "other.pt")}
    first: list[torch.Tensor] = []
    keep = {"on_train_start": [lambda run: first.append(run.network.state_dict()["model.0.conv.weight"].clone())]}
    run(tiny_settings, tmp_path, keep, epochs=1, val=False, verbose=True, **starts)
    assert torch.equal(first[0], load_checkpoint(tmp_path / "other.pt").model.state_dict()["model.0.conv.weight"])
    notes = capsys.readouterr().err
    assert all(f"weights of {path}: " in notes for path in starts.values())


# --- what goes wrong


def test_a_run_says_what_it_leaves_out_and_how_much_more(
    make_data: Callable[..., Path], tiny_settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_data(train=12, val=4, seed=7)
    for name in ("train/000", "train/001", "train/002", "train/003", "val/000", "val/001"):
        (data.parent / "labels" / f"{name}.txt").write_text("0 nan\n")
    run(tiny_settings, tmp_path, data=str(data), epochs=1, verbose=True)
    told = [line for line in capsys.readouterr().err.splitlines() if "left out: " in line]
    assert [Path(line.split(": ")[1]).stem for line in told[:5]] == ["000", "001", "002", "003", "000"]
    assert told[5:] == [f"  left out: 1 more; see: edgepose check data={data}"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_the_last_good_checkpoint(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    def fill(run: Run) -> None:
        if run.state.epoch == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))

    with (
        largest_file(-1),
        pytest.warns(UserWarning, match="was not written") as told,
        pytest.raises(OSError, match=r"training is done, but .*last\.pt was not written"),
    ):
        run(tiny_settings, tmp_path, {"on_epoch_start": [fill]}, epochs=2, val=False)
    assert "is the disk full" in str(told[0].message)
    assert "the one before is still good" in str(told[0].message)
    checkpoint = load_checkpoint(tmp_path / "train" / "weights" / "last.pt")
    assert checkpoint.epoch == 1
    assert checkpoint.training is not None
    assert not list((tmp_path / "train" / "weights").glob(".*"))


def test_a_disk_that_is_full_for_a_while_costs_no_row_of_the_table(
    tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    """No byte can be written in the second epoch, neither its picture nor its row."""

    def fill(run: Run) -> None:
        limit = 0 if run.state.epoch == 1 else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    settings = {"epochs": 3, "close_mosaic": 2, "val": False, "plots": True}
    with largest_file(-1), pytest.warns(UserWarning, match="was not written") as told:
        result = run(tiny_settings, tmp_path, {"on_epoch_start": [fill]}, **settings)
    missing = [str(warning.message) for warning in told if "training goes on" in str(warning.message)]
    assert ["train_batch_epoch2.jpg" in missing[0], "results.csv" in missing[1]] == [True, True]
    assert [row["epoch"] for row in read_rows(result.folder / "results.csv")] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_a_batch_too_large_for_memory_says_what_to_change(
    tiny_settings: dict[str, Any], tmp_path: Path, failure: Exception
) -> None:
    def refuse(*_: Any) -> Any:
        raise failure

    def break_network(run: Run) -> None:
        run.forward = refuse  # type: ignore[assignment]

    with pytest.raises(MemoryError, match=r"batch=4 at imgsz=64 does not fit .*try batch=2"):
        run(tiny_settings, tmp_path, {"on_train_start": [break_network]})


def test_a_loss_that_is_no_number_ends_the_run_and_saves_nothing(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    def poison(run: Run) -> None:
        with torch.no_grad():
            next(run.network.parameters()).fill_(float("nan"))

    with pytest.raises(RuntimeError, match="no longer a number in epoch 1"):
        run(tiny_settings, tmp_path, {"on_train_start": [poison]})
    assert not list((tmp_path / "train" / "weights").iterdir())


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"data": None}, ValueError, "data="),
        ({"imgsz": 100}, ValueError, "multiple of the network's largest stride 32"),
        ({"model": "yolov8n-pose.pt"}, FileNotFoundError, "AGPL-3.0"),
        ({"freeze": 23}, ValueError, "freeze leaves no weight"),
        ({"freeze": -1}, ValueError, "freeze=-1: expected a number of layers"),
        ({"resume": "none/weights/last.pt"}, FileNotFoundError, "last.pt"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    tiny_settings: dict[str, Any], tmp_path: Path, settings: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(tiny_settings, tmp_path, **settings)
    assert not list(tmp_path.iterdir())  # no empty folder of a run that never was


def test_a_model_that_is_not_there_is_told_before_anything_is_downloaded(
    tiny_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "download_dataset", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(FileNotFoundError, match=r"there is no file 'none\.pt'"):
        run(tiny_settings, tmp_path, model="none.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told to keep freed memory")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    """Where malloc gave a tensor's 64 MiB back, the kernel maps all pages anew, in small or huge ones, each time."""
    script = """
import resource, torch
from edgepose_trainer.train import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
without = faults()
keep_freed_memory()
faults()
print(without, faults())
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    without, kept = (int(word) for word in answer.split())
    assert kept < 100 < without


def test_no_worker_outlives_a_run_that_fails(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    runs: list[Run] = []

    def fail(failing: Run) -> None:
        runs.append(failing)  # somebody still holds it, as a traceback does
        raise KeyError("a callback's own fault")

    before = set(multiprocessing.active_children())
    with pytest.raises(KeyError, match="own fault"):
        run(tiny_settings, tmp_path, {"on_epoch_end": [fail]}, workers=1, epochs=1)
    assert runs
    assert set(multiprocessing.active_children()) <= before


def test_a_truncated_checkpoint_is_refused(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    result = run(tiny_settings, tmp_path, epochs=1, val=False)
    assert result.last is not None
    whole = result.last.read_bytes()
    result.last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"last\.pt"):
        run(tiny_settings, tmp_path, model=str(result.last))
