"""edgepose: keypoint (pose) estimation on small computers.

    from edgepose import PoseRunner

    people = PoseRunner("model.tflite").predict("photo.jpg")

`PoseRunner` and `PoseResult` need numpy and the C++ core, nothing else. `PoseModel` trains, validates and exports; it
needs the extra `edgepose[train]` and is imported on first use.
"""

from edgepose.result import PoseResult
from edgepose.runner import PoseRunner

__version__ = "0.1.0"
__all__ = ["PoseResult", "PoseRunner", "__version__"]
