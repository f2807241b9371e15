"""Plain sentences about sequences of numbers: what rises, falls, dips or peaks, and whether the intervals carry it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from inscape.results import format_number, format_parts

FEW_ROWS = 30


@dataclass(frozen=True)
class Point:
    """One number of a sequence with the name of its place."""

    place: str
    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, row: dict[str, Any], place: str) -> Point:
        return cls(place, float(row["value"]), row["low"], row["high"])

    def html(self) -> str:
        """The value in bold with its interval."""
        value, interval = format_parts({"value": self.value, "low": self.low, "high": self.high})
        return f"<b>{value}</b>" + (f" <span class=ci>{interval}</span>" if interval else "")


@dataclass(frozen=True)
class Shape:
    """What a sequence does: its kind, and the points that show it (start, turn, end)."""

    kind: Literal["single", "rise", "fall", "dip", "peak", "flat"]
    points: tuple[Point, ...]
    tested: bool

    @property
    def excursion(self) -> float:
        """How far the turn or the end lies from the start, relative to the larger of the two; 0 for a flat one."""
        if self.kind in ("flat", "single"):
            return 0.0
        first, other = self.points[0].value, self.points[1].value
        return abs(other - first) / max(abs(first), abs(other), 1e-300)


def apart(a: Point, b: Point) -> bool:
    """Whether two numbers differ: their intervals do not meet, or without intervals they differ by more than a twentieth."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return abs(a.value - b.value) > 0.05 * max(abs(a.value), abs(b.value))
    return a.high < b.low or b.high < a.low


def shape_of(points: Sequence[Point]) -> Shape:
    """Names what the sequence does, only as far as its intervals allow.

    Raises:
        ValueError: the sequence is empty.
    """
    if not points:
        raise ValueError("an empty sequence has no shape")
    tested = all(p.low is not None for p in points)
    if len(points) == 1:
        return Shape("single", (points[0],), tested)
    first, last = points[0], points[-1]
    turns: list[tuple[float, Shape]] = []
    for kind, turn in (("dip", min(points, key=lambda p: p.value)), ("peak", max(points, key=lambda p: p.value))):
        if turn is first or turn is last or not (apart(turn, first) and apart(turn, last)):
            continue
        size = min(abs(turn.value - first.value), abs(turn.value - last.value))
        turns.append((size, Shape("dip" if kind == "dip" else "peak", (first, turn, last), tested)))
    if turns:
        return max(turns, key=lambda found: found[0])[1]
    if apart(first, last):
        return Shape("rise" if last.value > first.value else "fall", (first, last), tested)
    low, high = min(points, key=lambda p: p.value), max(points, key=lambda p: p.value)
    return Shape("flat", (low, high), tested)


def tell(shape: Shape, at: str = "at") -> str:
    """The sentence's second half: "falls from 102 at embed to 24 at blocks.3, its lowest, and rises again to 60 at final_norm"."""
    p = [f"{point.html()} {at} {escape(point.place)}" for point in shape.points]
    if shape.kind == "single":
        return f"is {p[0]}"
    if shape.kind == "dip":
        return f"falls from {p[0]} to {p[1]}, its lowest, and rises again to {p[2]}"
    if shape.kind == "peak":
        return f"rises from {p[0]} to {p[1]}, its highest, and falls again to {p[2]}"
    if shape.kind == "flat":
        return f"stays between {p[0]} and {p[1]}, without a change that its {'intervals' if shape.tested else 'spread'} would carry"
    return f"{'rises' if shape.kind == 'rise' else 'falls'} from {p[0]} to {p[1]}"


def brief(shape: Shape) -> str:
    """The points of a shape alone, for a second system that does the same: "108 → 25 at blocks.3 → 63"."""
    texts = [format_parts({"value": p.value, "low": p.low, "high": p.high})[0] for p in shape.points]
    if len(texts) == 3:
        texts[1] += f" at {escape(shape.points[1].place)}"
    return " → ".join(texts)


def detail(rows: Sequence[dict[str, Any]], *, higher: str = "") -> str:
    """The small print of a finding: what higher means, interval method, n, null."""
    parts: list[str] = [f"higher: {higher}"] if higher else []
    methods = [re.sub(r"\((\d+)\)$", r" over \1 groups", m) for m in dict.fromkeys(row["interval_method"] for row in rows) if m]
    parts.append(f"95 % interval: {', '.join(methods)}" if methods else "no interval")
    parts.append(f"n = {span([row['n'] for row in rows])}")
    null = [row["null_mean"] for row in rows if row["null_mean"] is not None]
    parts.append(f"null {span(null)}" if null else "no null tested")
    p = [row["p_corrected"] if row["p_corrected"] is not None else row["p"] for row in rows]
    p = [value for value in p if value is not None]
    if p:
        parts.append(f"p {'≤' if len(p) > 1 else '='} {format_number(max(p), 2)}")
    return " · ".join(escape(part) for part in parts)


def span(values: Iterable[float | None]) -> str:
    """One number, or the smallest to the largest: "512", "480 to 512"."""
    seen = [value for value in values if value is not None]
    if not seen:
        return "unknown"
    low, high = (f"{v:,}" if isinstance(v, int) else format_number(v, 2) for v in (min(seen), max(seen)))
    return low if low == high else f"{low} to {high}"


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names as a person lists them: "a, b and c", "a, b, c and 5 more"; semicolons where a name has a comma of its own."""
    comma = "; " if any("," in name for name in names) else ", "
    names = [escape(name) for name in names]
    if len(names) > most:
        return f"{comma.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join([comma.join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 site", "3 sites", "1,089 pairs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's correlation with mid-ranks; NaN where one side is constant."""
    from scipy.stats import rankdata

    x, y = rankdata(a), rankdata(b)
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float((x * x).sum() * (y * y).sum()))
    return float((x * y).sum()) / scale if scale else math.nan
