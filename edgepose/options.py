"""What is common to everything that takes options by name."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is none of the known ones; empty where none is near."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def unknown_option(name: str, known: Iterable[str], what: str = "option") -> str:
    """The message for a name that is none of the known ones: it names the nearest, or all of them."""
    from difflib import get_close_matches

    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(names)}"
    return f"unknown {what} {name!r}: {hint}"


def check_number(name: str, value: object) -> None:
    """Raises TypeError for what is no number; its range is checked where it is used."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"got {name}={value!r}, expected a number")


def check_integer(name: str, value: object) -> None:
    """Raises TypeError for what is no whole number, ValueError for one of more than 64 bits."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"got {name}={value!r}, expected a whole number")
    if abs(int(value)) >= 1 << 63:
        raise ValueError(f"got {name}={value!r}, expected a whole number below 2^63")
