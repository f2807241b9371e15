"""Rows of arrays that stay on disk: maps of `.npy` and `.npz` files, and of what NumPy has mapped already."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.errors import DegenerateInputError

_KEPT = {"f2": np.float16, "f4": np.float32, "f8": np.float64}
_HASHED = 32 * 2**20


class ArrayRows:
    """Rows of one array, read from it (and brought to a dtype that a store holds) when they are asked for."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.n, self.d = int(values.shape[0]), int(values.shape[1])
        self._dtype = _KEPT.get(f"{values.dtype.kind}{values.dtype.itemsize}", np.float64)
        self.dtype = np.dtype(self._dtype).name

    def read(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop)."""
        return torch.from_numpy(np.array(self.values[start:stop], self._dtype, order="C"))

    def gather(self, rows: np.ndarray) -> Tensor:
        """The rows with these numbers, in this order."""
        return torch.from_numpy(np.ascontiguousarray(self.values[rows], self._dtype))

    def fingerprint(self) -> str:
        """The hash that the same rows have in memory."""
        return hash_rows(self)


def hash_rows(rows: Any) -> str:
    """A hash of rows that are read block by block."""
    digest = hashlib.sha256(f"{rows.dtype} {rows.n} {rows.d}".encode())
    size = max(1, _HASHED // max(1, rows.d * 8))
    for start in range(0, rows.n, size):
        digest.update(rows.read(start, min(rows.n, start + size)).numpy().reshape(-1).data.cast("B"))
    return digest.hexdigest()


def stays_on_disk(value: Any) -> bool:
    """Whether the value is an array that NumPy has mapped from a file."""
    while isinstance(value, np.ndarray):
        if isinstance(value, np.memmap):
            return True
        value = value.base
    return False


def map_npy(path: Path) -> np.ndarray:
    """The array of an `.npy` file, mapped.

    Raises:
        DegenerateInputError: it holds Python objects, or is no such file.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        pass
    try:
        return np.load(path, allow_pickle=False)  # what cannot be mapped may still be read; else this says best why not
    except ValueError as error:
        raise _refused(path, error) from error


def map_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by name: mapped, or read where they are compressed.

    Raises:
        DegenerateInputError: one holds Python objects, or the file is no such archive.
    """
    found: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as arrays:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                mapped = _mapped(path, info) if info.compress_type == zipfile.ZIP_STORED else None
                found[name] = arrays[name] if mapped is None else mapped
    except (ValueError, zipfile.BadZipFile) as error:
        raise _refused(path, error) from error
    return found


def _mapped(path: Path, info: zipfile.ZipInfo) -> np.ndarray | None:
    """The map of a member that lies in the archive as it is; None where its header is of an unknown kind."""
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        head = file.read(30)
        # The lengths of name and extra field stand in the member's own header, which may differ from the archive's list.
        file.seek(info.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"))
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            return None
        if dtype.hasobject or not np.prod(shape):
            return None
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def _refused(path: Path, error: Exception) -> DegenerateInputError:
    return DegenerateInputError(f"{path} is refused ({error}); a file of Python objects is a pickle, which is never loaded")
