"""Checkpoints: ours and Ultralytics', whole or refused, and nothing in them run."""

from __future__ import annotations

import io
import os
import pickle
import resource
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgepose_trainer.checkpoint import (  # noqa: E402
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    transfer_weights,
)
from edgepose_trainer.nn import PoseNetwork, build_model  # noqa: E402
from edgepose_trainer.safe_pickle import UnsafePickleError  # noqa: E402

SHARED = Path(__file__).resolve().parents[3] / "shared"
ULTRALYTICS = SHARED / "models" / "yolov8n-pose.pt"
REFERENCE = SHARED / "reference" / "yolov8n-pose_320.npz"
needs_shared = pytest.mark.skipif(not ULTRALYTICS.is_file(), reason="needs ../shared/models and ../shared/reference")

TINY: dict[str, Any] = {
    "name": "tiny",
    "nc": 1,
    "kpt_shape": [3, 3],
    "scale": [0.33, 0.125, 64],
    "backbone": {"stem": 64, "stages": [[64, 1], [64, 1]]},
    "neck": {"levels": 2},
    "head": {"reg_max": 4},
}


def tiny(**change: Any) -> PoseNetwork:
    torch.manual_seed(0)
    return build_model({**TINY, **change}).eval()


def same_weights(a: PoseNetwork, b: PoseNetwork) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "best.pt"
    save_checkpoint(path, Checkpoint(tiny(), people={"names": ["person"]}, epoch=4))
    return path


def test_everything_comes_back(tmp_path: Path) -> None:
    training = {"optimizer": {"state": {0: {"step": torch.tensor(3.0), "m": torch.randn(2, 3)}}}, "rng": (1, (2, 3))}
    given = Checkpoint(
        tiny(),
        people={"names": ["person"], "sigmas": [0.1, 0.2, 0.3]},
        settings={"lr0": 0.01, "data": tmp_path, "freeze": None, "tags": ("a", b"b")},
        data={"path": "x", "train": ["a", "b"]},
        epoch=7,
        metrics={"pose/map": 0.5},
        training=training,
        origin={"producer": "test"},
    )
    path = tmp_path / "last.pt"
    save_checkpoint(path, given)
    found = load_checkpoint(path)
    assert same_weights(found.model, given.model)
    assert found.model.config == given.model.config
    assert not found.model.training
    assert (found.people, found.data, found.epoch) == (given.people, given.data, 7)
    assert (found.metrics, found.origin) == (given.metrics, given.origin)
    assert found.settings == {**given.settings, "data": str(tmp_path)}
    assert found.training is not None
    assert found.training["rng"] == (1, (2, 3))
    assert torch.equal(found.training["optimizer"]["state"][0]["m"], training["optimizer"]["state"][0]["m"])


def test_our_checkpoints_load_with_weights_only(saved: Path) -> None:
    document = torch.load(saved, weights_only=True)
    assert document["format"] == "edgepose-checkpoint"
    assert list(document["model"]) == list(tiny().state_dict())


def test_a_half_precision_checkpoint_is_half_as_large_and_loads_as_float32(tmp_path: Path) -> None:
    network = build_model("yolov8p-pose.yaml")
    for half in (False, True):
        save_checkpoint(tmp_path / f"{half}.pt", Checkpoint(network), half=half)
    assert (tmp_path / "True.pt").stat().st_size < 0.55 * (tmp_path / "False.pt").stat().st_size
    weight = load_checkpoint(tmp_path / "True.pt").model.model[0].conv.weight
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, network.model[0].conv.weight, rtol=1e-3, atol=1e-6)


def test_a_folded_network_comes_back_folded(tmp_path: Path) -> None:
    folded = tiny().folded()
    save_checkpoint(tmp_path / "folded.pt", Checkpoint(folded))
    assert same_weights(load_checkpoint(tmp_path / "folded.pt").model, folded)


def test_a_loaded_network_trains(saved: Path) -> None:
    network = load_checkpoint(saved).model.train()
    raw = network(torch.rand(2, 3, 32, 32))
    sum(level.mean() for level in raw.tensors()).backward()
    learning = {name for name, p in network.named_parameters() if p.grad is not None}
    assert learning == {name for name, p in network.named_parameters() if p.requires_grad}
    assert {n for n, p in network.named_parameters() if not p.requires_grad} == {
        f"model.{len(network.model) - 1}.dfl.conv.weight"
    }


