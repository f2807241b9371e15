"""The measures that a page uses: one sentence, range, direction and source each, from what they declare."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from inscape.plots.reading import facts_of
from inscape.reporting.parts import prose


def glossary(labels: Iterable[str]) -> str:
    """A definition list in order of first use; a measure that is not installed here says so."""
    entries: list[str] = []
    for label in dict.fromkeys(labels):
        facts = facts_of(label)
        if not facts.known:
            what = _sign(label) or "Not among the measures that are installed here."
            entries.append(f"<div><dt><code>{escape(label)}</code></dt><dd>{what}</dd></div>")
            continue
        lines = [prose(facts.what), f"<span class=facts>Range {escape(facts.range_text)} · higher: {escape(facts.higher)}</span>"]
        if facts.null:
            lines.append(f"<span class=facts>Where there is nothing to find: {prose(facts.null)}</span>")
        if facts.bias:
            lines.append(f"<span class=facts>Bias: {prose(facts.bias)}</span>")
        lines.append(f"<span class=src>{escape(facts.source)}</span>")
        entries.append(f"<div><dt><code>{escape(label)}</code></dt><dd>{'<br>'.join(lines)}</dd></div>")
    return f"<dl class=glossary>{''.join(entries)}</dl>" if entries else ""


def _sign(label: str) -> str:
    """What one of the vital signs of `health` is, which are no measures; "" for any other name."""
    from inscape.reporting.health import SIGNS  # brings torch, which a page without signs does not need

    found = next((sign for sign in SIGNS if sign.name == label), None)
    if found is None:
        return ""
    sides = [f"{side}: {text}" for side, text in (("below the reference", found.below), ("above the reference", found.above)) if text]
    lines = [f"{found.what[0].upper()}{found.what[1:]}.", *(f"<span class=facts>{escape(side)}</span>" for side in sides)]
    return "<br>".join([*lines, "<span class=src>a vital sign of <code>inscape health</code></span>"])
