"""Text to token ids, recorded: the tokenizer's call, what was cut, which tokens are special."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from inscape.capturing.conversations import ChatReader, Piece
from inscape.capturing.stimuli import Stimuli
from inscape.errors import InscapeWarning, StimuliError

# Tokenizers without a limit state a huge number instead; no model reads that many.
_NO_LIMIT = 10**7
# The longest sequence that runs without anybody having stated a maximum.
LONGEST_UNSTATED = 8192
_CHUNK = 4096
SIDES = ("right", "left")


@dataclass(frozen=True)
class Encoded:
    """Token ids of all stimuli, end to end: stimulus i owns `ids[offsets[i]:offsets[i + 1]]`.

    Attributes:
        ids: token ids.
        special: which of them the tokenizer or the chat template adds as special tokens.
        offsets: where each stimulus begins, and the end of the last one.
        record: what the manifest says about the reading.
        marks: further columns of the tokens (`role` as numbers of `roles`, `message`, `assistant`, `generated`), each as long as `ids`.
        roles: the names that the column `role` counts.
        chat: the conversations as they were rendered, for chat stimuli.
        locate: makes the character span [tokens, 2] of each token in its text.
        unlocated: why there are no spans.
    """

    ids: np.ndarray
    special: np.ndarray
    offsets: np.ndarray
    record: dict[str, Any] = field(default_factory=dict)
    marks: dict[str, np.ndarray] = field(default_factory=dict)
    roles: tuple[str, ...] = ()
    chat: ChatReader | None = None
    locate: Callable[[], np.ndarray] | None = None
    unlocated: str = "token ids have no characters"

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per stimulus."""
        return np.diff(self.offsets)

    @cached_property
    def characters(self) -> np.ndarray:
        """[tokens, 2]: the first character of each token and the one behind its last, both 0 for what stands in no text.

        Raises:
            StimuliError: the tokenizer does not say.
        """
        if self.locate is None:
            raise StimuliError(f"spans of text cannot be found in tokens here: {self.unlocated}")
        return self.locate()

    def mark(self, name: str) -> np.ndarray | None:
        """[tokens]: which tokens have a role (`assistant`: what the assistant wrote), or are `generated`; None where nobody can tell."""
        if name in ("assistant", "generated") or "role" not in self.marks:
            return self.marks.get(name) if name in ("assistant", "generated") else None
        return self.marks["role"] == self.roles.index(name) if name in self.roles else None

    def rows(self, at: np.ndarray) -> dict[str, pa.Array]:
        """The further columns at some tokens, as a store keeps them."""
        found: dict[str, pa.Array] = {}
        for name, values in self.marks.items():
            if name == "role":
                codes = pa.array(values[at], pa.int16())
                found[name] = pa.DictionaryArray.from_arrays(codes, pa.array(self.roles, pa.string())).cast(pa.string())
            else:
                found[name] = pa.array(values[at])
        return found


