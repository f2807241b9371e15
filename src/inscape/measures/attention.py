"""Heads of attention: how widely they spread, how alike they are, and which of their units carry the weight."""

from __future__ import annotations

import math

import torch

from inscape.errors import DegenerateInputError
from inscape.measures.base import measure
from inscape.results import Curve
from inscape.summaries import Moments


@measure(
    invariant={"permutation", "row_order"},
    sensitive={"scale", "translation"},
    range=(0, math.inf),
    source="Ghader & Monz 2017; Zhai et al. 2023 (attention entropy collapse)",
    higher="attention spread more widely",
    undefined=(),
    minimum=1,
    domain="nonnegative",
)
def attention_entropy(entropies: Moments) -> Curve:
    r"""How widely each head spreads its attention, averaged over stimuli.

    Of rows [n, heads] from the reducer `blocks.*.attn_pattern|entropy`: for each head $\frac{1}{n} \sum_s H_s$, where
    $H_s = \frac{1}{t} \sum_i -\sum_j a_{ij} \ln a_{ij}$ is the entropy of stimulus s, averaged over its queries.

    Args:
        entropies: moments of the reducer's rows.

    Returns:
        A curve over heads in nats; its value is the mean over heads.

    Raises:
        DegenerateInputError: an average is negative, so the rows are no entropies.

    Source:
        Ghader & Monz, "What does attention in neural machine translation pay attention to?", IJCNLP 2017; collapse of it in Zhai et al.,
        "Stabilizing transformer training by preventing attention entropy collapse", ICML 2023.

    Cost:
        The reducer's n heads t² inside the model, then n heads.

    Bias:
        Grows with the length of the stimuli, as the logarithm of the keys that a query sees; compare equal texts.

    Example:
        >>> import numpy as np, inscape as ix
        >>> ix.measures.attention_entropy(np.array([[0.5, 2.0], [1.5, 2.0]])).values
        (1.0, 2.0)
    """
    mean = entropies.mean
    if float(mean.min()) < 0:
        raise DegenerateInputError(f"head {int(mean.argmin())} has the mean {float(mean.min()):g}; entropies are at least 0")
    return Curve(float(mean.mean()), axis="head", at=range(entropies.d), values=mean.tolist())


@measure(
    invariant={"permutation", "row_order"},
    sensitive=(),
    range=(0, 1),
    source="Li et al. 2018, disagreement on attended positions",
    higher="heads more different",
    undefined=(),
    minimum=1,
    domain="share",
)
def head_diversity(overlaps: Moments) -> Curve:
    r"""How differently the heads of a layer attend, averaged over stimuli.

    Of rows [n, heads] from the reducer `blocks.*.attn_pattern|head_overlap`: for each head one minus the mean over stimuli of its average
    cosine with the weights of the other heads, query by query.

    Args:
        overlaps: moments of the reducer's rows.

    Returns:
        A curve over heads: 0 for a head that attends as all others do, 1 for one that shares no key with any; its value is the mean.

    Raises:
        DegenerateInputError: an average is outside [0, 1], so the rows are no overlaps.

    Source:
        Li, Tu, Yang, Lyu & Zhang, "Multi-head attention with disagreement regularization", EMNLP 2018: disagreement on attended
        positions, with cosines so that it does not depend on how sharp the heads are.

    Cost:
        The reducer's n heads t² inside the model, then n heads.

    Bias:
        Too low for short texts: under a causal mask the first query sees one key, where all heads agree.

    Example:
        >>> import numpy as np, inscape as ix
        >>> ix.measures.head_diversity(np.array([[0.5, 0.25], [0.5, 0.25]])).values
        (0.5, 0.75)
    """
    mean = overlaps.mean
    low, high = float(mean.min()), float(mean.max())
    if low < -1e-9 or high > 1 + 1e-6:
        raise DegenerateInputError(f"the overlaps of the heads are between {low:g} and {high:g}; cosines of weights are between 0 and 1")
    values = (1 - mean).clamp(0, 1)
    return Curve(float(values.mean()), axis="head", at=range(overlaps.d), values=values.tolist())


@measure(
    invariant={"scale", "permutation", "row_order"},
    sensitive={"translation", "rotation", "unit_scale"},
    range=(1, "d"),
    source="Jin et al. 2025, massive values of queries and keys",
    higher="fewer units carry a head",
    undefined=(),
    minimum=1,
)
def massive_qk(moments: Moments, *, heads: int = 1) -> Curve:
    r"""How much the strongest unit of each head's queries or keys stands out from the head's other units.

    For each head $\max_j M_j / \mathrm{mean}_j M_j$ with $M_j = \sqrt{\sum_i x_{ij}^2}$ over the rows; rows [n, heads × d_h] are the
    queries (`blocks.*.q`) or keys (`blocks.*.k`) of tokens, head after head. Above 5 a unit counts as massive in the paper.

    Args:
        moments: of the rows.
        heads: heads that the units belong to, in equal parts; 1 takes the site as one head.

    Returns:
        A curve over heads of ratios, from 1 (all units alike) to the number of units of a head; its value is the largest.

    Raises:
        DegenerateInputError: the units cannot be cut into `heads` equal parts, or a head is zero.

    Source:
        Jin et al., "Massive values in self-attention modules are the key to contextual knowledge understanding", ICML 2025.

    Cost:
        n d, from moments that other measures share.

    Bias:
        None to speak of: the same units stand out in every text.

    Example:
        >>> import numpy as np, inscape as ix
        >>> ix.measures.massive_qk(np.array([[3.0, 1, 1, 1]]), heads=2).values
        (1.5, 1.0)
    """
    if heads < 1 or moments.d % heads:
        raise DegenerateInputError(f"{moments.d} units cannot be cut into {heads} heads of equal width; give the model's number of heads")
    square = moments.scatter.diagonal() + moments.n * moments.mean.square()
    sizes = square.clamp(min=0).sqrt().unflatten(0, (heads, -1))
    mean = sizes.mean(1)
    if float(mean.min()) == 0:
        raise DegenerateInputError(f"all units of head {int(mean.argmin())} are zero in all {moments.n:g} rows")
    values = sizes.amax(1) / mean
    return Curve(float(values.max()), axis="head", at=range(heads), values=torch.clamp(values, min=1.0).tolist())
