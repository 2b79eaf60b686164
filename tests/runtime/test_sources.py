"""Sources: what they find, the order and number of frames, live ones, and their ends."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from edgepose.sources import Frame, capture, items, open_source
from edgepose.sources.live import NewestFrame

cv2 = pytest.importorskip("cv2")


def level_picture(level: int, size: tuple[int, int] = (32, 24)) -> np.ndarray:
    return np.full((size[1], size[0], 3), level, np.uint8)


def write_picture(path: Path, level: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(level_picture(level)).save(path)
    return path


def write_video(
    path: Path, frames: int = 20, fps: float = 10, codec: str = "mp4v", size: tuple[int, int] = (64, 48)
) -> Path:
    """Frame i is gray of level 10 * i."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, size)
    assert writer.isOpened()
    for i in range(frames):
        writer.write(level_picture(10 * i % 250, size))
    writer.release()
    return path


def names(source: Any) -> list[str]:
    with open_source(source) as opened:
        return [os.path.basename(str(frame.source)) for frame in opened]


def levels(source: Any, **options: Any) -> list[int]:
    with open_source(source, **options) as opened:
        return [round(float(frame.image.mean()) / 10) for frame in opened]


def test_one_picture_is_one_frame(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")
    with open_source(path) as source:
        assert (source.total, source.live, source.fps) == (1, False, None)
        (frame,) = source
    assert (frame.color, frame.source, frame.index, frame.time) == ("RGB", str(path), 0, None)
    np.testing.assert_array_equal(frame.image, level_picture(100))


@pytest.mark.parametrize("kind", ["array", "batch", "bytes", "pillow", "list", "tuple", "iterator"])
def test_pictures_in_memory_are_sources(kind: str, tmp_path: Path) -> None:
    array = level_picture(7)
    data = write_picture(tmp_path / "a.png", 7).read_bytes()
    source = {
        "array": array,
        "batch": np.stack([array, array]),
        "bytes": data,
        "pillow": Image.fromarray(array),
        "list": [array, data],
        "tuple": (Image.fromarray(array), array),
        "iterator": iter([array, array, array]),
    }[kind]
    frames = list(open_source(source, color="BGR"))
    assert [frame.index for frame in frames] == list(
        range({"batch": 2, "list": 2, "tuple": 2, "iterator": 3}.get(kind, 1))
    )
    assert all((frame.image == 7).all() for frame in frames)


def test_an_iterator_is_read_as_it_comes() -> None:
    taken = []

    def camera() -> Iterator[np.ndarray]:
        for level in range(100):
            taken.append(level)
            yield level_picture(level)

    with open_source(camera()) as source:
        frames = iter(source)
        assert [next(frames).index for _ in range(3)] == [0, 1, 2]
    assert taken == [0, 1, 2]


def test_an_iterator_goes_on_after_a_picture_that_is_not_there(tmp_path: Path) -> None:
    good = write_picture(tmp_path / "a.png")
    with open_source(iter([good, tmp_path / "b.png", good]), on_error="skip") as source:
        assert [frame.index for frame in source] == [0, 2]
    assert [name for name, _ in source.problems] == ["picture 1"]


@pytest.mark.parametrize("live", [0, "rtsp://user:secret@10.0.0.2/h264"])
def test_an_iterator_gives_no_cameras(live: Any) -> None:
    frames = iter(open_source(iter([live])))
    with pytest.raises(ValueError, match="pictures or videos one by one") as caught:
        next(frames)
    assert "secret" not in str(caught.value)


def test_opencvs_level_of_logging_comes_back_whoever_is_last() -> None:
    log = cv2.utils.logging
    before = log.getLogLevel()
    first, second = capture.quiet(cv2), capture.quiet(cv2)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert log.getLogLevel() == log.LOG_LEVEL_SILENT
    second.__exit__(None, None, None)
    assert log.getLogLevel() == before


def test_the_colour_order_is_checked_at_once() -> None:
    with pytest.raises(ValueError, match="unknown colour order"):
        open_source(level_picture(1), color="CMYK")  # type: ignore[arg-type]
    (frame,) = open_source(level_picture(1), color="rgb")  # type: ignore[arg-type]
    assert frame.color == "RGB"


def test_a_folder_gives_pictures_and_videos_in_natural_order(tmp_path: Path) -> None:
    for name in ("img10.png", "img2.png", "img1.jpg", ".hidden.png", "notes.md", "sub/img3.png"):
        if name.endswith(".md"):
            (tmp_path / name).write_text("not a picture")
        else:
            write_picture(tmp_path / name)
    write_video(tmp_path / "img3.mp4", frames=2)
    assert names(tmp_path) == ["img1.jpg", "img2.png", "img3.mp4", "img3.mp4", "img10.png"]


def test_a_glob_reaches_into_subfolders(tmp_path: Path) -> None:
    for name in ("a1.png", "sub/a2.png", "sub/deep/a3.jpg"):
        write_picture(tmp_path / name)
    assert names(f"{tmp_path}/*.png") == ["a1.png"]
    assert names(f"{tmp_path}/**/*") == ["a1.png", "a2.png", "a3.jpg"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    assert names(write_picture(tmp_path / "a[1].png")) == ["a[1].png"]


def test_a_list_file_names_sources_relative_to_itself(tmp_path: Path) -> None:
    write_picture(tmp_path / "pictures/a.png")
    other = write_picture(tmp_path / "other/b.png")
    listing = tmp_path / "pictures/list.txt"
    listing.write_text(f"# comment\n\na.png\n{other}\n../other/b.png\n")
    assert names(listing) == ["a.png", "b.png", "b.png"]


def test_a_line_that_names_nothing_costs_no_other(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    (tmp_path / "list.txt").write_text("nope.png\na.png\nnone*.png\n")
    with open_source(tmp_path / "list.txt", on_error="skip") as source:
        assert [os.path.basename(frame.source) for frame in source] == ["a.png"]
    assert [os.path.basename(name) for name, _ in source.problems] == ["nope.png", "none*.png"]
    with pytest.raises(FileNotFoundError, match=r"nope\.png'$"):
        names(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b"list.txt", "another list"), (b"\xff\xfe\x80", "not text")]
)
def test_a_bad_list_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("nowhere.png", FileNotFoundError, "no file, folder or camera 'nowhere.png'"),
        ("nowhere.mp4", FileNotFoundError, "nowhere.mp4"),
        ("nowhere/*.png", FileNotFoundError, "no picture or video fits"),
        ("nowhere.txt", FileNotFoundError, "no list"),
        ([], ValueError, "empty list"),
        (-1, ValueError, "from 0 to 255"),
        (3.5, TypeError, "got float"),
        (None, TypeError, "got NoneType"),
        (["rtsp://10.0.0.1/a", "rtsp://10.0.0.1/b"], ValueError, "alone"),
    ],
)
def test_what_is_no_source_is_refused_at_once(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_source(source)


def test_an_empty_folder_says_how_subfolders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"\*\*/\*"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"vid_strid": 2}, TypeError, "did you mean 'vid_stride'"),
        ({"vid_stride": 0}, ValueError, "from 1"),
        ({"on_error": "ignore"}, ValueError, '"skip"'),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_source(level_picture(0), **options)


