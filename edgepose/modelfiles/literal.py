"""A parser for the Python literals that Ultralytics writes into its metadata, such as "{0: 'person'}".

It builds numbers, text, lists and dicts, and nothing else: nothing is evaluated. `ast.literal_eval` would do for
honest files, but a hostile one can exhaust its stack and memory.
"""

from __future__ import annotations

import re
from typing import Any

MAX_LENGTH = 1 << 20
MAX_DEPTH = 16

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)
  | (?P<text>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
  | (?P<word>[A-Za-z]+)
  | (?P<mark>[\[\](){}:,])
  )""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)")
_SIMPLE_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
_WORDS = {"True": True, "False": False, "None": None}
_CLOSING = {"[": "]", "(": ")", "{": "}"}


def parse_literal(text: str) -> Any:
    """The value of a Python literal made of dict, list, tuple (as list), str, int, float, bool and None.

    Raises ValueError for anything else, for text over 1 MiB, and for nesting over 16 levels.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"got a literal of {len(text)} characters, expected at most {MAX_LENGTH}")
    tokens = _tokens(text)
    value, position = _value(tokens, 0, 0)
    if position != len(tokens):
        raise ValueError(f"got {tokens[position][1][:20]!r} after the end of the literal")
    return value


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise ValueError(f"got {text[position : position + 20]!r}, expected a Python literal")
        tokens.append((match.lastgroup, match[match.lastgroup]))
        position = match.end()
    return tokens


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) > 1:
        return chr(min(int(code[1:], 16), 0x10FFFF))
    return _SIMPLE_ESCAPES.get(code, "\\" + code)


def _value(tokens: list[tuple[str, str]], position: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise ValueError(f"got a literal nested deeper than {MAX_DEPTH} levels")
    if position >= len(tokens):
        raise ValueError("the literal ends too early")
    kind, token = tokens[position]
    if kind == "text":
        return _ESCAPE.sub(_unescape, token[1:-1]), position + 1
    if kind == "number":
        return _number(token), position + 1
    if kind == "word" and token in _WORDS:
        return _WORDS[token], position + 1
    if token in _CLOSING:
        return _container(tokens, position, depth)
    raise ValueError(f"got {token[:20]!r}, expected a value")


def _number(token: str) -> int | float:
    if len(token) > 40:
        raise ValueError(f"got a number of {len(token)} digits")
    return int(token) if token.lstrip("+-").isdigit() else float(token)


def _container(tokens: list[tuple[str, str]], position: int, depth: int) -> tuple[Any, int]:
    opening = tokens[position][1]
    items: list[Any] = []
    keys: list[Any] = []
    position += 1
    while True:
        if position < len(tokens) and tokens[position][1] == _CLOSING[opening] and tokens[position][0] == "mark":
            break
        item, position = _value(tokens, position, depth + 1)
        if opening == "{":
            if position >= len(tokens) or tokens[position] != ("mark", ":") or isinstance(item, (list, dict)):
                raise ValueError("expected a key and a colon in a dict literal")
            keys.append(item)
            item, position = _value(tokens, position + 1, depth + 1)
        items.append(item)
        if position < len(tokens) and tokens[position] == ("mark", ","):
            position += 1
        elif position >= len(tokens) or tokens[position] != ("mark", _CLOSING[opening]):
            raise ValueError(f"expected a comma or {_CLOSING[opening]!r}")
    return (dict(zip(keys, items, strict=True)) if opening == "{" else items), position + 1
