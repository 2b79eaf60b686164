"""edgepose/_core.pyi says what the extension has: names, parameters and defaults.

mypy's stubtest cannot see them: to it, every function of pybind11 takes (*args, **kwargs). The extension itself tells
them in the first line of each docstring.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import edgepose
from edgepose import _core

STUB = ast.parse((Path(edgepose.__file__).parent / "_core.pyi").read_text(encoding="utf-8"))

Parameters = list[tuple[str, str, Any]]
"""(name, kind, default) of each; the default None of required ones is `...`."""


def functions(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield owner + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node.body, f"{node.name}.")


def parameters(function: ast.FunctionDef) -> Parameters:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return [
        *((a.arg, "positional", _value(d)) for a, d in zip(positional, defaults, strict=True)),
        *((a.arg, "named", _value(d)) for a, d in named),
    ]


def _value(default: ast.expr | None) -> Any:
    """Lists and tuples count as the same: pybind11 shows a std::array as a list."""
    value = ... if default is None else ast.literal_eval(default)
    return tuple(value) if isinstance(value, list) else value


def of_extension(name: str) -> ast.FunctionDef:
    found: Any = _core
    for part in name.split("."):
        found = getattr(found, part)
    (function,) = ast.parse(f"def {found.__doc__.splitlines()[0]}: ...").body
    assert isinstance(function, ast.FunctionDef)
    return function


FUNCTIONS = dict(functions(STUB.body))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_stub_has_the_parameters_and_defaults_of_the_extension(name: str) -> None:
    assert parameters(FUNCTIONS[name]) == parameters(of_extension(name))


def test_the_stub_has_the_names_of_the_extension() -> None:
    named = {node.name for node in STUB.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert named == {name for name in vars(_core) if not name.startswith("_")}
