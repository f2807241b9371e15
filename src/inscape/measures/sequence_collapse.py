"""How alike the tokens of one sequence have become, averaged over sequences."""

from __future__ import annotations

import warnings
from typing import Annotated

from torch import Tensor

from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures.base import measure
from inscape.summaries import Need, SequenceMoments


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(0, 1),
    source="Dong et al. 2021, eq. 2 (Frobenius norm)",
    higher="tokens further from one repeated vector",
    undefined=(),
)
def rank_collapse(sequences: SequenceMoments) -> float:
    r"""How far the tokens of a sequence are from one repeated vector, averaged over sequences.

    $\lVert X - 1 \bar{x}^\top \rVert_F / \lVert X \rVert_F$ for the tokens X [t, d] of each sequence. An array is one sequence unless
    `labels` names the sequence of each row; rows of a view belong to its stimuli. The reducer `|rank_collapse` gives the same number for
    each sequence while the model runs.

    Args:
        sequences: moments of the tokens of every sequence.

    Returns:
        A share of the norm: 0 when all tokens of every sequence are equal, 1 when their mean is zero.

    Raises:
        DegenerateInputError: no sequence has two tokens.
        TooFewStimuliError: fewer than 2 rows.

    Warns:
        InscapeWarning: sequences of one token, which are left out.

    Source:
        Dong, Cordonnier & Loukas, "Attention is not all you need: pure attention loses rank doubly exponentially with depth", ICML 2021,
        eq. 2, with the Frobenius norm in place of the paper's composite norm.

    Cost:
        n d.

    Bias:
        Grows with the length of a sequence as (t - 1) / t for unrelated tokens; compare equal lengths.

    Example:
        >>> import numpy as np, inscape as ix
        >>> round(ix.measures.rank_collapse(np.array([[3.0, 1], [3, -1]])), 6)  # √(2 / 20)
        0.316228
    """
    counts, apart, mean = _sequences(sequences)
    whole = apart + counts * mean
    # Equal tokens differ from their computed mean by rounding, which is no spread.
    apart = apart.masked_fill(apart <= 1e-26 * whole, 0.0)
    return float((apart / whole.masked_fill(whole == 0, 1.0)).sqrt().mean())


@measure(
    invariant={"rotation", "scale", "row_order"},
    sensitive={"translation", "linear", "unit_scale"},
    range=(-1, 1),
    source="Ethayarajh 2019, intra-sentence similarity, over pairs",
    higher="tokens more alike",
    undefined=(),
)
def token_uniformity(sequences: Annotated[SequenceMoments, Need(unit=True)]) -> float:
    r"""The mean cosine between different tokens of a sequence, averaged over sequences.

    $\frac{1}{t(t-1)} \sum_{i \ne j} \cos(x_i, x_j)$ for the tokens [t, d] of each sequence; a token of length zero has cosine 0 with all
    others. Unlike `mean_cosine`, no pair crosses sequences. An array is one sequence unless `labels` names the sequence of each row; rows
    of a view belong to its stimuli. The reducer `|token_cosine` gives the same number for each sequence while the model runs.

    Args:
        sequences: moments of the unit tokens of every sequence.

    Returns:
        A cosine: 1 when all tokens of every sequence point one way.

    Raises:
        DegenerateInputError: no sequence has two tokens.
        TooFewStimuliError: fewer than 2 rows.

    Warns:
        InscapeWarning: sequences of one token, which are left out.

    Source:
        Ethayarajh, "How contextual are contextualized word representations?", EMNLP 2019, over pairs of tokens; as token uniformity in
        Dong et al. 2021.

    Cost:
        n d, without forming a pair.

    Bias:
        None for tokens drawn alike; a few tokens of one direction (attention sinks) lower it.

    Example:
        >>> import numpy as np, inscape as ix
        >>> round(ix.measures.token_uniformity(np.array([[1.0, 0], [0, 2], [3, 3]])), 6)  # (0 + 1/√2 + 1/√2) / 3
        0.471405
    """
    counts, apart, mean = _sequences(sequences)
    return float((mean - apart / (counts * (counts - 1))).clamp(-1, 1).mean())


def _sequences(sequences: SequenceMoments) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, spread about the mean, and squared length of the mean of each sequence with two tokens or more."""
    long = sequences.counts >= 2
    count, total = int(long.sum()), len(long)
    if count == 0:
        raise DegenerateInputError(
            f"each of the {total} sequences has one row; the tokens of a sequence are compared, so capture with tokens='all'"
        )
    if count < total:
        warnings.warn(f"{total - count} of {total} sequences have one token and are left out", InscapeWarning, stacklevel=3)
    return sequences.counts[long], sequences.within_trace[long], sequences.means[long].square().sum(1)
