"""A pickle reader that runs nothing.

`RestrictedReader` interprets the opcodes itself and builds only plain data: None, booleans, numbers, strings, bytes,
lists, tuples, dicts, sets. A class it does not know becomes an `Inert` record of its module, name and state; a call is
made only where the caller's table names it, anything else is refused. `load` reads dicts of numpy arrays this way
(pickle labels); `edgepose_trainer.foreign` reads other people's checkpoints.
"""

from __future__ import annotations

import io
import math
import pickletools
import reprlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MAX_LABEL_BYTES = 64 << 20
MAX_OPCODES = 2_000_000
MAX_NODES = 1_000_000
MAX_DEPTH = 32
MAX_NAME = 256
MAX_GROWTH = 4  # what calls make may take so many times the pickle's own bytes; a call may copy one value many times
_ELEMENT_BYTES = 8  # of a set, tuple or dict, at least


class UnsafePickleError(ValueError):
    """The pickle asks for a call, or an object, that plain data never needs."""


@dataclass(frozen=True)
class Name:
    """A global that the pickle names; nothing is imported for it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Inert:
    """What stands for an object of a class that is not built: where it was defined, its arguments and its state."""

    module: str
    name: str
    args: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)


Calls = Mapping[tuple[str, str], Callable[..., Any]]


def _reconstructor(cls: Any, base: Any, state: Any) -> Inert:
    """copyreg's way to make an object of protocols 0 and 1."""
    if not isinstance(cls, Name):
        raise UnsafePickleError("copyreg._reconstructor of something that is no class")
    return Inert(cls.module, cls.name, (base, state))


