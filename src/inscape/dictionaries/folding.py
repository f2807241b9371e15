"""From tensors of a training on normalized rows to tensors for rows as they are: exact, nothing is left to remember."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inscape.dictionaries.core import Tensors
from inscape.dictionaries.rows import Frame
from inscape.dictionaries.trained import Trained


def folded(recipe: Trained, p: Tensors, inputs: Sequence[Frame], outputs: Sequence[Frame]) -> Tensors:
    """W_enc [d, m], W_dec [m, out], b_enc, b_dec and the kind's own tensors, in fp32.

    Where one number scales the rows, codes grow with them and directions keep length 1; under a whitening, or several scales, codes stay
    what they were in training.

    Args:
        recipe: the kind.
        p: encoder, decoder, b_enc, b_dec, … of the training.
        inputs: the frames of the sites that are read, side by side.
        outputs: the frames of the sites that are written.
    """
    p = {name: value.double() for name, value in p.items()}
    mean_in, mean_out = (torch.cat([frame.mean.double() for frame in frames]) for frames in (inputs, outputs))
    grow = outputs[0].scale if len(outputs) == 1 and outputs[0].inward is None else 1.0
    W_dec = _outward(p["decoder"], outputs) / grow
    found = {name: value * grow if name in recipe.in_code_units else value for name, value in recipe.extras(p).items()}
    b_dec = mean_out + _outward(p["b_dec"][None], outputs)[0]
    if "W_skip" in p:
        found["W_skip"] = _inward(_outward(p["W_skip"], outputs), inputs)
        b_dec = b_dec - mean_in @ found["W_skip"]
    found |= {"W_dec": W_dec, "b_dec": b_dec}
    if "encoder" not in p:  # the same directions are read and written
        return {name: value.float() for name, value in found.items()}
    found["W_enc"] = _inward(p["encoder"].T, inputs) * grow
    found["b_enc"] = p["b_enc"] * grow - (0.0 if recipe.centers else mean_in @ found["W_enc"])
    return {name: value.float() for name, value in found.items()}


def _inward(columns: Tensor, frames: Sequence[Frame]) -> Tensor:
    """Columns [d, m] that read normalized rows, made to read centered rows."""
    if frames[0].inward is not None:
        return frames[0].inward.double() @ columns
    return columns / torch.cat([torch.full_like(frame.mean, frame.scale).double() for frame in frames])[:, None]


def _outward(rows: Tensor, frames: Sequence[Frame]) -> Tensor:
    """Rows [m, d] that write normalized rows, made to write centered rows."""
    if frames[0].outward is not None:
        return rows @ frames[0].outward.double()
    return rows * torch.cat([torch.full_like(frame.mean, frame.scale).double() for frame in frames])
