"""The section of models of dissimilarities: the best model, what it leaves to the noise ceiling, bars, and the table."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import Any

from matplotlib.figure import Figure

from inscape.errors import ResultError
from inscape.plots.models import ALPHA, CEILING, model_bars
from inscape.reporting.cautions import cautions_of
from inscape.reporting.parts import figure, folded, measure_caption, result_table
from inscape.reporting.section import Finding, Section, section
from inscape.results import Result, format_value


@section("rsa")
def rsa_section(result: Result, name: str) -> Section:
    """For each measure and site of the data a sentence on the best model, bars with the ceiling, and the table."""
    findings: list[Finding] = []
    drawings: list[str] = []
    measures = tuple(result.unique("measure"))
    sites = result.unique("site_b") or [None]
    for index, (measure, site) in enumerate((one, place) for one in measures for place in sites):
        rows = result.where(measure=measure, site_b=site).rows()
        try:
            picture = figure(
                partial(_draw, result, measure, site),
                name=f"{name}-m{index}",
                alt=f"models by {measure} with intervals and noise ceiling",
                caption=measure_caption(measure),
            )
        except ResultError as error:
            drawings.append(f"<p class=note>{escape(str(error))}</p>")
            continue
        drawings.append(picture)
        findings.append(_best(rows, measure, site))
    count = len({row["system"] for row in result.where(axis=None).rows()})
    title = str(result.settings.get("title") or f"{count} model{'s' * (count != 1)} of representational dissimilarities")
    body = f'<div class="figures wide">{"".join(drawings)}</div>' + folded(f"All {len(result):,} numbers", result_table(result))
    return Section(title, tuple(findings), tuple(cautions_of(result)), body, measures)


def _draw(result: Result, measure: str, site: str | None, theme: str) -> Figure:
    return model_bars(result, measure=measure, site=site, theme=theme)


def _best(rows: list[dict[str, Any]], measure: str, site: str | None) -> Finding:
    heads = [row for row in rows if row["axis"] is None and row["value"] is not None]
    best = max(heads, key=lambda row: row["value"])
    where = escape(site) if site else "the data"
    text = f"By {escape(measure)}, {escape(best['system'])} fits {where} best: <b>{escape(format_value(best))}</b>"
    bounds = {row["at"]: row["value"] for row in rows if row["axis"] == CEILING and row["value"] is not None}
    if len(bounds) == 2:
        reached = "reaches" if best["value"] >= bounds["lower"] else "stays below"
        text += f"; it {reached} the noise ceiling ({bounds['lower']:.2f} to {bounds['upper']:.2f})"
    worse = [
        row
        for row in rows
        if row["axis"] == "difference" and row["at"] != CEILING and best["system"] in (row["system"], row["at"]) and _p(row) is not None
    ]
    reliable = sum(_p(row) < ALPHA for row in worse)
    detail = best["interval_method"] or "no interval"
    if worse:
        detail += f"; reliably better than {reliable} of {len(worse)} others (corrected p < {ALPHA:g})"
    return Finding(text + ".", escape(detail), weight=0.6)


def _p(row: dict[str, Any]) -> Any:
    return row["p"] if row["p_corrected"] is None else row["p_corrected"]
