"""The log of a monitor: Parquet files in a folder, written as training goes on and read while it does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from inscape.errors import ResultError, StoreCorruptError

FORMAT_VERSION = 1
_COLUMNS = {
    "step": "int64",
    "site": "string",
    "measure": "string",
    "value": "float64",
    "n": "int64",
    "d": "int64",
    "baseline": "float64",
    "reason": "string",
    "broken": "bool_",  # whether the rows of the site hold NaN or infinity
    "alarm": "string",  # the side to which the series left its past, or null
    "text": "string",
}
_TOGETHER = 64  # files of single probes that are then put into one
_LOOKS = 20  # at a log from which files go while it is read: each time a writer puts 64 probes into one


class MonitorLog:
    """One folder: `monitor.json` says what is watched, `probes-*.parquet` hold the values and alarms, named by their first step.

    Files are written beside and renamed, so whoever reads meanwhile sees whole ones, and a killed run loses one probe at most.

    Args:
        path: the folder.
        facts: what is watched; an existing log must be of the same.

    Raises:
        ResultError: the folder holds the log of something else.
    """

    def __init__(self, path: str | os.PathLike[str], facts: Mapping[str, Any]) -> None:
        self.folder = Path(path)
        self.folder.mkdir(parents=True, exist_ok=True)
        described = self.folder / "monitor.json"
        wanted = json.loads(json.dumps({"format_version": FORMAT_VERSION, **facts}))
        if described.exists():
            known = read_facts(self.folder)
            if differing := sorted(key for key in wanted if known.get(key) != wanted[key]):
                first = differing[0]
                raise ResultError(
                    f"{self.folder} is the log of another monitor: {first} was {known.get(first)!r}, now {wanted[first]!r}; "
                    "give another folder, or the same sites, measures and options"
                )
        else:
            _replace(described, lambda path: path.write_text(json.dumps(wanted, indent=2, sort_keys=True) + "\n", encoding="utf-8"))

    def write(self, step: int, rows: Iterable[dict[str, Any]]) -> None:
        """Adds the rows of one probe; what was written of this step before stays, unless the rows hold it anew."""
        path = self.folder / f"probes-{step:012d}.parquet"
        self._put(path, unique([*(read_rows(self.folder, [path]) if path.exists() else []), *rows]))
        single = sorted(self.folder.glob("probes-*.parquet"))
        recent = [path for path in single if path.stat().st_size < 2**20]
        if len(recent) > _TOGETHER:
            merged = read_rows(self.folder, recent)
            self._put(recent[0], merged)
            for path in recent[1:]:
                path.unlink()

    def cut(self, step: int) -> None:
        """Drops what was logged at `step` and later: the run was taken up at an earlier step."""
        for path in sorted(self.folder.glob("probes-*.parquet")):
            rows = read_rows(self.folder, [path])
            kept = [row for row in rows if row["step"] < step]
            if not kept:
                path.unlink()
            elif len(kept) < len(rows):
                self._put(path, kept)

    def _put(self, path: Path, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in _COLUMNS.items()])
        table = pa.table({name: [row.get(name) for row in rows] for name in _COLUMNS}, schema=schema)
        _replace(path, lambda part: pq.write_table(table, part))


def read_facts(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What a log says about itself.

    Raises:
        ResultError: the folder holds no log, or one of a newer format.
        StoreCorruptError: its description cannot be read.
    """
    described = Path(folder) / "monitor.json"
    if not described.is_file():
        raise ResultError(f"{folder} holds no log of a monitor: there is no monitor.json; give the folder that Monitor(to=…) writes")
    try:
        facts = json.loads(described.read_text(encoding="utf-8"))
        version = int(facts["format_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorruptError(f"{described} cannot be read as the description of a log: {error}") from error
    if version > FORMAT_VERSION:
        raise ResultError(f"{folder} is a log of format {version}, this inscape reads up to {FORMAT_VERSION}; upgrade inscape")
    return facts


def read_rows(folder: str | os.PathLike[str], paths: Iterable[Path] | None = None) -> list[dict[str, Any]]:
    """All rows of a log in the order of their steps.

    Raises:
        StoreCorruptError: a file of it cannot be read.
    """
    gone: FileNotFoundError | None = None
    for _ in range(_LOOKS):
        rows: list[dict[str, Any]] = []
        try:
            for path in sorted(Path(folder).glob("probes-*.parquet")) if paths is None else paths:
                rows += _read(path)
        except FileNotFoundError as error:  # put into another file while this was reading: what it held is there now
            gone = error
            continue
        # A reader may meet the merged file beside a part of it that is not gone yet.
        return sorted(unique(rows), key=lambda row: row["step"])
    raise StoreCorruptError(f"a file of the log {folder} is listed and cannot be opened: {gone}; delete it to lose its probes alone")


def unique(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per step, site and measure: the last, at the place of the first."""
    return list({(row["step"], row["site"], row["measure"]): row for row in rows}.values())


def _read(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise StoreCorruptError(f"{path} of the log is damaged: {error}; delete it to lose its probes alone") from error


def _replace(path: Path, write: Any) -> None:
    # Processes that are joined later may each describe the log: with a name of their own none takes the other's file away.
    part = path.with_name(f"{path.name}.{uuid4().hex}.part")
    write(part)
    os.replace(part, path)
