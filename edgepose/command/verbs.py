"""What a verb of the command is, and how its `key=value` words become arguments.

Both halves of edgepose declare their verbs with these: `edgepose.command.registry` here, `edgepose_trainer.cli.VERBS`
(a dict of name to `Verb`) there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edgepose.options import unknown_option


class UsageError(ValueError):
    """The words of a command make no sense: an unknown verb or key, a missing or unreadable value. Exit code 2."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of value: what help calls it, and how its text is read (`parse` raises ValueError for what it is not)."""

    label: str
    parse: Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Option:
    """One `name=value`. default: what the verb does without it, as help shows it; the function itself has the real one.

    repeated: `name=a name=b` (and, where `kind` reads lists, `name=a,b`) gives a list.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    repeated: bool = False
    required: bool = False


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb. run: "module:function", imported when the verb is used; it gets the options given, by name, and
    returns the exit code. extra: the pip extra that brings what `run` imports."""

    name: str
    summary: str
    run: str
    options: tuple[Option, ...]
    examples: tuple[str, ...] = ()
    extra: str = ""

    def __call__(self, **arguments: Any) -> int:
        """Runs the verb. Raises ImportError naming the extra where a module that it needs is missing."""
        try:
            return self.load()(**arguments)
        except ModuleNotFoundError as error:
            if not self.extra or error.name is None:
                raise
            raise ImportError(
                f'"edgepose {self.name}" needs {error.name}, which is not installed: '
                f'pip install "edgepose[{self.extra}]"'
            ) from error

    def load(self) -> Callable[..., int]:
        module, _, function = self.run.partition(":")
        loaded: Callable[..., int] = getattr(import_module(module), function)
        return loaded


def _flag(text: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in values:
        raise ValueError
    return values[text.lower()]


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.strip("[]() ").split(",")]


def _size(text: str) -> int | tuple[int, int]:
    numbers = _integers(text)
    if len(numbers) > 2:
        raise ValueError
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _words(text: str) -> list[str]:
    words = [part.strip() for part in text.strip("[]() ").split(",")]
    if not all(words):
        raise ValueError
    return words


TEXT = Kind("text", str)
BOOL = Kind("true|false", _flag)
INT = Kind("integer", int)
FLOAT = Kind("number", _number)
INTS = Kind("integer,…", _integers)
SIZE = Kind("integer or height,width", _size)
WORDS = Kind("word,…", _words)


def one_of(*choices: str) -> Kind:
    """One word of a closed set."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return Kind("|".join(choices), parse)


def parse_options(verb: Verb, words: Sequence[str]) -> dict[str, Any]:
    """The arguments that `key=value` words give to a verb.

    Raises UsageError for a word that is not key=value, an unknown or doubled key, an unreadable value, a missing key.
    """
    known = {option.name: option for option in verb.options}
    arguments: dict[str, Any] = {}
    for word in words:
        key, value = _split(verb, word)
        option = known.get(key)
        if option is None:
            raise UsageError(f"{verb.name}: {unknown_option(key, known)}")
        _add(arguments, option, _value(option, value))
    missing = [option.name for option in verb.options if option.required and option.name not in arguments]
    if missing:
        raise UsageError(f'"{verb.name}" needs {missing[0]}=…; see: edgepose help {verb.name}')
    return arguments


def _split(verb: Verb, word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    name = key.lstrip("-").replace("-", "_")
    if not equals:
        raise UsageError(f'options of "{verb.name}" are key=value, got "{word}"; {_meant(verb, name, word)}')
    if not value:
        raise UsageError(f'"{name}=" has no value (no space around the equals sign)')
    return name, value


def _meant(verb: Verb, name: str, word: str) -> str:
    known = [option.name for option in verb.options]
    if name in known:
        return f"write {name}=…"
    return f"write source={word}" if "source" in known else "quote a value that holds a space"


def _value(option: Option, text: str) -> Any:
    if option.default is None and text.lower() in ("none", "null"):
        return None
    try:
        return option.kind.parse(text)
    except UsageError:
        raise
    except ValueError:
        raise UsageError(f"{option.name}={text}: expected {option.kind.label}") from None


def _add(arguments: dict[str, Any], option: Option, value: Any) -> None:
    if option.repeated:
        values = value if isinstance(value, list) else [value]
        arguments.setdefault(option.name, []).extend(values)
    elif option.name in arguments:
        raise UsageError(f'"{option.name}" is given twice')
    else:
        arguments[option.name] = value
