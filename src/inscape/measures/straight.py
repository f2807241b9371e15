"""Measures of a model straight from its forward passes: nothing is stored where sums suffice."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.arrays import check_finite
from inscape.capturing import ShardRows, Stimuli, capture, stream
from inscape.errors import InscapeError, StimuliError, nearest
from inscape.measures.definition import Measure
from inscape.measures.next_tokens import NEXT_TOKEN, followed
from inscape.measures.one_system import Row, bind, evaluate_site, fill_intervals
from inscape.measures.uncertainty import Uncertainty, status_of
from inscape.models import Model
from inscape.stats import jackknife_groups
from inscape.store import Store
from inscape.summaries.base import Summary
from inscape.summaries.moments import Moments
from inscape.summaries.plan import require_fit
from inscape.summaries.sequences import sequences_of
from inscape.summaries.site import Held, Key, Needed
from inscape.summaries.weights import for_site


class GroupedSums:
    """Additive summaries of one site, fed shard by shard, one part per jackknife group.

    Args:
        needed: the summaries.
        count: number of groups, at least 1.
        weights: the layer that reads the rows, for the measures that need it.
    """

    def __init__(self, needed: Needed, count: int, *, weights: Any = None) -> None:
        self.needed = needed
        self.count = count
        self.weights = weights
        self.n = 0
        self.d = 0
        self._parts: dict[Key, list[Summary | None]] = {key: [None] * count for key in needed}
        self._shift: Tensor | None = None
        self.full: dict[Key, Held] = {}

    def update(self, X: Tensor, groups: np.ndarray, labels: np.ndarray | None, sequences: np.ndarray) -> None:
        """Adds rows [b, d] with the group and the sequence of each, and the label of each for labeled summaries."""
        self.n, self.d = self.n + X.shape[0], X.shape[1]
        if self._shift is None:
            self._shift = X.double().mean(0)
        for group in np.unique(groups):
            inside = np.flatnonzero(groups == group)
            rows = X[inside]
            for key, options in self.needed.items():
                cls: Any = key[0]
                part: Any
                if cls.parameters == "beside":
                    continue
                if cls is Moments:
                    part = Moments(shift=self._shift, **options).update(rows)
                else:
                    given = [labels[inside]] if cls.labeled and labels is not None else [sequences[inside]] if cls.sequenced else []
                    part = cls.of(rows, *given, **options)
                held: Any = self._parts[key][group]
                self._parts[key][group] = part if held is None else held.merge(part)

    def finish(self) -> None:
        """Adds the parts up, in the order of the groups."""
        for key, parts in self._parts.items():
            if key[0].parameters == "beside":
                self.full[key] = self._head(key[0])
                continue
            total: Any = None
            for part in parts:
                if part is not None:
                    total = part if total is None else total.merge(part)
            self.full[key] = total

    def without(self, group: int) -> dict[Key, Held]:
        """The summaries of all rows but those of one group."""
        reduced: dict[Key, Held] = {}
        for key, parts in self._parts.items():
            whole: Any = self.full[key]
            part = parts[group]
            reduced[key] = whole if part is None else whole.minus(part)
        return reduced

    def _head(self, cls: Any) -> Held:
        try:
            return cls.of(self.weights, self.d)
        except InscapeError as error:
            return error


def measure_model(
    model: Model,
    stimuli: Any,
    measures: Sequence[Measure],
    *,
    sites: Any,
    tokens: Any,
    labels: Any,
    weights: Any,
    groups: Any,
    uncertainty: Uncertainty,
    budget: int,
    from_store: Callable[[Store, Any], list[Row]],
) -> list[Row]:
    """Runs the model once and measures every site.

    Where all summaries are sums they are fed by the forward passes; else the sites' rows are spilled to a temporary store (after the
    estimate that `capture` makes) and measured from there.

    Args:
        model: the model.
        stimuli: what `ix.capture` takes.
        measures: measures of one system.
        sites: sites or globs.
        tokens: which positions give rows.
        labels: a column of the stimuli, one label per stimulus, or "next_token".
        weights: as for `measure`.
        groups: as for `measure`; they need the rows' index and go by the store.
        uncertainty: intervals; a null needs rows and goes by the store.
        budget: bytes for sums.
        from_store: measures a store, with the weights.
    """
    given = Stimuli.of(stimuli)
    usable = [one for one in measures if not one.labeled or labels is not None]
    needed, bound = bind(usable)
    additive = all(cls.parameters == "beside" or (cls.additive and hasattr(cls, "minus")) for cls, _ in needed)
    count = 0 if uncertainty.interval in (None, "bootstrap") else 32 if isinstance(uncertainty.interval, str) else int(uncertainty.interval)
    if not additive or uncertainty.null is not None or groups is not None:
        with tempfile.TemporaryDirectory() as folder:
            return from_store(capture(model, given, sites, tokens, str(Path(folder) / "rows"), progress=False), weights)
    sources = given.table.num_rows  # distinct stimuli, numbered as the index of every shard numbers them
    assigned = (
        jackknife_groups(np.arange(sources), max(1, min(count, sources)), seed=uncertainty.seed) if count else np.zeros(sources, np.int64)
    )
    parts = int(assigned.max()) + 1
    ahead = isinstance(labels, str) and labels == NEXT_TOKEN and labels not in given.table.column_names
    named = None if ahead else _labels(given, labels)

    by_site: dict[str, GroupedSums] = {}
    failed: dict[str, InscapeError] = {}

    def consume(shard: ShardRows) -> None:
        if not by_site:
            held = sum(8 * (parts + 1) * X.shape[1] ** 2 for X in shard.values.values()) * sum(cls is Moments for cls, _ in needed)
            advice = "ask for fewer groups (interval=8), fewer sites, or capture a store first and measure that"
            require_fit(held, budget, f"sums of {len(shard.values)} sites in {parts} groups", advice)
        for site, X in shard.values.items():
            index = shard.rows[shard.row_sets[site]]
            source = index["stimulus"].to_numpy()
            sums = by_site.setdefault(site, GroupedSums(needed, parts, weights=for_site(weights, site)))
            if site in failed:
                continue
            try:
                check_finite(X, f"{model.name}/{site}")
                wide = X.float() if X.dtype.itemsize == 2 else X
                sequences = sequences_of(source, index["repeat"].to_numpy())
                own = None if named is None else named[source]
                if ahead:
                    if "token_id" not in index.column_names:
                        raise StimuliError(
                            f"labels='next_token' needs token rows, but those of {site!r} have no token ids; use tokens='all'"
                        )
                    kept, own = followed(sequences, index["position"].to_numpy(), index["token_id"].to_numpy())
                    wide, source, sequences = wide[torch.from_numpy(kept)], source[kept], sequences[kept]
                sums.update(wide, assigned[source], own, sequences)
            except InscapeError as error:  # one dead site does not take the run down
                sums.d = X.shape[1]
                failed[site] = error

    facts = stream(model, given, sites, tokens, consume, progress=False)
    rows: list[Row] = []
    for site, sums in by_site.items():
        kind = facts["sites"][site].kind
        base: Row = {"system": model.name, "site": site, "kind": kind, "n": sums.n, "d": sums.d}
        try:
            if site in failed:
                raise failed[site]
            sums.finish()
            found, headline = evaluate_site(sums, measures, bound, base, labels, None)
            fill_intervals(sums, usable, bound, headline, uncertainty, parts if count else 0, places=found)
            rows += found
        except InscapeError as error:
            status, reason = status_of(error)
            rows += [{**base, "measure": one.label, "status": status, "reason": reason} for one in measures]
    return rows


def _labels(stimuli: Stimuli, labels: Any) -> np.ndarray | None:
    """One label per stimulus, from a column or as given."""
    if labels is None:
        return None
    if isinstance(labels, str):
        names = stimuli.table.column_names
        if labels not in names:
            raise StimuliError(f"the stimuli have no column {labels!r}; nearest: {nearest(labels, names)}")
        return np.asarray(stimuli.table[labels].to_pylist())
    values = np.asarray(labels)
    if len(values) != stimuli.table.num_rows:
        raise StimuliError(f"labels have {len(values)} entries for {stimuli.table.num_rows} stimuli; give one per stimulus")
    return values
