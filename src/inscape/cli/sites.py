"""`inscape sites`: what can be read in a model."""

from __future__ import annotations

import re
from typing import Annotated, Any

from cyclopts import Parameter

from inscape.cli.output import Json, UsageError, command_line, say


def sites(
    model: str,
    /,
    *patterns: str,
    every: Annotated[bool, Parameter(name="--all", negative=())] = False,
    revision: str | None = None,
    json: Json = False,
) -> int:
    """List what can be read in a model: canonical names first, blocks that repeat on one line.

    Args:
        model: Hugging Face id or folder.
        patterns: show only names that match one of these globs.
        every: one line for each site, modules included.
        revision: branch, tag or commit.
        json: print JSON.
    """
    from inscape.models import load

    table = load(model, revision=revision).sites()
    rows = [row for row in table if not patterns or any(_matches(row.name, pattern) for pattern in patterns)]
    if not rows:
        from inscape.errors import nearest

        raise UsageError(f"no site of {model} matches {' or '.join(patterns)}; nearest: {nearest(patterns[0], [r.name for r in table])}")
    following = command_line("capture", model, "texts.txt", sites=_suggestion([row.name for row in rows if row.available]), to="runs/store")
    text = "\n".join([table.title, *_lines(rows, every or bool(patterns)), table.note])
    say(text, {"model": model, "sites": [_plain(row) for row in rows]}, following=following, as_json=json)
    return 0


def _lines(rows: list[Any], every: bool) -> list[str]:
    """Name, how many, shape and note; rows that differ only in their numbers share a line."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        if every or row.canonical or not any(other.canonical for other in rows):
            groups.setdefault(row.name if every else re.sub(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.|$)", "*", row.name), []).append(row)
    cells: list[tuple[str, str, str, str]] = []
    for name, members in groups.items():
        shapes = list(dict.fromkeys("×".join(map(str, row.shape)) if row.shape else "–" for row in members))
        count = f"× {len(members)}" if len(members) > 1 else ""
        note = members[0].note if all(row.available for row in members) else f"not available: {members[0].note}"
        cells.append((name if len(members) > 1 else members[0].name, count, shapes[0] if len(shapes) == 1 else "varies", note))
    widths = [max(len(cell[i]) for cell in cells) for i in range(3)]
    lines: list[str] = []
    for cell in cells:
        padded = [text.ljust(width) for text, width in zip(cell, widths, strict=False)]
        lines.append("  ".join(["", *(part for part, width in zip(padded, widths, strict=True) if width), cell[3]]).rstrip())
    hidden = len(rows) - sum(map(len, groups.values()))
    return [*lines, *([f"  and {hidden} modules by their path: --all"] if hidden else [])]


def _suggestion(names: list[str]) -> str:
    """The residual stream where there is one, else the last site that is listed."""
    return "blocks.*.resid_post" if any(re.fullmatch(r"blocks\.\d+\.resid_post", name) for name in names) else names[-1] if names else "*"


def _matches(name: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    return fnmatchcase(name, pattern) or name == pattern


def _plain(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("name", "path", "shape", "kind", "alias", "note", "available", "canonical")}
