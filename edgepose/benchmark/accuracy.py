"""The AP of a model on labelled pictures, in a process of its own: `main()` reads JSON and prints JSON.

Labels are read, and people matched with them, by the trainer half.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from edgepose.benchmark.case import serve
from edgepose.pictures import seen_from


def check_labels(data: str) -> None:
    """Raises ImportError naming the extra where AP cannot be measured here, FileNotFoundError where there is no such
    data YAML, neither a file nor one of the trainer's own."""
    missing = [name for name in ("edgepose_trainer", "torch", "faster_coco_eval") if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"data= measures AP, which needs the trainer here, and {missing[0]} is not installed: "
            'pip install "edgepose[train]"; without data= latency, memory and size are measured'
        )
    trainer = find_spec("edgepose_trainer")
    folders = list(trainer.submodule_search_locations or ()) if trainer is not None else []
    own = [os.path.join(folder, "cfg", "data", data) for folder in folders]
    if not any(os.path.isfile(path) for path in (os.path.expanduser(data), *own)):
        raise FileNotFoundError(f"there is no data YAML {data!r}{seen_from(data)}")


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """The OKS AP of request["model"] on the validation pictures of request["data"], as `edgepose val` measures it."""
    from edgepose import PoseModel

    size = {} if request["imgsz"] is None else {"imgsz": request["imgsz"]}
    metrics = PoseModel(request["model"]).val(data=request["data"], conf=0.001, amp=False, **size)
    return {"ap": metrics.pose.map}


def main() -> None:
    serve(measure)
