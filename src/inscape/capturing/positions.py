"""Which positions of a sequence become rows of the store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from inscape.capturing.stimuli import Stimuli
from inscape.errors import StimuliError, nearest

WORDS = ("last", "first", "mean", "all")
SPECIAL = ("keep", "drop", "bos_only")


class PositionRule:
    """What `tokens=` and `special=` ask for, applied to one sequence at a time.

    `tokens` is "last", "first" (one row per stimulus), "mean" (their average), "all", a position (negative ones count from the end), a
    list of positions, a slice, the name of a column (positions or a boolean mask per stimulus), or a function of the token ids that
    returns positions or a mask. Positions count the tokens that `special` leaves; masks cover the whole sequence, special tokens too.

    `special` never changes what the model reads. "keep" leaves every row; "drop" leaves out the rows of special tokens ([CLS], [SEP],
    BOS, class and register tokens of an image model), so that "last" is the last real token and "mean" an average over real ones;
    "bos_only" leaves out all of them but the one that opens the sequence.

    Raises:
        StimuliError: the rule is unknown, names a column that is not there, or leaves a stimulus without a row.
    """

    def __init__(self, tokens: Any, special: str, stimuli: Stimuli) -> None:
        if special not in SPECIAL:
            raise StimuliError(f"special={special!r} is unknown; expected one of {', '.join(map(repr, SPECIAL))}")
        self.tokens, self.special = tokens, special
        self._ids = stimuli.ids
        self._given: list[Any] | None = None
        if isinstance(tokens, str) and tokens not in WORDS:
            if tokens not in stimuli.presented.column_names:
                known = (*WORDS, *stimuli.presented.column_names)
                raise StimuliError(f"tokens={tokens!r} is neither a rule nor a column of the stimuli; nearest: {nearest(tokens, known)}")
            self._given = stimuli.column(tokens)
        elif not isinstance(tokens, (str, int, slice)) and not callable(tokens):
            if not isinstance(tokens, Sequence) or not tokens or not all(isinstance(p, (int, np.integer)) for p in tokens):
                raise StimuliError(
                    f"tokens={tokens!r} is no rule; expected one of {', '.join(map(repr, WORDS))}, a position, a list, a column"
                )
        self.pooled = isinstance(tokens, str) and tokens == "mean"

    @property
    def one_row(self) -> bool:
        """Whether every stimulus gives exactly one row, so that rows are told apart by their stimulus alone."""
        if self._given is not None:
            return all(isinstance(value, int) and not isinstance(value, bool) for value in self._given)
        return (isinstance(self.tokens, str) and self.tokens in ("last", "first", "mean")) or isinstance(self.tokens, (int, np.integer))

    def name(self, where: int) -> str:
        """The id of the stimulus at a position, for messages."""
        return self._ids[where]

    @property
    def simple(self) -> bool:
        """Whether the rule leaves every position, whatever the sequence."""
        return isinstance(self.tokens, str) and self.tokens in ("all", "mean") and self.special == "keep"

    def pick(self, where: int, length: int, special: np.ndarray | None = None, ids: np.ndarray | None = None) -> np.ndarray:
        """The positions (ascending for masks, as given for lists) of the stimulus at `where`, whose sequence has `length` tokens."""
        kept = np.arange(length)
        if self.special != "keep" and special is not None:
            out = special.copy()
            if self.special == "bos_only" and length:
                out[0] = False
            kept = kept[~out]
        rule = self.tokens if self._given is None else self._given[where]
        if isinstance(rule, str):
            picked = {"last": kept[-1:], "first": kept[:1]}.get(rule, kept)
        elif isinstance(rule, slice):
            picked = kept[rule]
        elif callable(rule):
            picked = self._from_values(np.asarray(rule(ids if ids is not None else np.arange(length))), where, kept, length)
        elif rule is None:
            raise StimuliError(f"column {self.tokens!r} has no value for stimulus {self._ids[where]!r}")
        else:
            picked = self._from_values(np.asarray(rule), where, kept, length)
        if picked.size == 0:
            raise StimuliError(
                f"stimulus {self._ids[where]!r} has {length} tokens and none is left by "
                f"tokens={_say(self.tokens)!r}, special={self.special!r}"
            )
        return picked

    def _from_values(self, values: np.ndarray, where: int, kept: np.ndarray, length: int) -> np.ndarray:
        if values.dtype == bool:
            if values.shape != (length,):
                raise StimuliError(
                    f"the mask of stimulus {self._ids[where]!r} has shape {values.shape}, its sequence has {length} tokens; "
                    "a mask needs one value per token that the model reads, special tokens included"
                )
            return np.intersect1d(np.flatnonzero(values), kept)
        if values.size and values.dtype.kind not in "iu":
            raise StimuliError(f"positions of stimulus {self._ids[where]!r} are {values.dtype}; expected whole numbers or a boolean mask")
        values = np.atleast_1d(values).astype(np.int64)
        outside = values[(values < -len(kept)) | (values >= len(kept))]
        if outside.size:
            raise StimuliError(f"position {int(outside[0])} is outside stimulus {self._ids[where]!r}, which has {len(kept)} tokens")
        # Repeating a position would give two rows with one key, so each appears once.
        return kept[np.unique(values % max(1, len(kept)))]

    def describe(self) -> dict[str, Any]:
        """The rule as the manifest records it."""
        return {"tokens": _say(self.tokens), "special": self.special, "pooled": self.pooled}


def _say(rule: Any) -> Any:
    if isinstance(rule, str | int):
        return rule
    if isinstance(rule, slice):
        return f"slice({rule.start}, {rule.stop}, {rule.step})"
    if isinstance(rule, Callable):
        code = getattr(rule, "__code__", None)
        mark = hashlib.sha256(code.co_code + repr(code.co_consts).encode()).hexdigest()[:12] if code is not None else ""
        return f"function {getattr(rule, '__qualname__', type(rule).__name__)} {mark}".strip()
    return [int(p) for p in rule]
