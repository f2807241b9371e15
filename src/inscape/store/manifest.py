"""What a store says about itself: `manifest.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inscape.errors import StoreCorruptError, StoreMismatchError
from inscape.store.files import restore_hint
from inscape.store.shards import DTYPES, dtype_name

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
STIMULI = "stimuli.parquet"
ABSENT = "(absent)"


@dataclass(frozen=True)
class SiteSpec:
    """What one site of a store holds.

    Args:
        row_set: the name of the index that the site's rows share with other sites.
        d: units per row.
        dtype: float16, bfloat16, float32 or float64 (a name or a torch dtype).
        kind: what a row is: "stimulus" (pairs by stimulus), or "token", "patch", "frame" (pair by stimulus and position).
    """

    row_set: str
    d: int
    dtype: str | torch.dtype = "float32"
    kind: str = "stimulus"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        object.__setattr__(self, "d", int(self.d))

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype of the rows as torch has it."""
        return DTYPES[str(self.dtype)][0]


@dataclass(frozen=True)
class ShardEntry:
    """One finished shard: its rows per row set as [first, stop), its files with size and checksum, and what was noted."""

    rows: dict[str, tuple[int, int]]
    files: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    notes: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`; a store of another `format_version` is refused.

    `plan` is what decides the bytes (model identity, token rule, batch plan, …); `notes` is what was learnt on the way
    (fidelity, truncated counts, batch halvings).
    """

    system: str
    plan: dict[str, Any]
    sites: dict[str, SiteSpec]
    stimuli: dict[str, Any]
    units: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    shards: tuple[ShardEntry, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict[str, Any])
    complete: bool = False
    format_version: int = FORMAT_VERSION

    @property
    def model(self) -> Any:
        """The identity of the model, as the capture recorded it."""
        return self.plan.get("model")

    @property
    def tokens(self) -> Any:
        """The rule that turned text into rows."""
        return self.plan.get("tokens")

    @property
    def batch_plan(self) -> Any:
        """How stimuli were cut into shards and batches."""
        return self.plan.get("batch_plan")

    @property
    def cut(self) -> str | None:
        """How many tokens of the texts were cut away, in words; None where none were."""
        # A stream counts its tokens piece by piece, and notes the sums at the end.
        read = {**self.plan.get("input", {}), **self.notes.get("read", {})}
        cut = read.get("truncated_tokens", 0)
        if not cut:
            return None
        return f"{cut} of {cut + read['tokens']} tokens were cut at max_length={read['max_length']} ({read['truncated_stimuli']} stimuli)"

    @property
    def growing(self) -> bool:
        """Whether the stimuli come with the shards, as those of a stream do."""
        return bool(self.stimuli.get("by_shard"))

    def rows(self, row_set: str) -> int:
        """The number of rows that the finished shards hold."""
        return self.shards[-1].rows[row_set][1] if self.shards else 0

    def with_(self, **changes: Any) -> Manifest:
        """A copy with some fields replaced."""
        return replace(self, **changes)

    def to_json(self) -> bytes:
        """The file's bytes: the same manifest gives the same bytes."""
        content = {
            "format_version": self.format_version,
            "system": self.system,
            "complete": self.complete,
            "plan": self.plan,
            "stimuli": self.stimuli,
            "sites": {name: vars(spec) for name, spec in self.sites.items()},
            "units": self.units,
            "notes": dict(sorted(self.notes.items())),
            "shards": [vars(shard) for shard in self.shards],
        }
        return (json.dumps(plain(content), indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, path: object) -> Manifest:
        """Reads what `to_json` wrote.

        Raises:
            StoreCorruptError: the bytes are no manifest.
            StoreMismatchError: the store was written by another format version.
        """
        try:
            content = json.loads(data)
            version = content["format_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreCorruptError(f"{path} is no readable manifest ({error}); {restore_hint()}") from error
        if version != FORMAT_VERSION:
            raise StoreMismatchError(
                f"{path} has format_version {version!r}; this inscape reads {FORMAT_VERSION}. "
                + ("Update inscape" if isinstance(version, int) and version > FORMAT_VERSION else "Migrate the store")
            )
        try:
            return cls(
                system=content["system"],
                plan=content["plan"],
                sites={name: SiteSpec(**spec) for name, spec in content["sites"].items()},
                stimuli=content["stimuli"],
                units=content["units"],
                shards=tuple(
                    ShardEntry({name: (a, b) for name, (a, b) in shard["rows"].items()}, shard["files"], shard["notes"])
                    for shard in content["shards"]
                ),
                notes=content["notes"],
                complete=content["complete"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreCorruptError(f"{path} lacks or garbles a field ({error!r}); {restore_hint()}") from error


def plain(value: Any) -> Any:
    """`value` as JSON has it: paths and dtypes become text, arrays lists, and a non-finite float its name.

    Raises:
        TypeError: something has no faithful JSON form.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist())
    if isinstance(value, (Path, torch.dtype, torch.device)):
        return str(value).removeprefix("torch.")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"a manifest cannot hold {value!r} of type {type(value).__name__}; give text, numbers, lists or dicts")


def differences(ours: Any, theirs: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """The dotted names at which two plain values differ, with both values."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = dict.fromkeys([*ours, *theirs])
        return [
            found
            for key in keys
            for found in differences(ours.get(key, ABSENT), theirs.get(key, ABSENT), f"{name}.{key}" if name else str(key))
        ]
    return [] if ours == theirs else [(name, ours, theirs)]
