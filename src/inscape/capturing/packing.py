"""Documents packed into contexts of one length: kept apart by positions that restart or by a mask of blocks, or read on as one text."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch

from inscape.capturing.feeds import Batch, Feed, Pieces, Places, TextFeed
from inscape.capturing.tokens import known_limit
from inscape.errors import StimuliError
from inscape.models import Model

# How documents of one context are kept apart: transformers sees where position ids start again, and else takes a mask of blocks.
WAYS = {
    "positions": "position ids that start again with each document",
    "causal mask": "a causal mask of one block per document",
    "full mask": "a mask of one block per document",
}


@dataclass(frozen=True)
class Pack:
    """What `pack=` asks for.

    Attributes:
        length: tokens of a context.
        across: documents are read on as one text, cut every `length` tokens; attention then crosses from one document into the next.
        separator: the token between documents that are read on, or None.
    """

    length: int
    across: bool = False
    separator: int | None = None

    @classmethod
    def read(cls, asked: Any, model: Model, kind: str) -> Pack:
        """Reads a length, or a mapping with `length`, `across` and `separator` ("eos", "bos" or a token id).

        Raises:
            StimuliError: there is no length, a key is unknown, the tokenizer has no such token, or stimuli of this kind are no texts.
        """
        if kind not in ("text", "chat", "tokens"):
            raise StimuliError(f"pack={asked!r} packs texts into contexts; the stimuli are of kind {kind!r}")
        given = dict(asked) if isinstance(asked, Mapping) else {"length": asked}
        length, across, separator = given.pop("length", None), given.pop("across", False), given.pop("separator", None)
        if given or not isinstance(length, int) or isinstance(length, bool) or length < 2 or not isinstance(across, bool):
            raise StimuliError(
                f"pack={asked!r}: expected a context length of 2 or more, or {{'length': …, 'across': True, 'separator': 'eos'}}"
            )
        if separator is not None and not across:
            raise StimuliError(f"pack={asked!r}: a separator stands between documents that are read on as one text; say 'across': True")
        if isinstance(separator, str):
            token = getattr(model.tokenizer, f"{separator}_token_id", None)
            if token is None:
                raise StimuliError(f"pack={asked!r}: the tokenizer of {model.name} has no {separator!r} token; give a token id")
            separator = int(token)
        return cls(length, across, separator)

    def max_length(self, stated: int | None) -> int | None:
        """The most tokens of a document: documents that stay apart must each fit into a context."""
        return stated if self.across else self.length if stated is None else min(self.length, stated)


@dataclass(frozen=True)
class Piece:
    """A part of a document inside a context: tokens [first, first + count) of stimulus `member`, from column `at` on."""

    member: int
    first: int
    count: int
    at: int


@dataclass
class PackedFeed(TextFeed):
    """Contexts in the place of texts: what `load` and `collate` number are the contexts of the shard that is loaded."""

    pack: Pack = field(default_factory=lambda: Pack(2))
    way: str = "positions"
    _start: int = 0
    _contexts: list[list[Piece]] = field(default_factory=list[list[Piece]])

    def load(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Fills contexts with the documents [start, stop); returns the tokens of each, and one group."""
        lengths = self.encoded.lengths[start:stop]
        self._start = start
        if self.pack.across:
            self._contexts = _read_on(lengths, self.pack.length, 0 if self.pack.separator is None else 1, start)
        else:
            self._contexts = _apart(lengths, self.pack.length, start)
        used = np.array([context[-1].at + context[-1].count for context in self._contexts], np.int64)
        return used, np.zeros_like(used)

    def collate(self, members: np.ndarray) -> Batch:
        """One batch of contexts, padded to the longest of them."""
        return self.batch([self._contexts[int(m) - self._start] for m in members])

    def beginning(self, where: int, count: int) -> Batch:
        """The first tokens of one document by themselves, as the model reads them without packing."""
        return super()._batch(np.array([where]), count)

    def whose(self, number: int) -> int:
        """The first document of a context."""
        return self._contexts[number - self._start][0].member

    def uneven(self) -> None:
        """Contexts are padded as documents of their own, so nothing is left to try."""

    def describe(self) -> dict[str, Any]:
        """How the documents became contexts."""
        pack = {"length": self.pack.length, "across": self.pack.across}
        told = {"separator": self.pack.separator} if self.pack.across else {"apart_by": WAYS[self.way]}
        return {**super().describe(), "padding": "right", "pack": {**pack, **told}}

    def batch(self, contexts: list[list[Piece]]) -> Batch:
        """The inputs of some contexts, and where their documents stand."""
        width = max(context[-1].at + context[-1].count for context in contexts)
        shape = (len(contexts), width)
        separator = self.pack.separator
        ids = np.full(shape, self.pad if separator is None else separator, np.int64)
        # Document of each column; what follows the last one is a document of its own that nobody reads.
        document, position = np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
        pieces: list[tuple[int, int, int, int]] = []
        for row, context in enumerate(contexts):
            for number, piece in enumerate(context):
                here = slice(piece.at, piece.at + piece.count)
                ids[row, here] = self.tokens.ids(piece.member)[piece.first : piece.first + piece.count]
                document[row, here], position[row, here] = number, np.arange(piece.count)
                pieces.append((piece.member, row * width + piece.at, piece.first, piece.count))
            end = context[-1].at + context[-1].count
            position[row, end:] = np.arange(width - end)
        inputs: dict[str, Any] = {self.main: torch.from_numpy(ids)}
        if self.pack.across:
            used = np.array([context[-1].at + context[-1].count for context in contexts])
            if self.masked and bool((used < width).any()):
                inputs["attention_mask"] = torch.from_numpy((np.arange(width) < used[:, None]).astype(np.int64))
        else:
            if self.positioned:
                inputs["position_ids"] = torch.from_numpy(position + (0 if self.padding_index is None else self.padding_index + 1))
            if self.way != "positions":
                inputs["attention_mask"] = _blocks(document, causal=self.way == "causal mask")
        member, base, first, count = (np.array(values, np.int64) for values in zip(*pieces, strict=True))
        return Batch(member, inputs, {self.tower: Places(length=width, pieces=Pieces(base, first, count, self.encoded.lengths[member]))})


