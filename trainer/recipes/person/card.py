"""Writes the tables of docs/model-card.md from measured.json: `python trainer/recipes/person/card.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).with_name("measured.json")
PAGE = Path(__file__).parents[3] / "docs" / "model-card.md"
SHEET = PAGE.parent / "images" / "default-model.jpg"
NOT_MEASURED = "Not measured yet: `trainer/recipes/person/measure.py` fills this in.\n"

INT8, FLOAT = "default model, int8", "default model, float"
MOVENET, PEER_INT8, PEER = "MoveNet Lightning, int8", "YOLOv8n-pose, int8", "YOLOv8n-pose, float"
SETS = {"coco": "COCO", "lspet": "LSP Extended"}
FEWEST, HARDEST = 20, 5  # people that make a group worth naming; groups that are named

Measured = Mapping[str, Any]
Groups = Mapping[str, Mapping[str, Mapping[str, float]]]


def with_tables(page: str, measured: Measured | None) -> str:
    """The page with every `<!-- measured NAME --> … <!-- end -->` filled anew; None: nothing is measured yet."""
    for name, table in TABLES.items():
        text = NOT_MEASURED if measured is None else table(measured)
        pattern = rf"(<!-- measured {name} -->\n).*?(<!-- end -->)"
        page, count = re.subn(pattern, lambda m, t=text: f"{m[1]}{t}{m[2]}", page, flags=re.DOTALL)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"{PAGE.name} should have one place for the table {name!r}, it has {count}")
    return page


def model_line(measured: Measured) -> str:
    model = measured["model"]
    return f"{model['bytes'] / 1e6:.1f} MB, input {model['size']}x{model['size']}, SHA-256 `{model['sha256']}`.\n"


def goal_table(measured: Measured) -> str:
    """What the model should reach, and whether it does."""
    int8, exact = measured["accuracy"]["coco"][INT8], measured["accuracy"]["coco"][FLOAT]
    lost, time = exact["AP"] - int8["AP"], 1 / measured["latency"]["ratio"][MOVENET]
    size = measured["model"]["bytes"] / 1e6
    goals = [
        ("AP on COCO", "at least 0.200", number(int8["AP"]), int8["AP"] >= 0.2),
        ("AP lost by int8", "at most 0.010", number(lost), lost <= 0.010),
        ("OKS of large people", "at least 0.600", number(int8["OKS"]), int8["OKS"] >= 0.6),
        ("time of a `predict` / MoveNet's", "at most 2.00", f"{time:.2f}", time <= 2),
        ("file", "at most 4.0 MB", f"{size:.1f} MB", size <= 4),
    ]
    rows = ([what, goal, reached, "met" if met else "**missed**"] for what, goal, reached, met in goals)
    return markdown(["", "goal", "reached", ""], rows)


def accuracy_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    names = [name for name in next(iter(rows.values())) if any(known(row[name]) for row in rows.values())]
    return markdown(["", *names], ([model, *(number(row[name]) for name in names)] for model, row in rows.items()))


def latency_table(latency: Measured) -> str:
    rows = ([name, f"{ms:.1f}", f"{latency['ratio'][name]:.2f}"] for name, ms in latency["ms"].items())
    table = markdown(["", "ms", "its time / the default model's"], rows)
    return f"{table}\n{latency['processor']}, one thread; medians over {latency['pictures']} pictures.\n"


def failure_table(failures: Mapping[str, Groups]) -> str:
    """People of each group, and how the default model and the peer find them."""
    ours, peer = failures[INT8], failures[PEER]
    rows = (
        [title, name, f"{part['people']:g}", *how(part), *how(peer[title][name])]
        for title, parts in ours.items()
        for name, part in parts.items()
    )
    return markdown(["by", "", "people", "found", "OKS", f"{PEER}: found", "OKS"], rows)


def how(part: Mapping[str, float]) -> tuple[str, str]:
    return f"{100 * part['found']:.0f} %", number(part["OKS"])


def hardest(failures: Mapping[str, Mapping[str, Groups]]) -> str:
    """The groups of whom the fewest are found."""
    parts = sorted(every_group(failures), key=lambda group: group[1]["found"])[:HARDEST]
    return "".join(f"- {name}: {how(part)[0]} of {part['people']:g} people are found\n" for name, part in parts)


def every_group(failures: Mapping[str, Mapping[str, Groups]]) -> Iterator[tuple[str, Mapping[str, float]]]:
    for data, models in failures.items():
        for title, parts in models[INT8].items():
            for name, part in parts.items():
                if part["people"] >= FEWEST:
                    yield f"{SETS[data]}, {title}: {name}", part


def pictures(measured: Measured) -> str:
    what = "Two photos, as they are, lying, upside down, dark and small, with whom the default model finds"
    return f"![{what}](images/{SHEET.name})\n"


TABLES: dict[str, Callable[[Measured], str]] = {
    "model": model_line,
    "goals": goal_table,
    "accuracy on coco": lambda measured: accuracy_table(measured["accuracy"]["coco"]),
    "accuracy on lspet": lambda measured: accuracy_table(measured["accuracy"]["lspet"]),
    "latency": lambda measured: latency_table(measured["latency"]),
    "hardest": lambda measured: hardest(measured["failures"]),
    "failures on coco": lambda measured: failure_table(measured["failures"]["coco"]),
    "failures on lspet": lambda measured: failure_table(measured["failures"]["lspet"]),
    "pictures": pictures,
}


def known(value: float) -> bool:
    return value == value


def number(value: float) -> str:
    return f"{round(value, 3) + 0:.3f}" if known(value) else ""  # + 0: no -0.000


def markdown(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    measured = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.is_file() else None
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), measured), encoding="utf-8")
