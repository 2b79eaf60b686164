"""The restricted pickle reader: plain data and numeric arrays come through, everything else is refused unrun."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgepose_trainer import safe_pickle
from edgepose_trainer.safe_pickle import UnsafePickleError
from hypothesis import given, settings
from hypothesis import strategies as st

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(value=PLAIN, protocol=st.integers(0, 5))
def test_plain_data_comes_through_every_protocol(value: Any, protocol: int) -> None:
    assert safe_pickle.load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
def test_sets_and_ordered_dicts_come_through(protocol: int) -> None:
    value = {"a": {1, 2}, "b": frozenset(["x"]), "c": OrderedDict(z=1, a=(2, 3))}
    assert safe_pickle.load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "<i2", ">i4", "i8", "u8", "f2", "<f4", ">f4", "f8"])
def test_numeric_arrays_come_through(protocol: int, dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for given_array in (array, np.asfortranarray(array), array[:, ::2], array[:0], array.reshape(24)[5:6].reshape(())):
        found = safe_pickle.load(pickle.dumps({"a": given_array}, protocol))["a"]
        assert (found.dtype.kind, found.dtype.itemsize) == (given_array.dtype.kind, given_array.dtype.itemsize)
        np.testing.assert_array_equal(found, given_array)
        assert found.flags.writeable


def test_an_array_held_twice_and_numpy_scalars_come_through() -> None:
    array = np.ones((2, 2), np.float32)
    found = safe_pickle.load(pickle.dumps({"a": array, "b": array, "c": np.float32(1.5), "d": np.int64(-3)}))
    assert found["a"] is found["b"]
    np.testing.assert_array_equal(found["b"], array)
    assert (found["c"], found["d"]) == (1.5, -3)


def test_a_pickle_of_an_older_numpy_comes_through() -> None:
    data = pickle.dumps(np.arange(3.0), 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    np.testing.assert_array_equal(safe_pickle.load(data), [0, 1, 2])


def test_paths_and_open_files_are_read_and_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "label.pkl"
    path.write_bytes(pickle.dumps([1]))
    assert safe_pickle.load(path) == safe_pickle.load(io.BytesIO(path.read_bytes())) == [1]
    path.write_bytes(b"\x80\x04]")
    with pytest.raises(ValueError, match=r"label\.pkl: damaged pickle"):
        safe_pickle.load(path)
    with pytest.raises(FileNotFoundError):
        safe_pickle.load(tmp_path / "none.pkl")


class Call:
    """Pickles as a call of `function` with `args`, the way that hostile pickles do."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


class WithState:
    def __setstate__(self, state: Any) -> None:
        raise AssertionError("run")


def with_state() -> WithState:
    made = WithState()
    made.x = 1  # type: ignore[attr-defined]
    return made


