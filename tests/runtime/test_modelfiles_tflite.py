from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepose.modelfiles.tflite import (
    EDGETPU_OP,
    custom_operators,
    read_member,
    read_members,
    trailing_json,
    write_member,
)


@pytest.fixture
def path(make_tflite: Callable[..., Path]) -> Path:
    return make_tflite({"box": 64, "score": 1, "keypoints": 6})


def _append_zip(path: Path, files: dict[str, bytes], method: int, apart: bool) -> None:
    """As zipfile appends to a model, or as `cat model archive.zip` does."""
    packed = io.BytesIO() if apart else io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(packed, "w" if apart else "a", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    path.write_bytes((path.read_bytes() if apart else b"") + packed.getvalue())


def _read(path: Path, name: str) -> bytes:
    data = path.read_bytes()
    return read_member(data, read_members(data)[name])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("apart", [False, True])
def test_associated_files_are_those_that_zipfile_wrote(path: Path, method: int, apart: bool) -> None:
    _append_zip(path, {"labels.txt": b"person\n" * 50, "metadata.json": b'{"a": 1}'}, method, apart)
    assert _read(path, "labels.txt") == b"person\n" * 50
    assert _read(path, "metadata.json") == b'{"a": 1}'


def test_a_model_without_a_zip_has_no_associated_files(path: Path) -> None:
    assert read_members(path.read_bytes()) == {}


def test_a_written_file_is_read_by_zipfile_and_the_others_are_kept(path: Path) -> None:
    _append_zip(path, {"labels.txt": b"person"}, zipfile.ZIP_DEFLATED, apart=True)
    write_member(str(path), "edgepose.json", b"first")
    write_member(str(path), "edgepose.json", b"second")
    with zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "labels.txt": b"person",
            "edgepose.json": b"second",
        }


def test_writing_keeps_the_model_byte_by_byte(path: Path) -> None:
    model = path.read_bytes()
    write_member(str(path), "edgepose.json", b"first")
    write_member(str(path), "edgepose.json", b"second")
    assert path.read_bytes().startswith(model)
    assert path.read_bytes().count(b"edgepose.json") == 2  # the local header and the directory


def test_json_at_the_end_without_a_zip(path: Path) -> None:
    document = {"description": "x", "args": {"a": [1, {"b": "}"}]}}
    path.write_bytes(path.read_bytes() + json.dumps(document, indent=2).encode() + b"\n")
    found = trailing_json(path.read_bytes())
    assert found is not None
    assert json.loads(found) == document


def test_a_model_has_no_json_at_its_end(path: Path) -> None:
    assert trailing_json(path.read_bytes()) is None


def test_a_file_that_claims_to_unpack_to_gigabytes_is_refused(path: Path) -> None:
    _append_zip(path, {"a": b"0" * (8 << 20)}, zipfile.ZIP_DEFLATED, apart=True)
    with pytest.raises(ValueError, match="at most"):
        _read(path, "a")


def test_a_file_that_unpacks_to_more_than_it_says_is_refused(path: Path) -> None:
    _append_zip(path, {"a": b"0" * 100_000}, zipfile.ZIP_DEFLATED, apart=True)
    data = path.read_bytes()
    member = read_members(data)["a"]._replace(size=10)
    with pytest.raises(ValueError, match="100000 bytes instead of 10"):
        read_member(data, member)


def test_the_custom_operators_of_a_model(make_tflite: Callable[..., Path]) -> None:
    assert custom_operators(make_tflite({"a": 3}).read_bytes()) == []
    assert custom_operators(make_tflite({"a": 3}, custom=EDGETPU_OP).read_bytes()) == [EDGETPU_OP]


def test_the_custom_operators_of_real_models(shared: Path) -> None:
    models = shared / "models"
    plain = (models / "movenet_single_pose_lightning_ptq.tflite").read_bytes()
    compiled = (models / "movenet_single_pose_lightning_ptq_edgetpu.tflite").read_bytes()
    assert EDGETPU_OP not in custom_operators(plain)
    assert EDGETPU_OP in custom_operators(compiled)


@given(st.binary(max_size=100))
def test_any_bytes_give_operators_or_a_value_error(junk: bytes) -> None:
    try:
        custom_operators(junk[:4] + b"TFL3" + junk[4:])
    except ValueError as error:
        assert "TFLite" in str(error)  # noqa: PT017 - either outcome is right


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_zip_gives_content_or_a_value_error(path: Path, data: st.DataObject) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("metadata.json", b'{"a": 1}' * 20)
    damaged = bytearray(b"model" * 10 + archive.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    for member in read_members(bytes(damaged)).values():
        try:
            assert isinstance(read_member(bytes(damaged), member), bytes)
        except ValueError as error:
            assert "associated file" in str(error)  # noqa: PT017 - either outcome is right
