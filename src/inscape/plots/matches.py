"""Matches: the best partner of each site with the sites that could be it as well, and the correlations of matched units."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inscape.errors import ResultError
from inscape.plots.reading import facts_of, fitting, inside_null, ordered, site_labels, thinned
from inscape.plots.theme import Theme, drawing, dress, panels, theme_named
from inscape.results import Result

BINS = 30


@drawing
def match_paths(result: Result, ax: Axes | None = None, *, measure: str | None = None, theme: str = "light", columns: int = 3) -> Figure:
    """Draws where each site of the first system finds its best match, and the range of sites that could be it as well.

    A dot is the best match, hollow where it is inside the null; small dots on the bar are sites that cannot be told from it.

    Args:
        result: of `ix.measures.best_match`.
        ax: draw into this axes; then there must be one measure and one pair of systems.
        measure: which one; all by default.
        theme: "light", "dark" or "page".
        columns: panels side by side.

    Raises:
        ResultError: the result holds no match, or one `ax` was given for several panels.
    """
    look = theme_named(theme)
    rows = [row for row in result.rows() if measure in (None, row["measure"])]
    groups = ordered((row["measure"], row["system"], row["system_b"]) for row in rows)
    if not groups:
        raise ResultError(f"there is no match to draw: the measures are {result.unique('measure')}")
    sides = [max(len({r["site"] for r in rows}), len(_partners(rows)))]
    size = min(6.0, max(3.0, 0.3 * max(sides) + 1.4))
    figure, axes = panels(len(groups), look, ax=ax, width=size + 0.3, height=size, columns=columns)
    for group, panel in zip(groups, axes, strict=True):
        mine = [row for row in rows if (row["measure"], row["system"], row["system_b"]) == group]
        _path(panel, mine, result.settings.get("level", 0.95), look)
        titled = f"{group[0]}" if len({one[1:] for one in groups}) == 1 else f"{group[0]}: {group[1]}, {group[2]}"
        dress(panel, look, title=titled, note="best match, and sites that cannot be told from it")
    return figure


def _partners(rows: list[dict[str, Any]]) -> list[str]:
    """All sites of the second system, in the order in which rows name them; a best match stands between its neighbors."""
    by_site: dict[str, list[str]] = {}
    for row in rows:
        if row["at"] is not None:
            by_site.setdefault(row["site"], []).append(str(row["at"]))
    best = {row["site"]: row["site_b"] for row in rows if row["at"] is None}
    names: list[str] = []
    for first in by_site.values():
        names = names or list(first)
    # The first list lacks its own best match; another site's list, whose best is another, says where it stands.
    missing = [name for name in dict.fromkeys(best.values()) if name not in names]
    for name in missing:
        order = next((found for found in by_site.values() if name in found), None)
        after = order[: order.index(name)] if order is not None else names
        place = max((names.index(one) + 1 for one in after if one in names), default=0)
        names.insert(place, name)
    return names


def _path(ax: Axes, rows: list[dict[str, Any]], level: float, look: Theme) -> None:
    sites, others = ordered(row["site"] for row in rows), _partners(rows)
    color = look.palette[0]
    heads = {row["site"]: row for row in rows if row["at"] is None}
    for height, site in enumerate(sites):
        best = others.index(heads[site]["site_b"])
        tied = [r["at"] for r in rows if r["site"] == site and r["at"] is not None and (r["p_corrected"] or 0) > 1 - level]
        places = sorted([best, *(others.index(str(name)) for name in tied)])
        ax.plot([places[0], places[-1]], [height, height], color=color, linewidth=3.0, alpha=0.3, solid_capstyle="round")
        ax.plot(places, [height] * len(places), "o", color=color, markersize=2.6)
    path = [(others.index(heads[site]["site_b"]), height) for height, site in enumerate(sites)]
    ax.plot(*zip(*path, strict=True), color=look.muted, linewidth=0.9, zorder=1)
    for (place, height), site in zip(path, sites, strict=True):
        hollow = bool(inside_null(heads[site]))
        ax.plot(place, height, "o", markersize=7, markerfacecolor="none" if hollow else color, markeredgecolor=color, markeredgewidth=1.3)
    ax.set_xlim(-0.6, len(others) - 0.4)
    ax.set_ylim(-0.6, len(sites) - 0.4)
    first, second = rows[0]["system"], rows[0]["system_b"]
    for axis, names, system in ((ax.yaxis, sites, first), (ax.xaxis, others, second)):
        labels, title = site_labels(names)
        ticks = thinned(len(names), 12)
        axis.set_ticks(ticks, [labels[i] for i in ticks])
        axis.set_label_text(f"{system} · {title}" if system else title)
    labels = site_labels(others)[0]
    side = fitting(labels, 0.3 * len(others))
    if side:
        ax.set_xticks(side, [labels[i] for i in side])
    elif max(map(len, labels)) > 3:
        ax.tick_params(axis="x", labelrotation=35)


@drawing
def match_histograms(result: Result, ax: Axes | None = None, *, theme: str = "light", columns: int = 3) -> Figure:
    """Draws how well units are matched, as a histogram for each pair of sites, with what shuffled rows give as a curve.

    Args:
        result: of `ix.measures.match_units`.
        ax: draw into this axes; then there must be one pair of sites.
        theme: "light", "dark" or "page".
        columns: panels side by side.

    Raises:
        ResultError: the result has no matched units, or one `ax` was given for several panels.
    """
    look = theme_named(theme)
    listed: list[dict[str, Any]] = list(result.settings.get("units", ()))
    if not listed:
        raise ResultError("there are no matched units to draw; ix.measures.match_units(a, b) makes them")
    figure, axes = panels(len(listed), look, ax=ax, width=3.5, height=2.6, columns=columns)
    shares = {
        (row["site"], row["site_b"]): row["value"] for row in result.where(measure="units_beyond_chance").rows() if row["value"] is not None
    }
    for key, (one, panel) in enumerate(zip(listed, axes, strict=True)):
        r, chance = result.arrays[f"r/{key}"], result.arrays[f"chance/{key}"]
        r = r[np.isfinite(r)]
        low = min(0.0, float(np.floor(10 * min(r.min(), chance.min())) / 10))
        edges = np.linspace(low, 1.0, BINS + 1)
        panel.hist(r, edges.tolist(), color=look.palette[0], alpha=0.85, label=f"{len(r)} matched units")
        counts = np.stack([np.histogram(draw, edges)[0] for draw in chance])
        middle = (edges[1:] + edges[:-1]) / 2
        panel.plot(middle, counts.mean(0), color=look.palette[1], linewidth=1.6, label="shuffled rows")
        panel.fill_between(middle, counts.min(0), counts.max(0), color=look.palette[1], alpha=0.25, linewidth=0)
        panel.set_xlim(low, 1)
        panel.set_xlabel("correlation with the matched unit")
        panel.set_ylabel("units")
        title = one["site"] if one["site"] == one["site_b"] else f"{one['site']} · {one['site_b']}"
        share = shares.get((one["site"], one["site_b"]))
        note = f"{one['system']}, {one['system_b']}" + (f"; {share:.0%} beyond chance" if share is not None else "")
        dress(panel, look, title=title, note=note)
        if key == 0:
            panel.legend(frameon=False, fontsize=8, labelcolor=look.ink, loc="best")
    return figure


def best_places(result: Result, rows: list[dict[str, Any]], sites: list[str], others: list[str]) -> dict[int, set[int]]:
    """By site, the numbers of the partners that cannot be told from its best; empty where a comparison has no jackknife."""
    from inscape.measures import best_match

    if not rows or not facts_of(rows[0]["measure"]).known or len(others) < 2:
        return {}
    try:
        found = best_match(result.where(system=rows[0]["system"], system_b=rows[0]["system_b"]), rows[0]["measure"])
    except ResultError:
        return {}
    level = float(found.settings["level"])
    kept: dict[int, set[int]] = {}
    for row in found.rows():
        if row["at"] is not None and row["p_corrected"] is not None and row["p_corrected"] > 1 - level:
            kept.setdefault(sites.index(row["site"]), set()).add(others.index(str(row["at"])))
    return kept
