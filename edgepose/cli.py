"""The `edgepose` command: finds the verb, reads its `key=value` words, calls the one function behind it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from edgepose.command.pipe import mute
from edgepose.command.registry import TASKS, find_verb, verb_names
from edgepose.command.verbs import UsageError, parse_options
from edgepose.options import unknown_option

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
_HELP = ("help", "--help", "-h")
_FAILURES = (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit code: 0, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names of any bytes, terminals of any encoding
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except UsageError as error:
        return _complain(error, EXIT_USAGE)
    except KeyboardInterrupt:
        return _complain("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        mute(sys.stdout)
        return EXIT_FAILURE
    except _FAILURES as error:
        if os.environ.get("EDGEPOSE_TRACEBACK"):
            raise
        return _complain(error, EXIT_FAILURE)


def _run(words: list[str]) -> int:
    if words and words[0] in ("--version", "-V", "version"):
        return _print_version()
    if not words or words[0] in _HELP:
        return _print_help(words[1:])
    name, rest = _take_verb(words)
    if any(word in _HELP for word in rest):
        return _print_help([name])
    verb = find_verb(name, models=[word[6:] for word in rest if word.startswith("model=")])
    return verb(**parse_options(verb, rest))


def _take_verb(words: list[str]) -> tuple[str, list[str]]:
    """The verb and its words, without the task word: `pose predict …`, `predict pose …` and `predict task=pose …`."""
    words = _without_task(words)
    name = words[0] if words else ""
    if name not in verb_names():
        raise UsageError(unknown_option(name, verb_names(), "verb") if name else "no verb; see: edgepose help")
    return name, words[1:]


def _without_task(words: list[str]) -> list[str]:
    for word in words:
        if word.startswith("task=") and word[5:] not in TASKS:
            raise UsageError(f'{word}: edgepose knows the task "{TASKS[0]}" alone')
    position = next((i for i, word in enumerate(words[:2]) if word in TASKS), None)
    return [word for i, word in enumerate(words) if i != position and not word.startswith("task=")]


def _print_version() -> int:
    import edgepose

    print(edgepose.__version__)
    return 0


def _print_help(topic: list[str]) -> int:
    from edgepose.command.usage import overview, verb_help

    topic = [word for word in topic if word not in TASKS]
    print(verb_help(find_verb(_take_verb(topic)[0])) if topic else overview())
    return 0


def _complain(what: Any, code: int) -> int:
    if isinstance(what, OSError) and what.strerror and what.filename:
        what = f"{os.fsdecode(what.filename)}: {what.strerror}"
    print(f"edgepose: {str(what) or type(what).__name__}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
