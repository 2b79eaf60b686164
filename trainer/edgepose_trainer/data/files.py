"""Files that are whole or not there, and where caches lie."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from edgepose.modelfiles.files import replacing

try:
    from lzma import LZMAError
except ImportError:  # a Python without it reads no such member either
    LZMAError = zlib.error  # type: ignore[assignment, misc]

DAMAGED_ZIP = (zipfile.BadZipFile, EOFError, zlib.error, LZMAError)
"""What reading a damaged zip file raises."""


def write_whole(path: Path, content: bytes | Callable[[BinaryIO], object], sync: bool = True) -> None:
    """Writes a file whole or not at all: readers see the old one or the new one. Folders are made. sync: also after a
    power cut; of thousands of files that takes minutes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(str(path), sync) as temporary, open(temporary, "wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content)


def cache_dir() -> Path:
    """$EDGEPOSE_CACHE, else edgepose below the user's cache folder. What lies there can be deleted at any time."""
    own = os.environ.get("EDGEPOSE_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "edgepose"
