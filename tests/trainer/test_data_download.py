"""The downloader, against a server on this machine."""

from __future__ import annotations

import hashlib
import io
import socket
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import edgepose_trainer.data.download as download_module
import numpy as np
import pytest
from edgepose_trainer.data import build_dataset, load_data_config
from edgepose_trainer.data.download import download_dataset, unpack


class Server:
    """Serves `content` at any path; cuts the first `cuts` answers after `cut_after` bytes."""

    def __init__(self) -> None:
        self.content, self.etag = b"", '"1"'
        self.ranges, self.says_length, self.status = True, True, 200
        self.cuts, self.cut_after = 0, 0
        self.location = ""
        self.requests: list[dict[str, str]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.requests.append(dict(self.headers))
                owner.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/set.zip"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        if self.location or self.status != 200:
            handler.send_response(302 if self.location else self.status)
            handler.send_header("Location", self.location)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start = 0
        asked = handler.headers.get("Range")
        if self.ranges and asked and handler.headers.get("If-Range") == self.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(self.content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.content)}")
            handler.end_headers()
            return
        body = self.content[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.says_length:
            handler.send_header("Content-Length", str(len(body)))
        handler.send_header("ETag", self.etag)
        handler.end_headers()
        if self.cuts:
            self.cuts -= 1
            body = body[: self.cut_after]
        handler.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    thread.join()
    made.http.server_close()


@pytest.fixture(autouse=True)
def own_downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEPOSE_CACHE", str(tmp_path / "cache"))


def archive(seed: int = 0) -> bytes:
    """set/images/train/{0,1}.png with labels, as a .zip."""
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for i in range(2):
            picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            file.writestr(f"set/images/train/{i}.png", cv2.imencode(".png", picture)[1].tobytes())
            file.writestr(f"set/labels/train/{i}.txt", "0 0.5 0.5 0.5 0.5 0.5 0.5 2\n")
    return buffer.getvalue()


def document(folder: Path, url: str, **extra: Any) -> dict[str, Any]:
    return {
        "path": str(folder / "set"),
        "train": "images/train",
        "names": ["p"],
        "kpt_shape": [1, 3],
        "download": {"url": url, "into": str(folder), **extra},
    }


@pytest.fixture
def data(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """data(size=…, sha256=…): the config of a set that the server has."""
    monkeypatch.chdir(tmp_path)
    server.content = archive()
    return lambda **extra: load_data_config(document(tmp_path / "data", server.url, **extra))


def leftovers(tmp_path: Path) -> list[str]:
    return [p.name for p in (tmp_path / "data").rglob("*") if p.is_file()] if (tmp_path / "data").exists() else []


def test_a_missing_dataset_is_fetched_and_trains(server: Server, data: Callable[..., Any]) -> None:
    config = data(size=len(server.content), sha256=hashlib.sha256(server.content).hexdigest())
    dataset = build_dataset(config, "train", 32)
    assert (len(dataset), len(dataset.cls), dataset.problems) == (2, 2, [])
    build_dataset(config, "train", 32)
    assert len(server.requests) == 1


def test_a_dataset_that_is_there_is_not_fetched(server: Server, data: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "data/set/images/train").mkdir(parents=True)
    assert not download_dataset(data())
    assert server.requests == []


def test_pictures_that_a_pattern_names_are_not_fetched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data/set/images").mkdir(parents=True)
    (tmp_path / "data/set/images/a.png").write_bytes(b"")
    assert not download_dataset(load_data_config(document(tmp_path / "data", server.url) | {"train": "images/*.png"}))
    assert server.requests == []


def test_only_a_download_outside_the_folder_of_the_yaml_is_refused(
    server: Server, data: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load_data_config(document(tmp_path / "data", server.url))
    with pytest.raises(ValueError, match=r"leads out of .*elsewhere: if you trust it, fetch and unpack it yourself"):
        download_dataset(config)
    assert server.requests == []
    (tmp_path / "data/set/images/train").mkdir(parents=True)
    assert not download_dataset(config)


def test_progress_reaches_the_whole(server: Server, data: Callable[..., Any]) -> None:
    seen: list[tuple[int, int]] = []
    assert download_dataset(data(), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(server.content), len(server.content))


def test_a_broken_connection_is_gone_on_with(server: Server, data: Callable[..., Any]) -> None:
    server.cuts, server.cut_after = 2, 300
    assert download_dataset(data())
    assert [r.get("Range") for r in server.requests] == [None, "bytes=300-", "bytes=600-"]


def test_what_arrived_is_kept_for_the_next_run(
    server: Server, data: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.cuts, server.cut_after = 1, 300
    monkeypatch.setattr(download_module, "ATTEMPTS", 1)
    with pytest.raises(ConnectionError, match="300 bytes are kept"):
        download_dataset(data())
    assert leftovers(tmp_path) == []
    assert download_dataset(data())
    assert server.requests[-1]["Range"] == "bytes=300-"
    assert len(build_dataset(data(), "train", 32)) == 2


def test_a_run_that_ended_after_the_last_byte_is_gone_on_with(
    server: Server, data: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download_module, "_check_hash", killed)
        with pytest.raises(KeyboardInterrupt):
            download_dataset(data())
    assert download_dataset(data())
    assert server.requests[-1]["Range"] == f"bytes={len(server.content)}-"
    assert len(build_dataset(data(), "train", 32)) == 2


@pytest.mark.parametrize("how", ["another file", "no ranges"])
def test_a_part_that_cannot_be_gone_on_with_is_fetched_anew(
    how: str, server: Server, data: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.cuts, server.cut_after = 1, 300
    monkeypatch.setattr(download_module, "ATTEMPTS", 1)
    with pytest.raises(ConnectionError):
        download_dataset(data())
    if how == "another file":
        server.content, server.etag = archive(seed=1), '"2"'
    else:
        server.ranges = False
    assert download_dataset(data())
    assert len(build_dataset(data(), "train", 32)) == 2


def test_another_size_than_the_yaml_says_is_refused(server: Server, data: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"has {len(server.content)} bytes on the server, expected 7"):
        download_dataset(data(size=7))
    assert leftovers(tmp_path) == []


def test_a_server_that_does_not_say_the_size_is_refused(server: Server, data: Callable[..., Any]) -> None:
    server.says_length = False
    with pytest.raises(ValueError, match="Content-Length"):
        download_dataset(data())


def test_another_hash_is_refused_and_deleted(server: Server, data: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"SHA-256 is .* expected 0000"):
        download_dataset(data(sha256="0" * 64))
    assert leftovers(tmp_path) == []
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_no_space_is_said_before_the_download(
    server: Server, data: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(download_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OSError, match="GiB are needed"):
        download_dataset(data())
    assert leftovers(tmp_path) == []


def test_an_error_of_the_server_is_told(server: Server, data: Callable[..., Any]) -> None:
    server.status = 404
    with pytest.raises(ConnectionError, match="answers 404"):
        download_dataset(data())


def test_a_redirect_to_a_local_file_is_refused(server: Server, data: Callable[..., Any]) -> None:
    server.location = "file:///etc/passwd"
    with pytest.raises((ValueError, ConnectionError), match=r"not http|302"):
        download_dataset(data())


def test_no_network_is_said_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/set.zip"
    with pytest.raises(
        ConnectionError, match=r"cannot be fetched .* Is there a network\? Without one, bring the archive"
    ):
        download_dataset(load_data_config(document(tmp_path / "data", url)))


@pytest.mark.parametrize(
    ("content", "message"),
    [(archive()[:-200], "not a whole .zip"), (b"<html>", "not a whole .zip")],
)
def test_what_is_no_zip_leaves_nothing(
    content: bytes, message: str, server: Server, data: Callable[..., Any], tmp_path: Path
) -> None:
    server.content = content
    with pytest.raises(ValueError, match=message):
        download_dataset(data())
    assert leftovers(tmp_path) == []


# --- unpacking


def zip_with(path: Path, name: str, content: bytes = b"x", mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("good.txt", b"good")
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        file.writestr(info, content)
    return path


@pytest.mark.parametrize("name", ["../harm.txt", "/tmp/harm.txt", "a/../../harm.txt", "..\\harm.txt", "C:harm.txt"])
def test_a_name_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outside its folder"):
        unpack(zip_with(tmp_path / "a.zip", name), tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


def test_a_link_is_refused(tmp_path: Path) -> None:
    bad = zip_with(tmp_path / "a.zip", "link", b"/etc/passwd", stat.S_IFLNK | 0o777)
    with pytest.raises(ValueError, match="neither file nor folder"):
        unpack(bad, tmp_path / "into")


def test_a_bomb_is_refused_before_it_grows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more than 100 times"):
        unpack(zip_with(tmp_path / "a.zip", "bomb", bytes(1 << 22)), tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


def test_a_damaged_member_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("good.txt", b"good")
        file.writestr("bad.txt", b"content" * 10)
    content = bytearray(path.read_bytes())
    content[content.index(b"contentcontent")] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a whole"):
        unpack(path, tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


def test_archives_fill_the_same_folders(tmp_path: Path) -> None:
    for name in ("images/a.txt", "images/b.txt"):
        unpack(zip_with(tmp_path / "a.zip", name), tmp_path / "into")
    assert sorted(p.name for p in (tmp_path / "into/images").iterdir()) == ["a.txt", "b.txt"]
    assert [p for p in (tmp_path / "into").iterdir() if p.name.startswith(".")] == []


def test_a_damaged_archive_is_fetched_anew(server: Server, data: Callable[..., Any]) -> None:
    good, damaged = server.content, bytearray(server.content)
    damaged[len("PK..") + 26 + len("set/images/train/0.png") + 8] ^= 0xFF  # in the first member's own bytes
    server.content = bytes(damaged)
    with pytest.raises(ValueError, match="not a whole"):
        download_dataset(data())
    server.content = good
    assert download_dataset(data())


def test_what_is_in_the_way_is_not_the_archives_fault(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("images/a.txt", b"a")
    (tmp_path / "into").mkdir()
    (tmp_path / "into/images").write_text("the user's own file")
    with pytest.raises(OSError, match="images"):
        unpack(tmp_path / "a.zip", tmp_path / "into")


def test_names_that_cannot_be_files_are_an_error_of_the_archive(tmp_path: Path) -> None:
    for name in ("a" * 300, "x/y"):
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x", b"a file")
            file.writestr(name, b"what cannot be beside it")
        with pytest.raises(ValueError, match="names that cannot be files"):
            unpack(path, tmp_path / "into")