def _encode(text: Any, encoding: Any) -> bytes:
    """_codecs.encode(str, "latin1"): how protocols below 3 write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise UnsafePickleError(f"_codecs.encode to {reprlib.repr(encoding)}; only latin1 is read")
    return text.encode("latin-1")


def _empty_bytes(*args: Any) -> bytes:
    """bytes(): how protocols below 3 write no bytes."""
    if args:
        raise UnsafePickleError("bytes() of something")
    return b""


def _frozen_set(values: Any = ()) -> frozenset[Any]:
    return frozenset(_key(v) for v in values)


def _plain_set(values: Any = ()) -> set[Any]:
    return {_key(v) for v in values}


PLAIN_CALLS: Calls = {
    ("collections", "OrderedDict"): lambda pairs=(): OrderedDict((_key(k), v) for k, v in pairs),
    ("copyreg", "_reconstructor"): _reconstructor,
    ("copy_reg", "_reconstructor"): _reconstructor,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _empty_bytes,
    **{(m, "set"): _plain_set for m in ("builtins", "__builtin__")},
    **{(m, "frozenset"): _frozen_set for m in ("builtins", "__builtin__")},
}


class RestrictedReader:
    """Reads one pickle.

    calls: what may be called, {(module, name): function of ours}. inert: whether objects of unknown classes become
    `Inert` (else they are refused). persistent_load: meaning of persistent ids, refused where None. build: sets the
    state of objects that `calls` made; returns False where it does not know the object.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        inert: bool = False,
        persistent_load: Callable[[Any], Any] | None = None,
        build: Callable[[Any, Any], bool] | None = None,
    ) -> None:
        self.calls = calls
        self.inert = inert
        self.persistent_load = persistent_load
        self.build = build

    def read(self, data: bytes) -> Any:
        """The object in data. Raises UnsafePickleError for what is refused, ValueError for what is damaged."""
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.room = MAX_GROWTH * len(data)
        try:
            for count, (opcode, arg, _) in enumerate(pickletools.genops(data)):
                if count > MAX_OPCODES:
                    raise UnsafePickleError(f"more than {MAX_OPCODES} opcodes")
                if opcode.name == "STOP":
                    (value,) = self.stack
                    return value
                self._run(opcode.name, arg)
        except UnsafePickleError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, Warning) as error:
            raise ValueError(f"damaged pickle: {error}") from error
        raise ValueError("damaged pickle: it has no end")

    def _run(self, name: str, arg: Any) -> None:
        if name in _LITERALS:
            self.stack.append(arg)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _GETS:
            self.stack.append(self.memo[int(arg)])
        elif name in _PUTS:
            self.memo[int(arg)] = self.stack[-1]
        elif (method := _METHODS.get(name)) is not None:
            method(self, arg)
        else:
            raise UnsafePickleError(f"the opcode {name} is not read")

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _ignore(self, _: Any) -> None:
        pass

    def _mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def _since_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _pop(self, _: Any) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _tuple_of(self, size: int) -> None:
        values = self.stack[-size:]
        if len(values) != size:
            raise IndexError("the stack is too short")
        self.stack[-size:] = [tuple(values)]

    def _tuple1(self, _: Any) -> None:
        self._tuple_of(1)

    def _tuple2(self, _: Any) -> None:
        self._tuple_of(2)

    def _tuple3(self, _: Any) -> None:
        self._tuple_of(3)

    def _list(self, _: Any) -> None:
        self.stack.append(self._since_mark())

    def _dict(self, _: Any) -> None:
        values = self._since_mark()
        self.stack.append({})
        self._set_items(values)

    def _frozenset(self, _: Any) -> None:
        self.stack.append(_frozen_set(self._since_mark()))

    def _append(self, _: Any) -> None:
        value = self.stack.pop()
        self._extend([value])

    def _appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.items.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise UnsafePickleError(f"append to {type(target).__name__}")

    def _add_items(self, _: Any) -> None:
        values = self._since_mark()
        if not isinstance(self.stack[-1], set):
            raise UnsafePickleError(f"add to {type(self.stack[-1]).__name__}")
        self.stack[-1].update(_key(v) for v in values)

    def _set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def _set_many(self, _: Any) -> None:
        self._set_items(self._since_mark())

    def _set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if isinstance(target, Inert):
            target.items.extend(pairs)
        elif isinstance(target, dict):
            target.update((_key(key), value) for key, value in pairs)
        else:
            raise UnsafePickleError(f"set an item of {type(target).__name__}")

    def _global(self, arg: str) -> None:
        module, _, name = arg.partition(" ")
        self._push_name(module, name)

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise UnsafePickleError("a global whose name is no string")
        self._push_name(module, name)

    def _push_name(self, module: str, name: str) -> None:
        if len(module) + len(name) > MAX_NAME:
            raise UnsafePickleError(f"a global whose name is longer than {MAX_NAME} characters")
        self.stack.append(Name(module, name))

    def _reduce(self, _: Any) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        if not isinstance(args, tuple) or not isinstance(function, Name):
            raise UnsafePickleError(f"a call of {type(function).__name__}")
        call = self.calls.get((function.module, function.name))
        if call is None:
            raise UnsafePickleError(f"the pickle tries to call {function}, which plain data never needs: refused")
        self._push_made(call(*args))

    def _push_made(self, value: Any) -> None:
        self._account(value)
        self.stack.append(value)

    def _account(self, value: Any) -> None:
        self.room -= _bytes_held(value)
        if self.room < 0:
            raise UnsafePickleError(f"calls that make more than {MAX_GROWTH} times the bytes of the pickle: refused")

    def _new_object(self, _: Any) -> None:
        args, cls = self.stack.pop(), self.stack.pop()
        if not isinstance(cls, Name) or not isinstance(args, tuple):
            raise UnsafePickleError(f"an object of {type(cls).__name__}")
        if (call := self.calls.get((cls.module, cls.name))) is not None:
            self._push_made(call(*args))
        elif self.inert:
            self.stack.append(Inert(cls.module, cls.name, args))
        else:
            raise UnsafePickleError(f"the pickle holds an object of {cls}, which is no plain data: refused")

    def _new_object_ex(self, _: Any) -> None:
        if self.stack.pop() != {}:
            raise UnsafePickleError("an object made with keyword arguments")
        self._new_object(None)

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif isinstance(target, OrderedDict):
            pass  # attributes of a state dict (_metadata): nothing of ours reads them
        elif self.build is None or not self.build(target, state):
            raise UnsafePickleError(f"the pickle sets the state of a {type(target).__name__}: refused")
        else:
            self._account(target)

    def _persistent(self, _: Any) -> None:
        if self.persistent_load is None:
            raise UnsafePickleError("a persistent id, which this kind of pickle never needs")
        self.stack.append(self.persistent_load(self.stack.pop()))