def test_objects_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"settings\.callback is a function"):
        save_checkpoint(tmp_path / "a.pt", Checkpoint(tiny(), settings={"callback": tiny}))
    assert not list(tmp_path.iterdir())


def test_weights_come_back_in_the_plain_order_of_memory(tmp_path: Path) -> None:
    """A 1x1 weight trained channels-last counts as contiguous, and has strides that ExecuTorch refuses."""
    network = tiny().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_checkpoint(tmp_path / "a.pt", Checkpoint(network))
    for weight in load_checkpoint(tmp_path / "a.pt").model.state_dict().values():
        assert weight.stride() == torch.empty(weight.shape).stride()


def test_a_failed_write_leaves_the_last_good_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def fail(_: object, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("unexpected pos 1 vs 2")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="what was there before is unchanged"):
        save_checkpoint(saved, Checkpoint(tiny(), epoch=5))
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["best.pt"]


def test_a_full_disk_is_an_error_that_leaves_the_last_good_checkpoint(saved: Path) -> None:
    before = saved.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"could not be written|File too large"):
            save_checkpoint(saved, Checkpoint(tiny(), epoch=5))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["best.pt"]


def test_pretrained_takes_what_fits_and_says_what_did_not() -> None:
    source = tiny()
    target = tiny(kpt_shape=[4, 2])
    with torch.no_grad():
        for p in source.parameters():
            p.add_(1)
    done = transfer_weights(target, source.state_dict())
    own = target.state_dict()
    assert set(done.taken) | set(done.left) == set(own)
    assert all(torch.equal(own[name], source.state_dict()[name]) for name in done.taken)
    assert all(".cv4." in name for name in done.left)
    last = f"model.{len(target.model) - 1}.cv4.0.2.bias"
    assert done.left[last] == "shape [9] there, [8] here"
    assert f"{len(done.taken)} of {len(own)} tensors taken" in str(done)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_says_so(saved: Path, part: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ValueError, match=r"best\.pt: .*(truncated|empty)"):
        load_checkpoint(saved)


def test_a_flipped_byte_in_a_weight_is_noticed(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        entry = max(archive.infolist(), key=lambda e: e.file_size)
    data = bytearray(saved.read_bytes())
    data[entry.header_offset + 200] ^= 1
    saved.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "not a checkpoint"),
        (pickle.dumps({"a": 1}), "before torch 1.6"),
        (b"\0" * 257 + b"ustar" + b"\0" * 300, "before torch 1.6"),
    ],
)
def test_other_files_are_told_from_checkpoints(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(path)


def test_the_format_of_before_torch_1_6_is_refused_clearly(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"before torch 1\.6"):
        load_checkpoint(path)


def test_tensors_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"state_dict": {"a": torch.ones(2)}}, path)
    with pytest.raises(ValueError, match="neither a checkpoint of edgepose nor a YOLOv8 pose checkpoint"):
        load_checkpoint(path)


def changed(path: Path, **change: Any) -> Path:
    document = torch.load(path, weights_only=True)
    torch.save({**document, **change}, path)
    return path


def test_weights_of_another_shape_are_refused(saved: Path) -> None:
    with pytest.raises(ValueError, match=r"do not fit the network .* the first 'model\.0\.conv\.weight'"):
        load_checkpoint(changed(saved, model=build_model(TINY, scale=[0.33, 0.25, 64]).state_dict()))


def test_a_later_version_asks_for_an_update(saved: Path) -> None:
    with pytest.raises(ValueError, match=r"version 2.*update edgepose"):
        load_checkpoint(changed(saved, version=2))


@pytest.mark.parametrize("config", [None, [], {"nc": 1}, {**TINY, "nc": 10**9}, {**TINY, "kpt_shape": [[[]]]}])
def test_a_damaged_description_of_the_network_is_refused(saved: Path, config: Any) -> None:
    with pytest.raises(ValueError, match=r"best\.pt"):
        load_checkpoint(changed(saved, config=config))


