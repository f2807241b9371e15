"""Pieces of HTML that every section uses: tables and figures. Text is escaped here, so callers pass plain text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from matplotlib.figure import Figure

from inscape.plots.reading import facts_of, inside_null
from inscape.plots.svg import inline
from inscape.results import Result, format_number, format_value

TABLE_ROWS = 400
_SHOWN = ("system", "site", "system_b", "site_b", "measure", "label", "subject", "seed", "axis", "at")
_NUMBERS = ("null_mean", "p", "p_corrected", "calibrated", "n", "d", "d_b")


def figure(draw: Callable[[str], Figure], *, name: str, alt: str, caption: str = "") -> str:
    """A drawing with a caption (HTML)."""
    return f"<figure>{inline(draw, name=name, alt=alt)}{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>"


def prose(text: str) -> str:
    """Plain text as HTML; names between backticks become code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def measure_caption(label: str) -> str:
    """What a measure is, in one sentence with its source; nothing for one that is not installed."""
    facts = facts_of(label)
    return f"{prose(facts.what)} <span class=src>{escape(facts.source)}</span>" if facts.known else ""


def result_table(result: Result, *, most: int = TABLE_ROWS, columns: Sequence[str] = ()) -> str:
    """The rows as a table that scrolls by itself; columns that say nothing are left out, rows past `most` are counted."""
    rows = result.rows()
    shown = [c for c in (columns or _SHOWN) if any(row[c] is not None for row in rows)]
    numbers = [c for c in _NUMBERS if any(row[c] is not None for row in rows)]
    head = "".join(f"<th>{escape(c.replace('_', ' '))}</th>" for c in shown)
    head += "<th class=r>value [interval]</th>" + "".join(f"<th class=r>{escape(c.replace('_', ' '))}</th>" for c in numbers)
    body: list[str] = []
    for row in rows[:most]:
        cells = "".join(f"<td>{_cell(row[c])}</td>" for c in shown)
        if row["status"] != "ok":
            cells += (
                f'<td class=bad colspan="{1 + len(numbers)}">{escape(row["status"])}: {escape(row["reason"] or "no reason given")}</td>'
            )
        else:
            null = " class=r" if not inside_null(row) else ' class="r null" title="inside the null"'
            cells += f"<td{null}>{escape(format_value(row))}</td>" + "".join(f"<td class=r>{_cell(row[c])}</td>" for c in numbers)
        body.append(f"<tr>{cells}</tr>")
    rest = len(rows) - most
    note = f"<p class=note>{rest:,} more rows are in the result, not on this page.</p>" if rest > 0 else ""
    return _scrolling("", head, "".join(body)) + note


def folded(summary: str, content: str) -> str:
    """Content behind a line that opens it; needs no script."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def plain_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, css: str = "") -> str:
    """A table of ready HTML cells."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return _scrolling(css, top, body)


def _scrolling(css: str, head: str, body: str) -> str:
    """A wide table moves inside its own box, never the page; the box takes the keyboard's focus so that arrows move it."""
    table = f'<table class="{css}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class=scroll tabindex=0 role=region aria-label="table, scrolls sideways">{table}</div>'


def system_names(result: Result) -> list[str]:
    """Every system of a result, first and second ones, in order."""
    return list(dict.fromkeys([*result.unique("system"), *result.unique("system_b")]))


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return escape(format_number(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value))
