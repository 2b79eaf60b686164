"""Files as all formats need them: read within bounds, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

MAX_METADATA = 4 << 20
"""Bytes of metadata that are read from one model; more is refused before it is parsed."""


def read_bounded(path: str, limit: int = MAX_METADATA) -> bytes:
    """The whole file, which must be a regular one of at most `limit` bytes."""
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path}: got more than {limit} bytes of metadata, expected at most {limit}")
    return data


def parse_json(data: bytes | str, where: str) -> Any:
    """JSON as data: bounded in size and depth, UTF-8, no NaN or infinity. Errors name `where`."""
    if len(data) > MAX_METADATA:
        raise ValueError(f"{where}: got {len(data)} bytes of JSON, expected at most {MAX_METADATA}")
    import json

    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"{where}: the JSON is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{where}: not a JSON document: {error}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def write_atomically(path: str, chunks: Iterable[bytes]) -> None:
    """Writes a file whole or not at all. Raises OSError that names the file (no space, no permission)."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        for chunk in chunks:
            file.write(chunk)


@contextmanager
def replacing(path: str, sync: bool = True) -> Iterator[str]:
    """Gives the path of an empty file beside `path`; when the block has filled it, it takes the place of `path`.

    A link stays one, and a file that was there leaves its mode to the new one. After an error it is untouched; OSErrors
    name it. sync: waits until it is on the disk, so that it is whole after a power cut too.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        with open(temporary, "xb"):
            pass
        yield temporary
        if sync:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        if os.path.exists(target):
            os.chmod(temporary, os.stat(target).st_mode & 0o7777)
        os.replace(temporary, target)
    except BaseException as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, path) from error
        raise
