"""How stores and views look in a notebook."""

from __future__ import annotations

from html import escape
from typing import Any

from inscape.arrays import format_bytes

_SITES = 60
_ROWS = 5
_COLUMNS = 8
_TEXT = 80


def short(value: Any) -> str:
    """A cell's text, cut to a readable length."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


def html_table(header: list[str], rows: list[list[Any]]) -> str:
    """A plain HTML table; all text is escaped."""
    head = "".join(f"<th style='text-align:left'>{escape(short(name))}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td style='text-align:left'>{escape(short(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def store_page(store: Any) -> str:
    """A store: its label, its sites and its first stimuli."""
    state = "" if store.complete else " · <b>incomplete</b>"
    where = escape(short(store.path)) if store.path else "in memory"
    rows = [
        [view.site, view.n, view.d, str(view.dtype).removeprefix("torch."), view.kind]
        for view in (store.view(name) for name in store.sites[:_SITES])
    ]
    more = f"<p>… and {len(store.sites) - _SITES} more sites</p>" if len(store.sites) > _SITES else ""
    return (
        f"<p><b>{escape(short(store.system))}</b> · {store.stimuli.num_rows} stimuli · {len(store.sites)} sites · "
        f"{format_bytes(store.nbytes)} · {where}{state}</p>"
        + html_table(["site", "rows", "units", "dtype", "row"], rows)
        + more
        + stimuli_preview(store.stimuli)
    )


def stimuli_preview(table: Any) -> str:
    """The first rows and columns of a stimuli table."""
    names = table.column_names[:_COLUMNS]
    head = table.select(names).slice(0, _ROWS).to_pylist()
    rows = [[row[name] for name in names] for row in head]
    return f"<p>first {len(rows)} of {table.num_rows} stimuli</p>" + html_table(names, rows)


def view_page(view: Any) -> str:
    """A view: what its rows are, and the first of them."""
    first = view.read(0, _ROWS)[:, :_COLUMNS].double().tolist() if view.readable else []
    ids = view.select(rows=slice(0, _ROWS)).ids if first else []
    header = ["stimulus", *(f"unit {i}" for i in range(min(view.d, _COLUMNS)))]
    rows = [[name, *values] for name, values in zip(ids, first, strict=True)]
    return f"<p>{escape(short(repr(view)))}</p>" + html_table(header, rows)


def store_text(store: Any) -> str:
    """A store as a few lines of text."""
    state = "" if store.complete else ", incomplete"
    lines = [f"Store({store.system}: {store.stimuli.num_rows} stimuli, {len(store.sites)} sites, {store.path or 'in memory'}{state})"]
    for name in store.sites[:_SITES]:
        view = store.view(name)
        lines.append(f"  {name}  [{view.n} × {view.d}] {str(view.dtype).removeprefix('torch.')}, {view.kind} rows")
    if len(store.sites) > _SITES:
        lines.append(f"  … and {len(store.sites) - _SITES} more sites")
    return "\n".join(lines)