def test_a_broken_picture_is_raised_or_noted_and_passed_over(tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        write_picture(tmp_path / name)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"b\.png"):
        names(tmp_path)
    with open_source(tmp_path, on_error="skip") as source:
        assert [os.path.basename(str(frame.source)) for frame in source] == ["a.png", "c.png"]
    ((name, error),) = source.problems
    assert name == str(tmp_path / "b.png")
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "mp4v"), (".avi", "MJPG")])
def test_every_frame_of_a_video_comes_in_order_with_its_number_and_time(
    suffix: str, codec: str, tmp_path: Path
) -> None:
    path = write_video(tmp_path / f"v{suffix}", frames=20, fps=12.5, codec=codec)
    with open_source(path) as source:
        assert (source.total, source.fps, source.live) == (20, 12.5, False)
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(20) / 12.5, atol=1e-3)
    np.testing.assert_allclose([frame.image.mean() for frame in frames], 10 * np.arange(20), atol=4)
    assert {frame.source for frame in frames} == {str(path)}
    assert source.problems == []


def test_vid_stride_takes_every_third_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", frames=20)
    with open_source(path, vid_stride=3) as source:
        assert source.total == 7
        frames = list(source)
    assert [frame.index for frame in frames] == [0, 3, 6, 9, 12, 15, 18]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.3, 0.6, 0.9, 1.2, 1.5, 1.8])
    assert levels(path, vid_stride=3) == [0, 3, 6, 9, 12, 15, 18]


