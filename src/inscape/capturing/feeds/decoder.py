"""Encoder-decoders: the source goes to the encoder, a target to the decoder, each with positions of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from inscape.capturing.feeds.batch import Batch, Feed, Reading
from inscape.capturing.feeds.stream import TokenStream
from inscape.capturing.feeds.text import pad_id, pad_rows, tokenizer_of
from inscape.capturing.stimuli import Stimuli
from inscape.capturing.tokens import Encoded, encode
from inscape.errors import StimuliError
from inscape.models import Model
from inscape.models.companions import own_tokenizer

DECODER = "decoder"


class DecoderFeed(Feed):
    """A source feed, and the tokens that the decoder is given."""

    def __init__(self, source: Feed, target: TokenStream, pad: int, masked: bool, note: dict[str, Any]) -> None:
        self.source, self.target = source, target
        self.streams = {**source.streams, DECODER: target}
        self.pads, self.default_tokens, self.limits = source.pads, source.default_tokens, source.limits
        self._pad, self._masked, self._note = pad, masked, note

    def load(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Source and target together: the padding of both costs."""
        lengths, groups = self.source.load(start, stop)
        return lengths + self.target.lengths[start:stop], groups

    def collate(self, members: np.ndarray) -> Batch:
        """The source's batch, with the decoder's tokens."""
        return self._joined(self.source.collate(members), members)

    def probe(self, where: int | None = None) -> Batch:
        """The source's probe, with the start of one target."""
        batch = self.source.probe(where)
        return self._joined(batch, batch.members, 3)

    def _joined(self, batch: Batch, members: np.ndarray, most: int | None = None) -> Batch:
        padded = pad_rows([self.target.ids(int(where))[:most] for where in members], self._pad)
        inputs = {**batch.inputs, "decoder_input_ids": torch.from_numpy(padded.ids)}
        if self._masked and not padded.even:
            inputs["decoder_attention_mask"] = torch.from_numpy(padded.mask)
        return Batch(batch.members, inputs, {**batch.places, DECODER: padded.places})

    def describe(self) -> dict[str, Any]:
        """The source's record, and where the decoder's tokens come from."""
        return {**self.source.describe(), "decoder": self._note}


def decoder_feed(model: Model, stimuli: Stimuli, names: list[str], reading: Reading, source: Feed) -> DecoderFeed:
    """Adds the decoder's tokens to a source: column "decoder_input_ids" or "target", else the start token alone."""
    if reading.padding_side == "left":
        raise StimuliError(f"padding_side='left' does not suit {model.name}: an encoder counts positions from the left; pad on the right")
    target = _target(stimuli)
    if target is not None and target.kind == "text" and tokenizer_of(model) is None:
        model.tokenizer = own_tokenizer(model)  # a model that hears is loaded without one
    tokenizer, config = tokenizer_of(model), model.config
    pad = pad_id(tokenizer, config)
    if stimuli.has("decoder_input_ids"):
        encoded = encode(stimuli.part("decoder_input_ids", kind="tokens"), tokenizer, config, max_length=_decoder_limit(reading, config))
        note: dict[str, Any] = {"from": "column decoder_input_ids"}
    else:
        start = _start(model)
        if target is None:
            encoded = _started(None, start, len(stimuli), None)
            note = {"from": "the start token alone"}
        else:
            encoded = _started(_read_target(target, tokenizer, config, reading), start, len(stimuli), _end(tokenizer, config))
            note = {"from": "column target, after the start token"}
        note["start_token"] = start
    stream = TokenStream("token", DECODER, encoded=encoded, spell=getattr(tokenizer, "convert_ids_to_tokens", None))
    return DecoderFeed(source, stream, pad, "decoder_attention_mask" in names, {**encoded.record, **note})


def _target(stimuli: Stimuli) -> Stimuli | None:
    """The column "target", unless it holds labels in place of texts or token ids."""
    if not stimuli.has("target"):
        return None
    first = stimuli.column("target")[0]
    return stimuli.part("target") if isinstance(first, (str, list)) else None


def _read_target(target: Stimuli, tokenizer: Any, config: Any, reading: Reading) -> Encoded:
    # Tokenizers of translation models have a vocabulary for each side.
    switch, back = (getattr(tokenizer, name, None) for name in ("_switch_to_target_mode", "_switch_to_input_mode"))
    if switch is not None and back is not None:
        switch()
    try:
        return encode(target, tokenizer, config, max_length=_decoder_limit(reading, config))
    finally:
        if switch is not None and back is not None:
            back()


def _decoder_limit(reading: Reading, config: Any) -> int | None:
    limit = getattr(config, "max_target_positions", None)
    return reading.max_length if not isinstance(limit, int) else min(limit, reading.max_length or limit)


def _start(model: Model) -> int:
    """The token that opens every target."""
    configs = (model.config, getattr(model.module, "generation_config", None), getattr(model.config, "decoder", None))
    for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
        for config in configs:
            value = getattr(config, name, None)
            if isinstance(value, int):
                return value
    raise StimuliError(
        f"{model.name} states no decoder_start_token_id, so its decoder has nothing to begin with; give a column 'decoder_input_ids'"
    )


def _end(tokenizer: Any, config: Any) -> int | None:
    found = getattr(tokenizer, "eos_token_id", None)
    return getattr(config, "eos_token_id", None) if found is None else found


def _started(target: Encoded | None, start: int, n: int, end: int | None) -> Encoded:
    """Each target behind the start token and without its closing one: what a decoder reads to predict the target."""
    if target is None:
        one = np.full(n, start, np.int32)
        return Encoded(one, np.ones(n, bool), np.arange(n + 1, dtype=np.int64), {"tokens": n})
    ids: list[np.ndarray] = []
    special: list[np.ndarray] = []
    for first, stop in zip(target.offsets[:-1], target.offsets[1:], strict=True):
        row, marks = target.ids[first:stop], target.special[first:stop]
        if len(row) > 1 and row[-1] == end:
            row, marks = row[:-1], marks[:-1]
        if row[0] != start:
            row, marks = np.concatenate([[start], row]).astype(np.int32), np.concatenate([[True], marks])
        ids.append(row)
        special.append(marks)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
    record = {**target.record, "tokens": int(offsets[-1]), "special_tokens": int(sum(int(marks.sum()) for marks in special))}
    return replace(target, ids=np.concatenate(ids), special=np.concatenate(special), offsets=offsets, record=record, marks={})
