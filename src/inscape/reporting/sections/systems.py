"""The section of a comparison of many systems: who is near whom, and a map of them."""

from __future__ import annotations

from functools import partial
from html import escape

import numpy as np
from matplotlib.figure import Figure

from inscape.errors import ResultError
from inscape.measures.systems import distances
from inscape.plots.systems import system_map
from inscape.reporting.cautions import cautions_of
from inscape.reporting.parts import figure, folded, measure_caption, result_table
from inscape.reporting.section import Finding, Section, section
from inscape.results import Result, format_number


@section("systems")
def systems_section(result: Result, name: str) -> Section:
    """For each measure the nearest and the farthest pair of systems, dendrogram, matrix and map, and the table."""
    findings: list[Finding] = []
    drawings: list[str] = []
    measures = tuple(result.unique("measure"))
    for index, measure in enumerate(measures):
        try:
            matrix, names = distances(result, measure)
            drawings.append(
                figure(
                    partial(_draw, result, measure),
                    name=f"{name}-s{index}",
                    alt=f"{len(names)} systems by {measure}: dendrogram, distance matrix and map",
                    caption=measure_caption(measure),
                )
            )
        except ResultError as error:
            drawings.append(f"<p class=note>{escape(str(error))}</p>")
            continue
        findings.append(_ends(matrix, names, measure))
    title = str(result.settings.get("title") or f"{len(result.settings.get('systems', []))} systems compared with each other")
    body = f'<div class="figures wide">{"".join(drawings)}</div>' + folded(f"All {len(result):,} numbers", result_table(result))
    return Section(title, tuple(findings), tuple(cautions_of(result)), body, measures)


def _draw(result: Result, measure: str, theme: str) -> Figure:
    return system_map(result, measure=measure, theme=theme)


def _ends(matrix: np.ndarray, names: list[str], measure: str) -> Finding:
    above = np.triu_indices(len(names), 1)
    values = matrix[above]
    low, high = int(np.nanargmin(values)), int(np.nanargmax(values))
    near, far = ((escape(names[above[0][k]]), escape(names[above[1][k]])) for k in (low, high))
    text = f"By {escape(measure)}, {near[0]} and {near[1]} are nearest to each other, {far[0]} and {far[1]} farthest apart."
    detail = f"distances {format_number(float(values[low]))} and {format_number(float(values[high]))} of {len(values)} pairs"
    return Finding(text, detail, weight=0.5)
