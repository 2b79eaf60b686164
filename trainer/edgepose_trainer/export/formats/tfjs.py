"""TensorFlow.js, for browsers: the frozen graph as JSON beside its weights, in float32 or uint8.

The files are those of a tfjs graph model (tensorflow/tfjs, tfjs-converter): `model.json` with the graph, whose
constants are empty, and a manifest that says where each constant's bytes stand, and for uint8 its scale and minimum.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepose.artifact import Artifact
from edgepose.modelfiles.files import parse_json, read_bounded
from edgepose_trainer.export.artifacts import (
    SpecBackend,
    check_cpu,
    import_runtime,
    opened,
    read_metadata,
    write_metadata,
)
from edgepose_trainer.export.job import Converted, Job
from edgepose_trainer.export.registry import Format
from edgepose_trainer.export.tensorflow import build_function, frozen_graph, graph_runner

_MODEL, _WEIGHTS = "model.json", "group1-shard1of1.bin"
_MAX_WEIGHTS = 1 << 30  # bytes
_LEAST_QUANTIZED = 256  # elements: smaller tensors (biases, shapes) stay as they are


def convert(job: Job) -> Converted:
    from google.protobuf.json_format import MessageToDict

    function, outputs = build_function(job)
    graph = frozen_graph(function, outputs)
    weights = _take_constants(graph)
    entries, content = _stored(weights, quantize=job.arguments.precision == "dynamic")
    folder = job.folder / job.artifact_name
    folder.mkdir()
    document = {
        "format": "graph-model",
        "generatedBy": "edgepose",
        "convertedBy": "edgepose",
        "modelTopology": MessageToDict(graph),
        "weightsManifest": [{"paths": [_WEIGHTS], "weights": entries}],
    }
    (folder / _WEIGHTS).write_bytes(content)
    (folder / _MODEL).write_text(json.dumps(document), encoding="utf-8")
    return Converted(folder, job.input_spec(layout="NHWC"), outputs)


def _take_constants(graph: Any) -> dict[str, NDArray[Any]]:
    """The graph's constants by name; in the graph their types and shapes alone are left."""
    from tensorflow import make_ndarray

    found = {}
    for node in graph.node:
        if node.op == "Const":
            tensor = node.attr["value"].tensor
            found[node.name] = make_ndarray(tensor)
            shape, dtype = tensor.tensor_shape, tensor.dtype
            tensor.Clear()
            tensor.dtype = dtype
            tensor.tensor_shape.CopyFrom(shape) if shape.dim else tensor.tensor_shape.SetInParent()
    return found


def _stored(weights: Mapping[str, NDArray[Any]], quantize: bool) -> tuple[list[dict[str, Any]], bytes]:
    """The manifest's entries, and the bytes that they stand for, one after the other."""
    entries, parts = [], []
    for name, values in weights.items():
        entry: dict[str, Any] = {"name": name, "shape": list(values.shape), "dtype": values.dtype.name}
        if quantize and values.dtype == np.float32 and values.size >= _LEAST_QUANTIZED:
            least, most = float(values.min()), float(values.max())
            scale = (most - least) / 255 or 1.0
            entry["quantization"] = {"dtype": "uint8", "min": least, "scale": scale}
            values = np.round((values.astype(np.float64) - least) / scale).astype(np.uint8)
        entries.append(entry)
        parts.append(np.ascontiguousarray(values).tobytes())
    return entries, b"".join(parts)


def open_tfjs(path: Path, device: str) -> Artifact:
    """Opens an exported folder: the graph and weights that a browser gets, run by TensorFlow in Python.

    The graph is a program, which TensorFlow runs: open only models whose maker you trust. Raises ValueError for a
    folder that is damaged.
    """
    check_cpu(device, "TensorFlow here")
    spec = read_metadata(path)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    tf = import_runtime("tensorflow", path, "tensorflow")
    json_format = import_runtime("google.protobuf.json_format", path, "protobuf")
    try:
        document = parse_json(read_bounded(str(path / _MODEL)), str(path / _MODEL))
        graph = json_format.ParseDict(document["modelTopology"], tf.compat.v1.GraphDef())
        weights = _restored(document["weightsManifest"][0], path)
        for node in graph.node:
            if node.op == "Const":
                node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(weights[node.name]))
    except (json_format.ParseError, KeyError, IndexError, TypeError, FileNotFoundError) as error:
        raise ValueError(f"{path}: a damaged TensorFlow.js model: {type(error).__name__}: {error}") from None
    return opened(path, spec, SpecBackend("tensorflow", spec, graph_runner(path, graph, spec)))


def _restored(group: Mapping[str, Any], path: Path) -> dict[str, NDArray[Any]]:
    """The constants by name, uint8 ones in float32 again. Raises ValueError where bytes are missing or left over."""
    content, begin, found = read_bounded(str(path / _WEIGHTS), _MAX_WEIGHTS), 0, {}
    for entry in group["weights"]:
        quantization = entry.get("quantization")
        dtype = np.dtype("uint8" if quantization else entry["dtype"])
        count = int(np.prod([int(side) for side in entry["shape"]], dtype=np.int64))
        end = begin + count * dtype.itemsize
        if count < 0 or end > len(content):
            raise ValueError(f"{path / _WEIGHTS}: got {len(content)} bytes, the manifest means more")
        values = np.frombuffer(content[begin:end], dtype).reshape(entry["shape"])
        if quantization:
            values = (values * float(quantization["scale"]) + float(quantization["min"])).astype(np.float32)
        found[entry["name"]], begin = values, end
    if begin != len(content):
        raise ValueError(f"{path / _WEIGHTS}: got {len(content)} bytes, the manifest means {begin}")
    return found


FORMAT = Format(
    name="tfjs",
    suffixes={"float32": "_web_model", "dynamic": "_uint8_web_model"},
    variants="f32, uint8 weights",
    proven_by="TensorFlow.js in Chromium; TensorFlow",
    arguments=("int8", "batch"),
    convert=convert,
    needs=("tensorflow",),
    extra="export-tensorflow",
    open=open_tfjs,
    write_spec=write_metadata,
    read_spec=read_metadata,
    deploy='serve the folder, tf.loadGraphModel("{name}/model.json"); in Python: PoseModel("{name}")',
)
