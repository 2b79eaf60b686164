"""Keeps what C++ runtimes write to file descriptor 2 off the terminal while they load."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHATTER = (b"INFO: ", b"WARNING: ", b"ERROR: ", b"W0000 ", b"I0000 ")
_ONNXRUNTIME = b":onnxruntime:"

_lock = threading.RLock()
_real: int | None = None  # the standard error, while it is held back


def _free_child() -> None:
    """In a child that was forked meanwhile nobody would end the holding back."""
    global _lock, _real
    _lock = threading.RLock()
    if _real is not None:
        os.dup2(_real, 2)
        _real = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_child)


@contextmanager
def quiet_stderr(verbose: bool) -> Iterator[None]:
    """Holds back the standard error of the whole process, and afterwards lets through what is not runtimes' chatter.

    One thread at a time. Another thread's lines arrive a moment late; one that looks like chatter is lost, and so is
    what comes after the first MiB. A program that another thread starts meanwhile keeps the file that holds them as its
    standard error. With `verbose` nothing is held.
    """
    global _real
    if verbose or not hasattr(os, "memfd_create"):
        yield
        return
    with _lock:
        with suppress(AttributeError, ValueError, OSError):  # None, a writer of the user's own, closed, a full disk
            sys.stderr.flush()
        try:
            real = os.dup(2)
        except OSError:  # a process without a standard error
            yield
            return
        held = os.memfd_create("edgepose-stderr", os.MFD_CLOEXEC)
        _real = real
        os.dup2(held, 2)
        try:
            yield
        finally:
            os.dup2(real, 2)
            _real = None
            _let_through(held, real)
            os.close(held)
            os.close(real)


def _let_through(held: int, real: int) -> None:
    size = os.lseek(held, 0, os.SEEK_END)
    if size == 0:
        return
    for line in os.pread(held, min(size, 1 << 20), 0).splitlines(keepends=True):
        if not line.startswith(_CHATTER) and _ONNXRUNTIME not in line:
            os.write(real, line)