def packed_feed(model: Model, feed: Feed, pack: Pack, padding_side: str) -> PackedFeed:
    """The feed of documents as one of contexts; `settle` must find out how the model keeps them apart.

    Raises:
        StimuliError: the model or its inputs cannot be packed.
    """
    asked = f"pack={pack.length}"
    if not isinstance(feed, TextFeed) or feed.width is not None or getattr(model.config, "is_encoder_decoder", False):
        raise StimuliError(f"{asked} packs texts for a model of one stack; {model.name} ({model.family}) reads something else")
    if feed.always or feed.given.values:
        what = "a forward of your own" if feed.always else f"columns of its own ({', '.join(feed.given.values)})"
        raise StimuliError(f"{asked} makes positions and masks itself, and {model.name} is read with {what}; capture without pack")
    if padding_side != "right":
        raise StimuliError(f"{asked} fills contexts from the left; padding_side={padding_side!r} does not go with it")
    limit = known_limit(model.tokenizer, model.config, 0 if feed.padding_index is None else feed.padding_index + 1)
    if limit is not None and pack.length > limit:
        raise StimuliError(f"{asked} is more than the {limit} positions that the model and its tokenizer state; give at most {limit}")
    longest = int(feed.encoded.lengths.max())
    if not pack.across and longest > pack.length:
        raise StimuliError(f"{asked} is too short for a document of {longest} tokens; give a longer context, or cut it with max_length=...")
    for edited in model.edited:
        for site, change in edited.pairs:
            if change.tokens != "all":
                raise StimuliError(
                    f"{asked}: the open edit {change!r} at {site.name!r} counts tokens of a context, which holds several documents; edit "
                    "all tokens, or capture without pack"
                )
    values: dict[str, Any] = {item.name: getattr(feed, item.name) for item in fields(feed) if item.init}
    values.update(pads=True, left=False, pack=pack)
    return PackedFeed(**values)


def _apart(lengths: np.ndarray, size: int, start: int) -> list[list[Piece]]:
    """Whole documents, the longest first, each into the fullest context that has room for it."""
    rooms: list[tuple[int, int]] = []  # (room, context), sorted
    held: list[list[int]] = []
    for where in np.argsort(-lengths, kind="stable").tolist():
        need = int(lengths[where])
        at = bisect.bisect_left(rooms, (need, -1))
        if at < len(rooms):
            room, context = rooms.pop(at)
        else:
            room, context = size, len(held)
            held.append([])
        held[context].append(where)
        bisect.insort(rooms, (room - need, context))
    found: list[list[Piece]] = []
    for context in held:
        pieces, at = list[Piece](), 0
        for where in sorted(context):
            pieces.append(Piece(start + where, 0, int(lengths[where]), at))
            at += int(lengths[where])
        found.append(pieces)
    return found


def _read_on(lengths: np.ndarray, size: int, gap: int, start: int) -> list[list[Piece]]:
    """All documents as one text with `gap` tokens between them, cut every `size` tokens."""
    found: list[list[Piece]] = []
    at = 0  # in the whole text
    for where, length in enumerate(lengths.tolist()):
        first = 0
        while first < length:
            context, column = divmod(at, size)
            count = min(length - first, size - column)
            while len(found) <= context:
                found.append([])
            found[context].append(Piece(start + where, first, count, column))
            first, at = first + count, at + count
        at += gap
    return [context for context in found if context]


def _blocks(document: np.ndarray, *, causal: bool) -> torch.Tensor:
    """[b, 1, t, t]: 0 where a token may look, the lowest number where it may not."""
    allowed = document[:, :, None] == document[:, None, :]
    if causal:
        allowed &= np.tril(np.ones(allowed.shape[1:], bool))
    # Tokens behind the last document look at each other, as padding; no row of theirs is kept.
    lowest = torch.finfo(torch.float32).min
    return torch.from_numpy(np.where(allowed, np.float32(0), np.float32(lowest)))[:, None]
