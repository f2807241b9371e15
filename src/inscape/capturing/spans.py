"""Pieces of text as token positions: substrings and character spans, one or several for each stimulus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inscape.capturing.chat import Span
from inscape.capturing.stimuli import Stimuli
from inscape.capturing.tokens import Encoded
from inscape.errors import StimuliError, nearest

WHICH = ("only", "first", "last", "all")
TAKE = ("all", "first", "last", "mean")
_SOURCES = ("find", "text", "span")
SPELLINGS = (
    "{'find': 'a column of substrings'}, {'text': 'a substring'} or {'span': 'a column of [start, stop] characters'}, with "
    "'which' (only, first, last, all occurrences) and 'take' (all, first, last tokens of each piece, or their mean)"
)


@dataclass(frozen=True)
class SpanRule:
    """Which pieces of the texts become rows.

    Attributes:
        source: "find" (a column of substrings), "text" (the substrings themselves, the same for all), "span" (a column of characters).
        value: the column, or the substrings.
        which: which occurrences of a substring; "only" refuses a text in which there are several.
        take: which tokens of each piece: "all", the "first", the "last"; "mean" averages over all of them.
    """

    source: str
    value: Any
    which: str = "only"
    take: str = "all"

    @classmethod
    def read(cls, given: Mapping[str, Any], stimuli: Stimuli) -> SpanRule:
        """The rule as the caller spelled it.

        Raises:
            StimuliError: a key, a choice or a column is unknown.
        """
        sources = [name for name in _SOURCES if name in given]
        unknown = [str(name) for name in given if name not in (*_SOURCES, "which", "take")]
        if len(sources) != 1 or unknown:
            wrong = f"the key {unknown[0]!r} is unknown" if unknown else f"it names {len(sources)} sources"
            raise StimuliError(f"tokens={dict(given)!r}: {wrong}; expected {SPELLINGS}")
        source = sources[0]
        value, which, take = given[source], given.get("which", "only"), given.get("take", "all")
        for name, choice, known in (("which", which, WHICH), ("take", take, TAKE)):
            if choice not in known:
                raise StimuliError(f"tokens={dict(given)!r}: {name}={choice!r} is unknown; expected one of {', '.join(map(repr, known))}")
        if source == "span" and which != "only":
            raise StimuliError(f"tokens={dict(given)!r}: 'which' chooses among occurrences of a substring; a span is where it is")
        columns = stimuli.presented.column_names
        if source != "text" and value not in columns:
            raise StimuliError(f"tokens={dict(given)!r}: the stimuli have no column {value!r}; nearest: {nearest(str(value), columns)}")
        return cls(source, value, which, take)

    @property
    def pooled(self) -> bool:
        """Whether the tokens of a stimulus are averaged."""
        return self.take == "mean"

    def describe(self) -> dict[str, Any]:
        """As the manifest records it."""
        value = self.value if isinstance(self.value, str) else list(self.value)
        return {self.source: value, **({} if self.source == "span" else {"which": self.which}), "take": self.take}

    def values(self, stimuli: Stimuli) -> list[Any]:
        """What is looked for in each stimulus."""
        return [self.value] * len(stimuli) if self.source == "text" else stimuli.column(self.value)

    def one_row(self, values: Sequence[Any]) -> bool:
        """Whether every stimulus gives exactly one row: one piece each, and one token of it."""
        single = all(_is_pair(value) if self.source == "span" else isinstance(value, str) for value in values)
        return single and self.take in ("first", "last") and (self.source == "span" or self.which != "all")

    def positions(self, stimuli: Stimuli, encoded: Encoded) -> list[np.ndarray]:
        """The token positions of each stimulus.

        Raises:
            StimuliError: a piece is not in its text, occurs several times, was cut away, or the tokenizer cannot tell.
        """
        if stimuli.kind not in ("text", "chat"):
            raise StimuliError(f"tokens={self.describe()!r} looks for text; the stimuli are of kind {stimuli.kind!r}, which have none")
        if stimuli.kind == "chat" and (self.source == "span" or encoded.chat is None or encoded.chat.reason is not None):
            reason = (
                encoded.chat.reason if encoded.chat is not None and encoded.chat.reason else "characters would count the template's own"
            )
            raise StimuliError(f"tokens={self.describe()!r} cannot be told in chats: {reason}; name substrings, as in {{'find': column}}")
        characters = encoded.characters
        found: list[np.ndarray] = []
        for where, value in enumerate(self.values(stimuli)):
            text = encoded.chat.texts[where] if encoded.chat is not None else str(stimuli[where])
            spans = self._spans(value, text, stimuli.ids[where], None if encoded.chat is None else encoded.chat.contents[where])
            part = slice(int(encoded.offsets[where]), int(encoded.offsets[where + 1]))
            found.append(self._tokens(spans, characters[part], text, stimuli.ids[where]))
        return found

    def _spans(self, value: Any, text: str, name: str, contents: list[Span] | None) -> list[tuple[int, int]]:
        if value is None or (not isinstance(value, (str, Mapping)) and len(value) == 0):
            raise StimuliError(f"column {self.value!r} has no value for stimulus {name!r}")
        if self.source == "span":
            spans = [_pair(pair, name) for pair in ([value] if _is_pair(value) else value)]
            for start, stop in spans:
                if not 0 <= start < stop <= len(text):
                    raise StimuliError(
                        f"the span [{start}, {stop}) of stimulus {name!r} is empty or outside its text of {len(text)} characters"
                    )
            return spans
        parts = [(0, len(text))] if contents is None else [(start, stop) for start, stop, _ in contents]
        wanted = [value] if isinstance(value, str) else list(value)
        return [span for piece in wanted for span in self._occurrences(piece, text, parts, name)]

    def _occurrences(self, piece: Any, text: str, parts: list[tuple[int, int]], name: str) -> list[tuple[int, int]]:
        if not isinstance(piece, str) or not piece:
            raise StimuliError(f"stimulus {name!r} looks for {piece!r}; expected a text of at least one character")
        spans: list[tuple[int, int]] = []
        for begin, end in parts:
            at = text.find(piece, begin, end)
            while at >= 0:
                spans.append((at, at + len(piece)))
                at = text.find(piece, at + len(piece), end)
        if not spans:
            raise StimuliError(f"stimulus {name!r} does not contain {piece!r}: {text[:60]!r}{'…' if len(text) > 60 else ''}")
        if self.which == "only" and len(spans) > 1:
            raise StimuliError(
                f"stimulus {name!r} contains {piece!r} {len(spans)} times; say which with tokens={{..., 'which': 'first'}}, 'last' or 'all'"
            )
        return {"first": spans[:1], "last": spans[-1:]}.get(self.which, spans)

    def _tokens(self, spans: list[tuple[int, int]], characters: np.ndarray, text: str, name: str) -> np.ndarray:
        begin, end = characters[:, 0], characters[:, 1]
        read = end > begin
        first, last = (int(begin[read].min()), int(end[read].max())) if read.any() else (len(text), 0)
        picked: list[np.ndarray] = []
        for start, stop in spans:
            # White space at an edge may belong to no token; anything else beyond the first or last token has been cut away.
            lost = (text[start : min(stop, first)] + text[max(start, last) : stop]).strip()
            inside = np.flatnonzero(read & (begin < stop) & (end > start))
            if lost or len(inside) == 0:
                why = "was cut away (see max_length)" if lost else "has no token of its own"
                raise StimuliError(f"in stimulus {name!r} the piece {text[start:stop]!r} at [{start}, {stop}) {why}")
            picked.append({"first": inside[:1], "last": inside[-1:]}.get(self.take, inside))
        return np.unique(np.concatenate(picked))


def _is_pair(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, int) for v in value))


def _pair(value: Any, name: str) -> tuple[int, int]:
    if isinstance(value, Mapping) and set(value) >= {"start", "stop"}:
        value = (value["start"], value["stop"])
    if not _is_pair(value) or isinstance(value, Mapping):
        raise StimuliError(f"a span of stimulus {name!r} is {value!r}; expected two whole numbers [start, stop)")
    return int(value[0]), int(value[1])


def spans_of_column(values: Sequence[Any], column: str) -> SpanRule | None:
    """The rule that a column's values stand for by their type, or None when they are positions or masks.

    Texts (or lists of them) are substrings; lists of [start, stop] pairs are character spans; whole numbers, flat lists of them and
    boolean masks are token positions.
    """
    some = next((value for value in values if value is not None and not (isinstance(value, (list, tuple)) and not value)), None)
    inner = some[0] if isinstance(some, (list, tuple)) else some
    if isinstance(inner, str):
        return SpanRule("find", column)
    if isinstance(some, Mapping) or (isinstance(some, (list, tuple)) and isinstance(inner, (list, tuple, Mapping))):
        return SpanRule("span", column)
    return None