@pytest.mark.parametrize(("key", "value"), [("people", []), ("epoch", "3"), ("training", 1), ("model", None)])
def test_a_part_of_another_kind_is_refused(saved: Path, key: str, value: Any) -> None:
    with pytest.raises(ValueError, match="best"):
        load_checkpoint(changed(saved, **{key: value}))


def test_a_checkpoint_of_the_first_schema_always_loads() -> None:
    checkpoint = load_checkpoint(Path(__file__).parent / "files" / "checkpoint_v1.pt")
    assert checkpoint.people == {"names": ["person"], "keypoint_names": ["a", "b", "c"]}
    assert (checkpoint.epoch, checkpoint.model.kpt_shape) == (4, (3, 3))
    with torch.no_grad():
        decoded = checkpoint.model(torch.full((1, 3, 8, 8), 0.5))
    np.testing.assert_allclose(decoded[0, :5, 0].numpy(), [1.7125, 2.2174, 11.732, 11.712, 0.00020293], rtol=1e-3)


@pytest.mark.parametrize("name", ["yolov8n-pose.pt", "runs/yolov8x-pose-p6.pt", "yolo11n-pose.pt"])
def test_a_known_name_that_is_not_there_is_never_downloaded(name: str) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"downloads no weights.*github.com/ultralytics/assets.*AGPL-3\.0"
    ) as info:
        load_checkpoint(name)
    assert "PoseRunner()" in str(info.value)


def test_another_missing_file_is_just_missing() -> None:
    with pytest.raises(FileNotFoundError, match=r"no file 'best\.pt'$"):
        load_checkpoint("best.pt")


class Call:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def zipped(path: Path, pickled: bytes, storages: dict[str, bytes] | None = None, **options: Any) -> Path:
    """A zip file laid out as torch.save does, around any pickle."""
    with zipfile.ZipFile(path, "w", options.get("compression", zipfile.ZIP_STORED)) as archive:
        archive.writestr(f"{options.get('prefix', 'archive')}/data.pkl", pickled)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def tensor_pickle(key: str, count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """The pickle of one float32 tensor over storage `key`, as torch writes it."""

    class Storage:
        pass

    class Tensor:
        def __reduce__(self) -> Any:
            return (torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, {}))

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, key, "cpu", count) if isinstance(value, Storage) else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(Tensor())
    return buffer.getvalue()


@pytest.mark.parametrize("place", ["alone", "nested", "beside"])
def test_a_hostile_checkpoint_is_refused_by_name_and_runs_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bomb = Call(os.system, "touch ran")
    document = {"alone": bomb, "nested": {"model": [(bomb,)]}, "beside": {"format": "edgepose-checkpoint", "x": bomb}}
    path = tmp_path / "x.pt"
    torch.save(document[place], path)
    with pytest.raises(UnsafePickleError, match=r"tries to call posix\.system"):
        load_checkpoint(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pt"]


@pytest.mark.parametrize(
    "function", [eval, exec, getattr, __import__, open, subprocess.Popen, torch.load, torch.hub.load, np.load]
)
def test_no_function_is_called(function: Any, tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.pt", pickle.dumps(Call(function, "x"), 2))
    with pytest.raises(UnsafePickleError, match="tries to call"):
        load_checkpoint(path)


def test_an_unknown_class_is_inert(tmp_path: Path) -> None:
    """Its __setstate__ is never reached, and the file is no checkpoint for it."""
    pickled = b"\x80\x02cedgepose_trainer.checkpoint\nCheckpoint\n)\x81}X\x01\x00\x00\x00aK\x01sb."
    with pytest.raises(ValueError, match="neither a checkpoint"):
        load_checkpoint(zipped(tmp_path / "x.pt", pickled))


def test_an_object_inside_our_own_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"format": "edgepose-checkpoint", "version": 1, "x": torch.nn.Identity()}, path)
    with pytest.raises(ValueError, match=r"torch\.nn\.modules\.linear\.Identity where plain data is expected"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("count", "size", "stride", "offset", "message"),
    [
        (1 << 40, (4,), (1,), 0, "holds 16 bytes, expected 1099511627776 elements"),
        (4, (1 << 20, 1 << 20), (0, 0), 0, "over a storage of 4 elements"),
        (4, (4,), (2,), 0, "reaches outside its storage"),
        (4, (4,), (1,), 1, "reaches outside its storage"),
        (4, (-4,), (1,), 0, "without a storage, size or stride"),
        (4, (2, 2), (1,), 0, "over a storage"),
    ],
)
def test_sizes_that_a_storage_cannot_hold_are_refused(
    tmp_path: Path, count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int, message: str
) -> None:
    path = zipped(tmp_path / "x.pt", tensor_pickle("0", count, size, stride, offset), {"0": bytes(16)})
    with pytest.raises(ValueError, match=message):
        load_checkpoint(path)


