"""ONNX files without the onnx package: told apart by, and given metadata through, their outermost protobuf fields.

Source: onnx.proto (ModelProto: 1 ir_version, 7 graph, 8 opset_import, 14 metadata_props, 20 training_info,
25 functions, 26 configuration) and the protobuf encoding documentation.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from edgepose.modelfiles.files import MAX_METADATA, write_atomically

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_GRAPH, _METADATA = 7, 14
_WIRE_TYPES = {1: _VARINT, 2: _LENGTH, 3: _LENGTH, 4: _LENGTH, 5: _VARINT, 6: _LENGTH, 7: _LENGTH, 8: _LENGTH}
_WIRE_TYPES |= {14: _LENGTH, 20: _LENGTH, 25: _LENGTH, 26: _LENGTH}
_MAX_FIELDS = 100_000


class _Field(NamedTuple):
    number: int
    start: int  # of the tag
    payload: int  # of the content
    end: int


def read_properties(path: str) -> dict[str, str]:
    """The metadata properties of a model; the graph is stepped over, not read.

    Raises ValueError where the file is not a whole ModelProto.
    """
    properties = {}
    with open(path, "rb") as file:
        for field in _fields(file):
            if field.number == _METADATA:
                key, value = _property(file, field)
                properties[key] = value
    return properties


def write_properties(path: str, properties: dict[str, str]) -> None:
    """Sets metadata properties and keeps everything else in the file byte by byte. The file changes whole or not."""
    with open(path, "rb") as file:
        fields = list(_fields(file))
        dropped = [f for f in fields if f.number == _METADATA and _property(file, f)[0] in properties]
        kept = [(field.start, field.end) for field in fields if field not in dropped]
        write_atomically(path, _rewritten(file, kept, properties))


def _rewritten(file: BinaryIO, kept: list[tuple[int, int]], properties: dict[str, str]) -> Iterator[bytes]:
    for start, end in kept:
        file.seek(start)
        while start < end:
            chunk = file.read(min(end - start, 1 << 20))
            start += len(chunk)
            yield chunk
    for key, value in properties.items():
        entry = _length_delimited(1, key.encode()) + _length_delimited(2, value.encode())
        yield _length_delimited(_METADATA, entry)


def _length_delimited(number: int, content: bytes) -> bytes:
    return _varint_bytes(number << 3 | _LENGTH) + _varint_bytes(len(content)) + content


def _varint_bytes(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number in it is cut off or too long")


def _fields(file: BinaryIO) -> Iterator[_Field]:
    """The outermost fields, each checked to be known and to lie inside the file."""
    size = os.fstat(file.fileno()).st_size
    position, has_graph = 0, False
    for _ in range(_MAX_FIELDS):
        if position == size:
            break
        field = _field(file, position, size)
        has_graph |= field.number == _GRAPH
        yield field
        position = field.end
    if position != size or not has_graph:
        raise ValueError("not a whole ONNX model: it holds no graph, or too many fields")


def _field(file: BinaryIO, start: int, size: int) -> _Field:
    file.seek(start)
    header = file.read(20)
    try:
        tag, used = _varint(header, 0)
        number, wire = tag >> 3, tag & 7
        if _WIRE_TYPES.get(number) != wire:
            raise ValueError(f"unknown field {number} of wire type {wire}")
        value, used = _varint(header, used)
    except ValueError as error:
        raise ValueError(f"damaged ONNX model: at byte {start}: {error}") from None
    end = start + used + (value if wire == _LENGTH else 0)
    if end > size:
        raise ValueError(f"truncated ONNX model: it has {size} bytes, its field {number} ends at byte {end}")
    return _Field(number, start, start + used, end)


def _property(file: BinaryIO, field: _Field) -> tuple[str, str]:
    """StringStringEntryProto: 1 key, 2 value."""
    if field.end - field.payload > MAX_METADATA:
        raise ValueError(f"got an ONNX metadata property of {field.end - field.payload} bytes, at most {MAX_METADATA}")
    file.seek(field.payload)
    data = file.read(field.end - field.payload)
    texts = {1: "", 2: ""}
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        length, position = _varint(data, position)
        if tag not in (0x0A, 0x12) or position + length > len(data):
            raise ValueError("damaged ONNX metadata property")
        texts[tag >> 3] = data[position : position + length].decode("utf-8", "replace")
        position += length
    return texts[1], texts[2]
