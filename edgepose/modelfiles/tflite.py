"""TFLite files: a FlatBuffer with the identifier TFL3, and after it, as TFLite Metadata has it, a zip of other files.

Sources: the FlatBuffers internals page, schema.fbs of TFLite (Model: 1 operator_codes; OperatorCode: 1 custom_code)
and the zip specification (APPNOTE.TXT, 4.3).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

from edgepose.modelfiles.files import MAX_METADATA, write_atomically

EDGETPU_OP = "edgetpu-custom-op"

_MAX_OPERATORS = 10_000
_MAX_MEMBERS = 1000
_MAX_TRAILER = 1 << 16
_END = b"PK\x05\x06"
_CENTRAL = b"PK\x01\x02"
_LOCAL = b"PK\x03\x04"

Buffer = bytes | mmap


class Member(NamedTuple):
    """A file in the zip after the model: where its local header is, how it is packed."""

    name: str
    header: int
    method: int
    packed: int
    size: int


def custom_operators(data: Buffer) -> list[str]:
    """The names of the custom operators in the model. Raises ValueError where the FlatBuffer is damaged."""
    names = []
    try:
        for table in _vector_of_tables(data, _offset(data, 0), 0, 1):
            text = _field(data, table, 1)
            if text:
                start = _offset(data, text)
                length = min(_u32(data, start), 256)
                names.append(bytes(data[start + 4 : start + 4 + length]).decode("utf-8", "replace"))
    except struct.error:
        raise ValueError("damaged or truncated TFLite model: its operator table points outside the file") from None
    return names


def _u32(data: Buffer, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _offset(data: Buffer, at: int) -> int:
    """Follows the relative offset stored at `at`."""
    return at + _u32(data, at)


def _field(data: Buffer, table: int, index: int) -> int:
    """Where field `index` of the table is stored, 0 where the table leaves it out."""
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    if vtable < 0:
        raise struct.error
    size = int(struct.unpack_from("<H", data, vtable)[0])
    slot = 4 + 2 * index
    relative = int(struct.unpack_from("<H", data, vtable + slot)[0]) if slot + 2 <= size else 0
    return table + relative if relative else 0


def _vector_of_tables(data: Buffer, root: int, start: int, index: int) -> Iterator[int]:
    field = _field(data, root, index)
    if not field:
        return
    vector = _offset(data, field)
    for i in range(min(_u32(data, vector), _MAX_OPERATORS)):
        yield _offset(data, vector + 4 + 4 * i)


def read_members(data: Buffer) -> dict[str, Member]:
    """The directory of the zip at the end of the file, empty where there is none or it is damaged."""
    try:
        return {member.name: member for member in _members(data)}
    except (struct.error, ValueError):
        return {}


def _end_record(data: Buffer) -> int:
    """Where the zip's end record is, -1 without one. It may be followed by a comment of up to 64 KiB."""
    start = max(0, len(data) - 22 - 65535)
    at = bytes(data[start:]).rfind(_END)
    return start + at if at >= 0 else -1


def _members(data: Buffer) -> Iterator[Member]:
    end = _end_record(data)
    if end < 0:
        return
    count, size, offset = struct.unpack_from("<HII", data, end + 10)
    shift = end - size - offset  # bytes before a zip that was made apart and then appended
    at = end - size
    if at < 0 or shift < 0 or count > _MAX_MEMBERS:
        raise ValueError("damaged zip directory")
    for _ in range(count):
        fields = struct.unpack_from("<4s6H3I5H2I", data, at)
        if fields[0] != _CENTRAL:
            raise ValueError("damaged zip directory")
        name_length, extra, comment = fields[10:13]
        name = bytes(data[at + 46 : at + 46 + name_length]).decode("utf-8", "replace")
        yield Member(name, fields[16] + shift, fields[4], fields[8], fields[9])
        at += 46 + name_length + extra + comment


def read_member(data: Buffer, member: Member) -> bytes:
    """The content of an associated file, at most MAX_METADATA bytes. Raises ValueError where it is damaged."""
    if member.size > MAX_METADATA or member.packed > MAX_METADATA:
        raise ValueError(f"got an associated file {member.name!r} of {member.size} bytes, at most {MAX_METADATA}")
    try:
        signature, name_length, extra = struct.unpack_from("<4s22xHH", data, member.header)
    except struct.error:
        signature, name_length, extra = b"", 0, 0
    start = member.header + 30 + name_length + extra
    packed = bytes(data[start : start + member.packed])
    if signature != _LOCAL or len(packed) != member.packed or member.method not in (0, 8):
        raise ValueError(f"damaged associated file {member.name!r}")
    return packed if member.method == 0 else _inflate(packed, member)


def _inflate(packed: bytes, member: Member) -> bytes:
    try:
        content = zlib.decompressobj(-15).decompress(packed, MAX_METADATA + 1)
    except zlib.error as error:
        raise ValueError(f"damaged associated file {member.name!r}: {error}") from None
    if len(content) != member.size:
        raise ValueError(f"damaged associated file {member.name!r}: {len(content)} bytes instead of {member.size}")
    return content


def trailing_json(data: Buffer) -> bytes | None:
    """A JSON object that was appended to the file as it is, without a zip."""
    tail = bytes(data[max(0, len(data) - _MAX_TRAILER) :]).rstrip()
    if not tail.endswith(b"}"):
        return None
    text = tail[tail.rfind(b"\x00") + 1 :]
    opening = re.search(rb'\{\s*"', text)
    return text[opening.start() :] if opening else None


def write_member(path: str, name: str, content: bytes) -> None:
    """Sets one associated file and keeps the model and the others. The file changes whole or not."""
    import io
    import zipfile

    with open(path, "rb") as file:
        data = file.read()
    members = read_members(data)
    kept = {other: read_member(data, member) for other, member in members.items() if other != name}
    model_end = min((member.header for member in members.values()), default=len(data))
    packed = io.BytesIO(data[:model_end])
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        for other, bytes_ in {**kept, name: content}.items():
            # Without the time of day: the same model and metadata make the same file.
            archive.writestr(zipfile.ZipInfo(other), bytes_, zipfile.ZIP_DEFLATED)
    write_atomically(path, (packed.getvalue(),))
