"""Where a command writes: a folder of its own for each run."""

from __future__ import annotations

import itertools
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
        except OSError as error:
            text = f"{error.strerror}; project=FOLDER puts results elsewhere"
            raise OSError(error.errno, text, str(folder)) from error
        else:
            return folder
    raise AssertionError("unreachable")
