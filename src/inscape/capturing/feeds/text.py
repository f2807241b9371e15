"""Texts and token ids, padded with a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from inscape.capturing.batches import Limits
from inscape.capturing.feeds.batch import Batch, Feed, Places, Reading, main_input, wrong_kind
from inscape.capturing.feeds.columns import TokenColumns, per_position
from inscape.capturing.feeds.stream import TokenStream
from inscape.capturing.stimuli import Stimuli
from inscape.capturing.tokens import Encoded, encode
from inscape.errors import StimuliError
from inscape.models import Model
from inscape.models.wrappers import core

# At 2,048 tokens a CPU's matrix products are as fast as they get, and activations stay small.
TEXT_LIMITS = Limits(2048, 256)
_SHORT = 6  # tokens that show whether padding is read
TEXT_KINDS = ("text", "tokens", "chat")


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

    def part(self, row: int) -> slice:
        """Where the real positions of a row are."""
        length = int(self.lengths[row])
        return slice(self.width - length, self.width) if self.left else slice(0, length)

    def spread(self, rows: list[np.ndarray]) -> np.ndarray:
        """Other values of the tokens in the same rectangle, 0 where padding is."""
        values = np.zeros_like(self.ids)
        for i, row in enumerate(rows):
            values[i, self.part(i)] = row
        return values

    @property
    def places(self) -> Places:
        """What of it is real."""
        return Places(self.real, self.left, self.width)


def pad_rows(rows: list[np.ndarray], pad: int, *, left: bool = False, width: int | None = None) -> Padded:
    """Pads rows of ids to the longest of them, or to `width`."""
    lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    width = int(lengths.max()) if width is None else width
    if bool((lengths == width).all()):
        ids = np.array(rows, np.int64)
        return Padded(ids, np.ones_like(ids), lengths, left)
    padded = Padded(np.full((len(rows), width), pad, np.int64), np.zeros((len(rows), width), np.int64), lengths, left)
    for i, row in enumerate(rows):
        padded.ids[i, padded.part(i)] = row
        padded.mask[i, padded.part(i)] = 1
    return padded


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
    tower: str = ""
    width: int | None = None  # what every text is padded to, for models that read their padding (SigLIP)
    given: TokenColumns = field(default_factory=TokenColumns)
    rows_of: Callable[[np.ndarray, np.ndarray], dict[str, pa.Array]] | None = None  # further columns of the rows
    probed: int | None = 3  # tokens of a probe; None where a text cannot be cut
    default_tokens: str = "last"
    limits: Limits = TEXT_LIMITS

    def __post_init__(self) -> None:
        self.tokens = TokenStream("token", self.tower, encoded=self.encoded, spell=self.spell)
        self.tokens.columns_of = self.rows_of
        self.streams = {self.tower: self.tokens}

    def load(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The lengths; where the model takes no mask, only equal ones share a batch."""
        lengths = self.encoded.lengths[start:stop]
        if self.width is not None:
            lengths = np.full_like(lengths, self.width)
        return lengths, np.zeros_like(lengths) if self.pads else lengths

    def collate(self, members: np.ndarray) -> Batch:
        """One batch, padded to its longest text."""
        return self._batch(members)

    def shortest(self) -> int:
        """The shortest text."""
        return int(np.argmin(self.encoded.lengths))

    def probe(self, where: int | None = None) -> Batch:
        """Two copies of the start of a text."""
        where = self.shortest() if where is None else where
        return self._batch(np.array([where, where]), self.probed)

    def uneven(self) -> tuple[Batch, Batch] | None:
        """The start of a text alone, and padded beside the start of a longer one; `None` where no batch mixes lengths."""
        lengths = self.encoded.lengths
        if not self.pads or self.width is not None or self.probed is None or int(lengths.min()) == int(lengths.max()):
            return None
        short, long = int(lengths.argmin()), int(lengths.argmax())
        most = min(int(lengths[short]), _SHORT)
        members = np.array([short, long])
        return self._batch(members[:1], [most]), self._batch(members, [most, most + _SHORT])

    def _batch(self, members: np.ndarray, cut: int | list[int] | None = None) -> Batch:
        most = cut if isinstance(cut, list) else [cut] * len(members)
        rows = [self.tokens.ids(int(where))[:end] for where, end in zip(members, most, strict=True)]
        padded = pad_rows(rows, self.pad, left=self.left, width=self.width)
        inputs: dict[str, Any] = {self.main: torch.from_numpy(padded.ids)}
        given = {
            name: padded.spread([values[int(where)][:end] for where, end in zip(members, most, strict=True)])
            for name, values in self.given.values.items()
        }
        if self.masked and (self.always or not padded.even or "attention_mask" in given):
            # From the lengths alone: a pad token that is also a real token (pad = eos) must not be taken for padding.
            inputs["attention_mask"] = torch.from_numpy(given.pop("attention_mask", padded.mask))
        if self.left and self.positioned and not padded.even:
            # RoBERTa and its kin number from their padding index + 1 and keep that index for the padding itself.
            counted = padded.mask.cumsum(1)
            offset = self.padding_index
            inputs["position_ids"] = torch.from_numpy(np.maximum(counted - 1, 0) if offset is None else counted * padded.mask + offset)
        inputs.update({name: torch.from_numpy(values) for name, values in given.items()})
        return Batch(members, inputs, {self.tower: padded.places})

    def describe(self) -> dict[str, Any]:
        """How the texts became tokens, and how those are padded."""
        note: dict[str, Any] = {**self.encoded.record, "padding": "left" if self.left else "right", "mixes_lengths": self.pads}
        if self.width is not None:
            note["padded_to"] = self.width
        return {**note, **self.given.describe()}


