"""A checkpoint behind the device half's `PoseRunner`: the same letterbox, decoder and result as any artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgepose.artifact import Artifact
from edgepose.backends.base import TensorSpec, check_shape
from edgepose.contract import DecoderSpec, InputSpec, ModelSpec, OutputSpec, PeopleSpec, ResizeSpec
from edgepose.modelfiles.detect import ModelFile
from edgepose_trainer.nn import PoseNetwork


class TorchBackend:
    """A network (batch norm folded into a copy) as a runtime of the device half; float32, any batch and size."""

    name = "torch"

    def __init__(self, network: PoseNetwork, device: torch.device) -> None:
        self.device = device
        self.network = network.folded().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        channels = 4 + network.nc + network.kpt_shape[0] * network.kpt_shape[1]
        self.inputs: tuple[TensorSpec, ...] = (TensorSpec("images", (None, 3, None, None), "float32"),)
        self.outputs: tuple[TensorSpec, ...] = (TensorSpec("output0", (None, channels, None), "float32"),)
        self._buffer = np.empty((0,), np.float32)

    def input_buffer(self, shape: tuple[int, ...]) -> NDArray[Any]:
        check_shape(self.inputs[0], shape)
        if self._buffer.shape != shape:
            self._buffer = np.empty(shape, np.float32)
        return self._buffer

    @torch.inference_mode()
    def infer(self) -> list[np.ndarray[Any, Any]]:
        images = torch.from_numpy(self._buffer).to(self.device, memory_format=torch.channels_last)
        decoded: Any = self.network.decode(self.network.raw(images))
        return [decoded.cpu().numpy()]

    def select_outputs(self, order: Sequence[int]) -> None:
        if list(order) != [0]:
            raise ValueError(f"got the outputs {list(order)}, a network has one: 0")

    def close(self) -> None:
        self._buffer = np.empty((0,), np.float32)


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


def open_network(network: PoseNetwork, people: Mapping[str, Any], device: torch.device, given: str) -> Artifact:
    """The network as an open artifact that `PoseRunner` takes. given: what the caller named, for messages."""
    spec = ModelSpec(
        input=InputSpec("images", batch=None, resize=ResizeSpec(stride=max(network.strides))),
        outputs=(OutputSpec("output0", "detections"),),
        decoder=DecoderSpec("yolo", network.nc, network.kpt_shape, network.reg_max),
        people=people_spec(people),
    )
    return Artifact(ModelFile(given, "torch", given), spec, "edgepose", TorchBackend(network, device))
