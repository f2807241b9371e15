"""Stimuli as the model's own keyword arguments, padded batch by batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from inscape.capturing.batches import Limits
from inscape.capturing.stimuli import Stimuli
from inscape.capturing.tokens import Encoded, encode
from inscape.errors import StimuliError
from inscape.models import Model

# At 2,048 tokens a CPU's matrix products are as fast as they get, and activations stay small.
TEXT_LIMITS = Limits(2048, 256)
ARRAY_LIMITS = Limits(10**9, 32)
SOUND_LIMITS = Limits(480_000, 16)  # half a minute at 16 kHz

# Positions of a tensor with t of them: how many are real for each stimulus of the batch (None: all of them).
Real = Callable[[int], np.ndarray | None]


@dataclass(frozen=True)
class Batch:
    """What one forward pass reads: its keyword arguments, and which positions of its outputs are real.

    Attributes:
        members: positions in the stimuli, one per row of the batch.
        inputs: keyword arguments of the forward.
        length: of the padded batch, in the unit of the batching (tokens, samples).
        real: for an output with t positions, the number of real ones per stimulus, or None when all are.
        left: padding stands on the left, so that real positions are the last ones.
    """

    members: np.ndarray
    inputs: dict[str, Any]
    length: int
    real: Real
    left: bool = False


def forward_names(module: Any) -> list[str]:
    """The parameter names of a module's forward, in order."""
    parameters = inspect.signature(module.forward).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def main_input(module: Any, names: list[str], default: str) -> str:
    """The keyword under which a module takes its stimulus."""
    stated = getattr(module, "main_input_name", None)
    if isinstance(stated, str) and stated in names:
        return stated
    return default if default in names else names[0] if names else default


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