def _bytes_held(value: Any) -> int:
    """The memory that a value takes for itself, about; views, which take none, count as nothing."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    return _ELEMENT_BYTES * len(value) if isinstance(value, (set, frozenset, tuple, dict)) else 0


def _key(value: Any, depth: int = 0) -> Any:
    """A value that may be hashed: a scalar, or a tuple of scalars (deep tuples overflow the C stack when hashed)."""
    if value is None or isinstance(value, (str, int, float, bytes, Name)):
        return value
    if isinstance(value, tuple) and depth < 2:
        for part in value:
            _key(part, depth + 1)
        return value
    raise UnsafePickleError(f"{type(value).__name__} as a key")


_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))
_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_METHODS: dict[str, Callable[[RestrictedReader, Any], None]] = {
    "PROTO": RestrictedReader._ignore,
    "FRAME": RestrictedReader._ignore,
    "MEMOIZE": RestrictedReader._memoize,
    "MARK": RestrictedReader._mark,
    "POP": RestrictedReader._pop,
    "POP_MARK": RestrictedReader._pop_mark,
    "DUP": RestrictedReader._dup,
    "TUPLE": RestrictedReader._tuple,
    "TUPLE1": RestrictedReader._tuple1,
    "TUPLE2": RestrictedReader._tuple2,
    "TUPLE3": RestrictedReader._tuple3,
    "LIST": RestrictedReader._list,
    "DICT": RestrictedReader._dict,
    "FROZENSET": RestrictedReader._frozenset,
    "APPEND": RestrictedReader._append,
    "APPENDS": RestrictedReader._appends,
    "ADDITEMS": RestrictedReader._add_items,
    "SETITEM": RestrictedReader._set_item,
    "SETITEMS": RestrictedReader._set_many,
    "GLOBAL": RestrictedReader._global,
    "STACK_GLOBAL": RestrictedReader._stack_global,
    "REDUCE": RestrictedReader._reduce,
    "NEWOBJ": RestrictedReader._new_object,
    "NEWOBJ_EX": RestrictedReader._new_object_ex,
    "BUILD": RestrictedReader._build,
    "BINPERSID": RestrictedReader._persistent,
}


class _DType:
    """A numpy dtype while its pickle is read: kind and size come first, the byte order with the state."""

    def __init__(self, code: Any, _align: Any = False, _copy: Any = True) -> None:
        if not isinstance(code, str) or code not in _DTYPES:
            raise UnsafePickleError(f"a numpy dtype {reprlib.repr(code)}; read are {sorted(_DTYPES)}")
        self.code, self.order = code, "="

    def set_order(self, state: Any) -> bool:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            return False
        self.order = state[1]
        return True

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(f"{self.order}{self.code}")


_DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


def _empty_array(cls: Any, shape: Any, code: Any) -> NDArray[Any]:
    """numpy.core.multiarray._reconstruct(ndarray, (0,), b"b"): the array before its state is set."""
    if cls != Name("numpy", "ndarray") or shape != (0,) or code not in (b"b", "b"):
        raise UnsafePickleError(f"numpy's _reconstruct of a {type(cls).__name__}")
    return np.empty(0, np.int8)


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, _DType):
        raise UnsafePickleError("a numpy scalar without a dtype")
    return _array((1,), dtype, False, data)[0]


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    """numpy's _frombuffer: how protocol 5 writes arrays."""
    if not isinstance(dtype, _DType) or order not in ("C", "F"):
        raise UnsafePickleError("a numpy buffer without a dtype")
    return _array(shape, dtype, order == "F", data)


