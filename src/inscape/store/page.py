"""How stores and views look in a notebook, and as text."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from inscape.arrays import format_bytes

_SITES = 60
_OPEN_SITES = 14  # more fold away below these
_ROWS = 5
_COLUMNS = 8
_UNITS = 6
_TEXT = 80
_CHIPS = 32
_TITLE = 120

# Colors are those of the notebook, thinned out, so that one sheet serves light and dark themes.
_STYLE = (
    "<style>.inscape-store{font:13px/1.5 system-ui,sans-serif;max-width:64em}"
    ".inscape-store p{margin:.35em 0}.inscape-store .m{opacity:.65}"
    ".inscape-store .badge{border:1px solid #8886;border-radius:1em;padding:0 .6em;font-size:12px}"
    ".inscape-store .bad{border-color:#c77;color:#c55}"
    ".inscape-store .scroll{overflow-x:auto}"
    ".inscape-store table{border-collapse:collapse;border:0;margin:.4em 0;font-size:13px;font-variant-numeric:tabular-nums}"
    ".inscape-store tr,.inscape-store tbody tr:nth-child(odd){background:none}"
    ".inscape-store th{font-weight:500;opacity:.65;border:0;border-bottom:1px solid #8888}"
    ".inscape-store td{border:0;border-bottom:1px solid #8883;vertical-align:baseline}"
    ".inscape-store th,.inscape-store td{padding:2px 18px 2px 0;text-align:left;white-space:nowrap}"
    ".inscape-store td.t{white-space:normal;min-width:12em;max-width:34em}"
    ".inscape-store .r{text-align:right}"
    ".inscape-store code,.inscape-store .c{font-family:ui-monospace,monospace;font-size:12px;background:none;color:inherit}"
    ".inscape-store .tok{display:inline-block;border:1px solid #8885;border-radius:4px;padding:0 4px;margin:1px 2px 1px 0;"
    "font:12px ui-monospace,monospace}"
    ".inscape-store .off{opacity:.55;border-style:dashed}.inscape-store summary{cursor:pointer;opacity:.65}</style>"
)


def short(value: Any, most: int = _TEXT) -> str:
    """A cell's text, cut to a readable length."""
    if isinstance(value, (float, np.floating)):
        text = f"{value:.4g}"
    elif isinstance(value, (list, tuple, np.ndarray)):
        text = f"[{', '.join(short(item) for item in value[:6])}{', …' if len(value) > 6 else ''}]"
    else:
        text = "" if value is None else str(value)
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def html_table(header: list[str], rows: list[list[Any]], *, code: bool = False) -> str:
    """A plain HTML table; numbers stand right, all text is escaped.

    Args:
        header: one name per column.
        rows: one value per column each.
        code: the first column holds names as they are typed.
    """
    right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    head = "".join(f"<th{' class=r' if right[i] else ''}>{escape(short(name))}</th>" for i, name in enumerate(header))
    lines: list[str] = []
    for row in rows:
        cells = [short(cell) for cell in row]
        marks = ["r" if right[i] else "c" if code and i == 0 else "t" if len(cell) > 40 else "" for i, cell in enumerate(cells)]
        lines.append("".join(f"<td{f' class={mark}' if mark else ''}>{escape(cell)}</td>" for mark, cell in zip(marks, cells, strict=True)))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


class _Figure(str):
    """A number that has its digits already, so that a column of them lines up."""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, _Figure)) and not isinstance(value, bool)


def _figures(values: list[list[float]]) -> list[list[_Figure]]:
    """Values with equally many decimals, unless that would hide small ones."""
    plain = all(value == 0 or 1e-3 <= abs(value) < 1e4 for row in values for value in row)
    return [[_Figure(f"{value:.4f}" if plain else f"{value:.3g}") for value in row] for row in values]


def _card(*parts: str) -> str:
    return f"<div class=inscape-store>{_STYLE}{''.join(parts)}</div>"


def _count(number: int, word: str) -> str:
    plural = "stimuli" if word == "stimulus" else f"{word}s"
    return f"{number:,} {word if number == 1 else plural}"


def _which(shown: int, n: int, word: str) -> str:
    if shown < n:
        return f"first {shown} of {_count(n, word)}"
    return "no rows" if n == 0 else f"the {word}" if n == 1 else f"all {_count(n, word)}"


def store_page(store: Any) -> str:
    """A store: its label and state, its sites, and its first stimuli."""
    state = "" if store.complete else " <span class='badge bad'>incomplete</span>"
    where = f"<code>{escape(short(store.path, _TITLE))}</code>" if store.path else "in memory"
    facts = " · ".join([_count(store.stimuli.num_rows, "stimulus"), _count(len(store.sites), "site"), format_bytes(store.nbytes)])
    head = f"<p><b>{escape(short(store.system))}</b>{state} <span class=m>{facts} · {where}</span></p>"
    rows = [
        [view.site, view.n, view.d, str(view.dtype).removeprefix("torch."), view.kind, _Figure(format_bytes(view.nbytes))]
        for view in (store.view(name) for name in store.sites[:_SITES])
    ]
    header = ["site", "rows", "units", "dtype", "one row is a", "size"]
    sites = html_table(header, rows[:_OPEN_SITES], code=True)
    if len(rows) > _OPEN_SITES:
        beyond = len(store.sites) - _SITES
        more = f"<p class=m>… and {beyond} more sites</p>" if beyond > 0 else ""
        folded = html_table(header, rows[_OPEN_SITES:], code=True)
        sites += f"<details><summary>{len(store.sites) - _OPEN_SITES} more sites</summary>{folded}{more}</details>"
    cut = f"<p class=m>{escape(store.manifest.cut)}</p>" if store.manifest.cut else ""
    return _card(head, sites, cut + stimuli_preview(store.stimuli))


