"""Reads what `torch.save` wrote, building tensors and plain data only.

The file is a zip: `NAME/data.pkl` beside `NAME/data/KEY`, the bytes of each storage. Nothing in it is run and every
size is checked against the file before memory is taken, so that a checkpoint from anybody can be opened.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgepose_trainer.safe_pickle import (
    NUMPY_CALLS,
    PLAIN_CALLS,
    Calls,
    Name,
    RestrictedReader,
    UnsafePickleError,
    build_numpy,
)

MAX_PICKLE_BYTES = 64 << 20
MAX_ENTRIES = 100_000

_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_torch_file(path: str | Path) -> Any:
    """The object in a file of torch.save; objects of unknown classes come as `safe_pickle.Inert`.

    Raises FileNotFoundError, or ValueError that says what is wrong: no checkpoint at all, the format of before
    torch 1.6, a truncated file, a pickle that tries to call something (UnsafePickleError).
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _Archive(archive, path.stat().st_size).read()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: {_why_no_zip(path, error)}") from None
    except (EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{path}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _why_no_zip(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(512)
    if start[:4] == b"PK\x03\x04":
        return f"the checkpoint is truncated or damaged ({error}); copy or save it again"
    if start[:1] == b"\x80" or start[257:262] == b"ustar":
        return "the file format of before torch 1.6 (a bare pickle or tar), which is not read; save it anew with torch"
    if not start:
        return "the file is empty"
    return "not a checkpoint: expected a zip file written by torch.save"


class _Archive:
    def __init__(self, archive: zipfile.ZipFile, file_size: int) -> None:
        self.archive = archive
        self.sizes = self._checked_entries(file_size)
        self.prefix = self._prefix()
        self.storages: dict[str, Tensor] = {}

    def _checked_entries(self, file_size: int) -> dict[str, int]:
        """Name and size of each entry. torch stores without compression: a file cannot hold more than it is long."""
        entries = self.archive.infolist()
        sizes = {entry.filename: entry.file_size for entry in entries}
        if len(entries) > MAX_ENTRIES or len(sizes) != len(entries):
            raise ValueError(f"not a checkpoint: {len(entries)} entries, some of one name")
        if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
            raise ValueError("not a checkpoint: torch.save neither compresses nor encrypts, this file does")
        if sum(sizes.values()) > file_size:
            raise ValueError("not a checkpoint: its entries claim more bytes than the file has")
        return sizes

    def _prefix(self) -> str:
        pickles = [name for name in self.sizes if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("not a checkpoint: expected one data.pkl in the zip file, as torch.save writes it")
        return pickles[0].removesuffix("data.pkl")

    def read(self) -> Any:
        order = f"{self.prefix}byteorder"
        if order in self.sizes and self.archive.read(order) != b"little":
            raise ValueError("the checkpoint was saved on a big-endian machine, which is not read")
        if self.sizes[f"{self.prefix}data.pkl"] > MAX_PICKLE_BYTES:
            raise ValueError(f"a pickle of more than {MAX_PICKLE_BYTES} bytes: refused")
        reader = RestrictedReader(
            {**PLAIN_CALLS, **NUMPY_CALLS, **_TORCH_CALLS},
            inert=True,
            persistent_load=self._storage,
            build=build_numpy,
        )
        return reader.read(self.archive.read(f"{self.prefix}data.pkl"))

    def _storage(self, pid: Any) -> Tensor:
        """("storage", class, key, device, elements): the elements, on the CPU wherever they were saved from."""
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage" or not isinstance(pid[1], Name):
            raise UnsafePickleError("a persistent id that is no tensor storage")
        kind, key, count = pid[1], pid[2], pid[4]
        dtype = _STORAGES.get(kind.name) if kind.module == "torch" else None
        if dtype is None or not isinstance(key, str) or type(count) is not int or count < 0:
            raise UnsafePickleError(f"a storage of {kind}, which is not read")
        if key not in self.storages:
            self.storages[key] = self._read_storage(key, dtype, count)
        storage = self.storages[key]
        if storage.dtype != dtype or storage.numel() != count:
            raise ValueError(f"the storage {key} is described in two ways")
        return storage

    def _read_storage(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        name = f"{self.prefix}data/{key}"
        size = self.sizes.get(name)
        if size is None or size != count * dtype.itemsize:
            held = "is missing" if size is None else f"holds {size} bytes"
            raise ValueError(f"the storage {key} {held}, expected {count} elements of {dtype}")
        if count == 0:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(self.archive.read(name)), dtype=dtype)


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """torch._utils._rebuild_tensor_v2: a view that must lie inside its storage and name no element twice over."""
    numbers = [offset, *size, *stride]
    if not isinstance(storage, Tensor) or not all(type(n) is int and n >= 0 for n in numbers):
        raise UnsafePickleError("a tensor without a storage, size or stride")
    if len(size) != len(stride) or len(size) > 16 or math.prod(size) > storage.numel():
        raise ValueError(f"a tensor of size {size} over a storage of {storage.numel()} elements")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.numel():
        raise ValueError(f"a tensor of size {size} reaches outside its storage of {storage.numel()} elements")
    return torch.as_strided(storage, size, stride, offset) if math.prod(size) else storage.new_empty(size)


def _rebuild_parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise UnsafePickleError("a parameter that is no tensor")
    return data


def _joined(separator: str) -> Callable[..., str]:
    def join(*parts: Any) -> str:
        if not all(isinstance(part, (str, int)) for part in parts):  # the text of shared tuples may have no end
            raise UnsafePickleError("a path, or a device, of something else than text")
        return separator.join(str(part) for part in parts)

    return join


_TORCH_CALLS: Calls = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch.nn.parameter", "Parameter"): _rebuild_parameter,
    ("torch", "Size"): lambda sizes: tuple(sizes),
    ("torch", "device"): _joined(":"),
    # Settings of a training run hold paths; they are kept as text.
    **{("pathlib", kind): _joined("/") for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")},
}
