"""Ultralytics' YOLOv8 pose checkpoints as networks of ours, without ultralytics.

The module tree in the file is read as inert records (see `torch_file`); the arrangement of the layers comes from it,
the weights from its tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from edgepose_trainer.nn.config import MAX_CHANNELS, MAX_LAYERS
from edgepose_trainer.safe_pickle import Inert


def find_foreign_network(document: Any) -> Inert | None:
    """The recorded network in what a foreign checkpoint holds: the averaged weights where there are some."""
    if not isinstance(document, dict):
        return None
    for key in ("ema", "model"):
        if isinstance(found := document.get(key), Inert):
            return found
    return None


def foreign_config(network: Inert) -> dict[str, Any]:
    """The recorded layers as a model document in the field's form, channels as they are (scale 1).

    Raises ValueError for a network that is not YOLOv8 pose, naming what it is.
    """
    if network.name != "PoseModel":
        raise ValueError(f"holds a {network.module}.{network.name}; only YOLOv8 pose checkpoints (PoseModel) are read")
    layers = _children(_child(network, "model"))
    if not 1 < len(layers) <= MAX_LAYERS:
        raise ValueError(f"holds a network of {len(layers)} layers")
    rows = [_row(layer) for layer in layers.values()]
    head = list(layers.values())[-1]
    return {
        "name": _name(network),
        "nc": _attribute(head, "nc"),
        "kpt_shape": list(_attribute(head, "kpt_shape")),
        "activation": _activation(next(iter(layers.values()))),
        "reg_max": _attribute(head, "reg_max"),
        "scale": [1.0, 1.0, MAX_CHANNELS],
        "backbone": rows[:-1],
        "head": rows[-1:],
    }


def foreign_tensors(network: Inert) -> dict[str, Tensor]:
    """All parameters and buffers of a recorded network by name, floating point ones in float32."""
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in _tensors(network)}


def foreign_people(network: Inert) -> dict[str, Any]:
    """Class names and, where the checkpoint holds them, keypoint names (of the first class)."""
    state = _state(network)
    people: dict[str, Any] = {}
    names = state.get("names")
    if isinstance(names, dict) and all(isinstance(n, str) for n in names.values()):
        people["names"] = [names[key] for key in sorted(names)]
    points = state.get("kpt_names")
    if isinstance(points, dict) and points and all(isinstance(n, str) for n in next(iter(points.values()))):
        people["keypoint_names"] = list(next(iter(points.values())))
    return people


def _state(record: Inert) -> dict[str, Any]:
    if not isinstance(record.state, dict):
        raise ValueError(f"damaged: a {record.name} without attributes")
    return record.state


def _attribute(record: Inert, name: str) -> Any:
    state = _state(record)
    if name not in state:
        raise ValueError(f"damaged, or of another version: a {record.name} without {name!r}")
    return state[name]


def _children(record: Inert) -> dict[str, Inert]:
    children = _attribute(record, "_modules")
    if not isinstance(children, dict):
        raise ValueError(f"damaged: the parts of a {record.name} are no dict")
    return {str(name): child for name, child in children.items() if isinstance(child, Inert)}


def _child(record: Inert, name: str) -> Inert:
    children = _children(record)
    if name not in children:
        raise ValueError(f"damaged, or of another version: a {record.name} without {name!r}")
    return children[name]


def _tensors(network: Inert) -> Iterator[tuple[str, Tensor]]:
    """Named tensors of the tree. A record is entered once: a file that shares records cannot make the walk explode."""
    seen: set[int] = set()
    waiting = [("", network)]
    while waiting:
        prefix, record = waiting.pop()
        if id(record) in seen:
            continue
        seen.add(id(record))
        for group in ("_parameters", "_buffers"):
            held = _attribute(record, group)
            if isinstance(held, dict):
                yield from ((f"{prefix}{name}", value) for name, value in held.items() if isinstance(value, Tensor))
        waiting += [(f"{prefix}{name}.", child) for name, child in _children(record).items()]


def _row(layer: Inert) -> list[Any]:
    """One recorded layer as [from, repeats, module, args]."""
    arguments = _ARGUMENTS.get(layer.name)
    if arguments is None:
        raise ValueError(f"holds a layer {layer.module}.{layer.name}, which YOLOv8 pose networks do not have")
    repeats, module, args = arguments(layer)
    source = _attribute(layer, "f")
    return [list(source) if isinstance(source, (list, tuple)) else source, repeats, module, args]


def _width(conv: Inert) -> Any:
    """Channels that a Conv block gives."""
    return _attribute(_child(conv, "conv"), "out_channels")


def _conv(layer: Inert) -> tuple[int, str, list[Any]]:
    conv = _child(layer, "conv")
    sizes = [_attribute(conv, name) for name in ("kernel_size", "stride")]
    if any(size not in [(n, n) for n in range(1, 16)] for size in sizes) or _attribute(conv, "groups") != 1:
        raise ValueError("holds a convolution with groups or a kernel that is not square")
    return 1, "Conv", [_width(layer), sizes[0][0], sizes[1][0]]


def _stage(layer: Inert) -> tuple[int, str, list[Any]]:
    blocks = list(_children(_child(layer, "m")).values())
    if not blocks or any(block.name != "Bottleneck" for block in blocks):
        raise ValueError(f"holds a {layer.name} without bottlenecks")
    return len(blocks), layer.name, [_width(_child(layer, "cv2")), bool(_attribute(blocks[0], "add"))]


def _sppf(layer: Inert) -> tuple[int, str, list[Any]]:
    return 1, "SPPF", [_width(_child(layer, "cv2")), _attribute(_child(layer, "m"), "kernel_size")]


def _upsample(layer: Inert) -> tuple[int, str, list[Any]]:
    return 1, "Upsample", [None, _attribute(layer, "scale_factor"), _attribute(layer, "mode")]


def _concat(layer: Inert) -> tuple[int, str, list[Any]]:
    return 1, "Concat", [_attribute(layer, "d")]


def _pose(layer: Inert) -> tuple[int, str, list[Any]]:
    return 1, "Pose", ["nc", "kpt_shape"]


_ARGUMENTS = {
    "Conv": _conv,
    "C2f": _stage,
    "C2": _stage,
    "SPPF": _sppf,
    "Upsample": _upsample,
    "Concat": _concat,
    "Pose": _pose,
}


def _activation(layer: Inert) -> str:
    return _child(layer, "act").name


def _name(network: Inert) -> str:
    stored = _state(network).get("yaml")
    name = stored.get("yaml_file") if isinstance(stored, dict) else None
    return name.rsplit("/", 1)[-1].removesuffix(".yaml") if isinstance(name, str) else "yolov8-pose"
