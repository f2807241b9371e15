"""What a model has generated so far, kept in the folder of the store until the store itself holds it."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from inscape.errors import StoreMismatchError
from inscape.store.files import TEMPORARY
from inscape.store.manifest import MANIFEST, STIMULI, differences, plain
from inscape.store.reading import read_manifest

# Writers of stores leave such names alone until they begin a store, and then clear them away.
_NAME = f"{TEMPORARY}generated.jsonl"
IDS, TEXT = "generated_ids", "generated_text"


def stored(folder: Path, facts: Mapping[str, Any]) -> list[np.ndarray] | None:
    """What a store that was begun before has as `generated_ids`, one for each row of its stimuli; None where there is no store.

    Raises:
        StoreMismatchError: its tokens were generated in another way, from other prompts or by another model.
    """
    if not (folder / MANIFEST).exists():
        return None
    plan = read_manifest(folder).plan
    found = {"model": plan.get("model"), "generate": plan.get("input", {}).get("generate")}
    wanted = plain(dict(facts))
    if found["generate"] is None:
        changed = [("input.generate", None, wanted["generate"])]
    else:
        known = {"model": found["model"], "generate": {name: found["generate"].get(name) for name in wanted["generate"]}}
        changed = differences(known, wanted)
    if changed:
        name, was, now = changed[0]
        raise StoreMismatchError(
            f"{folder} holds a store of another plan: {name} was {was!r}, now is {now!r}. Give another folder, or the settings it was "
            "begun with"
        )
    return [np.asarray(row, np.int32) for row in pq.read_table(folder / STIMULI, columns=[IDS])[IDS].to_pylist()]


class Journal:
    """Appends one line a batch; a run that was killed finds the lines again and goes on behind them.

    Args:
        file: an open file, positioned anywhere, or None to remember nothing.
        facts: what the tokens depend on; lines under other facts are thrown away.
    """

    def __init__(self, file: Any, facts: Mapping[str, Any]) -> None:
        self._file = file
        self.done: dict[int, np.ndarray] = {}
        head = json.dumps(plain(dict(facts)), sort_keys=True)
        if file is None:
            return
        file.seek(0)
        lines = file.read().decode(errors="replace").splitlines(keepends=True)
        if lines and lines[0] == head + "\n":
            whole = len(head.encode()) + 1
            for line in lines[1:]:
                if not line.endswith("\n"):  # torn by the kill
                    break
                entry = json.loads(line)
                self.done.update({int(m): np.asarray(ids, np.int32) for m, ids in zip(entry["members"], entry["ids"], strict=True)})
                whole += len(line.encode())
            file.truncate(whole)
            file.seek(whole)
        else:
            file.truncate(0)
            file.seek(0)
            self._append(head)

    def add(self, members: np.ndarray, rows: list[np.ndarray]) -> None:
        """Keeps what a batch gave, on disk before this returns."""
        self.done.update({int(m): row for m, row in zip(members, rows, strict=True)})
        if self._file is not None:
            self._append(json.dumps({"members": members.tolist(), "ids": [row.tolist() for row in rows]}))

    def _append(self, line: str) -> None:
        self._file.write((line + "\n").encode())
        self._file.flush()
        os.fsync(self._file.fileno())


@contextmanager
def open_journal(folder: Path | None, facts: Mapping[str, Any]) -> Generator[Journal]:
    """The journal of a folder, held by one process at a time: others wait, and then find everything done."""
    if folder is None:
        yield Journal(None, facts)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _NAME).open("a+b") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except ImportError:  # Windows: the last writer wins, and writes the same
            pass
        yield Journal(file, facts)


def columns(ids: list[np.ndarray], texts: list[str] | None) -> dict[str, pa.Array]:
    """What the table of stimuli gets: the generated tokens, and their text where a tokenizer can write it."""
    found: dict[str, pa.Array] = {} if texts is None else {TEXT: pa.array(texts, pa.string())}
    found[IDS] = pa.array([row.tolist() for row in ids], pa.list_(pa.int32()))
    return found
