"""The models that a benchmark is asked for: files, folders, globs, a checkpoint with the exports beside it."""

from __future__ import annotations

import os
from glob import glob, has_magic
from pathlib import Path

from edgepose.command.registry import TRAINER_FILES
from edgepose.modelfiles.detect import identify

_CHECKPOINTS, _PLANS = (".pt", ".pth"), (".yaml", ".yml")


def find_models(asked: str | os.PathLike[str]) -> list[str]:
    """The paths of the models that one word stands for, sorted.

    A glob: those that match; a folder of models: those in it; a checkpoint: itself, then the exports that lie beside it
    (`best_int8.tflite` and `best.onnx` beside `best.pt`). Anything else is a model's path, whether it is there or not.

    Raises ValueError where a glob or a folder has none.
    """
    path = os.fspath(asked)
    if os.path.exists(path):
        if path.lower().endswith(_CHECKPOINTS):
            return [path, *_exports_of(Path(path))]
        if not os.path.isdir(path) or _is_model(path):
            return [path]
        found = [os.path.join(path, name) for name in sorted(os.listdir(path))]
    elif has_magic(path):
        found = sorted(glob(path))
    else:
        return [path]
    models = [name for name in found if _is_model(name)]
    if not models:
        raise ValueError(f"there is no model in {path}: expected .onnx, .tflite, OpenVINO's folders, or other exports")
    return models


def needs_trainer(model: str | None) -> bool:
    """Whether the trainer half runs the model: a checkpoint, or a format that `PoseRunner` has no runtime for."""
    return model is not None and model.lower().rstrip("/").endswith(TRAINER_FILES)


def _exports_of(checkpoint: Path) -> list[str]:
    names = (
        name
        for name in sorted(os.listdir(checkpoint.parent))
        if name.startswith((f"{checkpoint.stem}.", f"{checkpoint.stem}_"))
    )
    paths = (str(checkpoint.parent / name) for name in names)
    return [path for path in paths if not path.lower().endswith(_CHECKPOINTS) and _is_model(path)]


def _is_model(path: str) -> bool:
    if needs_trainer(path):
        return not path.lower().endswith(_PLANS)
    try:
        identify(path)
    except (OSError, ValueError):
        return False
    return True
