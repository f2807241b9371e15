"""What a reader must not conclude: numbers that are missing, inside their null, or resting on too few rows."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from inscape.plots.reading import SCALE_DEPENDENT, facts_of, headline, inside_null, ordered
from inscape.reporting.parts import prose
from inscape.reporting.words import FEW_ROWS, count, listed, span
from inscape.results import Result


def cautions_of(result: Result) -> list[str]:
    """Sentences in HTML, the gravest first."""
    rows = headline(result) or result.rows()
    said = [str(text) for text in (*result.settings.get("warnings", ()), *result.settings.get("notes", ()))]
    return [*_missing(result.rows()), *_few(rows), *_null(rows), *_scales(rows), *_wide(rows), *(escape(text) for text in said)]


def _missing(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence per measure and reason: a dead site among thirty must not be thirty sentences."""
    bad = [row for row in rows if row["status"] != "ok"]
    sentences: list[str] = []
    for measure in ordered(row["measure"] for row in bad):
        mine = [row for row in bad if row["measure"] == measure]
        total = sum(row["measure"] == measure for row in rows)
        reasons = ordered(row["reason"] for row in mine)
        places = ordered(_place(row) for row in mine)
        sentences.append(
            f"<code>{escape(measure)}</code> has no number for {len(mine)} of {total}: {listed(places)}. "
            f"{escape(reasons[0]) if reasons else 'No reason was recorded'}{_and_more(reasons)}."
        )
    return sentences


def _few(rows: Sequence[dict[str, Any]]) -> list[str]:
    few = [row for row in rows if row["n"] is not None and row["n"] < FEW_ROWS and row["value"] is not None]
    if not few:
        return []
    names = listed([f"{m}" for m in ordered(row["measure"] for row in few)])
    return [
        f"{names} rest on n = {span(row['n'] for row in few)} rows, fewer than {FEW_ROWS}: "
        "read the intervals, not the values, and conclude nothing from small differences."
    ]


def _null(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence for all measures: how many of their numbers say nothing."""
    parts: list[str] = []
    named: list[str] = []
    for measure in ordered(row["measure"] for row in rows):
        tested = [row for row in rows if row["measure"] == measure and inside_null(row) is not None]
        inside = [row for row in tested if inside_null(row)]
        if inside:
            share = "all" if len(inside) == len(tested) else f"{len(inside)} of {len(tested)}"
            parts.append(f"{share} by <code>{escape(measure)}</code> (null mean {span(row['null_mean'] for row in inside)})")
            named += [_place(row) for row in inside]
    if not parts:
        return []
    where = f" They are {listed(named)}." if len(named) <= 4 else ""
    return [f"Inside their null, so without meaning for the systems: {', '.join(parts)}.{where}"]


def _wide(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Fewer rows than units, for the measures that declare a bias."""
    sentences: list[str] = []
    wide = [r for r in rows if r["n"] is not None and r["value"] is not None and r["n"] <= max(r["d"] or 0, r["d_b"] or 0)]
    for measure in ordered(row["measure"] for row in wide):
        bias = facts_of(measure).bias
        mine = [row for row in wide if row["measure"] == measure]
        if bias:
            sentences.append(
                f"<code>{escape(measure)}</code>: n = {span(row['n'] for row in mine)} rows are no more than the "
                f"d = {span(max(row['d'] or 0, row['d_b'] or 0) for row in mine)} units. {prose(bias)}"
            )
    return sentences


def _scales(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence for all dimensions that change with the scale at which they are read."""
    mine = [row for row in rows if row["value"] is not None and SCALE_DEPENDENT in (row["reason"] or "")]
    if not mine:
        return []
    names = listed(ordered(row["measure"] for row in mine))
    return [
        f"{names} depend on the scale at {count(len(ordered(_place(row) for row in mine)), 'site')} "
        f"({listed(ordered(_place(row) for row in mine))}): noise fills small scales, or the data have several dimensions. "
        "Read the curves, not one number."
    ]


def _place(row: dict[str, Any]) -> str:
    own = " ".join(str(part) for part in (row["system"], row["site"]) if part is not None)
    other = " ".join(str(part) for part in (row["system_b"], row["site_b"]) if part is not None)
    at = f" at {row['axis']} {row['at']}" if row["at"] is not None else ""
    return (f"{own} – {other}" if other else own) + at


def _and_more(reasons: Sequence[str]) -> str:
    return f" (and {count(len(reasons) - 1, 'other reason')})" if len(reasons) > 1 else ""
