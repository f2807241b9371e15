"""A store that is being written in parts: what each part has finished so far, and what is still missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inscape.errors import StimuliError, StoreCorruptError
from inscape.store.files import restore_hint, safe_name
from inscape.store.manifest import Manifest, ShardEntry

# Folder of finished shards that wait for the others, and the manifest's note that says into how many parts the store is cut.
STAGING = "parts"
PARTS = "parts"


def read_part(text: str) -> tuple[int, int]:
    """The numbers in "k/n".

    Raises:
        StimuliError: the text is no part.
    """
    k, slash, n = text.partition("/")
    if not (slash and k.strip().isdigit() and n.strip().isdigit() and 1 <= int(k) <= int(n)):
        raise StimuliError(f"part={text!r} is no part; write it as 'k/n', the k-th of n parts, from '1/4' to '4/4'")
    return int(k), int(n)


def shards_of(part: tuple[int, int], shards: int) -> range:
    """The shards that a part writes: a run of neighbors, and each shard belongs to one part.

    Raises:
        StimuliError: there are fewer shards than parts.
    """
    k, n = part
    if n > shards:
        raise StimuliError(
            f"the store has {shards} {'shard' if shards == 1 else 'shards'}, so {n} parts cannot all have one; "
            "take fewer parts, or smaller shards with shard_stimuli=..."
        )
    return range((k - 1) * shards // n, k * shards // n)


@dataclass(frozen=True)
class Staged:
    """One shard that a part has finished: its rows per row set, its files with size and checksum, and what was noted."""

    rows: dict[str, int]
    files: dict[str, dict[str, Any]]
    notes: dict[str, Any]


def record_path(root: Path, shard: int) -> Path:
    """Where the record of a finished shard is."""
    return root / STAGING / f"{shard}.json"


def notes_path(root: Path, part: int) -> Path:
    """Where a part keeps what it noted."""
    return root / STAGING / f"part-{part}.json"


def staged_name(shard: int, folder: str, name: str) -> str:
    """Where a file of a shard waits until the store is whole."""
    return f"{STAGING}/{shard}/{folder}/{safe_name(name)}.{'parquet' if folder == 'rows' else 'safetensors'}"


def to_json(content: Any) -> bytes:
    """The bytes of a record."""
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def read_json(path: Path) -> Any:
    """The content of a record.

    Raises:
        StoreCorruptError: it cannot be read.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreCorruptError(f"{path} is no readable record ({error}); {restore_hint()}") from error


def staged_shards(root: Path, shards: range) -> Iterator[tuple[int, Staged]]:
    """The shards among these that are finished, in order."""
    for shard in shards:
        path = record_path(root, shard)
        if path.exists():
            content = read_json(path)
            try:
                yield shard, Staged(content["rows"], content["files"], content["notes"])
            except (KeyError, TypeError) as error:
                raise StoreCorruptError(f"{path} lacks {error}; {restore_hint()}") from error


def entries(found: list[Staged]) -> list[ShardEntry]:
    """The manifest's entries of shards that follow one another."""
    first: dict[str, int] = {}
    made: list[ShardEntry] = []
    for shard in found:
        spans = {name: (first.get(name, 0), first.get(name, 0) + count) for name, count in shard.rows.items()}
        first = {name: stop for name, (_, stop) in spans.items()}
        made.append(ShardEntry(spans, shard.files, shard.notes))
    return made


def so_far(root: Path, manifest: Manifest) -> Manifest:
    """The manifest of a store in parts with the shards that are finished; any other manifest as it is."""
    if manifest.complete or PARTS not in manifest.notes:
        return manifest
    found = [shard for _, shard in staged_shards(root, range(manifest.notes[PARTS]["shards"]))]
    return manifest.with_(shards=tuple(entries(found)))


def waiting_for(root: Path, manifest: Manifest) -> str:
    """Which parts of a store are missing, and what to do about it; "" for a store that is not written in parts."""
    if manifest.complete or PARTS not in manifest.notes:
        return ""
    count, shards = manifest.notes[PARTS]["count"], manifest.notes[PARTS]["shards"]
    lacking: list[str] = []
    for k in range(1, count + 1):
        own = shards_of((k, count), shards)
        done = sum(record_path(root, shard).exists() for shard in own)
        if done < len(own):
            lacking.append(f"{k}/{count} ({done} of {len(own)} shards done)")
    if not lacking:
        return f"all {count} parts are done and were not put together; run the capture again with any of them, such as part='1/{count}'"
    what = "part" if len(lacking) == 1 else "parts"
    return (
        f"{what} {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing. Run the capture with "
        f"part='{lacking[0].split(' ')[0]}'{' and the others' if len(lacking) > 1 else ''}; whichever ends last completes the store"
    )
