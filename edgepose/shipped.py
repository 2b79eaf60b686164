"""What comes inside the package: the default model, photos that are free of rights, the page of the demo."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"

MODEL = ASSETS / "person.tflite"
"""The default model: one person class, COCO's 17 keypoints, full int8. docs/model-card.md says what it can do."""

MAX_MODEL_BYTES = 4_000_000

PICTURES = (ASSETS / "astronaut.jpg", ASSETS / "photographer.jpg")
"""Photos in the public domain; assets/README.md says whose."""


def default_model() -> str:
    """Path of the model that is taken where none is named. Raises FileNotFoundError where the package lacks it."""
    if not MODEL.is_file():
        raise FileNotFoundError(
            f"{MODEL}: this build of edgepose has no model inside; name one: PoseRunner('model.tflite'), model=…"
        )
    return str(MODEL)
