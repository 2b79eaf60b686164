"""OpenVINO IR: a pair of NAME.xml and NAME.bin; metadata stands in the `rt_info` at the end of the XML.

`rt_info` is read as OpenVINO's `Model.set_rt_info(text, "edgepose")` writes it, without an XML parser: the
topology before it may be megabytes that nobody needs here.
"""

from __future__ import annotations

import os
import re

from edgepose.modelfiles.files import MAX_METADATA, write_atomically

KEY = "edgepose"

_ENTRY = re.compile(rb'(?<![ \t])[ \t]*<edgepose value="([^"<]*)"\s*/>\n?')
_REFERENCE = re.compile(r"&(?:#(\d{1,7})|#x([0-9a-fA-F]{1,6})|(amp|lt|gt|quot|apos));")
_ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}


def read_rt_info(path: str) -> str | None:
    """The text that edgepose keeps in the model's rt_info, None where there is none."""
    info = _rt_info(_read_tail(path))
    match = _ENTRY.search(info)
    return _unescape(match[1].decode("utf-8", "replace")) if match else None


def write_rt_info(path: str, text: str) -> None:
    """Puts the text into the model's rt_info; the rest of the file stays byte by byte, and it changes whole or not."""
    with open(path, "rb") as file:
        data = file.read()
    head, tail = _split(data)
    tail = _ENTRY.sub(b"", tail)
    entry = f'\t\t<{KEY} value="{_escape(text)}" />\n'.encode()
    opening = tail.find(b"<rt_info>")
    if opening >= 0:
        at = opening + len(b"<rt_info>")
        tail = tail[:at] + b"\n" + entry + tail[at:].lstrip(b"\n")
    else:
        at = tail.rfind(b"</net>")
        if at < 0:
            raise ValueError(f"{path}: not a whole OpenVINO model: no </net> at its end")
        tail = tail[:at] + b"\t<rt_info>\n" + entry + b"\t</rt_info>\n" + tail[at:]
    write_atomically(path, (head, tail))


def _read_tail(path: str) -> bytes:
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * MAX_METADATA))
        return file.read()


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Up to the end of the topology, and after it: layers may hold an rt_info of their own."""
    at = max(data.rfind(b"</edges>"), data.rfind(b"</layers>"), 0)
    return data[:at], data[at:]


def _rt_info(data: bytes) -> bytes:
    tail = _split(data)[1]
    start, end = tail.find(b"<rt_info>"), tail.rfind(b"</rt_info>")
    return tail[start:end] if 0 <= start < end else b""


def _escape(text: str) -> str:
    for name, character in _ENTITIES.items():
        text = text.replace(character, f"&{name};")
    return text.replace("\n", "&#10;").replace("\r", "&#13;").replace("\t", "&#9;")


def _unescape(text: str) -> str:
    return _REFERENCE.sub(_character, text)


def _character(match: re.Match[str]) -> str:
    if match[3]:
        return _ENTITIES[match[3]]
    code = int(match[1]) if match[1] else int(match[2], 16)
    return chr(code) if 0 < code < 0x110000 and not 0xD800 <= code < 0xE000 else "\N{REPLACEMENT CHARACTER}"
