"""The loss against Ultralytics' numbers, the papers' formulas in plain loops, and the corner cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgepose_trainer.checkpoint import load_checkpoint  # noqa: E402
from edgepose_trainer.loss import PoseLoss  # noqa: E402

SHARED = Path(__file__).resolve().parents[3] / "shared"
CHECKPOINT = SHARED / "models" / "yolov8n-pose.pt"
REFERENCE = SHARED / "reference" / "yolov8n-pose_320.npz"


@pytest.mark.skipif(not REFERENCE.is_file(), reason="needs ../shared/reference")
def test_loss_items_and_gradients_equal_the_reference() -> None:
    reference = np.load(REFERENCE)
    model = load_checkpoint(CHECKPOINT).model
    batch = {
        "batch_idx": torch.from_numpy(reference["batch_idx"]),
        "cls": torch.from_numpy(reference["cls"]),
        "boxes": torch.from_numpy(reference["bboxes_xywhn"]),
        "keypoints": torch.from_numpy(reference["keypoints_xyn_v"]),
    }
    images = torch.from_numpy(reference["images_u8_rgb_nchw"]).float() / 255
    loss, items = PoseLoss(model)(model.raw(images), batch)
    loss.backward()
    np.testing.assert_allclose([float(v) for v in items.values()], reference["loss_items"], rtol=1e-4)
    assert [f"{name}_loss" for name in items] == list(reference["loss_names"])
    assert float(loss.detach()) == pytest.approx(float(reference["loss_sum"]), rel=1e-4)
    weights = dict(model.named_parameters())
    norms = [float(weights[name].grad.norm()) for name in reference["grad_names"]]
    np.testing.assert_allclose(norms, reference["grad_norms"], rtol=1e-3)
