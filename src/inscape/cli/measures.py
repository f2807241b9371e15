"""`inscape measures`: the list, or all that one of them declares."""

from __future__ import annotations

import textwrap
from typing import Any

from inscape.cli.output import Json, command_line, say

_WIDTH = 100


def measures(name: str | None = None, /, *, json: Json = False) -> int:
    """List the measures, or explain one.

    Args:
        name: of a measure, to see its range, invariances, options, bias and source.
        json: print JSON.
    """
    from inscape import measures as room

    rows = room.table()
    if name is None:
        say(_listing(rows), {"measures": rows}, following=command_line("measures", rows[0]["name"]), as_json=json)
        return 0
    found = room.get(name)
    row = next(row for row in rows if row["name"] == found.name)
    following = command_line("compare", "STORE_A", "STORE_B", name) if found.arity == 2 else command_line("measure", "STORE", name)
    say(_explained(row), row, following=following, as_json=json)
    return 0


def _listing(rows: list[dict[str, Any]]) -> str:
    """Grouped by what they take, one line each."""
    groups = {
        "Of one system": [row for row in rows if row["arity"] == "one system" and not row["labels"]],
        "Of one system with labels": [row for row in rows if row["arity"] == "one system" and row["labels"]],
        "Of a pair": [row for row in rows if row["arity"] == "a pair"],
    }
    width = max(len(row["name"]) for row in rows)
    lines: list[str] = []
    for title, members in groups.items():
        if members:
            lines += [title, *(f"  {row['name']:<{width}}  {textwrap.shorten(row['what'], _WIDTH - width - 4)}" for row in members), ""]
    return "\n".join(lines).rstrip()


def _explained(row: dict[str, Any]) -> str:
    options = ", ".join(f"{name}={value!r}" for name, value in row["options"].items())
    facts = {
        "of": row["arity"] + (" with labels" if row["labels"] else ""),
        "range": row["range"],
        "higher": row["higher"],
        "unchanged by": ", ".join(row["invariant"]),
        "changed by": ", ".join(row["sensitive"]),
        "null": row["null"],
        "bias": row["bias"],
        "cost": row["cost"],
        "options": options,
        "source": row["source"],
        "status": row["status"],
    }
    lines = [row["name"], *textwrap.wrap(row["what"], _WIDTH, initial_indent="  ", subsequent_indent="  ")]
    for name, text in facts.items():
        if text:
            lines += textwrap.wrap(text, _WIDTH, initial_indent=f"  {name:<13} ", subsequent_indent=" " * 16)
    return "\n".join(lines)
