"""The section of matched units: how many units of one system have a counterpart in another."""

from __future__ import annotations

from functools import partial
from html import escape

from matplotlib.figure import Figure

from inscape.plots.matches import match_histograms
from inscape.reporting.cautions import cautions_of
from inscape.reporting.parts import figure, folded, measure_caption, result_table
from inscape.reporting.section import Finding, Section, section
from inscape.results import Result, format_number


@section("units")
def units_section(result: Result, name: str) -> Section:
    """The pair of sites with most matched units in words, a histogram for each pair beside its chance curve, and the table."""
    shares = [row for row in result.where(measure="units_beyond_chance").rows() if row["value"] is not None]
    means = {(row["site"], row["site_b"]): row for row in result.where(measure="neuron_match").rows() if row["value"] is not None}
    findings: list[Finding] = []
    if shares:
        best = max(shares, key=lambda row: row["value"])
        mean = means[best["site"], best["site_b"]]
        where = escape(best["site"]) if best["site"] == best["site_b"] else f"{escape(best['site'])} and {escape(best['site_b'])}"
        text = f"{best['value']:.0%} of the units of {escape(best['system'])} have a counterpart in {escape(best['system_b'])} at {where} "
        text += f"beyond chance; matched units correlate by {format_number(mean['value'])} on average."
        detail = f"shuffled rows give {format_number(mean['null_mean'])}, p = {format_number(mean['p'])}, n = {mean['n']:,}"
        findings.append(Finding(text, detail, weight=0.6))
    drawn = figure(
        partial(_draw, result),
        name=f"{name}-u",
        alt="histograms of the correlation of matched units, with what shuffled rows give",
        caption=measure_caption("neuron_match"),
    )
    body = f'<div class="figures wide">{drawn}</div>' + folded(f"All {len(result):,} numbers", result_table(result))
    systems = [*result.unique("system"), *result.unique("system_b")]
    title = str(result.settings.get("title") or f"Units of {' and '.join(dict.fromkeys(systems))}")
    return Section(title, tuple(findings), tuple(cautions_of(result)), body, ("neuron_match",))


def _draw(result: Result, theme: str) -> Figure:
    return match_histograms(result, theme=theme)
