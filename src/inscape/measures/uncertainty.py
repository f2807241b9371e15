"""How one call computes its intervals and nulls."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from inscape.errors import DegenerateInputError, InscapeError, InscapeWarning, StoreMismatchError, TooFewStimuliError

NULLS = ("permute", "sequential", "closed")

# A sequential null ends for a score once this many shuffled scores have reached it: p is then known to about a quarter of itself.
ENOUGH = 20
CORRECTIONS = ("max", "holm", "bh")
INTERVALS = ("auto", "jackknife", "bootstrap")


@dataclass(frozen=True)
class Uncertainty:
    """The resampling that a `measure` or `compare` call asked for, checked.

    Attributes:
        interval: "auto", "jackknife", "bootstrap", a number of jackknife groups, or None.
        level: coverage of the interval.
        null: "permute", "sequential" (permutations until every score is decided), "closed" (exact moments, no permutation) or None.
        draws: permutations, or bootstrap samples.
        correction: "max", "holm", "bh" or None.
        seed: seed of groups and draws.
    """

    interval: str | int | None = "auto"
    level: float = 0.95
    null: str | None = None
    draws: int = 200
    correction: str | None = "max"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.interval is not None and not isinstance(self.interval, str):
            if isinstance(self.interval, bool):
                raise ValueError(f"interval={self.interval} is no number of groups; give 2 or more, {', '.join(INTERVALS)} or None")
            object.__setattr__(self, "interval", operator.index(self.interval))
        if isinstance(self.interval, str) and self.interval not in INTERVALS:
            raise ValueError(f"interval={self.interval!r} is none of {INTERVALS}, a number of groups, or None")
        if isinstance(self.interval, int) and self.interval < 2:
            raise ValueError(f"interval={self.interval} groups; a jackknife needs at least 2")
        if self.null is not None and self.null not in NULLS:
            raise ValueError(f"null={self.null!r} is none of {NULLS} or None")
        if self.correction is not None and self.correction not in CORRECTIONS:
            raise ValueError(f"correction={self.correction!r} is none of {CORRECTIONS} or None")
        if not 0 < self.level < 1:
            raise ValueError(f"level={self.level} is no coverage; give a number between 0 and 1, for instance 0.95")
        least = 20 if self.interval == "bootstrap" else 1
        if self.draws < least:
            raise ValueError(f"draws={self.draws}; at least {least} {'are' if least > 1 else 'is'} needed")

    @property
    def enough(self) -> int | None:
        """Shuffled scores that must reach a score before a sequential null stops; None where all draws are made."""
        return ENOUGH if self.null == "sequential" else None

    def settings(self) -> dict[str, Any]:
        """The settings that a result records."""
        return {**vars(self)}


def status_of(error: InscapeError) -> tuple[str, str]:
    """The status word and the reason that a row shows in place of a number."""
    if isinstance(error, TooFewStimuliError):
        return "too_few", str(error)
    if isinstance(error, DegenerateInputError):
        return "degenerate", str(error)
    if isinstance(error, StoreMismatchError):
        return "mismatch", str(error)
    return "failed", str(error)


@contextmanager
def noted() -> Generator[list[str]]:
    """Collects the texts of `InscapeWarning`s in place of showing them: a verb puts them into its rows and warns once."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InscapeWarning)
        yield notes
    for warning in caught:
        if issubclass(warning.category, InscapeWarning):
            notes.append(str(warning.message))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def warn_once(rows: Sequence[dict[str, Any]]) -> None:
    """One `InscapeWarning` per measure whose rows carry a note, with the first note and how many there are."""
    by_measure: dict[str, list[str]] = {}
    for row in rows:
        if row.get("status", "ok") == "ok" and row.get("reason"):
            by_measure.setdefault(row["measure"], []).append(row["reason"])
    for notes in by_measure.values():
        more = f" (and {len(notes) - 1} more rows; see the column `reason`)" if len(notes) > 1 else ""
        warnings.warn(notes[0] + more, InscapeWarning, stacklevel=3)
