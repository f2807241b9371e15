"""Which positions of a sequence become rows of the store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from inscape.capturing.chat import ROLES
from inscape.capturing.spans import SPELLINGS, SpanRule, spans_of_column
from inscape.capturing.stimuli import Stimuli
from inscape.capturing.tokens import Encoded
from inscape.errors import StimuliError, nearest

WORDS = ("last", "first", "mean", "all")
SPECIAL = ("keep", "drop", "bos_only")


class PositionRule:
    """What `tokens=` and `special=` ask for, applied to one sequence at a time.

    `tokens` is "last", "first" (one row per stimulus), "mean" (their average), "all", a position (negative ones count from the end), a
    list of positions, a slice, a role ("assistant", "user", …: the words of chat messages; "generated": what the model has added), the
    name of a column, a mapping that names pieces of text (see `SpanRule`), or a function of the token ids that returns positions or a
    mask. A column's type says what it holds: whole numbers (or flat lists of them) are positions, boolean lists are masks, texts (or lists
    of them) are substrings to find, lists of [start, stop] pairs are spans of characters. Positions count the tokens that `special`
    leaves; masks cover the whole sequence, special tokens too.

    `special` never changes what the model reads. "keep" leaves every row; "drop" leaves out the rows of special tokens ([CLS], [SEP],
    BOS, class and register tokens of an image model), so that "last" is the last real token and "mean" an average over real ones;
    "bos_only" leaves out all of them but the one that opens the sequence.

    Raises:
        StimuliError: the rule is unknown, names a column that is not there, or leaves a stimulus without a row.
    """

    def __init__(self, tokens: Any, special: str, stimuli: Stimuli, encoded: Encoded | None = None) -> None:
        if special not in SPECIAL:
            raise StimuliError(f"special={special!r} is unknown; expected one of {', '.join(map(repr, SPECIAL))}")
        self.tokens, self.special = tokens, special
        self._ids = stimuli.ids
        self._given: list[Any] | None = None
        self._mask: tuple[np.ndarray, np.ndarray] | None = None  # for roles: which tokens of all stimuli, and where each begins
        self._pieces: list[np.ndarray] | None = None  # for spans: positions in the whole sequence
        self._encoded = encoded
        self.spans: SpanRule | None = None
        values: list[Any] = []
        columns = stimuli.presented.column_names
        if isinstance(tokens, str) and tokens not in WORDS:
            if tokens in columns:
                if encoded is not None and encoded.mark(tokens) is not None:
                    raise StimuliError(f"tokens={tokens!r} is both a role of the tokens and a column of the stimuli; rename the column")
                values = stimuli.column(tokens)
                self.spans = spans_of_column(values, tokens)
                self._given = values if self.spans is None else None
            else:
                self._mask = _role(tokens, stimuli, encoded)
        elif isinstance(tokens, Mapping):
            self.spans = SpanRule.read(tokens, stimuli)
            values = self.spans.values(stimuli)
        elif not isinstance(tokens, (str, int, slice)) and not callable(tokens):
            if not isinstance(tokens, Sequence) or not tokens or not all(isinstance(p, (int, np.integer)) for p in tokens):
                raise StimuliError(
                    f"tokens={tokens!r} is no rule; expected one of {', '.join(map(repr, WORDS))}, a position, a list, a column, a role, "
                    f"or {SPELLINGS}"
                )
        if self.spans is not None:
            if encoded is None:
                raise StimuliError(f"tokens={_say(tokens)!r} looks for pieces of text; the stimuli are of kind {stimuli.kind!r}")
            self._pieces = self.spans.positions(stimuli, encoded)
        self.pooled = (isinstance(tokens, str) and tokens == "mean") or (self.spans is not None and self.spans.pooled)
        self._single = self.spans is not None and self.spans.one_row(values)

    @property
    def one_row(self) -> bool:
        """Whether every stimulus gives exactly one row, so that rows are told apart by their stimulus alone."""
        if self._given is not None:
            return all(isinstance(value, int) and not isinstance(value, bool) for value in self._given)
        if self.spans is not None:
            return self._single
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
        if self._encoded is not None and (self._mask is not None or self._pieces is not None):
            read = self._encoded.ids[self._encoded.offsets[where] : self._encoded.offsets[where + 1]]
            if ids is None or length != len(read) or not np.array_equal(ids, read):
                raise StimuliError(
                    f"tokens={_say(self.tokens)!r} picks tokens of the text; stimulus {self._ids[where]!r} has {len(read)} of them, and a "
                    f"site gives {length} positions that are something else. Capture that site apart"
                )
        if self._mask is not None:
            mask, starts = self._mask
            picked = np.intersect1d(np.flatnonzero(mask[starts[where] : starts[where + 1]]), kept)
        elif self._pieces is not None:
            picked = np.intersect1d(self._pieces[where], kept)
        elif isinstance(rule, str):
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
        told = {"tokens": _say(self.tokens), "special": self.special, "pooled": self.pooled}
        return {**told, "spans": self.spans.describe()} if self.spans is not None else told


def _role(name: str, stimuli: Stimuli, encoded: Encoded | None) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens have a role, and where the tokens of each stimulus begin."""
    mask = None if encoded is None else encoded.mark(name)
    if encoded is not None and mask is not None:
        return mask, encoded.offsets
    if name == "generated":
        raise StimuliError("tokens='generated' picks what the model has added; say how much with generate=...")
    if encoded is not None and encoded.chat is not None and (name in ROLES or encoded.chat.reason is not None):
        raise encoded.chat.no_role(name)
    if name in ROLES:
        raise StimuliError(
            f"tokens={name!r} picks the words of a role; only chat messages have roles, and the stimuli are {stimuli.kind!r}"
        )
    roles = () if encoded is None else encoded.roles
    known = (*WORDS, *roles, *stimuli.presented.column_names)
    raise StimuliError(f"tokens={name!r} is neither a rule nor a column of the stimuli; nearest: {nearest(name, known)}")


def _say(rule: Any) -> Any:
    if isinstance(rule, str | int):
        return rule
    if isinstance(rule, Mapping):
        return {str(key): value if isinstance(value, str) else list(value) for key, value in rule.items()}
    if isinstance(rule, slice):
        return f"slice({rule.start}, {rule.stop}, {rule.step})"
    if isinstance(rule, Callable):
        code = getattr(rule, "__code__", None)
        mark = hashlib.sha256(code.co_code + repr(code.co_consts).encode()).hexdigest()[:12] if code is not None else ""
        return f"function {getattr(rule, '__qualname__', type(rule).__name__)} {mark}".strip()
    return [int(p) for p in rule]
