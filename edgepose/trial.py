"""Tries a model that was not seen before in a child process, since a damaged one can end the process that loads it.

TFLite does die on some damaged files (an abort or a segmentation fault, where other runtimes raise); so a model whose
content is new is loaded and run once there on zeros. The verdict is kept by the hash of the content and the version
of the runtime, in $EDGEPOSE_CACHE, else $XDG_CACHE_HOME/edgepose, else ~/.cache/edgepose: a known model starts at once.
"""

from __future__ import annotations

import os
import sys
from mmap import mmap

TIME_LIMIT = 120.0
"""Seconds that the child may take to load the model and to run it once."""

_CHILD = "import sys; sys.path[:] = sys.argv[2:]; from edgepose.trial import run_here; run_here(sys.argv[1])"
_REFUSED = 3
_FAULTS = (4, 5, 6, 7, 8, 11)  # SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV: the model's doing
_CRASHED = "crashed"
_GOOD = "good"
_UNTRIED = "untried"


def cache_folder() -> str:
    """Where verdicts are kept; the folder may not exist yet."""
    named = os.environ.get("EDGEPOSE_CACHE")
    if named:
        return named
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "edgepose")


def ensure_survivable(path: str, content: mmap | bytes, runtime: str) -> None:
    """Returns where loading and running the model does not end the process; tries it in a child if that is not known.

    content: the bytes of the file, which the verdict is kept by; runtime: name and version of what will load it.
    Raises ValueError for a model that crashes the runtime, or that the runtime refuses in the child.
    """
    place = _verdict_path(content, runtime)
    verdict = _read(place)
    if verdict is None:
        verdict = _try_in_child(path)
        if verdict == _GOOD or verdict.startswith(_CRASHED):
            _write(place, verdict)
    if verdict not in (_GOOD, _UNTRIED):
        detail = f"the TFLite runtime ({runtime}) {verdict}" if verdict.startswith(_CRASHED) else verdict
        raise ValueError(f"{path}: damaged or unsupported TFLite model: {detail}; get or export the file again")


def _verdict_path(content: mmap | bytes, runtime: str) -> str:
    try:
        from _blake2 import blake2b  # hashlib's own, without the OpenSSL that hashlib loads with it (2 ms)
    except ImportError:
        from hashlib import blake2b

    name = f"{blake2b(content, digest_size=32).hexdigest()}-{runtime}-{os.uname().machine}"
    return os.path.join(cache_folder(), "trials", name)


def _read(place: str) -> str | None:
    try:
        with open(place, encoding="utf-8") as file:
            verdict = file.read(200)
    except (OSError, UnicodeDecodeError):
        return None
    return verdict if verdict == _GOOD or verdict.startswith(_CRASHED) else None


def _write(place: str, verdict: str) -> None:
    """Keeps the verdict; where the cache cannot be written the next start tries the model again."""
    from edgepose.modelfiles.files import write_atomically

    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        write_atomically(place, [verdict.encode()])
    except OSError:
        return


def _try_in_child(path: str) -> str:
    """good, "crashed …", what the runtime says against the model, or untried where no child can be started.

    A child cannot be started from an embedded interpreter, nor where the system refuses to run one (an emulator, a
    sandbox); the model is then loaded without a trial, and the next start tries again.
    """
    import subprocess

    if not sys.executable:
        return _UNTRIED
    command = [sys.executable, "-c", _CHILD, os.path.abspath(path), *sys.path]
    try:
        child = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_LIMIT)
    except OSError:
        return _UNTRIED
    except subprocess.TimeoutExpired:
        return f"it was not loaded and run once within {TIME_LIMIT:.0f} seconds"
    if child.returncode == 0:
        return _GOOD
    if child.returncode == _REFUSED:
        return child.stdout.decode("utf-8", "replace").strip()[-500:] or "refused by the runtime"
    if -child.returncode in _FAULTS:
        return f"{_CRASHED} on it (signal {-child.returncode})"
    if child.returncode < 0:
        return f"the trial was ended by signal {-child.returncode}; was there too little memory?"
    return "the trial in a child process failed: " + child.stderr.decode("utf-8", "replace").strip()[-300:]


def run_here(path: str) -> None:
    """The child: loads the model on the CPU and runs it once on zeros, then leaves without cleaning up."""
    from edgepose.backends.base import Options
    from edgepose.backends.tflite import TfliteBackend

    _limit_resources()
    try:
        backend = TfliteBackend(path, Options())
        shape = tuple(side or 32 for side in backend.inputs[0].shape)
        buffer = backend.input_buffer(shape)
        buffer[...] = 0
        for output in backend.infer():
            output.sum()
    except Exception as error:
        print(str(error).removeprefix(f"{path}: "))
        sys.stdout.flush()
        os._exit(_REFUSED)
    os._exit(0)


def _limit_resources() -> None:
    """No core file, and no more memory than the machine has: a damaged model may ask for any amount."""
    try:
        import resource
    except ImportError:
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
