"""`PoseModel`: every kind of model under one object, and the same through the command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from edgepose_trainer import cli
from edgepose_trainer.cli import VERBS
from edgepose_trainer.config import default_settings
from edgepose_trainer.data import load_data_config
from edgepose_trainer.nn import build_model
from edgepose_trainer.train import Run

from edgepose import PoseModel, PoseResult, PoseRunner
from edgepose.cli import main


@pytest.fixture(scope="module")
def trained(tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The best.pt of a short run through the facade."""
    model = PoseModel(tiny_settings["model"])
    settings = {key: value for key, value in tiny_settings.items() if key not in ("model", "plots")}
    result = model.train(**settings, project=str(tmp_path_factory.mktemp("runs")))
    assert result.best is not None
    assert model.path == result.best
    return result.best


def test_a_run_leaves_table_settings_curves_and_pictures(trained: Path) -> None:
    written = {path.name for path in trained.parents[1].iterdir()}
    wanted = {"args.yaml", "results.csv", "results.png", "labels.png", "pr_curve.png", "f1_curve.png"}
    assert wanted | {"keypoint_error.png", "val_pictures.jpg", "train_batch_epoch1.jpg"} <= written


def test_the_saved_settings_train_the_same_weights_again(trained: Path, tmp_path: Path) -> None:
    again = PoseModel("yolov8p-pose.yaml")
    result = again.train(cfg=trained.parents[1] / "args.yaml", project=str(tmp_path), plots=False)
    first = PoseModel(trained).checkpoint
    assert first is not None
    assert again.checkpoint is not None
    pairs = zip(first.model.parameters(), again.checkpoint.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert result.folder.parent == tmp_path


def test_val_needs_no_argument_after_training(trained: Path, drawn_data: Path) -> None:
    metrics = PoseModel(trained).val(device="cpu", threads=1)
    assert metrics.images == 4
    assert metrics.pose.map == pytest.approx(PoseModel(trained).val(data=str(drawn_data), imgsz=64).pose.map)
    assert len(metrics.box.maps) == 1


def test_val_of_moved_data_asks_for_data(trained: Path) -> None:
    model = PoseModel(trained)
    assert model.checkpoint is not None
    moved = {key: value for key, value in model.checkpoint.data.items() if key != "sets"}
    model.checkpoint.data = {**moved, "path": "/nowhere", "val": "images/val"}
    with pytest.raises(ValueError, match="pass data="):
        model.val()


def test_val_at_a_size_that_the_network_cannot_take_is_refused(trained: Path) -> None:
    with pytest.raises(ValueError, match=r"imgsz=100 .* largest stride 32"):
        PoseModel(trained).val(imgsz=100)
    assert PoseModel(trained).val(imgsz=100, rect=True).images == 4  # padded to the stride


def test_a_checkpoint_predicts_through_the_device_half(trained: Path, drawn_data: Path) -> None:
    picture = next((drawn_data.parent / "images" / "val").glob("*.png"))
    model = PoseModel(trained)
    by_path = model(str(picture), conf=0.01)
    assert isinstance(by_path, list)
    assert isinstance(by_path[0], PoseResult)
    by_array = list(model.predict(cv2.imread(str(picture)), conf=0.01, stream=True))
    np.testing.assert_array_equal(by_path[0].keypoints, by_array[0].keypoints)
    assert by_path[0].people.keypoint_names[0] == "left_shoulder"


def test_an_ultralytics_checkpoint_finds_the_people_that_its_own_export_finds(shared: Path) -> None:
    found = PoseModel(shared / "models" / "yolov8n-pose.pt").predict(str(shared / "data" / "bus.jpg"), imgsz=320)
    expected = PoseRunner(shared / "models" / "yolov8n-pose_320.onnx").predict(str(shared / "data" / "bus.jpg"))
    assert isinstance(found, list)
    np.testing.assert_allclose(found[0].keypoints, expected.keypoints, atol=0.5)
    np.testing.assert_allclose(found[0].scores, expected.scores, atol=0.005)


def test_a_foreign_checkpoint_asks_for_data(shared: Path) -> None:
    with pytest.raises(ValueError, match="pass data="):
        PoseModel(shared / "models" / "yolov8n-pose.pt").val()


def test_an_artifact_is_validated_but_not_trained(shared: Path, drawn_data: Path) -> None:
    model = PoseModel(shared / "models" / "yolov8n-pose_320.onnx")
    with pytest.raises(ValueError, match="nothing to train"):
        model.train(data=str(drawn_data))
    with pytest.raises(ValueError, match="1 classes with 17 keypoints, the data has 1 with 4"):
        model.val(data=str(drawn_data), conf=1e-6)


def test_weights_are_loaded_into_a_new_network(trained: Path) -> None:
    model = PoseModel("yolov8p-pose.yaml").load(trained)
    source = PoseModel(trained).checkpoint
    assert model.checkpoint is not None
    assert source is not None
    first = "model.0.conv.weight"
    assert torch.equal(model.checkpoint.model.state_dict()[first], source.model.state_dict()[first])


def test_weights_that_do_not_fit_are_told(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    PoseModel("yolov8t-pose.yaml").load(trained)
    assert "tensors taken; left as they were: model.0.conv.weight (shape" in caplog.text


def test_callbacks_are_called_at_their_events(tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    model = PoseModel(tiny_settings["model"])
    for event in ("on_train_start", "on_epoch_end", "on_train_end"):

        def note(run: Run, event: str = event) -> None:
            seen.append((event, run.state.epoch))

        model.add_callback(event, note)
    settings = {key: value for key, value in tiny_settings.items() if key != "model"}
    model.train(**settings | {"epochs": 2, "val": False, "project": str(tmp_path)})
    assert seen == [("on_train_start", 0), ("on_epoch_end", 1), ("on_epoch_end", 2), ("on_train_end", 2)]
    with pytest.raises(ValueError, match="on_epoch_end"):
        model.add_callback("on_epoch_ends", note)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda model: model.train(epoch=3), ValueError, "'epochs'"),
        (lambda model: model.val(batchsize=3), TypeError, "'batch'"),
        (lambda model: model.predict("x.jpg", confidence=0.1), TypeError, "'conf'"),
    ],
)
def test_an_unknown_option_names_the_nearest(
    call: Callable[[PoseModel], Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        call(PoseModel("yolov8p-pose.yaml"))


def test_info_counts_parameters_and_flops() -> None:
    facts = PoseModel("yolov8n-pose.yaml").info()
    assert (facts["parameters"], round(facts["flops"] / 1e9, 1)) == (3289964, 9.2)


def test_a_missing_model_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.onnx"):
        PoseModel("nothing.onnx")


def test_importing_edgepose_does_not_import_torch() -> None:
    code = "import edgepose, sys; assert 'torch' not in sys.modules; edgepose.PoseModel; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the command


def test_the_command_trains_validates_and_predicts(
    tiny_settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], drawn_data: Path
) -> None:
    project = f"project={tmp_path}"
    words = [f"{key}={value}" for key, value in tiny_settings.items() if key not in ("epochs", "verbose")]
    assert main(["pose", "train", *words, "task=pose", "epochs=1", "verbose=false", project]) == 0
    best = f"model={tmp_path / 'train' / 'weights' / 'best.pt'}"
    capsys.readouterr()
    assert main(["val", best, "json=true", project]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["pose/AP"] >= 0
    assert (tmp_path / "val" / "pr_curve.png").is_file()
    source = f"source={drawn_data.parent / 'images' / 'val'}"
    assert main(["predict", best, source, "save_json=true", project]) == 0
    assert len(json.loads((tmp_path / "predict" / "results.json").read_text())) == 4


def test_the_command_draws_the_val_pictures_that_training_drew(trained: Path, tmp_path: Path) -> None:
    assert main(["val", f"model={trained}", f"project={tmp_path}", "device=cpu", "threads=1"]) == 0
    drawn, again = (folder / "val_pictures.jpg" for folder in (trained.parents[1], tmp_path / "val"))
    assert drawn.read_bytes() == again.read_bytes()


def test_the_command_prints_settings_and_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cfg"]) == 0
    assert "epochs: 100 # " in capsys.readouterr().out
    assert main(["info", "model=yolov8n-pose.yaml", "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 3289964


@pytest.mark.parametrize("verb", ["train", "val"])
def test_the_commands_defaults_are_those_of_the_settings(verb: str) -> None:
    """So that the command and Python measure alike."""
    defaults = default_settings() | ({"name": "val"} if verb == "val" else {})
    given = {option.name: option.default for option in VERBS[verb].options if option.name in defaults}
    expected = {name: defaults[name] for name in given}
    assert given | {"model": None} == expected | {"model": None}


def test_a_wrong_setting_of_the_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "data=x.yaml", "epoch=3"]) == 2
    assert "'epochs'" in capsys.readouterr().err


def test_classes_in_another_order_are_told_of(
    trained: Path, drawn_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = "[left_shoulder, right_shoulder, left_hip, right_hip]"
    other = "[right_shoulder, left_shoulder, left_hip, right_hip]"
    (tmp_path / "other.yaml").write_text(drawn_data.read_text().replace(names, other))
    PoseModel(trained).val(data=tmp_path / "other.yaml", threads=1, workers=0)
    assert "has its keypoints in the order" in caplog.text


def test_a_network_without_names_is_validated(drawn_data: Path) -> None:
    model = PoseModel("yolov8p-pose.yaml")
    assert model.checkpoint is not None
    model.checkpoint.model = build_model("yolov8p-pose.yaml", nc=2, kpt_shape=(4, 3))
    data = load_data_config(drawn_data).to_dict() | {"names": {0: "a", 1: "b"}}
    assert model.val(data=data, imgsz=64, threads=1, workers=0).images == 4


def test_json_says_null_of_what_was_not_measured() -> None:
    assert json.loads(cli._json_text({"pck": float("nan"), "speed": {"decode": 1.0}})) == {
        "pck": None,
        "speed": {"decode": 1.0},
    }