def stimuli_preview(table: Any) -> str:
    """The first rows and columns of a stimuli table."""
    names = table.column_names[:_COLUMNS]
    head = table.select(names).slice(0, _ROWS).to_pylist()
    if len(names) == 1:
        listed = ", ".join(escape(short(row[names[0]], 24)) for row in head)
        return f"<p class=m>stimuli without columns: {listed}{' …' if table.num_rows > len(head) else ''}</p>"
    rows = [[row[name] for name in names] for row in head]
    hidden = table.column_names[_COLUMNS:]
    more = (
        f", columns {', '.join(escape(short(name, 20)) for name in hidden[:6])}{' …' if len(hidden) > 6 else ''} not shown"
        if hidden
        else ""
    )
    which = _which(len(rows), table.num_rows, "stimulus")
    return f"<p class=m>{which}{more}</p>" + html_table(names, rows)


def view_page(view: Any) -> str:
    """A view: what its rows are, the tokens of the first stimulus where rows are tokens, and the first values."""
    kind = "stimulus" if view.kind == "stimulus" else view.kind
    facts = f"{_count(view.n, 'row')} × {_count(view.d, 'unit')} · one row is a {escape(kind)} · {str(view.dtype).removeprefix('torch.')}"
    head = f"<p><code><b>{escape(short(view.site, _TITLE))}</b></code> <span class=m>of {escape(short(view.system))} · {facts}</span></p>"
    if not view.readable:
        return _card(head, "<p><span class='badge bad'>incomplete</span> <span class=m>run the capture again: it goes on</span></p>")
    first = view.select(rows=slice(0, _ROWS))
    values = first.read()[:, :_UNITS].double().tolist() if view.n else []
    header, columns = ["stimulus"], [list(first.ids)]
    if view.kind != "stimulus":
        header.append("position")
        columns.append([int(position) for position in first.position])
    if _has_tokens(view):
        header.append("token")
        columns.append([_visible(token) for token in first.tokens])
    header += [f"unit {i}" for i in range(min(view.d, _UNITS))] + (["…"] if view.d > _UNITS else [])
    tail = [""] if view.d > _UNITS else []
    rows = [[*(column[i] for column in columns), *row, *tail] for i, row in enumerate(_figures(values))]
    return _card(head, _chips(view), f"<p class=m>{_which(len(rows), view.n, 'row')}</p>", html_table(header, rows))


def _has_tokens(view: Any) -> bool:
    return any(name in view.index.columns for name in ("token", "token_id"))


def _visible(token: Any) -> str:
    """A token as people read it: a space before a word as "·", line breaks spelled."""
    return str(token).replace("Ġ", "·").replace("▁", "·").replace("Ċ", "⏎").replace("\n", "⏎").replace(" ", "·")


def _chips(view: Any) -> str:
    """The tokens of the first stimulus, special ones faint."""
    if not view.n or not _has_tokens(view):
        return ""
    mine = np.flatnonzero((view.stimulus[: 8 * _CHIPS] == view.stimulus[0]) & (view.repeat[: 8 * _CHIPS] == view.repeat[0]))
    shown = view.select(rows=mine[:_CHIPS])
    special = shown.column("special") if "special" in shown.index.columns else np.zeros(shown.n, bool)
    chips = "".join(
        f"<span class='tok{' off' if faint else ''}'>{escape(short(_visible(token), 24))}</span>"
        for token, faint in zip(shown.tokens, special, strict=True)
    )
    more = " …" if len(mine) > _CHIPS else ""
    return f"<p><span class=m>stimulus {escape(short(shown.ids[0], 24))}:</span> {chips}{more}</p>"


def store_text(store: Any) -> str:
    """A store as a few lines of text."""
    state = "" if store.complete else ", incomplete"
    lines = [f"Store({store.system}: {store.stimuli.num_rows} stimuli, {len(store.sites)} sites, {store.path or 'in memory'}{state})"]
    for name in store.sites[:_SITES]:
        view = store.view(name)
        lines.append(f"  {name}  [{view.n} × {view.d}] {str(view.dtype).removeprefix('torch.')}, {view.kind} rows")
    if len(store.sites) > _SITES:
        lines.append(f"  … and {len(store.sites) - _SITES} more sites")
    if store.manifest.cut:
        lines.append(f"  {store.manifest.cut}")
    return "\n".join(lines)
