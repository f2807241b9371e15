"""The one training step behind all kinds: losses and their exact gradients on the entries of sparse codes, without autograd.

Rows are normalized (mean 0, mean square 1 over all units), so a loss of 1 is that of a dictionary that says nothing. Encoder and decoder
are both [m, d], one feature a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from inscape.dictionaries.codes import Codes
from inscape.dictionaries.sparse import decode, gather_by_feature, inner, sum_by_feature

Tensors = dict[str, Tensor]

# Entries of the activations [rows, m] that exist at one time: enough rows for fast products, few enough for little memory.
BLOCK = 2**22


def alone(tensor: Tensor) -> Tensor:
    """The sum over processes, where there is one."""
    return tensor


@dataclass(frozen=True)
class Moment:
    """Where training stands when a batch arrives.

    Attributes:
        step: steps done.
        steps: steps planned.
        dead: [m] bool, features that have been silent for so many rows that they count as dead.
        batch: rows of the batch in all processes together.
        total: adds a tensor up over processes.
        kept: what a kind remembers from step to step.
    """

    step: int
    steps: int
    dead: Tensor
    batch: int
    total: Callable[[Tensor], Tensor] = alone
    kept: Tensors = field(default_factory=dict)

    @property
    def progress(self) -> float:
        """Share of the steps that are done."""
        return self.step / max(1, self.steps)


@dataclass
class Learned:
    """What a step found.

    Attributes:
        error: Σ (x̂ − y)² over this process's rows by the number of entries of the whole batch: the share of variance that is lost.
        gradients: of every trained tensor, for this process's rows.
        codes: what was active.
        extra: further terms of the loss.
        left: y − ŷ, what is left over of each row.
    """

    error: Tensor
    gradients: Tensors
    codes: Codes
    extra: Tensor
    left: Tensor


def bias_of(p: Tensors, centers: bool) -> Tensor:
    """[m]: what rows times the encoder lack to be activations."""
    return p["b_enc"] - p["encoder"] @ p["b_dec"] if centers else p["b_enc"]


def activation_blocks(p: Tensors, x: Tensor, centers: bool) -> Iterator[Tensor]:
    """Activations [rows, m] of x, some rows at a time; each block is overwritten by the next."""
    bias, rows = bias_of(p, centers), max(256, BLOCK // len(p["encoder"]))
    buffer = x.new_empty(min(rows, len(x)), p["encoder"].shape[0])
    for part in x.split(rows):
        yield torch.addmm(bias, part, p["encoder"].T, out=buffer[: len(part)])


def autoencode(
    p: Tensors,
    x: Tensor,
    y: Tensor,
    codes: Codes,
    moment: Moment,
    *,
    centers: bool,
    penalty: Tensor | float = 0.0,
) -> tuple[Learned, Tensor]:
    """Loss and gradients of ŷ = Σ z_i w_i + b for codes z that are linear in the encoder where they are positive.

    Args:
        p: encoder, decoder, b_enc, b_dec and, for a linear path around the code, W_skip [d, out].
        x: rows [b, d].
        y: targets [b, out].
        codes: the chosen activations; entries at or below 0 count as 0 and get no gradient.
        moment: where training stands.
        centers: whether the encoder reads x − b_dec.
        penalty: gradient of the penalty by each entry's activation, [e] or a number.

    Returns:
        The step, and the errors ŷ − y [b, out].
    """
    guess = decode(codes, p["decoder"]).add_(p["b_dec"])
    if "W_skip" in p:
        guess.addmm_(x, p["W_skip"])
    error = guess.sub_(y)
    size = moment.batch * y.shape[1]
    slope = error * (2 / size)
    positive = codes.values > 0
    by_entry = (inner(codes, slope, p["decoder"]) + penalty) * positive
    gradients = encoder_gradients(p, x, codes, by_entry, centers=centers)
    gradients["decoder"] = gather_by_feature(codes, codes.values, slope)
    gradients["b_dec"] = slope.sum(0) + gradients["b_dec"] if centers else slope.sum(0)
    if "W_skip" in p:
        gradients["W_skip"] = x.T @ slope
    flat = error.flatten()
    return Learned(torch.dot(flat, flat) / size, gradients, codes, error.new_zeros(()), -error), error


def encoder_gradients(p: Tensors, x: Tensor, codes: Codes, by_entry: Tensor, *, centers: bool) -> Tensors:
    """Gradients of encoder, b_enc and (through x − b_dec) b_dec from those of the activations at the entries, [e]."""
    by_bias = sum_by_feature(codes, by_entry)
    by_encoder = gather_by_feature(codes, by_entry, x)
    found = {"encoder": by_encoder, "b_enc": by_bias}
    if centers:
        # Σ g (x − b)ᵀ = Σ g xᵀ − (Σ g) bᵀ, and b itself gets −(Σ g) W: two vector products in place of two matrix products.
        by_encoder.addr_(by_bias, p["b_dec"], alpha=-1)
        found["b_dec"] = -(by_bias @ p["encoder"])
    return found


def revive(p: Tensors, x: Tensor, error: Tensor, moment: Moment, learned: Learned, *, k: int, weight: float, centers: bool) -> None:
    """Adds the auxiliary loss: dead features reconstruct what the living ones leave over (Gao et al. 2024, A.2).

    Its gradient reaches decoder and encoder. The leftover y − ŷ is taken as given and without b_dec; the loss is divided by the leftover's
    variance, and by how few features are dead. An eighth of the batch (256 rows at least) is enough for it.
    """
    dead = moment.dead.nonzero().flatten()
    if weight == 0 or len(dead) == 0:
        return
    rows = min(len(x), max(256, len(x) // 8))
    x, left = x[:rows], -error[:rows]
    encoder, decoder = p["encoder"][dead], p["decoder"][dead]
    activations = torch.addmm(p["b_enc"][dead], x - p["b_dec"] if centers else x, encoder.T)
    if len(dead) > k:
        top = activations.topk(k, dim=1, sorted=False)
        z = torch.zeros_like(activations).scatter_(1, top.indices, top.values.clamp_(min=0))
    else:
        z = activations.clamp_(min=0)
    count = moment.total(left.new_tensor(float(rows)))
    mean = moment.total(left.sum(0)) / count
    spread = moment.total((left - mean).square().sum())
    if float(spread) <= 0:
        return
    miss = z @ decoder - left
    scale = weight * min(len(dead) / k, 1.0) / spread
    slope = miss * (2 * scale)
    by_activation = (slope @ decoder.T) * (z > 0)
    by_bias = by_activation.sum(0)
    gradients = learned.gradients
    by_encoder = by_activation.T @ x
    if centers:
        by_encoder.addr_(by_bias, p["b_dec"], alpha=-1)
        gradients["b_dec"] = gradients["b_dec"] - by_bias @ encoder
    gradients["encoder"].index_add_(0, dead, by_encoder)
    gradients["decoder"].index_add_(0, dead, z.T @ slope)
    gradients["b_enc"].index_add_(0, dead, by_bias)
    learned.extra = learned.extra + scale * miss.square().sum()
