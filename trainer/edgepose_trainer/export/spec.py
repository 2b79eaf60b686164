"""The metadata of an artifact: edgepose's own, and those that applications which read Ultralytics' exports look for."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import edgepose
from edgepose.contract import ModelSpec
from edgepose_trainer.export.job import Converted, Job
from edgepose_trainer.torch_backend import people_spec


def model_spec(job: Job, made: Converted, source: Path) -> ModelSpec:
    """The contract of an artifact. source: the checkpoint's file."""
    heads = job.arguments.layout == "edgepose"
    normalized = not heads and made.metadata.get("normalized", False)
    metadata = {key: value for key, value in made.metadata.items() if key != "normalized"}
    return ModelSpec(
        input=made.input,
        outputs=made.outputs,
        decoder=job.checkpoint.decoder._replace(type="yolo_heads" if heads else "yolo", normalized=normalized),
        people=people_spec(job.checkpoint.people),
        origin=_origin(job, source) | metadata,
    ).checked()


def _origin(job: Job, source: Path) -> dict[str, Any]:
    checkpoint = job.checkpoint
    facts: dict[str, Any] = {
        "edgepose_version": edgepose.__version__,
        "producer": "edgepose",
        "checkpoint": source.name,
        "checkpoint_sha256": hashlib.sha256(source.read_bytes()).hexdigest() if source.is_file() else None,
        "checkpoint_producer": checkpoint.origin.get("producer"),
        "license": checkpoint.origin.get("license"),
        "format": job.arguments.format.name,
        "precision": job.arguments.precision,
        "export_imgsz": list(job.size),
    }
    if job.calibration is not None:
        facts["calibration"] = job.calibration.describe()
    return {key: value for key, value in facts.items() if value is not None}


def ultralytics_metadata(job: Job) -> dict[str, Any]:
    """The keys that Ultralytics' own exports carry (docs.ultralytics.com, modes/export), as plain values."""
    network, arguments = job.checkpoint.model, job.arguments
    people = people_spec(job.checkpoint.people)
    values: dict[str, Any] = {
        "description": f"{job.name}, exported by edgepose",
        "author": "edgepose",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": edgepose.__version__,
        "license": str(job.checkpoint.origin.get("license", "")),
        "docs": "",
        "stride": job.stride,
        "task": "pose",
        "batch": arguments.batch,
        "imgsz": list(job.size),
        "names": dict(enumerate(people.class_names)),
        "args": {
            "batch": arguments.batch,
            "half": arguments.precision == "float16",
            "int8": False,
            "dynamic": arguments.dynamic,
            "simplify": arguments.simplify,
            "nms": False,
        },
        "channels": 3,
        "kpt_shape": list(network.kpt_shape),
        "end2end": False,
    }
    if people.keypoint_names:
        values["kpt_names"] = {index: list(people.keypoint_names) for index in range(network.nc)}
    return values
