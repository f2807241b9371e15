"""The log of a monitor for a terminal: a line per series with its course, and the alarms below."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from inscape.results import format_number

_BARS = "▁▂▃▄▅▆▇█"
_ARROWS = {"fall": "↓", "rise": "↑", "nonfinite": "✕"}


def log_view(facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, columns: int = 100, alarms: int = 6) -> RenderableType:
    """What `inscape watch` shows.

    Args:
        facts: of the log, from `read_facts`.
        rows: of the log, from `read_rows`.
        columns: width of the terminal.
        alarms: how many of the last alarms are spelled out.
    """
    series: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        series.setdefault((row["site"], row["measure"]), []).append(row)
    # Names stay whole; what they leave is for the course.
    longest = sum(max((len(key[part]) for key in series), default=0) for part in (0, 1))
    width = max(8, min(60, columns - longest - 40))
    step = rows[-1]["step"] if rows else 0
    told = [row for row in rows if row.get("alarm")]
    count = f"{len(told)} alarm{'s' * (len(told) != 1)}"
    title = Text.assemble((str(facts.get("system")), "bold"), f"   step {step:,}   ", (count, "bold red" if told else "green"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("site", "measure", "course", "now", "before", ""):
        table.add_column(name, justify="right" if name in ("now", "before") else "left", no_wrap=True)
    # The loss first: what happens inside is read beside it.
    for (site, measure), own in sorted(series.items(), key=lambda item: (item[0] != ("", "loss"), item[0][1], _natural(item[0][0]))):
        last = next((row for row in reversed(own) if row.get("alarm")), None)
        mark = Text(f"{_ARROWS[last['alarm']]} step {last['step']:,}", "bold red") if last is not None else Text("")
        now, before = own[-1]["value"], own[-1].get("baseline")
        table.add_row(
            Text(site or "training"), Text(measure), _course([row["value"] for row in own], [bool(row.get("alarm")) for row in own], width),
            format_number(now), format_number(before), mark,
        )  # fmt: skip
    below = [Text(row["text"], "red") for row in told[-alarms:]]
    if len(told) > alarms:
        below.insert(0, Text(f"… {len(told) - alarms} earlier alarms", "dim"))
    return Group(title, Text(""), table, Text(""), *below)


def _course(values: Sequence[float | None], alarms: Sequence[bool], width: int) -> Text:
    """The values as bars, each the mean of as many as needed; where an alarm came the bar is red."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return Text("")
    low, high = min(finite), max(finite)
    text = Text()
    cells = min(width, len(values))
    for cell in range(cells):
        part = slice(cell * len(values) // cells, (cell + 1) * len(values) // cells)
        inside = [value for value in values[part] if value is not None and math.isfinite(value)]
        share = (sum(inside) / len(inside) - low) / (high - low) if inside and high > low else 0.0
        bar = _BARS[min(7, int(share * 8))] if inside else "✕"
        text.append(bar, "bold red" if any(alarms[part]) else "cyan")
    return text


def _natural(name: str) -> list[tuple[int, str]]:
    """blocks.2 before blocks.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
