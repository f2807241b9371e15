"""Vision-language models: a text with an image in it, whose tokens the language model reads among its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from inscape.capturing.feeds.array import ARRAY_LIMITS
from inscape.capturing.feeds.batch import Batch, Feed, Places, Reading, wrong_kind
from inscape.capturing.feeds.columns import TokenColumns
from inscape.capturing.feeds.image import image_feed
from inscape.capturing.feeds.joint import JointFeed
from inscape.capturing.feeds.stream import GridStream
from inscape.capturing.feeds.text import TEXT_KINDS, TextFeed, text_feed, tokenizer_of
from inscape.capturing.stimuli import Stimuli
from inscape.capturing.tokens import Encoded
from inscape.errors import StimuliError
from inscape.models import Model


def image_token(config: Any) -> int | None:
    """The id that stands for an image in a text, for models that have one."""
    found = getattr(config, "image_token_id", None)
    found = getattr(config, "image_token_index", None) if found is None else found
    return int(found) if isinstance(found, int) else None


def pair_feed(model: Model, stimuli: Stimuli, names: list[str], reading: Reading) -> Feed:
    """Texts with an image each, from a table with the columns "image" and "text" (or "input_ids"); texts alone are read as texts."""
    if stimuli.kind not in TEXT_KINDS:
        if not stimuli.has("text"):
            raise wrong_kind(model, stimuli, "texts, or a table with the columns 'text' and 'image'")
        raise StimuliError(f"{model.name} reads texts with images in them; name the texts with ix.Stimuli(table, column='text')")
    config = getattr(model.config, "text_config", None) or model.config
    if not stimuli.has("image"):
        return JointFeed(model.name, {"": text_feed(model, stimuli, names, reading, config=config)})
    if reading.max_length is not None:
        raise StimuliError(f"max_length={reading.max_length} would cut into the image's tokens; shorten the texts themselves")
    token = image_token(model.config)
    assert token is not None
    images = stimuli.part("image")
    if stimuli.kind == "text" and callable(model.processor) and hasattr(model.processor, "tokenizer"):
        words, pictures = _processed(model, stimuli, images, names, reading, token)
    else:
        pictures = image_feed(model, stimuli, names, tower="vision")
        count = _positions_of(model, pictures.prepare(0))
        words = text_feed(model, stimuli, names, replace(reading, whole=True), config=config)
        encoded, added = _expanded(words.encoded, token, count, stimuli.ids)
        words = replace(words, encoded=encoded)
        words.encoded.record.update({"tokens": int(encoded.offsets[-1]), "image_tokens_each": count, "image_token_added": added})
    words.probed = None  # the model counts the image's tokens, so a text cannot be cut for a probe
    ids = words.encoded.ids
    offsets = words.encoded.offsets
    words.tokens.columns_of = lambda members, positions: {"image_token": pa.array(ids[offsets[members] + positions] == token)}
    return JointFeed(model.name, {"": words, "vision": pictures})


def _positions_of(model: Model, pixels: Tensor) -> int:
    """How many positions of the language model an image takes, from the model itself."""
    module: Any = model.module
    with model.evaluating(), torch.no_grad():
        found = module.get_image_features(pixel_values=pixels[None].to(model.device, model.dtype))
    features = getattr(found, "pooler_output", found)
    return int(features[0].reshape(-1, features[0].shape[-1]).shape[0])


def _expanded(encoded: Encoded, token: int, count: int, names: list[str]) -> tuple[Encoded, int]:
    """Every text with its image token repeated as often as the image has positions; texts without one get it in front."""
    ids: list[np.ndarray] = []
    special: list[np.ndarray] = []
    added = 0
    for where, (start, stop) in enumerate(zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True)):
        row, marks = encoded.ids[start:stop], encoded.special[start:stop]
        at = np.flatnonzero(row == token)
        if len(at) == 0:
            first = int(marks[0])  # behind a token that opens the text
            row, marks = np.insert(row, first, token), np.insert(marks, first, False)
            at, added = np.array([first]), added + 1
        if len(at) not in (1, count):
            raise StimuliError(
                f"stimulus {names[where]!r} has {len(at)} image tokens; expected one, which stands for its one image, or all {count} of it"
            )
        if len(at) == 1:
            times = np.ones(len(row), np.int64)
            times[at[0]] = count
            row, marks = np.repeat(row, times), np.repeat(marks, times)
        ids.append(row.astype(np.int32))
        special.append(marks & (row != token))
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
    return replace(encoded, ids=np.concatenate(ids), special=np.concatenate(special), offsets=offsets, marks={}, locate=None), added


@dataclass
class ProcessedFeed(Feed):
    """What a processor makes of an image beside the token ids: pixels, and whatever else the model wants to know about it."""

    model: Model
    texts: list[str]
    images: Stimuli

    def __post_init__(self) -> None:
        self.streams = {"vision": GridStream("patch", "vision")}
        self.pads, self.default_tokens, self.limits = False, "mean", ARRAY_LIMITS
        self._loaded: dict[int, dict[str, Tensor]] = {}

    def made(self, where: int) -> tuple[dict[str, np.ndarray], dict[str, Tensor]]:
        """What is said about each token of one stimulus, and the rest."""
        image = self.images[where]
        found = self.model.processor(images=[image], text=[self.texts[where]], return_tensors="np")
        arrays = {name: np.asarray(value) for name, value in found.items()}
        length = arrays["input_ids"].shape[1]
        tokens = {name: value[0] for name, value in arrays.items() if value.shape == (1, length) and value.dtype.kind in "iub"}
        return tokens, {name: torch.from_numpy(value) for name, value in arrays.items() if name not in tokens}

    def load(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Prepares the images; a group is a set of shapes."""
        self._loaded = {where: self.made(where)[1] for where in range(start, stop)}
        shapes = [tuple((name, tuple(value.shape)) for name, value in made.items()) for made in self._loaded.values()]
        codes = {shape: code for code, shape in enumerate(sorted(set(shapes)))}
        return np.ones(stop - start, np.int64), np.array([codes[shape] for shape in shapes], np.int64)

    def collate(self, members: np.ndarray) -> Batch:
        """One batch of loaded images."""
        return self._batch(members, [self._loaded[int(where)] for where in members])

    def probe(self, where: int | None = None) -> Batch:
        """Two copies of one image."""
        where = 0 if where is None else where
        made = self.made(where)[1]
        return self._batch(np.array([where, where]), [made, made])

    def _batch(self, members: np.ndarray, rows: list[dict[str, Tensor]]) -> Batch:
        return Batch(members, {name: torch.cat([row[name] for row in rows]) for name in rows[0]}, {"vision": Places()})

    def describe(self) -> dict[str, Any]:
        """Which processor made them, of what."""
        return {"processor": type(self.model.processor).__name__, "content_sha256": self.images.digest()}


