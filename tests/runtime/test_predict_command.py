"""`edgepose predict`: what it prints and writes for pictures and videos, and how it ends when something goes wrong."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgepose.command import predict as command
from edgepose.command.interrupt import Uninterrupted
from edgepose.command.runs import new_run_folder
from edgepose.command.sinks import stem_of
from edgepose.command.window import Window, WindowClosed
from edgepose.contract import PeopleSpec
from edgepose.modelfiles.files import write_atomically
from edgepose.result import PoseResult, Speed
from edgepose.sources import Frame

ROOT = Path(__file__).parents[2]
SPEC = PeopleSpec(class_names=("person", "dog"), skeleton=((0, 1),))


class TwoFound:
    """A predictor that finds a person and a dog in every picture, at places that follow from the picture's size."""

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.seen = 0
        self.interrupt_after = interrupt_after

    def predict(self, source: Any, *, color: str | None = None) -> PoseResult:
        if self.seen == self.interrupt_after:
            raise KeyboardInterrupt
        self.seen += 1
        height, width = source.shape[:2]
        boxes = np.array([[1, 1, width / 2, height - 2], [width / 2, 1, width - 2, height - 2]], np.float32)
        keypoints = np.full((2, 2, 2), 5, np.float32)
        keypoints[:, 1] = 20
        scores = np.array([0.9, 0.5], np.float32)
        points = np.ones((2, 2), np.float32)
        found = (boxes, scores, np.array([0, 1], np.int32), keypoints, points)
        return PoseResult(*found, (width, height), SPEC, Speed(1.0, 2.0, 0.5))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with a JPEG, a PNG and a broken picture."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (64, 48), (10, 200, 30)).save(folder / "000123.jpg")
    Image.new("RGB", (32, 40), (200, 10, 30)).save(folder / "b.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    return folder


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Ten frames of 64x48 at 20 a second, in which a bright square moves."""
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20.0, (64, 48))
    for i in range(10):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[10:20, 4 * i : 4 * i + 10] = 255
        writer.write(frame)
    writer.release()
    return path


def predict(source: Path | str, tmp_path: Path, predictor: Any = None, **options: Any) -> int:
    return command.predict_source(predictor or TwoFound(), str(source), project=str(tmp_path / "runs"), **options)


def written(tmp_path: Path, run: str = "predict") -> list[str]:
    return sorted(path.name for path in (tmp_path / "runs" / run).iterdir())


def test_one_picture_is_printed_as_a_table_of_people(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(pictures / "b.png", tmp_path) == 0
    output = capsys.readouterr().out
    assert [line.split()[:3] for line in output.splitlines()[2:4]] == [["0", "person", "0.90"], ["1", "dog", "0.50"]]
    assert "each: preprocess 1.00 ms, inference 2.00 ms, decode 0.50 ms" in output
    assert written(tmp_path) == ["b.png"]


def test_annotated_picture_is_the_picture_with_drawings(pictures: Path, tmp_path: Path) -> None:
    predict(pictures / "b.png", tmp_path)
    drawn = np.asarray(Image.open(tmp_path / "runs/predict/b.png"))
    original = np.asarray(Image.open(pictures / "b.png"))
    different = (drawn != original).any(axis=2)
    assert 0.05 < different.mean() < 0.9
    assert (drawn[~different] == (200, 10, 30)).all()


def test_broken_picture_is_named_and_the_rest_goes_on(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict(pictures, tmp_path) == 0
    output = capsys.readouterr()
    assert "skipped" in output.err
    assert "broken.jpg" in output.err
    assert "2 read, 4 found" in output.out
    assert "1 could not be read" in output.out
    assert written(tmp_path) == ["000123.jpg", "b.png"]


def test_nothing_readable_is_a_failure_without_a_run_folder(pictures: Path, tmp_path: Path) -> None:
    assert predict(pictures / "broken.jpg", tmp_path) == 1
    assert not (tmp_path / "runs" / "predict").exists()


def test_missing_source_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        predict(tmp_path / "nowhere.jpg", tmp_path)
    assert not (tmp_path / "runs").exists()


def test_json_csv_and_coco_hold_what_the_results_say(pictures: Path, tmp_path: Path) -> None:
    predict(pictures, tmp_path, save=False, save_json=True, save_csv=True, save_coco=True)
    assert written(tmp_path) == ["coco.json", "results.csv", "results.json"]
    folder = tmp_path / "runs" / "predict"
    results = [PoseResult.from_dict(document) for document in json.loads((folder / "results.json").read_text())]
    expected = [TwoFound().predict(np.zeros(shape)) for shape in ((48, 64, 3), (40, 32, 3))]
    for result, truth in zip(results, expected, strict=True):
        assert np.array_equal(result.boxes, truth.boxes)
        assert np.array_equal(result.keypoints, truth.keypoints)
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [(Path(row["source"]).name, row["class"]) for row in rows] == [
        ("000123.jpg", "person"),
        ("000123.jpg", "dog"),
        ("b.png", "person"),
        ("b.png", "dog"),
    ]
    coco = json.loads((folder / "coco.json").read_text())
    assert [person["image_id"] for person in coco] == [123, 123, "b", "b"]
    assert coco[0]["bbox"] == [1, 1, 31, 45]


def test_json_of_nobody_is_an_empty_list_that_still_names_the_picture(pictures: Path, tmp_path: Path) -> None:
    class Nobody:
        def predict(self, source: Any, *, color: str | None = None) -> PoseResult:
            return PoseResult.empty((source.shape[1], source.shape[0]))

    predict(pictures / "b.png", tmp_path, Nobody(), save=False, save_json=True, save_csv=True, save_coco=True)
    folder = tmp_path / "runs" / "predict"
    assert json.loads((folder / "coco.json").read_text()) == []
    assert [document["detections"] for document in json.loads((folder / "results.json").read_text())] == [[]]
    assert (folder / "results.csv").read_text().startswith("source,frame,time,person")


def test_classes_keeps_those_only(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(pictures / "b.png", tmp_path, classes=[1], save=False) == 0
    output = capsys.readouterr().out
    assert ("dog" in output, "person" in output) == (True, False)
    with pytest.raises(ValueError, match="class id 7"):
        predict(pictures / "b.png", tmp_path, classes=[7], save=False)


def test_each_run_has_a_folder_of_its_own_unless_told_otherwise(pictures: Path, tmp_path: Path) -> None:
    for _ in range(3):
        predict(pictures / "b.png", tmp_path)
    predict(pictures / "b.png", tmp_path, name="mine", exist_ok=True)
    predict(pictures / "000123.jpg", tmp_path, name="mine", exist_ok=True)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["mine", "predict", "predict2", "predict3"]
    assert written(tmp_path, "mine") == ["000123.jpg", "b.png"]


def test_pictures_of_the_same_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / folder / "x.jpg")
    (tmp_path / "list.txt").write_text("a/x.jpg\nb/x.jpg\n")
    predict(tmp_path / "list.txt", tmp_path)
    assert written(tmp_path) == ["x-2.jpg", "x.jpg"]


def test_pictures_of_the_same_name_have_ids_of_their_own_in_coco(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / folder / "7.jpg")
    (tmp_path / "list.txt").write_text("a/7.jpg\nb/7.jpg\na/7.jpg\n")
    predict(tmp_path / "list.txt", tmp_path, save_coco=True, save=False)
    people = json.loads((tmp_path / "runs/predict/coco.json").read_text())
    assert [person["image_id"] for person in people] == [7, 7, "7-2", "7-2", 7, 7]


def test_an_id_is_given_once_whatever_files_are_called(tmp_path: Path) -> None:
    for name in ("a/x.jpg", "b/x.jpg", "c/x-2.jpg", "1.jpg", "01.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    (tmp_path / "list.txt").write_text("a/x.jpg\nb/x.jpg\nc/x-2.jpg\n1.jpg\n01.jpg\n")
    predict(tmp_path / "list.txt", tmp_path, save_coco=True, save=False)
    people = json.loads((tmp_path / "runs/predict/coco.json").read_text())
    assert [person["image_id"] for person in people[::2]] == ["x", "x-2", "x-2-2", 1, "01-2"]


@pytest.mark.parametrize(("stride", "frames", "fps"), [(1, 10, 20.0), (2, 5, 10.0)])
def test_video_is_annotated_frame_by_frame(
    video: Path, tmp_path: Path, stride: int, frames: int, fps: float, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    assert predict(video, tmp_path, save_json=True, vid_stride=stride) == 0
    assert f"{frames} read, {2 * frames} found" in capsys.readouterr().out
    assert written(tmp_path) == ["clip.mp4", "results.json"]
    made = cv2.VideoCapture(str(tmp_path / "runs/predict/clip.mp4"))
    assert (made.get(cv2.CAP_PROP_FRAME_COUNT), made.get(cv2.CAP_PROP_FPS)) == (frames, fps)
    _, picture = made.read()
    assert picture.shape == (48, 64, 3)
    assert (picture[2:46, 2:4].max() > 60) or (picture[:, 30:34].max() > 60)  # a box was drawn on black
    documents = json.loads((tmp_path / "runs/predict/results.json").read_text())
    assert [document["frame"] for document in documents] == list(range(0, 10, stride))
    assert documents[1]["time"] == pytest.approx(stride / 20.0, abs=0.01)


def test_ctrl_c_completes_the_files(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        predict(video, tmp_path, TwoFound(interrupt_after=4), save_json=True, save_csv=True)
    assert written(tmp_path) == ["clip.mp4", "results.csv", "results.json"]
    assert len(json.loads((tmp_path / "runs/predict/results.json").read_text())) == 4
    assert "4 read" in capsys.readouterr().out


def press_guarded(times: int) -> list[int]:
    """How often Ctrl-C was pressed in a guarded block before it ended."""
    pressed = []
    with contextlib.suppress(KeyboardInterrupt), Uninterrupted():
        for i in range(times):
            signal.raise_signal(signal.SIGINT)
            pressed.append(i)
    return pressed


def test_ctrl_c_in_a_guarded_block_waits_for_its_end() -> None:
    with pytest.raises(KeyboardInterrupt), Uninterrupted():
        signal.raise_signal(signal.SIGINT)
    assert press_guarded(1) == [0]
    with pytest.raises(KeyboardInterrupt):  # and then ends things as before
        signal.raise_signal(signal.SIGINT)


def test_second_ctrl_c_ends_a_guarded_block_at_once() -> None:
    assert press_guarded(3) == [0]


def test_ctrl_c_while_a_result_is_written_keeps_the_files_whole(video: Path, tmp_path: Path) -> None:
    class PressedWhileDrawing(TwoFound):
        def predict(self, source: Any, *, color: str | None = None) -> PoseResult:
            result = super().predict(source, color=color)
            if self.seen < 4:
                return result
            return Pressing(*(getattr(result, name) for name in result.__dataclass_fields__))

    class Pressing(PoseResult):
        __slots__ = ()

        def to_dict(self) -> dict[str, Any]:
            signal.raise_signal(signal.SIGINT)
            return super().to_dict()

    with pytest.raises(KeyboardInterrupt):
        predict(video, tmp_path, PressedWhileDrawing(), save_json=True)
    assert len(json.loads((tmp_path / "runs/predict/results.json").read_text())) == 4
    assert written(tmp_path) == ["clip.mp4", "results.json"]


def test_failure_in_the_middle_leaves_no_half_written_file(video: Path, tmp_path: Path) -> None:
    class Failing(TwoFound):
        def predict(self, source: Any, *, color: str | None = None) -> PoseResult:
            if self.seen == 3:
                raise RuntimeError("the accelerator was unplugged")
            return super().predict(source, color=color)

    with pytest.raises(RuntimeError, match="unplugged"):
        predict(video, tmp_path, Failing(), save_json=True, save_csv=True, save_coco=True)
    assert not (tmp_path / "runs" / "predict").exists()


def test_full_disk_is_an_error_that_leaves_no_half_written_file(video: Path, tmp_path: Path) -> None:
    # A limit on the size of files stands for the disk: the write fails in the same place.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match=r"[Ff]ile too large|Errno 27") as caught:
            predict(video, tmp_path, save=False, save_json=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(tmp_path / "runs/predict/results.json")
    assert not (tmp_path / "runs" / "predict").exists()


def test_whole_file_keeps_the_old_one_when_it_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(str(path), [b"old"])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match=r"[Ff]ile too large|Errno 27") as caught:
            write_atomically(str(path), [b"new" * 100])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_run_folder_whose_name_is_a_file_is_an_error_only_where_it_must_be_used(tmp_path: Path) -> None:
    (tmp_path / "predict").write_text("")
    assert new_run_folder(str(tmp_path), "predict", exist_ok=False).name == "predict2"
    with pytest.raises(FileExistsError):
        new_run_folder(str(tmp_path), "predict", exist_ok=True)


def test_run_folder_that_cannot_be_made_says_what_to_do() -> None:
    with pytest.raises(OSError, match=r"project=FOLDER puts results elsewhere: '/proc/nowhere/predict'"):
        new_run_folder("/proc/nowhere", "predict", exist_ok=False)


@pytest.mark.parametrize(
    ("source", "stem"),
    [
        ("a/b/c.jpg", "c"),
        ("https://host/x/y.png?size=3", "y"),
        ("rtsp://user@host:554/live", "live"),
        ("0", "0"),
        (None, "picture"),
        ("..", "picture"),
        (".hidden.jpg", "hidden"),
        ("50%:x.png", "50__x"),
    ],
)
def test_name_of_a_source_is_fit_for_a_file(source: str | None, stem: str) -> None:
    assert stem_of(source) == stem


def test_window_without_a_screen_is_a_clear_error(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(RuntimeError, match="needs a screen"):
        predict(pictures / "b.png", tmp_path, show=True)
    assert not (tmp_path / "runs").exists()


class FakeOpenCV:
    """The window functions of cv2, with keys to press."""

    WINDOW_NORMAL, WINDOW_KEEPRATIO, WND_PROP_VISIBLE, __version__ = 0, 0, 4, "0"

    class error(Exception):
        pass

    def __init__(self, keys: list[int], windows: bool = True) -> None:
        self.keys, self.windows, self.shown = keys, windows, 0

    def namedWindow(self, *_: Any) -> None:
        if not self.windows:
            raise self.error("The function is not implemented. Rebuild the library with GTK support")

    def imshow(self, _: str, picture: np.ndarray[Any, Any]) -> None:
        assert picture.flags.c_contiguous
        self.shown += 1

    def waitKey(self, _: int) -> int:
        return self.keys.pop(0)

    def getWindowProperty(self, *_: Any) -> float:
        return 1.0

    def destroyAllWindows(self) -> None:
        self.shown = -1


def test_window_waits_for_a_key_at_a_picture_and_q_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = FakeOpenCV([-1, -1, ord(" "), -1, ord("q")])
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    monkeypatch.setenv("DISPLAY", ":0")
    window = Window()
    picture = np.zeros((8, 8, 3), np.uint8)[..., ::-1]
    window.add(Frame(picture, "BGR", "a.jpg", 0), picture)
    window.add(Frame(picture, "BGR", "a.mp4", 0, 0.0), picture)
    with pytest.raises(WindowClosed):
        window.add(Frame(picture, "BGR", "a.mp4", 1, 0.04), picture)
    assert cv2.shown == 3


def test_opencv_without_windows_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", FakeOpenCV([], windows=False))
    monkeypatch.setenv("DISPLAY", ":0")
    with pytest.raises(ImportError, match="pip install opencv-python"):
        Window()


@pytest.fixture
def movenet(shared: Path) -> Path:
    pytest.importorskip("ai_edge_litert")
    return shared / "models" / "movenet_single_pose_lightning_ptq.tflite"


def start(*words: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command_line = [sys.executable, "-m", "edgepose.cli", "pose", "predict", *words]
    return subprocess.Popen(command_line, stdout=subprocess.PIPE, text=True, env=environment, **options)


def test_real_command_finds_the_person(movenet: Path, shared: Path, tmp_path: Path) -> None:
    words = [f"model={movenet}", f"source={shared / 'data' / 'squat.bmp'}", "save_coco=true", f"project={tmp_path}"]
    process = start(*words, stderr=subprocess.PIPE)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert "1 x person" in output
    assert sorted(path.name for path in (tmp_path / "predict").iterdir()) == ["coco.json", "squat.jpg"]
    person = json.loads((tmp_path / "predict" / "coco.json").read_text())[0]
    assert (person["image_id"], len(person["keypoints"])) == ("squat", 51)


def test_reader_who_leaves_early_costs_no_results(movenet: Path, pictures: Path, tmp_path: Path) -> None:
    words = [f"model={movenet}", f"source={pictures}", "save_csv=true", f"project={tmp_path / 'runs'}", "conf=0.0"]
    process = start(*words, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert written(tmp_path) == ["000123.jpg", "b.png", "results.csv"]
    assert "b.png" in (tmp_path / "runs/predict/results.csv").read_text()


def read_all(terminal: int) -> str:
    """Everything that was written to the other end of a terminal, which is closed."""
    chunks = []
    with contextlib.suppress(OSError):  # EIO is the end
        while chunk := os.read(terminal, 4096):
            chunks.append(chunk)
    os.close(terminal)
    return b"".join(chunks).decode(errors="replace")


def test_reader_who_leaves_early_costs_no_results_beside_a_progress_bar_either(
    movenet: Path, pictures: Path, tmp_path: Path
) -> None:
    """As in a terminal, where lines are printed above the bar."""
    terminal, end = os.openpty()
    process = start(
        f"model={movenet}", f"source={pictures}", "save_csv=true", f"project={tmp_path / 'runs'}", stderr=end
    )
    os.close(end)
    assert process.stdout is not None
    process.stdout.close()
    text = read_all(terminal)
    assert process.wait(timeout=60) == 0, text
    assert written(tmp_path) == ["000123.jpg", "b.png", "results.csv"]


def test_progress_is_drawn_on_a_terminal(movenet: Path, shared: Path, pictures: Path, tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # rows, columns
    process = start(f"model={movenet}", f"source={pictures}", "save=false", stderr=theirs, cwd=tmp_path)
    os.close(theirs)
    output, _ = process.communicate(timeout=60)
    text = read_all(ours)
    assert process.returncode == 0
    assert "/3" in text
    assert "picture" in text
    assert "2 read" in output


@pytest.mark.slow
def test_signal_stops_a_long_video_with_130_and_whole_files(movenet: Path, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "long.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (640, 480))
    for i in range(3000):
        writer.write(np.full((480, 640, 3), i % 256, np.uint8))
    writer.release()
    words = [f"model={movenet}", f"source={tmp_path / 'long.avi'}", "save_json=true", f"project={tmp_path / 'runs'}"]
    process = start(*words, stderr=subprocess.PIPE)
    part = tmp_path / "runs" / "predict" / ".results.json.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, "interrupted" in errors) == (130, True), errors
    assert 0 < len(json.loads((tmp_path / "runs/predict/results.json").read_text())) < 3000
    assert written(tmp_path) == ["long.mp4", "results.json"]
