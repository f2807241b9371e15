"""What one forward pass reads, and how a model names what it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from inscape.capturing.stimuli import Stimuli
from inscape.errors import StimuliError
from inscape.models import Model

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


def describe_shapes(inputs: Mapping[str, Any]) -> str:
    """The inputs of a forward for a message: name and shape of each tensor."""
    return ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items() if isinstance(value, Tensor))


def wrong_kind(model: Model, stimuli: Stimuli, expected: str) -> StimuliError:
    """The error for stimuli that a model does not read; `expected` says what to give instead."""
    first = stimuli[0]
    shown = repr(first[:40]) if isinstance(first, str) else f"an array {first.dtype} {list(first.shape)}"
    return StimuliError(
        f"{model.name} reads {model.modality} input; got stimuli of kind {stimuli.kind!r} (the first is {shown}). Give {expected}"
    )
