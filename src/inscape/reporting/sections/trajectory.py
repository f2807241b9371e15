"""The section of a training run: measures against the step."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import Any

from matplotlib.figure import Figure

from inscape.plots.reading import facts_of, ordered
from inscape.plots.trajectories import trajectories
from inscape.reporting.cautions import cautions_of
from inscape.reporting.parts import figure, folded, measure_caption, result_table
from inscape.reporting.section import Finding, Section, section
from inscape.reporting.words import Point, Shape, count, detail, listed, shape_of, tell
from inscape.results import Result


@section("trajectory")
def trajectory_section(result: Result, name: str) -> Section:
    """For each measure the site that moves most, how many sites move like it, and a figure."""
    rows = [row for row in result.where(axis="step").rows() if row["at"] is not None]
    measures = ordered(row["measure"] for row in rows)
    systems = ordered(row["system"] for row in rows)
    findings: list[Finding] = []
    drawings: list[str] = []
    for index, measure in enumerate(measures):
        mine = [row for row in rows if row["measure"] == measure and row["value"] is not None]
        if not mine:
            continue
        for system in ordered(row["system"] or "" for row in mine):
            findings += _movement([row for row in mine if (row["system"] or "") == system], measure, system, len(systems) > 1)
        part = result.where(measure=measure, axis="step")
        drawings.append(
            figure(
                partial(_draw, part), name=f"{name}-t{index}", alt=f"{measure} against the training step", caption=measure_caption(measure)
            )
        )
    title = str(result.settings.get("title") or f"Training of {listed(systems, 3) if systems else 'the model'}")
    body = f"<div class=figures>{''.join(drawings)}</div>" + folded(f"All {len(result):,} numbers", result_table(result))
    return Section(title, tuple(findings), tuple(cautions_of(result)), body, tuple(measures))


def _draw(result: Result, theme: str) -> Figure:
    return trajectories(result, theme=theme)


def _movement(rows: list[dict[str, Any]], measure: str, system: str, name_it: bool) -> list[Finding]:
    shapes: dict[str, Shape] = {}
    for site in ordered(row["site"] for row in rows):
        mine = sorted((row for row in rows if row["site"] == site), key=lambda row: float(row["at"]))
        shapes[site] = shape_of([Point.of(row, f"{row['at']:,}") for row in mine])
    if not shapes:
        return []
    site = max(shapes, key=lambda name: (len(shapes[name].points), shapes[name].excursion))
    shape = shapes[site]
    alike = sum(other.kind == shape.kind for other in shapes.values())
    who = f" in {escape(system)}" if name_it and system else ""
    text = f"While it trains{who}, <code>{escape(measure)}</code> at {escape(site)} {tell(shape, 'at step')}."
    if len(shapes) > 1:
        does = {"dip": "dip", "peak": "peak", "rise": "rise", "fall": "fall", "flat": "hardly move", "single": "are known at one step"}[
            shape.kind
        ]
        text += (
            f" {alike} of {count(len(shapes), 'site')} {does}{'s' if alike == 1 and shape.kind in ('dip', 'peak', 'rise', 'fall') else ''}."
        )
    return [Finding(text, detail([row for row in rows if row["site"] == site], higher=facts_of(measure).higher), 1.0 + shape.excursion)]
