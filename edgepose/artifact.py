"""Finds out what a model file is and says of itself, opens it in a runtime, and checks that the two agree.

`open_artifact` is what the runner calls; `read_spec` and `write_spec` get at the metadata without any runtime.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from edgepose.contract import INPUT_DTYPES, ModelSpec, PeopleSpec
from edgepose.modelfiles.detect import ModelFile, identify
from edgepose.modelfiles.files import parse_json, read_bounded, write_atomically
from edgepose.options import did_you_mean

if TYPE_CHECKING:
    from edgepose.backends.base import Backend

KEY = "edgepose"
MEMBER = "edgepose.json"
SIDECAR_SUFFIX = ".edgepose.json"

SpecSource = Literal["edgepose", "ultralytics", "tensors", "user"]


class Artifact(NamedTuple):
    """An open model. spec.outputs are in the order of backend.outputs and of what backend.infer() gives.

    source: where the spec comes from: "edgepose" or "ultralytics" metadata in the file, the model's "tensors", or the
    "user".
    """

    file: ModelFile
    spec: ModelSpec
    source: SpecSource
    backend: Backend

    def close(self) -> None:
        self.backend.close()


def open_artifact(
    path: str | os.PathLike[str],
    spec: str | os.PathLike[str] | Mapping[str, Any] | ModelSpec | None = None,
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
    verbose: bool = False,
) -> Artifact:
    """Opens a model file in its runtime and says how it is fed and read.

    spec: overrules what the file says: a `ModelSpec`, a document of the contract as a dict or a JSON or YAML file, or
    a name of `edgepose.known.NAMED_SPECS`. Without it the file's own metadata count (edgepose's, a sidecar's,
    Ultralytics'), then its tensors' shapes where those say enough.

    Raises FileNotFoundError for no file, ValueError for a file that is not a model, is damaged, says nothing of
    itself (the message holds a spec to fill in) or contradicts itself, ImportError for a runtime that is missing.
    """
    from edgepose import backends
    from edgepose.backends.base import Options

    options = Options(device, threads, precision, verbose)
    backends.check_options(options)
    file = identify(path)
    runtime = backends.choose_backend(file.format, backend)
    given = _read_given(spec) if spec is not None else None
    metadata = _read_metadata(file) if given is None else None
    if file.format == "tflite":
        _check_tflite(file, device)
    loaded = backends.load(runtime, file.path, options)
    try:
        if len(loaded.inputs) != 1:
            names = ", ".join(tensor.name for tensor in loaded.inputs)
            raise ValueError(f"{file.given}: got a model with the inputs {names}, expected one picture tensor")
        found, source = _resolve(file, given, metadata, loaded)
        fitted = _fit(file, found, loaded)
    except BaseException:
        loaded.close()
        raise
    return Artifact(file, fitted, source, loaded)


def read_spec(path: str | os.PathLike[str]) -> ModelSpec | None:
    """The edgepose metadata of a model, kept in the file or in a sidecar; None where it has none. Needs no runtime."""
    document = _read_document(identify(path))
    return None if document is None else ModelSpec.from_dict(document)


def write_spec(path: str | os.PathLike[str], spec: ModelSpec) -> None:
    """Puts the metadata into the model file; the file changes whole or not at all.

    ONNX: the property "edgepose"; OpenVINO: rt_info "edgepose" of the .xml; TFLite: the associated file
    "edgepose.json". Any other file or folder gets the sidecar NAME.edgepose.json beside it.
    """
    import json

    text = json.dumps(spec.checked().to_dict(), ensure_ascii=False, allow_nan=False)
    try:
        file = identify(path)
    except ValueError:
        write_atomically(sidecar_path(path), [text.encode()])
        return
    if file.format == "onnx":
        from edgepose.modelfiles import onnx

        onnx.write_properties(file.path, {KEY: text})
    elif file.format == "openvino":
        from edgepose.modelfiles import openvino

        openvino.write_rt_info(file.path, text)
    else:
        from edgepose.modelfiles import tflite

        tflite.write_member(file.path, MEMBER, text.encode())


def sidecar_path(path: str | os.PathLike[str]) -> str:
    """Where the metadata of a format without a place for them stand: model.pte.edgepose.json beside model.pte."""
    return os.fspath(path).rstrip("/") + SIDECAR_SUFFIX


def _read_document(file: ModelFile) -> Any:
    """The edgepose document of a model, parsed but not checked."""
    metadata = _read_metadata(file)
    return metadata[1] if metadata is not None and metadata[0] == "edgepose" else None


def _read_metadata(file: ModelFile) -> tuple[Literal["edgepose", "ultralytics"], Any] | None:
    """What the file says of itself, parsed but not checked; None where that is nothing."""
    readers = {"onnx": _read_onnx, "openvino": _read_openvino, "tflite": _read_tflite}
    try:
        text, foreign = readers[file.format](file)
    except ValueError as error:
        raise ValueError(f"{file.given}: {error}") from None
    if text is None and os.path.isfile(sidecar_path(file.given)):
        text = read_bounded(sidecar_path(file.given))
    if text is not None:
        return "edgepose", parse_json(text, f"{file.given}: edgepose metadata")
    return ("ultralytics", foreign) if foreign is not None else None


def _read_onnx(file: ModelFile) -> tuple[str | None, Any]:
    from edgepose.modelfiles import onnx, ultralytics

    properties = onnx.read_properties(file.path)
    foreign = ultralytics.looks_like_ultralytics(properties)
    return properties.get(KEY), ultralytics.parse_properties(properties) if foreign else None


def _read_openvino(file: ModelFile) -> tuple[str | None, Any]:
    from edgepose.modelfiles import openvino, ultralytics

    text = openvino.read_rt_info(file.path)
    beside = os.path.join(os.path.dirname(file.path), "metadata.yaml")
    if text is not None or not os.path.isfile(beside):
        return text, None
    from edgepose.modelfiles.yaml import parse_yaml

    metadata = parse_yaml(read_bounded(beside), beside)
    return None, metadata if ultralytics.looks_like_ultralytics(metadata) else None


def _read_tflite(file: ModelFile) -> tuple[bytes | None, Any]:
    from edgepose.modelfiles import tflite, ultralytics

    with open(file.path, "rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as data:
        members = tflite.read_members(data)
        if MEMBER in members:
            return tflite.read_member(data, members[MEMBER]), None
        metadata = _foreign_tflite_metadata(file, data, members)
    return None, metadata if ultralytics.looks_like_ultralytics(metadata) else None


def _foreign_tflite_metadata(file: ModelFile, data: mmap, members: Mapping[str, Any]) -> Any:
    from edgepose.modelfiles import tflite

    if "metadata.json" in members:
        return parse_json(tflite.read_member(data, members["metadata.json"]), "metadata.json")
    if "temp_meta.txt" in members:
        from edgepose.modelfiles.literal import parse_literal

        return parse_literal(tflite.read_member(data, members["temp_meta.txt"]).decode("utf-8", "replace"))
    text = tflite.trailing_json(data) if not members else None
    if text is None:
        return None
    try:
        return parse_json(text, file.given)
    except ValueError:  # weights that end in a brace by chance
        return None


def _check_tflite(file: ModelFile, device: str) -> None:
    """Refuses what would end the process, or end in a riddle, inside the runtime."""
    from edgepose.backends import tflite as backend
    from edgepose.modelfiles import tflite
    from edgepose.trial import ensure_survivable

    with open(file.path, "rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as mapped:
        try:
            compiled = tflite.EDGETPU_OP in tflite.custom_operators(mapped)
        except ValueError as error:
            raise ValueError(f"{file.given}: {error}") from None
        if backend.is_edgetpu(device):
            return
        if compiled:
            raise ValueError(
                f"{file.given}: got a model compiled for the Edge TPU and device={device!r}, expected "
                "device='edgetpu' with an Edge TPU and libedgetpu, or the .tflite that it was compiled from"
            )
        ensure_survivable(file.path, mapped, backend.runtime()[2])


def _read_given(spec: str | os.PathLike[str] | Mapping[str, Any] | ModelSpec) -> ModelSpec | str:
    """A checked spec, or one of NAMED_SPECS, which needs the model's tensors yet."""
    if isinstance(spec, ModelSpec):
        return spec.checked()
    if isinstance(spec, Mapping):
        return ModelSpec.from_dict(dict(spec))
    if not isinstance(spec, (str, os.PathLike)):
        raise TypeError(f"got a spec of type {type(spec).__name__}, expected a name, a file, a dict or a ModelSpec")
    from edgepose.known import NAMED_SPECS

    name = os.fspath(spec)
    if name in NAMED_SPECS:
        return name
    if not os.path.isfile(name):
        known = ", ".join(NAMED_SPECS)
        hint = did_you_mean(name, NAMED_SPECS)
        there = "" if os.path.exists(name) else ", and there is no such file"
        raise ValueError(f"got spec={name!r}, expected one of {known} or a JSON or YAML file{there}{hint}")
    document = _read_spec_file(name)
    try:
        return ModelSpec.from_dict(document)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _read_spec_file(path: str) -> Any:
    data = read_bounded(path)
    if data.lstrip().startswith(b"{"):
        return parse_json(data, path)
    from edgepose.modelfiles.yaml import parse_yaml

    return parse_yaml(data, path)


