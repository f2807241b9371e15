"""One run of pair measures over sites that share a row set: what is asked, and the scores as they come in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inscape.errors import InscapeError
from inscape.measures.base import Measure
from inscape.measures.uncertainty import noted
from inscape.stats.permutation import reached
from inscape.summaries.cross import CrossMoments
from inscape.summaries.products import GramProducts
from inscape.summaries.rows import SiteRows, SpanRows

Pair = tuple[int, int]


@dataclass
class Scored:
    """What one measure gave for one pair of sites."""

    value: float | None = None
    error: InscapeError | None = None
    left_out: list[float] = field(default_factory=list)
    left_out_error: str | None = None
    null: list[float] = field(default_factory=list)
    null_error: str | None = None
    draws: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Scores = dict[tuple[Pair, str], Scored]


class PairRun:
    """One `compare` over sites that share a row set: the sites' rows, the wanted pairs, groups and permutations.

    Args:
        sites: rows of all sites that take part.
        pairs: pairs of numbers into `sites`.
        groups: jackknife group of every row, or None.
        orders: permutations of the rows; empty without a null.
        budget: bytes allowed.
        sources: the independent source of every row; default each row is its own.
        enough: shuffled scores that must reach every score before the draws end early; None makes all draws.
    """

    def __init__(
        self,
        sites: Sequence[SiteRows],
        pairs: Sequence[Pair],
        groups: np.ndarray | None,
        orders: Sequence[np.ndarray],
        budget: int,
        *,
        sources: np.ndarray | None = None,
        enough: int | None = None,
    ) -> None:
        self.enough = enough
        self.sites = sites
        self.sources = np.arange(sites[0].n) if sources is None else sources
        self.pairs = list(pairs)
        self.groups = groups
        self.count = 0 if groups is None else int(groups.max()) + 1
        self.orders = orders
        self.budget = budget
        self.scores: Scores = {}

    def in_spans(self) -> PairRun:
        """The same run, with the same scores, over coordinates in their span where a site has more units than rows; only of held rows."""
        turned = copy(self)
        turned.sites = [SpanRows(site) if site.d > site.n and site.held else site for site in self.sites]
        return turned

    def score(self, pair: Pair, measure: Measure) -> Scored:
        """The entry of a pair and measure."""
        return self.scores.setdefault((pair, measure.label), Scored())

    def point(self, pair: Pair, measure: Measure, compute: Callable[[], Any]) -> None:
        """Evaluates for all rows; an error becomes the entry's."""
        entry = self.score(pair, measure)
        try:
            with noted() as notes:
                entry.value = float(compute())
            entry.notes = notes
        except InscapeError as error:
            entry.error = error

    def without(self, pair: Pair, measure: Measure, compute: Callable[[], Any]) -> None:
        """Evaluates without one group; the first error ends the interval."""
        entry = self.score(pair, measure)
        if entry.error is None and entry.left_out_error is None:
            try:
                with noted():
                    entry.left_out.append(float(compute()))
            except InscapeError as error:
                entry.left_out_error = str(error)

    def shuffled(self, pair: Pair, measure: Measure, compute: Callable[[], Any]) -> None:
        """Evaluates with the pairing broken."""
        entry = self.score(pair, measure)
        if entry.error is None and entry.null_error is None:
            try:
                with noted():
                    entry.null.append(float(compute()))
            except InscapeError as error:
                entry.null_error = str(error)

    def draws(self, pairs: Sequence[Pair], measures: Sequence[Measure]) -> Iterator[np.ndarray]:
        """The permutations, until all of these scores are decided where the null is sequential."""
        for count, order in enumerate(self.orders):
            if self.enough is not None and count % 10 == 0 and all(self._decided(pair, one) for pair in pairs for one in measures):
                return
            yield order

    def _decided(self, pair: Pair, one: Measure) -> bool:
        entry = self.score(pair, one)
        if entry.error is not None or entry.null_error is not None or entry.value is None:
            return True
        sign = -1.0 if one.higher == "more different" else 1.0
        return int(reached(sign * entry.value, sign * np.asarray(entry.null)).sum()) >= (self.enough or 0)

    def null_pairs(self) -> list[Pair]:
        """The pairs that have a null: a site with itself has none."""
        return [pair for pair in self.pairs if pair[0] != pair[1]] if self.orders else []


def injected_pair(one: Measure, pair: CrossMoments | GramProducts) -> dict[str, Any]:
    """The pair summary under the name and in the form that the measure asks for."""
    found: dict[str, Any] = {}
    for name, (cls, _) in one.needs.items():
        found[name] = pair.products() if cls is GramProducts and isinstance(pair, CrossMoments) else pair
    return found
