"""edgepose: keypoint (pose) estimation on small computers.

    from edgepose import PoseRunner

    people = PoseRunner("model.tflite").predict("photo.jpg")

`PoseRunner` and `PoseResult` need numpy and the C++ core, nothing else. `PoseModel` trains, validates and exports; it
needs the extra `edgepose[train]` and is imported on first use.
"""

from typing import TYPE_CHECKING, Any

from edgepose.result import PoseResult
from edgepose.runner import PoseRunner

if TYPE_CHECKING:
    from edgepose_trainer.model import PoseModel as PoseModel

__version__ = "0.1.0"
__all__ = ["PoseModel", "PoseResult", "PoseRunner", "__version__"]


def __getattr__(name: str) -> Any:
    """`PoseModel` is the trainer's, which imports PyTorch: loaded when it is asked for (PEP 562)."""
    if name != "PoseModel":
        raise AttributeError(f"module 'edgepose' has no attribute {name!r}")
    try:
        from edgepose_trainer.model import PoseModel
    except ModuleNotFoundError as error:
        raise ImportError(
            f'PoseModel trains and validates models; it needs {error.name}: pip install "edgepose[train]"'
        ) from error
    globals()[name] = PoseModel
    return PoseModel
