"""Loading pictures: every kind of source and file, and what is said about those that cannot be read."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgepose import download, pictures
from edgepose.pictures import load_picture


def gradient(height: int = 6, width: int = 9) -> np.ndarray:
    """A picture in which no two pixels, and no two channels, are alike."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 20, y * 30, 255 - x * 10 - y * 10], axis=2).astype(np.uint8)


def encode(picture: Image.Image, format_name: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_name, **options)
    return file.getvalue()


def test_numpy_comes_back_as_the_same_object_with_the_order_given() -> None:
    image = gradient()
    assert load_picture(image) == (image, "BGR")
    assert load_picture(image, color="RGB")[1] == "RGB"


@pytest.mark.parametrize("format_name", ["PNG", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("kind", ["path", "text path", "bytes", "bytearray", "memoryview", "pillow"])
def test_a_lossless_picture_comes_as_rgb_whatever_the_source(format_name: str, kind: str, tmp_path: Path) -> None:
    data = encode(Image.fromarray(gradient()), format_name)
    path = tmp_path / "picture.of.anything"  # the name says nothing
    path.write_bytes(data)
    source = {
        "path": lambda: path,
        "text path": lambda: str(path),
        "bytes": lambda: data,
        "bytearray": lambda: bytearray(data),
        "memoryview": lambda: memoryview(data),
        "pillow": lambda: Image.open(path),
    }[kind]()
    image, color = load_picture(source)
    assert color == "RGB"
    np.testing.assert_array_equal(image, gradient())
    if isinstance(source, Image.Image):
        source.close()


@pytest.mark.parametrize("format_name", ["JPEG", "WEBP", "AVIF", "JPEG2000"])
def test_lossy_formats_come_as_pillow_decodes_them(format_name: str) -> None:
    Image.init()
    if format_name not in Image.SAVE:
        pytest.skip(f"this Pillow has no {format_name}")
    data = encode(Image.fromarray(gradient(64, 96)), format_name)
    np.testing.assert_array_equal(load_picture(data)[0], np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_jpeg_agrees_with_opencv(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    smooth = np.array(Image.fromarray(gradient()).resize((160, 120), Image.Resampling.BICUBIC))
    data = encode(Image.fromarray(smooth), "JPEG", quality=95)
    ours = load_picture(data)[0].astype(int)
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1].astype(int)
    assert np.abs(ours - theirs).max() <= 3  # two JPEG decoders


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_honoured(orientation: int) -> None:
    upright = gradient()
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    stored = np.ascontiguousarray(undo[orientation](upright))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image, _ = load_picture(encode(Image.fromarray(stored), "PNG", exif=exif))
    np.testing.assert_array_equal(image, upright)


def test_a_pillow_picture_stays_as_it_lies_so_that_places_are_its_own() -> None:
    picture = Image.fromarray(gradient())
    picture.getexif()[0x0112] = 6
    np.testing.assert_array_equal(load_picture(picture)[0], gradient())


def test_gray_files_come_as_two_dimensional_gray() -> None:
    gray = gradient()[:, :, 0]
    for picture in (Image.fromarray(gray), Image.merge("LA", [Image.fromarray(gray)] * 2)):
        image, color = load_picture(encode(picture, "PNG"))
        assert color == "GRAY"
        np.testing.assert_array_equal(image, gray)


def test_black_and_white_files_come_as_0_and_255() -> None:
    bits = gradient()[:, :, 0] > 80
    image, color = load_picture(encode(Image.fromarray(bits), "PNG"))
    assert color == "GRAY"
    np.testing.assert_array_equal(image, bits * 255)


def test_16_bit_gray_is_scaled_and_not_clipped() -> None:
    deep = gradient()[:, :, 0].astype(np.uint16) * 257
    for format_name in ("PNG", "TIFF"):
        image, color = load_picture(encode(Image.fromarray(deep), format_name))
        assert color == "GRAY"
        np.testing.assert_array_equal(image, gradient()[:, :, 0])


def test_alpha_is_dropped() -> None:
    rgba = np.dstack([gradient(), np.full((6, 9), 7, np.uint8)])
    image, color = load_picture(encode(Image.fromarray(rgba), "PNG"))
    assert color == "RGB"
    np.testing.assert_array_equal(image, gradient())


@pytest.mark.parametrize("transparency", [None, 3, b"\x00\x80\xff"])
def test_a_palette_becomes_colour_without_a_warning(transparency: object) -> None:
    picture = Image.fromarray(gradient()).quantize(16)
    options = {} if transparency is None else {"transparency": transparency}
    image, color = load_picture(encode(picture, "PNG", **options))
    assert color == "RGB"
    np.testing.assert_array_equal(image, np.asarray(picture.convert("RGB")))


def test_cmyk_becomes_rgb() -> None:
    picture = Image.fromarray(np.full((16, 16, 3), (200, 40, 90), np.uint8)).convert("CMYK")
    image, color = load_picture(encode(picture, "JPEG", quality=100))
    assert color == "RGB"
    assert np.abs(image.astype(int) - (200, 40, 90)).max() <= 6


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), c) for c in ((255, 0, 0), (0, 255, 0))]
    image, _ = load_picture(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    np.testing.assert_array_equal(image[0, 0], (255, 0, 0))


def test_float_and_32_bit_levels_are_refused() -> None:
    for picture in (Image.new("F", (4, 4), 0.5), Image.new("I", (4, 4), 1 << 20)):
        with pytest.raises(ValueError, match="scale it to 8 bits"):
            load_picture(encode(picture, "TIFF"))


def test_a_missing_file_is_named_with_the_folder() -> None:
    with pytest.raises(FileNotFoundError, match=r"no picture 'nowhere\.jpg' \(in "):
        load_picture("nowhere.jpg")


def test_a_folder_says_what_takes_folders(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="stream"):
        load_picture(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"these are words, not a picture", "no picture that can be read"),
        (b"\0\0\0\x18ftypmp42", "is a video"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "no picture that can be read"),
    ],
    ids=["empty", "text", "video", "postscript"],
)
def test_a_file_that_is_no_picture_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "it.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_picture(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_a_truncated_file_is_a_value_error_that_names_it(format_name: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(Image.fromarray(noise), format_name)
    path = tmp_path / "cut"
    for size in (12, 40, len(data) // 2, len(data) * 9 // 10):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"damaged or cut short|no picture") as caught:
            load_picture(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's about damaged metadata
def test_bit_flips_give_a_picture_or_a_value_error(format_name: str) -> None:
    rng = np.random.default_rng(1)
    data = encode(Image.fromarray(gradient(40, 40)), format_name)
    for _ in range(60):
        flipped = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            flipped[at] ^= 1 << int(rng.integers(8))
        try:
            image, _ = load_picture(flipped)
        except ValueError:
            continue
        assert image.dtype == np.uint8


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    data = bytearray(encode(Image.new("1", (8, 8)), "PNG"))
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(ValueError, match=r"pixels"):
        load_picture(data)


def test_a_text_bomb_in_a_png_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    data = encode(Image.fromarray(gradient()), "PNG")
    text = b"zTXtComment\0\0" + zlib.compress(bytes(5_000_000))
    chunk = (len(text) - 4).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    with pytest.raises(ValueError, match=r"a\.png is damaged"):
        load_picture(tmp_path / "a.png")


def test_a_pillow_picture_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 50)
    with pytest.raises(ValueError, match="9x6, more than 50 pixels"):
        load_picture(Image.fromarray(gradient()))


def test_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="got int"):
        load_picture(3)  # type: ignore[arg-type]


