"""`PoseRunner.stream`: results with their place in the source, and what became of the source."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepose import PoseRunner
from edgepose.sources import capture, open_source

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")

SIDE = 32


@pytest.fixture
def model(make_onnx: Callable[..., Path]) -> Path:
    """A model of one operation: who is found does not matter here."""
    return make_onnx({"output0": (1, 56, 4)}, (1, 3, SIDE, SIDE), name="stream.onnx")


@pytest.fixture
def runner(model: Path) -> Iterator[PoseRunner]:
    with PoseRunner(model, spec="yolov8-pose", threads=1) as runner:
        yield runner


def gray(level: int = 100) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), level, np.uint8)


class Camera:
    """A live capture of 100 frames a second."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def grab(self) -> bool:
        time.sleep(0.01)
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, gray()

    def get(self, prop: int) -> float:
        return 0.0

    def release(self) -> None:
        self.released.set()


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Camera:
    made = Camera()
    monkeypatch.setattr(capture, "open_live", lambda source, name: made)
    return made


def test_results_know_their_place_in_a_folder(runner: PoseRunner, tmp_path: Path) -> None:
    for name in ("img10.png", "img2.png"):
        Image.fromarray(gray()).save(tmp_path / name)
    (tmp_path / "stream.onnx").unlink()
    stream = runner.stream(tmp_path)
    assert stream.total == 2
    assert [(Path(str(r.source)).name, r.frame, r.time) for r in stream] == [
        ("img2.png", 0, None),
        ("img10.png", 1, None),
    ]


def test_results_know_their_place_in_a_video(runner: PoseRunner, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for _ in range(6):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    with runner.stream(path, vid_stride=2) as stream:
        assert (stream.total, stream.fps, stream.live) == (3, 10, False)
        assert [(r.frame, r.time) for r in stream] == [(0, 0.0), (2, 0.2), (4, 0.4)]


def test_a_live_stream_counts_the_frames_that_it_dropped(runner: PoseRunner, camera: Camera) -> None:
    with runner.stream(0) as stream:
        first = next(stream)
        time.sleep(0.2)
        later = list(itertools.islice(stream, 2))
        assert stream.live
        assert stream.dropped >= 5
    assert first.frame is not None
    assert later[1].frame is not None
    assert later[1].frame - first.frame >= stream.dropped
    assert camera.released.wait(3)


def test_a_stream_that_nobody_holds_frees_its_camera(runner: PoseRunner, camera: Camera) -> None:
    for _ in runner.stream(0):
        break
    gc.collect()
    assert camera.released.wait(3)


def test_a_stream_that_was_never_read_frees_its_camera(runner: PoseRunner, camera: Camera) -> None:
    runner.stream(0)
    gc.collect()
    assert camera.released.wait(3)


def test_another_thread_may_close_a_live_stream(runner: PoseRunner, camera: Camera) -> None:
    stream = runner.stream(0)
    next(stream)
    timer = threading.Timer(0.1, stream.close)
    timer.start()
    assert len(list(stream)) > 0
    timer.join()


def test_a_source_that_nobody_holds_frees_its_camera(camera: Camera) -> None:
    for _ in open_source(0):
        break
    gc.collect()
    assert camera.released.wait(3)


def test_a_program_that_ends_with_an_open_source_ends_well(tmp_path: Path) -> None:
    """A thread that comes out of OpenCV while Python ends aborts the process."""
    code = (
        "import itertools, time\n"
        "from edgepose.sources import capture, open_source\n"
        "import numpy as np\n"
        "class Camera:\n"
        "    def grab(self): time.sleep(0.01); return True\n"
        "    def retrieve(self): return True, np.zeros((8, 8, 3), np.uint8)\n"
        "    def get(self, prop): return 0.0\n"
        "    def release(self): print('released')\n"
        "capture.open_live = lambda source, name: Camera()\n"
        "source = open_source(0)\n"
        "next(iter(source))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "released\n", "")


def test_another_thread_may_close_a_stream_of_pictures(runner: PoseRunner) -> None:
    started, closed = threading.Event(), threading.Event()

    def pictures() -> Iterator[np.ndarray]:
        yield gray()
        started.set()
        assert closed.wait(10)
        for _ in range(100):
            yield gray()

    stream = runner.stream(pictures())
    taken: list[object] = []
    reader = threading.Thread(target=lambda: taken.extend(stream))
    reader.start()
    assert started.wait(10)
    stream.close()
    stream.close()
    closed.set()
    reader.join(10)
    assert not reader.is_alive()
    assert len(taken) == 1


def test_what_was_passed_over_is_not_kept(runner: PoseRunner) -> None:
    refused = [np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
    kept = [weakref.ref(picture) for picture in refused]
    stream = runner.stream(iter([refused.pop(), refused.pop(), b"no picture"]), on_error="skip")
    assert list(stream) == []
    assert len(stream.problems) == 3
    gc.collect()
    assert [picture() for picture in kept] == [None, None]


def test_what_cannot_be_read_or_predicted_on_is_told(runner: PoseRunner) -> None:
    pictures = [gray(), b"no picture", np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8), gray()]
    stream = runner.stream(pictures, on_error="skip")
    assert [result.frame for result in stream] == [0, 4]
    assert [name for name, _ in stream.problems] == ["picture 1", "picture 2", "picture 3"]
    assert [type(error) for _, error in stream.problems] == [ValueError, TypeError, ValueError]


def test_what_cannot_be_predicted_on_is_raised_unless_asked_otherwise(runner: PoseRunner) -> None:
    stream = runner.stream([gray(), np.zeros((4, 4, 3), np.float32)])
    next(stream)
    with pytest.raises(TypeError, match="float32"):
        next(stream)


def test_a_missing_source_is_told_at_once(runner: PoseRunner) -> None:
    with pytest.raises(FileNotFoundError, match=r"no_such\.mp4"):
        runner.stream("no_such.mp4")


def test_an_unknown_option_names_the_nearest(runner: PoseRunner) -> None:
    with pytest.raises(TypeError, match="did you mean 'vid_stride'"):
        runner.stream("clip.mp4", stride=2)


def test_arrays_are_in_the_runners_colour_order_unless_said(make_onnx: Callable[..., Path]) -> None:
    """The first channel of the model's input is red."""
    blue = np.zeros((SIDE, SIDE, 3), np.uint8)
    blue[..., 0] = 255
    fed: list[float] = []
    with PoseRunner(make_onnx({"output0": (1, 56, 4)}, (1, 3, SIDE, SIDE)), spec="yolov8-pose", color="RGB") as runner:
        for color in (None, "RGB", "BGR"):
            list(runner.stream([blue], **({} if color is None else {"color": color})))
            fed.append(float(runner._backend.input_buffer((1, 3, SIDE, SIDE))[0, 0].mean()))
    assert fed == [1.0, 1.0, 0.0]
