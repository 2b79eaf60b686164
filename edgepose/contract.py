"""The artifact contract: what a model file says about how it is fed and how it is read.

A `ModelSpec` is plain data. `ModelSpec.from_dict` checks a document (untrusted: it comes out of a model file) and
`to_dict` writes it; `edgepose.artifact` finds it in, and puts it into, the files of each format. docs/artifact.md
describes every field. The specs are named tuples since those load several times faster than dataclasses, and this
module is on the way to the first result; `spec._replace(...)` makes a changed copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, NoReturn

SCHEMA_VERSION = "1.0"

Color = Literal["RGB", "BGR", "GRAY"]
Layout = Literal["NCHW", "NHWC"]
DecoderType = Literal["yolo", "yolo_end2end", "yolo_heads", "movenet"]
Suppression = Literal["iou", "oks"]

MAX_KEYPOINTS = 1000
MAX_CLASSES = 10_000
MAX_OUTPUTS = 64
MAX_SIDE = 16_384
MAX_TEXT = 1000
MAX_ORIGIN_VALUES = 20_000
MAX_ORIGIN_DEPTH = 16

INPUT_DTYPES = ("float32", "float16", "uint8", "int8")
OUTPUT_DTYPES = INPUT_DTYPES
DECODERS = ("yolo", "yolo_end2end", "yolo_heads", "movenet")
SUPPRESSIONS = ("iou", "oks")
RAW_ROLES = ("box", "score", "keypoints", "visibility", "heatmap")
RAW_LAYOUTS = ("NCHW", "NHWC", "NCA", "NAC")

_INTEGER_RANGES = {"uint8": (0, 255), "int8": (-128, 127)}


class Quantization(NamedTuple):
    """real = (stored - zero_point) * scale."""

    scale: float
    zero_point: int = 0


class ResizeSpec(NamedTuple):
    """How a picture becomes the model's input size.

    mode: "letterbox" keeps the aspect and pads, "stretch" does not.
    size: (height, width) of a fixed input, None where the model takes any multiple of `stride`.
    """

    mode: Literal["letterbox", "stretch"] = "letterbox"
    size: tuple[int, int] | None = None
    stride: int = 32
    pad_value: int = 114
    center: bool = True


class InputSpec(NamedTuple):
    """The one input tensor. real = (level - mean) / std for each channel, level in 0..255; then quantized if asked."""

    name: str
    layout: Layout = "NCHW"
    dtype: str = "float32"  # float32, float16, uint8, int8
    batch: int | None = 1  # None: dynamic
    quantization: Quantization | None = None
    color: Color = "RGB"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (255.0, 255.0, 255.0)
    resize: ResizeSpec = ResizeSpec()


class OutputSpec(NamedTuple):
    """One output tensor.

    role: "detections" (decoded or end-to-end tensor), "pose" (MoveNet), or, of raw heads, "box" (4 * reg_max
    distribution logits), "score" (class logits), "keypoints" (K*D or K*2 raw values), "visibility" (K logits) or
    "heatmap" (4*K logits, of the quarters of a cell, of one stride).
    stride: of a raw head, in input pixels; None otherwise.
    layout: of a raw head: "NCHW" (1, C, H, W), "NHWC" (1, H, W, C), "NCA" (1, C, H*W) or "NAC" (1, H*W, C).
    """

    name: str
    role: str
    stride: int | None = None
    layout: str | None = None
    dtype: str = "float32"
    quantization: Quantization | None = None


class DecoderSpec(NamedTuple):
    """The decoder that reads the outputs: num_classes >= 1, kpt_shape (K, D) with D 2 or 3, reg_max of DFL heads.

    normalized: boxes and keypoints of a "yolo" or "yolo_end2end" tensor are fractions of the input's width and height
    instead of its pixels (Ultralytics' TFLite exports); the input then has a fixed size.
    nms, iou: people that overlap more are one (NMS), by their boxes ("iou") or their keypoints ("oks"), unless the user
    says otherwise; what the model was validated with.
    """

    type: DecoderType
    num_classes: int = 1
    kpt_shape: tuple[int, int] = (17, 3)
    reg_max: int = 16
    normalized: bool = False
    iou: float = 0.7
    nms: Suppression = "iou"


class PeopleSpec(NamedTuple):
    """Names and geometry of what is found. skeleton: pairs of keypoint indices; flip: index of each point's mirror."""

    class_names: tuple[str, ...] = ("person",)
    keypoint_names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    flip: tuple[int, ...] = ()
    sigmas: tuple[float, ...] = ()


class ModelSpec(NamedTuple):
    """The whole contract. origin: free-form facts (edgepose_version, checkpoint_sha256, license, data, parity,
    producer …), JSON values only."""

    input: InputSpec
    outputs: tuple[OutputSpec, ...]
    decoder: DecoderSpec
    people: PeopleSpec = PeopleSpec()
    origin: Mapping[str, Any] = {}  # a Mapping, not a dict: nobody writes to it
    schema: str = SCHEMA_VERSION

    @classmethod
    def from_dict(cls, document: object) -> ModelSpec:
        """Checks a document of the contract (docs/artifact.md) and makes the spec of it.

        Raises ValueError that names the field, what it holds and what was expected. An unknown major schema version
        is refused; fields that a later minor version added are passed over.
        """
        parser = _Parser(_read_schema(document))
        return parser.model(document)

    def to_dict(self) -> dict[str, Any]:
        """The document: JSON values only, and `from_dict` of it gives an equal spec."""
        return {
            "schema": self.schema,
            "input": _input_document(self.input),
            "outputs": [_output_document(output) for output in self.outputs],
            "decoder": {
                "type": self.decoder.type,
                "num_classes": self.decoder.num_classes,
                "kpt_shape": list(self.decoder.kpt_shape),
                "reg_max": self.decoder.reg_max,
                "normalized": self.decoder.normalized,
                "iou": self.decoder.iou,
                "nms": self.decoder.nms,
            },
            "people": {
                "class_names": list(self.people.class_names),
                "keypoint_names": list(self.people.keypoint_names),
                "skeleton": [list(pair) for pair in self.people.skeleton],
                "flip": list(self.people.flip),
                "sigmas": list(self.people.sigmas),
            },
            "origin": dict(self.origin),
        }

    def checked(self) -> ModelSpec:
        """The same spec after every check that `from_dict` makes; for specs that were built in code."""
        return ModelSpec.from_dict(self.to_dict())


def _quantization_document(quantization: Quantization | None) -> dict[str, Any] | None:
    return None if quantization is None else {"scale": quantization.scale, "zero_point": quantization.zero_point}


def _input_document(spec: InputSpec) -> dict[str, Any]:
    resize = spec.resize
    return {
        "name": spec.name,
        "layout": spec.layout,
        "dtype": spec.dtype,
        "batch": spec.batch,
        "quantization": _quantization_document(spec.quantization),
        "color": spec.color,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "resize": {
            "mode": resize.mode,
            "size": resize.size and list(resize.size),
            "stride": resize.stride,
            "pad_value": resize.pad_value,
            "center": resize.center,
        },
    }


def _output_document(spec: OutputSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "role": spec.role,
        "stride": spec.stride,
        "layout": spec.layout,
        "dtype": spec.dtype,
        "quantization": _quantization_document(spec.quantization),
    }


def _shown(value: object) -> str:
    """The value in at most 80 characters, however large or deep it is."""
    from reprlib import repr as short_repr

    text = short_repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _fail(path: str, got: object, expected: str) -> NoReturn:
    raise ValueError(f"artifact metadata: {path}: got {_shown(got)}, expected {expected}")


def _read_schema(document: object) -> tuple[int, int]:
    if not isinstance(document, dict):
        _fail("document", document, "an object with the fields schema, input, outputs, decoder")
    schema = document.get("schema")
    parts = schema.split(".") if isinstance(schema, str) and len(schema) <= 16 else []
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        _fail("schema", schema, f'a version such as "{SCHEMA_VERSION}"')
    major, minor = int(parts[0]), int(parts[1])
    if major != int(SCHEMA_VERSION.split(".")[0]):
        raise ValueError(
            f"artifact metadata: schema: got version {schema}, this edgepose reads {SCHEMA_VERSION.split('.')[0]}.x; "
            f"{'update edgepose' if major else 'export the model again'}"
        )
    return major, minor


def _text(value: object, path: str, *, maximum: int = MAX_TEXT) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= maximum or not value.isprintable():
        _fail(path, value, f"printable text of 1 to {maximum} characters")
    return value


def _choice(value: object, path: str, choices: tuple[str, ...]) -> Any:
    if not isinstance(value, str) or value not in choices:
        _fail(path, value, "one of " + ", ".join(choices))
    return value


def _integer(value: object, path: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        _fail(path, value, f"an integer in {low}..{high}")
    return value


def _number(value: object, path: str, *, positive: bool = False) -> float:
    expected = "a finite number above 0" if positive else "a finite number"
    if not isinstance(value, (int, float)) or isinstance(value, bool) or abs(value) > 1e30 or not math.isfinite(value):
        _fail(path, value, expected)
    if positive and value < 1e-30:
        _fail(path, value, expected)
    return float(value)


def _share(value: object, path: str) -> float:
    number = _number(value, path)
    if not 0 <= number <= 1:
        _fail(path, value, "a number in 0..1")
    return number


def _flag(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        _fail(path, value, "true or false")
    return value


def _items(value: object, path: str, low: int, high: int) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        _fail(path, value, f"a list of {low if low == high else f'{low} to {high}'} items")
    if not low <= len(value) <= high:
        _fail(path, f"{len(value)} items", f"{low if low == high else f'{low} to {high}'} items")
    return value


class _Parser:
    """Reads one document. Unknown fields are errors (a typo in a hand-written spec) unless a later minor wrote it."""

    def __init__(self, version: tuple[int, int]) -> None:
        self.strict = version[1] <= int(SCHEMA_VERSION.split(".")[1])
        self.schema = f"{version[0]}.{version[1]}"

    def fields(self, value: object, path: str, known: tuple[str, ...], required: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(value, dict):
            _fail(path, value, "an object with the fields " + ", ".join(known))
        for name in required:
            if name not in value:
                _fail(f"{path}.{name}", None, "this field to be there")
        if self.strict:
            self._refuse_unknown(value, path, known)
        return {name: value[name] for name in known if name in value}

    @staticmethod
    def _refuse_unknown(value: dict[Any, Any], path: str, known: tuple[str, ...]) -> None:
        for name in value:
            if name not in known:
                from difflib import get_close_matches

                near = get_close_matches(str(name)[:100], known, 1)
                _fail(path, name, (f"{near[0]!r}? Known fields: " if near else "one of the fields ") + ", ".join(known))

    def model(self, document: object) -> ModelSpec:
        known = ("schema", "input", "outputs", "decoder", "people", "origin")
        fields = self.fields(document, "document", known, ("schema", "input", "outputs", "decoder"))
        decoder = self.decoder(fields["decoder"])
        spec = ModelSpec(
            input=self.input(fields["input"]),
            outputs=tuple(
                self.output(item, f"outputs[{i}]")
                for i, item in enumerate(_items(fields["outputs"], "outputs", 1, MAX_OUTPUTS))
            ),
            decoder=decoder,
            people=self.people(fields.get("people", {}), decoder),
            origin=_check_origin(fields.get("origin", {})),
            schema=self.schema,
        )
        _check_outputs(spec)
        if spec.input.resize.size is None and (decoder.normalized or decoder.type == "movenet"):
            _fail("input.resize.size", None, "[height, width]: places given as fractions need a fixed input size")
        if decoder.normalized and decoder.type not in ("yolo", "yolo_end2end"):
            _fail("decoder.normalized", True, "false for the decoder " + decoder.type)
        return spec

    def quantization(self, value: object, path: str, dtype: str) -> Quantization | None:
        if value is None:
            return None
        if dtype not in _INTEGER_RANGES:
            _fail(path, value, f"null: a {dtype} tensor is not quantized")
        fields = self.fields(value, path, ("scale", "zero_point"), ("scale",))
        low, high = _INTEGER_RANGES[dtype]
        return Quantization(
            scale=_number(fields["scale"], f"{path}.scale", positive=True),
            zero_point=_integer(fields.get("zero_point", 0), f"{path}.zero_point", low, high),
        )

    def resize(self, value: object) -> ResizeSpec:
        path = "input.resize"
        fields = self.fields(value, path, ("mode", "size", "stride", "pad_value", "center"), ())
        size = fields.get("size")
        if size is not None:
            height, width = _items(size, f"{path}.size", 2, 2)
            size = (
                _integer(height, f"{path}.size[0]", 1, MAX_SIDE),
                _integer(width, f"{path}.size[1]", 1, MAX_SIDE),
            )
        return ResizeSpec(
            mode=_choice(fields.get("mode", "letterbox"), f"{path}.mode", ("letterbox", "stretch")),
            size=size,
            stride=_integer(fields.get("stride", 32), f"{path}.stride", 1, 1024),
            pad_value=_integer(fields.get("pad_value", 114), f"{path}.pad_value", 0, 255),
            center=_flag(fields.get("center", True), f"{path}.center"),
        )

    def input(self, value: object) -> InputSpec:
        known = ("name", "layout", "dtype", "batch", "quantization", "color", "mean", "std", "resize")
        fields = self.fields(value, "input", known, ("name",))
        dtype = _choice(fields.get("dtype", "float32"), "input.dtype", INPUT_DTYPES)
        color = _choice(fields.get("color", "RGB"), "input.color", ("RGB", "BGR", "GRAY"))
        channels = 1 if color == "GRAY" else 3
        batch = fields.get("batch", 1)
        quantization = self.quantization(fields.get("quantization"), "input.quantization", dtype)
        if dtype == "int8" and quantization is None:
            _fail("input.quantization", None, "scale and zero_point: an int8 input needs them")
        mean = _items(fields.get("mean", (0.0,) * channels), "input.mean", channels, channels)
        std = _items(fields.get("std", (255.0,) * channels), "input.std", channels, channels)
        return InputSpec(
            name=_text(fields["name"], "input.name"),
            layout=_choice(fields.get("layout", "NCHW"), "input.layout", ("NCHW", "NHWC")),
            dtype=dtype,
            batch=None if batch is None else _integer(batch, "input.batch", 1, 1024),
            quantization=quantization,
            color=color,
            mean=tuple(_number(item, f"input.mean[{i}]") for i, item in enumerate(mean)),
            std=tuple(_number(item, f"input.std[{i}]", positive=True) for i, item in enumerate(std)),
            resize=self.resize(fields.get("resize", {})),
        )

    def output(self, value: object, path: str) -> OutputSpec:
        known = ("name", "role", "stride", "layout", "dtype", "quantization")
        fields = self.fields(value, path, known, ("name", "role"))
        dtype = _choice(fields.get("dtype", "float32"), f"{path}.dtype", OUTPUT_DTYPES)
        stride, layout = fields.get("stride"), fields.get("layout")
        return OutputSpec(
            name=_text(fields["name"], f"{path}.name"),
            role=_choice(fields["role"], f"{path}.role", ("detections", "pose", *RAW_ROLES)),
            stride=None if stride is None else _integer(stride, f"{path}.stride", 1, 1024),
            layout=None if layout is None else _choice(layout, f"{path}.layout", RAW_LAYOUTS),
            dtype=dtype,
            quantization=self.quantization(fields.get("quantization"), f"{path}.quantization", dtype),
        )

    def decoder(self, value: object) -> DecoderSpec:
        known = ("type", "num_classes", "kpt_shape", "reg_max", "normalized", "iou", "nms")
        fields = self.fields(value, "decoder", known, ("type",))
        count, values = _items(fields.get("kpt_shape", (17, 3)), "decoder.kpt_shape", 2, 2)
        return DecoderSpec(
            type=_choice(fields["type"], "decoder.type", DECODERS),
            num_classes=_integer(fields.get("num_classes", 1), "decoder.num_classes", 1, MAX_CLASSES),
            kpt_shape=(
                _integer(count, "decoder.kpt_shape[0]", 1, MAX_KEYPOINTS),
                _integer(values, "decoder.kpt_shape[1]", 2, 3),
            ),
            reg_max=_integer(fields.get("reg_max", 16), "decoder.reg_max", 1, 256),
            normalized=_flag(fields.get("normalized", False), "decoder.normalized"),
            iou=_share(fields.get("iou", 0.7), "decoder.iou"),
            nms=_choice(fields.get("nms", "iou"), "decoder.nms", SUPPRESSIONS),
        )

    def people(self, value: object, decoder: DecoderSpec) -> PeopleSpec:
        known = ("class_names", "keypoint_names", "skeleton", "flip", "sigmas")
        fields = self.fields(value, "people", known, ())
        return PeopleSpec(
            class_names=_class_names(fields.get("class_names"), decoder.num_classes),
            keypoint_names=tuple(
                _text(name, f"people.keypoint_names[{i}]")
                for i, name in enumerate(_per_keypoint(fields, "keypoint_names", decoder))
            ),
            skeleton=_skeleton(fields.get("skeleton", ()), decoder.kpt_shape[0]),
            flip=_flip(_per_keypoint(fields, "flip", decoder), decoder.kpt_shape[0]),
            sigmas=tuple(
                _number(sigma, f"people.sigmas[{i}]", positive=True)
                for i, sigma in enumerate(_per_keypoint(fields, "sigmas", decoder))
            ),
        )


def _class_names(value: object, count: int) -> tuple[str, ...]:
    if value is None:
        return ("person",) if count == 1 else tuple(f"class{i}" for i in range(count))
    names = _items(value, "people.class_names", count, count)
    return tuple(_text(name, f"people.class_names[{i}]") for i, name in enumerate(names))


def _per_keypoint(fields: dict[str, Any], name: str, decoder: DecoderSpec) -> list[Any] | tuple[Any, ...]:
    """A list of one value a keypoint; an empty one says nothing about the keypoints."""
    count = decoder.kpt_shape[0]
    values = _items(fields.get(name, ()), f"people.{name}", 0, MAX_KEYPOINTS)
    if len(values) not in (0, count):
        _fail(f"people.{name}", f"{len(values)} items", f"{count}, as decoder.kpt_shape says, or none")
    return values


def _skeleton(value: object, count: int) -> tuple[tuple[int, int], ...]:
    pairs = []
    for i, pair in enumerate(_items(value, "people.skeleton", 0, 10 * MAX_KEYPOINTS)):
        first, second = _items(pair, f"people.skeleton[{i}]", 2, 2)
        path = f"people.skeleton[{i}]"
        pairs.append((_integer(first, path, 0, count - 1), _integer(second, path, 0, count - 1)))
    return tuple(pairs)


def _flip(values: list[Any] | tuple[Any, ...], count: int) -> tuple[int, ...]:
    flip = tuple(_integer(index, f"people.flip[{i}]", 0, count - 1) for i, index in enumerate(values))
    if len(set(flip)) != len(flip):
        _fail("people.flip", values, f"a permutation of 0..{count - 1}")
    return flip


def _check_origin(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        _fail("origin", value, "an object")
    pending: list[tuple[object, str, int]] = [(value, "origin", 0)]
    visited = 0
    while pending:
        item, path, depth = pending.pop()
        visited += 1
        if depth > MAX_ORIGIN_DEPTH or visited > MAX_ORIGIN_VALUES:
            _fail(path, item, f"at most {MAX_ORIGIN_VALUES} values, {MAX_ORIGIN_DEPTH} levels deep")
        if isinstance(item, dict):
            for key, inner in item.items():
                pending.append((inner, f"{path}.{_text(key, f'{path}, a key')}", depth + 1))
        elif isinstance(item, (list, tuple)):
            pending.extend((inner, f"{path}[{i}]", depth + 1) for i, inner in enumerate(item))
        elif isinstance(item, float) and not math.isfinite(item):
            _fail(path, item, "a finite number")
        elif not isinstance(item, (str, int, float, bool, type(None))):
            _fail(path, item, "text, a number, true, false, null, a list or an object")
    return value


def _check_outputs(spec: ModelSpec) -> None:
    """The outputs are those that the decoder reads: one tensor, or, of raw heads, one a role and stride."""
    names = [output.name for output in spec.outputs]
    if len(set(names)) != len(names):
        _fail("outputs", names, "a different name for each")
    if spec.decoder.type == "yolo_heads":
        _check_heads(spec)
        return
    role = "pose" if spec.decoder.type == "movenet" else "detections"
    roles = [output.role for output in spec.outputs]
    if roles != [role]:
        _fail("outputs", roles, f"one output with the role {role!r}, for the decoder {spec.decoder.type!r}")


def _check_heads(spec: ModelSpec) -> None:
    roles: dict[int, list[str]] = {}
    heatmaps = []
    for i, output in enumerate(spec.outputs):
        if output.stride is None:
            _fail(f"outputs[{i}].stride", None, "the stride of this raw head, in input pixels")
        if output.layout is None:
            _fail(f"outputs[{i}].layout", None, "one of " + ", ".join(RAW_LAYOUTS))
        if output.role == "heatmap":
            heatmaps.append(output.stride)
        else:
            roles.setdefault(output.stride, []).append(output.role)
    if len(heatmaps) > 1 or not roles.keys() >= set(heatmaps):
        _fail("outputs", f"heatmaps of strides {heatmaps}", "one heatmap at most, of a stride of the other heads")
    for stride, found in roles.items():
        with_visibility = sorted(found) == sorted(RAW_ROLES[:4]) and spec.decoder.kpt_shape[1] == 3
        if not with_visibility and sorted(found) != sorted(RAW_ROLES[:3]):
            expected = "box, score and keypoints once each, and visibility at most once where kpt_shape is [K, 3]"
            _fail("outputs", f"stride {stride}: " + ", ".join(found), expected)