def test_videos_and_pictures_mix_in_a_list(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", frames=3)
    picture = write_picture(tmp_path / "p.png", 200)
    with open_source([video, picture, video]) as source:
        assert source.total is None
        assert [(frame.index, frame.time is None) for frame in source] == [
            *((i, False) for i in range(3)),
            (0, True),
            *((i, False) for i in range(3)),
        ]


@pytest.mark.parametrize("content", ["empty", "text", "cut"])
def test_a_file_that_is_no_video_is_named(content: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4")
    data = {"empty": b"", "text": b"words" * 99, "cut": path.read_bytes()[:600]}[content]
    path.write_bytes(data)
    with pytest.raises(ValueError, match="cannot be read as a video") as caught:
        open_source(path)
    assert str(path) in str(caught.value)


def test_a_damaged_video_prints_nothing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4")
    path.write_bytes(path.read_bytes()[:600])
    code = f"from edgepose.sources import open_source; open_source({str(path)!r}, on_error='skip')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stderr.splitlines()[0] == "Traceback (most recent call last):"
    assert "cannot be read as a video" in run.stderr.splitlines()[-1]


def test_a_video_that_ends_early_is_noted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", frames=200, codec="MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_source(path) as source:
        count = sum(1 for _ in source)
    if source.total is not None and count < source.total:
        ((name, error),) = source.problems
        assert name == str(path)
        assert f"after {count} of {source.total} frames" in str(error)
    assert 0 < count < 200


def test_leaving_a_video_early_frees_its_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4")
    for _ in range(3):
        with open_source(path) as source:
            next(iter(source))
    gc.collect()
    opened = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert str(path) not in opened


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4")
    monkeypatch.setitem(sys.modules, "cv2", None)
    for source in (path, "rtsp://127.0.0.1:9/a"):
        with pytest.raises(ImportError, match=r"edgepose\[video\]"):
            open_source(source)
    assert names(write_picture(tmp_path / "a.png")) == ["a.png"]


def resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


@pytest.mark.slow
def test_memory_stays_flat_over_a_long_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.avi", frames=3000, codec="MJPG", size=(640, 480))  # 2.8 GB decoded
    seen = []
    with open_source(path) as source:
        for frame in source:
            if frame.index % 250 == 0:
                seen.append(resident_mb())
    assert len(seen) == 12
    assert max(seen[2:]) - min(seen[2:]) < 8


# live sources


class FakeCamera:
    """Delivers frames at a rate, whether anyone takes them or not; frame i is of level i. Unplugged after `frames`."""

    def __init__(self, frames: int = 10**9, fps: float = 200, before_grab: Callable[[], None] = lambda: None) -> None:
        self.frames, self.period, self.before_grab = frames, 1 / fps, before_grab
        self.grabbed = 0
        self.released = threading.Event()

    def grab(self) -> bool:
        assert not self.released.is_set()
        self.before_grab()
        if self.grabbed >= self.frames:
            return False
        time.sleep(self.period)
        self.grabbed += 1
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.full((4, 4, 3), (self.grabbed - 1) % 256, np.uint8)

    def get(self, prop: int, /) -> float:
        return 0.0

    def release(self) -> None:
        self.released.set()


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCamera]:
    fake = FakeCamera()
    monkeypatch.setattr(capture, "open_live", lambda source, name: fake)
    yield fake
    assert fake.released.wait(3)


def test_a_slow_consumer_gets_the_newest_frame_and_the_dropped_are_counted(camera: FakeCamera) -> None:
    taken: list[Frame] = []
    with open_source(0) as source:
        assert source.live
        assert source.total is None
        for frame in source:
            newest = camera.grabbed - 1
            taken.append(frame)
            assert newest - frame.index <= 8  # a queue would be 80 behind at the end
            time.sleep(0.05)  # ten camera frames
            if len(taken) == 8:
                break
        dropped = source.dropped
    gaps = sum(b.index - a.index - 1 for a, b in itertools.pairwise(taken))
    assert gaps > 8
    assert gaps <= dropped <= gaps + taken[0].index + 50  # and those after the last one taken
    assert all(frame.image[0, 0, 0] == frame.index % 256 for frame in taken)
    times = [frame.time for frame in taken]
    assert times == sorted(times)  # type: ignore[type-var]
    assert times[-1] > 0.3  # type: ignore[operator]


def test_every_frame_is_delivered_or_counted_as_dropped() -> None:
    fake = FakeCamera(frames=40, fps=100)
    newest = NewestFrame(fake, "fake")
    indices = []
    with pytest.raises(ConnectionError, match="fake stopped after 40 frames"):
        indices.extend(index for _, index, _ in newest)
    assert len(indices) + newest.dropped == 40
    assert newest.dropped < 20  # none, but on a busy machine


def test_an_unplugged_camera_is_an_error_with_the_count(camera: FakeCamera) -> None:
    camera.frames = 5
    with pytest.raises(ConnectionError, match="camera 0 stopped after 5 frames"), open_source(0) as source:
        for _ in source:
            pass


def test_with_skip_an_unplugged_camera_ends_and_is_noted(camera: FakeCamera) -> None:
    camera.frames = 0
    with open_source("0", on_error="skip") as source:
        assert list(source) == []
    ((name, error),) = source.problems
    assert name == "camera 0"
    assert "delivered no frame" in str(error)


def test_a_hiccup_is_no_end() -> None:
    fake = FakeCamera(frames=3)
    real_grab, calls = fake.grab, iter(range(1000))
    fake.grab = lambda: next(calls) % 2 == 1 and real_grab()  # type: ignore[method-assign]
    newest = NewestFrame(fake, "fake")
    with pytest.raises(ConnectionError, match="after 3 frames"):
        for _ in newest:
            pass


def test_close_from_another_thread_ends_a_consumer_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    hold = threading.Event()
    fake = FakeCamera(before_grab=lambda: hold.wait(5) and None)
    monkeypatch.setattr(capture, "open_live", lambda source, name: fake)
    source = open_source(0)
    got: list[Frame] = []
    consumer = threading.Thread(target=lambda: got.extend(source))
    consumer.start()
    closer = threading.Thread(target=source.close)
    closer.start()
    consumer.join(1)
    assert not consumer.is_alive()
    assert got == []
    hold.set()
    closer.join(5)
    assert fake.released.wait(3)
    source.close()


def test_leaving_a_live_source_ends_its_thread(camera: FakeCamera) -> None:
    with open_source(0) as source:
        next(iter(source))
    assert camera.released.wait(3)
    assert not [t for t in threading.enumerate() if t.name.startswith("edgepose reads") and t.is_alive()]


def test_a_live_source_keeps_one_frame_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(FakeCamera):
        def retrieve(self) -> tuple[bool, np.ndarray]:
            return True, np.ones((1000, 1000, 3), np.uint8)

    fake = Large(fps=500)
    monkeypatch.setattr(capture, "open_live", lambda source, name: fake)
    with open_source(0) as source:
        frames = iter(source)
        next(frames)
        before = resident_mb()
        time.sleep(0.5)
        next(frames)
        assert source.dropped > 20
        assert resident_mb() - before < 15


def test_a_missing_camera_names_those_there_are() -> None:
    if os.path.exists("/dev/video99"):
        pytest.skip("there is a /dev/video99")
    for source in (99, "99", "/dev/video99"):
        with pytest.raises(FileNotFoundError, match=r"no camera /dev/video99; cameras found: "):
            open_source(source)


def test_a_stream_that_does_not_answer_is_an_error_without_its_password() -> None:
    with pytest.raises(ConnectionError, match=r"rtsp://127\.0\.0\.1:9/live cannot be opened") as caught:
        open_source("rtsp://user:secret@127.0.0.1:9/live")
    assert "secret" not in str(caught.value)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


class Site(BaseHTTPRequestHandler):
    """A picture, a video, and a camera that sends MJPEG."""

    files: ClassVar[dict[str, tuple[str, bytes]]] = {}
    stop = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/camera":
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            self.stream()
            return
        if self.path not in self.files:
            self.send_error(404)
            return
        media, data = self.files[self.path]
        self.send_response(200)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self) -> None:
        for i in range(1000):
            jpeg = cv2.imencode(".jpg", level_picture(i % 250, (64, 48)))[1].tobytes()
            head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
            self.wfile.write(head + jpeg + b"\r\n")
            if self.stop.wait(0.01):
                return

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    Site.files = {
        "/a.png": ("image/png", write_picture(tmp_path / "a.png").read_bytes()),
        "/noname": ("image/png", (tmp_path / "a.png").read_bytes()),
        "/v.mp4": ("video/mp4", write_video(tmp_path / "v.mp4", frames=5).read_bytes()),
        "/clip?id=3": ("video/mp4", (tmp_path / "v.mp4").read_bytes()),
        "/page": ("text/html", b"<html>"),
    }
    Site.stop.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    Site.stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(("page", "frames"), [("a.png", 1), ("noname", 1), ("v.mp4", 5), ("clip?id=3", 5)])
def test_a_url_is_a_picture_or_a_video_by_its_ending_or_by_what_the_server_says(
    site: str, page: str, frames: int
) -> None:
    assert len(names(f"{site}/{page}")) == frames


def test_a_video_that_the_server_has_not_is_told_by_its_status(site: str) -> None:
    with pytest.raises(OSError, match="answered 404"):
        names(f"{site}/nowhere.mp4")


def test_a_page_that_is_neither_is_an_error(site: str) -> None:
    with pytest.raises(ValueError, match="no picture"):
        names(f"{site}/page")


def test_an_mjpeg_stream_is_live(site: str) -> None:
    with open_source(f"{site}/camera") as source:
        assert source.live
        frames = iter(source)
        taken = [next(frames)]
        time.sleep(0.3)
        taken += [next(frames) for _ in range(3)]
        dropped = source.dropped
    assert dropped > 3
    assert taken[1].index > 4
    assert taken[0].image.shape == (48, 64, 3)
    assert items.find_items(f"{site}/camera")[0].kind == "stream"  # type: ignore[index]
