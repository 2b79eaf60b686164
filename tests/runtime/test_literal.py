from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepose.modelfiles.literal import parse_literal

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.integers(-99, 99) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner)
    ),
    max_leaves=12,
)


@given(values)
def test_what_python_prints_reads_as_what_it_was(value: Any) -> None:
    assert parse_literal(repr(value)) == ast.literal_eval(repr(value)) == value


@given(st.text(alphabet="{}[](),:'\"\\0123x.e+-TrueNone ab\n", max_size=40))
def test_any_text_gives_a_value_or_a_value_error(text: str) -> None:
    try:
        value = parse_literal(text)
    except ValueError:
        return
    assert isinstance(value, (dict, list, str, int, float, bool, type(None)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{0: 'person'}", {0: "person"}),
        ("[17, 3]", [17, 3]),
        ("(1, 2,)", [1, 2]),
        ("{'data': None, 'half': False, 'fraction': 1.0}", {"data": None, "half": False, "fraction": 1.0}),
        ("{0: \"dog's\", 1: 'a\\\\b\\'c'}", {0: "dog's", 1: "a\\b'c"}),
        ("'\\u00e9\\x41'", "éA"),
        (" -3 ", -3),
    ],
)
def test_literals_that_ultralytics_writes(text: str, value: object) -> None:
    assert parse_literal(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "print(1)",
        "1 + 1",
        "lambda: 0",
        "a",
        "[1, 2",
        "{1: }",
        "{[1]: 2}",
        "'open",
        "",
        "[1] [2]",
        "1" * 41,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"literal|expected|digits"):
        parse_literal(text)


def test_deep_nesting_is_refused_without_recursion() -> None:
    with pytest.raises(ValueError, match="nested deeper"):
        parse_literal("[" * 100_000)


def test_long_text_is_refused_before_it_is_read() -> None:
    with pytest.raises(ValueError, match="at most"):
        parse_literal("1" * (1 << 21))
