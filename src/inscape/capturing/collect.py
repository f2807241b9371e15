"""What happens inside the hooks: rows are chosen and copied there, so that no whole activation outlives its layer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from inscape.capturing.feeds import Batch, Places, Stream
from inscape.capturing.patterns import Keys, PatternUnits, spread
from inscape.capturing.positions import WORDS, PositionRule
from inscape.capturing.reducers import Reducer
from inscape.capturing.stimuli import Stimuli
from inscape.capturing.transfer import HostCopies
from inscape.errors import StimuliError, StoreMismatchError
from inscape.store.manifest import SiteSpec


@dataclass(frozen=True)
class Picked:
    """The rows of a batch's [b, t, d] outputs that are kept.

    Attributes:
        length: t.
        flat: their numbers in the flattened [b · t, d]; None means all of them, in order.
        owner: for each of them, its row of the batch.
        counts: how many each stimulus gives.
        positions: their places in their own sequence.
    """

    length: int
    flat: Tensor | None
    owner: Tensor
    counts: np.ndarray
    positions: np.ndarray

    def fits(self, x: Tensor) -> bool:
        """Whether rows are chosen, and on the device of `x`."""
        return self.flat is not None and self.flat.device == x.device

    def mask(self, b: int) -> Tensor:
        """[b, t]: true where a row is kept."""
        if self.flat is None:
            return torch.ones(b, self.length, dtype=torch.bool, device=self.owner.device)
        mask = torch.zeros(b * self.length, dtype=torch.bool, device=self.flat.device)
        mask[self.flat] = True
        return mask.view(b, self.length)


def pick_rows(batch: Batch, t: int, rule: PositionRule, stream: Stream, device: torch.device) -> Picked:
    """Applies a rule to outputs with t positions."""
    b = len(batch.members)
    places = batch.places[stream.tower]
    if places.pieces is not None:
        return _pick_from_pieces(batch.members, t, rule, stream, places, device)
    real = places.real(t)
    if real is None and rule.simple:
        counts = np.full(b, t, np.int64)
        return Picked(t, None, torch.arange(b, device=device).repeat_interleave(t), counts, np.tile(np.arange(t), b))
    if rule.special == "keep" and isinstance(rule.tokens, str) and rule.tokens in WORDS:
        return _pick_by_word(b, t, rule.tokens, places, device)
    parts: list[np.ndarray] = []
    flat: list[np.ndarray] = []
    for i, where in enumerate(batch.members):
        length = t if real is None else int(real[i])
        chosen = rule.pick(int(where), length, stream.special(int(where), length), stream.ids(int(where)))
        parts.append(chosen)
        flat.append(chosen + (i * t + (t - length if places.left else 0)))
    counts = np.fromiter((len(part) for part in parts), np.int64, b)
    owner = torch.from_numpy(np.repeat(np.arange(b), counts))
    return Picked(t, torch.from_numpy(np.concatenate(flat)).to(device), owner.to(device), counts, np.concatenate(parts))


def _pick_from_pieces(members: np.ndarray, t: int, rule: PositionRule, stream: Stream, places: Places, device: torch.device) -> Picked:
    """Applies a rule to documents that stand, whole or in parts, in contexts of t tokens."""
    pieces = places.pieces
    assert pieces is not None
    if t != places.length:
        raise StimuliError(f"a site gives {t} positions for contexts of {places.length} tokens, so documents cannot be told apart in it")
    if rule.simple:
        owner = np.repeat(np.arange(len(members)), pieces.count)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(pieces.count) - pieces.count, pieces.count)
        flat, positions, counts = pieces.base[owner] + within, pieces.first[owner] + within, pieces.count
    else:
        parts: list[np.ndarray] = []
        for where, first, count, length in zip(members, pieces.first, pieces.count, pieces.length, strict=True):
            chosen = rule.pick(int(where), int(length), stream.special(int(where), int(length)), stream.ids(int(where)))
            parts.append(chosen[(chosen >= first) & (chosen < first + count)])
        counts = np.fromiter((len(part) for part in parts), np.int64, len(parts))
        owner, positions = np.repeat(np.arange(len(members)), counts), np.concatenate(parts)
        flat = pieces.base[owner] + positions - pieces.first[owner]
    return Picked(t, torch.from_numpy(flat).to(device), torch.from_numpy(owner).to(device), counts, positions)


def _pick_by_word(b: int, t: int, word: str, places: Places, device: torch.device) -> Picked:
    """The usual rules for all stimuli of a batch at once."""
    real = places.real(t)
    lengths = np.full(b, t, np.int64) if real is None else real
    starts = np.arange(b) * t + (t - lengths if places.left else 0)
    if word in ("last", "first"):
        counts, positions = np.ones(b, np.int64), lengths - 1 if word == "last" else np.zeros(b, np.int64)
        flat, owner = starts + positions, np.arange(b)
    else:
        counts, owner = lengths, np.repeat(np.arange(b), lengths)
        positions = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        flat = starts[owner] + positions
    return Picked(t, torch.from_numpy(flat).to(device), torch.from_numpy(owner).to(device), counts, positions)


@dataclass
class Output:
    """One site of the store: where it is read, what its positions are, how it is reduced, and the rows it has for the current shard."""

    name: str
    site: str
    reducer: Reducer | None
    spec: SiteSpec
    wide: torch.dtype
    stream: Stream
    t: int = 0  # positions in the probe; 0 for one vector per stimulus
    pattern: PatternUnits | None = None  # of an attention pattern
    chunks: list[Tensor] = field(default_factory=list[Tensor])
    simple: bool = False  # chosen positions as they are: neither reduced nor averaged


class Collector:
    """The reader that the hooks call: per site and batch it copies the chosen rows, and keeps which ones they were."""

    def __init__(self, outputs: list[Output], rule: PositionRule, whole: PositionRule) -> None:
        self.outputs = outputs
        self.rule, self.whole = rule, whole
        self._of_row_set = {output.spec.row_set: output for output in outputs}
        self._by_site: dict[str, list[Output]] = {}
        for output in outputs:
            output.simple = output.reducer is None and not rule.pooled
            self._by_site.setdefault(output.site, []).append(output)
        self._batch: Batch | None = None
        self._picked: dict[str, Picked] = {}
        self._log: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
        self._places: dict[str, Tensor] = {}
        self._copies = HostCopies()

    @property
    def sites(self) -> list[str]:
        """The sites that must be read, each once."""
        return list(self._by_site)

    def clear(self) -> None:
        """Forgets the rows of the shard."""
        self._copies.wait()
        self._batch = None
        self._log, self._places = {}, {}
        for output in self.outputs:
            output.chunks = []

    def begin(self, batch: Batch) -> None:
        """Says which batch the next forward reads."""
        self._batch, self._picked = batch, {}

    def end(self) -> None:
        """Closes the batch: moves rows off the device, checks that every site has fired, notes the chosen positions."""
        assert self._batch is not None
        batch, self._batch = self._batch, None
        done = 1 + max((len(log) for log in self._log.values()), default=0)
        for output in self.outputs:
            if len(output.chunks) != done:
                times = "did not run" if len(output.chunks) < done else "ran more than once"
                raise StoreMismatchError(
                    f"site {output.site!r} {times} in a forward over {len(batch.members)} stimuli, so its rows cannot be told apart"
                )
            row_set = output.spec.row_set
            if len(self._log.setdefault(row_set, [])) < done:
                picked = self._picked.get(row_set)
                b = len(batch.members)
                # One vector, mean or reduced value per stimulus has no place in the sequence.
                counts = np.ones(b, np.int64) if picked is None else picked.counts
                positions = np.zeros(b, np.int64) if picked is None else picked.positions
                self._log[row_set].append((batch.members, counts, positions))
        for output, rows in zip(self.outputs, self._copies.move([output.chunks[-1] for output in self.outputs]), strict=True):
            output.chunks[-1] = rows

    def __call__(self, site: str, x: Tensor) -> None:
        batch = self._batch
        if batch is None:  # the model was called between two batches, by somebody else
            return
        for output in self._by_site[site]:
            if output.pattern is not None:
                output.chunks.append(self._of_pattern(output, output.pattern, x, batch))
                continue
            rows = self._picked.get(output.spec.row_set)
            if output.simple and x.ndim == 3 and rows is not None and rows.length == x.shape[1] and rows.fits(x):
                output.chunks.append(x.reshape(-1, x.shape[-1]).index_select(0, rows.flat))  # pyright: ignore[reportArgumentType]  (fits says it is there)
                continue
            if x.ndim == 2:
                output.chunks.append(x.clone())
                continue
            reducer = output.reducer
            if reducer is None and not self.rule.pooled:
                rows = self._pick(output.spec.row_set, x, self.rule, output.stream)
                flat = x.reshape(-1, x.shape[-1])
                # index_select copies; a view would keep the whole activation, and a later layer may write into it.
                output.chunks.append(flat.clone() if rows.flat is None else flat.index_select(0, rows.flat))
            elif reducer is None:
                rows = self._pick(f"{output.stream.prefix}mean {x.shape[1]}", x, self.rule, output.stream)
                output.chunks.append(_means(x, rows))
            else:
                output.chunks.append(reducer(x, self._mask(reducer, x, output, batch)))

    def _mask(self, reducer: Reducer, x: Tensor, output: Output, batch: Batch) -> Tensor:
        """[b, t]: the positions that a reducer of `x` [b, t, …] takes."""
        rows = self._pick(f"{output.stream.prefix}whole {x.shape[1]}", x, self.whole, output.stream)
        if int(rows.counts.min()) < reducer.minimum:
            name = self.whole.name(int(batch.members[int(rows.counts.argmin())]))
            raise StimuliError(f"{reducer.name} needs {reducer.minimum} tokens; stimulus {name!r} has {int(rows.counts.min())}")
        return rows.mask(len(batch.members))

    def _of_pattern(self, output: Output, units: PatternUnits, x: Tensor, batch: Batch) -> Tensor:
        """What an attention pattern [b, heads, q, k] gives: its reducer's values, or rows with a unit for each head and key."""
        places = Places() if units.tower is None else batch.places[units.tower]
        b, k = x.shape[0], x.shape[3]
        keys = Keys.of(b, k, places.real(k), places.left, x.device)
        by_query = x.transpose(1, 2)
        if output.reducer is not None:
            if output.reducer.square and x.shape[2] != k:
                raise StimuliError(
                    f"{output.name!r} compares places of queries and keys, but this attention has {x.shape[2]} queries and {k} keys, "
                    "which are not the same tokens; ask for 'entropy' or 'sink_share'"
                )
            return output.reducer.of_pattern(x, self._mask(output.reducer, by_query, output, batch), keys.mask())
        if self.rule.pooled:
            rows = self._pick(f"{output.stream.prefix}mean {x.shape[2]}", by_query, self.rule, output.stream)
            chosen, owner = _means(by_query.flatten(2), rows).unflatten(1, (-1, k)), torch.arange(b, device=x.device)
        else:
            rows = self._pick(output.spec.row_set, by_query, self.rule, output.stream)
            chosen, owner = by_query.flatten(0, 1) if rows.flat is None else by_query[rows.owner, rows.flat % x.shape[2]], rows.owner
        return spread(chosen, owner, keys, units.keys)

    def _pick(self, key: str, x: Tensor, rule: PositionRule, stream: Stream) -> Picked:
        picked = self._picked.get(key)
        if picked is None:
            assert self._batch is not None
            picked = self._picked[key] = pick_rows(self._batch, x.shape[1], rule, stream, x.device)
        if picked.owner.device != x.device:  # a model spread over several devices
            place = f"{key} on {x.device}"
            if place not in self._picked:
                flat = None if picked.flat is None else picked.flat.to(x.device)
                self._picked[place] = replace(picked, flat=flat, owner=picked.owner.to(x.device))
            picked = self._picked[place]
        if picked.length != x.shape[1]:
            raise StoreMismatchError(
                f"sites of one row set gave {picked.length} and {x.shape[1]} positions for one batch; capture them apart"
            )
        return picked

    def gather(self, output: Output, start: int, stop: int) -> Tensor:
        """The shard's rows of one site in the order of the stimuli, in the activation's dtype; its chunks are let go."""
        places = self._places.get(output.spec.row_set)
        if places is None:
            places = self._places[output.spec.row_set] = self._place(output.spec.row_set, start, stop)
        self._copies.wait()
        chunks, output.chunks = output.chunks, []
        # One copy of all chunks: a shard of many small batches has thousands of them.
        flat = torch.cat(chunks).to(output.wide) if chunks else torch.empty(0, output.spec.d, dtype=output.wide)
        if len(flat) != len(places):
            raise StoreMismatchError(f"site {output.site!r} gave {len(flat)} rows where its positions say {len(places)}")
        chunks.clear()
        return torch.empty_like(flat).index_copy_(0, places, flat)

    def _place(self, row_set: str, start: int, stop: int) -> Tensor:
        """Where each collected row belongs so that the shard is in the order of the stimuli."""
        log = self._log[row_set]
        members = np.concatenate([members for members, *_ in log])
        count = np.concatenate([count for _, count, _ in log])
        if len(np.unique(members)) < len(members):
            order = _order(log)
            places = np.empty(len(order), np.int64)
            places[order] = np.arange(len(order))
            return torch.from_numpy(places)
        counts = np.zeros(stop - start, np.int64)
        counts[members - start] = count
        first = np.cumsum(counts) - counts
        within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        return torch.from_numpy(np.repeat(first[members - start], count) + within)

    def index(self, row_set: str, start: int, stimuli: Stimuli, kind: str) -> pa.Table:
        """The index table of a row set for the shard: stimulus, repeat, position and what is known about each row."""
        log = self._log[row_set]
        members = np.concatenate([np.repeat(members, counts) for members, counts, _ in log])
        positions = np.concatenate([positions for *_, positions in log])
        order = _order(log)
        members, positions = members[order], positions[order]
        columns: dict[str, pa.Array] = {
            "stimulus": pa.array(stimuli.source[members]),
            "repeat": pa.array(stimuli.repeat[members], pa.int32()),
            "position": pa.array(positions if kind != "stimulus" else np.zeros_like(positions), pa.int32()),
        }
        if row_set != "stimulus":
            if kind == "stimulus":
                columns["token_position"] = pa.array(positions, pa.int32())
            output = self._of_row_set[row_set]
            columns.update(output.stream.columns(members, positions, output.t))
        for name in stimuli.varying:
            columns[name] = stimuli.presented.column(name).take(pa.array(members)).combine_chunks()
        return pa.table(columns)


def _order(log: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    """The collected rows in the order of the stimuli; documents in parts, which batches may have read in any order, by position."""
    members = np.concatenate([members for members, *_ in log])
    rows = np.repeat(members, np.concatenate([counts for _, counts, _ in log]))
    if len(np.unique(members)) < len(members):
        return np.lexsort((np.concatenate([positions for *_, positions in log]), rows))
    return np.argsort(rows, kind="stable")


def _means(x: Tensor, rows: Picked) -> Tensor:
    wide = x.dtype if x.dtype == torch.float64 else torch.float32
    if rows.flat is None:
        return x.mean(1, dtype=wide)
    # Sums over the chosen rows alone: what stands at pad positions, NaN included, never takes part.
    chosen = x.reshape(-1, x.shape[-1]).index_select(0, rows.flat).to(wide)
    sums = torch.zeros(len(rows.counts), x.shape[-1], dtype=wide, device=x.device).index_add_(0, rows.owner, chosen)
    return sums / torch.from_numpy(rows.counts).to(x.device, wide)[:, None]
