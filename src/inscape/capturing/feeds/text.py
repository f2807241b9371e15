"""Texts and token ids, padded with a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from inscape.capturing.batches import Limits
from inscape.capturing.feeds.batch import Batch, Feed, Places, main_input, wrong_kind
from inscape.capturing.feeds.stream import TokenStream
from inscape.capturing.stimuli import Stimuli
from inscape.capturing.tokens import Encoded, encode
from inscape.models import Model

# At 2,048 tokens a CPU's matrix products are as fast as they get, and activations stay small.
TEXT_LIMITS = Limits(2048, 256)


@dataclass
class Padded:
    """Rows of ids in one rectangle.

    Attributes:
        ids: [b, t].
        mask: 1 where a token is, 0 where padding is.
        lengths: tokens per row.
        left: padding stands on the left.
    """

    ids: np.ndarray
    mask: np.ndarray
    lengths: np.ndarray
    left: bool = False

    @property
    def width(self) -> int:
        """Tokens per row, with padding."""
        return self.ids.shape[1]

    @property
    def even(self) -> bool:
        """Whether all rows are equally long, so that nothing is padded."""
        return bool((self.lengths == self.width).all())

    def real(self, t: int) -> np.ndarray | None:
        """The lengths; an output with another number of positions (latents, pooled) has no padding of its own."""
        return None if self.even or t != self.width else self.lengths

    @property
    def places(self) -> Places:
        """What of it is real."""
        return Places(self.real, self.left, self.width)


def pad_rows(rows: list[np.ndarray], pad: int, *, left: bool = False) -> Padded:
    """Pads rows of ids to the longest of them."""
    lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    width = int(lengths.max())
    if bool((lengths == width).all()):
        ids = np.array(rows, np.int64)
        return Padded(ids, np.ones_like(ids), lengths, left)
    ids = np.full((len(rows), width), pad, np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        part = slice(width - len(row), width) if left else slice(0, len(row))
        ids[i, part] = row
        mask[i, part] = 1
    return Padded(ids, mask, lengths, left)


@dataclass
class TextFeed(Feed):
    """Token ids, right-padded (or left-padded on request), with the tokenizer's or our own lengths as attention mask."""

    encoded: Encoded
    main: str
    pad: int
    masked: bool
    positioned: bool
    left: bool
    pads: bool
    always: bool = False  # a caller's own forward may count on the mask; models do without where nothing is padded
    padding_index: int | None = None
    spell: Callable[[list[int]], list[str]] | None = None
    default_tokens: str = "last"
    limits: Limits = TEXT_LIMITS

    def __post_init__(self) -> None:
        self.tokens = TokenStream("token", encoded=self.encoded, spell=self.spell)
        self.streams = {"": self.tokens}

    def load(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The lengths; where the model takes no mask, only equal ones share a batch."""
        lengths = self.encoded.lengths[start:stop]
        return lengths, np.zeros_like(lengths) if self.pads else lengths

    def collate(self, members: np.ndarray) -> Batch:
        """One batch, padded to its longest text."""
        return self._batch(members, [self.tokens.ids(int(m)) for m in members])

    def probe(self) -> Batch:
        """Two copies of the start of the shortest text."""
        where = int(np.argmin(self.encoded.lengths))
        return self._batch(np.array([where, where]), [self.tokens.ids(where)[:3]] * 2)

    def _batch(self, members: np.ndarray, rows: list[np.ndarray]) -> Batch:
        padded = pad_rows(rows, self.pad, left=self.left)
        inputs: dict[str, Any] = {self.main: torch.from_numpy(padded.ids)}
        if self.masked and (self.always or not padded.even):
            # From the lengths alone: a pad token that is also a real token (pad = eos) must not be taken for padding.
            inputs["attention_mask"] = torch.from_numpy(padded.mask)
        if self.left and self.positioned and not padded.even:
            # RoBERTa and its kin number from their padding index + 1 and keep that index for the padding itself.
            counted = padded.mask.cumsum(1)
            offset = self.padding_index
            inputs["position_ids"] = torch.from_numpy(np.maximum(counted - 1, 0) if offset is None else counted * padded.mask + offset)
        return Batch(members, inputs, {"": padded.places})

    def describe(self) -> dict[str, Any]:
        """How the texts became tokens, and how those are padded."""
        return {**self.encoded.record, "padding": "left" if self.left else "right", "mixes_lengths": self.pads}


def text_feed(
    model: Model, stimuli: Stimuli, names: list[str], custom: bool, max_length: int | None, special: str, padding_side: str
) -> TextFeed:
    """The feed of a model that reads token ids."""
    if stimuli.kind not in ("text", "tokens"):
        raise wrong_kind(model, stimuli, "texts or lists of token ids")
    tokenizer = model.tokenizer
    # Models that derive positions from their pad id (RoBERTa) number them themselves, with an offset that takes up positions.
    own = next((m for m in model.module.modules() if hasattr(m, "create_position_ids_from_input_ids")), None)
    offset = None if own is None else int(getattr(own, "padding_idx", 0) or 0)
    encoded = encode(stimuli, tokenizer, model.config, max_length=max_length, special=special, reserved=0 if offset is None else offset + 1)
    pad = getattr(tokenizer, "pad_token_id", None)
    if pad is None:
        pad = getattr(model.config, "pad_token_id", None)
    masked = "attention_mask" in names or custom
    return TextFeed(
        encoded,
        main_input(model.module, names, "input_ids"),
        0 if pad is None or pad < 0 else int(pad),
        masked,
        "position_ids" in names,
        padding_side == "left",
        pads=masked,
        always=custom,
        padding_index=offset,
        spell=getattr(tokenizer, "convert_ids_to_tokens", None),
    )
