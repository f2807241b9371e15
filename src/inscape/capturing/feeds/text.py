"""Texts and token ids, padded with a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from inscape.capturing.batches import Limits
from inscape.capturing.feeds.batch import Batch, main_input, wrong_kind
from inscape.capturing.stimuli import Stimuli
from inscape.capturing.tokens import Encoded, encode
from inscape.models import Model

# At 2,048 tokens a CPU's matrix products are as fast as they get, and activations stay small.
TEXT_LIMITS = Limits(2048, 256)


@dataclass
class TextFeed:
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
    row_kind: str = "token"
    default_tokens: str = "last"
    limits: Limits = TEXT_LIMITS

    def load(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Makes the stimuli [start, stop) ready; returns their lengths, and groups of which only members may share a batch."""
        lengths = self.encoded.lengths[start:stop]
        return lengths, np.zeros_like(lengths) if self.pads else lengths

    def ids(self, where: int) -> np.ndarray:
        """The token ids of one stimulus."""
        return self.encoded.ids[self.encoded.offsets[where] : self.encoded.offsets[where + 1]]

    def collate(self, members: np.ndarray) -> Batch:
        """One batch of loaded stimuli."""
        return self._batch(members, [self.ids(int(m)) for m in members])

    def probe(self) -> Batch:
        """Two copies of the start of one stimulus: enough to see the shapes."""
        where = int(np.argmin(self.encoded.lengths))
        return self._batch(np.array([where, where]), [self.ids(where)[:3]] * 2)

    def _batch(self, members: np.ndarray, rows: list[np.ndarray]) -> Batch:
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        width = int(lengths.max())
        even = bool((lengths == width).all())
        ids = np.array(rows, np.int64) if even else np.full((len(rows), width), self.pad, np.int64)
        mask = np.ones_like(ids) if even else np.zeros_like(ids)
        for i, row in enumerate(() if even else rows):
            part = slice(width - len(row), width) if self.left else slice(0, len(row))
            ids[i, part] = row
            mask[i, part] = 1
        inputs: dict[str, Any] = {self.main: torch.from_numpy(ids)}
        if self.masked and (self.always or not even):
            # From the lengths alone: a pad token that is also a real token (pad = eos) must not be taken for padding.
            inputs["attention_mask"] = torch.from_numpy(mask)
        if self.left and self.positioned and not even:
            # RoBERTa and its kin number from their padding index + 1 and keep that index for the padding itself.
            counted = mask.cumsum(1)
            offset = self.padding_index
            inputs["position_ids"] = torch.from_numpy(np.maximum(counted - 1, 0) if offset is None else counted * mask + offset)
        # An output with another number of positions (latents, pooled) has no padding of its own.
        return Batch(members, inputs, width, lambda t: None if even or t != width else lengths, self.left)

    def special(self, where: int, length: int) -> np.ndarray | None:
        """Which of the `length` positions of a stimulus are special tokens, or None when none is."""
        marks = self.encoded.special[self.encoded.offsets[where] : self.encoded.offsets[where + 1]]
        return marks if len(marks) == length else None

    def describe(self) -> dict[str, Any]:
        """What the manifest records about the inputs."""
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
