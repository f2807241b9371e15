"""The section of best matches: where each site finds its partner, and how sure that is."""

from __future__ import annotations

from functools import partial
from html import escape

from matplotlib.figure import Figure

from inscape.plots.matches import match_paths
from inscape.plots.reading import headline, ordered
from inscape.reporting.cautions import cautions_of
from inscape.reporting.parts import figure, folded, measure_caption, result_table
from inscape.reporting.section import Finding, Section, section
from inscape.results import Result


@section("match")
def match_section(result: Result, name: str) -> Section:
    """For each measure and pair of systems how many sites have one best match alone, the path of best matches, and the table."""
    findings: list[Finding] = []
    drawings: list[str] = []
    level = float(result.settings.get("level", 0.95))
    groups = ordered((row["measure"], row["system"], row["system_b"]) for row in result.rows())
    for index, (measure, system, other) in enumerate(groups):
        part = result.where(measure=measure, system=system, system_b=other)
        heads = headline(part)
        rivals = [row for row in part.rows() if row["at"] is not None]
        tied = {row["site"] for row in rivals if row["p_corrected"] is not None and row["p_corrected"] > 1 - level}
        tested = {row["site"] for row in rivals if row["p_corrected"] is not None}
        alone = len(tested - tied)
        text = (
            f"By <code>{escape(measure)}</code>, {alone} of {len(heads)} sites of {escape(system)} have one site of {escape(other)} that "
        )
        text += "matches them best beyond doubt." if tested else "matches them best, and how surely is unknown: there is no jackknife."
        findings.append(Finding(text, f"candidates hold the best site with {level:.0%} confidence", weight=0.6))
        drawings.append(
            figure(
                partial(_draw, part),
                name=f"{name}-m{index}",
                alt=f"the best match of each site of {system} in {other} by {measure}",
                caption=measure_caption(measure),
            )
        )
    key = "A dot is the best match, hollow inside the null; small dots are sites that cannot be told from it."
    body = f'<div class="figures wide">{"".join(drawings)}</div><p class=note>{key}</p>' + folded(
        f"All {len(result):,} numbers", result_table(result)
    )
    pairs = ordered((row["system"], row["system_b"]) for row in result.rows())
    title = str(result.settings.get("title") or "Best matches · " + " · ".join(f"{a} in {b}" for a, b in pairs[:2]))
    return Section(title, tuple(findings), tuple(cautions_of(result)), body, tuple(result.unique("measure")))


def _draw(result: Result, theme: str) -> Figure:
    return match_paths(result, theme=theme)
