"""Where a command writes: a folder of its own for each run, files whole or not at all."""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path


def new_run_folder(project: str, name: str, exist_ok: bool) -> Path:
    """Makes project/name, or name2, name3 … where that exists already and may not be written into."""
    for number in itertools.count(1):
        folder = Path(project) / (name if number == 1 else f"{name}{number}")
        try:
            folder.mkdir(parents=True, exist_ok=exist_ok)
        except FileExistsError:
            if not folder.is_dir() and exist_ok:
                raise
        else:
            return folder
    raise AssertionError("unreachable")


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file whole, or leaves what was there. Raises OSError naming the file (no space, no permission)."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
