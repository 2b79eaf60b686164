"""A run that was stopped, in any way, ends with the very weights of one that was not."""

from __future__ import annotations

import contextlib
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from edgepose_trainer.checkpoint import load_checkpoint
from edgepose_trainer.config import load_config, save_config
from edgepose_trainer.train import Run, read_resume, resume_command, train

from edgepose.modelfiles.files import replacing

ROOT = Path(__file__).parents[2]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).model.state_dict()


def assert_same_weights(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.fixture(scope="module")
def whole(tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without interruption."""
    return train(load_config(None, tiny_settings | {"project": str(tmp_path_factory.mktemp("whole"))})).folder


class Killed(Exception):
    """Stands for a death that leaves no time to save anything."""


@pytest.mark.parametrize(("at_batch", "save_batches"), [(4, 0), (6, 2), (8, 1)])
def test_a_run_that_died_goes_on_to_the_same_weights_and_table(
    whole: Path, tiny_settings: dict[str, Any], tmp_path: Path, at_batch: int, save_batches: int
) -> None:
    def die(run: Run) -> None:
        if run.state.epoch * len(run.loader) + run.state.batch == at_batch:
            raise Killed

    settings = tiny_settings | {"project": str(tmp_path), "save_batches": save_batches}
    with pytest.raises(Killed):
        train(load_config(None, settings), {"on_batch_end": [die]})
    last = tmp_path / "train" / "weights" / "last.pt"
    result = train(load_config(None, {"resume": str(last), "verbose": False, "threads": 1, "workers": 0}))
    assert result.folder == tmp_path / "train"
    assert_same_weights(result.folder / "weights" / "last.pt", whole / "weights" / "last.pt")
    assert losses(result.folder) == losses(whole)


def died(settings: dict[str, Any], folder: Path) -> Path:
    """The last.pt of a run that died in its second epoch."""

    def die(run: Run) -> None:
        if run.state.epoch == 1:
            raise Killed

    with pytest.raises(Killed):
        train(load_config(None, settings | {"project": str(folder)}), {"on_epoch_start": [die]})
    return folder / "train" / "weights" / "last.pt"


@pytest.mark.filterwarnings("ignore:a resumed run keeps its own settings")
def test_a_run_goes_on_from_any_folder_and_where_its_data_are_now(
    tiny_settings: dict[str, Any], make_data: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data()
    monkeypatch.chdir(data.parent)
    last = died(tiny_settings | {"data": "data.yaml", "val": False}, tmp_path)
    monkeypatch.chdir(tmp_path)
    quiet = {"verbose": False, "threads": 1, "workers": 0, "plots": False}
    moved = data.rename(data.with_name("moved.yaml"))  # what the checkpoint remembers will do
    kept = last.read_bytes()
    train(load_config(None, {"resume": str(last), **quiet}))
    last.write_bytes(kept)
    once = read_resume(load_config(None, {"resume": str(last), **quiet}))[0]
    assert read_resume(once)[0] == once  # as each process of several does once more
    assert train(load_config(None, {"resume": str(last), "data": str(moved), **quiet})).last == last
    last.write_bytes(kept)
    with pytest.raises(FileNotFoundError, match=r"moveed\.yaml"):
        train(load_config(None, {"resume": str(last), "data": str(moved.with_name("moveed.yaml")), **quiet}))
    other = moved.with_name("other.yaml")
    other.write_text(moved.read_text().replace("names: {0: person}", "names: {0: a, 1: b}"))
    with pytest.raises(ValueError, match=r"other\.yaml has 2 classes"):
        train(load_config(None, {"resume": str(last), "data": str(other), **quiet}))


def test_resume_tells_which_settings_it_does_not_take(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    last = died(tiny_settings | {"val": False}, tmp_path)
    words = {"resume": str(last), "verbose": False, "threads": 1, "workers": 0, "epochs": 7, "lr0": 0.5, "nbs": 8}
    words |= {"project": str(tmp_path), "name": "other"}
    with pytest.warns(UserWarning, match="not taken: epochs, name, lr0"):
        train(load_config(None, words))


def test_the_command_to_go_on_is_quoted(tiny_settings: dict[str, Any]) -> None:
    command = resume_command(Path("runs 4/a b/weights/last.pt"), load_config(None, tiny_settings))
    assert shlex.split(command)[:3] == ["edgepose", "train", "resume=runs 4/a b/weights/last.pt"]


def test_resume_needs_a_checkpoint_in_its_run(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    moved = died(tiny_settings, tmp_path).rename(tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt: expected <run>/weights/last\.pt"):
        train(load_config(None, {"resume": str(moved)}))
    with pytest.raises(ValueError, match=r"resume=true goes on with the last\.pt that model= names"):
        train(load_config(None, {"resume": True}))


def test_resume_removes_what_a_kill_left_half_written(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    last = died(tiny_settings, tmp_path)
    with replacing(str(last.parent / "other.pt")) as temporary:
        shutil.copy(temporary, Path(temporary).with_stem(f"{Path(temporary).stem}0"))  # as if nobody had tidied up
    assert list(last.parent.glob(".*"))
    train(load_config(None, {"resume": str(last), "verbose": False, "threads": 1, "workers": 0, "plots": False}))
    assert {path.name for path in last.parent.iterdir()} == {"best.pt", "last.pt", "other.pt"}


@pytest.mark.slow
def test_a_data_parallel_run_is_resumed_from_within_its_folder(
    tiny_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = died(tiny_settings | {"val": False}, tmp_path)
    monkeypatch.chdir(last.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "trainer")]))
    machine = {"device": "cpu,cpu", "verbose": False, "threads": 1, "workers": 0, "plots": False}
    result = train(load_config(None, {"resume": "last.pt"} | machine))
    assert result.last == last
    assert load_checkpoint(last).epoch == tiny_settings["epochs"]


def test_a_run_that_died_between_its_checkpoints_still_gets_all_of_them(
    whole: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    """At an epoch's end up to three are written, one after the other."""

    def die(run: Run) -> None:
        if run.state.epoch == 1 and run.state.batch == 0:
            raise Killed

    settings = tiny_settings | {"project": str(tmp_path), "save_batches": 2, "save_period": 1}
    with pytest.raises(Killed):
        train(load_config(None, settings), {"on_checkpoint": [die]})
    weights_folder = tmp_path / "train" / "weights"
    train(load_config(None, {"resume": str(weights_folder / "last.pt"), "verbose": False, "threads": 1, "workers": 0}))
    assert {path.name for path in weights_folder.iterdir()} >= {"best.pt", "epoch1.pt", "epoch2.pt", "epoch3.pt"}
    assert_same_weights(weights_folder / "best.pt", whole / "weights" / "best.pt")


def test_a_run_in_float16_goes_on_with_its_gradient_scale(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    """The scale doubles after a number of good steps, which is part of the state, too."""

    def quick(run: Run) -> None:
        run.scaler.set_growth_interval(2)

    def die(run: Run) -> None:
        if run.state.epoch * len(run.loader) + run.state.batch == 4:
            raise Killed

    settings = tiny_settings | {"amp": "fp16", "save_batches": 1, "val": False}
    scales: list[float] = []
    watch = {"on_train_start": [quick], "on_batch_end": [lambda run: scales.append(run.scaler.get_scale())]}
    whole = train(load_config(None, settings | {"project": str(tmp_path / "whole")}), watch)
    expected, scales[:] = list(scales), []
    killed = settings | {"project": str(tmp_path / "killed")}
    with pytest.raises(Killed):
        train(load_config(None, killed), watch | {"on_batch_end": [*watch["on_batch_end"], die]})
    last = tmp_path / "killed" / "train" / "weights" / "last.pt"
    scales.pop()  # the batch whose step was lost
    result = train(load_config(None, {"resume": str(last), "verbose": False, "threads": 1, "workers": 0}), watch)
    assert scales == expected
    assert len(set(scales)) > 1
    assert_same_weights(result.folder / "weights" / "last.pt", whole.folder / "weights" / "last.pt")


def losses(folder: Path) -> list[list[str]]:
    rows = [line.split(",") for line in (folder / "results.csv").read_text().splitlines()]
    kept = [i for i, name in enumerate(rows[0]) if "loss" in name or "AP" in name or name == "epoch"]
    return [[row[i] for i in kept] for row in rows]


Start = Callable[[dict[str, Any], Path], subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(settings, folder)` starts a training in a process group of its own, which does not outlive the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(settings: dict[str, Any], folder: Path) -> subprocess.Popen[bytes]:
        started.append(start_training(settings, folder))
        return started[-1]

    yield start
    for process in started:
        with process, contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def start_training(settings: dict[str, Any], folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    save_config(load_config(None, settings), folder / "settings.yaml")
    # A test runner that is itself in the background passes on that Ctrl-C is ignored.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from edgepose_trainer.train import load_config, train; train(load_config(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(folder / "settings.yaml")]
    path = os.pathsep.join([str(ROOT), str(ROOT / "trainer"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE, start_new_session=True
    )


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        if path.exists() or process.poll() is not None:
            return
        time.sleep(0.05)
    raise TimeoutError(path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_process_group_saves_and_says_how_to_go_on(
    start: Start, tiny_settings: dict[str, Any], tmp_path: Path, number: signal.Signals
) -> None:
    settings = tiny_settings | {
        "project": str(tmp_path),
        "epochs": 500,
        "save_batches": 1,
        "val": False,
        "verbose": True,
        "workers": 1,
    }
    process = start(settings, tmp_path / "settings")
    last = tmp_path / "train" / "weights" / "last.pt"
    wait_for(last, process)
    os.killpg(process.pid, number)
    output = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 0, output
    assert f"go on with: edgepose train resume={last}" in output
    assert load_checkpoint(last).training is not None


def test_a_stopped_run_names_the_settings_of_the_machine_that_resume_needs(
    tiny_settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without threads=1 it would go on with as many as there are cores, to other weights."""
    stop = {"on_batch_end": [lambda run: os.kill(os.getpid(), signal.SIGTERM)]}
    result = train(load_config(None, tiny_settings | {"project": str(tmp_path), "verbose": True}), stop)
    assert result.interrupted
    command = capsys.readouterr().err.strip().rpartition("go on with: ")[2]
    assert command == f"edgepose train resume={result.last} device=cpu workers=0 threads=1 plots=false"


@pytest.mark.slow
def test_ctrl_c_of_a_launched_data_parallel_run_waits_until_it_has_saved(
    start: Start, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = tiny_settings | {"project": str(tmp_path), "epochs": 500, "save_batches": 1, "val": False}
    settings |= {"verbose": True, "device": "cpu,cpu"}
    process = start(settings, tmp_path / "settings")
    last = tmp_path / "train" / "weights" / "last.pt"
    wait_for(last, process)
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=120)[1].decode()
    assert process.returncode != 0
    assert f"go on with: edgepose train resume={last}" in output
    assert output.rstrip().endswith("KeyboardInterrupt")  # the launcher ends last
    assert load_checkpoint(last).training is not None


MANY_EPOCHS = {"epochs": 40, "save_batches": 1, "workers": 2}


@pytest.fixture(scope="module")
def long_whole(tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a longer run without interruption."""
    settings = tiny_settings | MANY_EPOCHS | {"project": str(tmp_path_factory.mktemp("long_whole"))}
    return train(load_config(None, settings)).folder


def run_killed_at_random(start: Start, settings: dict[str, Any], folder: Path, seed: int) -> Path:
    """Killed (-9) four times at random moments, and resumed until it is done."""
    last, dice, kills = folder / "train" / "weights" / "last.pt", random.Random(seed), 0
    while True:
        now = (
            {**settings, "resume": str(last)}
            if last.exists()
            else {**settings, "project": str(folder), "exist_ok": True}
        )
        process = start(now, folder)
        wait_for(last, process)
        try:
            _, errors = process.communicate(timeout=dice.uniform(1, 6) if kills < 4 else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            continue
        assert process.returncode == 0, errors.decode()
        return last


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_three_runs_killed_at_random_points_end_with_the_same_weights(
    start: Start, long_whole: Path, tiny_settings: dict[str, Any], tmp_path: Path, seed: int
) -> None:
    last = run_killed_at_random(start, tiny_settings | MANY_EPOCHS, tmp_path / "killed", seed)
    assert_same_weights(last, long_whole / "weights" / "last.pt")