def test_files_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.fromarray(gradient()), "PNG"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        load_picture(path)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


class Site(BaseHTTPRequestHandler):
    """Serves `picture` in well-behaved and hostile ways."""

    picture = encode(Image.fromarray(gradient()), "PNG")
    stop = threading.Event()

    def do_GET(self) -> None:
        name = self.path.strip("/").split("/")[0].replace("-", "_").split(".")[0]
        getattr(self, name, self.missing)()

    def answer(self, data: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for header, value in headers.items():
            self.send_header(header.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def missing(self) -> None:
        self.send_error(404)

    def good(self) -> None:
        self.answer(self.picture, len(self.picture), Content_Type="image/png")

    def locked(self) -> None:
        if self.headers.get("Authorization") == f"Basic {base64.b64encode(b'us@er:p@ss').decode()}":
            self.good()
        else:
            self.send_error(401)

    def short(self) -> None:
        self.answer(self.picture[:50], len(self.picture))

    def huge(self) -> None:
        self.answer(b"", 10**9)

    def endless(self) -> None:
        self.answer(b"")
        while not self.stop.is_set():
            self.wfile.write(bytes(1 << 16))

    def drip(self) -> None:
        self.answer(b"")
        while not self.stop.wait(0.05):
            self.wfile.write(b"x")

    def slow_head(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n")
        while not self.stop.wait(0.05):
            self.wfile.write(b"x")

    def redirect(self, to: str) -> None:
        self.send_response(302)
        self.send_header("Location", to)
        self.end_headers()

    def moved(self) -> None:
        self.redirect("/good")

    def moved_locked(self) -> None:
        self.redirect("/locked")

    def round_and_round(self) -> None:
        step = int(self.path.rsplit("/", 1)[-1]) + 1
        self.redirect(f"/round-and-round/{step}")

    def to_file(self) -> None:
        self.redirect("file:///etc/passwd")

    def to_ftp(self) -> None:
        self.redirect("ftp://127.0.0.1/a")

    def text(self) -> None:
        self.answer(b"<html>no picture here, sorry</html>")

    def log_message(self, format: str, *args: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client hung up, as some tests want
            super().handle()


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    Site.stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_url_is_loaded(site: str) -> None:
    for page in ("good", "moved"):
        image, color = load_picture(f"{site}/{page}")
        assert color == "RGB"
        np.testing.assert_array_equal(image, gradient())


@pytest.mark.parametrize(
    ("page", "error", "message"),
    [
        ("nothing", OSError, "404"),
        ("short", OSError, "ended after 50 of"),
        ("huge", ValueError, "larger than 50 MB"),
        ("round-and-round/0", OSError, "302"),
        ("to-file", OSError, "file:///etc/passwd"),
        ("to-ftp", ValueError, "not http"),
        ("text", ValueError, "no picture"),
    ],
)
def test_a_bad_url_is_an_error_that_names_it(site: str, page: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        load_picture(f"{site}/{page}")
    assert f"{site}/{page}".split("/0")[0] in str(caught.value)


def test_an_endless_document_ends_at_the_size_limit(site: str) -> None:
    with pytest.raises(ValueError, match="larger than 1 MB"):
        download.fetch(f"{site}/endless", max_bytes=1_000_000)


@pytest.mark.parametrize("page", ["drip", "slow-head"])
def test_a_server_that_drips_ends_at_the_time_limit(site: str, page: str) -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"within 0\.4 s"):
        download.fetch(f"{site}/{page}", timeout_s=0.4)
    assert time.monotonic() - start < 2


def test_a_server_that_is_not_there_is_an_os_error() -> None:
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:9/a\.jpg cannot be fetched"):
        load_picture("http://127.0.0.1:9/a.jpg")


def test_only_http_is_fetched() -> None:
    for url in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        with pytest.raises(FileNotFoundError):
            load_picture(url)
        with pytest.raises((ValueError, OSError), match="http"):
            download.fetch(url)


def test_the_content_type_is_asked_for(site: str) -> None:
    assert download.content_type(f"{site}/good") == "image/png"
    assert download.content_type(f"{site}/text") == ""


def test_a_password_in_a_url_is_sent_and_not_shown(site: str) -> None:
    url = site.replace("://", "://us%40er:p@ss@")
    image, _ = load_picture(f"{url}/locked")
    np.testing.assert_array_equal(image, gradient())
    assert download.content_type(f"{url}/locked") == "image/png"
    for page in ("nothing", "text"):
        with pytest.raises((OSError, ValueError)) as caught:
            load_picture(f"{url}/{page}")
        assert site in str(caught.value)
        assert "ss@" not in str(caught.value)
    assert pictures.without_password(f"{url}/a@b?c@d") == f"{site}/a@b?c@d"
    image, _ = load_picture(f"{url}/moved-locked")
    np.testing.assert_array_equal(image, gradient())
    for other in (f"{site}/proxy?u=http://me@there/x.jpg", f"{site}/thumb/https://@scope/x"):
        assert pictures.without_password(other) == other