HOSTILE: dict[str, tuple[bytes, str]] = {
    "os.system": (pickle.dumps(Call(os.system, "touch ran")), "call posix.system"),
    "eval": (pickle.dumps(Call(eval, "open('ran', 'w')")), "call builtins.eval"),
    "nested": (pickle.dumps({"a": [({"b": Call(os.system, "touch ran")},)]}), "call posix.system"),
    "protocol 0": (pickle.dumps(Call(os.system, "touch ran"), 0), "call posix.system"),
    "text": (b"cos\nsystem\n(S'touch ran'\ntR.", "call os.system"),
    "stack global": (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x09touch ran\x85R.", "call os.system"),
    "getattr": (pickle.dumps(Call(getattr, "", "join")), "call builtins.getattr"),
    "INST": (b"(S'touch ran'\nios\nsystem\n.", "opcode INST"),
    "OBJ": (b"(cos\nsystem\nS'touch ran'\no.", "opcode OBJ"),
    "state": (pickle.dumps(with_state()), "WithState, which is no plain data"),
    "new object": (b"\x80\x02csubprocess\nPopen\n(X\x05\x00\x00\x00toucht\x81.", "object of"),
    "extension": (b"\x80\x02\x82\x01.", "opcode EXT1"),
    "persistent": (b"\x80\x02X\x01\x00\x00\x00aQ.", "persistent id"),
    "call of a result": (b"\x80\x02X\x01\x00\x00\x00a)R.", "a call of str"),
    "state of a list": (b"\x80\x02]}X\x01\x00\x00\x00aK\x01sb.", "sets the state of a list"),
    "codecs": (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.", "latin1"),
    "object array": (pickle.dumps(np.array([{}], dtype=object)), "dtype 'O8'"),
    "text array": (pickle.dumps(np.array(["a"])), "dtype 'U1'"),
    "record array": (pickle.dumps(np.zeros(1, [("a", "i4")])), "dtype 'V4'"),
    "ndarray made": (b"\x80\x02cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85\x81.", "object of numpy.ndarray"),
    "list as a key": (b"\x80\x02}]K\x01s.", "list as a key"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_by_name_and_runs_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data, message = HOSTILE[name]
    with pytest.raises(UnsafePickleError, match=message):
        safe_pickle.load(data)
    assert not list(tmp_path.iterdir())


def test_an_array_that_claims_more_than_its_bytes_is_refused_before_memory_is_taken() -> None:
    good = pickle.dumps({"a": np.zeros((1, 3), np.uint8)}, 2)
    assert safe_pickle.load(good)["a"].shape == (1, 3)
    huge = good.replace(b"K\x01K\x03\x86", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86")
    assert huge != good
    with pytest.raises(UnsafePickleError, match="whose bytes do not fill it"):
        safe_pickle.load(huge)
    negative = good.replace(b"K\x01K\x03\x86", b"J\xff\xff\xff\xffJ\xfd\xff\xff\xff\x86")
    with pytest.raises(UnsafePickleError, match="array of shape"):
        safe_pickle.load(negative)


def test_a_memo_index_costs_no_memory() -> None:
    assert safe_pickle.load(b"\x80\x02K\x01r\xff\xff\xff\xff.") == 1


def test_lengths_beyond_the_data_are_refused() -> None:
    for data in (
        b"\x80\x04B\xff\xff\xff\x7fab.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fab.",
        b"\x80\x02\x8b\xff\xff\xff\x7f\x00.",
    ):
        with pytest.raises(ValueError, match="damaged pickle"):
            safe_pickle.load(data)


def test_data_that_shares_itself_into_a_giant_is_refused() -> None:
    billion_laughs = b"\x80\x02]q\x00" + b"".join(b"0(h\x00h\x00h\x00lq\x00" for _ in range(30)) + b"."
    with pytest.raises(UnsafePickleError, match=r"nested deeper|more than 1000000 values"):
        safe_pickle.load(billion_laughs)
    itself = b"\x80\x02]q\x00h\x00a."
    with pytest.raises(UnsafePickleError, match="nested deeper"):
        safe_pickle.load(itself)


def test_deep_nesting_neither_overflows_the_stack_nor_passes() -> None:
    deep = b"\x80\x02" + b")" + b"\x85" * 200_000
    with pytest.raises(UnsafePickleError, match="nested deeper"):
        safe_pickle.load(deep + b".")
    with pytest.raises(UnsafePickleError, match="tuple as a key"):
        safe_pickle.load(b"\x80\x02}" + deep[2:] + b"K\x01s.")


def test_a_file_over_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 100 bytes"):
        safe_pickle.load(pickle.dumps("a" * 200), max_bytes=100)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_ends_in_value_error_only(data: st.DataObject) -> None:
    good = pickle.dumps(
        {"boxes": np.ones((2, 4), np.float32), "names": ["a", ("b", {1: None})]}, data.draw(st.integers(0, 5))
    )
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(good)))]
    with contextlib.suppress(ValueError):
        safe_pickle.load(bytes(damaged))


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


@pytest.mark.parametrize("call", ["_frombuffer", "state", "set"])
def test_calls_that_copy_one_value_many_times_are_refused(call: str) -> None:
    """A file of a megabyte would take a gigabyte."""
    payload = bytes(1 << 20)
    data = b"\x80\x04"
    data += short("numpy._core.numeric") + short("_frombuffer") + b"\x93\x94"  # memo 0
    data += b"B" + len(payload).to_bytes(4, "little") + payload + b"\x94"  # 1
    data += short("numpy") + short("dtype") + b"\x93" + short("u1") + b"\x85R\x94"  # 2
    data += b"J" + len(payload).to_bytes(4, "little") + b"\x85\x94"  # 3: the shape
    data += short("C") + b"\x94"  # 4
    data += short("numpy._core.multiarray") + short("_reconstruct") + b"\x93\x94"  # 5
    data += short("numpy") + short("ndarray") + b"\x93" + b"K\0\x85" + b"C\x01b" + b"\x87\x94"  # 6: its arguments
    data += short("builtins") + short("set") + b"\x93\x94"  # 7
    data += b"(" + b"".join(b"M" + i.to_bytes(2, "little") for i in range(50_000)) + b"l\x85\x94"  # 8: a list
    calls = {
        "_frombuffer": b"h\0(h\1h\2h\3h\4tR",
        "state": b"h\5h\6R(K\1h\3h\2\x89h\1tb",
        "set": b"h\7h\x08R",
    }
    with pytest.raises(UnsafePickleError, match="more than 4 times the bytes"):
        safe_pickle.load(data + b"(" + calls[call] * 1000 + b"t.")
