"""What a figure or a sentence must know about numbers before it shows them: declared facts, nulls, the order and names of sites."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inscape.errors import UnknownMeasureError
from inscape.results import Result

ALPHA = 0.05

# What a measure of dimension notes where it is not one number.
SCALE_DEPENDENT = "depends on the scale"


@dataclass(frozen=True)
class Facts:
    """What a measure declares about itself; of a measure that is not installed here only the name is known."""

    name: str
    what: str = ""
    low: float = -math.inf
    high: float = math.inf
    range_text: str = "not declared"
    higher: str = ""
    source: str = ""
    bias: str = ""
    null: str = ""
    arity: int = 1
    known: bool = False

    @property
    def distance(self) -> bool:
        """True where a larger number means less alike."""
        return self.higher == "more different"


def facts_of(label: str) -> Facts:
    """The declared facts behind a measure's label; `mutual_knn(k=20)` is `mutual_knn`."""
    from inscape import measures

    try:
        found = measures.get(label.split("(")[0])
    except UnknownMeasureError:
        return Facts(label)
    low, high = found.range
    return Facts(
        name=found.name, what=found.what, low=low, high=high, range_text=found.facts.range_text, higher=found.higher, source=found.source,
        bias=found.bias, null=found.null, arity=found.arity, known=True,
    )  # fmt: skip


def inside_null(row: Mapping[str, Any]) -> bool | None:
    """True if the number cannot be told from its null, None if nothing was tested.

    The corrected p decides where there is one, else p, else whether the interval covers the mean of the null.
    """
    p = row["p_corrected"] if row["p_corrected"] is not None else row["p"]
    if p is not None:
        return bool(p > ALPHA)
    if row["null_mean"] is not None and row["low"] is not None and row["high"] is not None:
        return bool(row["low"] <= row["null_mean"] <= row["high"])
    return None


def headline(result: Result, **columns: Any) -> list[dict[str, Any]]:
    """The rows without a place on a curve."""
    return [row for row in result.where(**columns).rows() if row["at"] is None]


def ordered(values: Iterable[Any]) -> list[Any]:
    """The different values in order of first appearance: a store lists its sites in the order of the forward pass."""
    return [value for value in dict.fromkeys(values) if value is not None]


def site_labels(sites: Sequence[str]) -> tuple[list[str], str]:
    """Short names for an axis, and the title that says what was left out.

    Example:
        >>> site_labels(["embed", "blocks.0.resid_post", "blocks.1.resid_post"])
        (['embed', '0', '1'], 'blocks.*.resid_post')
    """
    templates = ordered(re.sub(r"\d+", "*", site) for site in sites if re.search(r"\d", site))
    repeated = [t for t in templates if sum(re.sub(r"\d+", "*", s) == t for s in sites) > 1]
    if len(templates) == 1 and repeated:
        labels = [".".join(re.findall(r"\d+", site)) or _tail(site) for site in sites]
        return (labels, templates[0]) if len(set(labels)) == len(sites) else (list(sites), "site")
    labels = [_numbered(site) for site in sites]
    return (labels, "site") if len(set(labels)) == len(sites) else (list(sites), "site")


def thinned(count: int, most: int) -> list[int]:
    """Positions of at most about `most` ticks, evenly spaced, the first and last always among them."""
    if count <= most:
        return list(range(count))
    step = math.ceil((count - 1) / (most - 1))
    ticks = list(range(0, count, step))
    if ticks[-1] != count - 1:
        if count - 1 - ticks[-1] < step / 2:
            ticks.pop()
        ticks.append(count - 1)
    return ticks


def fitting(labels: Sequence[str], inches: float) -> list[int]:
    """Ticks whose labels stand side by side without touching on an axis that long; the two ends come first.

    Empty where so few fit that turning the labels is better.
    """
    count, width = len(labels), 0.075  # of a character at the size of tick labels
    if count < 2:
        return list(range(count))
    place = [i * inches / (count - 1) for i in range(count)]
    taken: list[int] = []
    step = max(1, math.ceil(count / 12))
    for i in [0, count - 1, *range(step if step > 1 else 1, count - 1, step)]:
        if all(abs(place[i] - place[j]) > width * (len(labels[i]) + len(labels[j]) + 1.5) / 2 for j in taken):
            taken.append(i)
    return sorted(taken) if len(taken) >= min(count, 4) else []


def spread(positions: Sequence[float], gap: float, low: float = -math.inf, high: float = math.inf) -> list[float]:
    """The positions moved apart until neighbors are `gap` from each other, in the same order and between `low` and `high`."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    placed = [positions[i] for i in order]
    for _ in range(100):
        moved = False
        for i in range(len(placed) - 1):
            lack = gap - (placed[i + 1] - placed[i])
            if lack > 1e-9 * gap:
                placed[i] -= lack / 2
                placed[i + 1] += lack / 2
                moved = True
        if not moved:
            break
    if placed:
        # the whole ladder moves back between the limits; a ladder that is too long keeps its lower end
        shift = min(0.0, high - placed[-1])
        shift = max(shift, low - placed[0]) if math.isfinite(low) else shift
        placed = [place + shift for place in placed]
    result = [0.0] * len(positions)
    for place, i in zip(placed, order, strict=True):
        result[i] = place
    return result


def _tail(site: str) -> str:
    return site.split("|")[0].rsplit(".", 1)[-1] if len(site) > 14 else site


def _numbered(site: str) -> str:
    match = re.fullmatch(r"(?:blocks|layers|h|layer|encoder\.layer)\.(\d+)\.(.+)", site)
    return f"{match.group(1)} {match.group(2)}" if match else site
