"""Capture of what never is in memory as a whole: stimuli are read, run and written one piece after another."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from inscape.capturing.batches import shard_size
from inscape.capturing.budget import check_room
from inscape.capturing.handover import Handover
from inscape.capturing.progress import progress_bar
from inscape.capturing.session import Session, Settings, ShardRows
from inscape.capturing.stimuli import Stimuli
from inscape.capturing.streams import StimulusStream
from inscape.errors import InscapeWarning, MemoryBudgetError, StimuliError, StoreMismatchError
from inscape.models import Model, Site
from inscape.store.manifest import MANIFEST, Manifest
from inscape.store.reading import read_manifest
from inscape.store.remote import place_of
from inscape.store.store import Store
from inscape.store.writer import StoreWriter

# From so many stimuli the size of a piece is judged; no piece holds more than the most of them.
PILOT = 128
MOST = 16_384
# What a feed counts over the stimuli that it reads: different in every piece, and summed up at the end.
COUNTS = ("tokens", "special_tokens", "opened_by_special", "truncated_stimuli", "truncated_tokens", "padding_taken_off")


class PieceByPiece:
    """The shards of a stream, one per piece.

    Args:
        model: the model.
        source: the stream.
        sites: which sites.
        settings: as of any capture; `shard_stimuli` is the size of a piece.
        limit: how many stimuli at most.
    """

    def __init__(
        self,
        model: Model,
        source: StimulusStream,
        sites: str | Site | Sequence[str | Site],
        settings: Settings,
        limit: int | None,
    ) -> None:
        if limit is not None and limit < 1:
            raise StimuliError(f"limit={limit} leaves no stimulus; give 1 or more")
        if settings.shard_stimuli is not None and settings.shard_stimuli < 1:
            raise StimuliError(f"shard_stimuli={settings.shard_stimuli} leaves no shard; give 1 or more")
        self.model, self.source, self.sites, self.settings, self.limit = model, source, sites, settings, limit
        self.halvings: list[dict[str, int]] = []
        self._rows = source.cursor.begin()
        self._taken = 0
        self.size = settings.shard_stimuli or 0
        items = self._take(self.size or PILOT)
        if not items:
            raise StimuliError("there are no stimuli (the input is empty); give at least one")
        if not self.size:
            self.size = self._judge(items)
            if self.size < len(items):
                self._rows, self._taken = itertools.chain(items[self.size :], self._rows), self.size
                items = items[: self.size]
            else:
                items += self._take(self.size - len(items))
        self.first = self._session(source.piece(items, 0))
        self.specs = self.first.specs
        self.total = None if source.cursor.size is None else min(source.cursor.size, limit or source.cursor.size)
        self.total = self.total if self.total is not None or limit is None else limit

    def plan(self, weights: bool) -> dict[str, Any]:
        """Everything that decides the bytes of the store; the source is known by its first piece."""
        plan = self.first.plan(weights)
        read = {name: value for name, value in plan["input"].items() if name not in (*COUNTS, "content_sha256")}
        picked = plan["rows"].pop("picked_sha256", None)
        first = {"sha256": plan["input"]["content_sha256"], **({} if picked is None else {"picked_sha256": picked})}
        stream = {"source": self.source.cursor.kind, "limit": self.limit, "first": first}
        batches = {**plan["batches"], "shard_stimuli": self.size}
        return {**plan, "input": read, "stream": stream, "batches": batches}

    def run(
        self, start: int = 0, on_halving: Callable[[list[dict[str, int]]], None] | None = None
    ) -> Generator[tuple[ShardRows, pa.Table], None, None]:
        """The shards from stimulus number `start` on, each with the table of its stimuli."""
        session: Session | None = self.first
        if start:
            self._rows = self.source.cursor.forward(self._rows, self._taken, start)
            self._taken = start
            session = self._next(start)
        number = start // self.size
        while session is not None:
            begun, known = start, list(self.halvings)
            session.resume([{**record, "shard": 0} for record in known])

            def note(
                records: list[dict[str, int]],
                number: int = number,
                known: list[dict[str, int]] = known,
            ) -> None:
                self.halvings = [*known, *({**record, "shard": number} for record in records[len(known) :])]
                if on_halving is not None:
                    on_halving(self.halvings)

            if len(session.halvings.records) > len(known):
                note(session.halvings.records)
            with closing(session.run(on_halving=note)) as shards:
                for shard in shards:
                    yield self._numbered(session, shard, number, begun), session.stimuli.table
            start, number = begun + len(session.stimuli), number + 1
            session = self._next(start)

    def _next(self, start: int) -> Session | None:
        items = self._take(self.size)
        if not items:
            return None
        session = self._session(self.source.piece(items, start), self.specs)
        for name, spec in session.specs.items():
            if spec != self.specs.get(name):
                known = self.specs.get(name)
                was = "is not there" if known is None else f"has {known.d} units, {known.kind} rows in the row set {known.row_set!r}"
                raise StimuliError(
                    f"site {name!r} has {spec.d} units, {spec.kind} rows in the row set {spec.row_set!r} for the stimuli from number "
                    f"{start} on, and {was} for those before; they make no single site. Give stimuli of one shape, or a reducer"
                )
        return session

    def _session(self, stimuli: Stimuli, specs: Mapping[str, Any] | None = None) -> Session:
        settings = replace(self.settings, shard_stimuli=self.size)
        decided = specs is not None and settings.dtype == "auto"
        with _quiet():
            session = Session(self.model, stimuli, self.sites, replace(settings, dtype=None) if decided else settings)
        if specs is None or not decided:
            return session
        for output in session.outputs:  # what the first piece decided holds for all
            if output.name in specs:
                output.spec = replace(output.spec, dtype=specs[output.name].dtype)
        return session

    def _take(self, count: int) -> list[Any]:
        """The next items, within the limit."""
        if self.limit is not None:
            count = min(count, self.limit - self._taken)
        items = list(itertools.islice(self._rows, max(0, count)))
        self._taken += len(items)
        return items

    def _judge(self, items: list[Any]) -> int:
        """Stimuli per piece, so that neither its rows nor the stimuli themselves are much."""
        if self.settings.generate is not None:  # answers are generated piece by piece, so pieces stay small
            return PILOT
        stimuli = self.source.piece(items, 0)
        dtype = None if self.settings.dtype == "auto" else self.settings.dtype
        with _quiet():
            session = Session(self.model, stimuli, self.sites, replace(self.settings, dtype=dtype, shard_stimuli=len(items)))
        rows = session.bytes / len(items)
        content = sum(_size(stimuli[i]) for i in range(min(len(items), 16))) / min(len(items), 16)
        return shard_size(MOST, max(rows, content))

    def _numbered(self, session: Session, shard: ShardRows, number: int, start: int) -> ShardRows:
        """The shard with the numbers that it has in the stream."""
        rows = {name: table.set_column(0, "stimulus", pa.array(table["stimulus"].to_numpy() + start)) for name, table in shard.rows.items()}
        told = session.feed.describe()
        read = {name: told[name] for name in COUNTS if isinstance(told.get(name), int)}
        notes = {**shard.notes, "stimuli": [start, start + shard.stimuli], "sha256": session.stimuli.digest(), "read": read}
        return replace(shard, index=number, rows=rows, notes=notes)


def capture_stream(
    model: Model,
    source: StimulusStream,
    sites: str | Site | Sequence[str | Site],
    settings: Settings,
    to: str | Path | None,
    *,
    limit: int | None,
    label: str | None,
    memory: str | int | None,
    progress: bool | None,
) -> Store:
    """`capture` for a stream; a killed run goes on behind the last finished piece."""
    found = _begun(to)
    if found is not None:
        _check_again(source, found, to)
        if settings.shard_stimuli is None:  # as it was judged when the store was begun
            settings = replace(settings, shard_stimuli=found.plan.get("batches", {}).get("shard_stimuli"))
    pieces = PieceByPiece(model, source, sites, settings, limit)
    specs, units = pieces.specs, pieces.first.units
    with StoreWriter.create_or_resume(to, pieces.plan(to is not None), None, specs, units=units, system=label) as writer:
        if writer.complete:
            return writer.finish()
        if "fidelity" not in writer.notes:
            writer.record(fidelity=pieces.first.fidelity())
        pieces.halvings = list(writer.notes.get("halvings", []))
        done = writer.manifest.shards[-1].notes["stimuli"][1] if writer.manifest.shards else 0
        _fill(writer, pieces, done, to, memory, progress)
        read = _totals(writer.manifest)
        _tell(read, pieces)
        return writer.finish({"read": read})


def _fill(
    writer: StoreWriter, pieces: PieceByPiece, done: int, to: str | Path | None, memory: str | int | None, progress: bool | None
) -> None:
    held = 0
    with Handover(writer.write_shard) as handover:

        def note(halvings: list[dict[str, int]]) -> None:
            handover.settle()  # the manifest is one writer's at a time
            writer.record(halvings=halvings)

        shards = pieces.run(done, note)
        with closing(shards), progress_bar(pieces.total, done, progress) as advance:
            for shard, table in shards:
                size = sum(values.nbytes for values in shard.values.values())
                held += size
                _room(held if to is None else size, size, to, memory)
                handover.give(shard.index, shard.rows, shard.values, shard.notes, table)
                advance(shard.stimuli)


def _room(held: int, size: int, to: str | Path | None, memory: str | int | None) -> None:
    """Stops a stream that would fill the memory or the disk."""
    try:
        # What is held in memory is no longer free; it is copied once, site by site, when the store is put together.
        check_room(held if memory is not None else 2 * size, to, memory)
    except MemoryBudgetError as error:
        if to is not None:
            raise
        raise MemoryBudgetError(f"the stream has more stimuli than fit into memory: {error}. Or say how many with limit=...") from error


def read_stream(
    model: Model,
    source: StimulusStream,
    sites: str | Site | Sequence[str | Site],
    settings: Settings,
    *,
    consumer: Callable[[ShardRows], None],
    limit: int | None,
    progress: bool | None,
) -> dict[str, Any]:
    """`stream` for a stream: every shard goes to `consumer`, and nothing is kept."""
    pieces = PieceByPiece(model, source, sites, settings, limit)
    fidelity = pieces.first.fidelity()
    shards = pieces.run()
    with closing(shards), progress_bar(pieces.total, 0, progress) as advance:
        for shard, _ in shards:
            consumer(shard)
            advance(shard.stimuli)
    return {**pieces.plan(False), "sites": pieces.specs, "fidelity": fidelity, "halvings": pieces.halvings}


def _begun(to: str | Path | None) -> Manifest | None:
    """What an earlier run left in the folder."""
    if to is None:
        return None
    root = place_of(to)
    return read_manifest(root) if (root / MANIFEST).exists() else None


def _check_again(source: StimulusStream, found: Manifest, to: Any) -> None:
    """Refuses to go on where the source cannot be read from its beginning."""
    why = source.cursor.once()
    if why is not None and found.shards:
        raise StoreMismatchError(
            f"{to} holds {found.stimuli['rows']} stimuli of an earlier run, and this source cannot show that it is the same: {why}. Give a "
            "function that returns a fresh iterator, as in capture(model, lambda: read_texts(), ...), or inscape.open the store"
        )


def _totals(manifest: Manifest) -> dict[str, int]:
    """What the feeds counted, over all pieces."""
    totals: dict[str, int] = {}
    for shard in manifest.shards:
        for name, count in shard.notes.get("read", {}).items():
            totals[name] = totals.get(name, 0) + int(count)
    return totals


def _tell(read: Mapping[str, int], pieces: PieceByPiece) -> None:
    """Says once what the feeds would have said of every piece."""
    if cut := read.get("truncated_stimuli"):
        most = pieces.first.feed.describe().get("max_length")
        dropped, kept = read["truncated_tokens"], read["tokens"]
        warnings.warn(
            f"{cut} stimuli of the stream were cut at max_length={most}: {dropped} of {kept + dropped} tokens are not read",
            InscapeWarning,
            stacklevel=4,
        )


@contextmanager
def _quiet() -> Generator[None]:
    """Without the warning that texts of this piece are cut."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\d+ of \d+ stimuli were cut at", category=InscapeWarning)
        yield


def _size(value: Any) -> int:
    return int(np.asarray(value).nbytes) if not isinstance(value, (str, list)) else len(str(value))
