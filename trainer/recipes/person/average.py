"""The mean of checkpoints of one network (model soups, Wortsman et al., 2022): legs that went different ways from the
same weights are better together than each alone.

python trainer/recipes/person/average.py OUT.pt A.pt B.pt … [setting=value …]

A file named twice counts twice. The settings, such as iou=0.5, are what an export takes from a checkpoint. The weights
are written in float16, small enough to be kept.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from edgepose_trainer.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def average(out: Path, files: list[Path], settings: dict[str, Any]) -> None:
    """Raises ValueError where the networks are not the same one."""
    first = load_checkpoint(files[0])
    mean = {name: value.clone() for name, value in first.model.state_dict().items()}
    for count, file in enumerate(files[1:], 2):
        other = load_checkpoint(file).model
        if other.config.document != first.model.config.document:
            raise ValueError(f"{file} holds another network than {files[0]}")
        for name, value in other.state_dict().items():
            if value.is_floating_point():
                mean[name] += (value - mean[name]) / count
    first.model.load_state_dict(mean)
    origin = {"producer": "edgepose", "averaged": str(len(files))}
    save_checkpoint(out, Checkpoint(first.model, first.people, settings, origin=origin), half=True)


if __name__ == "__main__":
    names = [word for word in sys.argv[1:] if "=" not in word]
    if len(names) < 3:
        sys.exit("usage: average.py OUT.pt A.pt B.pt … [setting=value …]")
    said = (word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    average(Path(names[0]), [Path(name) for name in names[1:]], {key: yaml.safe_load(value) for key, value in said})
