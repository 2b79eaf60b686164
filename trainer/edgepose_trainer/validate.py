"""Validation: pictures through a network, its detections against the labels, `Metrics`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgepose.reading import make_decoder
from edgepose.runner import PoseRunner
from edgepose_trainer.checkpoint import Checkpoint
from edgepose_trainer.config import Config
from edgepose_trainer.data import Batch, DataConfig, Loader, PoseDataset
from edgepose_trainer.metrics import Evaluator, Found, Metrics, Truth
from edgepose_trainer.nn import PoseNetwork
from edgepose_trainer.torch_backend import checkpoint_spec, head_arrays

if TYPE_CHECKING:
    from edgepose.reading import Decoder

_STAGES = ("preprocess", "inference", "decode")


class Validator:
    """What sees every validated picture; derive from it, override what you need, pass it as `validators=[…]`.

    `wants(epoch)` chooses the epochs (epoch is None outside of training); only then are the others called: `on_batch`
    for every batch, with predictions and labels in pixels of the source pictures, `on_end` once. docs/train.md has an
    example that draws predicted beside labelled keypoints.
    """

    def wants(self, epoch: int | None) -> bool:
        """Whether to take part in the validation after this epoch (from 1)."""
        return True

    def on_batch(self, paths: Sequence[str], found: Sequence[Found], truth: Sequence[Truth]) -> None:
        """One batch: the pictures' paths, who was predicted and who is labelled in each."""

    def on_end(self, metrics: Metrics, epoch: int | None) -> None:
        """After the last batch."""


def precision_of(amp: bool | str, device: torch.device) -> torch.dtype | None:
    """The type of mixed precision that `amp` means on this device; None for float32."""
    if amp is False:
        return None
    if isinstance(amp, str):
        return {"bf16": torch.bfloat16, "fp16": torch.float16}[amp]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if device.type == "cpu" and _cpu_has_bf16() else None


def _cpu_has_bf16() -> bool:
    """bf16 arithmetic in the processor; emulated, it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision in that type, or nothing."""
    return torch.autocast(device.type, dtype) if dtype is not None else nullcontext()


def to_input(images: Tensor, device: torch.device) -> Tensor:
    """uint8 pictures to float32 in 0..1 on the device; the memory layout stays."""
    return images.to(device, non_blocking=True).float().mul_(1 / 255)


@torch.inference_mode()
def validate(
    network: PoseNetwork,
    loader: Loader,
    data: DataConfig,
    config: Config,
    device: torch.device,
    validators: Iterable[Validator] = (),
    epoch: int | None = None,
    dtype: torch.dtype | None = None,
) -> Metrics:
    """Runs the network (batch norm folded into a copy) over the loader's pictures and measures it.

    Detections above config.conf, NMS by config.nms at config.iou, at most config.max_det, in source pixels, against
    the labels, as COCO's evaluation does. dtype: of mixed precision, None for float32.
    """
    network = network.folded().to(device)
    if config.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # Not clipped: measured is what the network says, also beyond the picture's edge.
    options: dict[str, Any] = {"conf": config.conf, "iou": config.iou, "nms": config.nms, "max_det": config.max_det}
    spec = checkpoint_spec(Checkpoint(network, data.people()))
    decoder = make_decoder(spec, max_candidates=30000, agnostic=False, clip=False, **options)
    evaluator = Evaluator(data.num_keypoints, data.sigmas, data.names, data.keypoint_names)
    watching = [v for v in validators if v.wants(epoch)]
    seconds = dict.fromkeys(_STAGES, 0.0)
    for batch in loader:
        start = time.perf_counter()
        images = to_input(batch["images"], device)
        fed = time.perf_counter()
        with autocast(dtype, device):
            heads = head_arrays(network.raw(images))
        inferred = time.perf_counter()
        found = [_detect(decoder, [head[i : i + 1] for head in heads], batch, i) for i in range(len(images))]
        truth = [truth_of(loader.dataset, int(index)) for index in batch["index"]]
        for one, labels in zip(found, truth, strict=True):
            evaluator.add(one, labels)
        for validator in watching:
            validator.on_batch(batch["paths"], found, truth)
        times = (fed - start, inferred - fed, time.perf_counter() - inferred)
        for stage, spent in zip(_STAGES, times, strict=True):
            seconds[stage] += spent
    pictures = max(len(evaluator.pictures), 1)
    metrics = evaluator.result({stage: 1000 * spent / pictures for stage, spent in seconds.items()})
    for validator in watching:
        validator.on_end(metrics, epoch)
    return metrics


def check_sizes(sizes: Iterable[int], stride: int) -> None:
    """Raises ValueError where square pictures of one of these sizes do not fit the network's largest stride."""
    if wrong := [size for size in sizes if size % stride]:
        raise ValueError(f"imgsz={wrong[0]} is not a multiple of the network's largest stride {stride}")


def _detect(decoder: Decoder, heads: list[NDArray[np.float32]], batch: Batch, i: int) -> Found:
    """Detections of picture i, in its own pixels."""
    height, width = (int(side) for side in batch["shapes"][i])
    sx, sy, px, py = (float(v) for v in batch["transforms"][i])
    boxes, scores, class_ids, keypoints, keypoint_scores = decoder(heads, (sx, sy, px, py), (width, height))
    return Found(boxes, scores, class_ids, keypoints, keypoint_scores)


def truth_of(dataset: PoseDataset, index: int) -> Truth:
    """Labels of a picture, in its own pixels."""
    labels, (height, width) = dataset.labels(index), dataset.sizes[index].tolist()
    size = np.array([width, height], np.float64)
    middle, half = labels.boxes[:, :2] * size, labels.boxes[:, 2:] * size / 2
    points = labels.keypoints.astype(np.float64)
    points[..., :2] *= size
    return Truth(np.concatenate([middle - half, middle + half], 1), labels.cls.astype(np.int64), points)


def validate_runner(
    runner: PoseRunner, dataset: PoseDataset, data: DataConfig, validators: Iterable[Validator] = ()
) -> Metrics:
    """The same for an artifact in its own runtime: each picture from its file through `PoseRunner.predict`."""
    evaluator = Evaluator(data.num_keypoints, data.sigmas, data.names, data.keypoint_names)
    watching = [v for v in validators if v.wants(None)]
    seconds = dict.fromkeys(_STAGES, 0.0)
    for index, path in enumerate(dataset.paths):
        result = runner.predict(path)
        found = Found(result.boxes, result.scores, result.class_ids, result.keypoints, result.keypoint_scores)
        truth = truth_of(dataset, index)
        evaluator.add(found, truth)
        for stage, ms in zip(_STAGES, result.speed, strict=True):
            seconds[stage] += ms / 1000
        for validator in watching:
            validator.on_batch([path], [found], [truth])
    speed = {stage: 1000 * spent / max(len(dataset), 1) for stage, spent in seconds.items()}
    metrics = evaluator.result(speed)
    for validator in watching:
        validator.on_end(metrics, None)
    return metrics
