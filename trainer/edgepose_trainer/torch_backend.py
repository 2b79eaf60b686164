"""A checkpoint behind the device half's `PoseRunner`: the same letterbox, decoder and result as any artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgepose.artifact import Artifact
from edgepose.backends.base import TensorSpec, check_shape
from edgepose.contract import InputSpec, ModelSpec, OutputSpec, PeopleSpec, ResizeSpec
from edgepose.modelfiles.detect import ModelFile
from edgepose_trainer.checkpoint import Checkpoint
from edgepose_trainer.nn import PoseNetwork, RawHeads


class TorchBackend:
    """A network (batch norm folded into a copy) as a runtime of the device half; float32, any batch and size."""

    name = "torch"

    def __init__(self, network: PoseNetwork, device: torch.device) -> None:
        self.device = device
        self.network = network.folded().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.inputs: tuple[TensorSpec, ...] = (TensorSpec("images", (None, 3, None, None), "float32"),)
        self.outputs = tuple(TensorSpec(o.name, (None, None, None, None), "float32") for o in head_specs(network))
        self._order = list(range(len(self.outputs)))
        self._buffer = np.empty((0,), np.float32)

    def input_buffer(self, shape: tuple[int, ...]) -> NDArray[Any]:
        check_shape(self.inputs[0], shape)
        if self._buffer.shape != shape:
            self._buffer = np.empty(shape, np.float32)
        return self._buffer

    @torch.inference_mode()
    def infer(self) -> list[np.ndarray[Any, Any]]:
        images = torch.from_numpy(self._buffer).to(self.device, memory_format=torch.channels_last)
        heads = head_arrays(self.network.raw(images))
        return [heads[i] for i in self._order]

    def select_outputs(self, order: Sequence[int]) -> None:
        self._order = list(order)

    def close(self) -> None:
        self._buffer = np.empty((0,), np.float32)


def head_specs(network: PoseNetwork) -> tuple[OutputSpec, ...]:
    """The contract's view of what `head_arrays` gives."""
    head = network.head
    roles = [(role, stride) for role in ("box", "score", "keypoints") for stride in head.strides]
    roles += [("heatmap", head.strides[0])] if head.heatmap is not None else []
    return tuple(OutputSpec(f"{role}_{stride}", role, stride, "NHWC") for role, stride in roles)


def head_arrays(raw: RawHeads) -> list[NDArray[np.float32]]:
    """The raw heads as float32 (B, H, W, C), in the order of `head_specs`."""
    return [x.permute(0, 2, 3, 1).float().contiguous().cpu().numpy() for x in raw.tensors()]


def people_spec(people: Mapping[str, Any]) -> PeopleSpec:
    """A checkpoint's names, skeleton, flip order and sigmas in the contract's form."""
    names = people.get("names") or {0: "person"}
    values = names.values() if isinstance(names, Mapping) else names
    return PeopleSpec(
        class_names=tuple(str(name) for name in values),
        keypoint_names=tuple(people.get("keypoint_names") or ()),
        skeleton=tuple((int(a), int(b)) for a, b in people.get("skeleton") or ()),
        flip=tuple(people.get("flip_idx") or ()),
        sigmas=tuple(people.get("sigmas") or ()),
    )


def checkpoint_spec(checkpoint: Checkpoint) -> ModelSpec:
    """How a checkpoint's network is fed, and how what `head_arrays` gives is read.

    Raises ValueError where the file says what cannot be.
    """
    return ModelSpec(
        input=InputSpec("images", batch=None, resize=ResizeSpec(stride=checkpoint.model.stride)),
        outputs=head_specs(checkpoint.model),
        decoder=checkpoint.decoder,
        people=people_spec(checkpoint.people),
    ).checked()


def open_checkpoint(checkpoint: Checkpoint, device: torch.device, given: str) -> Artifact:
    """A checkpoint as an open artifact that `PoseRunner` takes. given: what the caller named, for messages."""
    backend = TorchBackend(checkpoint.model, device)
    return Artifact(ModelFile(given, "torch", given), checkpoint_spec(checkpoint), "edgepose", backend)
