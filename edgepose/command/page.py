"""The demo's page: a small web server that shows the newest drawn picture and how long each stage took."""

from __future__ import annotations

import io
import ipaddress
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from edgepose.shipped import ASSETS

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from edgepose.sources import Frame

_QUALITY = 80  # of the JPEG pictures
_BOUNDARY = "frame"


class Page:
    """Serves until `close`: / the page, /stream the pictures (MJPEG), /state the newest numbers (JSON).

    Only pages that were asked for by the address that it listens on get an answer: a web site elsewhere that has its
    name point here would otherwise see the camera. host: "0.0.0.0" is for everybody on the network, by any name.

    Raises OSError where the port is taken or the address is not this computer's.
    """

    def __init__(self, host: str, port: int) -> None:
        self._news = threading.Condition()
        self._jpeg, self._number, self._closed = b"", 0, False
        self._state: dict[str, Any] = {}
        self._names = _names(host)
        page = self

        class Handler(_Handler):
            owner = page

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise OSError(f"cannot serve the demo at {host}:{port} ({error}): try port=0, or another host") from error
        self._server.daemon_threads = True
        self.url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, name="edgepose demo page", daemon=True).start()

    def add(self, frame: Frame, bgr: NDArray[np.uint8]) -> None:
        """Shows a drawn picture, (H, W, 3)."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(bgr[..., ::-1]).save(buffer, "JPEG", quality=_QUALITY)
        with self._news:
            self._jpeg, self._number = buffer.getvalue(), self._number + 1
            self._news.notify_all()

    def tell(self, **state: Any) -> None:
        """Replaces the numbers beside the picture."""
        with self._news:
            self._state = state

    def state(self) -> dict[str, Any]:
        with self._news:
            return {"frames": self._number, **self._state}

    def picture_after(self, number: int) -> tuple[int, bytes] | None:
        """The newest picture and its number, once that is not `number`; None when the page is closed."""
        with self._news:
            self._news.wait_for(lambda: self._closed or self._number != number)
            return None if self._closed else (self._number, self._jpeg)

    def answers(self, host: str) -> bool:
        """Whether a request that names this host is meant for this page."""
        return self._names is None or host.rpartition(":")[0].strip("[]").lower() in self._names

    def close(self) -> list[Path]:
        with self._news:
            self._closed = True
            self._news.notify_all()
        self._server.shutdown()
        self._server.server_close()
        return []


def _names(host: str) -> set[str] | None:
    """What the page may be called by whoever asks for it; None: anything."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return {host.lower()}
    if address.is_unspecified:
        return None
    return {host, "localhost", "127.0.0.1", "::1"} if address.is_loopback else {host}


class _Handler(BaseHTTPRequestHandler):
    owner: Page

    def do_GET(self) -> None:
        if not self.owner.answers(self.headers.get("Host", "")):
            self.send_error(403, "not the address that the demo was started with")
        elif self.path == "/":
            self._send("text/html; charset=utf-8", (ASSETS / "demo.html").read_bytes())
        elif self.path == "/state":
            self._send("application/json", json.dumps(self.owner.state()).encode())
        elif self.path == "/stream":
            self._stream()
        else:
            self.send_error(404)

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        number = 0
        try:
            while (news := self.owner.picture_after(number)) is not None:
                number, jpeg = news
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")
        except ConnectionError:
            pass  # whoever looked has left

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is the user's."""
