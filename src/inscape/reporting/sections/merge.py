"""The section of merged features: how few units do the same, two curves, and the table."""

from __future__ import annotations

from functools import partial
from html import escape

from matplotlib.figure import Figure

from inscape.plots.merging import merge_curves
from inscape.reporting.cautions import cautions_of
from inscape.reporting.parts import figure, folded, result_table
from inscape.reporting.section import Finding, Section, section
from inscape.results import Result


@section("merge")
def merge_section(result: Result, name: str) -> Section:
    """The share of units that is enough, in words, the curves, and all numbers."""
    heads = {row["measure"]: row["value"] for row in result.rows() if row["axis"] is None}
    system = escape(str((result.unique("system") or ["the network"])[0]))
    share, tolerance = heads["feature_complexity"], result.settings.get("tolerance", 0)
    text = f"<b>{share:.0%}</b> of the units of {system} are enough: with alike ones joined, its score stays within {tolerance:g}."
    finding = Finding(text, f"score of the whole network {heads['merged_score']:.3g}; weights alone decide what is joined", weight=0.5)
    drawn = figure(partial(_draw, result), name=f"{name}-f", alt="units left over the threshold, and the score over units left")
    body = f'<div class="figures panels">{drawn}</div>' + folded(f"All {len(result):,} numbers", result_table(result))
    title = str(result.settings.get("title") or f"Merged features of {system}")
    return Section(title, (finding,), tuple(cautions_of(result)), body, ())


def _draw(result: Result, theme: str) -> Figure:
    return merge_curves(result, theme=theme)