def _resolve(
    file: ModelFile, given: ModelSpec | str | None, metadata: tuple[str, Any] | None, loaded: Backend
) -> tuple[ModelSpec, SpecSource]:
    inputs, outputs = loaded.inputs, loaded.outputs
    if inputs[0].dtype not in INPUT_DTYPES:
        known = ", ".join(INPUT_DTYPES)
        raise ValueError(f"{file.given}: its input {inputs[0].name!r} is {inputs[0].dtype}, expected one of {known}")
    try:
        if isinstance(given, str):
            from edgepose.known import named_spec

            return named_spec(given, inputs, outputs), "user"
        if given is not None:
            return given, "user"
        if metadata is not None and metadata[0] == "edgepose":
            return ModelSpec.from_dict(metadata[1]), "edgepose"
        if metadata is not None:
            from edgepose.modelfiles.ultralytics import make_spec

            return make_spec(metadata[1], inputs, outputs, normalized=file.format == "tflite"), "ultralytics"
    except ValueError as error:
        raise ValueError(f"{file.given}: {error}") from None
    return _recognise(file, loaded), "tensors"


def _recognise(file: ModelFile, loaded: Backend) -> ModelSpec:
    from edgepose import known

    spec = known.recognise(loaded.inputs, loaded.outputs)
    if spec is not None:
        return spec
    tensors = ", ".join(f"{tensor.name} {tensor.dtype}{list(tensor.shape)}" for tensor in loaded.outputs)
    raise ValueError(
        f"{file.given}: this model says nothing of how it is fed and read, and its outputs ({tensors}) do not tell. "
        f"Pass spec=: one of {', '.join(known.NAMED_SPECS)}, or a JSON or YAML file (or a dict) made of this, "
        f"corrected where it is wrong (docs/artifact.md):\n{known.form_to_fill(loaded.inputs, loaded.outputs)}"
    )


