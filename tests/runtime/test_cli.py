"""The command's words: tasks, verbs, keys and values, help, errors and exit codes."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import os
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from edgepose import __version__, cli
from edgepose.command import registry, verbs
from edgepose.command.usage import overview, verb_help

WORDS = [*registry.verb_names(), "pose", "help", "source=x", "conf=0.5", "imgsz=1,2", "model=a.pt", "task=pose", "="]
ROOT = Path(__file__).parents[2]
VERB = verbs.Verb(
    "sample",
    "A verb to test with.",
    "nowhere:run",
    (
        verbs.Option("model", verbs.TEXT, None, "a model", repeated=True),
        verbs.Option("conf", verbs.FLOAT, 0.25, "a score"),
        verbs.Option("save_json", verbs.BOOL, False, "a flag"),
        verbs.Option("imgsz", verbs.SIZE, None, "a size"),
        verbs.Option("threads", verbs.INTS, None, "numbers", repeated=True),
        verbs.Option("nms", verbs.one_of("iou", "oks"), "iou", "a choice"),
        verbs.Option("runs", verbs.INT, 100, "a number"),
    ),
)


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgepose.cli", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=60,
    )


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Replaces what stands behind every verb by a function that keeps its arguments."""
    seen: dict[str, object] = {}

    def record(self: verbs.Verb, **arguments: object) -> int:
        seen.update(verb=self.name, **arguments)
        return 0

    monkeypatch.setattr(verbs.Verb, "__call__", record)
    return seen


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("conf=0.5", {"conf": 0.5}),
        ("conf=1e-3", {"conf": 0.001}),
        ("save_json=true", {"save_json": True}),
        ("save_json=0", {"save_json": False}),
        ("save_json=True", {"save_json": True}),
        ("--save-json=1", {"save_json": True}),
        ("imgsz=640", {"imgsz": 640}),
        ("imgsz=256,448", {"imgsz": (256, 448)}),
        ("imgsz=[256, 448]", {"imgsz": (256, 448)}),
        ("imgsz=none", {"imgsz": None}),
        ("threads=1,2", {"threads": [1, 2]}),
        ("nms=oks", {"nms": "oks"}),
        ("model=a=b.onnx", {"model": ["a=b.onnx"]}),
    ],
)
def test_value_is_read_by_the_type_of_its_option(word: str, expected: dict[str, object]) -> None:
    assert verbs.parse_options(VERB, [word]) == expected


def test_repeated_keys_give_a_list() -> None:
    arguments = verbs.parse_options(VERB, ["model=a", "threads=1", "model=b", "threads=2,4"])
    assert arguments == {"model": ["a", "b"], "threads": [1, 2, 4]}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("cnf=0.5", "unknown option 'cnf': did you mean 'conf'"),
        ("conf=high", "conf=high: expected number"),
        ("conf=nan", "expected number"),
        ("save_json=maybe", r"expected true\|false"),
        ("imgsz=1,2,3", "expected integer or height,width"),
        ("runs=1.5", "runs=1.5: expected integer"),
        ("nms=box", r"expected iou\|oks"),
        ("conf=", "no space around the equals sign"),
        ("conf", "write conf=…"),
        ("photo.jpg", "quote a value that holds a space"),
    ],
)
def test_wrong_word_is_an_error_that_says_what_to_write(word: str, message: str) -> None:
    with pytest.raises(verbs.UsageError, match=message):
        verbs.parse_options(VERB, [word])


def test_a_bare_word_is_meant_as_the_source() -> None:
    with pytest.raises(verbs.UsageError, match=r"write source=photo\.jpg"):
        verbs.parse_options(registry.VERBS["predict"], ["photo.jpg"])


