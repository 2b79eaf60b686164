"""Long runs: memory stays flat, and runners in several threads work at the same time."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from hashlib import pbkdf2_hmac
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from PIL import Image

from edgepose import PoseRunner

Make = Callable[..., Path]

PREDICTIONS = 10_000
BEFORE = 1_000
"""Predictions until everything that is kept has its size."""
PAGE_KB = os.sysconf("SC_PAGE_SIZE") / 1024
GROWTH_KB = 3_000
"""A third of a kilobyte a prediction: less than any array that could be left behind; allocators move by 1 MB or so."""


def resident_kb() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KB


def assert_memory_stays_flat(runner: PoseRunner, sizes: np.ndarray) -> None:
    """Predicts on pictures of the (height, width) sizes in turn."""
    canvas = np.random.default_rng(0).integers(0, 256, (*sizes.max(0), 3), np.uint8)
    runner.predict(canvas)
    for number, (height, width) in enumerate(sizes):
        if number == BEFORE:
            before = resident_kb()
        runner.predict(canvas[:height, :width])
    assert resident_kb() - before < GROWTH_KB


def changing_sizes(low: int, high: int) -> np.ndarray:
    return np.random.default_rng(1).integers(low, high, (PREDICTIONS, 2))


@pytest.fixture
def fixed_runner(request: pytest.FixtureRequest, make_sized: Make) -> PoseRunner:
    """MoveNet, or a model of a few operations for 32x32 in ONNX Runtime or OpenVINO."""
    if request.param == "tflite":
        return PoseRunner(request.getfixturevalue("movenet"), conf=0.0, threads=1)
    pytest.importorskip(request.param)
    return PoseRunner(make_sized(1, 32, 32), spec="yolov8-pose", backend=request.param, threads=1)


@pytest.mark.slow
@pytest.mark.parametrize("fixed_runner", ["tflite", "onnxruntime", "openvino"], indirect=True)
def test_10000_predictions_on_changing_picture_sizes_keep_memory_flat(fixed_runner: PoseRunner) -> None:
    with fixed_runner:
        assert_memory_stays_flat(fixed_runner, changing_sizes(1, 1200))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_10000_predictions_on_changing_input_sizes_keep_memory_flat(make_sized: Make, backend: str) -> None:
    pytest.importorskip(backend)
    options = {"spec": "yolov8-pose", "backend": backend, "threads": 1}
    with PoseRunner(make_sized(), imgsz=160, rect=True, **options) as runner:
        assert_memory_stays_flat(runner, changing_sizes(50, 400))


# Threads


THREADS = 4


def in_threads(tasks: Sequence[Callable[[], object]]) -> float:
    """Seconds from the moment when all of them are ready to the end of the last."""
    ready = threading.Barrier(len(tasks) + 1)

    def work(task: Callable[[], object]) -> None:
        ready.wait()
        task()

    threads = [threading.Thread(target=work, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    ready.wait()
    started = perf_counter()
    for thread in threads:
        thread.join()
    return perf_counter() - started


def speedup(tasks: Sequence[Callable[[], object]]) -> float:
    """How much more is done in a second by one thread a task than by one thread alone."""
    return len(tasks) * in_threads(tasks[:1]) / in_threads(tasks)


def hashing() -> None:
    """Work that no other thread can hold up: it needs no lock."""
    pbkdf2_hmac("sha256", b"", b"", 200_000)


@pytest.fixture
def two_free_cores() -> Callable[[], None]:
    """Skips the test where this machine has no two cores to spare now."""

    def check() -> None:
        free = max(speedup([hashing] * THREADS) for _ in range(3))
        if free < 1.8:
            pytest.skip(
                f"needs two free cores: {THREADS} threads that share nothing do {free:.1f} times the work of one"
            )

    return check


REAL = {
    "tflite": ("movenet_single_pose_lightning_ptq.tflite", "ai_edge_litert", 40),
    "onnxruntime": ("yolov8n-pose_320.onnx", "onnxruntime", 10),
    "openvino": ("yolov8n-pose_int8_openvino_model", "openvino", 10),
}


@pytest.fixture
def runners(request: pytest.FixtureRequest, shared: Path) -> Iterator[list[PoseRunner]]:
    name, module, _ = REAL[request.param]
    pytest.importorskip(module)
    opened = [PoseRunner(shared / "models" / name, conf=0.1, threads=1, precision="f32") for _ in range(THREADS)]
    yield opened
    for runner in opened:
        runner.close()


@pytest.fixture
def pictures(shared: Path) -> list[np.ndarray]:
    """As many as there are threads, all different, BGR."""
    bus = np.asarray(Image.open(shared / "data/bus.jpg"))[..., ::-1]
    return [np.roll(bus, 60 * i, axis=1) for i in range(THREADS)]


each_real_model = pytest.mark.parametrize("runners", REAL, indirect=True)


@each_real_model
def test_four_threads_with_a_runner_each_give_the_right_answers(
    runners: list[PoseRunner], pictures: list[np.ndarray]
) -> None:
    expected = [runners[0].predict(picture) for picture in pictures]
    answers: list[list[bool]] = [[] for _ in runners]

    def work(which: int) -> None:
        for _ in range(3):
            for picture, result in zip(pictures, expected, strict=True):
                answers[which].append(runners[which].predict(picture) == result)

    in_threads([lambda which=which: work(which) for which in range(THREADS)])
    assert answers == [[True] * 3 * len(pictures)] * THREADS
    assert len({result.keypoints.tobytes() for result in expected}) == len(pictures)


@pytest.mark.slow
@each_real_model
def test_four_threads_with_a_runner_each_work_at_the_same_time(
    runners: list[PoseRunner],
    pictures: list[np.ndarray],
    request: pytest.FixtureRequest,
    two_free_cores: Callable[[], None],
) -> None:
    times = REAL[request.node.callspec.params["runners"]][2]

    def task(runner: PoseRunner) -> Callable[[], object]:
        return lambda: [runner.predict(pictures[0]) for _ in range(times)]

    tasks = [task(runner) for runner in runners]
    in_threads(tasks)
    best = max(speedup(tasks) for _ in range(5))
    if best < 1.5:
        two_free_cores()
    assert best >= 1.5
