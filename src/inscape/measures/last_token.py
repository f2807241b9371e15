"""What the last token of a sequence still hears of the others: sensitivity by token, and sequences that it cannot tell apart."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures.base import measure
from inscape.results import Curve
from inscape.summaries.runner import TokenRunner


@dataclass(frozen=True, repr=False, eq=False)
class TokenChanges(Curve):
    """How far the last token moves, by the place of the change; `value` sums it up as its measure says, `values` are relative changes.

    Attributes:
        sensitivity: how far the last token moves for each unit that the changed token moves, by place.
        lost_float32: places whose change is no longer than what rounding the last token to float32 does to it.
        lost_bfloat16: the same for bfloat16.
    """

    sensitivity: tuple[float, ...]
    lost_float32: tuple[int, ...]
    lost_bfloat16: tuple[int, ...]

    def __repr__(self) -> str:
        return (
            f"<{self.value:.3g} from {len(self.at)} places on the axis {self.axis!r}; the last token tells apart all but "
            f"{len(self.lost_float32)} in float32 and all but {len(self.lost_bfloat16)} in bfloat16>"
        )


@measure(
    invariant=set(),
    sensitive={"translation"},
    range=(0, 1),
    source="Barbero et al. 2024, over-squashing",
    higher="more tokens lost on the last one",
    undefined={"constant"},
    minimum=2,
    status="provisional",
)
def oversquashing(tokens: TokenRunner, *, most: int = 64) -> TokenChanges:
    r"""The share of tokens that the last one no longer hears at the precision of bfloat16.

    The tokens $x_1 \ldots x_t$ [t, d] of one sequence enter a map, and $h$ is what it makes of the last. One token after another is
    replaced by the mean of all, which moves it by $\lVert \Delta x \rVert$ and $h$ by $\lVert \Delta h \rVert$. A token is lost where
    $\lVert \Delta h \rVert$ is no longer than the rounding error $\lVert h - \mathrm{bf16}(h) \rVert$; of a model that runs in bfloat16
    itself, where not a bit of $h$ changes.

    Args:
        tokens: vectors [t, d] that enter, and a map of [t, d] to [t, d]: `oversquashing(embed(ids), lambda E: blocks(E[None])[0])`.
        most: tokens that are replaced at most, at even places before the last.

    Returns:
        A `TokenChanges`: a curve over the replaced tokens of $\lVert \Delta h \rVert / (\lVert h \rVert + \lVert h' \rVert)$, with
        `sensitivity` $\lVert \Delta h \rVert / \lVert \Delta x \rVert$, `lost_float32` and `lost_bfloat16`; its `value` is the lost share.

    Raises:
        DegenerateInputError: all tokens are equal, the map fails, changes the shape or gives NaN; or `most` is not positive.
        TooFewStimuliError: fewer than 2 tokens.

    Warns:
        InscapeWarning: tokens that equal the mean, which are left out.

    Source:
        Barbero et al., "Transformers need glasses! Information over-squashing in language tasks", NeurIPS 2024, theorem 5.1 bounds the
        Jacobian of the last token by paths of attention; the difference quotient toward the mean token, and the threshold, are choices
        of this library.

    Cost:
        One run of the map on t tokens for each replaced token.

    Bias:
        Too low where small changes of many units together say something, too high where what is lost on the last token is kept by others.

    Example:
        >>> import numpy as np, torch, inscape as ix
        >>> mean = lambda Z: Z.cumsum(0) / torch.arange(1, len(Z) + 1)[:, None]
        >>> ix.measures.oversquashing(np.array([[1.0], [2], [4], [5]]), mean).sensitivity
        (0.25, 0.25, 0.25)
    """
    if most < 1:
        raise DegenerateInputError(f"most = {most}: at least one token must be replaced")
    X, before = tokens.starts, tokens.last(tokens.starts)
    mean = X.double().mean(0)
    far = (X.double() - mean).norm(dim=1)
    size = max(float(far.max()), torch.finfo(torch.float64).tiny)
    places = torch.linspace(0, tokens.n - 2, min(most, tokens.n - 1), dtype=torch.float64).round().long().tolist()
    moved = [place for place in places if float(far[place]) > 1e-9 * size]
    if not moved:
        raise DegenerateInputError(
            f"all {len(places)} tokens before the last equal the mean of all {tokens.n}; replacing one changes nothing"
        )
    if len(moved) < len(places):
        warnings.warn(
            f"oversquashing: {len(places) - len(moved)} of {len(places)} tokens equal the mean token and are left out",
            InscapeWarning,
            stacklevel=4,
        )
    after: list[Tensor] = []
    for place in moved:
        changed = X.clone()
        changed[place] = mean.to(X.dtype)
        after.append(tokens.last(changed))
    return _changes("token", moved, before.expand(len(moved), -1), torch.stack(after), far[moved], share=True)


@measure(
    invariant=set(),
    sensitive={"translation", "linear"},
    range=(0, 1),
    source="Barbero et al. 2024, representational collapse",
    higher="a repeated token is still heard",
    undefined=(),
    minimum=2,
    status="provisional",
)
def representational_collapse(tokens: TokenRunner) -> TokenChanges:
    r"""How far apart the last tokens of a sequence and of the same sequence with its last token repeated are.

    With $h$ what a map makes of the last of the tokens $x_1 \ldots x_n$ [n, d], and $h'$ of the last of $x_1 \ldots x_n, x_n$, the relative
    difference is $\lVert h - h' \rVert / (\lVert h \rVert + \lVert h' \rVert)$, for the first 1, 2, 4, … and all t tokens of a sequence.
    Where it goes to 0 with n the model cannot count or copy: it answers both sequences alike.

    Args:
        tokens: vectors [t, d] that enter, and a map of any number of them: `representational_collapse(embed(ids), lambda E: …)`. A map
            that numbers the places itself, so that the repeated token gets the next one.

    Returns:
        A `TokenChanges`: a curve over the length n, whose `lost_bfloat16` are the lengths at which both last tokens are one vector within
        the rounding error of bfloat16; its `value` is the difference at full length. Its `sensitivity` counts the repeated token as moved
        by its own length.

    Raises:
        DegenerateInputError: the map fails, changes the shape or gives NaN.
        TooFewStimuliError: fewer than 2 tokens.

    Source:
        Barbero et al., "Transformers need glasses! Information over-squashing in language tasks", NeurIPS 2024, theorem 4.2; the division
        by both lengths is a choice of this library.

    Cost:
        Two runs of the map for each of log₂ t lengths.

    Bias:
        A sequence of random tokens collapses more slowly than one token repeated; compare sequences of one kind.

    Example:
        >>> import numpy as np, torch, inscape as ix
        >>> mean = lambda Z: Z.cumsum(0) / torch.arange(1, len(Z) + 1)[:, None]
        >>> ix.measures.representational_collapse(np.array([[1.0], [2], [3], [6]]), mean).value  # (3.6 - 3) / (3.6 + 3) = 1 / 11
        0.09090909090909093
    """
    X = tokens.starts
    lengths = sorted({2**power for power in range(tokens.n.bit_length())} | {tokens.n})
    before = torch.stack([tokens.last(X[:n]) for n in lengths])
    after = torch.stack([tokens.last(torch.cat([X[:n], X[n - 1 : n]])) for n in lengths])
    own = X[torch.tensor(lengths) - 1].double().norm(dim=1)
    return _changes("length", lengths, before, after, own, share=False)


def _changes(
    axis: str, at: list[int], before: Float[Tensor, "c d"], after: Float[Tensor, "c d"], moved: Float[Tensor, " c"], *, share: bool
) -> TokenChanges:
    """Changes of the last token in units of its length, of what entered, and of rounding; `share` makes the lost share the value."""
    change = (after - before).norm(dim=1)
    both = before.norm(dim=1) + after.norm(dim=1)
    relative = torch.where(both > 0, change / both.clamp(min=torch.finfo(torch.float64).tiny), 0.0).clamp(max=1.0)
    lost = {dtype: change <= (before - before.to(dtype).double()).norm(dim=1) for dtype in (torch.float32, torch.bfloat16)}
    narrow = lost[torch.bfloat16]
    return TokenChanges(
        float(narrow.double().mean()) if share else float(relative[-1]),
        axis=axis,
        at=at,
        values=relative.tolist(),
        sensitivity=tuple((change / moved.clamp(min=torch.finfo(torch.float64).tiny)).tolist()),
        lost_float32=tuple(place for place, gone in zip(at, lost[torch.float32].tolist(), strict=True) if gone),
        lost_bfloat16=tuple(place for place, gone in zip(at, narrow.tolist(), strict=True) if gone),
    )
