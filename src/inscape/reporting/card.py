"""The small HTML of a result in a notebook: its figure and its first rows, at most 30 KB, no script."""

from __future__ import annotations

from html import escape

from inscape.errors import ResultError
from inscape.plots.svg import inline
from inscape.reporting.parts import result_table
from inscape.results import PLOTS, Result, text_table

LARGEST_CARD = 30_000
_STYLE = (
    "<style>.inscape{font:13px/1.45 system-ui,sans-serif;--muted:#888}.inscape table{border-collapse:collapse;font-variant-numeric:"
    "tabular-nums}.inscape th,.inscape td{padding:2px 10px 2px 0;text-align:left;border-bottom:1px solid #8884;white-space:nowrap}"
    ".inscape .r{text-align:right}.inscape .null{opacity:.55}.inscape .scroll{overflow-x:auto}</style>"
)


def result_card(result: Result) -> str:
    """The figure, if it is small enough, over as many rows as fit."""
    head = f"<div class=inscape>{_STYLE}<p>{escape(text_table(result, limit=0).splitlines()[0])}</p>"
    drawing = _drawing(result)
    for rows in (24, 12, 6, 0):
        table = result_table(result, most=rows) if rows else "<p>Too wide to show: use .frame().</p>"
        for figure in (drawing, ""):
            card = f"{head}{figure}{table}</div>"
            if len(card.encode()) <= LARGEST_CARD:
                return card
    return f"{head}</div>"


def _drawing(result: Result) -> str:
    if result.kind not in PLOTS or not len(result):
        return ""
    try:
        return inline(lambda theme: result.plot(theme=theme), name=f"card{len(result)}", alt=f"{result.kind} figure")
    except ResultError:  # nothing to draw: the table says why
        return ""
