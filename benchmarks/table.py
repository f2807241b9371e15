"""Turns benchmarks/results/*.json into the table of README.md: `python -m benchmarks.table` rewrites it in place.

Only what the JSON holds can appear there, so a figure whose peer did not run is absent; a test compares README with the JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmarks: begin (python -m benchmarks.table) -->", "<!-- benchmarks: end -->"


def records(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The results at full size, in the order of their file names."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [record for record in found if not record["tiny"]]


def number(value: float) -> str:
    """Three significant digits; small numbers keep their exponent."""
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


def row(figure: dict[str, Any]) -> str:
    """One line of the table."""
    unit = f" {figure['unit']}" if figure["unit"] else ""
    spread = f"{number(figure['quartiles'][0])} – {number(figure['quartiles'][1])}" if figure["quartiles"] else ""
    goal = "" if figure["limit"] is None else f"{'≤' if figure['better'] == 'lower' else '≥'} {number(figure['limit'])}"
    goal += "" if figure["holds"] is not False else " (missed)"
    return f"| {figure['text']} | {number(figure['value'])}{unit} | {spread} | {goal} |"


def machines(found: list[dict[str, Any]]) -> str:
    """Where the figures come from, in a sentence."""
    seen = sorted({(r["machine"]["processor"], r["machine"]["cores"], r["threads"]["torch"], r["versions"]["torch"]) for r in found})
    where = "; ".join(
        f"{name}, {cores} cores, {threads} thread{'s' * (threads != 1)}, torch {version}" for name, cores, threads, version in seen
    )
    peers = sorted({f"{peer} {r['peers'][peer]['versions'].get(peer, '')}".strip() for r in found for peer in r["peers"]})
    text = f"Medians over interleaved rounds, with quartiles, on {where}"
    return text + (f"; beside {', '.join(peers)}." if peers else ".")


def table(found: list[dict[str, Any]]) -> str:
    """The whole section, or nothing where nothing was measured."""
    figures = [figure for record in found for figure in record["figures"].values()]
    if not figures:
        return ""
    first = [figure for figure in figures if figure["peer"]]
    rest = [figure for figure in figures if not figure["peer"]]
    head = "| what | measured | quartiles | goal |\n| --- | --- | --- | --- |"
    return "\n".join([head, *(row(figure) for figure in first + rest), "", machines(found)])


def section(text: str) -> str:
    """What stands between the two marks of README."""
    return text.split(BEGIN, 1)[1].split(END, 1)[0].strip()


def main() -> int:
    """Rewrites README.md."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, rest = text.split(BEGIN, 1)
    found = table(records())
    body = f"\n## Speed, measured\n\n{found}\n\n" if found else "\n"
    readme.write_text(before + BEGIN + body + END + rest.split(END, 1)[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
