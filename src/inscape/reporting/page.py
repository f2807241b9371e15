"""`report`: one HTML file that says in words what was found, shows it, and tells how to get it again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from inscape.dictionaries.reading.features import Features
from inscape.errors import ResultError
from inscape.reporting import provenance
from inscape.reporting.glossary import glossary
from inscape.reporting.parts import system_names
from inscape.reporting.section import Finding, Section, render
from inscape.reporting.words import count, listed, span
from inscape.results import Result
from inscape.store import Store

LARGEST_PAGE = 2_000_000
_FIRST = 8


def report(*results: object, to: str | os.PathLike[str] = "report.html", title: str | None = None) -> Path:
    """Writes one offline HTML file: findings in words, figures, tables, measures, settings, versions and hashes.

    Args:
        *results: results, and features of dictionaries, in the order in which they should be told; stores add where the numbers come
            from.
        to: the file to write; folders above it are made.
        title: of the page; made from the systems by default.

    Returns:
        The path of the file.

    Raises:
        ResultError: nothing to report, something that is no result, no features and no store, or more than fits into 2 MB.

    Example:
        >>> ix.report(profile, similarity, store, to="report.html")    # doctest: +SKIP
    """
    stores = [item for item in results if isinstance(item, Store)]
    given = [item for item in results if isinstance(item, (Result, Features))]
    for item in results:
        if not isinstance(item, (Result, Features, Store)):
            raise ResultError(f"a report is made of results, features and stores, got {item!r} of type {type(item).__name__}")
    if not any(len(result) for result in given):
        raise ResultError(f"there is nothing to report: {len(given)} results without a row, {len(stores)} stores; give a result with rows")
    given = [result for result in given if len(result)]
    sections = [render(result, f"r{index}") for index, result in enumerate(given)]
    told = [item.result if isinstance(item, Features) else item for item in given]
    page = _page(title or _title(told), told, stores, sections)
    if len(page.encode()) > LARGEST_PAGE:
        raise ResultError(
            f"the report would have {len(page.encode()):,} bytes, more than {LARGEST_PAGE:,}; "
            f"give fewer of the {len(told)} results, or some of their measures (result.where(measure=…))"
        )
    path = Path(to)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _page(title: str, results: Sequence[Result], stores: Sequence[Store], sections: Sequence[Section]) -> str:
    css = files("inscape.reporting").joinpath("report.css").read_text(encoding="utf-8")
    cautions = [(s.title, text) for s in sections for text in s.cautions]
    words = glossary([measure for s in sections for measure in s.measures])
    links = [
        ("findings", "Findings"),
        *((f"r{i}", s.title) for i, s in enumerate(sections)),
        *([("measures", "Measures")] if words else []),
        ("origin", "Origin"),
    ]
    nav = "".join(f'<a href="#{anchor}">{escape(text)}</a>' for anchor, text in links)
    body = "".join(f"<section id=r{i}><h2>{escape(s.title)}</h2>{s.body}</section>" for i, s in enumerate(sections))
    named = [(s.title, result) for s, result in zip(sections, results, strict=True)]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{css}</style>
</head>
<body>
<header><p class=mark>inscape report</p>
<h1>{escape(title)}</h1>
<p class=abstract>{_abstract(results, stores)}</p></header>
<nav aria-label="Sections">{nav}</nav>
<main>
<section id=findings><h2>Findings</h2>
<div class=said><div>{_findings(sections)}</div>{_cautions(cautions)}</div></section>
{body}
{f"<section id=measures><h2>Measures</h2>{words}</section>" if words else ""}
<section id=origin><h2>Origin</h2>
<h3>To get these numbers again</h3>{provenance.commands(results)}
{f"<h3>Stores</h3>{provenance.store_table(stores)}" if stores else ""}
<h3>Settings</h3>{provenance.settings_of(named) or "<p>No settings were recorded.</p>"}
<h3>Versions</h3>{provenance.version_line()}
</section>
</main>
</body>
</html>
"""


def _title(results: Sequence[Result]) -> str:
    systems = list(dict.fromkeys(name for result in results for name in system_names(result)))
    return f"What {_names(systems)} represent{'s' if len(systems) == 1 else ''}" if systems else "What the data represent"


def _names(systems: Sequence[str]) -> str:
    if len(systems) > 3:
        return f"{', '.join(systems[:2])} and {len(systems) - 2} more systems"
    return " and ".join([", ".join(systems[:-1]), systems[-1]]) if len(systems) > 1 else systems[0]


def _abstract(results: Sequence[Result], stores: Sequence[Store]) -> str:
    rows = [row for result in results for row in result.rows()]
    systems = list(dict.fromkeys(name for result in results for name in system_names(result)))
    sites = {(row["system"], row["site"]) for row in rows} | {(row["system_b"], row["site_b"]) for row in rows if row["site_b"]}
    good = sum(row["status"] == "ok" for row in rows)
    whole = [row["n"] for row in rows if row["at"] is None or row["axis"] == "step"]
    who = f"{count(len(systems), 'system')} ({listed(systems)})" if systems else "The data"
    text = f"{who}, read at {count(len(sites), 'site')} on n = {span(whole)} rows. "
    text += f"{count(len({row['measure'] for row in rows}), 'measure')} gave {count(good, 'number')}"
    text += f"; {len(rows) - good:,} more could not be computed, and the page says why" if good < len(rows) else ""
    text += (
        f". {'The store that was' if len(stores) == 1 else f'The {len(stores)} stores that were'} read, with hashes, close the page"
        * bool(stores)
    )
    return (
        f"{text}. What was found comes first, in words, each with its interval, n and null; then the figures, and what every measure means."
    )


def _findings(sections: Sequence[Section]) -> str:
    """The strongest of each section in the order of the sections, the rest behind one line."""
    each = max(2, _FIRST // max(1, len(sections)))
    ranked = [sorted(s.findings, key=lambda finding: -finding.weight) for s in sections]
    first = [_item(finding) for group in ranked for finding in group[:each]]
    rest = [_item(finding) for group in ranked for finding in group[each:]]
    if not first:
        return "<p>No number here stands out from its null or from its neighbors.</p>"
    numbered = f'<ol class=found style="counter-reset:finding {len(first)}">{"".join(rest)}</ol>'
    more = f"<details><summary>{count(len(rest), 'more finding')}</summary>{numbered}</details>" if rest else ""
    return f"<ol class=found>{''.join(first)}</ol>{more}"


def _item(finding: Finding) -> str:
    return f"<li>{finding.text}<small>{finding.detail}</small></li>"


def _cautions(cautions: Sequence[tuple[str, str]]) -> str:
    if not cautions:
        return ""
    several = len({title for title, _ in cautions}) > 1
    items = "".join(f"<li>{text}{f'<small>{escape(title)}</small>' if several else ''}</li>" for title, text in dict.fromkeys(cautions))
    return f"<aside><h3>What the numbers do not show</h3><ul class=cautions>{items}</ul></aside>"
