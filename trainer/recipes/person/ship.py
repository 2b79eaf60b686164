"""Puts an exported model into the package as the default one, with what it is made of and under which terms.

python trainer/recipes/person/ship.py MODEL.tflite
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from edgepose.artifact import read_spec, write_spec
from edgepose.contract import ModelSpec
from edgepose.modelfiles.files import write_atomically
from edgepose.shipped import MAX_MODEL_BYTES, MODEL

ORIGIN = {
    "license": "Apache-2.0",
    "training_data": "COCO 2017 keypoints (a part), MPII Human Pose (a part), LSP Extended; docs/model-card.md",
}


def ship(model: Path, target: Path = MODEL) -> Path:
    """A copy of the model at `target`, ORIGIN added to its metadata.

    Raises ValueError for what may not be the default: too large, not whole int8, or without one person's 17 keypoints.
    """
    spec = read_spec(model)
    if spec is None:
        raise ValueError(f"{model} has no metadata of edgepose: make it by edgepose export format=tflite int8=true")
    check(model, spec)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(model, folder))
        write_spec(copy, spec._replace(origin=spec.origin | ORIGIN))
        write_atomically(str(target), [copy.read_bytes()])
    return target


def check(model: Path, spec: ModelSpec) -> None:
    size = model.stat().st_size
    if size > MAX_MODEL_BYTES:
        raise ValueError(f"{model} has {size / 1e6:.1f} MB, the package has room for {MAX_MODEL_BYTES / 1e6:g} MB")
    kinds = {spec.input.dtype, *(output.dtype for output in spec.outputs)}
    if kinds != {"int8"}:
        raise ValueError(f"{model} takes and gives {', '.join(sorted(kinds))}, expected int8 alone: export int8=true")
    if spec.people.class_names != ("person",) or spec.decoder.kpt_shape[0] != 17:
        found = f"{spec.decoder.kpt_shape[0]} keypoints of {', '.join(spec.people.class_names)}"
        raise ValueError(f"{model} finds {found}, expected COCO's 17 of a person")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: ship.py MODEL.tflite")
    print(ship(Path(sys.argv[1])))
