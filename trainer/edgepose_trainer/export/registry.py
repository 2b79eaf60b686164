"""The formats that a model can be exported to. Each is one file of `edgepose_trainer.export.formats` that ends in a
`FORMAT`; a new one is such a file and its name in `_FILES`.

Nothing heavy is imported here or at the top of those files: the table of formats is printed without a converter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepose.options import unknown_option

if TYPE_CHECKING:
    from edgepose.artifact import Artifact
    from edgepose.contract import ModelSpec
    from edgepose_trainer.export.job import Converted, Job

# In the order of the table.
_FILES = (
    "torchscript",
    "onnx",
    "openvino",
    "tflite",
    "edgetpu",
    "saved_model",
    "pb",
    "tfjs",
    "paddle",
    "coreml",
    "ncnn",
    "executorch",
    "engine",
)

COMMON_ARGUMENTS = ("imgsz", "data", "out", "verify")
"""Arguments that every format takes."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    suffixes: what is put after the checkpoint's name, for each precision ("float32", "float16", "int8", "mixed",
    "dynamic").
    variants, proven_by: for the table: what it can be made as, and what runs it in edgepose.
    arguments: those it takes beside COMMON_ARGUMENTS. needs: modules that it imports, needs_for_int8: for static int8
    beside those; extra: the pip extra with them.
    calibrations: ways to find the ranges of a static int8 export.
    convert: makes the file or folder in the job's folder. open(path, device): opens it where the device half has no
    backend for it, else None. write_spec, read_spec: put the metadata in and get at them; None: as
    `edgepose.artifact.write_spec` and `read_spec` do. comparison_device: what a format with its own `open` is compared
    with the checkpoint on.
    not_run: why nothing here runs it (empty: something does), said in place of a verification.
    deploy: what to do with it on the device, where it is called {name}.
    """

    name: str
    suffixes: Mapping[str, str]
    variants: str
    proven_by: str
    arguments: tuple[str, ...]
    convert: Callable[[Job], Converted]
    needs: tuple[str, ...] = ()
    needs_for_int8: tuple[str, ...] = ()
    extra: str = "export"
    layouts: tuple[str, ...] = ("edgepose",)
    calibrations: tuple[str, ...] = ("auto", "minmax", "percentile")
    open: Callable[[Path, str], Artifact] | None = None
    write_spec: Callable[[Path, ModelSpec], None] | None = None
    read_spec: Callable[[Path], ModelSpec] | None = None
    comparison_device: str = "cpu"
    not_run: str = ""
    deploy: str = 'pip install edgepose, PoseRunner("{name}")'

    @property
    def precisions(self) -> tuple[str, ...]:
        return tuple(self.suffixes)

    def missing(self, precision: str = "float32") -> list[str]:
        """The modules that are not installed here and that an export in this precision needs."""
        needed = self.needs + (self.needs_for_int8 if precision == "int8" else ())
        return [name for name in needed if find_spec(name) is None]


@cache
def formats() -> dict[str, Format]:
    """All formats by name, in the order of the table."""
    loaded = [import_module(f"edgepose_trainer.export.formats.{name}").FORMAT for name in _FILES]
    return {entry.name: entry for entry in loaded}


def find_format(name: str) -> Format:
    """The format of that name. Raises ValueError naming the nearest."""
    known = formats()
    if name not in known:
        raise ValueError(unknown_option(str(name), list(known), "format"))
    return known[name]


def format_of_artifact(path: Path) -> Format | None:
    """The format whose own backend opens this file or folder; None where the device half does, or nothing."""
    name = path.name.lower()
    for entry in formats().values():
        if entry.open is not None and any(name.endswith(suffix) for suffix in entry.suffixes.values()):
            return entry
    return None


def format_rows() -> list[dict[str, Any]]:
    """The table of formats: format, file, variants, arguments, proven_by."""
    return [
        {
            "format": entry.name,
            "file": ", ".join(dict.fromkeys(entry.suffixes.values())),
            "variants": entry.variants,
            "arguments": ", ".join((*COMMON_ARGUMENTS, *entry.arguments)),
            "proven by": entry.proven_by,
        }
        for entry in formats().values()
    ]


def format_table() -> str:
    """The table for a terminal."""
    shared = f"all take {', '.join(COMMON_ARGUMENTS)}"
    rows = [[row["format"], row["file"], row["variants"], row["proven by"]] for row in format_rows()]
    lines = _aligned([["format", "file (after the checkpoint's name)", "variants", "proven by"], *rows])
    own = _aligned([[entry.name, ", ".join(entry.arguments)] for entry in formats().values()])
    return "\n".join([*lines, "", f"arguments ({shared}):", *own])


def markdown_table() -> str:
    """The table for the docs."""
    head = "| format | file | variants | arguments beside " + ", ".join(COMMON_ARGUMENTS) + " | proven by |"
    lines = [head, "|---|---|---|---|---|"]
    for entry in formats().values():
        files = ", ".join(f"`{suffix}`" for suffix in dict.fromkeys(entry.suffixes.values()))
        cells = (f"`{entry.name}`", files, entry.variants, ", ".join(entry.arguments), entry.proven_by)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