def _processed(
    model: Model, stimuli: Stimuli, images: Stimuli, names: list[str], reading: Reading, token: int
) -> tuple[TextFeed, ProcessedFeed]:
    """Token ids as the processor makes them; it runs once more when the images are needed, since keeping them all would fill the memory."""
    word = str(getattr(model.processor, "image_token", "<image>"))
    given = [str(stimuli[where]) for where in range(len(stimuli))]
    pictures = ProcessedFeed(model, [text if word in text else f"{word}\n{text}" for text in given], images)
    made = [pictures.made(where)[0] for where in range(len(stimuli))]
    ids = Stimuli([tokens["input_ids"] for tokens in made], ids=stimuli.ids, kind="tokens")
    words = text_feed(model, ids, names, replace(reading, whole=True), config=getattr(model.config, "text_config", None))
    told = [name for name in made[0] if name in names and name not in ("input_ids", "attention_mask")]
    words.given = TokenColumns({name: [tokens[name].astype(np.int64) for tokens in made] for name in told})
    words.spell = getattr(tokenizer_of(model), "convert_ids_to_tokens", None)
    words.encoded.record.update(
        {"input": "text", "processor": type(model.processor).__name__, "image_token_added": sum(word not in text for text in given)}
    )
    words.encoded.special[words.encoded.ids == token] = False
    return words, pictures