def test_key_given_twice_is_an_error() -> None:
    with pytest.raises(verbs.UsageError, match='"conf" is given twice'):
        verbs.parse_options(VERB, ["conf=0.1", "conf=0.2"])


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "source=x.jpg"],
        ["pose", "predict", "source=x.jpg"],
        ["predict", "pose", "source=x.jpg"],
        ["predict", "task=pose", "source=x.jpg"],
        ["predict", "source=x.jpg", "task=pose"],
    ],
)
def test_task_word_is_optional_before_and_after_the_verb(words: list[str], recorded: dict[str, object]) -> None:
    assert cli.main(words) == 0
    assert recorded == {"verb": "predict", "source": "x.jpg"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predct"], "unknown verb 'predct': did you mean 'predict'?"),
        (["pose"], "no verb"),
        (["predict", "souce=x"], "unknown option 'souce': did you mean 'source'?"),
        (["check"], '"check" needs data='),
        (["predict", "task=detect", "source=x"], 'the task "pose" alone'),
        (["help", "benchmrk"], "did you mean 'benchmark'?"),
    ],
)
def test_wrong_usage_exits_with_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.out == ""


def test_failure_exits_with_1_and_its_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: verbs.Verb, **_: object) -> int:
        raise FileNotFoundError("there is no model 'x.onnx'")

    monkeypatch.setattr(verbs.Verb, "__call__", fail)
    assert cli.main(["info", "model=x.onnx"]) == 1
    assert capsys.readouterr().err == "edgepose: there is no model 'x.onnx'\n"


def test_error_of_the_system_names_the_file_without_its_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: verbs.Verb, **_: object) -> int:
        raise PermissionError(13, "Permission denied", "/runs/pose")

    monkeypatch.setattr(verbs.Verb, "__call__", fail)
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().err == "edgepose: /runs/pose: Permission denied\n"


