"""Maps of units: values of units at their places, and the response of each unit over a grid of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inscape.arrays import as_numpy, as_rows
from inscape.errors import DegenerateInputError, ResultError
from inscape.plots.theme import Theme, drawing, dress, panels, theme_named

DIVERGING = "RdBu_r"
_SIDE = 1.55


@drawing
def unit_maps(
    data: Any,
    positions: Any = None,
    ax: Axes | None = None,
    *,
    rows: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    theme: str = "light",
    columns: int = 6,
) -> Figure:
    """Draws each row as a map: every unit at its place, colored by its value about the row's mean, with Moran's I above.

    Args:
        data: a view, or an array [n, d]: a response or a selectivity of every unit in each row.
        positions: of the units, [d, 2 or more]; of a view by default the columns x and y of its unit table.
        ax: draw into this axes; then there must be one row.
        rows: which rows; the first 12 by default.
        names: what stands above each map.
        theme: "light", "dark" or "page".
        columns: maps side by side.

    Raises:
        ResultError: no positions, not two numbers for each unit, or one `ax` for several rows.

    Example:
        >>> unit_maps(store["v1"], rows=[0, 1]).savefig("maps.svg")    # doctest: +SKIP
    """
    from inscape.measures import get
    from inscape.measures.definition import unit_positions

    look = theme_named(theme)
    values = as_numpy(as_rows(data, "the data of unit maps")).astype(float)
    places = np.asarray(unit_positions(data) if positions is None else positions, dtype=float)
    if places.ndim != 2 or places.shape[1] < 2 or len(places) != values.shape[1]:
        raise ResultError(
            f"unit maps need two numbers for each of {values.shape[1]} units, got positions of shape {places.shape}; pass positions=, or "
            "store a unit table with columns x and y"
        )
    chosen = list(range(min(12, len(values)))) if rows is None else list(rows)
    figure, axes = panels(len(chosen), look, ax=ax, width=_SIDE, height=_SIDE + 0.6, columns=columns)
    for place, (row, panel) in enumerate(zip(chosen, axes, strict=True)):
        centered = values[row] - values[row].mean()
        limit = float(np.abs(centered).max()) or 1.0
        size = (_SIDE * 63 / max(4.0, np.sqrt(len(places)))) ** 2
        panel.scatter(places[:, 0], places[:, 1], c=centered, cmap=DIVERGING, vmin=-limit, vmax=limit, s=size, marker="s", linewidths=0)
        try:
            note = f"Moran's I {float(get('moran_i')(values[row : row + 1], places)):.2f}"
        except DegenerateInputError:  # a flat map has none
            note = "flat"
        _bare(panel, look, names[place] if names is not None else f"row {row}", note)
        panel.set_aspect("equal", anchor="S")
        panel.margins(0.04)
    return figure


@drawing
def fracture_maps(
    data: Any,
    shape: tuple[int, int],
    ax: Axes | None = None,
    *,
    units: Sequence[int] | None = None,
    theme: str = "light",
    columns: int = 8,
) -> Figure:
    """Draws what each unit computes over a plane of inputs, as an image: whole shapes, or the same shape in pieces.

    Rows are the inputs of a grid, line by line, such as the pixels of a network that draws one picture from coordinates. The images are
    for looking: no agreed number says how fractured a representation is, and none is given.

    Args:
        data: a view, or an array [h w, d].
        shape: height and width of the grid.
        ax: draw into this axes; then there must be one unit.
        units: which units; the first 24 by default.
        theme: "light", "dark" or "page".
        columns: images side by side.

    Raises:
        ResultError: the rows do not fill the grid, or one `ax` for several units.

    Example:
        >>> fracture_maps(store["layers.2"], (64, 64)).savefig("layer2.svg")    # doctest: +SKIP
    """
    look = theme_named(theme)
    values = as_numpy(as_rows(data, "the data of fracture maps")).astype(float)
    height, width = shape
    if height * width != len(values):
        raise ResultError(f"{len(values)} rows do not fill a grid of {height} × {width}; give one row for each place, line by line")
    chosen = list(range(min(24, values.shape[1]))) if units is None else list(units)
    figure, axes = panels(len(chosen), look, ax=ax, width=_SIDE * 0.8, height=_SIDE * 0.8 + 0.2, columns=columns)
    for unit, panel in zip(chosen, axes, strict=True):
        image = values[:, unit].reshape(height, width)
        limit = float(np.abs(image).max()) or 1.0
        panel.imshow(image, cmap=DIVERGING, vmin=-limit, vmax=limit, interpolation="nearest")
        _bare(panel, look, f"unit {unit}", None)
    return figure


def _bare(panel: Axes, look: Theme, title: str, note: str | None) -> None:
    """No ticks and no spines: what is drawn has no scale."""
    dress(panel, look, title=title, note=note)
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set_visible(False)
