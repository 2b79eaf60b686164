"""A tiny network with random weights, as a checkpoint, and how its exports are held against it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the trainer: torch is not installed")

if find_spec("paddle") is not None:  # it crashes where TensorFlow was imported before it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import paddle  # noqa: F401

from edgepose_trainer.checkpoint import Checkpoint, save_checkpoint  # noqa: E402
from edgepose_trainer.export.registry import formats  # noqa: E402
from edgepose_trainer.nn import build_model  # noqa: E402
from exporting import SMALL, excited  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    """litert-torch brings JAX, which warns of every subprocess that another converter starts later."""
    config.addinivalue_line("filterwarnings", r"ignore:os\.fork\(\) was called:RuntimeWarning")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPOSE_CACHE", str(tmp_path_factory.getbasetemp() / "edgepose-cache"))
        yield


@pytest.fixture(scope="session")
def needs() -> Callable[[str], None]:
    """Skips the test where a format's converter, or a module, is not installed."""

    def check(name: str) -> None:
        entry = formats().get(name)
        missing = entry.missing() if entry is not None else [name] if find_spec(name) is None else []
        if missing:
            extra = "export" if entry is None else entry.extra
            pytest.skip(f"needs {', '.join(missing)}: pip install 'edgepose[{extra}]'")

    return check


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """make_checkpoint(kpt_shape=(4, 2), nc=3) writes best.pt into a folder of its own; yaml: keys of the model YAML."""

    def make(
        kpt_shape: Sequence[int] = (17, 3), nc: int = 1, yaml: Mapping[str, Any] | None = None, **parts: Any
    ) -> Path:
        torch.manual_seed(4)
        network = excited(build_model(SMALL | dict(yaml or {}), kpt_shape=kpt_shape, nc=nc))
        parts = {"people": {"names": {i: f"kind{i}" for i in range(nc)}}, "settings": {"imgsz": 64}, **parts}
        path = tmp_path_factory.mktemp("export") / "best.pt"
        save_checkpoint(path, Checkpoint(network.eval(), **parts))
        return path

    return make


@pytest.fixture(scope="session")
def person(make_checkpoint: Callable[..., Path]) -> Path:
    """The checkpoint of a tiny network for COCO's people."""
    return make_checkpoint()


@pytest.fixture(scope="session")
def pictures() -> list[Any]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, size, np.uint8) for size in ((64, 96, 3), (90, 50, 3), (40, 160, 3))]


@pytest.fixture(scope="session")
def people_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of 6 noisy training and 4 validation pictures, each with one labelled person of 17 points."""
    from PIL import Image

    root = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(3)
    for split, count in (("train", 6), ("val", 4)):
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (64, 80, 3), np.uint8)).save(root / "images" / split / f"{i}.png")
            points = " ".join(f"{x:.3f} {y:.3f} 2" for x, y in rng.uniform(0.2, 0.8, (17, 2)))
            (root / "labels" / split / f"{i}.txt").write_text(f"0 0.5 0.5 0.6 0.6 {points}\n")
    (root / "people.yaml").write_text(
        f"path: {root}\ntrain: images/train\nval: images/val\nnames: {{0: person}}\nkpt_shape: [17, 3]\n"
    )
    return root / "people.yaml"
