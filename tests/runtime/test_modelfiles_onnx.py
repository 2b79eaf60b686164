from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepose.modelfiles.onnx import read_properties, write_properties

onnx = pytest.importorskip("onnx")


@pytest.fixture
def path(make_onnx: Callable[..., Path]) -> Path:
    return make_onnx({"output0": (1, 56, 126)}, properties={"task": "pose", "names": "{0: 'é'}"})


def test_properties_are_those_that_the_onnx_package_reads(path: Path) -> None:
    model = onnx.load(path)
    assert read_properties(str(path)) == {p.key: p.value for p in model.metadata_props}


def test_properties_of_a_real_export(shared: Path) -> None:
    path = shared / "models/yolov8n-pose_320.onnx"
    assert read_properties(str(path)) == {p.key: p.value for p in onnx.load(path).metadata_props}


def test_a_written_property_is_read_by_the_onnx_package(path: Path) -> None:
    write_properties(str(path), {"edgepose": '{"a": "ü"}'})
    model = onnx.load(path)
    assert {p.key: p.value for p in model.metadata_props}["edgepose"] == '{"a": "ü"}'
    onnx.checker.check_model(model)


def test_writing_keeps_everything_else(path: Path) -> None:
    before = onnx.load(path)
    write_properties(str(path), {"edgepose": "x" * 100_000})
    write_properties(str(path), {"edgepose": "second"})
    after = onnx.load(path)
    assert read_properties(str(path)) == {"task": "pose", "names": "{0: 'é'}", "edgepose": "second"}
    del before.metadata_props[:], after.metadata_props[:]
    assert before == after


def test_a_failed_write_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_properties(str(path), {"edgepose": "x"})
    assert path.read_bytes() == before
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_a_file_cut_inside_its_graph_is_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"truncated ONNX model: it has 2000 bytes, its field 7 ends at byte \d+"):
        read_properties(str(path))


def test_a_huge_property_is_refused_before_it_is_read(path: Path) -> None:
    write_properties(str(path), {"big": "x" * (5 << 20)})
    with pytest.raises(ValueError, match=r"metadata property of .* bytes, at most"):
        read_properties(str(path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_bytes_give_properties_or_a_value_error(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"\x08\x0a" + junk)
    try:
        properties = read_properties(str(path))
    except ValueError:
        return
    assert isinstance(properties, dict)