def _fit(file: ModelFile, spec: ModelSpec, loaded: Backend) -> ModelSpec:
    """The spec with its outputs as the runtime has them; the backend gives just these."""
    from edgepose.fit import fit_input, fit_outputs

    try:
        fitted_input = fit_input(spec.input, loaded.inputs[0])
        order, outputs = fit_outputs(spec._replace(input=fitted_input), loaded.outputs)
    except ValueError as error:
        raise ValueError(f"{file.given}: the model does not fit its metadata: {error}") from None
    if order != tuple(range(len(loaded.outputs))):
        loaded.select_outputs(order)
    return spec._replace(input=fitted_input, outputs=outputs, people=complete_people(spec))


def complete_people(spec: ModelSpec) -> PeopleSpec:
    """The people of the spec, with what it leaves out of COCO's 17 keypoints filled in."""
    people = spec.people
    if spec.decoder.kpt_shape[0] != 17:
        return people
    from edgepose import coco

    if people.keypoint_names not in ((), coco.KEYPOINT_NAMES):
        return people
    return people._replace(
        keypoint_names=coco.KEYPOINT_NAMES,
        skeleton=people.skeleton or coco.SKELETON,
        flip=people.flip or coco.FLIP,
        sigmas=people.sigmas or coco.SIGMAS,
    )
