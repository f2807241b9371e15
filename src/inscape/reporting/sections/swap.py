"""The section of an encoder's replacement: the verdict with its reasons, the figure, the worst queries, and all numbers."""

from __future__ import annotations

from functools import partial
from html import escape

from matplotlib.figure import Figure

from inscape.plots.swaps import swap_routes
from inscape.reporting.cautions import cautions_of
from inscape.reporting.parts import figure, folded, plain_table, result_table
from inscape.reporting.section import Finding, Section, section
from inscape.results import Result


@section("swap")
def swap_section(result: Result, name: str) -> Section:
    """The verdict, how retrieval does on every route, which queries lose most, and the table."""
    told = result.settings
    reasons = "; ".join(str(reason) for reason in told.get("reasons", ()))
    findings = [Finding(f"<b>{escape(str(told['verdict']))}</b>.", escape(reasons or "numbers without a requirement"), weight=0.9)]
    routes = "".join(f"<li><code>{escape(label)}</code>: {escape(what)}</li>" for label, what in told.get("routes", {}).items())
    drawn = figure(
        partial(_draw, result),
        name=f"{name}-s",
        alt="recall and overlap of every route, scores of best documents, segments",
        caption=f"{told['queries']:,} queries, {told['documents']:,} documents; answers: {escape(str(told['relevant']))}",
    )
    worst = [
        [
            escape(str(one.get(key, ""))) if key != "overlap" else f"{one[key]:.2f}"
            for key in ("query", "text", "overlap", "old_first", "new_first")
        ]
        for one in told.get("worst", ())
    ]
    table = plain_table(("query", "text", "overlap", "old first", "new first"), worst) if worst else ""
    body = f'<div class="figures panels">{drawn}</div><ul class=note>{routes}</ul>' + folded("Queries that lose most", table)
    body += folded(f"All {len(result):,} numbers", result_table(result))
    title = str(told.get("title") or f"May {result.unique('system_b')[0]} take the place of {result.unique('system')[0]}?")
    return Section(title, tuple(findings), tuple(cautions_of(result)), body, ())


def _draw(result: Result, theme: str) -> Figure:
    return swap_routes(result, theme=theme)