def test_ctrl_c_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(self: verbs.Verb, **_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(verbs.Verb, "__call__", interrupt)
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == "edgepose: interrupted\n"


def test_a_traceback_is_shown_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: verbs.Verb, **_: object) -> int:
        raise ValueError("deep inside")

    monkeypatch.setattr(verbs.Verb, "__call__", fail)
    monkeypatch.setenv("EDGEPOSE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="deep inside"):
        cli.main(["doctor"])


@pytest.mark.parametrize("words", [[], ["help"], ["--help"], ["-h"], ["help", "pose"]])
def test_help_lists_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    assert capsys.readouterr().out == overview() + "\n"
    assert all(f"  {name} " in overview() for name in registry.verb_names())


@pytest.mark.parametrize("name", list(registry.VERBS))
@pytest.mark.parametrize("style", ["{} help", "{} --help", "help {}", "pose {} -h", "{} source=x help"])
def test_help_of_a_verb_shows_each_option(name: str, style: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(style.format(name).split()) == 0
    assert capsys.readouterr().out == verb_help(registry.VERBS[name]) + "\n"
    assert all(f"  {option.name}=<" in verb_help(registry.VERBS[name]) for option in registry.VERBS[name].options)


@pytest.mark.parametrize("verb", registry.VERBS.values(), ids=lambda verb: verb.name)
def test_declared_options_are_those_of_the_function_with_its_defaults(verb: verbs.Verb) -> None:
    parameters = inspect.signature(verb.load()).parameters
    assert set(parameters) == {option.name for option in verb.options}
    for option in verb.options:
        default = parameters[option.name].default
        shown = option.default if not option.required else inspect.Parameter.empty
        single = default[0] if option.repeated and isinstance(default, (list, tuple)) and len(default) == 1 else default
        assert single == shown, option.name


@pytest.mark.parametrize("verb", registry.VERBS.values(), ids=lambda verb: verb.name)
def test_examples_are_commands_that_parse(verb: verbs.Verb, recorded: dict[str, object]) -> None:
    for example in verb.examples:
        assert example.startswith("edgepose ")
        assert cli.main(example.split()[1:]) == 0


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A trainer half with the verbs `train` and `info`."""
    module = types.ModuleType("edgepose_trainer.cli")
    options = (verbs.Option("model", verbs.TEXT, None, "a model"), verbs.Option("epochs", verbs.INT, 100, "epochs"))
    module.VERBS = {  # type: ignore[attr-defined]
        name: verbs.Verb(name, "From the trainer.", "edgepose_trainer.cli:run", options, extra="train")
        for name in ("train", "info")
    }
    monkeypatch.setitem(sys.modules, "edgepose_trainer.cli", module)
    return module


def test_trainer_verbs_are_run_by_the_trainer(trainer: types.ModuleType) -> None:
    seen: dict[str, object] = {}
    trainer.run = lambda **arguments: seen.update(arguments) or 0  # type: ignore[attr-defined]
    assert cli.main(["pose", "train", "epochs=3"]) == 0
    assert seen == {"epochs": 3}


@pytest.mark.parametrize("model", ["best.pt", "yolov8n-pose.yaml", "BEST.PT"])
def test_info_of_a_checkpoint_or_plan_goes_to_the_trainer(model: str, trainer: types.ModuleType) -> None:
    seen: dict[str, object] = {}
    trainer.run = lambda **arguments: seen.update(arguments) or 0  # type: ignore[attr-defined]
    assert cli.main(["info", f"model={model}"]) == 0
    assert seen == {"model": model}


def test_missing_torch_names_the_extra(trainer: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def run_without_torch(**_: object) -> int:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    trainer.run = run_without_torch  # type: ignore[attr-defined]
    assert cli.main(["train"]) == 1
    assert 'needs torch, which is not installed: pip install "edgepose[train]"' in capsys.readouterr().err


def test_missing_trainer_names_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "edgepose_trainer.cli", None)
    assert cli.main(["predict", "model=best.pt", "source=x.jpg"]) == 1
    assert 'pip install "edgepose[train]"' in capsys.readouterr().err


def test_checkpoint_that_a_verb_does_not_take_is_an_error_that_names_it(
    trainer: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["demo", "model=best.pt"]) == 1
    assert "takes models that a runtime runs (.onnx, .tflite …), got best.pt" in capsys.readouterr().err


def test_verbs_listed_as_the_trainers_are_those_that_it_has() -> None:
    module = pytest.importorskip("edgepose_trainer.cli")
    assert set(registry.TRAINER_VERBS) == set(module.VERBS) - set(registry.VERBS)


@hypothesis.given(st.lists(st.text(max_size=12) | st.sampled_from(WORDS), max_size=5))
def test_no_words_whatever_end_in_a_traceback(words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(verbs.Verb, "__call__", lambda self, **_: 0)
        patch.setitem(sys.modules, "edgepose_trainer.cli", None)
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            code = cli.main(words)
    assert code in (0, 1, 2)
    assert (code == 0) == (errors.getvalue() == "")


def test_version_is_printed_by_the_process_without_slow_imports() -> None:
    code = (
        "import sys; from edgepose import cli; code = cli.main(['--version']);"
        "slow = {'subprocess', 'multiprocessing', 'PIL', 'cv2', 'tqdm', 'yaml', 'torch', 'onnxruntime', 'json'};"
        "print(sorted(slow & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [__version__, "[]"]


def test_a_reader_that_leaves_gives_no_traceback() -> None:
    command = f"{sys.executable} -m edgepose.cli help predict | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout == verb_help(registry.VERBS["predict"]).splitlines()[0] + "\n"
    assert done.stderr == ""


def test_any_terminal_encoding_is_survived() -> None:
    done = run("help", "predict", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "source=<text>" in done.stdout


def test_option_tables_of_the_documentation_are_those_of_the_registry() -> None:
    specification = importlib.util.spec_from_file_location("option_tables", ROOT / "docs" / "option_tables.py")
    assert specification is not None
    assert specification.loader is not None
    tables = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(tables)
    page = (ROOT / "docs" / "command.md").read_text()
    assert page == tables.with_tables(page), "run: python docs/option_tables.py"
    assert all(f"## {name}\n" in page or f"`{name}`" in page for name in registry.verb_names())


def documented_commands() -> list[str]:
    """Every `edgepose …` line of the pages' code blocks, without comments, pipes and ellipses."""
    pages = [*sorted((ROOT / "docs").rglob("*.md")), *ROOT.glob("README.md")]
    lines = (line.strip() for page in pages for line in page.read_text().splitlines())
    commands = (re.split(r" [#|>]|&&", line)[0].strip() for line in lines if line.startswith("edgepose "))
    return sorted({command for command in commands if "…" not in command and "VERB" not in command})


@pytest.mark.parametrize("command", documented_commands())
def test_documented_command_is_one_that_parses(
    command: str, recorded: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    if "edgepose_trainer.cli" not in sys.modules:
        pytest.importorskip("edgepose_trainer.cli")
    assert cli.main(shlex.split(command)[1:]) == 0, capsys.readouterr().err
