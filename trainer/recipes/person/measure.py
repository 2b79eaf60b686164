"""Measures the default model for its card, beside MoveNet and YOLOv8n-pose, on pictures that nobody trained on.

python trainer/recipes/person/measure.py DATA MODELS best.pt [person.tflite]

DATA is what prepare.py made; MODELS holds movenet_single_pose_lightning_ptq.tflite and yolov8n-pose.pt; best.pt is the
checkpoint that the int8 file is of (or its float .onnx). Without the last word the file in the package is measured.
Writes measured.json beside this file, and of it the tables and the pictures of docs/model-card.md.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from card import FLOAT, INT8, MEASURED, MOVENET, PAGE, PEER, PEER_INT8, SHEET, with_tables
from edgepose_trainer.data import build_dataset, load_data_config
from edgepose_trainer.metrics import APs, Evaluator, Found, Truth
from edgepose_trainer.validate import truth_of
from failures import Picture, best_oks, box_areas, failures, labelled
from PIL import Image

from edgepose import PoseModel, PoseResult, PoseRunner
from edgepose.artifact import read_spec
from edgepose.coco import SIGMAS
from edgepose.modelfiles.files import write_atomically
from edgepose.pictures import load_picture
from edgepose.shipped import MODEL, PICTURES
from edgepose.writers import save_picture

LEAST_SCORE = 0.001  # of a detection that AP counts
LARGE = 0.05  # share of the picture from which a person should be found well
FACE = [0, 1, 2, 3, 4]
TILE = 200  # pixels, of the sheet

LOOKED_AT = (INT8, PEER)  # closely: where they fail


def main(data: Path, models: Path, checkpoint: Path, int8: Path) -> dict[str, Any]:
    """Everything that the card shows, as plain data."""
    imgsz = input_size(int8)
    sets = {"coco": pictures(data / "coco"), "lspet": pictures(data / "lspet", limbs=True)}
    with tempfile.TemporaryDirectory() as folder:
        paths = {
            INT8: int8,
            FLOAT: checkpoint,
            MOVENET: models / "movenet_single_pose_lightning_ptq.tflite",
            PEER_INT8: exported(models / "yolov8n-pose.pt", imgsz, data, Path(folder)),
            PEER: models / "yolov8n-pose.pt",
        }
        found = {name: predictions(paths, imgsz, chosen) for name, chosen in sets.items()}
        times = latency({name: paths[name] for name in (INT8, MOVENET, PEER_INT8)}, sets["coco"])
    return {
        "model": {"bytes": int8.stat().st_size, "sha256": hashlib.sha256(int8.read_bytes()).hexdigest(), "size": imgsz},
        "accuracy": {
            name: {model: accuracy(chosen, found[name][model]) for model in paths} for name, chosen in sets.items()
        },
        "failures": {
            name: {model: failures(chosen, found[name][model]) for model in LOOKED_AT} for name, chosen in sets.items()
        },
        "latency": {"processor": processor(), "pictures": len(sets["coco"]), **times},
    }


def write_card(measured: Mapping[str, Any], int8: Path) -> None:
    """measured.json, and of it the card's tables and pictures."""
    save_picture(SHEET, sheet(int8))
    write_atomically(str(MEASURED), [(json.dumps(measured, indent=1) + "\n").encode()])
    write_atomically(str(PAGE), [with_tables(PAGE.read_text(encoding="utf-8"), dict(measured)).encode()])


def input_size(model: Path) -> int:
    """The side of a model's square input."""
    spec = read_spec(model)
    if spec is None or spec.input.resize.size is None:
        raise ValueError(f"{model}: expected a model of edgepose export with a fixed input size")
    return spec.input.resize.size[0]


def exported(checkpoint: Path, imgsz: int, data: Path, folder: Path) -> Path:
    """A checkpoint as the default model is made of its own: in whole int8, calibrated on the same pictures."""
    return PoseModel(checkpoint).export(
        "tflite", int8=True, imgsz=imgsz, data=str(data / "person.yaml"), out=str(folder), verify=False
    )


def pictures(folder: Path, limbs: bool = False) -> list[Picture]:
    """The val pictures of a set in YOLO-pose layout. limbs: forget labels of the face."""
    split = "images/val"
    config = load_data_config(
        {"path": str(folder), "train": split, "val": split, "names": ["person"], "kpt_shape": [17, 3]}
    )
    dataset = build_dataset(config, "val", imgsz=32)
    chosen = [Picture(path, truth_of(dataset, index)) for index, path in enumerate(dataset.paths)]
    if limbs:
        for picture in chosen:
            picture.truth.keypoints[:, FACE, 2] = 0
    return chosen


