"""The section of a profile: measures of single systems along their sites."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import Any

from inscape.measures.places import PLACE
from inscape.plots.collapse import MEASURES as COLLAPSE
from inscape.plots.collapse import collapse_dashboard
from inscape.plots.curves import layer_curves
from inscape.plots.heads import head_map
from inscape.plots.massive import massive_map
from inscape.plots.places import curve_figure
from inscape.plots.reading import facts_of, headline, inside_null, ordered
from inscape.reporting.cautions import cautions_of
from inscape.reporting.parts import figure, folded, measure_caption, result_table
from inscape.reporting.section import Finding, Section, section
from inscape.reporting.words import Point, Shape, apart, brief, count, detail, listed, shape_of, tell
from inscape.results import Result


@section("measure")
def measure_section(result: Result, name: str) -> Section:
    """Findings along depth for each measure, a small figure each, and the table."""
    rows = headline(result)
    measures = ordered(row["measure"] for row in rows)
    systems = ordered(row["system"] for row in rows)
    findings: list[Finding] = []
    drawings: list[str] = []
    for index, measure in enumerate(measures):
        mine = [row for row in rows if row["measure"] == measure]
        findings += _along_depth(mine, measure)
        findings += _between_systems(mine, measure)
        part = result.where(measure=measure, at=None)
        if any(row["value"] is not None for row in mine):
            drawings.append(
                figure(
                    partial(_draw, layer_curves, part),
                    name=f"{name}-c{index}",
                    alt=f"{measure} along the sites",
                    caption=measure_caption(measure),
                )
            )
    drawings = [*_places(result, name), *drawings, *_curves(result, name)]
    title = str(result.settings.get("title") or f"Profile of {listed(systems, 3) if systems else 'the data'}")
    body = f"<div class=figures>{''.join(drawings)}</div>" + folded(f"All {len(result):,} numbers", result_table(result))
    return Section(title, tuple(findings), tuple(cautions_of(result)), body, tuple(measures))


def _draw(draw: Any, result: Result, theme: str) -> Any:
    return draw(result, theme=theme)


def _places(result: Result, name: str) -> list[str]:
    """What one look should take in: the dashboard of collapse, heads by layer, and where massive activations lie."""
    drawings: list[str] = []
    for system, label, seed in ordered((row["system"], row["label"], row["seed"]) for row in headline(result)):
        part = result.where(system=system, label=label, seed=seed)
        of = f" of {system}" if system else ""
        shown = {row["measure"].split("(")[0] for row in headline(part) if row["value"] is not None}
        if len(shown & COLLAPSE) >= 3:
            drawings.append(figure(partial(_draw, collapse_dashboard, part), name=f"{name}-d{len(drawings)}", alt=f"Collapse{of} by site"))
        if any(row["axis"] == "head" and row["at"] is not None for row in part.rows()):
            drawings.append(figure(partial(_draw, head_map, part), name=f"{name}-d{len(drawings)}", alt=f"Heads{of} by layer"))
        if any(row["axis"] == PLACE and row["at"] is not None for row in part.rows()):
            drawings.append(figure(partial(_draw, massive_map, part), name=f"{name}-d{len(drawings)}", alt=f"Largest entries{of} by site"))
    return drawings


def _curves(result: Result, name: str) -> list[str]:
    curved = [r for r in result.rows() if r["at"] is not None and not isinstance(r["at"], str) and r["axis"] not in ("step", "head")]
    drawings: list[str] = []
    for system in ordered(row["system"] or "" for row in curved):
        for measure in ordered(row["measure"] for row in curved if (row["system"] or "") == system):
            part = result.where(measure=measure, system=system or None)
            label = f"{measure} of {system} over its axis" if system else f"{measure} over its axis"
            drawings.append(figure(partial(_draw, curve_figure, part), name=f"{name}-s{len(drawings)}", alt=label, caption=escape(label)))
    return drawings


def _along_depth(rows: list[dict[str, Any]], measure: str) -> list[Finding]:
    """One sentence for all systems that do the same, so that ten seeds are not ten sentences."""
    shapes: dict[str, tuple[Shape, list[dict[str, Any]]]] = {}
    for system, label, seed in ordered((row["system"], row["label"], row["seed"]) for row in rows):
        mine = [r for r in rows if (r["system"], r["label"], r["seed"]) == (system, label, seed) and r["value"] is not None]
        if mine and not all(inside_null(row) for row in mine):
            parts = (system, label, f"seed {seed}" if seed is not None else None)
            who = " ".join(str(part) for part in parts if part is not None)
            shapes[who] = shape_of([Point.of(row, row["site"] or "the data") for row in mine]), mine
    findings: list[Finding] = []
    for kind in dict.fromkeys(shape.kind for shape, _ in shapes.values()):
        alike = {who: shape for who, (shape, _) in shapes.items() if shape.kind == kind}
        (first, shape), *others = alike.items()
        text = f"<code>{escape(measure)}</code> {f'of {escape(first)} ' if first else ''}{tell(shape)}."
        if others:
            others_told = "; ".join(f"{escape(who)} {brief(other)}" for who, other in others[:3])
            more = f" and {count(len(others) - 3, 'other')}" if len(others) > 3 else ""
            text += f" The same in {others_told}{more}."
        mine = [row for who in alike for row in shapes[who][1]]
        findings.append(Finding(text, detail(mine, higher=facts_of(measure).higher), shape.excursion))
    return findings


def _between_systems(rows: list[dict[str, Any]], measure: str) -> list[Finding]:
    """Where two systems have the same sites: at how many of them they can be told apart."""
    systems = ordered(row["system"] for row in rows)
    if len(systems) != 2 or len({(row["label"], row["seed"]) for row in rows}) > 1:
        return []
    by_site = [{row["site"]: row for row in rows if row["system"] == system and row["value"] is not None} for system in systems]
    shared = [site for site in by_site[0] if site in by_site[1]]
    if len(shared) < 2:
        return []
    pairs = [(Point.of(by_site[0][site], site), Point.of(by_site[1][site], site)) for site in shared]
    different = [a.place for a, b in pairs if apart(a, b)]
    above = sum(a.value > b.value for a, b in pairs)
    higher, lower, times = (systems[0], systems[1], above) if above * 2 >= len(pairs) else (systems[1], systems[0], len(pairs) - above)
    told = f"their intervals are apart at {f'<b>{len(different)}</b>' if different else 'none'} of {count(len(shared), 'shared site')}"
    if 0 < len(different) <= 3:
        told += f" ({listed(different)})"
    text = (
        f"<code>{escape(measure)}</code> is higher in {escape(higher)} than in {escape(lower)} at {times} of {len(shared)} sites; {told}."
    )
    if not different:
        text = f"<code>{escape(measure)}</code> does not tell {escape(systems[0])} from {escape(systems[1])}: {told}."
    return [Finding(text, detail(rows), 0.3 * len(different) / len(shared))]
