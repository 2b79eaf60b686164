"""The benchmark: its figures against numpy, cases that die, what it says of the board, its files, real models."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepose.benchmark import (
    BenchmarkReport,
    CaseResult,
    StageTimes,
    benchmark,
    case,
    count_cases,
    measure_accuracy,
    run_case,
)
from edgepose.benchmark.models import find_models
from edgepose.benchmark.report import short_name
from edgepose.benchmark.trust import doubts
from edgepose.command.benchmark import report_text, run, write_files
from edgepose.doctor import board_facts
from edgepose.doctor.files import Files

ROOT = Path(__file__).parents[2]
REQUEST: dict[str, Any] = {"options": {}, "source": None, "runs": 3, "warmup": 1}


def board(root: Path = Path("/nowhere")) -> dict[str, Any]:
    return {**board_facts(Files(root)), "packages": {"onnxruntime": "1.20.0", "openvino": None}}


def a_case(total: list[float], model: str = "models/a.onnx", threads: int | None = 2, **more: Any) -> CaseResult:
    facts = {
        "runtime": "onnxruntime",
        "input_size": [320, 320],
        "picture_size": [640, 480],
        "people": 0,
        "load_ms": 50.0,
        "first_ms": 20.0,
        "start_ms": 150.0,
        "peak_mb": 90.0,
        "size_bytes": 13_300_000,
        **more,
    }
    shares = {"preprocess": 0.1, "inference": 0.8, "decode": 0.1, "total": 1.0}
    stages = {stage: StageTimes(tuple(share * value for value in total)) for stage, share in shares.items()}
    return CaseResult(model, "auto", threads, "ok", "", facts, stages)


def failed_case(model: str = "b.tflite") -> CaseResult:
    return CaseResult(model, "auto", None, "crashed", "exit code -11", {}, {})


def report(*cases: CaseResult) -> BenchmarkReport:
    return BenchmarkReport(cases, {"source": None, "runs": 100, "warmup": 10}, board(), ())


def test_percentiles_mean_and_throughput_are_those_of_numpy() -> None:
    samples = np.random.default_rng(0).gamma(4, 2, 1000)
    times = StageTimes(tuple(samples.tolist()))
    assert times.percentile(99) == pytest.approx(np.sort(samples)[989:991].mean(), rel=0.02)
    assert times.percentile(50) == pytest.approx(np.median(samples))
    assert times.mean == pytest.approx(samples.sum() / 1000)
    assert times.per_second == pytest.approx(1000 * 1e3 / samples.sum())


def test_table_has_a_line_a_stage_and_the_reason_of_each_failure() -> None:
    lines = report(a_case([10.0] * 20), failed_case()).table().splitlines()
    assert lines[0] == (
        "model   runtime      threads  input    stage         p50    p90    p99   mean   per s"
        "  load  first  start  MB  disk"
    )
    assert lines[1] == (
        "a.onnx  onnxruntime  2        320x320  total       10.00  10.00  10.00  10.00   100.0"
        "    50     20    150  90  13.3"
    )
    assert [line.split()[0] for line in lines[2:5]] == ["preprocess", "inference", "decode"]
    assert lines[5] == "b.tflite (auto): crashed: exit code -11"


def test_table_has_a_column_of_ap_where_it_was_measured_and_says_why_where_not() -> None:
    failed = a_case([1.0], "b.onnx", ap_problem="no such data")
    lines = report(a_case([10.0] * 20, ap=0.3457), failed).table().splitlines()
    assert lines[0].split()[-3:] == ["MB", "disk", "AP"]
    assert lines[1].split()[-3:] == ["90", "13.3", "0.346"]
    assert lines[5].split()[-2:] == ["90", "13.3"]
    assert lines[-1] == "b.onnx: no AP: no such data"


def test_csv_has_a_row_a_case_with_every_figure() -> None:
    rows = list(csv.DictReader(io.StringIO(report(failed_case(), a_case([1.0, 3.0])).to_csv())))
    assert [row["status"] for row in rows] == ["crashed", "ok"]
    assert rows[1]["input_size"] == "320x320"
    for stage in case.STAGES:
        for figure in ("p50_ms", "p90_ms", "p99_ms", "mean_ms", "per_second"):
            assert float(rows[1][f"{stage}_{figure}"]) > 0
            assert rows[0][f"{stage}_{figure}"] == ""


def test_json_holds_samples_settings_and_the_board() -> None:
    document = json.loads(report(a_case([1.0, 3.0])).to_json())
    assert document["cases"][0]["stages"]["total"]["samples_ms"] == [1.0, 3.0]
    assert document["board"]["processor"]["simd"]
    assert document["settings"]["runs"] == 100


def test_report_is_complete_when_every_model_ran_in_one_way() -> None:
    good, bad = a_case([1.0]), failed_case("models/a.onnx")
    assert report(good, bad).complete
    assert not report(good, failed_case("other.onnx")).complete


@pytest.mark.parametrize(
    ("model", "name"),
    [("a/b.onnx", "b.onnx"), ("a/b_openvino_model/", "b_openvino_model"), ("b.tflite", "b.tflite")],
)
def test_short_name_is_the_last_part_of_the_path(model: str, name: str) -> None:
    assert short_name(model) == name


@pytest.mark.parametrize(
    ("code", "status", "detail"),
    [
        ("import os; os.abort()", "crashed", "exit code -6"),
        ("import sys; sys.exit('no memory')", "crashed", "no memory"),
        ("import time; time.sleep(60)", "timeout", "no answer in 0.5 s"),
        ("print('not JSON')", "failed", "no readable answer"),
        ("print('[]')", "failed", "no readable answer"),
    ],
)
def test_case_that_dies_hangs_or_babbles_is_reported(code: str, status: str, detail: str) -> None:
    timeout = 0.5 if status == "timeout" else 30
    result = run_case("x.onnx", "auto", None, REQUEST, timeout, command=[sys.executable, "-c", code])
    assert (result.status, result.stages) == (status, {})
    assert detail in result.detail


def test_failing_model_is_a_case_with_the_reason(tmp_path: Path) -> None:
    result = run_case(tmp_path / "no.onnx", "auto", None, REQUEST, 60)
    assert result.status == "failed"
    assert "no.onnx" in result.detail


def test_peak_memory_is_this_process_alone() -> None:
    # The parent holds 150 MB; a figure inherited from it would be above them.
    ballast = np.ones(150_000_000, np.uint8)
    code = "from edgepose.benchmark.case import peak_memory_mb as p; print(p()); b = bytearray(100_000_000); print(p())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    before, after = map(float, done.stdout.split())
    assert before < 150 < ballast.nbytes
    assert 95 < after - before < 115


def test_made_up_picture_is_the_same_each_time_and_not_flat() -> None:
    picture, color = case.load_source(None)
    assert (picture.shape, picture.dtype, color) == ((480, 640, 3), np.uint8, "BGR")
    assert np.array_equal(picture, case.load_source(None)[0])
    assert picture.std() > 30


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"models": []}, ValueError),
        ({"models": "a.onnx", "runs": 0}, ValueError),
        ({"models": "a.onnx", "warmup": 0}, ValueError),
        ({"models": "a.onnx", "timeout": 0}, ValueError),
        ({"models": "a.onnx", "source": "nowhere.jpg"}, FileNotFoundError),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        benchmark(**arguments)


def interrupting(cases: list[CaseResult]) -> Any:
    """A `run_case` that gives these cases, and then Ctrl-C."""
    left = iter(cases)

    def run(*_: Any) -> CaseResult:
        try:
            return next(left)
        except StopIteration:
            raise KeyboardInterrupt from None

    return run


def test_ctrl_c_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edgepose.benchmark.run_case", interrupting([a_case([10.0] * 20)]))
    with pytest.raises(KeyboardInterrupt):
        run(["a.onnx", "b.onnx"], plot=False, project=str(tmp_path))
    document = json.loads((tmp_path / "benchmark" / "benchmark.json").read_text())
    assert (document["interrupted"], len(document["cases"])) == (True, 1)


def test_ctrl_c_before_anything_was_measured_ends_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepose.benchmark.run_case", interrupting([]))
    with pytest.raises(KeyboardInterrupt):
        benchmark("a.onnx")


def test_cases_are_the_product_of_models_backends_and_threads() -> None:
    assert count_cases(["a", "b"], ("auto",), [1, 2]) == 4
    assert count_cases(None, "auto", None) == 1


def files(folder: Path, *names: str) -> list[str]:
    """Empty models, by their first bytes, and what is none."""
    heads = {".onnx": b"\x08\x0a\x12\x00", ".tflite": b"\x1c\x00\x00\x00TFL3", ".xml": b"<?xml version='1.0'?><net"}
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(heads.get(path.suffix, b"text"))
    return [str(folder / name) for name in names]


def test_checkpoint_brings_the_exports_beside_it(tmp_path: Path) -> None:
    checkpoint, *exports = files(tmp_path, "best.pt", "best.onnx", "best_int8.tflite")
    files(tmp_path, "best_ncnn_model/model.ncnn.param", "best.onnx.log", "last.onnx", "best2.tflite", "best_old.pt")
    assert find_models(checkpoint) == [checkpoint, exports[0], exports[1], str(tmp_path / "best_ncnn_model")]


def test_folder_and_glob_stand_for_the_models_in_them(tmp_path: Path) -> None:
    models = files(tmp_path, "a.onnx", "b.tflite", "c.pt")
    files(tmp_path, "notes.txt", "plan.yaml")
    assert find_models(tmp_path) == models
    assert find_models(f"{tmp_path}/[ab]*") == models[:2]


def test_name_that_stands_for_one_model_stays_itself(tmp_path: Path) -> None:
    (model,) = files(tmp_path, "a.onnx")
    assert find_models(model) == [model]
    assert find_models(tmp_path / "gone.onnx") == [str(tmp_path / "gone.onnx")]


def test_folder_or_glob_without_a_model_is_refused(tmp_path: Path) -> None:
    files(tmp_path, "notes.txt")
    for name in (str(tmp_path), f"{tmp_path}/*"):
        with pytest.raises(ValueError, match="there is no model in"):
            find_models(name)


def test_model_that_the_trainer_runs_is_one_case(tmp_path: Path) -> None:
    checkpoint, _ = files(tmp_path, "best.pt", "best.onnx")
    assert count_cases(checkpoint, "auto", [1, 2]) == 1 + 2


def test_data_without_the_trainer_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepose.benchmark.accuracy.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"data= measures AP.*edgepose\[train\]"):
        benchmark("a.onnx", data="my.yaml")


def test_accuracy_that_cannot_be_measured_says_why() -> None:
    code = "import json, sys; json.dump({'status': 'failed', 'detail': 'no such data'}, sys.stdout)"
    found = measure_accuracy("a.onnx", "my.yaml", None, 30, [sys.executable, "-c", code])
    assert found == {"ap_problem": "no such data"}


def heat(tmp_path: Path, millidegrees: int, throttled: int = 0, governor: str = "performance") -> dict[str, Any]:
    files = {
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
        "sys/class/thermal/thermal_zone0/temp": str(millidegrees),
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": str(throttled),
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": governor,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return board(tmp_path)


def test_cool_board_with_a_fixed_clock_and_steady_timings_raises_no_doubt(tmp_path: Path) -> None:
    facts = heat(tmp_path, 45000)
    assert doubts(facts, facts, [a_case([10.0, 10.5] * 50)]) == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ((45000,), (91000,), "91 °C"),
        ((45000, 3), (45000, 8), "throttled itself 5 times"),
        ((45000, 0, "powersave"), (45000, 0, "powersave"), 'governor "powersave" keeps the clock low'),
    ],
)
def test_heat_throttling_and_a_slow_governor_are_warned_of_once(
    before: tuple[Any, ...], after: tuple[Any, ...], words: str, tmp_path: Path
) -> None:
    found = doubts(heat(tmp_path, *before), heat(tmp_path, *after), [])
    assert [words in finding.what for finding in found] == [True]


@pytest.mark.parametrize(
    ("samples", "words"),
    [([10.0] * 50 + [13.0] * 50, "30% slower while"), (([10.0] * 8 + [40.0] * 2) * 10, "one call in ten")],
)
def test_timings_that_drift_or_scatter_are_warned_of(samples: list[float], words: str) -> None:
    assert any(words in finding.what for finding in doubts(board(), board(), [a_case(samples)]))


def test_plot_is_a_picture_of_every_stage(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    generator = np.random.default_rng(0)
    cases = [a_case((generator.gamma(20, 1, 100) * k).tolist(), f"m{k}.onnx") for k in (1, 2)]
    paths = write_files(report(*cases), tmp_path, save=True, plot=True)
    assert [path.name for path in paths] == ["benchmark.json", "benchmark.csv", "benchmark.png"]
    with Image.open(tmp_path / "benchmark.png") as picture:
        assert picture.width > 800
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 100


def test_plot_of_accuracy_is_written_where_ap_is_known(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    cases = [a_case([10.0 * k] * 20, f"m{k}.onnx", ap=0.3 + 0.01 * k) for k in (1, 2)]
    paths = write_files(report(*cases, a_case([5.0] * 20)), tmp_path, save=False, plot=True)
    assert [path.name for path in paths] == ["benchmark.png", "accuracy.png"]
    with Image.open(tmp_path / "accuracy.png") as picture:
        assert picture.width > 800
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 100


def test_report_for_people_has_the_board_the_table_and_the_warnings(tmp_path: Path) -> None:
    facts = heat(tmp_path, 95000)
    warnings = tuple(doubts(facts, facts, []))
    text = report_text(BenchmarkReport((a_case([10.0] * 20),), {"source": None, "runs": 20}, facts, warnings))
    for part in (
        "processor:",
        "packages:     onnxruntime 1.20.0\n",
        "a.onnx",
        "warning: cpu-thermal is at 95 °C",
        "source=photo.jpg",
    ):
        assert part in text


@pytest.fixture
def onnx_model(shared: Path) -> Path:
    pytest.importorskip("onnxruntime")
    return shared / "models" / "yolov8n-pose_320.onnx"


def test_real_model_is_measured_by_the_command(onnx_model: Path, shared: Path, tmp_path: Path) -> None:
    words = [f"model={onnx_model}", f"source={shared / 'data' / 'bus.jpg'}", "threads=1", "runs=5", "warmup=1"]
    done = subprocess.run(
        [sys.executable, "-m", "edgepose.cli", "benchmark", *words, "json=true", f"project={tmp_path}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    measured = document["cases"][0]
    assert (measured["runtime"], measured["threads"], measured["people"] >= 3) == ("onnxruntime", 1, True)
    stages = measured["stages"]
    parts = [stages[stage]["mean_ms"] for stage in ("preprocess", "inference", "decode")]
    assert sum(parts) <= stages["total"]["mean_ms"] <= sum(parts) * 1.2 + 1
    assert measured["size_bytes"] == onnx_model.stat().st_size
    assert measured["start_ms"] > measured["load_ms"] + measured["first_ms"] > stages["total"]["min_ms"]
    assert 50 < measured["peak_mb"] < 400
    assert document["board"]["packages"]["onnxruntime"]
    assert json.loads((tmp_path / "benchmark" / "benchmark.json").read_text()) == document


def test_labels_that_are_not_there_are_told_before_anything_is_timed() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("faster_coco_eval")
    with pytest.raises(FileNotFoundError, match=r"there is no data YAML 'nope\.yaml'"):
        benchmark("a.onnx", data="nope.yaml")
