"""Files that appear whole or not at all, and that are byte-equal between runs."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from inscape.arrays import format_bytes
from inscape.errors import StoreCorruptError, StoreIncompleteError
from inscape.store.remote import TEMPORARY, Place

_LONGEST_NAME = 200  # file systems stop at 255 bytes; the temporary prefix and the suffix need room
_CHUNK = 8 * 2**20


def safe_name(name: str) -> str:
    """`name` as one portable path component: everything but letters, digits and `_.-~` is percent-encoded."""
    encoded = quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")
    if len(encoded) > _LONGEST_NAME:
        encoded = f"{encoded[: _LONGEST_NAME - 20]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return encoded


def parquet_bytes(table: pa.Table) -> bytes:
    """`table` as Parquet; equal tables give equal bytes because neither chunking nor foreign metadata is kept."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(None).combine_chunks(), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def sha256(path: Place) -> str:
    """The SHA-256 of a file."""
    digest, at = hashlib.sha256(), 0
    if isinstance(path, Path):
        with open(path, "rb") as file:
            while block := file.read(_CHUNK):
                digest.update(block)
        return digest.hexdigest()
    size = path.stat().st_size
    while at < size:
        digest.update(path.read_range(at, min(size, at + _CHUNK)))
        at += _CHUNK
    return digest.hexdigest()


def read_range(path: Place, start: int, stop: int) -> bytes:
    """Bytes [start, stop) of a file, fewer where it ends before."""
    if not isinstance(path, Path):
        return path.read_range(start, stop)
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(stop - start)


def write_temporary(path: Path, parts: Iterable[bytes | memoryview]) -> dict[str, Any]:
    """Writes and syncs the temporary sibling of `path`; returns the size and checksum that `path` will have.

    Raises:
        StoreIncompleteError: the disk is full; the temporary file is gone and the store is what it was.
    """
    temporary = path.with_name(TEMPORARY + path.name)
    digest, size = hashlib.sha256(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            for part in parts:
                write_block(file, part)
                digest.update(part)
                size += part.nbytes if isinstance(part, memoryview) else len(part)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(path, size) from error
        raise
    return {"bytes": size, "sha256": digest.hexdigest()}


def write_block(file: Any, part: bytes | memoryview) -> None:
    """The single place where bytes of a store reach the disk."""
    file.write(part)


def disk_full(path: Path, size: int) -> StoreIncompleteError:
    """The error for a disk that ran full while `path` was written."""
    root = path.parent
    while not root.exists():
        root = root.parent
    free = format_bytes(shutil.disk_usage(root).free)
    return StoreIncompleteError(
        f"the disk is full: {path} could not be written ({format_bytes(size)} of it went through, {free} are free now). "
        "Every finished shard is kept; free some space and run the same command again, it resumes at the first missing shard"
    )


def publish(paths: Iterable[Path]) -> None:
    """Renames the temporary siblings of `paths` into place and syncs their folders."""
    folders: dict[Path, None] = {}
    for path in paths:
        os.replace(path.with_name(TEMPORARY + path.name), path)
        folders[path.parent] = None
    for folder in folders:
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Makes renames inside `folder` survive a power cut; does nothing where folders cannot be opened (Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes) -> dict[str, Any]:
    """Writes one whole file atomically; returns its size and checksum."""
    facts = write_temporary(path, [data])
    publish([path])
    return facts


def check_file(path: Place, facts: dict[str, Any], *, checksum: bool) -> None:
    """Raises `StoreCorruptError` that names `path` when its size (or checksum) is not what the manifest says."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise StoreCorruptError(f"{path} is missing; {restore_hint()}") from None
    if size != facts["bytes"]:
        raise StoreCorruptError(
            f"{path} holds {size} bytes; the manifest says {facts['bytes']}: it was truncated or replaced; {restore_hint()}"
        )
    if checksum and (found := sha256(path)) != facts["sha256"]:
        raise StoreCorruptError(
            f"{path} was altered: its SHA-256 is {found[:16]}…, the manifest says {facts['sha256'][:16]}…; {restore_hint()}"
        )


def restore_hint() -> str:
    """What to do about one damaged file."""
    return "the other shards stay readable; restore the file from a copy, or capture again into a new folder"


def read_parquet(path: Place) -> pa.Table:
    """A Parquet file of a store; what cannot be read is a `StoreCorruptError` with its name."""
    try:
        return pq.read_table(path if isinstance(path, Path) else pa.BufferReader(path.read_bytes()))
    except (pa.ArrowException, OSError) as error:
        raise StoreCorruptError(f"{path} cannot be read as Parquet ({error}); {restore_hint()}") from error
