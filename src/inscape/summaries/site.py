"""All summaries that some measures need of one site, built once, and again without each group of rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.arrays import row_blocks
from inscape.errors import DegenerateInputError, InscapeError, TooFewStimuliError
from inscape.summaries.base import Summary
from inscape.summaries.blocks import loses_digits, needs_double, pilot_shift
from inscape.summaries.extremes import Extremes
from inscape.summaries.moments import Moments
from inscape.summaries.rows import SiteRows

# Rows of the pilot that decides on fp64 products: 256³ multiplications at most.
PILOT = 256

# Options of which a larger value serves who asks for a smaller one.
_LARGER = ("k", "scatter")
# What a summary may need that a site of a store does not always have.
_MISSING = {
    "positions": "{site} has no positions of units; store a unit table with columns x, y (and z), or call the measure with X, positions",
    "map": "{site} holds rows, and this needs a map of them as well; call the measure as a function with X, map",
}

Key = tuple[type[Summary], Hashable]
Needed = dict[Key, dict[str, Any]]
Held = Summary | InscapeError


def shared_needs(needs: Iterable[tuple[type, Mapping[str, Any]]]) -> tuple[Needed, list[Key]]:
    """Unites needs that one summary can serve: same class and options, the largest k, with a scatter where one of them wants it.

    Returns:
        The distinct needs with their options, and for each given need the key of the one that serves it.
    """
    needed: Needed = {}
    keys: list[Key] = []
    for cls, options in needs:
        fixed = tuple(sorted((name, repr(value)) for name, value in options.items() if name not in _LARGER))
        key = (cls, fixed)
        if key in needed:
            for name in _LARGER:
                if name in options:
                    needed[key][name] = max(needed[key].get(name, options[name]), options[name])
        needed.setdefault(key, dict(options))
        keys.append(key)
    return needed, keys


def needed_of(
    summaries: Mapping[Key, Held], keys: Mapping[str, Key], needs: Mapping[str, tuple[type, Mapping[str, Any]]]
) -> dict[str, Any]:
    """The summaries of one measure by parameter.

    Raises:
        InscapeError: what kept one of them from being built; or there are fewer rows than the measure's own k asks for.
    """
    found: dict[str, Any] = {}
    for name, key in keys.items():
        held: Any = summaries[key]
        if isinstance(held, InscapeError):
            raise held
        asked = needs[name][1].get("k")
        if asked is not None and held.k < asked:
            raise TooFewStimuliError(f"{asked} neighbors need at least {asked + 1} rows, got {held.n}; use more stimuli or a smaller k")
        found[name] = held
    return found


class SiteSummaries:
    """The summaries of one site for all rows, and for all rows but one group.

    Additive summaries keep one part per group and subtract it; where the parts would not fit into `budget` they are formed again when
    needed. Summaries of a fixed row set drop the group's rows. With fewer rows than units the moments come from the rows' own n × n
    side, which is smaller than any part.

    Args:
        rows: the site's rows.
        needed: what to build, from `shared_needs`.
        labels: one label per row for labeled summaries, or None.
        weights: the layer that reads the rows, for the measures that need it.
        groups: jackknife group of every row, or None.
        budget: bytes for parts.
        positions: of the units, for the summaries that need them, or None.
        precise: form products of narrow rows in fp64; by default a small pilot decides, and `lost_digits` tells afterwards.
    """

    def __init__(
        self,
        rows: SiteRows,
        needed: Needed,
        *,
        labels: np.ndarray | None = None,
        weights: Any = None,
        groups: np.ndarray | None = None,
        budget: int = 2**32,
        positions: np.ndarray | None = None,
        precise: bool | None = None,
    ) -> None:
        self.positions = positions
        self.rows = rows
        self.needed = needed
        self.labels = labels
        self.weights = weights
        self.groups = groups
        pilot = rows.take(slice(0, min(rows.n, 1024)))
        # A pilot that is small enough to cost nothing finds the bad cases; the eigenvalues themselves have the last word.
        decided = needs_double(pilot[:PILOT]) if precise is None else precise
        self._hints: dict[str, Any] = {"precise": decided, "shift": pilot_shift(pilot)}
        self._wide = rows.n < rows.d
        self._parts: dict[Key, list[Summary]] = {}
        self._keep = groups is not None and (int(groups.max()) + 1) * 8 * rows.d**2 + self._class_bytes() <= budget
        self.full: dict[Key, Held] = {key: self._tried(self._build, key) for key in needed}

    def _class_bytes(self) -> int:
        """Bytes of class means held by group: a group has no more classes than rows."""
        asked = [cls for cls, _ in self.needed if cls.additive and (cls.labeled or cls.sequenced)]
        if not asked or self.groups is None:
            return 0
        most = np.bincount(self.groups)
        named = [self.labels if cls.labeled else self.rows.sequences for cls in asked]
        count = max(len(np.unique(one)) for one in named if one is not None)
        return len(asked) * int(np.minimum(most, count).sum()) * 8 * self.rows.d

    @property
    def lost_digits(self) -> bool:
        """Whether a spectrum that was asked for reaches into the rounding of products that were formed in fp32."""
        if self._hints["precise"] or self._wide or self.rows.dtype == torch.float64:
            return False
        asked = (vars(summary).get("eigenvalues") for summary in self.full.values() if isinstance(summary, Moments))
        return any(values is not None and loses_digits(values, min(self.rows.n - 1, self.rows.d)) for values in asked)

    def without(self, group: int) -> Mapping[Key, Held]:
        """The summaries of all rows but those of one group, each made when it is first looked up."""
        assert self.groups is not None
        inside = np.flatnonzero(self.groups == group)
        return _Lazily(lambda key: self._tried(self._reduced, key, group, inside), self.needed)

    @staticmethod
    def _tried(make: Callable[..., Summary], key: Key, *rest: Any) -> Held:
        """The summary, or why there is none: what one measure lacks must not take the others down."""
        try:
            return make(key, *rest)
        except InscapeError as error:
            return error

    def permuted(self, labels: np.ndarray) -> dict[Key, Held]:
        """The labeled summaries with other labels; the others unchanged."""
        given, self.labels = self.labels, labels
        try:
            return {key: self._of(key, np.arange(self.rows.n)) if _labeled(key) else self.full[key] for key in self.needed}
        finally:
            self.labels = given

    def _build(self, key: Key) -> Summary:
        everything = np.arange(self.rows.n)
        if not self._additive(key) or self.groups is None or not self._keep:
            return self._of(key, everything)
        parts = [self._of(key, np.flatnonzero(self.groups == group)) for group in range(int(self.groups.max()) + 1)]
        self._parts[key] = parts
        return _merged(parts)

    def _reduced(self, key: Key, group: int, inside: np.ndarray) -> Summary:
        found = self.full[key]
        if isinstance(found, InscapeError):
            raise found
        if not self._additive(key):
            whole: Any = found
            if hasattr(whole, "drop"):
                mask = np.zeros(self.rows.n, dtype=bool)
                mask[inside] = True
                return whole.drop(mask)
            kept = np.setdiff1d(np.arange(self.rows.n), inside)
            return whole.take(kept) if hasattr(whole, "take") else self._of(key, kept)
        part = self._parts[key][group] if key in self._parts else self._of(key, inside)
        whole_sums: Any = found
        return whole_sums.minus(part)

    def _additive(self, key: Key) -> bool:
        return key[0].additive and hasattr(key[0], "minus") and not (self._wide and key[0] is Moments)

    def _of(self, key: Key, chosen: np.ndarray) -> Summary:
        """The summary of some rows, in blocks where it is additive and the rows are not in memory."""
        cls, options = key[0], dict(self.needed[key])
        if "k" in options:
            # Measures that ask for fewer neighbors shall have them; who asks for more than there are is refused by `needed_of`.
            options["k"] = max(1, min(options["k"], len(chosen) - 1))
        if cls is Moments:
            options |= {"precise": self._hints["precise"]} | ({} if self._wide else {"shift": self._hints["shift"]})
        if not cls.additive or self.rows.held or self._wide:
            return self._one(cls, chosen, options)
        return _merged([self._one(cls, chosen[block], options) for block in row_blocks(len(chosen), self.rows.d, 2)])

    def _one(self, cls: type[Summary], chosen: np.ndarray, options: dict[str, Any]) -> Summary:
        if cls.parameters == "beside":
            if self.weights is None:
                raise InscapeError(
                    "needs the layer that reads the rows: pass weights=, a layer, (matrix, bias) or a dictionary from site to it"
                )
            head: Any = cls
            return head.of(self.weights, self.rows.d)
        everything = len(chosen) == self.rows.n
        X: Tensor = self.rows.all() if everything else self.rows.take(chosen)
        inputs: list[Any] = [X]
        if getattr(cls, "labeled", False):
            assert self.labels is not None
            inputs.append(self.labels[chosen])
        if cls.sequenced:
            inputs.append(self.rows.sequences[chosen])
        if cls is Extremes and len(chosen):
            options["first_row"] = int(chosen[0])  # blocks of all rows name them as the whole does
        if cls.beside:
            if cls.beside != "positions" or self.positions is None:
                raise DegenerateInputError(_MISSING[cls.beside].format(site=self.rows.name))
            inputs.append(self.positions)
        if cls is Moments and not self._wide:
            # `update`, not `of`: a group smaller than the width must not fall back to its own n × n side.
            return Moments(shift=options["shift"], precise=options["precise"]).update(X)
        return cls.of(*inputs, **options)


class _Lazily(Mapping[Key, Held]):
    """A mapping whose entries are made when they are first looked up, and kept."""

    def __init__(self, make: Callable[[Key], Held], keys: Iterable[Key]) -> None:
        self._make = make
        self._keys = list(keys)
        self._made: dict[Key, Held] = {}

    def __getitem__(self, key: Key) -> Held:
        if key not in self._made:
            if key not in self._keys:
                raise KeyError(key)
            self._made[key] = self._make(key)
        return self._made[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _labeled(key: Key) -> bool:
    return bool(getattr(key[0], "labeled", False))


def _merged(parts: list[Summary]) -> Summary:
    """Parts in their order, so the result does not depend on how they were scheduled."""
    total: Any = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    return total
