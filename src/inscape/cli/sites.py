"""`inscape sites`: what can be read in a model."""

from __future__ import annotations

import re
import shutil
import sys
from typing import Annotated, Any

from cyclopts import Parameter

from inscape.cli.output import Json, UsageError, command_line, say

# How each part of the drawing looks on a terminal; what is piped is plain.
_STYLES = {"title": "bold", "branch": "bold", "guide": "dim", "shape": "cyan", "where": "dim", "missing": "yellow"}
_WIDEST, _NARROWEST = 120, 60


def sites(
    model: str,
    /,
    *patterns: str,
    every: Annotated[bool, Parameter(name="--all", negative=())] = False,
    modules: Annotated[bool, Parameter(name="--modules", negative=())] = False,
    revision: str | None = None,
    json: Json = False,
) -> int:
    """Draw what can be read in a model as a tree: blocks that are alike share a branch, and what is missing says why.

    Args:
        model: Hugging Face id or folder.
        patterns: list the names that match one of these globs, in full.
        every: draw each block.
        modules: draw the modules by their path, too.
        revision: branch, tag or commit.
        json: print JSON.
    """
    from inscape.models import load
    from inscape.models.site_tree import Node, draw

    loaded = load(model, revision=revision)
    table = loaded.sites()
    rows = [row for row in table if not patterns or any(_matches(row.name, pattern) for pattern in patterns)]
    if not rows:
        from inscape.errors import nearest

        raise UsageError(f"no site of {model} matches {' or '.join(patterns)}; nearest: {nearest(patterns[0], [r.name for r in table])}")
    width = max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)) if sys.stdout.isatty() else _WIDEST
    if patterns:
        leaves = [Node(row.name, "×".join(map(str, row.shape or ())), row.path, row.note, row.available) for row in rows]
        lines = [[(table.title, "title")], *draw(leaves, width=width), [(table.note, "note")]]
    else:
        lines = table._lines(every=every, modules=modules, width=width)
        hidden = sum(not row.canonical for row in rows)
        if hidden and hidden < len(rows) and not modules:
            lines.append([(f"and {hidden} modules by their path: --modules", "note")])
    shown = {"text": "texts.txt", "image": "images.csv", "audio": "sounds.csv"}.get(loaded.modality, "stimuli.parquet")
    names = [row.name for row in rows if row.available]
    following = command_line("capture", model, shown, sites=_suggestion(names), to="runs/store")
    say(_text(lines), {"model": model, "sites": [_plain(row) for row in rows]}, following=following, as_json=json)
    return 0


def _text(lines: list[Any]) -> str:
    """The drawing, with colors on a terminal."""
    from inscape.models.site_tree import plain

    if not sys.stdout.isatty():
        return plain(lines)
    from io import StringIO

    from rich.console import Console
    from rich.text import Text

    screen = Console(file=StringIO(), force_terminal=True, width=10_000, highlight=False)
    with screen.capture() as drawn:
        for line in lines:
            screen.print(Text.assemble(*((text, _STYLES.get(style, "")) for text, style in line)))
    return drawn.get().rstrip("\n")


def _suggestion(names: list[str]) -> str:
    """The residual stream where there is one, else the last site that is listed."""
    for name in names:
        if match := re.fullmatch(r"((?:\w+\.)?blocks)\.\d+\.resid_post", name):
            return f"{match[1]}.*.resid_post"
    return names[-1] if names else "*"


def _matches(name: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    return fnmatchcase(name, pattern) or name == pattern


def _plain(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("name", "path", "shape", "kind", "alias", "note", "available", "canonical")}