def _array(shape: Any, dtype: _DType, fortran: bool, data: Any) -> NDArray[Any]:
    """An array of its own memory from raw bytes whose number is checked first."""
    kind = dtype.numpy()
    if not isinstance(shape, tuple) or len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape):
        raise UnsafePickleError(f"a numpy array of shape {reprlib.repr(shape)}")
    if not isinstance(data, (bytes, bytearray)) or len(data) != math.prod(shape) * kind.itemsize:
        raise UnsafePickleError(f"a numpy array of shape {shape} and {kind} whose bytes do not fill it")
    array: NDArray[Any] = np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C").copy()
    return array


def build_numpy(target: Any, state: Any) -> bool:
    """Sets the checked state of an array or dtype that NUMPY_CALLS began; False where it is neither."""
    if isinstance(target, _DType):
        return target.set_order(state)
    if not isinstance(target, np.ndarray) or target.size or not isinstance(state, tuple) or len(state) != 5:
        return False
    version, shape, dtype, fortran, data = state
    if version != 1 or not isinstance(dtype, _DType):
        return False
    checked = _array(shape, dtype, bool(fortran), data)
    # In place: the memo may already hold this array. Everything in the state was checked just before.
    # (the stub asks for a numpy bool, which numpy itself refuses)
    target.__setstate__((1, checked.shape, checked.dtype, False, checked.tobytes()))  # type: ignore[arg-type]
    return True


NUMPY_CALLS: Calls = {
    ("numpy", "dtype"): _DType,
    **{
        (f"numpy.{core}.multiarray", name): call
        for core in ("core", "_core")
        for name, call in (("_reconstruct", _empty_array), ("scalar", _scalar))
    },
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


def load(source: str | Path | bytes | BinaryIO, *, max_bytes: int = MAX_LABEL_BYTES) -> Any:
    """Plain data and numpy arrays out of a pickle that may come from anybody: nothing in it is run.

    source: a path, the bytes, or an open binary file. Numeric and boolean arrays of any shape are built after their
    sizes are checked; objects, strings in arrays and every call that plain data does not need are refused.
    Raises ValueError (UnsafePickleError where something is refused), naming the file where there is one.
    """
    name = f"{source}: " if isinstance(source, (str, Path)) else ""
    try:
        data = _bytes_of(source, max_bytes)
        reader = RestrictedReader({**PLAIN_CALLS, **NUMPY_CALLS}, build=build_numpy)
        value = reader.read(data)
        check_plain(value, (np.ndarray, np.generic))
        return value
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{name}{error}") from None
    except ValueError as error:
        raise ValueError(f"{name}{error}") from None


def check_plain(value: Any, leaves: tuple[type, ...]) -> None:
    """Raises ValueError unless value is plain data and `leaves` alone, of a size that may be walked and printed.

    A pickle of a few bytes can share parts so that the tree it stands for has more nodes than any memory, or hold
    itself.
    """
    leaves = (type(None), bool, int, float, complex, str, bytes, bytearray, *leaves)
    waiting: list[tuple[Any, int]] = [(value, 0)]
    nodes = 0
    while waiting:
        node, depth = waiting.pop()
        nodes += 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise UnsafePickleError(f"more than {MAX_NODES} values, or nested deeper than {MAX_DEPTH}")
        if isinstance(node, dict):
            waiting += [(part, depth + 1) for pair in node.items() for part in pair]
        elif isinstance(node, (list, tuple, set, frozenset)):
            waiting += [(part, depth + 1) for part in node]
        elif not isinstance(node, leaves):
            described = f"an object of {node.module}.{node.name}" if isinstance(node, Inert) else type(node).__name__
            raise UnsafePickleError(f"{described} where plain data is expected")


def _bytes_of(source: str | Path | bytes | BinaryIO, max_bytes: int) -> bytes:
    if isinstance(source, (str, Path)):
        with open(source, "rb") as file:
            data = file.read(max_bytes + 1)
    else:
        file_like = io.BytesIO(source) if isinstance(source, bytes) else source
        data = file_like.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"a pickle of more than {max_bytes} bytes: refused")
    return data
