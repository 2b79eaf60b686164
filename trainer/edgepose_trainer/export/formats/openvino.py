"""OpenVINO: the ONNX export turned into its IR; int8 by NNCF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from edgepose_trainer.export import nncf
from edgepose_trainer.export.formats import onnx
from edgepose_trainer.export.job import Converted, Job
from edgepose_trainer.export.registry import Format


def convert(job: Job) -> Converted:
    import openvino as ov

    traced = job.traced(half=False)
    source = job.folder / "traced.onnx"
    onnx.write_onnx(job, source, half=False)
    model = ov.convert_model(source)
    folder = job.folder / job.artifact_name
    folder.mkdir()
    spec = job.input_spec()
    metadata: dict[str, Any] = {}
    if job.arguments.precision == "int8":
        calibration = job.pictures()
        images = list(calibration.batches(batch=job.arguments.batch))
        model, metadata["quantization"] = nncf.quantize(model, images, calibration.method)
        _take_levels(model)
        spec = job.input_spec(dtype="uint8", std=(1.0, 1.0, 1.0))
    ov.save_model(model, folder / f"{job.name}.xml", compress_to_fp16=job.arguments.precision == "float16")
    if job.arguments.layout == "ultralytics":
        write_metadata_yaml(job, folder)
    return Converted(folder, spec, traced.outputs, metadata)


def write_metadata_yaml(job: Job, folder: Path) -> None:
    """metadata.yaml beside the model, where Ultralytics' exports have it."""
    from edgepose_trainer.export.spec import ultralytics_metadata

    text = yaml.safe_dump(ultralytics_metadata(job), sort_keys=False, allow_unicode=True)
    (folder / "metadata.yaml").write_text(text, encoding="utf-8")


def _take_levels(model: Any) -> None:
    """Lets the model take uint8 levels: dividing by 255 becomes its own first step."""
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(ov.Type.u8)
    steps.input().preprocess().convert_element_type(ov.Type.f32).scale(255.0)
    steps.build()


FORMAT = Format(
    name="openvino",
    suffixes={
        "float32": "_openvino_model",
        "float16": "_float16_openvino_model",
        "int8": "_int8_openvino_model",
    },
    variants="f32, f16, int8 (NNCF); any size and batch; layout=ultralytics",
    proven_by="OpenVINO",
    arguments=("half", "int8", "dynamic", "batch", "layout", "fraction", "calibration"),
    convert=convert,
    needs=("openvino", "onnx", "onnxscript", "onnxslim"),
    needs_for_int8=("nncf",),
    layouts=("edgepose", "ultralytics"),
    deploy='pip install "edgepose[openvino]", PoseRunner("{name}")',
)
