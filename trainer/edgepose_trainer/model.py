"""`PoseModel`: one object to train, validate, try and export a model with, under the names that the field uses."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edgepose.contract import DecoderSpec, PeopleSpec
from edgepose.modelfiles.detect import identify
from edgepose.options import unknown_option
from edgepose.runner import PoseRunner
from edgepose_trainer import distributed
from edgepose_trainer.checkpoint import Checkpoint, load_checkpoint, transfer_weights
from edgepose_trainer.config import Config, load_config
from edgepose_trainer.data import DataConfig, build_dataset, build_loader, load_data_config
from edgepose_trainer.export.registry import format_of_artifact
from edgepose_trainer.metrics import Metrics
from edgepose_trainer.nn import build_model, model_info
from edgepose_trainer.torch_backend import people_spec
from edgepose_trainer.train import EVENTS, Callback, TrainResult, train
from edgepose_trainer.validate import Validator, check_sizes, precision_of, validate, validate_runner

if TYPE_CHECKING:
    from edgepose.info import ModelInfo
    from edgepose.result import PoseResult

log = logging.getLogger(__name__)

_PLANS, _CHECKPOINTS = (".yaml", ".yml"), (".pt", ".pth")

# Settings of the training run that a checkpoint is validated with, unless others are given.
_REMEMBERED = ("imgsz", "batch", "workers", "iou", "nms", "max_det", "rect")
_VAL_OPTIONS = (
    *(
        "data",
        "imgsz",
        "batch",
        "device",
        "workers",
        "cache",
        "amp",
        "channels_last",
        "split",
        "conf",
        "iou",
        "nms",
        "max_det",
    ),
    *("rect", "threads", "verbose", "task"),
)
_PREDICT_OPTIONS = (
    *("conf", "iou", "max_det", "imgsz", "rect", "nms", "agnostic", "max_candidates", "color", "clip", "antialias"),
)


class PoseModel:
    """A pose model.

    model: a model YAML ("yolov8n-pose.yaml": new weights), a checkpoint (.pt, edgepose's or YOLOv8's), or an exported
    artifact (.onnx, .tflite, OpenVINO), which can be validated and tried, not trained.

        model = PoseModel("yolov8n-pose.yaml")
        model.train(data="coco8-pose.yaml", epochs=100, imgsz=640)
        metrics = model.val()
        people = model("photo.jpg")[0]
    """

    def __init__(self, model: str | os.PathLike[str] = "yolov8n-pose.yaml", task: str = "pose") -> None:
        if task != "pose":
            raise ValueError(f"task={task!r}: edgepose knows the task 'pose' alone")
        self.path = Path(model)
        self.callbacks: dict[str, list[Callback]] = {event: [] for event in EVENTS}
        self.metrics: Metrics | None = None
        self._pretrained: str | None = None
        self._runners: dict[tuple[Any, ...], PoseRunner] = {}
        suffix = self.path.suffix.lower()
        self.checkpoint: Checkpoint | None = None
        if suffix in _PLANS:
            self.checkpoint = Checkpoint(build_model(self.path))
        elif suffix in _CHECKPOINTS:
            self.checkpoint = load_checkpoint(self.path)
        elif not self.path.exists():
            raise FileNotFoundError(
                f"there is no model {str(model)!r}; expected a model .yaml, a .pt or an exported model"
            )

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, name: str) -> PoseModel:
        """The model of a checkpoint that is loaded already; name: for messages."""
        model = cls.__new__(cls)
        model.path, model.checkpoint = Path(name), checkpoint
        model.callbacks = {event: [] for event in EVENTS}
        model.metrics, model._pretrained, model._runners = None, None, {}
        return model

    @property
    def names(self) -> dict[int, str]:
        """Class names by number."""
        if self.checkpoint is None:
            return dict(enumerate(self.runner().spec.people.class_names))
        names = self.checkpoint.people.get("names") or {0: "person"}
        return dict(names) if isinstance(names, Mapping) else dict(enumerate(names))

    def load(self, weights: str | os.PathLike[str]) -> PoseModel:
        """Takes over a checkpoint's weights where they fit, now and in a training that follows, and logs which did not;
        returns itself."""
        checkpoint = self._trainable("load weights into")
        done = transfer_weights(checkpoint.model, load_checkpoint(Path(weights)).model.state_dict())
        if done.left:
            log.warning("weights of %s: %s", weights, done)
        self._pretrained = str(weights)
        self._runners.clear()
        return self

    def add_callback(self, event: str, callback: Callable[[Any], None]) -> None:
        """Calls `callback(run)` at an event of training; `EVENTS` are known, `Run` is what it gets."""
        if event not in self.callbacks:
            raise ValueError(unknown_option(event, list(self.callbacks)))
        self.callbacks[event].append(callback)

    def train(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        cfg: str | Path | None = None,
        validators: Iterable[Validator] = (),
        **settings: Any,
    ) -> TrainResult:
        """Trains with the settings given (`edgepose cfg` lists all); afterwards this object is the best checkpoint.

        Raises what `edgepose_trainer.train.train` raises.
        """
        self._trainable("train")
        given = {"data": data, **settings} if data is not None else settings
        start = {"model": str(self.path), **({"pretrained": self._pretrained} if self._pretrained else {})}
        config = load_config(cfg, {**start, **given})
        events = {event: calls for event, calls in self.callbacks.items() if calls}
        result = train(config, events, tuple(validators))
        best = result.best or result.last
        if best is not None:
            self.path, self.checkpoint, self._pretrained = best, load_checkpoint(best), None
            self._runners.clear()
        self.metrics = result.metrics
        return result

    def val(
        self,
        data: str | os.PathLike[str] | Mapping[str, Any] | None = None,
        *,
        validators: Iterable[Validator] = (),
        **settings: Any,
    ) -> Metrics:
        """Measures the model on labelled pictures, in the arithmetic that training measures in; amp=False: in float32.

        Without `data` on the data, and at the size, that the checkpoint was trained with. Raises ValueError where it
        remembers none or they are not here.
        """
        config, dataset_config = self._val_settings(data, settings)
        device = distributed.parse_devices(config.device)[0]
        dataset = self._val_dataset(dataset_config, config, remembered=data is None)
        if config.threads:
            torch.set_num_threads(config.threads)
        if self.checkpoint is None:
            own = {name: settings[name] for name in ("iou", "nms", "imgsz") if settings.get(name) is not None}
            runner = self.runner(conf=config.conf, max_det=config.max_det, clip=False, **own)
            self._check_fits(runner.spec.decoder, runner.spec.people, dataset_config)
            self.metrics = validate_runner(runner, dataset, dataset_config, validators)
            return self.metrics
        self._check_fits(self.checkpoint.decoder, people_spec(self.checkpoint.people), dataset_config)
        stride = self.checkpoint.model.stride
        if not config.rect:
            check_sizes([config.imgsz], stride)
        network, dtype = self.checkpoint.model, precision_of(config.amp, device)
        with closing(build_loader(dataset, config.batch, config.workers, stride=stride)) as loader:
            self.metrics = validate(network, loader, dataset_config, config, device, validators, dtype=dtype)
        return self.metrics

    def val_data(self, data: str | os.PathLike[str] | Mapping[str, Any] | None = None) -> DataConfig:
        """What `val` measures on: the data given, else those that the checkpoint remembers; ValueError where there are
        none."""
        if data is None and self.checkpoint is not None:
            data = self.checkpoint.data or None
        if data is None:
            raise ValueError(f"{self.path} does not say what data it was trained on: pass data=, such as data=my.yaml")
        return load_data_config(data)

    def predict(self, source: Any, *, stream: bool = False, **options: Any) -> list[PoseResult] | Iterator[PoseResult]:
        """Finds people in whatever `edgepose.sources.open_source` takes; one result a picture or frame.

        stream: results come one by one, with flat memory. options: device, and those of `PoseRunner` that are about
        pictures and people (conf, iou, max_det, imgsz, rect, nms, color …).
        """
        runner = self.runner(**options)
        results = runner.stream(source)
        return results if stream else list(results)

    __call__ = predict

    def export(self, format: str = "onnx", **arguments: Any) -> Path:
        """Writes the model for a runtime; returns the file or folder. docs/export.md lists formats and arguments.

        Raises what `edgepose_trainer.export.export_model` raises: a `ParityError` (a RuntimeError, with the artifact's
        `path`) for one that does not do what the checkpoint does.
        """
        from edgepose_trainer.export import export_model

        return export_model(self.exportable(), self.path, format, **arguments)

    def exportable(self) -> Checkpoint:
        """The checkpoint. Raises ValueError for an artifact: that is exported already."""
        return self._trainable("export")

    def info(self, imgsz: int | None = None) -> dict[str, Any]:
        """Plain data: parameters, flops (2 x multiply-adds at imgsz), layers and more; of an artifact, what it says of
        itself."""
        if self.checkpoint is not None:
            return model_info(self.checkpoint.model, imgsz)
        return dict(self.describe().to_dict())

    def describe(self) -> ModelInfo:
        """Of an artifact: what it is, how it is fed and read, and where it comes from."""
        if format_of_artifact(self.path) is not None:
            from edgepose_trainer.export.artifacts import describe_artifact

            return describe_artifact(self.path)
        from edgepose.info import describe

        return describe(str(self.path))

    def _trainable(self, verb: str) -> Checkpoint:
        if self.checkpoint is None:
            raise ValueError(
                f"{self.path} is an exported model: there is nothing to {verb}; use the .pt or .yaml it is from"
            )
        return self.checkpoint

    def runner(self, **options: Any) -> PoseRunner:
        """The `PoseRunner` that `predict` uses with these options; made once."""
        for name in options:
            if name not in (*_PREDICT_OPTIONS, "device"):
                raise TypeError(unknown_option(name, [*_PREDICT_OPTIONS, "device"]))
        key = tuple(sorted((name, str(value)) for name, value in options.items()))
        if key not in self._runners:
            self._runners[key] = self._new_runner(dict(options))
        return self._runners[key]

    def comparison_runner(self, size: tuple[int, int] | None, **options: Any) -> PoseRunner:
        """A runner of exact arithmetic at a size of (height, width), None for the artifact's own, for `verify`."""
        if size is not None:
            options["imgsz"] = size
        entry = format_of_artifact(self.path) if self.checkpoint is None else None
        if self.checkpoint is None and entry is None:
            precision = "f32" if identify(self.path).format == "openvino" else None  # its default may be bfloat16
            return PoseRunner(self.path, precision=precision, **options)
        return self._new_runner({**options, "device": entry.comparison_device if entry is not None else "cpu"})

    def _new_runner(self, options: dict[str, Any]) -> PoseRunner:
        device = options.pop("device", None)
        if self.checkpoint is None:
            entry = format_of_artifact(self.path)
            if entry is not None and entry.open is not None:
                return PoseRunner(entry.open(self.path, str(device or "auto")), **options)
            return PoseRunner(self.path, device=str(device or "auto"), **options)
        from edgepose_trainer.torch_backend import open_checkpoint

        if "imgsz" not in options and isinstance(size := self.checkpoint.settings.get("imgsz"), int):
            options["imgsz"] = size
        place = distributed.parse_devices(device)[0]
        return PoseRunner(open_checkpoint(self.checkpoint, place, str(self.path)), **options)

    def _val_settings(self, data: Any, settings: Mapping[str, Any]) -> tuple[Config, DataConfig]:
        for name in settings:
            if name not in _VAL_OPTIONS:
                raise TypeError(unknown_option(name, _VAL_OPTIONS))
        own = self.checkpoint is not None and bool(self.checkpoint.data)
        kept = self.checkpoint.settings if self.checkpoint is not None else {}
        remembered = {key: kept[key] for key in _REMEMBERED if own and key in kept}
        if not own and isinstance(kept.get("imgsz"), int):
            remembered = {"imgsz": kept["imgsz"]}
        return load_config(None, {**remembered, **settings}), self.val_data(data)

    def _val_dataset(self, data: DataConfig, config: Config, remembered: bool) -> Any:
        size = config.imgsz if self.checkpoint is not None else 32
        try:
            rect = config.rect and self.checkpoint is not None
            return build_dataset(data, config.split, size, None, config.cache or None, rect=rect)  # type: ignore[arg-type]
        except (FileNotFoundError, ValueError) as error:
            if not remembered:
                raise
            raise ValueError(
                f"{self.path}: the data it was trained on cannot be used here ({error}); pass data=, as in data=my.yaml"
            ) from error

    def _check_fits(self, decoder: DecoderSpec, people: PeopleSpec, data: DataConfig) -> None:
        """Raises ValueError where classes or keypoints are not as many; warns where they are in another order."""
        if (decoder.kpt_shape[0], decoder.num_classes) != (data.num_keypoints, data.num_classes):
            raise ValueError(
                f"{self.path} finds {decoder.num_classes} classes with {decoder.kpt_shape[0]} keypoints, the data has "
                f"{data.num_classes} with {data.num_keypoints}"
            )
        for what, ours, theirs in (
            ("classes", people.class_names, data.names),
            ("keypoints", people.keypoint_names, data.keypoint_names),
        ):
            if ours != theirs and sorted(ours) == sorted(theirs):
                log.warning("%s has its %s in the order %s, the data in the order %s", self.path, what, ours, theirs)
