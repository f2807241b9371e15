"""Shard files: one safetensors tensor each, read through our own map of the data section.

`safetensors` itself would load a whole shard for every touch; a map of the data section reads just the rows that are asked for.
"""

from __future__ import annotations

import json
import mmap
import os
from collections import OrderedDict
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.errors import StoreCorruptError, StoreMismatchError
from inscape.store.files import check_file, read_range, restore_hint
from inscape.store.remote import Place

ALIGNMENT = 64
_HEAD = 512  # more than the header of one tensor
# Mapped pages count as resident memory once touched, so maps are dropped, oldest first, beyond this many bytes.
MAPPED_BYTES = 512 * 2**20
_MAPPED_FILES = 256

# name in the manifest -> (torch dtype, safetensors tag, NumPy carrier; NumPy has no bfloat16)
DTYPES: dict[str, tuple[torch.dtype, str, Any]] = {
    "float16": (torch.float16, "F16", np.float16),
    "bfloat16": (torch.bfloat16, "BF16", np.int16),
    "float32": (torch.float32, "F32", np.float32),
    "float64": (torch.float64, "F64", np.float64),
}


def dtype_name(dtype: str | torch.dtype) -> str:
    """The manifest's name of a dtype.

    Raises:
        StoreMismatchError: it is not one of float16, bfloat16, float32, float64.
    """
    name = str(dtype).removeprefix("torch.")
    name = {"fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp32": "float32", "fp64": "float64"}.get(name, name)
    if name not in DTYPES:
        raise StoreMismatchError(f"a store holds {', '.join(DTYPES)}; got {dtype!r}. Convert the values first")
    return name


def carrier(tensor: Tensor) -> np.ndarray:
    """The tensor's memory as NumPy (bfloat16 as int16), contiguous and on the CPU."""
    tensor = tensor.detach().cpu().contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def from_carrier(array: np.ndarray, dtype: str) -> Tensor:
    """The torch tensor on an array that `carrier` or a shard gave."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def shard_parts(values: Tensor, key: str) -> list[bytes | memoryview]:
    """Header and data of a safetensors file with the one tensor `key`; the data start at a multiple of 64 bytes."""
    array = carrier(values)
    tag = DTYPES[dtype_name(values.dtype)][1]
    entry = {"dtype": tag, "shape": list(values.shape), "data_offsets": [0, array.nbytes]}
    header = json.dumps({"__metadata__": {"format": "pt"}, key: entry}, separators=(",", ":")).encode()
    header += b" " * (-(len(header) + 8) % ALIGNMENT)
    return [len(header).to_bytes(8, "little") + header, array.reshape(-1).data.cast("B")]


class ShardFile:
    """One shard of one site on disk: rows [first, first + n) with d units."""

    def __init__(self, path: Place, facts: dict[str, Any], *, n: int, d: int, dtype: str, checksum: bool = False) -> None:
        self.path, self.facts, self.n, self.d, self.dtype, self.checksum = path, facts, n, d, dtype, checksum
        self._offset: int | None = None

    def check(self) -> None:
        """Raises `StoreCorruptError` when the file's size, header (or checksum) is not what the manifest says."""
        check_file(self.path, self.facts, checksum=self.checksum)
        self._offset = self._read_header()

    def _read_header(self) -> int:
        try:
            head = read_range(self.path, 0, _HEAD)
            length = int.from_bytes(head[:8], "little")
            if len(head) - 8 < length < self.facts["bytes"]:
                head += read_range(self.path, len(head), 8 + length)
            header = json.loads(head[8 : 8 + length]) if length < self.facts["bytes"] else {}
            (entry,) = (value for name, value in header.items() if name != "__metadata__")
            expected = {"dtype": DTYPES[self.dtype][1], "shape": [self.n, self.d], "data_offsets": [0, self.nbytes]}
            sound = entry == expected and 8 + length + self.nbytes == self.facts["bytes"]
        except (ValueError, AttributeError) as error:
            raise StoreCorruptError(f"{self.path} has no readable safetensors header; {restore_hint()}") from error
        if not sound:
            raise StoreCorruptError(f"{self.path} declares {entry}; the manifest says {self.dtype} [{self.n}, {self.d}]; {restore_hint()}")
        return 8 + length

    @property
    def nbytes(self) -> int:
        """Bytes of the data section."""
        return self.n * self.d * np.dtype(DTYPES[self.dtype][2]).itemsize

    def data_start(self) -> int:
        """Where the data section begins; the file is checked when this is first asked."""
        if self._offset is None:
            self.check()
        return self._offset or 0

    def map(self) -> tuple[mmap.mmap, np.ndarray]:
        """The mapped file, and its data section as an array [n, d] that reads from the file on touch."""
        start = self.data_start()
        with open(str(self.path), "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        rows = np.frombuffer(mapped, DTYPES[self.dtype][2], self.n * self.d, start).reshape(self.n, self.d)
        return mapped, rows


class Maps:
    """The maps that one store keeps open: the most recently used, within `limit` bytes."""

    def __init__(self, total: int, limit: int = MAPPED_BYTES) -> None:
        """`total` is the size of the store: one that fits into `limit` may stay mapped as a whole."""
        self.limit, self.frugal = limit, total > limit
        self._open: OrderedDict[str, tuple[mmap.mmap, np.ndarray]] = OrderedDict()
        self._lock = Lock()

    def of(self, shard: ShardFile) -> np.ndarray:
        """The map of a shard whose size still is right: touching a map beyond the end of its file would kill the process."""
        return self._entry(shard)[1]

    def copy(self, shard: ShardFile, start: int, out: np.ndarray) -> None:
        """Copies the rows from `start` on into `out`; for a large store the pages do not stay resident."""
        mapped, rows = self._entry(shard)
        np.copyto(out, rows[start : start + len(out)])
        if self.frugal and hasattr(mapped, "madvise"):
            first = len(mapped) - rows.nbytes + start * shard.d * out.itemsize
            page = first // mmap.PAGESIZE * mmap.PAGESIZE
            mapped.madvise(mmap.MADV_DONTNEED, page, first + out.nbytes - page)

    def _entry(self, shard: ShardFile) -> tuple[mmap.mmap, np.ndarray]:
        key = str(shard.path)
        try:
            size = os.stat(key).st_size
        except FileNotFoundError:
            size = -1
        with self._lock:
            if size != shard.facts["bytes"]:
                self._open.pop(key, None)
                shard.check()
            found = self._open.get(key)
            if found is None:
                found = self._open[key] = shard.map()
                while len(self._open) > 1 and self._crowded():
                    self._open.popitem(last=False)
            else:
                self._open.move_to_end(key)
        return found

    def _crowded(self) -> bool:
        return len(self._open) > _MAPPED_FILES or sum(len(mapped) for mapped, _ in self._open.values()) > self.limit