def text_feed(
    model: Model, stimuli: Stimuli, names: list[str], reading: Reading, *, tower: str = "", config: Any = None, width: int | None = None
) -> TextFeed:
    """The feed of a model that reads token ids.

    Args:
        model: the model.
        stimuli: texts or token ids.
        names: what its forward takes.
        reading: how texts are read.
        tower: the stack that reads them, in a model of several.
        config: the configuration of that stack; default: the model's.
        width: what every text is padded to, without a mask.
    """
    if stimuli.kind not in TEXT_KINDS:
        raise wrong_kind(model, stimuli, "texts, chat messages or lists of token ids")
    tokenizer = tokenizer_of(model)
    config = model.config if config is None else config
    # Models that derive positions from their pad id (RoBERTa) number them themselves, with an offset that takes up positions.
    own = next((m for m in model.module.modules() if hasattr(m, "create_position_ids_from_input_ids")), None)
    offset = None if own is None else int(getattr(own, "padding_idx", 0) or 0)
    given = TokenColumns.of(stimuli, names if width is None else [], model.name)
    encoded = encode(
        given.trimmed or stimuli,
        tokenizer,
        config,
        max_length=reading.max_length,
        special=reading.special,
        reserved=0 if offset is None else offset + 1,
        truncation_side=reading.truncation_side,
        whole=reading.whole,
    )
    given.check(encoded.lengths, stimuli)
    _check_vocabulary(model, encoded, stimuli)
    custom = model.forward is not None
    masked = width is None and ("attention_mask" in names or custom)
    return TextFeed(
        encoded,
        "input_ids" if tower else main_input(model.module, names, "input_ids"),
        pad_id(tokenizer, config),
        masked,
        "position_ids" in names,
        reading.padding_side == "left",
        pads=masked or width is not None,
        always=custom,
        padding_index=offset,
        spell=getattr(tokenizer, "convert_ids_to_tokens", None),
        tower=tower,
        width=width,
        given=given,
        rows_of=per_position(stimuli, encoded.lengths),
    )


def _check_vocabulary(model: Model, encoded: Encoded, stimuli: Stimuli) -> None:
    """Refuses ids for which the model has no embedding: of a tokenizer that grew, or of another model."""
    known = None if model.forward is not None or model.modality != "text" else _embeddings(core(model.module))
    wrong = np.flatnonzero((encoded.ids < 0) | (encoded.ids >= known)) if known is not None else np.empty(0, np.int64)
    if not len(wrong) or known is None:
        return
    name = stimuli.ids[int(np.searchsorted(encoded.offsets, wrong[0], side="right")) - 1]
    why = "give ids from 0 on, without marks such as -100"
    if stimuli.kind != "tokens":
        why = "the tokenizer is another model's, or it grew and the model did not: module.resize_token_embeddings(len(tokenizer))"
    raise StimuliError(
        f"stimulus {name!r} has the token id {encoded.ids[wrong[0]]}, and {model.name} has embeddings for 0 to {known - 1}; {why}"
    )


def _embeddings(module: Any) -> int | None:
    """How many tokens a transformers model has embeddings for; None where it does not say."""
    try:
        found = getattr(module.get_input_embeddings(), "num_embeddings", None)
    except (AttributeError, NotImplementedError):
        return None
    return found if isinstance(found, int) else None


def tokenizer_of(model: Model) -> Any:
    """The model's tokenizer, or the one inside its processor."""
    return model.tokenizer or getattr(model.processor, "tokenizer", None)


def pad_id(tokenizer: Any, config: Any) -> int:
    """What stands at padded places; 0 where nobody says."""
    pad = getattr(tokenizer, "pad_token_id", None)
    pad = getattr(config, "pad_token_id", None) if pad is None else pad
    return 0 if pad is None or pad < 0 else int(pad)
