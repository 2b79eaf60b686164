"""From labelled pictures to the default model: unpacks, trains, exports, ships and measures.

python trainer/recipes/person/make.py ZIPS MODELS TARGET [START] [setting=value …]

ZIPS is what prepare.py unpacks and MODELS what measure.py compares with; data, runs and artifacts come into the folder
TARGET. START: a checkpoint to go on from; without one it starts from nothing, as `model.yaml` says. The settings are
those of train.yaml, and what is said here wins over them; a run that was stopped goes on with resume=…/last.pt.
"""

from __future__ import annotations

import sys
from pathlib import Path

import measure
import yaml
from prepare import main as prepare
from ship import ship

from edgepose import PoseModel

HERE = Path(__file__).parent
SIZE = 320


def main(zips: Path, models: Path, target: Path, start: Path, settings: list[str]) -> Path:
    """Returns the model in the package."""
    data = target / "person.yaml"
    if not data.is_file():
        prepare(zips, target)
    best = train(data, target / "runs", start, settings)
    exported = export(best, data)
    shipped = ship(exported)
    measure.write_card(measure.main(target, models, best, shipped), shipped)
    return shipped


def train(data: Path, runs: Path, start: Path, settings: list[str]) -> Path:
    said = {name: yaml.safe_load(value) for name, value in (word.split("=", 1) for word in settings)}
    result = PoseModel(start).train(cfg=HERE / "train.yaml", **{"data": str(data), "project": str(runs)} | said)
    if result.best is None or result.interrupted:
        sys.exit(f"the training stopped before its end: go on with resume={result.last}")
    return result.best


def export(best: Path, data: Path) -> Path:
    """The int8 TFLite file; the ONNX file beside it is the same model in float. Ranges by squared error move the fewest
    keypoints from one of two peaks to the other."""
    model = PoseModel(best)
    model.export("onnx", imgsz=SIZE, data=data)
    return Path(model.export("tflite", imgsz=SIZE, int8=True, calibration="mse", data=data))


if __name__ == "__main__":
    places = [word for word in sys.argv[1:] if "=" not in word]
    if len(places) not in (3, 4):
        sys.exit("usage: make.py ZIPS MODELS TARGET [START] [setting=value …]")
    zips, models, target, start = (Path(place) for place in (*places, str(HERE / "model.yaml"))[:4])
    print(main(zips, models, target, start, [word for word in sys.argv[1:] if "=" in word]))