@dataclass
class ArrayFeed:
    """Images, sounds and plain arrays: one tensor per stimulus; different shapes share a batch only where the model takes a mask."""

    stimuli: Stimuli
    main: str
    prepare: Callable[[int], Tensor]
    row_kind: str
    pads: bool = False
    time_first: bool = False
    frames: Callable[[np.ndarray], np.ndarray] | None = None
    prefix: int = 0  # class and register tokens in front of the patches,
    prefixed: int = -1  # in outputs of this many positions
    default_tokens: str = "mean"
    note: dict[str, Any] = field(default_factory=dict[str, Any])
    limits: Limits = ARRAY_LIMITS
    _loaded: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def load(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Makes the stimuli [start, stop) ready; returns their lengths, and groups of which only members may share a batch."""
        self._loaded = {where: self.prepare(where) for where in range(start, stop)}
        shapes = [tuple(x.shape) for x in self._loaded.values()]
        if self.pads:
            return np.array([shape[0] for shape in shapes], np.int64), np.zeros(len(shapes), np.int64)
        codes = {shape: code for code, shape in enumerate(sorted(set(shapes)))}
        # A long sound counts by its samples; images and feature arrays each count as one.
        lengths = [shape[0] if self.row_kind == "frame" and len(shape) == 1 else 1 for shape in shapes]
        return np.array(lengths, np.int64), np.array([codes[shape] for shape in shapes], np.int64)

    def collate(self, members: np.ndarray) -> Batch:
        """One batch of loaded stimuli."""
        return self._batch(members, [self._loaded[int(m)] for m in members])

    def probe(self) -> Batch:
        """Two copies of the start of one stimulus: enough to see the shapes."""
        first = self.prepare(0)
        return self._batch(np.array([0, 0]), [first, first])

    def _batch(self, members: np.ndarray, rows: list[Tensor]) -> Batch:
        if not self.pads:
            stacked = torch.stack(rows, dim=1 if self.time_first else 0)
            return Batch(members, {self.main: stacked}, 1, lambda t: None)
        lengths = np.array([len(row) for row in rows], np.int64)
        width = int(lengths.max())
        waves = torch.zeros(len(rows), width, dtype=rows[0].dtype)
        mask = torch.zeros(len(rows), width, dtype=torch.int64)
        for i, row in enumerate(rows):
            waves[i, : len(row)] = row
            mask[i, : len(row)] = 1
        even = bool((lengths == width).all())
        frames = lengths if self.frames is None else self.frames(lengths)
        total = width if self.frames is None else int(self.frames(np.array([width]))[0])

        def real(t: int) -> np.ndarray | None:
            if even:
                return None
            if t != total:
                raise StimuliError(
                    f"an output has {t} positions where {total} frames were expected, so padding cannot be told apart; pass batch_size=1"
                )
            return frames

        return Batch(members, {self.main: waves, "attention_mask": mask}, width, real)

    def special(self, where: int, length: int) -> np.ndarray | None:
        """Which of the `length` positions of a stimulus are special tokens, or None when none is."""
        if not self.prefix or length != self.prefixed:
            return None
        marks = np.zeros(length, bool)
        marks[: self.prefix] = True
        return marks

    def describe(self) -> dict[str, Any]:
        """What the manifest records about the inputs."""
        return {"input": self.stimuli.kind, "argument": self.main, "mixes_lengths": self.pads, **self.note}


Feed = TextFeed | ArrayFeed


def feed_for(model: Model, stimuli: Stimuli, *, max_length: int | None, special: str, padding_side: str) -> Feed:
    """The feed for a model and its stimuli.

    Raises:
        StimuliError: the model does not read stimuli of this kind.
    """
    if padding_side not in ("right", "left"):
        raise StimuliError(f"padding_side={padding_side!r} is unknown; expected 'right' or 'left'")
    names = forward_names(model.module)
    custom = model._forward is not None
    modality = str(model.modality)
    if modality == "text" or (modality == "tensor" and stimuli.kind == "text"):
        return _text_feed(model, stimuli, names, custom, max_length, special, padding_side)
    if max_length is not None:
        raise StimuliError(f"max_length cuts texts; this model reads {modality} input")
    if modality == "image":
        return _image_feed(model, stimuli, names)
    if modality == "audio":
        return _sound_feed(model, stimuli, names)
    return _tensor_feed(model, stimuli, names)


def _wrong(model: Model, stimuli: Stimuli, expected: str) -> StimuliError:
    first = stimuli[0]
    shown = repr(first[:40]) if isinstance(first, str) else f"an array {first.dtype} {list(first.shape)}"
    return StimuliError(
        f"{model.name} reads {model.modality} input; got stimuli of kind {stimuli.kind!r} (the first is {shown}). Give {expected}"
    )


def _text_feed(
    model: Model, stimuli: Stimuli, names: list[str], custom: bool, max_length: int | None, special: str, padding_side: str
) -> TextFeed:
    if stimuli.kind not in ("text", "tokens"):
        raise _wrong(model, stimuli, "texts or lists of token ids")
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


def _image_feed(model: Model, stimuli: Stimuli, names: list[str]) -> ArrayFeed:
    if stimuli.kind not in ("image", "array") or np.ndim(stimuli[0]) not in (2, 3):
        raise _wrong(model, stimuli, "images: paths, Pillow pictures or arrays [n, height, width, channel]")
    processor = model.processor

    def prepare(where: int) -> Tensor:
        image = stimuli[where]
        if processor is not None and image.dtype == np.uint8:
            made = processor(images=image if image.ndim == 3 else np.stack([image] * 3, -1), return_tensors="np")
            return torch.from_numpy(np.asarray(made["pixel_values"])[0])
        return as_picture(image, stimuli.ids[where])

    feed = ArrayFeed(stimuli, main_input(model.module, names, "pixel_values"), prepare, "patch")
    feed.note = {"processor": None if processor is None else type(processor).__name__}
    return feed


def as_picture(image: np.ndarray, name: str = "") -> Tensor:
    """An image as a float tensor [channel, height, width]: 8-bit values go to 0…1, floats stay as they are."""
    if image.ndim == 2:
        image = image[None]
    elif image.shape[-1] in (1, 3, 4) and image.shape[0] not in (1, 3, 4):
        image = np.moveaxis(image, -1, 0)
    elif image.shape[0] not in (1, 3, 4):
        raise StimuliError(f"image {name!r} has shape {list(image.shape)}; expected [height, width, channel] or [channel, height, width]")
    tensor = torch.from_numpy(np.array(image))
    return tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor if tensor.is_floating_point() else tensor.float()


def _sound_feed(model: Model, stimuli: Stimuli, names: list[str]) -> ArrayFeed:
    if stimuli.kind not in ("sound", "array") or (stimuli.kind == "array" and np.ndim(stimuli[0]) not in (1, 2)):
        raise _wrong(model, stimuli, "sounds: paths or arrays [n, samples] with sampling_rate=...")
    processor = getattr(model.processor, "feature_extractor", model.processor)
    expected = getattr(processor, "sampling_rate", None)
    main = main_input(model.module, names, "input_values")

    def prepare(where: int) -> Tensor:
        wave = np.asarray(stimuli[where])
        rate = stimuli.rate(where)
        if expected is not None and rate is not None and rate != expected:
            raise StimuliError(
                f"sound {stimuli.ids[where]!r} has {rate} samples a second, {model.name} reads {expected}; resample it first "
                "(scipy.signal.resample_poly does)"
            )
        if processor is not None and wave.ndim == 1:
            made = processor(wave, sampling_rate=expected, return_tensors="np")
            return torch.from_numpy(np.asarray(made[main])[0]).float()
        return torch.from_numpy(np.asarray(wave, np.float32))

    lengths_of = getattr(model.module, "_get_feat_extract_output_lengths", None)
    norm = getattr(model.config, "feat_extract_norm", None)
    # A group norm over time sees the padding, so such a model gives other numbers for a padded sound.
    pads = main == "input_values" and norm == "layer" and lengths_of is not None and "attention_mask" in names
    feed = ArrayFeed(stimuli, main, prepare, "frame", pads=pads, limits=SOUND_LIMITS)
    if pads:
        feed.frames = partial(_frames, cast(Callable[[Tensor], Tensor], lengths_of))
    feed.note = {"processor": None if processor is None else type(processor).__name__, "sampling_rate": expected, "feat_extract_norm": norm}
    return feed


def _frames(lengths_of: Callable[[Tensor], Tensor], lengths: np.ndarray) -> np.ndarray:
    return lengths_of(torch.from_numpy(lengths)).numpy().astype(np.int64)


def _tensor_feed(model: Model, stimuli: Stimuli, names: list[str]) -> ArrayFeed:
    def prepare(where: int) -> Tensor:
        value = stimuli[where]
        if stimuli.kind == "image":
            return as_picture(value, stimuli.ids[where])
        tensor = torch.from_numpy(np.array(value))
        return tensor.to(model.dtype) if tensor.is_floating_point() else tensor.long()

    feed = ArrayFeed(stimuli, main_input(model.module, names, "x"), prepare, "position")
    if np.ndim(stimuli[0]) == 2 and stimuli.kind != "image":  # [t, d]: a sequence, whose last state has read all of it
        feed.default_tokens = "last"
    # A bare recurrent module without batch_first reads [t, b, d]: give it that, so that stimuli stay stimuli.
    feed.time_first = isinstance(model.module, torch.nn.RNNBase) and not model.module.batch_first and np.ndim(stimuli[0]) == 2
    return feed


def describe_shapes(inputs: Mapping[str, Any]) -> str:
    """The inputs of a forward for a message: name and shape of each tensor."""
    return ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items() if isinstance(value, Tensor))
