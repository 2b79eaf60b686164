"""The demo's page over HTTP: the same requests that a browser makes; and in Chromium where it is installed."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepose.command.demo import endless, open_target, run
from edgepose.command.page import Page
from edgepose.shipped import MODEL, PICTURES
from edgepose.sources import Frame

FRAME = Frame(np.zeros((4, 6, 3), np.uint8), "BGR", "", 0)


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page("127.0.0.1", 0)
    yield page
    page.close()


def get(page: Page, path: str, host: str | None = None) -> tuple[int, bytes]:
    port = int(page.url.rstrip("/").rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_page_and_numbers(page: Page) -> None:
    page.tell(fps=12.5, people=2)
    page.add(FRAME, np.zeros((4, 6, 3), np.uint8))
    status, html = get(page, "/")
    assert status == 200
    assert b'src="stream"' in html
    assert json.loads(get(page, "/state")[1]) == {"frames": 1, "fps": 12.5, "people": 2}
    assert get(page, "/etc/passwd")[0] == 404


def test_stream_gives_each_new_picture_as_jpeg(page: Page) -> None:
    port = int(page.url.rstrip("/").rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    red = np.zeros((8, 16, 3), np.uint8)
    red[..., 2] = 255  # BGR
    page.add(FRAME, red)
    connection.request("GET", "/stream")
    answer = connection.getresponse()
    for _ in range(2):
        head = [answer.readline() for _ in range(4)]
        size = int(head[2].split(b":")[1])
        with Image.open(BytesIO(answer.read(size))) as picture:
            assert picture.size == (16, 8)
            r, g, b = picture.convert("RGB").getpixel((8, 4))  # type: ignore[misc]
        assert (r > 240, g < 20, b < 20) == (True, True, True)
        assert answer.readline() == b"\r\n"
        page.add(FRAME, red)


def test_a_site_elsewhere_that_points_its_name_here_sees_nothing(page: Page) -> None:
    assert get(page, "/state", host="evil.example:8008")[0] == 403
    assert get(page, "/state", host="localhost:8008")[0] == 200


def test_a_taken_port_is_an_error_that_says_so(page: Page) -> None:
    port = int(page.url.rstrip("/").rpartition(":")[2])
    with pytest.raises(OSError, match=f"cannot serve the demo at 127.0.0.1:{port}"):
        Page("127.0.0.1", port)


def test_without_a_screen_the_page_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    target = open_target(None, "127.0.0.1", 0)
    target.close()
    assert isinstance(target, Page)
    told = capsys.readouterr()
    assert target.url in told.out
    assert "needs a screen" in told.err
    with pytest.raises(RuntimeError, match="needs a screen"):
        open_target(False, "127.0.0.1", 0)


def test_a_source_that_is_not_there_is_told_before_any_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    if not MODEL.is_file():
        pytest.skip("the default model is not made yet")
    with pytest.raises(FileNotFoundError, match=r"nope\.mp4"):
        run(source=str(tmp_path / "nope.mp4"), page=True, port=0)
    assert capsys.readouterr().out == ""


def test_a_picture_comes_again_and_again() -> None:
    frames = endless(str(PICTURES[0]))
    assert [next(frames).source for _ in range(3)] == [str(PICTURES[0])] * 3


@pytest.fixture(params=["the default model", "MoveNet"])
def model_word(request: pytest.FixtureRequest) -> list[str]:
    """The demo's words for a model: none for the one that ships."""
    pytest.importorskip("ai_edge_litert")
    if request.param == "MoveNet":
        shared: Path = request.getfixturevalue("shared")
        return [f"model={shared / 'models' / 'movenet_single_pose_lightning_ptq.tflite'}"]
    if not MODEL.is_file():
        pytest.skip("the default model is not made yet: edgepose/assets/person.tflite")
    return []


@contextlib.contextmanager
def running_demo(model_word: list[str], source: Path) -> Iterator[str]:
    """Address of a demo in a process of its own, which must end without a word at Ctrl-C."""
    words = ["demo", *model_word, f"source={source}", "page=true", "port=0"]
    process = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
         f"from edgepose.cli import main; raise SystemExit(main({words!r}))"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, process.communicate()[1]
        yield line.split()[4]
        process.send_signal(2)
        assert process.wait(20) == 0
        assert process.communicate()[1] == ""
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_command_finds_people_until_ctrl_c(model_word: list[str]) -> None:
    with running_demo(model_word, PICTURES[1]) as url:
        port = int(url.rstrip("/").rpartition(":")[2])

        def state() -> dict[str, object]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/state")
            found: dict[str, object] = json.loads(connection.getresponse().read())
            return found

        wait_for(lambda: int(str(state()["frames"])) > 3)
        assert state()["people"] == 1
        assert set(state()["speed"]) == {"preprocess", "inference", "decode"}  # type: ignore[call-overload]


@pytest.mark.slow
def test_chromium_shows_the_video_and_the_numbers(model_word: list[str], tmp_path: Path) -> None:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    cv2, webdriver = pytest.importorskip("cv2"), pytest.importorskip("selenium.webdriver")
    video = tmp_path / "clip.avi"
    picture = cv2.imread(str(PICTURES[1]))
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 10, (512, 512))
    for shift in range(20):
        writer.write(np.roll(picture, shift, 1))
    writer.release()
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.page_load_strategy = "none"  # a stream never ends to load
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        with running_demo(model_word, video) as url:
            browser.get(url)

            def text(name: str) -> str:
                found: str = browser.execute_script(f"return document.getElementById('{name}')?.textContent ?? ''")
                return found

            wait_for(lambda: text("inference").endswith(" ms"))
            wait_for(lambda: text("people") == "1")
            assert float(text("fps")) > 1
            size = "const p = document.querySelector('img'); return [p.naturalWidth, p.naturalHeight]"
            wait_for(lambda: browser.execute_script(size) == [512, 512])
            browser.save_screenshot(str(tmp_path / "demo.png"))
            browser.get("about:blank")
    finally:
        browser.quit()