def test_a_missing_storage_is_named(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.pt", tensor_pickle("../../etc/passwd", 4, (4,), (1,)))
    with pytest.raises(ValueError, match=r"storage \.\./\.\./etc/passwd is missing"):
        load_checkpoint(path)


def test_compressed_and_doubled_entries_are_refused(tmp_path: Path) -> None:
    bomb = zipped(tmp_path / "a.pt", bytes(10_000_000), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="neither compresses nor encrypts"):
        load_checkpoint(bomb)
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"N.")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("archive/data.pkl", b"N.")
    with pytest.raises(ValueError, match="some of one name"):
        load_checkpoint(tmp_path / "b.pt")
    elsewhere = zipped(tmp_path / "c.pt", b"N.", prefix="../../archive")
    with pytest.raises(ValueError, match=r"expected one data\.pkl"):
        load_checkpoint(elsewhere)


def test_entries_that_overlap_to_claim_more_than_the_file_are_refused(tmp_path: Path) -> None:
    """A directory whose every entry points at the same bytes."""
    path = zipped(tmp_path / "x.pt", b"N.", {str(i): bytes(5000) for i in range(3)})
    data = bytearray(path.read_bytes())
    size = (5000).to_bytes(4, "little")
    place = data.rindex(size)
    data[place : place + 4] = data[place - 4 : place] = (1 << 30).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ValueError, match="claim more bytes than the file has"):
        load_checkpoint(path)


@needs_shared
def test_ultralytics_weights_decode_as_the_reference() -> None:
    reference = np.load(REFERENCE)
    checkpoint = load_checkpoint(ULTRALYTICS)
    images = torch.from_numpy(reference["images_u8_rgb_nchw"]).float() / 255
    with torch.no_grad():
        found = checkpoint.model(images).numpy()
        folded = checkpoint.model.folded()(images).numpy()
    scores = [4, *range(7, 56, 3)]
    places = [i for i in range(56) if i not in scores]
    for decoded in (found, folded):
        np.testing.assert_allclose(decoded[:, places], reference["decoded"][:, places], rtol=0, atol=1e-2)
        np.testing.assert_allclose(decoded[:, scores], reference["decoded"][:, scores], rtol=0, atol=1e-4)
    assert checkpoint.model.config.name == "yolov8n-pose"
    assert checkpoint.origin["producer"] == "Ultralytics 8.4.190"
    assert "AGPL-3.0" in checkpoint.origin["license"]


@needs_shared
def test_ultralytics_weights_fit_our_own_network_of_that_name() -> None:
    done = transfer_weights(build_model("yolov8n-pose.yaml"), load_checkpoint(ULTRALYTICS).model.state_dict())
    assert not done.left
    assert not done.unused


@needs_shared
def test_an_ultralytics_checkpoint_saved_as_ours_is_the_same(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(ULTRALYTICS)
    save_checkpoint(tmp_path / "ours.pt", checkpoint)
    assert same_weights(load_checkpoint(tmp_path / "ours.pt").model, checkpoint.model)


@pytest.mark.slow
@needs_shared
def test_ultralytics_is_never_imported() -> None:
    script = (
        "import sys; sys.modules['ultralytics'] = None\n"
        "from edgepose_trainer.checkpoint import load_checkpoint\n"
        f"print(load_checkpoint({str(ULTRALYTICS)!r}).model.kpt_shape)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(17, 3)", done.stderr


@needs_shared
@pytest.mark.parametrize("part", [0.05, 0.5, 0.99])
def test_a_truncated_ultralytics_checkpoint_says_so(tmp_path: Path, part: float) -> None:
    data = ULTRALYTICS.read_bytes()
    path = tmp_path / "yolov8n-pose.pt"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ValueError, match="truncated"):
        load_checkpoint(path)
