"""Text to token ids, recorded: the tokenizer's call, what was cut, which tokens are special."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from inscape.capturing.stimuli import Stimuli
from inscape.errors import InscapeWarning, StimuliError

# Tokenizers without a limit state a huge number instead; no model reads that many.
_NO_LIMIT = 10**7
# The longest sequence that runs without anybody having stated a maximum.
LONGEST_UNSTATED = 8192
_CHUNK = 4096


@dataclass(frozen=True)
class Encoded:
    """Token ids of all stimuli, end to end: stimulus i owns `ids[offsets[i]:offsets[i + 1]]`."""

    ids: np.ndarray
    special: np.ndarray
    offsets: np.ndarray
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per stimulus."""
        return np.diff(self.offsets)


def known_limit(tokenizer: Any, config: Any, reserved: int = 0) -> int | None:
    """The most tokens that the tokenizer or the model's config says it reads, or None when neither does.

    `reserved` positions of the model's are never given to tokens.
    """
    positions = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len")]
    stated = [int(count) - reserved for count in positions if isinstance(count, int) and count > reserved]
    own = getattr(tokenizer, "model_max_length", None)
    if isinstance(own, (int, float)) and 0 < own < _NO_LIMIT:
        stated.append(int(own))
    return min(stated) if stated else None


def encode(
    stimuli: Stimuli, tokenizer: Any, config: Any, *, max_length: int | None = None, special: str = "keep", reserved: int = 0
) -> Encoded:
    """Token ids for every stimulus; texts beyond `max_length` are cut, counted in the record and warned about.

    Raises:
        StimuliError: a text without tokens, a text too long while no maximum is known, text for a model without a tokenizer.
    """
    limit = known_limit(tokenizer, config, reserved)
    if max_length is not None and max_length < 1:
        raise StimuliError(f"max_length={max_length} leaves no token; give 1 or more")
    if max_length is not None and limit is not None and max_length > limit:
        raise StimuliError(
            f"max_length={max_length} is more than the {limit} positions that the model and its tokenizer state; give at most {limit}"
        )
    maximum = max_length or limit
    if stimuli.kind == "text" and tokenizer is None:
        raise StimuliError(
            f"the stimuli are texts ({stimuli[0][:40]!r} …) and the model has no tokenizer; load it with tokenizer=..., or give token ids"
        )
    if tokenizer is None and special != "keep":
        raise StimuliError(f"special={special!r} needs a tokenizer that says which tokens are special; the model has none")
    ids: list[np.ndarray] = []
    marks: list[np.ndarray] = []
    cut = dropped = 0
    for start in range(0, len(stimuli), _CHUNK):
        for offset, (row, mark, full) in enumerate(_chunk(stimuli, start, tokenizer, maximum)):
            where = start + offset
            if len(row) == 0:
                raise StimuliError(f"stimulus {stimuli.ids[where]!r} has no token ({str(stimuli[where])[:40]!r}); drop it or fill it")
            if maximum is None and len(row) > LONGEST_UNSTATED:
                raise StimuliError(
                    f"stimulus {stimuli.ids[where]!r} has {len(row)} tokens and neither the model nor its tokenizer states a maximum; "
                    "pass max_length=..."
                )
            cut += full > len(row)
            dropped += full - len(row)
            ids.append(row)
            marks.append(mark)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
    if cut:
        warnings.warn(
            f"{cut} of {len(stimuli)} stimuli were cut at max_length={maximum}: {dropped} of {offsets[-1] + dropped} tokens are not read",
            InscapeWarning,
            stacklevel=3,
        )
    record = {
        "tokenizer": None if tokenizer is None else type(tokenizer).__name__,
        "vocabulary": None if tokenizer is None else len(tokenizer),
        "input": stimuli.kind,
        "add_special_tokens": stimuli.kind == "text",
        "special": special,
        "max_length": maximum,
        "max_length_from": "argument" if max_length else "model" if limit else None,
        "truncated_stimuli": int(cut),
        "truncated_tokens": int(dropped),
        "tokens": int(offsets[-1]),
        "special_tokens": int(sum(int(mark.sum()) for mark in marks)),
    }
    return Encoded(np.concatenate(ids), np.concatenate(marks), offsets, record)


def _chunk(stimuli: Stimuli, start: int, tokenizer: Any, maximum: int | None) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """(ids, special mask, length before the cut) for the stimuli from `start` on."""
    stop = min(len(stimuli), start + _CHUNK)
    if stimuli.kind != "text":
        return [_given_ids(stimuli[i], stimuli.ids[i], tokenizer, maximum) for i in range(start, stop)]
    texts = [stimuli[i] for i in range(start, stop)]
    whole = tokenizer(texts, add_special_tokens=True, return_special_tokens_mask=True, verbose=False)
    rows: list[tuple[np.ndarray, np.ndarray, int]] = []
    for text, row, mark in zip(texts, whole["input_ids"], whole["special_tokens_mask"], strict=True):
        full = len(row)
        if maximum is not None and full > maximum:
            # Only the tokenizer knows how to cut and still close with its own last token.
            short = tokenizer(
                text, add_special_tokens=True, return_special_tokens_mask=True, truncation=True, max_length=maximum, verbose=False
            )
            row, mark = short["input_ids"], short["special_tokens_mask"]
        rows.append((np.asarray(row, np.int32), np.asarray(mark, bool), full))
    return rows


def _given_ids(row: Any, name: str, tokenizer: Any, maximum: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    ids = np.asarray(row)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise StimuliError(
            f"the token ids of stimulus {name!r} have shape {ids.shape} and dtype {ids.dtype}; expected a list of whole numbers"
        )
    full = len(ids)
    ids = ids[:maximum].astype(np.int32)
    known = np.asarray(getattr(tokenizer, "all_special_ids", None) or [], np.int32)
    return ids, np.isin(ids, known), full
