"""Edge TPU: the full int8 TFLite export, compiled by edgetpu_compiler where that is installed.

Which operators map: coral.ai/docs/edgetpu/models-intro, "Supported operations".
"""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from edgepose_trainer.export.formats import tflite
from edgepose_trainer.export.job import Converted, Job
from edgepose_trainer.export.registry import Format

COMPILER = "edgetpu_compiler"
TIMEOUT = 1800  # seconds; large models take minutes

MAPPED = {
    "ADD": "",
    "AVERAGE_POOL_2D": "no fused activation function",
    "CONCATENATION": "no fused activation function",
    "CONV_2D": "one dilation for both sides",
    "DEPTHWISE_CONV_2D": "one dilation for both sides",
    "EXPAND_DIMS": "",
    "FULLY_CONNECTED": "default weights format, a flat output",
    "L2_NORMALIZATION": "",
    "LOGISTIC": "",
    "LSTM": "unidirectional",
    "MAXIMUM": "",
    "MAX_POOL_2D": "no fused activation function",
    "MEAN": "no reduction along the batch; not keeping the channels alone",
    "MINIMUM": "",
    "MUL": "",
    "PACK": "no packing along the batch",
    "PAD": "no padding along the batch",
    "PRELU": "one alpha for all",
    "QUANTIZE": "",
    "REDUCE_MAX": "",
    "REDUCE_MIN": "",
    "RELU": "",
    "RELU6": "",
    "RELU_N1_TO_1": "",
    "RESHAPE": "some sizes only",
    "RESIZE_BILINEAR": "some sizes only",
    "RESIZE_NEAREST_NEIGHBOR": "some sizes only",
    "RSQRT": "",
    "SLICE": "",
    "SOFTMAX": "one dimension, at most 16,000 elements",
    "SPACE_TO_DEPTH": "",
    "SPLIT": "no splitting along the batch",
    "SQUARED_DIFFERENCE": "",
    "SQUEEZE": "only one-sized dimensions that are not used",
    "STRIDED_SLICE": "steps of 1, no ellipsis or new axis",
    "SUB": "",
    "SUM": "",
    "TANH": "",
    "TRANSPOSE": "",
    "TRANSPOSE_CONV": "",
}
"""Operators that the Edge TPU computes, and on what condition."""

_EIGHT_BITS = ("INT8", "UINT8")


def convert(job: Job) -> Converted:
    plain = tflite.convert(job)
    ready = plain.path.with_name(f"{job.name}{tflite.FORMAT.suffixes['int8']}")
    plain.path.rename(ready)
    rows = operator_report(ready)
    report = tuple(report_lines(rows))
    metadata = {**plain.metadata, "edgetpu": {"operators": rows}}
    compiler = shutil.which(COMPILER)
    if compiler is None:
        return Converted(ready, plain.input, plain.outputs, metadata, (*report, *_without_compiler(ready)))
    compiled, version = compile_for_edgetpu(ready, job.folder, compiler)
    path = job.folder / job.artifact_name
    compiled.rename(path)
    metadata["edgetpu"] |= {"compiler": version}
    return Converted(path, plain.input, plain.outputs, metadata, report, stand_in=ready)


def _without_compiler(ready: Path) -> tuple[str, ...]:
    compiled = f"{ready.stem}_edgetpu.tflite"
    copy = f"write_spec({compiled!r}, read_spec({ready.name!r}))"
    return (
        f"{COMPILER} is not installed here: {ready.name} is ready for it. On x86-64 Linux with the compiler "
        "(coral.ai/docs/edgetpu/compiler):",
        "  " + " ".join(_command(COMPILER, ready.name, ".")),
        f'  python -c "from edgepose.artifact import read_spec, write_spec; {copy}"',
    )


def _command(compiler: str, path: str, folder: str) -> list[str]:
    """-s: print the operators and where they run; -a: several subgraphs, so that all that maps is mapped."""
    return [compiler, "-s", "-a", "-o", folder, path]


def compile_for_edgetpu(path: Path, folder: Path, compiler: str) -> tuple[Path, str]:
    """Compiles NAME.tflite to folder/NAME_edgetpu.tflite; returns it and the compiler's version.

    Raises RuntimeError with what the compiler said where it fails.
    """
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=60, check=False)
    run = subprocess.run(
        _command(compiler, str(path), str(folder)), capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    print(run.stdout, run.stderr)
    compiled = folder / f"{path.stem}_edgetpu.tflite"
    if run.returncode != 0 or not compiled.is_file():
        said = (run.stderr or run.stdout).strip().splitlines()
        raise RuntimeError(f"{COMPILER} ended with {run.returncode}: {said[-1] if said else 'it said nothing'}")
    return compiled, version.stdout.strip()


def operator_report(path: Path) -> list[dict[str, Any]]:
    """For each kind of operator: how many, whether the Edge TPU computes it, and why not or on what condition."""
    counts: Counter[tuple[str, str]] = Counter()
    for name, problem in _operators(path):
        counts[name, problem] += 1
    return [
        {"operator": name, "count": count, "maps": not problem, "why": problem or MAPPED[name]}
        for (name, problem), count in sorted(counts.items())
    ]


def report_lines(rows: list[dict[str, Any]]) -> list[str]:
    """The report for a terminal."""
    total, mapped = sum(row["count"] for row in rows), sum(row["count"] for row in rows if row["maps"])
    lines = [f"Edge TPU: {mapped} of {total} operators map"]
    for row in rows:
        where = "Edge TPU" if row["maps"] else "CPU"
        lines.append(f"  {row['operator']:<24} {row['count']:>4}  {where:<8}  {row['why']}".rstrip())
    return lines


def _operators(path: Path) -> list[tuple[str, str]]:
    """Name of each operator and why it does not map, empty where it does."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    names = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    types = {number: name for name, number in vars(schema.TensorType).items() if isinstance(number, int)}
    model = flatbuffer_utils.read_model(str(path))
    graph = model.subgraphs[0]
    found = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        name = names.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")
        pictures = [graph.tensors[i] for i in (operator.inputs[0], operator.outputs[0])]
        found.append((name, _problem(name, [(types[t.type], list(t.shape)) for t in pictures])))
    return found


def _problem(name: str, tensors: list[tuple[str, list[int]]]) -> str:
    if name not in MAPPED:
        return "not an operation of the Edge TPU"
    for kind, shape in tensors:
        if kind not in _EIGHT_BITS:
            return f"a {kind.lower()} tensor; the Edge TPU computes in 8 bits"
        if len(shape) > 3 and shape[0] != 1:
            return f"a batch of {shape[0]}; the Edge TPU takes one picture at a time"
    return ""


FORMAT = Format(
    name="edgetpu",
    suffixes={"int8": "_int8_edgetpu.tflite"},
    variants="full int8",
    proven_by="report of operators; the compiler and the device were not at hand",
    arguments=("int8", "fraction", "calibration"),
    convert=convert,
    needs=tflite.FORMAT.needs,
    calibrations=tflite.FORMAT.calibrations,
)
