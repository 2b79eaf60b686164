"""Unpacks the person sets and writes the data YAML that the default model trains on.

    python trainer/recipes/person/prepare.py FOLDER_OF_ZIPS TARGET

FOLDER_OF_ZIPS holds coco.zip, mpii.zip and lspet.zip in YOLO-pose layout (COCO's 17 points). TARGET gets their files,
`lspet/upright.txt` and `person.yaml`.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

SETS = ("coco", "mpii", "lspet")
FACE = [0, 1, 2, 3, 4]  # v = 0 there means unknown in the sets whose limbs alone were labelled by hand
SHOULDERS, HIPS, LEGS = [5, 6], [11, 12], [13, 14, 15, 16]
LEAST_UPRIGHT = 0.8  # cosine of the torso's angle to the vertical


def main(zips: Path, target: Path) -> Path:
    """Returns the data YAML."""
    for name in SETS:
        with zipfile.ZipFile(zips / f"{name}.zip") as archive:
            archive.extractall(target / name)
    labels = sorted((target / "lspet" / "labels" / "train").glob("*.txt"))
    chosen = [picture for label in labels if stands(label, picture := picture_of(label))]
    (target / "lspet" / "upright.txt").write_text("\n".join(str(path.resolve()) for path in chosen) + "\n")
    limbs = {"background_weight": 0.25, "unknown_keypoints": FACE}
    document = {
        "path": str(target.resolve()),
        "names": ["person"],
        "kpt_shape": [17, 3],
        "flip_idx": [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15],
        "sets": [
            {"path": "coco", "train": "images/train", "val": "images/val", "repeat": 4},
            {"path": "mpii", "train": "images/train", "repeat": 3, **limbs},
            {"path": "lspet", "train": "upright.txt", **limbs},
        ],
    }
    path = target / "person.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def picture_of(label: Path) -> Path:
    return label.parents[2] / "images" / label.parent.name / f"{label.stem}.jpg"


def stands(label: Path, picture: Path) -> bool:
    """Whether the first person's torso is upright and the legs are below the hips."""
    rows = label.read_text().splitlines()
    if not rows:
        return False
    with Image.open(picture) as image:
        size = np.array(image.size)
    points = np.array(rows[0].split()[5:], float).reshape(17, 3)
    places, known = points[:, :2] * size, points[:, 2] > 0
    if not known[SHOULDERS + HIPS].all():
        return False
    torso = places[HIPS].mean(0) - places[SHOULDERS].mean(0)
    legs = [i for i in LEGS if known[i]]
    below = not legs or places[legs, 1].mean() >= places[HIPS, 1].mean()
    return bool(torso[1] >= LEAST_UPRIGHT * np.hypot(*torso) and below)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: prepare.py FOLDER_OF_ZIPS TARGET")
    print(main(Path(sys.argv[1]), Path(sys.argv[2])))
