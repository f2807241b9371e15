"""Where in a store an entry lies: the stimulus, position and unit behind a row number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inscape.measures.massive import ROW_UNIT
from inscape.store import View

PLACE = "stimulus, position, unit"


def name_places(rows: Sequence[dict[str, Any]], view: View) -> None:
    """Puts stimulus and position in the place of the row numbers of curves over entries, in place."""
    ids: Any = None
    for row in rows:
        if row.get("axis") != ROW_UNIT:
            continue
        row["axis"] = PLACE
        if row.get("at") is None:
            continue
        ids = view.ids if ids is None else ids
        number, unit = (int(part) for part in row["at"].split(", "))
        row["at"] = f"{ids[number]}, {int(view.position[number])}, {unit}"


def read_place(text: str) -> tuple[str, int, int]:
    """Stimulus, position and unit of a place; ids may hold commas themselves."""
    stimulus, position, unit = text.rsplit(", ", 2)
    return stimulus, int(position), int(unit)
