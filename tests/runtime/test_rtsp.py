"""RTSP streams, from a small camera made here: MJPEG over the RTSP connection (RFC 2326 section 10.12, RFC 2435)."""

from __future__ import annotations

import io
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from edgepose.sources import Frame, open_source

pytest.importorskip("cv2")

_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 26\r\na=control:track1\r\n"
)


class RtspCamera:
    """Listens on a free port of 127.0.0.1; `picture(i)` gives frame i, (H, W, 3) RGB, sides a multiple of 16."""

    def __init__(self, picture: Callable[[int], np.ndarray], fps: float, frames: int = 10**9) -> None:
        self._picture, self._fps, self._frames = picture, fps, frames
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}/live"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        try:
            while not self._stop.is_set():
                client, _ = self._listener.accept()
                with client, client.makefile("rb") as requests:
                    while (method := self._answer(client, requests)) not in ("PLAY", ""):
                        pass
                    if method == "PLAY":
                        self._play(client)
        except OSError:
            pass  # closed, or the client went away

    def _answer(self, client: socket.socket, requests: io.BufferedReader) -> str:
        """Answers one request and returns its method, "" at the end."""
        lines = []
        while (line := requests.readline().decode().strip()) or not lines:
            if not line:
                return ""
            lines.append(line)
        method = lines[0].split()[0]
        sequence = next(line for line in lines if line.lower().startswith("cseq"))
        extra, body = "", ""
        if method == "OPTIONS":
            extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == "DESCRIBE":
            body = _SDP
            extra = f"Content-Base: {self.url}/\r\nContent-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
        elif method == "SETUP":
            extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
        elif method == "PLAY":
            extra = "Session: 1\r\n"
        client.sendall(f"RTSP/1.0 200 OK\r\n{sequence}\r\n{extra}\r\n{body}".encode())
        return method

    def _play(self, client: socket.socket) -> None:
        sequence = 0
        for i in range(self._frames):
            for packet in _packets(self._picture(i), int(i * 90000 / self._fps), sequence):
                client.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                sequence += 1
            if self._stop.wait(1 / self._fps):
                return


def _packets(picture: np.ndarray, timestamp: int, sequence: int) -> list[bytes]:
    """RTP packets of one JPEG picture, its quantization tables in the first (RFC 2435 section 3)."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=80, subsampling="4:2:0")
    jpeg = file.getvalue()
    tables, scan = _parts(jpeg)
    height, width = picture.shape[:2]
    packets = []
    for offset in range(0, len(scan), 1400):
        piece = scan[offset : offset + 1400]
        last = offset + 1400 >= len(scan)
        rtp = struct.pack(">BBHII", 0x80, 26 | (0x80 if last else 0), (sequence + len(packets)) & 0xFFFF, timestamp, 7)
        head = struct.pack(">II", offset, 1 << 24 | 255 << 16 | width // 8 << 8 | height // 8)
        quantization = struct.pack(">BBH", 0, 0, len(tables)) + tables if offset == 0 else b""
        packets.append(rtp + head + quantization + piece)
    return packets


def _parts(jpeg: bytes) -> tuple[bytes, bytes]:
    """The quantization tables (luma, chroma) and the entropy-coded scan."""
    tables, at = b"", 2
    while True:
        marker, length = struct.unpack(">HH", jpeg[at : at + 4])
        segment = jpeg[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xFFDB:
            tables += b"".join(segment[i + 1 : i + 65] for i in range(0, len(segment), 65))
        if marker == 0xFFDA:
            return tables, jpeg[at:-2]


def level_picture(i: int) -> np.ndarray:
    return np.full((96, 128, 3), 4 * i % 240, np.uint8)


def test_a_slow_consumer_of_a_stream_gets_the_newest_frame() -> None:
    taken: list[Frame] = []
    with closing(RtspCamera(level_picture, fps=50)) as camera, open_source(camera.url) as source:
        assert source.live
        for frame in source:
            taken.append(frame)
            time.sleep(0.1)  # five frames of the camera
            if len(taken) == 6:
                break
        dropped = source.dropped
    indices = [frame.index for frame in taken]
    missed = indices[-1] + 1 - len(indices)
    assert missed >= 15
    assert missed <= dropped <= missed + 10  # and those that came after the last one taken
    assert {frame.source for frame in taken} == {camera.url}
    for frame in taken:
        assert frame.image.mean() == pytest.approx(4 * frame.index % 240, abs=4)


def test_a_stream_that_ends_is_an_error_with_the_count() -> None:
    indices: list[int] = []
    with closing(RtspCamera(level_picture, fps=100, frames=40)) as camera, open_source(camera.url) as source:
        with pytest.raises(ConnectionError, match="/live stopped after 40 frames"):
            indices.extend(frame.index for frame in source)
        assert len(indices) + source.dropped == 40
    assert indices[-1] == 39
