"""The section of maps between spaces: the best map in words, retrieval beside chance, scores, and the table."""

from __future__ import annotations

from functools import partial
from html import escape

from matplotlib.figure import Figure

from inscape.plots.mapped import map_scores
from inscape.reporting.cautions import cautions_of
from inscape.reporting.parts import figure, folded, result_table
from inscape.reporting.section import Finding, Section, section
from inscape.results import Result, format_value


@section("map")
def map_section(result: Result, name: str) -> Section:
    """What the best map explains or finds, its figure, and all numbers."""
    findings: list[Finding] = []
    for measure, phrase in (("map_r2", "explains {} of the variance of {} in rows it was not fitted on"), ("retrieval", "")):
        rows = [row for row in result.where(measure=measure).rows() if row["value"] is not None]
        if not rows:
            continue
        best = max(rows, key=lambda row: (-(row["at"] or 0), row["value"]))
        where, number = escape(str(best["system_b"] or "the other space")), f"<b>{escape(format_value(best))}</b>"
        said = phrase.format(number, where) if phrase else f"finds the partner among the {best['at']} nearest rows of {where}: {number}"
        chance = "" if best["null_mean"] is None else f"chance is {best['null_mean']:.3g}; "
        detail = f"{chance}n = {best['n']:,}; {best['interval_method'] or 'no interval'}"
        findings.append(Finding(f"The {escape(str(best['label']))} map {said}.", escape(detail), weight=0.6))
    drawn = figure(partial(_draw, result), name=f"{name}-m", alt="scores of maps between spaces, with intervals and chance")
    body = f'<div class="figures panels">{drawn}</div>' + folded(f"All {len(result):,} numbers", result_table(result))
    systems = dict.fromkeys([*result.unique("system"), *result.unique("system_b")])
    title = str(result.settings.get("title") or f"Map between {' and '.join(systems) or 'two spaces'}")
    return Section(title, tuple(findings), tuple(cautions_of(result)), body, ())


def _draw(result: Result, theme: str) -> Figure:
    return map_scores(result, theme=theme)
