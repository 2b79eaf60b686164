"""Checkpoints: written whole or not at all, read without running anything.

Our own are dicts of tensors and plain data written by torch.save (`torch.load(path, weights_only=True)` reads them
too). Ultralytics' YOLOv8 pose checkpoints are read as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import edgepose
from edgepose.contract import DecoderSpec
from edgepose.modelfiles.files import replacing
from edgepose_trainer import foreign
from edgepose_trainer.nn.config import read_config
from edgepose_trainer.nn.network import PoseNetwork
from edgepose_trainer.safe_pickle import Inert, check_plain
from edgepose_trainer.torch_file import read_torch_file

FORMAT = "edgepose-checkpoint"
VERSION = 1
_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("people", "settings", "data", "metrics", "origin"), dict),
    "epoch": int,
    "training": (dict, type(None)),
}


@dataclass
class Checkpoint:
    """A network and what is known about it.

    model: in eval mode, float32. people: names, keypoint_names, skeleton, flip_idx, sigmas, as far as known.
    settings: the training run's settings. data: the data YAML it was trained on. epoch: epochs done (-1: not ours or
    never trained). metrics: of this epoch. training: what exact resume needs (tensors and plain data), None in a
    finished checkpoint. origin: {"producer", "license", …}.
    """

    model: PoseNetwork
    people: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    epoch: int = -1
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] | None = None
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def decoder(self) -> DecoderSpec:
        """How its raw heads are read; NMS as it was validated."""
        model = self.model
        decoder = DecoderSpec("yolo_heads", model.nc, model.kpt_shape, model.reg_max)
        said = {name: self.settings[name] for name in ("iou", "nms") if name in self.settings}
        return decoder._replace(**said)


@dataclass(frozen=True)
class Transfer:
    """What `transfer_weights` did: names of tensors taken, and of those that stayed as they were with the reason."""

    taken: tuple[str, ...]
    left: dict[str, str]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{len(self.taken)} of {len(self.taken) + len(self.left)} tensors taken"
        if self.left:
            shown = [f"{name} ({why})" for name, why in list(self.left.items())[:6]]
            text += f"; left as they were: {', '.join(shown)}{', …' if len(self.left) > 6 else ''}"
        return text


def save_checkpoint(path: str | Path, checkpoint: Checkpoint, *, half: bool = False) -> None:
    """Writes a checkpoint: a file of that name is replaced only after the new one is complete on disk.

    half: floating point weights of the network in float16. Raises TypeError for anything but tensors and plain data,
    OSError where the disk is full; the file that was there stays then.
    """
    dtype = torch.float16 if half else torch.float32
    model = checkpoint.model
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "edgepose": edgepose.__version__,
        "config": {**model.config.document, "folded": is_folded(model)},
        "model": {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()},
        "people": checkpoint.people,
        "settings": checkpoint.settings,
        "data": checkpoint.data,
        "epoch": checkpoint.epoch,
        "metrics": checkpoint.metrics,
        "training": checkpoint.training,
        "origin": checkpoint.origin,
    }
    plain = {key: _plain(value, key) for key, value in document.items()}
    with replacing(str(path)) as temporary:
        try:
            torch.save(plain, temporary)
        except RuntimeError as error:  # torch's writer reports a full disk so
            raise OSError(
                f"{path} could not be written, what was there before is unchanged: is the disk full? ({error})"
            ) from error


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a checkpoint of ours, or a YOLOv8 pose checkpoint of Ultralytics; runs nothing that the file holds.

    Raises FileNotFoundError (nothing is ever downloaded), or ValueError: not a checkpoint, truncated, of another
    version, weights that do not fit the network, a pickle that tries to call something.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(_missing(path))
    document = read_torch_file(path)
    try:
        if isinstance(document, dict) and document.get("format") == FORMAT:
            return _own(document)
        if (network := foreign.find_foreign_network(document)) is not None:
            return _foreign(document, network)
    except KeyError as error:
        raise ValueError(f"{path}: a damaged checkpoint: it has no {error}") from error
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{path}: {error}") from error
    raise ValueError(f"{path}: neither a checkpoint of edgepose nor a YOLOv8 pose checkpoint of Ultralytics")


def transfer_weights(model: PoseNetwork, weights: Mapping[str, Tensor]) -> Transfer:
    """Copies into model what fits by name and shape (`pretrained=`), and says what did not."""
    own = model.state_dict()
    left = {}
    for name, tensor in own.items():
        given = weights.get(name)
        if given is None:
            left[name] = "not in the checkpoint"
        elif given.shape != tensor.shape:
            left[name] = f"shape {list(given.shape)} there, {list(tensor.shape)} here"
    taken = tuple(name for name in own if name not in left)
    model.load_state_dict({name: weights[name] for name in taken}, strict=False)
    return Transfer(taken, left, tuple(name for name in weights if name not in own))


def is_folded(model: PoseNetwork) -> bool:
    """Whether the batch norms are folded into the convolutions."""
    return not any(name.endswith("running_mean") for name, _ in model.named_buffers())


def _own(document: dict[str, Any]) -> Checkpoint:
    check_plain(document, (Tensor,))
    if document.get("version") != VERSION:
        raise ValueError(
            f"a checkpoint of version {document.get('version')!r}, this edgepose reads {VERSION}: update edgepose"
        )
    config = dict(document["config"])
    folded = bool(config.pop("folded", False))
    for key, kind in _KINDS.items():
        if not isinstance(document[key], kind):
            raise ValueError(f"a damaged checkpoint: {key!r} is a {type(document[key]).__name__}")
    rest = {key: document[key] for key in _KINDS}
    return Checkpoint(_network(config, document["model"], folded), **rest)


def _foreign(document: dict[str, Any], network: Inert) -> Checkpoint:
    weights = foreign.foreign_tensors(network)
    folded = not any(name.endswith("running_mean") for name in weights)
    config, people = foreign.foreign_config(network), foreign.foreign_people(network)
    check_plain([config, people], ())
    version, license_name = document.get("version"), document.get("license")
    return Checkpoint(
        _network(config, weights, folded),
        people=people,
        origin={
            "producer": f"Ultralytics {version}" if isinstance(version, str) else "Ultralytics",
            "license": license_name if isinstance(license_name, str) else "AGPL-3.0",
        },
    )


def _network(config: Mapping[str, Any], weights: Mapping[str, Tensor], folded: bool) -> PoseNetwork:
    """The network of config with these weights, in eval mode. Shapes are compared before any memory is taken."""
    with torch.device("meta"):
        model = PoseNetwork(read_config(config)).eval()
        if folded:
            model.fold()
    expected = model.state_dict()
    wrong = [name for name in expected if name not in weights or weights[name].shape != expected[name].shape]
    wrong += [name for name in weights if name not in expected]
    if wrong:
        raise ValueError(
            f"the weights do not fit the network that the checkpoint describes: {len(wrong)} tensors are missing, of "
            f"another shape or too many, the first {wrong[0]!r}"
        )
    # A copy, since a 1x1 weight of a channels-last network is "contiguous" and keeps strides that exporters stumble on.
    same = {name: torch.empty(w.shape, dtype=expected[name].dtype).copy_(w) for name, w in weights.items()}
    model.load_state_dict(same, assign=True)
    return model


def _plain(value: Any, where: str) -> Any:
    """The value, where torch.load(weights_only=True) will read it again; paths become text."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, Tensor)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {_plain(k, where): _plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
        return parts if isinstance(value, list) else tuple(parts)
    raise TypeError(f"{where} is a {type(value).__name__}; a checkpoint holds tensors and plain data only")


def _missing(path: Path) -> str:
    message = f"there is no file {str(path)!r}"
    if re.fullmatch(r"yolov?\d+.*\.pt", path.name):
        message += (
            ". edgepose downloads no weights. Ultralytics' own are at https://github.com/ultralytics/assets/releases, "
            "under AGPL-3.0 (or their paid licence), which reaches what is built with them. Fetch the file yourself if "
            "that suits you. edgepose brings a model of its own, free to use (PoseRunner() and `edgepose predict` take "
            f"it where none is named), and trains from scratch with model={path.stem.split('-')[0]}-pose.yaml"
        )
    return message
