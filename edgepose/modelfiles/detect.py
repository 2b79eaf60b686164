"""Says what a path is, by its content."""

from __future__ import annotations

import os
from typing import Literal, NamedTuple, NoReturn

Format = Literal["onnx", "openvino", "tflite", "torch"]

_ONNX_FIELDS = (2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26)

EXPECTED = "expected a pose model: an .onnx file, an OpenVINO folder or .xml file, or a .tflite file"

_OTHER_CONTENT = (
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"RIFF", "a RIFF file (WebP picture, AVI video or WAV sound)"),
    (b"\x89HDF", "an HDF5 file (a Keras model?)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "an executable or shared library"),
    (b"version https://git-lfs", "a Git LFS pointer instead of the file itself (run: git lfs pull)"),
)
_OTHER_FOLDERS = (
    ("saved_model.pb", "a TensorFlow SavedModel"),
    ("model.json", "a TensorFlow.js model"),
    ("Manifest.json", "a CoreML package"),
    ("inference.pdiparams", "a Paddle model"),
    ("model.ncnn.param", "an NCNN model"),
)


class ModelFile(NamedTuple):
    """A model on disk. path: the file that the runtime opens (of OpenVINO the .xml); given: what the caller named."""

    path: str
    format: Format
    given: str


def identify(path: str | os.PathLike[str]) -> ModelFile:
    """Finds the model file and its format.

    Raises FileNotFoundError where there is nothing, ValueError that says what was found where it is not a model that
    the device half runs, PermissionError where it cannot be read.
    """
    given = os.fspath(path)
    if os.path.isdir(given):
        return ModelFile(_model_in_folder(given), "openvino", given)
    return ModelFile(given, _format_of_file(given), given)


def _format_of_file(path: str) -> Format:
    head = _head(path)
    if starts_like_tflite(head):
        return "tflite"
    if starts_like_ir(head):
        _check_ir_pair(path, head)
        return "openvino"
    if starts_like_onnx(head):
        return "onnx"
    _refuse(path, head)


def starts_like_tflite(head: bytes) -> bool:
    return head[4:8] == b"TFL3"


def starts_like_ir(head: bytes) -> bool:
    """Whether a file that begins so is an OpenVINO IR, or another XML (`_check_ir_pair` tells the two apart)."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"<?xml", b"<net"))


def starts_like_onnx(head: bytes) -> bool:
    """Whether a file that begins so can be an ONNX ModelProto: a small ir_version, then another of its fields."""
    return len(head) >= 3 and head[0] == 0x08 and head[1] < 0x80 and head[2] >> 3 in _ONNX_FIELDS


def _head(path: str) -> bytes:
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path}: got a pipe or a device, {EXPECTED}")
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file{_nearby(path)}; {EXPECTED}") from None
    if not head:
        raise ValueError(f"{path}: got an empty file, {EXPECTED}")
    return head


def _nearby(path: str) -> str:
    """The most similar names in the same folder."""
    from difflib import get_close_matches

    folder, name = os.path.split(path)
    try:
        near = get_close_matches(name, os.listdir(folder or "."), 1)
    except OSError:
        return f", nor a folder {folder!r}"
    return f" (did you mean {os.path.join(folder, near[0])!r}?)" if near else ""


def _check_ir_pair(path: str, head: bytes) -> None:
    if b"<net" not in head:
        raise ValueError(f"{path}: got an XML file that is not an OpenVINO model (no <net> at its start), {EXPECTED}")
    weights = os.path.splitext(path)[0] + ".bin"
    if not os.path.isfile(weights):
        raise ValueError(f"{path}: got an OpenVINO .xml without its weights, expected {weights} beside it")
    if os.path.getsize(weights) == 0:
        raise ValueError(f"{weights}: got an empty file, expected the weights of {os.path.basename(path)}")


def _model_in_folder(folder: str) -> str:
    names = sorted(os.listdir(folder))
    found = [name for name in names if name.endswith(".xml") and starts_like_ir(_head(os.path.join(folder, name)))]
    if len(found) == 1:
        path = os.path.join(folder, found[0])
        _check_ir_pair(path, _head(path))
        return path
    if len(found) > 1:
        raise ValueError(f"{folder}: got a folder with {len(found)} OpenVINO models ({', '.join(found[:5])}), name one")
    for name, kind in _OTHER_FOLDERS:
        if name in names:
            raise ValueError(
                f"{folder}: got {kind}, {EXPECTED}; PoseModel runs exported models of other formats "
                '(pip install "edgepose[train]")'
            )
    listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "") if names else "nothing"
    raise ValueError(f"{folder}: got a folder without a model in it ({listed}), {EXPECTED}")


def _refuse(path: str, head: bytes) -> NoReturn:
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        if head.startswith(b"PK") and b".pkl" not in head and not path.endswith((".pt", ".pth", ".torchscript")):
            raise ValueError(f"{path}: got a zip archive, {EXPECTED}")
        raise ValueError(
            f"{path}: got a PyTorch checkpoint, {EXPECTED}; PoseModel runs and exports checkpoints: "
            'pip install "edgepose[train]"'
        )
    kind = next((kind for magic, kind in _OTHER_CONTENT if head.startswith(magic)), None) or _unknown(head)
    raise ValueError(f"{path}: got {kind}, {EXPECTED}")


def _unknown(head: bytes) -> str:
    try:
        text = head[:40].decode()
    except UnicodeDecodeError:
        text = ""
    if text and all(character.isprintable() or character in "\r\n\t" for character in text):
        return f"a text file ({text.splitlines()[0][:30]!r} …)"
    return f"a file that begins with the bytes {head[:8].hex(' ')} (damaged, or another format)"
