"""Descriptions without a language model: which words, before, at or after a token, tell that a feature is active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from inscape.dictionaries.reading.words import CLASSES, in_class, quoted

# A word counts from so many of a feature's active rows on; one alone may be chance.
_SEEN = 2
# From so large a lead of active over silent contexts on, a description says what the feature is about.
_TELLS = 0.2
_OFFSETS = (0, -1, 1)
_SHARE = {0: "{}", -1: "after {}", 1: "before {}"}


@dataclass(frozen=True)
class Clue:
    """One condition on the token at an offset: it is one of some words, or belongs to a class.

    Attributes:
        offset: 0 for the token itself, −1 for the one before it, 1 for the one after.
        words: the words, the most frequent first; "" is the edge of the text.
        kind: a name of `CLASSES` in their place.
    """

    offset: int
    words: tuple[str, ...] = ()
    kind: str = ""

    def holds(self, word: str | None) -> bool:
        """Whether the token at the offset fits; None where it is not known."""
        if word is None:
            return False
        return in_class(word, self.kind) if self.kind else word in self._set

    @cached_property
    def _set(self) -> frozenset[str]:
        return frozenset(self.words)

    def __str__(self) -> str:
        if self.kind:
            return self.kind
        told = [quoted(word) if word else ("the start of a text" if self.offset < 0 else "its end") for word in self.words]
        told = list(dict.fromkeys(told))  # with and without a space in front a word reads alike
        shown, more = told[:4], len(told) - 4
        if more > 0:
            return f"{', '.join(shown)} and {more} more"
        return " or ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


@dataclass(frozen=True)
class Rule:
    """What a feature is active on, as clues that must all hold; made from counts of words alone.

    Attributes:
        clues: one or two conditions; none where no word tells anything.
        lead: how much more often they hold in active than in silent contexts, on the rows from which they were made.
        note: said in place of the clues where there are none.
    """

    clues: tuple[Clue, ...]
    lead: float = 0.0
    note: str = field(default="no pattern in its words")

    def marks(self, words: Sequence[str], begins: bool = True, ends: bool = True) -> list[bool]:
        """For each word of a passage whether the clues hold there.

        Args:
            words: the passage.
            begins: whether it starts where its text starts.
            ends: whether it ends where its text ends.
        """
        around = ["" if begins else None, *words, "" if ends else None]
        return [bool(self.clues) and all(clue.holds(around[i + 1 + clue.offset]) for clue in self.clues) for i in range(len(words))]

    def describe(self) -> dict[str, Any]:
        """The rule as JSON-ready data."""
        clues = [{"offset": clue.offset, "words": list(clue.words), "kind": clue.kind} for clue in self.clues]
        return {"clues": clues, "lead": self.lead, "note": self.note}

    @staticmethod
    def of(told: Mapping[str, Any]) -> Rule:
        """The rule that `describe` wrote down."""
        clues = tuple(Clue(clue["offset"], tuple(clue["words"]), clue["kind"]) for clue in told["clues"])
        return Rule(clues, told["lead"], told["note"])

    def __str__(self) -> str:
        if not self.clues:
            return self.note
        first, *rest = sorted(self.clues, key=lambda clue: (clue.offset != 0, clue.offset))
        told = {0: "{}", -1: "what follows {}", 1: "what comes before {}"}[first.offset].format(first)
        return " ".join([told, *(_SHARE[clue.offset].format(clue) for clue in rest)])


class Counts:
    """Word statistics of all rows, against which those of a feature's active rows are held.

    Args:
        words: the vocabulary.
        classes: [words + 1, classes], see `class_table`.
        around: [n, 3], the word before each row, at it and after it; the number of words stands for the edge of a text.
        sample: some rows, uniformly chosen, for statistics of words beside each other.
        width: tokens of a context.
    """

    def __init__(self, words: list[str], classes: np.ndarray, around: np.ndarray, sample: np.ndarray, width: int) -> None:
        self.words, self.classes, self.width = words, classes, width
        self._base = {o: np.bincount(around[:, o + 1], minlength=len(words) + 1) / max(1, len(around)) for o in _OFFSETS}
        self._sample = around[sample]
        self._names = list(CLASSES)

    def rule(self, active: np.ndarray, strength: np.ndarray, density: float) -> Rule:
        """The best rule for a feature.

        Args:
            active: [a, 3], the words around rows in which it is active, uniformly drawn among them.
            strength: [a], its activation there; strong rows weigh more, because weak ones are often about something else.
            density: the share of all rows in which it is active.
        """
        if len(active) < 2 * _SEEN:
            return Rule((), note=f"too rare to describe ({len(active)} row{'s' * (len(active) != 1)})")
        weight = strength / strength.sum()
        offsets = _OFFSETS if self.width > 1 else (0,)
        options = [option for offset in offsets for option in self._options(active, weight, offset, density)]
        best = max(options, key=lambda option: option[0], default=(0.0, None))
        if best[1] is None or best[0] < _TELLS:
            common = np.bincount(active[:, 1], minlength=len(self.words)).argsort(kind="stable")[::-1][:3]
            return Rule(
                (), note="no pattern in its words; most often " + ", ".join(quoted(self.words[i]) for i in common if i < len(self.words))
            )
        return self._refined(best[1], best[0], active, weight, density)

    def _lead(self, hit: float, false: float) -> float:
        """How much more often an active than a silent context of `width` tokens holds a token that fits; each token is a chance."""
        return hit - (1 - (1 - min(1.0, max(0.0, false))) ** self.width)

    def _options(self, active: np.ndarray, weight: np.ndarray, offset: int, density: float) -> list[tuple[float, Clue]]:
        """The best set of words at an offset, and each class."""
        own = np.bincount(active[:, offset + 1], minlength=len(self.words) + 1)
        share = np.bincount(active[:, offset + 1], weight, len(self.words) + 1)
        silent = np.maximum(0.0, self._base[offset] - density * own / len(active)) / max(1e-12, 1 - density)
        found: list[tuple[float, Clue]] = []
        ranked = np.flatnonzero(own >= max(_SEEN, 0.01 * len(active)))
        ranked = ranked[np.argsort(-(share[ranked] + 1e-12) / (silent[ranked] + 1e-6), kind="stable")]
        hits, false = np.cumsum(share[ranked]), np.cumsum(silent[ranked])
        leads = [self._lead(a, b) for a, b in zip(hits.tolist(), false.tolist(), strict=True)]
        nearer = 0.0 if offset == 0 else 0.05  # the token itself says more to a reader than its neighbors
        if leads:
            chosen = ranked[: int(np.argmax(leads)) + 1]
            chosen = chosen[np.argsort(-share[chosen], kind="stable")]
            # A long list describes badly what it fits well: each further word costs a little.
            cost = nearer + 0.01 * max(0, len(chosen) - 4)
            found.append((max(leads) - cost, Clue(offset, tuple(self.words[i] if i < len(self.words) else "" for i in chosen))))
        for place, name in enumerate(self._names):
            member = self.classes[:, place]
            found.append((self._lead(float(share[member].sum()), float(silent[member].sum())) - nearer, Clue(offset, kind=name)))
        return found

    def _fits(self, clue: Clue, around: np.ndarray) -> np.ndarray:
        column = around[:, clue.offset + 1]
        if clue.kind:
            return self.classes[column, self._names.index(clue.kind)]
        wanted = set(clue.words)
        table = np.array([word in wanted for word in self.words] + ["" in wanted])
        return table[column]

    def _refined(self, clue: Clue, lead: float, active: np.ndarray, weight: np.ndarray, density: float) -> Rule:
        """The rule with a second clue, where one beside the first makes it tell clearly more."""
        kept = self._fits(clue, active)
        mine, weight, all_rows = active[kept], weight[kept], self._sample[self._fits(clue, self._sample)]
        if self.width == 1 or len(mine) < 2 * _SEEN or len(all_rows) < 10:
            return Rule((clue,), lead)
        base = len(all_rows) / max(1, len(self._sample))
        best: tuple[float, Clue] | None = None
        for offset in _OFFSETS:
            if offset == clue.offset:
                continue
            own = np.bincount(mine[:, offset + 1], minlength=len(self.words) + 1)
            ranked = own.argsort(kind="stable")[::-1][:6]
            sets = [tuple(self.words[i] if i < len(self.words) else "" for i in ranked[:size] if own[i] >= _SEEN) for size in (1, 2, 4, 6)]
            for other in [Clue(offset, kind=name) for name in self._names] + [
                Clue(offset, words) for words in dict.fromkeys(sets) if words
            ]:
                both = self._fits(other, mine)
                false = base * float(self._fits(other, all_rows).mean()) - density * float(both.sum()) / len(active)
                score = self._lead(float(weight[both].sum()), false)
                if best is None or score > best[0]:
                    best = score, other
        if best is not None and best[0] > lead + 0.1:
            return Rule((clue, best[1]), best[0])
        return Rule((clue,), lead)
