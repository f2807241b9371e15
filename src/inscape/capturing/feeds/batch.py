"""What one forward pass reads, and how a model names what it takes."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from inscape.capturing.batches import Limits
from inscape.capturing.feeds.stream import Stream, TokenStream
from inscape.capturing.stimuli import Stimuli
from inscape.capturing.tokens import Encoded
from inscape.errors import StimuliError
from inscape.models import Model, Site
from inscape.models.wrappers import core

# Positions of a tensor with t of them: how many are real for each stimulus of the batch (None: all of them).
Real = Callable[[int], np.ndarray | None]


def all_real(t: int) -> np.ndarray | None:
    """Nothing is padded."""
    return None


@dataclass(frozen=True)
class Reading:
    """How texts are read.

    Attributes:
        max_length: the most tokens of a text.
        special: what was asked of the rows of special tokens.
        padding_side: "right" or "left".
        truncation_side: where texts are cut; the tokenizer's own side unless stated.
        whole: cut nothing, however long.
    """

    max_length: int | None = None
    special: str = "keep"
    padding_side: str = "right"
    truncation_side: str | None = None
    whole: bool = False


@dataclass(frozen=True)
class Pieces:
    """Where documents stand in contexts that hold several of them; a document may go on in the next context.

    Attributes:
        base: the first token of each piece in the flattened [b · t, d].
        first: its position in its document.
        count: tokens of the piece.
        length: tokens of the document.
    """

    base: np.ndarray
    first: np.ndarray
    count: np.ndarray
    length: np.ndarray


@dataclass(frozen=True)
class Places:
    """Which positions of one stream are real in one batch.

    Attributes:
        real: for an output with t positions, the number of real ones per stimulus, or None when all are.
        left: padding stands on the left, so that real positions are the last ones.
        length: positions of the padded batch, where the stream knows them.
        pieces: where the members stand, when rows of the batch are contexts of several documents.
    """

    real: Real = all_real
    left: bool = False
    length: int = 0
    pieces: Pieces | None = None


@dataclass(frozen=True)
class Batch:
    """What one forward pass reads: its keyword arguments, and which positions of its outputs are real.

    Attributes:
        members: positions in the stimuli, one per row of the batch (or per piece, where rows are contexts of several documents).
        inputs: keyword arguments of the forward.
        places: by the tower of the stream.
    """

    members: np.ndarray
    inputs: dict[str, Any]
    places: dict[str, Places]


class Feed(ABC):
    """Stimuli as a model's inputs, batch by batch.

    Attributes:
        streams: what stands at the positions of each stack, by its tower ("" for the main or only one).
        pads: stimuli of different length share a batch.
        default_tokens: the rule where the user gives none.
        limits: the most that a batch holds unless the user says otherwise.
    """

    streams: dict[str, Stream]
    pads: bool
    default_tokens: str
    limits: Limits

    def stream(self, site: Site) -> Stream:
        """What stands at the positions of a site."""
        return self.streams.get(site.tower) or self.streams.get("") or next(iter(self.streams.values()))

    @property
    def encoded_text(self) -> Encoded | None:
        """The tokens of the stimuli themselves, where they are texts: what a rule that names pieces of a text looks at."""
        found = (self.streams.get(tower) for tower in ("", "text"))
        return next((stream.encoded for stream in found if isinstance(stream, TokenStream)), None)

    def narrow(self, sites: Iterable[Site]) -> None:
        """Leaves out what none of these sites needs."""
        return

    def whose(self, number: int) -> int:
        """The stimulus that a member of a batch is, or begins with."""
        return number

    @abstractmethod
    def load(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Makes the stimuli [start, stop) ready; returns their lengths, and groups of which only members may share a batch."""

    @abstractmethod
    def collate(self, members: np.ndarray) -> Batch:
        """One batch of loaded stimuli."""

    def shortest(self) -> int:
        """The stimulus that a probe takes."""
        return 0

    @abstractmethod
    def probe(self, where: int | None = None) -> Batch:
        """Two copies of one stimulus, as short as may be: enough to see the shapes."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the manifest records about the inputs."""


def forward_names(module: Any) -> list[str]:
    """The parameter names of a module's forward, in order."""
    parameters = inspect.signature(core(module).forward).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def main_input(module: Any, names: list[str], default: str) -> str:
    """The keyword under which a module takes its stimulus."""
    stated = getattr(module, "main_input_name", None)
    if isinstance(stated, str) and stated in names:
        return stated
    return default if default in names else names[0] if names else default


def describe_shapes(inputs: Mapping[str, Any]) -> str:
    """The inputs of a forward for a message: name and shape of each tensor."""
    return ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items() if isinstance(value, Tensor))


def wrong_kind(model: Model, stimuli: Stimuli, expected: str) -> StimuliError:
    """The error for stimuli that a model does not read; `expected` says what to give instead."""
    first = stimuli[0]
    shown = f"an array {first.dtype} {list(first.shape)}" if isinstance(first, np.ndarray) else repr(first[:40])
    if isinstance(first, np.ndarray) and first.ndim == 0:
        shown = f"the single number {first}"
        expected += "; one sequence of numbers by itself goes into a list: [ids]"
    return StimuliError(
        f"{model.name} reads {model.modality} input; got stimuli of kind {stimuli.kind!r} (the first is {shown}). Give {expected}"
    )
