"""Lines of one panel over a numeric axis: one per site, colored by depth, named at their ends."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes

from inscape.plots.reading import Facts, ordered, site_labels, spread, thinned
from inscape.plots.theme import Theme, depth_colors

_STYLES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))


def draw_lines(ax: Axes, rows: list[dict[str, Any]], look: Theme, facts: Facts, *, most_labels: int = 7) -> None:
    """Draws value against `at` for every site and run, with interval bands, and names the sites at the right."""
    sites = ordered(row["site"] for row in rows)
    runs = ordered((row["system"], row["seed"]) for row in rows)
    colors = depth_colors(len(sites), look) if len(sites) > 1 else [look.palette[0]]
    labels, _ = site_labels(sites)
    ends: list[tuple[float, float, int]] = []
    for index, site in enumerate(sites):
        for order, run in enumerate(runs):
            mine = [r for r in rows if r["site"] == site and (r["system"], r["seed"]) == run and r["at"] is not None]
            mine = sorted((r for r in mine if not isinstance(r["at"], str)), key=lambda r: r["at"])
            points = [(float(r["at"]), float(r["value"])) for r in mine if r["value"] is not None and math.isfinite(r["value"])]
            if not points:
                continue
            xs, ys = [p[0] for p in points], [p[1] for p in points]
            band = [r for r in mine if r["low"] is not None and r["high"] is not None]
            if band and order == 0:
                ax.fill_between(
                    [float(r["at"]) for r in band], [r["low"] for r in band], [r["high"] for r in band],
                    color=colors[index], alpha=0.14, linewidth=0,
                )  # fmt: skip
            ax.plot(
                xs, ys, color=colors[index], linewidth=1.7 if order == 0 else 1.2, linestyle=_STYLES[order % len(_STYLES)],
                marker="o" if len(xs) <= 24 and order == 0 else None, markersize=2.8, solid_capstyle="round",
            )  # fmt: skip
            if order == 0:
                ends.append((xs[-1], ys[-1], index))
    if math.isfinite(facts.low) and facts.low == 0 and ax.get_ylim()[0] < 0.35 * ax.get_ylim()[1]:
        ax.set_ylim(bottom=0)
    if len(sites) > 1 and ends:
        chosen = [ends[i] for i in thinned(len(ends), most_labels)]
        bottom, top = ax.get_ylim()
        right = max(end[0] for end in ends)
        for (_, _, index), place in zip(chosen, spread([end[1] for end in chosen], 0.085 * (top - bottom), bottom, top), strict=True):
            ax.annotate(
                labels[index], (right, place), (6, 0), textcoords="offset points", color=colors[index], fontsize=8.5, va="center",
                annotation_clip=False,
            )  # fmt: skip
    if len(runs) > 1:
        for order, run in enumerate(runs):
            name = " ".join(str(part) if isinstance(part, str) else f"seed {part}" for part in run if part is not None)
            ax.plot([], [], color=look.muted, linestyle=_STYLES[order % len(_STYLES)], linewidth=1.3, label=name or f"run {order}")
        ax.legend(frameon=False, fontsize=8, labelcolor=look.ink, loc="best", handlelength=2.2)
