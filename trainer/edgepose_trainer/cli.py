"""The verbs that the trainer brings to the `edgepose` command. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import json as json_format
import math
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from edgepose.command import registry
from edgepose.command.verbs import BOOL, FLOAT, INT, SIZE, TEXT, WORDS, Kind, Option, UsageError, Verb, one_of
from edgepose.shipped import default_model
from edgepose_trainer.config import default_settings, default_text, parse_setting

if TYPE_CHECKING:
    from edgepose_trainer.model import PoseModel

INTERRUPTED = 130


@cache
def _settings_help() -> dict[str, str]:
    """The comment of each setting in cfg/default.yaml."""
    lines = [line for line in default_text().splitlines() if " # " in line]
    return {line.partition(":")[0]: line.partition(" # ")[2] for line in lines}


def _settings(names: Iterable[str]) -> tuple[Option, ...]:
    defaults, meanings = default_settings(), _settings_help()
    return tuple(Option(name, _setting_kind(name), defaults[name], meanings[name]) for name in names)


def _setting_kind(name: str) -> Kind:
    def parse(text: str) -> Any:
        try:
            return parse_setting(name, text)
        except TypeError as error:
            raise UsageError(str(error)) from None

    return Kind("value", parse)


_CFG = Option("cfg", TEXT, None, "a YAML of settings; key=value words win over it")
_JSON = Option("json", BOOL, False, "print one JSON object")
_MODEL = Option("model", TEXT, None, "checkpoint (.pt), model YAML or exported model", required=True)

_TRAIN = Verb(
    "train",
    registry.TRAINER_VERBS["train"],
    "edgepose_trainer.cli:train",
    (_CFG, *_settings(name for name in default_settings() if name != "task")),
    (
        "edgepose train data=coco8-pose.yaml model=yolov8n-pose.yaml epochs=100 imgsz=640",
        "edgepose train data=my.yaml model=best.pt epochs=20",
        "edgepose train resume=runs/pose/train/weights/last.pt",
    ),
    extra="train",
)

_VAL = Verb(
    "val",
    registry.TRAINER_VERBS["val"],
    "edgepose_trainer.cli:val",
    (
        replace(_MODEL, required=False, help=f"{_MODEL.help}; the one that ships if not given"),
        *_settings(
            ("data", "split", "imgsz", "batch", "rect", "conf", "iou", "nms", "max_det", "device", "workers", "cache")
        ),
        *_settings(("amp", "threads", "plots", "project")),
        Option("name", TEXT, "val", "the run's folder; val2, val3 … where it exists"),
        *_settings(("exist_ok",)),
        _JSON,
    ),
    ("edgepose val model=best.pt", "edgepose val model=pose.onnx data=my.yaml", "edgepose val data=my.yaml"),
    extra="train",
)


def _int8(text: str) -> bool | str:
    return text if text in ("mixed", "dynamic") else bool(BOOL.parse(text))


_EXPORT = Verb(
    "export",
    registry.TRAINER_VERBS["export"],
    "edgepose_trainer.cli:export",
    (
        Option("model", TEXT, None, "checkpoint (.pt) or model YAML; without it the table of formats is printed"),
        Option("format", TEXT, "onnx", "format of the artifact; edgepose export prints them all"),
        Option("imgsz", SIZE, None, "input size in pixels; the checkpoint's own if not given"),
        Option("half", BOOL, False, "float16"),
        Option(
            "int8",
            Kind("true|false|mixed|dynamic", _int8),
            False,
            "static int8; mixed: sensitive layers in float; dynamic: int8 weights alone",
        ),
        Option("data", TEXT, None, "data YAML for calibration and comparison; the one trained on if not given"),
        Option("fraction", FLOAT, None, "share of the training pictures to calibrate on; 200 pictures if not given"),
        Option("calibration", TEXT, "auto", "ranges of int8: auto (the format's best), minmax, percentile or mse"),
        Option("dynamic", BOOL, False, "any input size and batch"),
        Option("batch", INT, 1, "pictures at once"),
        Option("layout", TEXT, "edgepose", "edgepose: raw heads; ultralytics: their decoded tensor and metadata"),
        Option("opset", INT, None, "ONNX operator set; 18 if not given"),
        Option("simplify", BOOL, True, "simplify the ONNX graph"),
        Option("device", TEXT, None, "device that a format is built on, where it matters"),
        Option("out", TEXT, None, "folder of the artifact; the checkpoint's if not given"),
        Option("verify", BOOL, True, "compare the artifact with the checkpoint"),
    ),
    (
        "edgepose export",
        "edgepose export model=best.pt format=onnx",
        "edgepose export model=best.pt format=tflite int8=true data=my.yaml imgsz=320",
        "edgepose export model=best.pt format=openvino dynamic=true",
    ),
    extra="train",
)

_VERIFY = Verb(
    "verify",
    registry.TRAINER_VERBS["verify"],
    "edgepose_trainer.cli:verify",
    (
        _MODEL,
        Option("against", TEXT, None, "the checkpoint, or any other model", required=True),
        Option("data", TEXT, None, "data YAML; the one that the checkpoint was trained on if not given"),
        _JSON,
    ),
    ("edgepose verify model=best_int8.tflite against=best.pt data=my.yaml",),
    extra="train",
)

_RUNTIME_ONLY = ("backend", "precision", "spec", "threads", "verbose")
_PREDICT = replace(
    registry.VERBS["predict"],
    run="edgepose_trainer.cli:predict",
    options=tuple(option for option in registry.VERBS["predict"].options if option.name not in _RUNTIME_ONLY),
    examples=("edgepose predict model=best.pt source=photo.jpg",),
    extra="train",
)

_INFO = Verb(
    "info",
    registry.VERBS["info"].summary,
    "edgepose_trainer.cli:info",
    (_MODEL, Option("imgsz", INT, None, "size that FLOPs are counted at; 640 (1280 for p6) if not given"), _JSON),
    ("edgepose info model=yolov8n-pose.yaml json=true",),
    extra="train",
)

_CHECK = Verb(
    "check",
    registry.TRAINER_VERBS["check"],
    "edgepose_trainer.cli:check",
    (
        Option("data", TEXT, None, "data YAML", required=True),
        Option("splits", WORDS, None, "train,val,test; all there are if not given"),
        Option("count", INT, 16, "pictures on the contact sheet"),
        Option("out", TEXT, "runs/check", "folder of the report"),
    ),
    ("edgepose check data=my.yaml",),
    extra="train",
)

_CONVERT = Verb(
    "convert",
    registry.TRAINER_VERBS["convert"],
    "edgepose_trainer.cli:convert",
    (
        Option("source", TEXT, None, "data YAML, or COCO keypoint JSON", required=True),
        Option("to", one_of("text", "pickle", "coco"), None, "form of the new labels", required=True),
        Option("out", TEXT, None, "folder that they are written into", required=True),
        Option("splits", WORDS, None, "train,val,test; all there are if not given"),
        Option("overwrite", BOOL, False, "replace label files that are there"),
    ),
    ("edgepose convert source=annotations.json to=text out=labels",),
    extra="train",
)

_CFG_VERB = Verb(
    "cfg",
    registry.TRAINER_VERBS["cfg"],
    "edgepose_trainer.cli:cfg",
    (),
    ("edgepose cfg > my.yaml",),
    extra="train",
)

VERBS = {verb.name: verb for verb in (_TRAIN, _VAL, _EXPORT, _VERIFY, _PREDICT, _INFO, _CHECK, _CONVERT, _CFG_VERB)}


def train(cfg: str | None = None, **settings: Any) -> int:
    from edgepose_trainer.config import load_config
    from edgepose_trainer.train import train as run

    result = run(load_config(cfg, settings))
    if result.interrupted:
        return INTERRUPTED
    if result.metrics is not None:
        print(result.metrics.table())
    print(f"best weights: {result.best}" if result.best else f"results in {result.folder}")
    return 0


def val(
    model: str | None = None,
    plots: bool = True,
    project: str = "runs/pose",
    name: str = "val",
    exist_ok: bool = False,
    json: bool = False,
    **settings: Any,
) -> int:
    from edgepose.command.runs import new_run_folder
    from edgepose_trainer.model import PoseModel
    from edgepose_trainer.plots import ValPictures, draw_metrics

    loaded = PoseModel(default_model() if model is None else model)
    pictures = ValPictures(skeleton=loaded.val_data(settings.get("data")).skeleton)
    metrics = loaded.val(validators=[pictures] if plots else [], **settings)
    print(_json_text(metrics.to_dict() | {"speed": metrics.speed}) if json else metrics.table())
    if plots:
        folder = new_run_folder(project, name, exist_ok)
        draw_metrics(metrics, folder)
        pictures.save(folder / "val_pictures.jpg")
        print(f"plots in {folder}", file=sys.stderr)
    return 0


def _json_text(numbers: dict[str, Any]) -> str:
    """JSON, which knows no NaN: what was not measured is null."""
    unknown = {name: None for name, value in numbers.items() if isinstance(value, float) and math.isnan(value)}
    return json_format.dumps(numbers | unknown, allow_nan=False)


def export(model: str | None = None, format: str = "onnx", **arguments: Any) -> int:
    """Prints what is worth knowing, and the artifact's path as the last line. 1 where the comparison failed."""
    from edgepose_trainer.export.registry import format_table

    if model is None:
        print(format_table())
        return 0
    from edgepose_trainer.export import ParityError, export_model
    from edgepose_trainer.model import PoseModel

    loaded = PoseModel(model)
    try:
        path = export_model(loaded.exportable(), loaded.path, format, report=print, **arguments)
    except ParityError as error:
        print(f"edgepose: {error}", file=sys.stderr)
        print(error.path)
        return 1
    print(path)
    return 0


