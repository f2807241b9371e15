"""A measure is one function of summaries in one file; its signature is its plan, its decorator carries what is known about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from inscape.measures import registry
from inscape.measures.definition import Closed, Measure, RowRoute, Weighted, check_varies
from inscape.measures.facts import HIGHER_IN_A_PAIR, Facts

__all__ = ["Closed", "Measure", "RowRoute", "Weighted", "check_varies", "measure"]


def measure(
    *,
    invariant: Iterable[str],
    sensitive: Iterable[str],
    range: tuple[float, float | str],
    source: str,
    higher: str,
    symmetric: bool = False,
    undefined: Iterable[str] = ("constant",),
    minimum: int = 2,
    null: str = "",
    status: str = "stable",
    paired: bool = True,
    reflexive: bool = True,
    domain: str = "real",
    one_space: bool = False,
    beside: str = "",
    repeatable: bool = True,
    rows: RowRoute | None = None,
    weighted: Weighted | None = None,
    closed: Closed | None = None,
    record: Callable[..., dict[str, Any]] | None = None,
) -> Callable[[Callable[..., Any]], Measure]:
    """Turns a function of summaries into a measure and registers it under the function's name.

    Args:
        invariant: transformations that leave the value unchanged (`facts.TRANSFORMATIONS`); each gets a test.
        sensitive: transformations that change it; each gets a test.
        range: the smallest and largest value; the largest may be "d", "min(n, d)" or "min(n - 1, d)".
        source: the paper and equation, in short.
        higher: what a higher value means: "more similar", "more dimensions".
        symmetric: a pair gives the same value in both orders.
        undefined: inputs that are refused with `DegenerateInputError` (`facts.DEGENERATE`).
        minimum: the fewest rows that give a value.
        null: what to expect where there is nothing to find.
        status: "stable" or "provisional".
        paired: whether row i of both sides must be the same stimulus; without pairing the sides may have different numbers of rows.
        reflexive: of a pair, whether a representation with itself gives the best value of the range.
        domain: what the entries of the input must be (`facts.DOMAINS`).
        one_space: of a pair, whether both sides must have the same units.
        beside: the curve over scales that `ix.measure` gives beside this number.
        repeatable: whether an interval may compute it again without each group; False where one value already takes seconds.
        rows: a second route from the rows, for ill-conditioned input.
        record: takes n, d and the options; gives what else a result must keep, such as the ranks of a fit.
        weighted: values under row weights, for measures of a pair that stay valid under a bootstrap.
        closed: invariants of a side's kernel, for measures that are the cosine of two kernels: gives a null without permutations.

    Raises:
        ValueError: facts outside the vocabulary or in contradiction, or a name that is taken.
    """

    def decorate(fn: Callable[..., Any]) -> Measure:
        facts = Facts(
            invariant=frozenset(invariant),
            sensitive=frozenset(sensitive),
            low=range[0],
            high=range[1],
            source=source,
            higher=higher,
            symmetric=symmetric,
            undefined=frozenset(undefined),
            minimum=minimum,
            null=null,
            status=status,
            paired=paired,
            reflexive=reflexive,
            domain=domain,
            one_space=one_space,
            beside=beside,
            repeatable=repeatable,
        )
        made = Measure(fn, facts, rows=rows, weighted=weighted, closed=closed, record=record)
        if made.arity == 2 and higher not in HIGHER_IN_A_PAIR:
            raise ValueError(f"{made.name}: of a pair, higher means one of {HIGHER_IN_A_PAIR}, not {higher!r}")
        return registry.add(made)

    return decorate
