"""Turns benchmarks/results/*.json into the page of all figures and README's table of a few: `python -m benchmarks.table` rewrites both.

Only what the JSON holds can appear there, so a figure whose peer did not run is absent; a test compares both with the JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- benchmarks: begin (python -m benchmarks.table) -->", "<!-- benchmarks: end -->"

# What README shows: (case, figure), the most telling first. Goals that were missed stand there too.
HEADLINES = (
    ("capture_overhead", "vs_transformer_lens"),
    ("capture_overhead", "vs_nnsight"),
    ("zipf_throughput", "throughput"),
    ("layer_maps", "one_call"),
    ("layer_map_loops", "shapes"),
    ("layer_map_loops", "similarities"),
    ("layer_map_loops", "ridge"),
    ("neighbor_graph", "graph"),
    ("permutation_null", "closed"),
    ("rsa_inference", "times_rsatoolbox"),
    ("collapse_classes", "memory"),
    ("million_rows", "memory"),
)


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


def lines(figures: list[dict[str, Any]]) -> str:
    """A table of figures."""
    return "\n".join(["| what | measured | quartiles | goal |", "| --- | --- | --- | --- |", *(row(figure) for figure in figures)])


def table(found: list[dict[str, Any]]) -> str:
    """The figures of `HEADLINES` that were measured, or nothing where none was."""
    by_name = {(record["case"], name): figure for record in found for name, figure in record["figures"].items()}
    figures = [by_name[name] for name in HEADLINES if name in by_name]
    return f"{lines(figures)}\n\n{machines(found)}" if figures else ""


def page(found: list[dict[str, Any]]) -> str:
    """The documentation's page of all figures, case by case."""
    missed = sum(figure["holds"] is False for record in found for figure in record["figures"].values())
    parts = [
        "# Speed, measured",
        "Written from `benchmarks/results/` by `python -m benchmarks.table`; `make bench` measures again. Goals that "
        f"were missed say so; {missed} are. Peers run in environments of their own, with inscape beside them in one process.",
        machines(found),
    ]
    for record in found:
        title = " ".join(record["title"].split()).rstrip(".")
        parts.append(f"## {record['case']}\n\n{title}.\n\n{lines(list(record['figures'].values()))}")
    return "\n\n".join(parts) + "\n"


def section(text: str) -> str:
    """What stands between the two marks of README."""
    return text.split(BEGIN, 1)[1].split(END, 1)[0].strip()


def main() -> int:
    """Rewrites README.md and the page."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, rest = text.split(BEGIN, 1)
    PAGE.write_text(page(records()))
    found = table(records())
    body = f"\n## Speed, measured\n\n{found} [All figures](docs/speed.md).\n\n" if found else "\n"
    readme.write_text(before + BEGIN + body + END + rest.split(END, 1)[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