def verify(model: str, against: str, data: str | None = None, json: bool = False) -> int:
    from edgepose_trainer.export import verify as compare

    parity = compare(model, against, data)
    print(json_format.dumps(parity.to_dict()) if json else parity.table())
    return 0 if parity.passed else 1


def predict(
    model: str,
    source: str | None = None,
    conf: float = 0.25,
    iou: float | None = None,
    max_det: int = 300,
    nms: str | None = None,
    agnostic: bool = False,
    imgsz: Any = None,
    device: str = "auto",
    rect: bool = False,
    **output: Any,
) -> int:
    from edgepose.command.predict import predict_source
    from edgepose_trainer.model import PoseModel

    options: dict[str, Any] = {
        "conf": conf,
        "iou": iou,
        "max_det": max_det,
        "nms": nms,
        "agnostic": agnostic,
        "rect": rect,
    }
    if imgsz is not None:
        options["imgsz"] = imgsz
    if device != "auto":
        options["device"] = device
    return predict_source(PoseModel(model).runner(**options), source, **output)


def info(model: str, imgsz: int | None = None, json: bool = False) -> int:
    from edgepose_trainer.model import PoseModel

    loaded = PoseModel(model)
    if loaded.checkpoint is None:
        return _artifact_info(loaded, json)
    facts = loaded.info(imgsz)
    if json:
        print(json_format.dumps(facts))
        return 0
    layers = facts.pop("layers", [])
    rows = [f"{row['index']:>3}  {row['from']!s:<14} {row['module']:<10} {row['parameters']:>12,}" for row in layers]
    print("\n".join(["  #  from           module       parameters", *rows, ""]))
    print(
        "\n".join(
            f"{name:<12}{value:,}" if isinstance(value, int) else f"{name:<12}{value}" for name, value in facts.items()
        )
    )
    return 0


def _artifact_info(model: PoseModel, json: bool) -> int:
    """1 where it could be described but not opened, as the device half's `info`."""
    from edgepose.command.info import info_text

    described = model.describe()
    print(json_format.dumps(described.to_dict(), indent=2) if json else info_text(described))
    return 0 if described.problem is None else 1


def check(data: str, splits: list[str] | None = None, count: int = 16, out: str = "runs/check") -> int:
    from edgepose_trainer.data.check import check_dataset

    print(check_dataset(data, out, splits, count, verbose=True).summary())
    return 0


def convert(source: str, to: str, out: str, splits: list[str] | None = None, overwrite: bool = False) -> int:
    from edgepose_trainer.data.convert import convert_labels

    report = convert_labels(source, to, out, splits, overwrite, verbose=True)
    print(f"wrote {report.files} files below {report.out}")
    for problem in report.problems:
        print(f"{'left out: ' if problem.left_out else ''}{problem}", file=sys.stderr)
    return 0


def cfg() -> int:
    print(default_text(), end="")
    return 0
