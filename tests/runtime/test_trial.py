from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgepose import trial
from edgepose.artifact import open_artifact
from edgepose.contract import ModelSpec

Make = Callable[..., Path]

CRASH = f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})"
HANG = "import time; time.sleep(60)"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "own-cache"
    monkeypatch.setenv("EDGEPOSE_CACHE", str(folder))
    return folder


@pytest.fixture
def model(make_tflite: Make) -> Path:
    return make_tflite({"box": 64, "score": 1, "keypoints": 6})


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command of every child that was started."""
    started: list[list[str]] = []
    real = subprocess.run

    def run(command: list[str], **options: Any) -> Any:
        started.append(command)
        return real(command, **options)

    monkeypatch.setattr(subprocess, "run", run)
    return started


def test_a_new_model_is_tried_once_and_then_known(
    model: Path, heads_spec: ModelSpec, cache: Path, children: list[list[str]]
) -> None:
    for _ in range(3):
        open_artifact(model, spec=heads_spec).close()
    assert len(children) == 1
    assert [verdict.read_text() for verdict in (cache / "trials").iterdir()] == ["good"]


def test_a_copy_under_another_name_is_known_too(
    model: Path, heads_spec: ModelSpec, cache: Path, children: list[list[str]]
) -> None:
    open_artifact(model, spec=heads_spec)
    copy = model.with_name("other")
    copy.write_bytes(model.read_bytes())
    open_artifact(copy, spec=heads_spec)
    assert len(children) == 1


def test_one_changed_byte_makes_a_new_model(
    model: Path, heads_spec: ModelSpec, cache: Path, children: list[list[str]]
) -> None:
    open_artifact(model, spec=heads_spec)
    model.write_bytes(model.read_bytes() + b"\0")
    open_artifact(model, spec=heads_spec)
    assert len(children) == 2


def test_another_version_of_the_runtime_tries_again(model: Path, cache: Path, children: list[list[str]]) -> None:
    content = model.read_bytes()
    trial.ensure_survivable(str(model), content, "litert-1")
    trial.ensure_survivable(str(model), content, "litert-1")
    trial.ensure_survivable(str(model), content, "litert-2")
    assert len(children) == 2


def test_a_crash_is_an_error_and_remembered(
    model: Path, cache: Path, children: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_CHILD", CRASH)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"model.tflite: damaged or unsupported TFLite model: .*crashed.*11"):
            open_artifact(model)
    assert len(children) == 1


def test_a_flipped_bit_that_makes_tflite_abort_is_a_value_error(movenet: Path, tmp_path: Path, cache: Path) -> None:
    content = bytearray(movenet.read_bytes())
    exponent = 2_762_831  # of the scale of a tensor: a bit there multiplies the scale by 2 ** 128
    assert content[exponent] == 0x3A
    content[exponent] ^= 0x40
    path = tmp_path / "flipped.tflite"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"flipped.tflite: damaged .*crashed on it \(signal 6\)"):
        open_artifact(path)


def test_a_hang_is_an_error_and_not_remembered(
    model: Path, cache: Path, children: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_CHILD", HANG)
    monkeypatch.setattr(trial, "TIME_LIMIT", 0.3)
    for _ in range(2):
        with pytest.raises(ValueError, match="not loaded and run once within"):
            open_artifact(model)
    assert len(children) == 2


def test_what_the_runtime_says_in_the_child_is_the_error(movenet: Path, tmp_path: Path, cache: Path) -> None:
    damaged = bytearray(movenet.read_bytes())
    damaged[8:3000] = bytes(2992)
    path = tmp_path / "damaged.tflite"
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"damaged.tflite: damaged .*TFLite model"):
        open_artifact(path)


def test_a_cache_that_cannot_be_written_is_no_error(
    model: Path, heads_spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: list[list[str]]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEPOSE_CACHE", str(tmp_path / "file/below"))
    for _ in range(2):
        open_artifact(model, spec=heads_spec)
    assert len(children) == 2


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe", b"great", b"good\nbad"])
def test_a_damaged_verdict_is_made_again(
    model: Path, heads_spec: ModelSpec, cache: Path, children: list[list[str]], junk: bytes
) -> None:
    open_artifact(model, spec=heads_spec)
    (verdict,) = (cache / "trials").iterdir()
    verdict.write_bytes(junk)
    open_artifact(model, spec=heads_spec)
    assert len(children) == 2
    assert verdict.read_text() == "good"


@pytest.mark.parametrize("executable", ["", "/nowhere/python"])
def test_without_a_way_to_start_a_child_the_model_is_loaded_untried(
    model: Path, heads_spec: ModelSpec, cache: Path, monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    open_artifact(model, spec=heads_spec)
    assert not (cache / "trials").exists()


def test_a_known_model_starts_without_subprocess(model: Path, heads_spec: ModelSpec, cache: Path) -> None:
    open_artifact(model, spec=heads_spec)
    code = (
        "import sys, mmap; from edgepose import trial; from edgepose.backends import tflite; "
        f"trial.ensure_survivable({str(model)!r}, open({str(model)!r}, 'rb').read(), tflite.runtime()[2]); "
        "assert 'subprocess' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"EDGEPOSE_CACHE": "/a"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/edgepose"),
        ({"HOME": "/c"}, "/c/.cache/edgepose"),
    ],
)
def test_where_verdicts_are_kept(environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGEPOSE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert trial.cache_folder() == folder


def test_the_child_leaves_no_core_file_and_takes_no_more_memory_than_there_is() -> None:
    code = (
        "import os, resource; from edgepose.trial import _limit_resources; _limit_resources(); "
        "assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0); "
        "memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'); "
        "assert resource.getrlimit(resource.RLIMIT_AS)[0] == memory"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_trial_that_was_killed_from_outside_is_not_remembered(
    model: Path, cache: Path, children: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_CHILD", CRASH.replace("11", "9"))
    for _ in range(2):
        with pytest.raises(ValueError, match="the trial was ended by signal 9"):
            open_artifact(model)
    assert len(children) == 2
