"""The section of a comparison: which sites of two systems are alike, and which matches beat their null."""

from __future__ import annotations

import math
from functools import partial
from html import escape
from typing import Any

from matplotlib.figure import Figure

from inscape.plots.heatmaps import site_heatmaps
from inscape.plots.reading import Facts, facts_of, headline, inside_null, ordered
from inscape.reporting.cautions import cautions_of
from inscape.reporting.parts import figure, folded, measure_caption, result_table
from inscape.reporting.section import Finding, Section, section
from inscape.reporting.words import Point, detail, rank_correlation, shape_of, tell
from inscape.results import Result


@section("compare")
def compare_section(result: Result, name: str) -> Section:
    """For each measure and pair of systems the best match and whether depth is kept, a heatmap each, and the table."""
    rows = [row for row in headline(result) if row["site_b"] is not None]
    measures = ordered(row["measure"] for row in rows)
    groups = ordered((row["measure"], row["system"], row["system_b"], row["label"], row["subject"], row["seed"]) for row in rows)
    findings: list[Finding] = []
    drawings: list[str] = []
    for index, group in enumerate(groups):
        measure, system, other, label, subject, seed = group
        mine = [r for r in rows if (r["measure"], r["system"], r["system_b"], r["label"], r["subject"], r["seed"]) == group]
        facts = facts_of(measure)
        findings += _findings(mine, measure, facts)
        if any(row["value"] is not None for row in mine):
            part = result.where(measure=measure, system=system, system_b=other, label=label, subject=subject, seed=seed, at=None)
            drawings.append(
                figure(
                    partial(_draw, part),
                    name=f"{name}-h{index}",
                    alt=f"{measure} for every pair of sites of {system} and {other}",
                    caption=measure_caption(measure),
                )
            )
    key = (
        "Bright is alike. A ring or bold type marks the best match of each row, a line joins them, and a dot is a cell that cannot be told "
    )
    key += "from the best of its row; hatched cells are inside the null; × has no number."
    pairs = ordered((row["system"], row["system_b"]) for row in rows)
    title = str(
        result.settings.get("title")
        or " · ".join(f"{a or 'X'} against {b or 'Y'}" if a != b else f"{a} against itself" for a, b in pairs[:2])
    )
    body = f'<div class="figures wide">{"".join(drawings)}</div><p class=note>{key}</p>'
    body += folded(f"All {len(result):,} numbers", result_table(result))
    return Section(title, tuple(findings), tuple(cautions_of(result)), body, tuple(measures))


def _draw(result: Result, theme: str) -> Figure:
    return site_heatmaps(result, theme=theme)


def _findings(rows: list[dict[str, Any]], measure: str, facts: Facts) -> list[Finding]:
    with_values = [row for row in rows if row["value"] is not None and math.isfinite(row["value"])]
    # a site beside itself is alike by construction
    usable = [r for r in with_values if not (r["system"] == r["system_b"] and r["site"] == r["site_b"])]
    beyond = [row for row in usable if not inside_null(row)]
    if not beyond:
        return []
    sign = -1.0 if facts.distance else 1.0
    best = max(beyond, key=lambda row: sign * row["value"])
    a, b = best["system"] or "X", best["system_b"] or "Y"
    where, other = best["site"] or "X", best["site_b"]
    if a == b:
        text = f"Within {escape(a)}, {escape(where)} and {escape(other)} are most alike: "
    else:
        place = f"{escape(where)} of both" if where == other else f"{escape(where)} and {escape(other)}"
        text = f"{escape(a)} and {escape(b)} are most alike at {place}: "
    text += f"<code>{escape(measure)}</code> {Point.of(best, '').html()}."
    weight = 0.9
    sites, others = ordered(r["site"] for r in usable), ordered(r["site_b"] for r in usable)
    if len(usable) == len(sites) == len(others) and len(sites) > 1:  # one partner each: a curve, not a matrix
        text += f" Site by site it {tell(shape_of([Point.of(row, row['site']) for row in usable]))}."
    elif len(sites) >= 4 and len(others) >= 4 and a != b:
        told, rho = _depth(usable, sites, others, sign)
        text, weight = f"{text} {told}", 0.9 + 0.1 * rho
    return [Finding(text, detail([best], higher=facts.higher), weight)]


def _depth(rows: list[dict[str, Any]], sites: list[str], others: list[str], sign: float) -> tuple[str, float]:
    """Whether early sites match early ones and late sites late ones, and the rank correlation that says so."""
    partner: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["site"] not in partner or sign * row["value"] > sign * partner[row["site"]]["value"]:
            partner[row["site"]] = row
    kept = [site for site in sites if site in partner]
    rho = rank_correlation([sites.index(site) for site in kept], [others.index(partner[site]["site_b"]) for site in kept])
    if math.isnan(rho):
        return "Every site finds its best match at the same one, so depth does not line up.", 0.0
    verdict = "does not line up" if rho < 0.5 else "lines up" if rho > 0.8 else "lines up in part"
    text = f"Depth {verdict}: a site's depth against that of its best match gives a rank correlation of <b>{rho:.2f}</b>"
    if sites == others:
        text += f", and {sum(partner[site]['site_b'] == site for site in kept)} of {len(kept)} sites find their own counterpart"
    return text + ".", rho