def predictions(paths: Mapping[str, Path], imgsz: int, chosen: Sequence[Picture]) -> dict[str, list[Found]]:
    """Who each model finds, down to LEAST_SCORE; checkpoints in float32 at imgsz."""
    found = {}
    for name, path in paths.items():
        size = {"imgsz": imgsz} if path.suffix == ".pt" else {}
        predict = PoseModel(path).runner(conf=LEAST_SCORE, device="cpu", **size).predict
        found[name] = [as_found(predict(picture.path)) for picture in chosen]
    return found


def as_found(result: PoseResult) -> Found:
    return Found(result.boxes, result.scores, result.class_ids, result.keypoints, result.keypoint_scores)


def accuracy(chosen: Sequence[Picture], found: Sequence[Found]) -> dict[str, float]:
    """COCO's averages of keypoints, and the mean OKS of the best match of people over LARGE of the picture.

    COCO calls people of 32² to 96² pixels medium and larger ones large; the area is 0.53 of the box. Smaller ones
    COCO leaves out; those down to a third of its medium ones' sides are medium in pictures three times as large.
    """
    pose = averages(chosen, found)
    best = [best_oks(one, picture.truth)[is_large(picture)] for picture, one in zip(chosen, found, strict=True)]
    return {
        "AP": pose.map,
        "AP50": pose.map50,
        "AP small": averages(chosen, found, scale=3).map_medium,
        "AP medium": pose.map_medium,
        "AP large": pose.map_large,
        "AR": pose.ar,
        "OKS": float(np.mean(np.concatenate(best))),
    }


def averages(chosen: Sequence[Picture], found: Sequence[Found], scale: float = 1) -> APs:
    """COCO's, in pictures `scale` times as large."""
    evaluator = Evaluator(17, SIGMAS)
    for picture, one in zip(chosen, found, strict=True):
        truth = picture.truth
        points = truth.keypoints * [scale, scale, 1]
        evaluator.add(
            Found(one.boxes * scale, one.scores, one.class_ids, one.keypoints * scale, one.keypoint_scores),
            Truth(truth.boxes * scale, truth.class_ids, points),
        )
    return evaluator.result().pose


def is_large(picture: Picture) -> Any:
    """(M,) bool: who has a labelled keypoint and covers more than LARGE of the picture."""
    height, width = load_picture(picture.path)[0].shape[:2]
    return labelled(picture.truth) & (box_areas(picture.truth) > LARGE * height * width)


def latency(paths: Mapping[str, Path], chosen: Sequence[Picture]) -> dict[str, dict[str, float]]:
    """Of a whole predict on one thread: median ms of processor time, and median ratio to the first model's.

    The models see each picture one after the other, each in its turn first, so that what disturbs one disturbs all.
    """
    runners = [PoseRunner(path, threads=1) for path in paths.values()]
    for runner in runners:
        runner.warmup(3)
    times = np.zeros((len(chosen), len(runners)))
    for row, picture in enumerate(chosen):
        image, color = load_picture(picture.path)
        for turn in range(len(runners)):
            model = (row + turn) % len(runners)
            start = process_time()
            runners[model].predict(image, color=color)
            times[row, model] = (process_time() - start) * 1e3
    ms, ratios = np.median(times, 0), np.median(times / times[:, :1], 0)
    return {"ms": dict(zip(paths, ms.tolist(), strict=True)), "ratio": dict(zip(paths, ratios.tolist(), strict=True))}


def processor() -> str:
    """Its name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or platform.machine()


def sheet(model: Path) -> Image.Image:
    """The photos that ship, a row each, with whom the model finds: as they are, lying, upside down, dark, small."""
    runner = PoseRunner(model)
    rows = [changed(Image.open(path).convert("RGB").resize((TILE * 2, TILE * 2))) for path in PICTURES]
    canvas = Image.new("RGB", (TILE * len(rows[0]), TILE * len(rows)))
    for y, row in enumerate(rows):
        for x, photo in enumerate(row):
            drawn = runner.predict(photo).plot(photo)
            canvas.paste(drawn.resize((TILE, TILE)), (x * TILE, y * TILE))
    return canvas


def changed(photo: Image.Image) -> list[Image.Image]:
    small = Image.new("RGB", photo.size, (114, 114, 114))
    small.paste(photo.resize((photo.width // 4, photo.height // 4)), (photo.width * 3 // 8, photo.height * 3 // 8))
    return [photo, photo.rotate(90), photo.rotate(180), photo.point(lambda level: level * 0.15), small]


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit("usage: measure.py DATA MODELS best.pt [person.tflite]")
    data, models, checkpoint, int8 = (Path(word) for word in (*sys.argv[1:], str(MODEL))[:4])
    write_card(main(data, models, checkpoint, int8), int8)
