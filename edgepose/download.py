"""A bounded HTTP download: so many bytes, so many seconds, so many redirects, and nothing but http(s)."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import IO, Any

from edgepose.pictures import is_url, split_password

MAX_BYTES = 50_000_000
TIMEOUT_S = 20.0
MAX_REDIRECTS = 5
_CHUNK = 1 << 16


def fetch(url: str, *, max_bytes: int = MAX_BYTES, timeout_s: float = TIMEOUT_S) -> bytes:
    """The document at an http(s) URL.

    Raises ValueError for another scheme, a document larger than max_bytes and one that ends early; TimeoutError
    when not all of it arrived in timeout_s seconds; OSError when the server cannot be reached or answers with an error.
    A name and password in the URL are sent as HTTP's basic authentication, and named in no message.
    """
    request, url = _request(url)
    with _Deadline(timeout_s) as deadline:
        try:
            with _opener(deadline).open(request, timeout=timeout_s) as response:
                data = _read(response, url, max_bytes, deadline)
        except (OSError, http.client.HTTPException) as error:
            if not deadline.passed:
                raise _readable(error, url) from error
    if deadline.passed:  # a connection that was shut down can look like a complete answer
        raise TimeoutError(f"{url} did not arrive within {timeout_s:g} s")
    return data


def content_type(url: str, *, timeout_s: float = TIMEOUT_S) -> str:
    """The media type that the server gives for the URL, "" if none; the document is not read. Raises as `fetch`."""
    request, url = _request(url)
    with _Deadline(timeout_s) as deadline:
        try:
            with _opener(deadline).open(request, timeout=timeout_s) as response:
                return str(response.headers.get_content_type()) if response.headers.get("Content-Type") else ""
        except (OSError, http.client.HTTPException) as error:
            raise _readable(error, url) from error


def _request(url: str) -> tuple[urllib.request.Request, str]:
    """What is asked for, and the URL without its password."""
    bare, password = split_password(url)
    if not is_url(url):
        raise ValueError(f"{bare!r} is no http or https URL")
    request = urllib.request.Request(bare)
    if bare != url:
        words = urllib.parse.unquote(password)
        words += "" if ":" in words else ":"
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(words.encode()).decode()}")
    return request, bare


def _read(response: Any, url: str, max_bytes: int, deadline: _Deadline) -> bytes:
    expected = response.length  # None when the server does not say
    too_large = f"{url} is larger than {max_bytes / 1e6:g} MB; download it and give its path"
    if expected is not None and expected > max_bytes:
        raise ValueError(too_large)
    data = bytearray()
    while not deadline.passed and (chunk := response.read(_CHUNK)):
        data += chunk
        if len(data) > max_bytes:
            raise ValueError(too_large)
    if expected is not None and len(data) < expected:
        raise ConnectionError(f"{url} ended after {len(data)} of {expected} bytes")
    return bytes(data)


def _readable(error: Exception, url: str) -> Exception:
    """The error as one that names the URL."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return OSError(f"{url} answered {error.code} {error.reason}")
    if isinstance(error, TimeoutError):
        return TimeoutError(f"{url} did not answer in time")
    if isinstance(error, urllib.error.URLError):
        return OSError(f"{url} cannot be fetched: {error.reason}")
    return error if url in str(error) else OSError(f"{url} cannot be fetched: {error!r}")


class _Deadline:
    """Shuts the connections down when the time is over: a socket's own timeout starts again with every byte."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._shut_down)
        self._timer.daemon = True

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._ends

    def watch(self, connection: socket.socket) -> None:
        self._sockets.append(connection)
        if self.passed:  # the timer has looked already
            self._shut_down()

    def _shut_down(self) -> None:
        for connection in self._sockets:
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.lower().startswith(("http://", "https://")):
            fp.close()
            raise ValueError(f"{req.full_url} leads to {newurl!r}, which is not http(s)")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        password = req.unredirected_hdrs.get("Authorization")
        if request is not None and password is not None and (request.type, request.host) == (req.type, req.host):
            request.add_unredirected_header("Authorization", password)
        return request


def _opener(deadline: _Deadline) -> urllib.request.OpenerDirector:
    """An opener that knows http and https only (urllib's own reads local files and ftp too)."""

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            deadline.watch(self.sock)

    class SecureConnection(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            deadline.watch(self.sock)

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Connection, req)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(SecureConnection, req)

    opener = urllib.request.OpenerDirector()  # answers None for any other scheme
    for handler in (
        urllib.request.ProxyHandler(),
        Http(),
        Https(),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "edgepose"), ("Accept", "*/*")]
    return opener
