"""The verbs of the `edgepose` command: the device half's, and the names of those that the trainer half brings."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Final

from edgepose.command.verbs import BOOL, FLOAT, INT, INTS, SIZE, TEXT, WORDS, Option, Verb, one_of

TASKS: Final = ("pose",)

_MODEL = "model file or folder: .onnx, .tflite, OpenVINO's folder or .xml"

_RUNNER_OPTIONS = (
    Option("imgsz", SIZE, None, "input size in pixels, for models that take more than one"),
    Option("device", TEXT, "auto", "where the model runs: auto, cpu, gpu, npu, edgetpu, edgetpu:1, usb, pci …"),
    Option("precision", TEXT, None, "arithmetic of the runtime: f32 is exact; without it the runtime's own choice"),
    Option("spec", TEXT, None, "a model without metadata: a spec file (.json, .yaml) or the name of a known one"),
)

_FOLDER_OPTIONS = (
    Option("project", TEXT, "runs/pose", "folder that the run's folder is made in"),
    Option("exist_ok", BOOL, False, "write into an existing run folder instead of making name2, name3 …"),
)

_PREDICT = Verb(
    "predict",
    "Find people in pictures, videos, cameras and streams.",
    "edgepose.command.predict:run",
    (
        Option("model", TEXT, None, f"{_MODEL}; with the trainer a checkpoint (.pt); the one that ships if not given"),
        Option(
            "source",
            TEXT,
            None,
            "picture, folder, glob, URL, video, camera number or rtsp://…; two that ship if not given",
        ),
        Option("conf", FLOAT, 0.25, "least score of a person"),
        Option("iou", FLOAT, None, "overlap above which the lower-scored person is dropped; the model's if not given"),
        Option("max_det", INT, 300, "most people in a picture"),
        Option("classes", INTS, None, "keep these class numbers only", repeated=True),
        Option(
            "nms", one_of("iou", "oks"), None, "overlap by boxes (iou) or keypoints (oks); the model's if not given"
        ),
        Option("agnostic", BOOL, False, "people of different classes drop each other too"),
        *_RUNNER_OPTIONS,
        Option("rect", BOOL, False, "models of dynamic size: pad to the stride only, not to a square"),
        Option("backend", TEXT, "auto", "runtime: onnxruntime, openvino, tflite; by the file if not named"),
        Option("threads", INT, None, "CPU threads of the runtime; its own choice if not given"),
        Option("save", BOOL, True, "write annotated pictures or video into the run's folder"),
        Option("show", BOOL, False, "show annotated pictures in a window (needs a screen and OpenCV)"),
        Option("save_json", BOOL, False, "write results.json: everything that was found"),
        Option("save_csv", BOOL, False, "write results.csv: a row a person"),
        Option("save_coco", BOOL, False, "write coco.json: COCO keypoint results"),
        Option("line_width", INT, None, "width of drawn lines in pixels; by the picture's size if not given"),
        Option("vid_stride", INT, 1, "videos: use every n-th frame"),
        Option("name", TEXT, "predict", "name of the run's folder"),
        *_FOLDER_OPTIONS,
        Option("verbose", BOOL, False, "let the runtime print its own messages"),
    ),
    (
        "edgepose predict source=photo.jpg",
        "edgepose predict model=pose.onnx source=clip.mp4 conf=0.4 save_csv=true",
        "edgepose predict model=pose.tflite source=0 show=true save=false",
    ),
)

_DEMO = Verb(
    "demo",
    "Find people in front of the camera, live: in a window, or on a page on localhost where there is no screen.",
    "edgepose.command.demo:run",
    (
        Option("source", TEXT, "0", "camera number, video, picture, rtsp://…"),
        Option("model", TEXT, None, f"{_MODEL}; the one that ships if not given"),
        Option("conf", FLOAT, 0.25, "least score of a person"),
        Option("device", TEXT, "auto", "where the model runs: auto, cpu, gpu, npu, edgetpu, edgetpu:1, usb, pci …"),
        Option("backend", TEXT, "auto", "runtime: onnxruntime, openvino, tflite; by the file if not named"),
        Option("threads", INT, None, "CPU threads of the runtime; its own choice if not given"),
        Option("page", BOOL, None, "the page instead of a window; if not given: where no window can open"),
        Option("host", TEXT, "127.0.0.1", "address of the page; 0.0.0.0 shows the camera to the whole network"),
        Option("port", INT, 8008, "port of the page; 0: a free one"),
    ),
    ("edgepose demo", "edgepose demo source=clip.mp4 page=true", "edgepose demo host=0.0.0.0"),
)

_INFO = Verb(
    "info",
    "Say what a model is, how it is fed and read, and where it comes from.",
    "edgepose.command.info:run",
    (
        Option(
            "model",
            TEXT,
            None,
            f"{_MODEL}; with the trainer a checkpoint (.pt) or a model's .yaml; the one that ships if not given",
        ),
        Option("spec", TEXT, None, "a model without metadata: a spec file (.json, .yaml) or the name of a known one"),
        Option("json", BOOL, False, "print one JSON object"),
    ),
    ("edgepose info", "edgepose info model=pose.onnx", "edgepose info model=pose.tflite json=true"),
)

_BENCHMARK = Verb(
    "benchmark",
    "Measure latency per stage, memory, size and accuracy of models, each case in a fresh process.",
    "edgepose.command.benchmark:run",
    (
        Option(
            "model",
            TEXT,
            None,
            f"{_MODEL}; a folder or glob of them; with the trainer a checkpoint (.pt) and the exports beside it; "
            "the one that ships if not given",
            repeated=True,
        ),
        Option("source", TEXT, None, "picture to predict on; a made-up 640x480 one if not given"),
        Option("data", TEXT, None, "data YAML: measure the AP on its validation pictures too (needs the trainer)"),
        Option("backend", WORDS, "auto", "runtimes to try each model on", repeated=True),
        Option("threads", INTS, None, "numbers of CPU threads to try; the runtime's own choice if not given", True),
        *_RUNNER_OPTIONS,
        Option("conf", FLOAT, 0.25, "least score of a person"),
        Option("runs", INT, 100, "timed predictions of each case"),
        Option("warmup", INT, 10, "predictions before the timed ones, the first is timed by itself"),
        Option("timeout", FLOAT, 600.0, "seconds after which a case is given up"),
        Option("save", BOOL, True, "write benchmark.json and benchmark.csv into the run's folder"),
        Option(
            "plot",
            BOOL,
            None,
            "write benchmark.png and accuracy.png (extra [plot]); if not given: when matplotlib is there",
        ),
        Option("json", BOOL, False, "print one JSON object"),
        Option("name", TEXT, "benchmark", "name of the run's folder"),
        *_FOLDER_OPTIONS,
    ),
    (
        "edgepose benchmark model=pose.onnx model=pose.tflite threads=1,4",
        "edgepose benchmark model=pose.onnx backend=onnxruntime,openvino source=photo.jpg",
        "edgepose benchmark model=best.pt data=my.yaml source=photo.jpg",
    ),
)

_DOCTOR = Verb(
    "doctor",
    "Look at the board: runtimes, delegates, processor, heat, cameras; say what is missing and how to get it.",
    "edgepose.command.doctor:run",
    (
        Option("json", BOOL, False, "print one JSON object"),
        Option("timeout", FLOAT, 30.0, "seconds after which the probe of a runtime is given up"),
    ),
    ("edgepose doctor", "edgepose doctor json=true"),
)

VERBS: Final = {verb.name: verb for verb in (_PREDICT, _DEMO, _INFO, _BENCHMARK, _DOCTOR)}

# Their options come from edgepose_trainer.cli.VERBS, which is imported when one of them is used.
TRAINER_VERBS: Final = {
    "train": "Train a model on labelled pictures.",
    "val": "Measure a model's accuracy on labelled pictures.",
    "export": "Make an artifact for a runtime of a checkpoint, and prove that it does what the checkpoint did.",
    "verify": "Compare an artifact with the checkpoint that it is from, on real pictures.",
    "convert": "Convert labels between formats.",
    "check": "Look for what is broken in a data set, and draw its labels.",
    "cfg": "Print every training setting with its default.",
}

# A checkpoint, the plan of a network, or an artifact that the device half has no runtime for: the trainer's verb of
# the same name takes it.
TRAINER_FILES: Final = (
    ".pt",
    ".pth",
    ".yaml",
    ".yml",
    ".torchscript",
    "_ncnn_model",
    ".mlpackage",
    ".pte",
    "_saved_model",
    "_web_model",
    ".pb",
    "_paddle_model",
    ".engine",
)


def verb_names() -> tuple[str, ...]:
    return (*VERBS, *TRAINER_VERBS)


def find_verb(name: str, models: Iterable[str] = ()) -> Verb:
    """The declaration of a verb.

    Raises ImportError where the trainer half, which brings it, is not there; ValueError for a checkpoint where the
    verb takes none.
    """
    if name in TRAINER_VERBS:
        return _trainer_verbs(name)[name]
    checkpoint = next((model for model in models if model.lower().rstrip("/").endswith(TRAINER_FILES)), None)
    if checkpoint is None or name == _BENCHMARK.name:  # each of its cases finds the half that runs it
        return VERBS[name]
    verbs = _trainer_verbs(name)
    if name not in verbs:
        raise ValueError(f'"edgepose {name}" takes models that a runtime runs (.onnx, .tflite …), got {checkpoint}')
    return verbs[name]


def _trainer_verbs(name: str) -> dict[str, Verb]:
    try:
        verbs: dict[str, Verb] = import_module("edgepose_trainer.cli").VERBS
    except ModuleNotFoundError as error:
        raise ImportError(
            f'"edgepose {name}" needs the trainer here, and {error.name} is not installed: '
            'pip install "edgepose[train]"'
        ) from error
    return verbs
