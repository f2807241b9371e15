"""Colors, figure sizes and the look of axes: one light and one dark theme, and one that follows the page it stands in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from inscape.errors import ResultError, nearest

# Okabe and Ito (2008), distinguishable with every common color vision; yellow last, since it fades on paper.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")
SEQUENTIAL = "viridis"
RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "inscape",
    "font.size": 9.5,
    "font.family": "sans-serif",
    "axes.titlesize": 10.5,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "hatch.linewidth": 0.7,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Theme:
    """The colors that depend on the paper: `ink` for text, `muted` for axes and nulls, `paper` behind (None: see through)."""

    name: str
    ink: str
    muted: str
    paper: str | None
    palette: tuple[str, ...] = PALETTE


# `page` draws with colors that nothing else uses, and `svg.inline` puts the page's own, or a light and a dark one, in their place.
THEMES = {
    "light": Theme("light", "#1c1c1a", "#6f6e69", "#ffffff"),
    "dark": Theme("dark", "#ececea", "#9a9994", "#161718", ("#4FA3DB", "#F0874A", "#35C49A", "#E3A0C7", "#8FD0F5", "#F2BC4B", "#F0E442")),
    "page": Theme("page", "#010203", "#030201", None, tuple(f"#0a0b{i:02x}" for i in range(1, 8))),
}


def theme_named(name: str) -> Theme:
    """The theme of that name; raises `ResultError` with the known ones."""
    if name not in THEMES:
        raise ResultError(f"there is no theme {name!r}; closest: {nearest(name, THEMES)}")
    return THEMES[name]


def rc() -> AbstractContextManager[None]:
    """Matplotlib's settings for the time of one drawing; the user's own are untouched afterwards."""
    return matplotlib.rc_context(RC)


def drawing(function: Callable[..., Figure]) -> Callable[..., Figure]:
    """Runs a figure function under the settings of `rc`."""

    @wraps(function)
    def drawn(*args: Any, **options: Any) -> Figure:
        with rc():
            return function(*args, **options)

    return drawn


def new_figure(width: float, height: float, theme: Theme) -> Figure:
    """An empty figure of that size in inches that belongs to no window."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0.0 if theme.paper is None else 1.0)
    if theme.paper is not None:
        figure.patch.set_facecolor(theme.paper)
    return figure


def dress(ax: Axes, theme: Theme, *, title: str | None = None, note: str | None = None) -> None:
    """Two spines, quiet ticks, the title at the left with a note under it in smaller type."""
    ax.patch.set_alpha(0.0)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(theme.muted)
        ax.spines[side].set_linewidth(0.8)
    ax.tick_params(colors=theme.muted, labelcolor=theme.ink, width=0.8, length=3)
    ax.xaxis.label.set_color(theme.ink)
    ax.yaxis.label.set_color(theme.ink)
    if title is not None:
        ax.set_title(title, loc="left", color=theme.ink, fontweight="bold", pad=18 if note else 6)
    if note:
        ax.annotate(
            note, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", color=theme.muted, fontsize=8.5, va="bottom"
        )


def panels(
    count: int, theme: Theme, *, ax: Axes | None, width: float = 3.6, height: float = 2.55, columns: int = 3
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` axes in rows of at most `columns`; or the figure of the `ax` that was given, which takes one panel.

    Raises:
        ResultError: an `ax` was given for more than one panel.
    """
    if ax is not None:
        if count != 1:
            raise ResultError(f"one ax was given for {count} panels; choose one measure (measures='…'), or leave ax out")
        return _figure_of(ax), [ax]
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = new_figure(width * columns, height * rows, theme)
    grid = figure.subplots(rows, columns, squeeze=False)
    axes: list[Axes] = list(grid.flat)
    for spare in axes[count:]:
        spare.set_axis_off()
    return figure, axes[:count]


def _figure_of(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ResultError("the ax that was given belongs to no figure")
    return figure


def depth_colors(count: int, theme: Theme) -> list[str]:
    """`count` colors from early to late, without viridis' ends that vanish on dark or light paper."""
    places = [round(255 * i / max(1, count - 1)) for i in range(count)]
    return [_PAGE_DEPTH.format(place) if theme.name == "page" else _depth(place, theme.name) for place in places]


def page_colors() -> dict[str, str]:
    """For each color that only the theme "page" uses, what CSS puts in its place."""
    light, dark, page = THEMES["light"], THEMES["dark"], THEMES["page"]
    colors = {page.ink: "currentColor", page.muted: "var(--muted, #777)"}
    for own, day, night in zip(page.palette, light.palette, dark.palette, strict=True):
        colors[own] = f"light-dark({day},{night})"
    for place in range(256):
        colors[_PAGE_DEPTH.format(place)] = f"light-dark({_depth(place, 'light')},{_depth(place, 'dark')})"
    return colors


_PAGE_DEPTH = "#0d0f{:02x}"
_DEPTH_ENDS = {"light": (0.0, 0.8), "dark": (0.36, 1.0)}


def _depth(place: int, theme: str) -> str:
    low, high = _DEPTH_ENDS[theme]
    return to_hex(matplotlib.colormaps[SEQUENTIAL](low + (high - low) * place / 255))
