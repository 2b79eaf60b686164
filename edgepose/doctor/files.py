"""Reads the kernel's small text files under a root that tests can choose."""

from __future__ import annotations

import os
from pathlib import Path


class Files:
    """The file system below `root`. Nothing here raises: a file that is missing or unreadable reads as None."""

    def __init__(self, root: str | os.PathLike[str] = "/") -> None:
        self.root = Path(root)

    def text(self, path: str) -> str | None:
        """The file's text without white space and NUL bytes around it (device-tree strings end with one)."""
        try:
            return (self.root / path).read_bytes().decode("utf-8", "replace").strip(" \t\r\n\0")
        except OSError:
            return None

    def integer(self, path: str, base: int = 10) -> int | None:
        text = self.text(path)
        try:
            return None if text is None else int(text, base)
        except ValueError:
            return None

    def glob(self, pattern: str) -> list[str]:
        """Paths below the root that match, sorted with numbers in order (cpu2 before cpu10)."""
        found = [str(path.relative_to(self.root)) for path in self.root.glob(pattern)]
        return sorted(found, key=lambda path: (len(path), path))

    def exists(self, path: str) -> bool:
        return (self.root / path).exists()

    def access(self, path: str) -> bool:
        """Whether this user may read and write it."""
        return os.access(self.root / path, os.R_OK | os.W_OK)
