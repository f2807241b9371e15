"""What a trajectory did: its phases, when each layer came to its final state, and how far it moved between checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from inscape.errors import DegenerateInputError, ResultError
from inscape.results import Result
from inscape.training.alarm import POOLED


@dataclass(frozen=True)
class Phase:
    """A stretch of a trajectory in one direction.

    Attributes:
        name: "collapse" (a fall before anything rose), "expansion" (a rise) or "compression" (a fall after a rise).
        begin: the step at which it begins.
        end: the step at which it ends.
        factor: the value at its end over that at its beginning.
    """

    name: str
    begin: int
    end: int
    factor: float


def phases(result: Result, measure: str = "effective_rank", site: str | None = None, *, least: float = 0.1) -> list[Phase]:
    """Cuts the course of a measure over steps into collapse, expansion and compression.

    A turn counts when the value then moves back by more than `least` of itself: the turning points of a zigzag, which do not depend on how
    the steps are spaced. What moves by less, altogether or at the end, is no phase.

    Args:
        result: of `ix.trajectory` or a monitor.
        measure: one that counts dimensions, and is positive.
        site: where there are several: one of them, or None for the mean of their logarithms, over the sites that have a value at every
            step.
        least: the smallest change that is a phase, as a share.

    Raises:
        ResultError: no such rows, or no site has a value at every step.
        DegenerateInputError: values that are not positive, or `least` not above 0.

    Source:
        The names: Li, Agrawal, Ghosh, Teru, Santoro, Lajoie & Richards, "Tracing the representation geometry of language models from
        pretraining to post-training", 2025. The cut by turning points is this library's.

    Example:
        >>> steps = [{"site": "a", "measure": "effective_rank", "value": v, "axis": "step", "at": s} for s, v in enumerate((8, 4, 9, 6))]
        >>> [phase.name for phase in phases(ix.Result(steps))]
        ['collapse', 'expansion', 'compression']
    """
    if not least > 0:
        raise DegenerateInputError(f"least={least} is the smallest change that counts; give a share above 0")
    steps, values = _course(result, measure, site)
    if min(values) <= 0:
        raise DegenerateInputError(f"phases of {measure} are ratios, and its smallest value is {min(values):g}; take a positive measure")
    logs, turn = [math.log(value) for value in values], math.log1p(least)
    found: list[Phase] = []
    rose = False
    for first, last in _zigzag(logs, turn):
        rising = logs[last] > logs[first]
        name = "expansion" if rising else "compression" if rose else "collapse"
        rose = rose or rising
        found.append(Phase(name, steps[first], steps[last], math.exp(logs[last] - logs[first])))
    return found


def _zigzag(logs: Sequence[float], turn: float) -> list[tuple[int, int]]:
    """Pairs of indices between turning points; a turn is known once the course has come back by `turn`."""
    corners: list[int] = []
    low = high = extreme = rising = 0
    for i, value in enumerate(logs):
        if not rising:  # no direction yet: what comes first, a rise from the lowest or a fall from the highest
            low, high = (i if value < logs[low] else low), (i if value > logs[high] else high)
            if value - logs[low] > turn:
                corners, rising, extreme = [low], 1, i
            elif logs[high] - value > turn:
                corners, rising, extreme = [high], -1, i
        elif (value - logs[extreme]) * rising > 0:
            extreme = i
        elif (logs[extreme] - value) * rising > turn:
            corners.append(extreme)
            rising, extreme = -rising, i
    return list(pairwise([*corners, extreme])) if rising else []


def convergence_to_final(result: Result, measure: str = "linear_cka_debiased", *, share: float = 0.9) -> Result:
    """The first step from which on each site stays within a share of its final state.

    Where a similarity is not known nothing is claimed across that step: the stretch begins after it, and `reason` says so. Where that of
    the last checkpoint is not known there is no value, but a reason.

    Args:
        result: of `ix.trajectory` with measures of a pair, which sets every checkpoint beside the last.
        measure: a similarity, 1 for equal sites.
        share: the similarity to the last checkpoint that counts as there.

    Returns:
        A row per site with the step as value.

    Raises:
        ResultError: no such rows, or rows that were set beside the checkpoint before.
        DegenerateInputError: `share` outside (0, 1).

    Example:
        >>> found = ix.trajectory(checkpoints, texts, sites="blocks.*.resid_post", measures="linear_cka_debiased")    # doctest: +SKIP
        >>> convergence_to_final(found).frame()                                                                       # doctest: +SKIP
    """
    if not 0 < share < 1:
        raise DegenerateInputError(f"share={share} of a similarity lies between 0 and 1")
    rows = [row for row in result.where(measure=measure, axis="step").rows() if row["site_b"]]
    if not any(row["value"] is not None for row in rows) or result.settings.get("against") == "previous":
        raise ResultError(
            f"no site is set beside the last checkpoint by {measure}; call ix.trajectory with this measure of a pair and against='last'"
        )
    found: list[dict[str, Any]] = []
    for site in dict.fromkeys(row["site"] for row in rows):
        course = {int(row["at"]): row["value"] for row in rows if row["site"] == site}
        there, reason = None, None
        for step in sorted({int(row["at"]) for row in rows}, reverse=True):
            value = course.get(step)
            if value is None:
                reason = f"{measure} of {site} is not known at step {step}; what was before is left out"
            if value is None or value < share:
                break
            there = step
        place = {"system": rows[0]["system"], "site": site, "n": rows[0]["n"], "measure": "convergence_to_final", "reason": reason}
        found.append({**place, "value": float(there)} if there is not None else {**place, "value": None, "status": "failed"})
    return Result(found, settings={"verb": "convergence_to_final", "result": "measure", "measure": measure, "share": share})


def representation_drift(result: Result, measure: str = "linear_cka_debiased") -> Result:
    """How far each site moved from one checkpoint to the next: one minus their similarity.

    Args:
        result: of `ix.trajectory` with `against="previous"`.
        measure: a similarity, 1 for equal sites.

    Returns:
        A trajectory with a row per site and step; the first checkpoint has none.

    Raises:
        ResultError: no such rows, or rows that were set beside the last checkpoint.

    Example:
        >>> found = ix.trajectory(checkpoints, texts, sites="*", measures="linear_cka_debiased", against="previous")    # doctest: +SKIP
        >>> representation_drift(found).plot()                                                                          # doctest: +SKIP
    """
    rows = [row for row in result.where(measure=measure, axis="step").rows() if row["value"] is not None and row["site_b"]]
    if not rows or result.settings.get("against") != "previous":
        raise ResultError(
            f"no site is set beside the checkpoint before by {measure}; call ix.trajectory with this measure and against='previous'"
        )
    kept = ("system", "site", "n", "d", "axis", "at")
    moved = [{**{name: row[name] for name in kept}, "measure": "representation_drift", "value": 1 - row["value"]} for row in rows]
    return Result(moved, settings={**result.settings, "measures": ["representation_drift"], "measure": measure})


def _course(result: Result, measure: str, site: str | None) -> tuple[list[int], list[float]]:
    """Steps and values of one site, or the geometric mean over the sites that have a value at every step."""
    rows = [row for row in result.where(measure=measure, axis="step").rows() if row["value"] is not None and site in (None, row["site"])]
    if any(row["site"] != POOLED for row in rows) and site is None:
        rows = [row for row in rows if row["site"] != POOLED]  # a monitor's own mean of the others
    steps = sorted({int(row["at"]) for row in rows})
    if len(steps) < 2:
        where = "any site" if site is None else repr(site)
        raise ResultError(
            f"{measure} at {where} has {len(steps)} steps and needs 2; there are {result.unique('measure')} of {result.unique('site')}"
        )
    # A mean over other sites at other steps would move where none of them does.
    courses: dict[str, dict[int, float]] = {}
    for row in rows:
        courses.setdefault(row["site"], {})[int(row["at"])] = float(row["value"])
    whole = [course for course in courses.values() if len(course) == len(steps)]
    if not whole:
        name, course = max(courses.items(), key=lambda item: len(item[1]))
        lacking = next(step for step in steps if step not in course)
        raise ResultError(
            f"no site has {measure} at every step; {name!r}, which has most, lacks step {lacking}; name one of {list(courses)} with site="
        )
    by_step = [[course[step] for course in whole] for step in steps]
    return steps, [math.exp(sum(map(math.log, held)) / len(held)) if min(held) > 0 else min(held) for held in by_step]
