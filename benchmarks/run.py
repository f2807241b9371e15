"""Runs cases: `python -m benchmarks.run capture_overhead --rounds 9 --out benchmarks/results/capture_overhead.json`.

Each round runs every subject once, in shuffled order; the first round is discarded; a figure is computed inside each round, and its
median and quartiles over the rounds are reported. Peers run in their own environments (`make peers`), beside our subjects.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import pkgutil
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import benchmarks.cases
from benchmarks.case import CASES, Setup, Subject, Time
from benchmarks.machine import ROOT, environment

RESULTS = ROOT / "benchmarks" / "results"


def load_cases() -> None:
    """Imports every file of benchmarks/cases, which registers its cases."""
    for info in pkgutil.iter_modules(benchmarks.cases.__path__):
        importlib.import_module(f"benchmarks.cases.{info.name}")


def clock(subject: Subject) -> Time:
    """One timed run."""
    subject.reset()
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    subject.run()
    return Time(time.process_time() - cpu, time.perf_counter() - wall)


def rounds(setup: Setup, count: int, seed: int) -> list[dict[str, Time]]:
    """`count` kept rounds after a discarded one."""
    order = random.Random(seed)
    kept: list[dict[str, Time]] = []
    for index in range(count + 1):
        names = list(setup.subjects)
        order.shuffle(names)
        times = {name: clock(setup.subjects[name]) for name in names}
        if index:
            kept.append(times)
        print(f"  round {index}/{count}: " + ", ".join(f"{name} {t.cpu:.3g}" for name, t in sorted(times.items())) + " CPU s", flush=True)
    return kept


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def measured(setup: Setup, kept: list[dict[str, Time]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The times of each subject and the figures, ready for JSON."""
    subjects: dict[str, Any] = {}
    for name in setup.subjects if kept else ():
        cpu, wall = [t[name].cpu for t in kept], [t[name].wall for t in kept]
        subjects[name] = {"cpu_s": statistics.median(cpu), "wall_s": statistics.median(wall), "cpu_rounds": cpu, "wall_rounds": wall}
    figures: dict[str, Any] = {}
    for name, figure in setup.figures.items():
        low, middle, high = quartiles([figure.of(t) for t in kept])
        holds = None if figure.limit is None else (middle <= figure.limit if figure.better == "lower" else middle >= figure.limit)
        figures[name] = {
            "text": figure.text,
            "value": middle,
            "quartiles": [low, high],
            "unit": figure.unit,
            "limit": figure.limit,
            "better": figure.better,
            "holds": holds,
            "peer": figure.peer,
        }
    for name, (text, value, limit, unit) in setup.single.items():
        figures[name] = {
            "text": text,
            "value": float(value),
            "quartiles": None,
            "unit": unit,
            "limit": limit,
            "better": "lower",
            "holds": bool(value <= limit),
            "peer": None,
        }
    return subjects, figures


def with_peer(name: str, peer: str, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Runs the case with one peer in the peer's environment; None, with a line that says so, where it cannot run."""
    python = ROOT / ".venvs" / peer / "bin" / "python"
    if not python.exists():
        print(f"  peer {peer}: no environment (make peers); its figures are left out", flush=True)
        return None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "peer.json"
        words = [
            str(python),
            "-m",
            "benchmarks.run",
            name,
            "--peer",
            peer,
            "--rounds",
            str(arguments.rounds),
            "--seed",
            str(arguments.seed),
        ]
        done = subprocess.run([*words, "--out", str(out), *(["--tiny"] if arguments.tiny else [])], cwd=ROOT, check=False)
        if done.returncode in (0, 1) and out.exists():
            return json.loads(out.read_text())
    print(f"  peer {peer}: failed; its figures are left out", flush=True)
    return None


def run_case(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One case from set-up to the record that is written."""
    made, peers = CASES[name]
    print(f"{name}{' (tiny)' if arguments.tiny else ''}", flush=True)
    record: dict[str, Any] = {"case": name, "title": (made.__doc__ or name).strip().splitlines()[0], "tiny": arguments.tiny}
    record |= {"rounds": arguments.rounds, "seed": arguments.seed, **environment((arguments.peer,) if arguments.peer else ())}
    with made(arguments.tiny) as setup:
        if arguments.peer:
            setup.figures = {}
            setup.single = {}
            peers[arguments.peer](setup)
        elif setup.own is not None:
            setup.own(setup)
        kept = rounds(setup, arguments.rounds, arguments.seed) if setup.figures else []
        record["subjects"], record["figures"] = measured(setup, kept)
        for figure in record["figures"].values() if arguments.tiny else ():
            figure["holds"] = None  # at the size of a smoke test a limit says nothing
        record["notes"] = setup.notes
    if not arguments.peer:
        record["peers"] = {}
        for peer in peers:
            if other := with_peer(name, peer, arguments):
                record["figures"] |= other["figures"]
                record["peers"][peer] = {"versions": other["versions"], "subjects": other["subjects"], "notes": other["notes"]}
    return record


def show(record: dict[str, Any]) -> None:
    """The figures as lines."""
    verdict = {True: "holds", False: "DOES NOT HOLD", None: "not judged"}
    for name, figure in record["figures"].items():
        spread = f" [{figure['quartiles'][0]:.3g}, {figure['quartiles'][1]:.3g}]" if figure["quartiles"] else ""
        goal = (
            ""
            if figure["limit"] is None
            else f"  ({'≤' if figure['better'] == 'lower' else '≥'} {figure['limit']:g}: {verdict[figure['holds']]})"
        )
        print(f"  {name}: {figure['value']:.3g} {figure['unit']}{spread}{goal}  {figure['text']}", flush=True)


def main() -> int:
    """Command line; leaves with 1 when a limit does not hold at full size."""
    load_cases()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="one of: " + ", ".join(sorted(CASES)))
    parser.add_argument("--all", action="store_true", help="every case, each into benchmarks/results/CASE.json")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="sizes of a smoke test; limits are not judged")
    parser.add_argument("--peer", help="run with this peer's subjects (called in the peer's environment)")
    parser.add_argument("--out", type=Path, help="where the JSON goes; without it only lines are printed")
    arguments = parser.parse_args()
    names = sorted(CASES) if arguments.all else arguments.cases
    if not names or set(names) - set(CASES):
        parser.error(f"name a case: {', '.join(sorted(CASES))}")
    failed = False
    for name in names:
        record = run_case(name, arguments)
        show(record)
        failed |= any(figure["holds"] is False for figure in record["figures"].values())
        if why := record["notes"].get("left out"):
            print(f"  left out: {why}", flush=True)
            continue  # a record without figures would stand for one that was measured elsewhere
        out = arguments.out or (RESULTS / f"{name}.json" if arguments.all and not arguments.tiny else None)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
