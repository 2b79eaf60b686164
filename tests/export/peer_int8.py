"""Measures the peer's own int8 exports beside ours: the same checkpoint, calibration pictures and validation pictures.

usage: python tests/export/peer_int8.py CHECKPOINT DATA [FORMAT …]

CHECKPOINT: a YOLOv8-pose .pt. DATA: a data YAML with train and val pictures. FORMAT: openvino, litert; both if none is
named. EDGEPOSE_PEER: the folder of an environment that holds the peer, and what its exporters import (nncf for
openvino, litert-torch and ai-edge-quantizer for litert). Some minutes each; not part of the tests.

The peer exports and predicts in its environment, by its public interface; its people are scored here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from edgepose_trainer.data import DataConfig, build_dataset, load_data_config
from edgepose_trainer.export.calibration import PICTURES
from edgepose_trainer.metrics import Evaluator, Found
from edgepose_trainer.validate import truth_of

SIZE = 320
PEER = """
import json, sys
from ultralytics import YOLO
checkpoint, data, format, pictures, size, out = sys.argv[1:]
size = int(size)
path = YOLO(checkpoint).export(format=format, quantize=8, data=data, imgsz=size) if format else checkpoint
model, people = YOLO(path, task="pose"), []
for picture in json.load(open(pictures)):
    found = model(picture, imgsz=size, conf=0.001, iou=0.7, max_det=300, rect=False, verbose=False)[0].cpu()
    boxes, keypoints = found.boxes, found.keypoints
    people.append([boxes.xyxy.tolist(), boxes.conf.tolist(), boxes.cls.tolist(), keypoints.data.tolist()])
json.dump({"path": str(path), "people": people}, open(out, "w"))
"""


def main(checkpoint: str, data: str, *formats: str) -> None:
    config = load_data_config(data)
    dataset = build_dataset(config, "val", SIZE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy = folder / Path(checkpoint).name  # the peer writes its exports beside it
        copy.write_bytes(Path(checkpoint).read_bytes())
        (folder / "pictures.json").write_text(json.dumps(dataset.paths))
        calibration = _calibration_data(config, folder)
        for format in ("", *(formats or ("openvino", "litert"))):
            found = _run_peer(copy, calibration, format, folder)
            evaluator = Evaluator(config.num_keypoints, config.sigmas, config.names, config.keypoint_names)
            for i, (boxes, scores, classes, keypoints) in enumerate(found):
                points = np.array(keypoints, np.float32).reshape(len(scores), -1, 3)
                evaluator.add(
                    Found(
                        np.array(boxes, np.float32).reshape(-1, 4),
                        np.array(scores, np.float32),
                        np.array(classes, np.int64),
                        points[..., :2],
                        points[..., 2],
                    ),
                    truth_of(dataset, i),
                )
            print(f"{format or 'checkpoint':<12} AP {evaluator.result({}).pose.map:.4f}", flush=True)


def _calibration_data(config: DataConfig, folder: Path) -> Path:
    """A data YAML whose pictures are the training pictures that our exports calibrate on."""
    dataset = build_dataset(config, "train", SIZE)
    picked = np.linspace(0, len(dataset) - 1, min(PICTURES, len(dataset))).round().astype(int)
    listed = folder / "calibration.txt"
    listed.write_text("\n".join(str(Path(dataset.paths[i]).resolve()) for i in picked))
    names, shape = dict(enumerate(config.names)), list(config.kpt_shape)
    text = yaml.safe_dump({"train": str(listed), "val": str(listed), "names": names, "kpt_shape": shape})
    path = folder / "calibration.yaml"
    path.write_text(text)
    return path


def _run_peer(checkpoint: Path, data: Path, format: str, folder: Path) -> list[list[list[float]]]:
    peer, out = os.environ["EDGEPOSE_PEER"], folder / f"found_{format}.json"
    words = [str(checkpoint), str(data), format, str(folder / "pictures.json"), str(SIZE), str(out)]
    command = f'. "{peer}/peer.env" && exec "{peer}/bin/python" -c "$0" "$@"'
    log = Path(f"peer_{format or 'checkpoint'}.log")
    with log.open("w") as chatter:
        run = subprocess.run(["sh", "-c", command, PEER, *words], stdout=chatter, stderr=chatter, check=False)
    if run.returncode:
        raise SystemExit(f"{format}: the peer ended with {run.returncode}; what it said is in {log}")
    answer = json.loads(out.read_text())
    print(f"{format or 'checkpoint'}: {Path(answer['path']).name}", flush=True)
    found: list[list[list[float]]] = answer["people"]
    return found


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