def special_ids(tokenizer: Any) -> np.ndarray:
    """Ids of tokens that stand for no text: those with a role of their own, and what the vocabulary flags; never the unknown word."""
    ids = set(getattr(tokenizer, "all_special_ids", None) or [])
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    ids |= {number for number, token in added.items() if getattr(token, "special", False)}
    unknown = getattr(tokenizer, "unk_token_id", None)
    others = {getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "pad", "cls", "sep", "mask")}
    return np.asarray(sorted(ids - ({unknown} - others)), np.int32)


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
    stimuli: Stimuli,
    tokenizer: Any,
    config: Any,
    *,
    max_length: int | None = None,
    special: str = "keep",
    reserved: int = 0,
    truncation_side: str | None = None,
    whole: bool = False,
) -> Encoded:
    """Token ids for every stimulus; texts beyond `max_length` are cut, counted in the record and warned about.

    Args:
        stimuli: texts, chats or token ids.
        tokenizer: the model's, or None for token ids.
        config: the model's configuration, which states how much it reads.
        max_length: the most tokens of a stimulus; default: what tokenizer and configuration state.
        special: as asked of the rows; recorded, and refused where nobody knows special tokens.
        reserved: positions of the model's that are never given to tokens.
        truncation_side: where texts are cut; default: the tokenizer's own side.
        whole: cut nothing, however long.

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
    if truncation_side is not None and truncation_side not in SIDES:
        raise StimuliError(f"truncation_side={truncation_side!r} is unknown; expected 'right' or 'left': the side where texts are cut")
    maximum = None if whole else max_length or limit
    if stimuli.kind == "text" and tokenizer is None:
        raise StimuliError(
            f"the stimuli are texts ({stimuli[0][:40]!r} …) and the model has no tokenizer; "
            "give it one with ix.load(model, tokenizer=tokenizer), or give token ids"
        )
    if tokenizer is None and special != "keep":
        raise StimuliError(f"special={special!r} needs a tokenizer that says which tokens are special; the model has none")
    side = truncation_side or getattr(tokenizer, "truncation_side", None) or "right"
    chat = ChatReader(tokenizer, stimuli.template, special_ids(tokenizer)) if stimuli.kind == "chat" else None
    if chat is not None:
        pieces = chat.read(stimuli, maximum, side)
    elif stimuli.kind == "text":
        pieces = (Piece(*row) for row in _texts(stimuli, tokenizer, maximum, side))
    else:
        known = special_ids(tokenizer)
        pieces = (_given_ids(stimuli[i], stimuli.ids[i], known, maximum, side) for i in range(len(stimuli)))
    ids: list[np.ndarray] = []
    marks: list[np.ndarray] = []
    cut = dropped = opened = 0
    for where, piece in enumerate(pieces):
        count = len(piece.ids)
        if count == 0:
            raise StimuliError(f"stimulus {stimuli.ids[where]!r} has no token ({str(stimuli[where])[:40]!r}); drop it or fill it")
        if maximum is None and not whole and count > LONGEST_UNSTATED:
            raise StimuliError(
                f"stimulus {stimuli.ids[where]!r} has {count} tokens and neither the model nor its tokenizer states a maximum; "
                "pass max_length=..."
            )
        cut += piece.full > count
        dropped += piece.full - count
        opened += bool(piece.special[0])
        ids.append(piece.ids)
        marks.append(piece.special)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
    if cut:
        warnings.warn(
            f"{cut} of {len(stimuli)} stimuli were cut at max_length={maximum}: {dropped} of {offsets[-1] + dropped} tokens are not read",
            InscapeWarning,
            stacklevel=6,  # where the capture was asked for
        )
    joined = np.concatenate(ids)
    record = {
        "tokenizer": None if tokenizer is None else type(tokenizer).__name__,
        "vocabulary": None if tokenizer is None else len(tokenizer),
        "input": stimuli.kind,
        "add_special_tokens": stimuli.kind == "text",
        "special": special,
        "max_length": maximum,
        "max_length_from": None if whole else "argument" if max_length else "model" if limit else None,
        "truncation_side": side,
        "truncated_stimuli": int(cut),
        "truncated_tokens": int(dropped),
        "tokens": int(offsets[-1]),
        "special_tokens": int(sum(int(mark.sum()) for mark in marks)),
        "opened_by_special": int(opened),
    }
    encoded = Encoded(joined, np.concatenate(marks), offsets, record)
    if chat is not None:
        told = {"template": chat.describe(), "ids_sha256": hashlib.sha256(joined.tobytes()).hexdigest()}
        located = None if chat.offsets is None else lambda: np.concatenate(chat.offsets or [])
        why = f"{type(tokenizer).__name__} gives no character offsets (it is a slow tokenizer)"
        columns = {"record": {**record, **told}, "marks": chat.marks, "roles": chat.roles, "chat": chat}
        return replace(encoded, locate=located, unlocated=why, **columns)
    if stimuli.kind == "text" and getattr(tokenizer, "is_fast", False):
        return replace(encoded, locate=lambda: _characters(stimuli, tokenizer, maximum, side, int(offsets[-1])))
    if stimuli.kind == "text":
        return replace(encoded, unlocated=f"{type(tokenizer).__name__} gives no character offsets (it is a slow tokenizer)")
    return encoded


def _texts(
    stimuli: Stimuli, tokenizer: Any, maximum: int | None, side: str, located: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """(ids, special mask or, when `located`, character offsets, length before the cut) of every text."""
    asked, wanted = ("return_offsets_mapping", "offset_mapping") if located else ("return_special_tokens_mask", "special_tokens_mask")
    options: dict[str, Any] = {"add_special_tokens": True, "verbose": False, asked: True}
    kind = np.int32 if located else np.bool_
    for start in range(0, len(stimuli), _CHUNK):
        texts = [stimuli[i] for i in range(start, min(len(stimuli), start + _CHUNK))]
        whole = tokenizer(texts, **options)
        for text, row, mark in zip(texts, whole["input_ids"], whole[wanted], strict=True):
            full = len(row)
            if maximum is not None and full > maximum:
                # Only the tokenizer knows how to cut and still close with its own last token.
                with _cutting(tokenizer, side):
                    short = tokenizer(text, truncation=True, max_length=maximum, **options)
                row, mark = short["input_ids"], short[wanted]
            yield np.asarray(row, np.int32), np.asarray(mark, kind), full


@contextmanager
def _cutting(tokenizer: Any, side: str) -> Generator[None]:
    """Has a tokenizer cut on a side for a while."""
    own = getattr(tokenizer, "truncation_side", "right")
    if own == side:
        yield
        return
    if not hasattr(tokenizer, "truncation_side"):
        raise StimuliError(f"truncation_side={side!r}: {type(tokenizer).__name__} cuts on the right and cannot be told otherwise")
    tokenizer.truncation_side = side
    try:
        yield
    finally:
        tokenizer.truncation_side = own


def _characters(stimuli: Stimuli, tokenizer: Any, maximum: int | None, side: str, total: int) -> np.ndarray:
    """The tokenizer's character offsets, by the same calls that gave the ids."""
    found = np.concatenate([offsets.reshape(-1, 2) for _, offsets, _ in _texts(stimuli, tokenizer, maximum, side, located=True)])
    assert len(found) == total
    return found


def _given_ids(row: Any, name: str, known: np.ndarray, maximum: int | None, side: str) -> Piece:
    ids = np.asarray(row)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise StimuliError(
            f"the token ids of stimulus {name!r} have shape {ids.shape} and dtype {ids.dtype}; expected a list of whole numbers"
        )
    full = len(ids)
    ids = (ids[:maximum] if side == "right" or maximum is None else ids[-maximum:]).astype(np.int32)
    return Piece(ids, np.isin(ids, known), full)
