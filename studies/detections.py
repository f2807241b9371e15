"""Whether a monitor sees five collapses before the loss does, and stays silent on their healthy twins.

`python -m studies.detections` trains every run of `inscape.zoo.collapses` and writes `studies/detections.json`; with `--table` it only puts
the table into `docs/monitor.md`. Options of the detector were chosen on seeds 0 to 4; the table reports seeds 5 to 9. One rule, that the
way to the harmful end of a range counts, came after a false alarm among those: silence is also counted on 40 further healthy twins of each.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

import inscape as ix
from inscape.zoo.collapses import collapse_names, collapse_run

HERE = Path(__file__).resolve().parent
RECORD = HERE / "detections.json"
PAGE = HERE.parent / "docs" / "monitor.md"
BEGIN, END = "<!-- detections -->", "<!-- end of detections -->"
CHOSEN, REPORTED, FRESH = range(5), range(5, 10), range(10, 50)
EVERY = 2
_WORDS = {
    "attention": "attention entropy under a growing learning rate",
    "contrastive": "dimensional collapse of contrastive learning",
    "explosion": "loss explosion under a growing learning rate",
    "posterior": "posterior collapse under a ramp of β",
    "simsiam": "SimSiam without the stopped gradient",
}


def watched(name: str, *, healthy: bool, seed: int) -> dict[str, Any]:
    """One run: the steps of the first alarms of what is watched and of the loss, and of the first loss of half the task metric."""
    run, started = collapse_run(name, healthy=healthy, seed=seed), time.process_time()
    options = {"tokens": "all", "weights": run.weights, "pooled": run.pooled}
    mon = ix.Monitor(run.model, run.stimuli, list(run.sites), list(run.measures), EVERY, **options)
    best, half = 0.0, None
    for step in range(1, run.steps + 1):
        mon.step(run.update())
        if step % 20 == 0 and half is None:
            metric = run.metric()
            best, half = max(best, metric), step if metric < best / 2 else None
    inside = next((one for one in mon.alarms if one.site), None)
    return {
        "alarm": None if inside is None else inside.step,
        "text": None if inside is None else inside.text,
        "loss": next((one.step for one in mon.alarms if not one.site), None),
        "half": half,
        "metric": [best, run.metric()],
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def before(run: dict[str, Any]) -> bool:
    """Whether the alarm came before the loss, or, where that never alarms, before the task metric lost half."""
    limit = run["loss"] if run["loss"] is not None else run["half"]
    return run["alarm"] is not None and (limit is None or run["alarm"] < limit)


def record(names: list[str]) -> None:
    """Trains all runs of some collapses and writes them down beside what is there."""
    torch.set_num_threads(1)
    for name in names:
        one = collapse_run(name)
        facts = {"sites": list(one.sites), "measures": list(one.measures), "steps": one.steps, "every": EVERY, "metric": one.metric_name}
        runs: dict[str, dict[str, Any]] = {"collapse": {}, "healthy": {}}
        for kind, healthy in (("collapse", False), ("healthy", True)):
            for seed in (*CHOSEN, *REPORTED, *(FRESH if healthy else ())):
                runs[kind][str(seed)] = watched(name, healthy=healthy, seed=seed)
                print(name, kind, seed, runs[kind][str(seed)], flush=True)
        found: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        found[name] = facts | runs
        RECORD.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def table(found: dict[str, Any]) -> str:
    """The seeds that nothing was chosen on, a row per collapse."""
    lines = [
        "| collapse | watched | alarm at step | loss alarms at | metric half lost at | before | false alarms | on further twins |",
        "| --- " * 8 + "|",
    ]
    for name, facts in sorted(found.items()):
        runs = [facts["collapse"][str(seed)] for seed in REPORTED]
        silence = [_false_alarms(facts["healthy"], seeds) for seeds in (REPORTED, FRESH)]
        measures = ", ".join(f"`{one}`" for one in facts["measures"])
        cells = [_WORDS[name], measures, *(_steps([run[key] for run in runs]) for key in ("alarm", "loss", "half"))]
        cells += [f"{sum(map(before, runs))} of {len(runs)}", *silence]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _false_alarms(twins: dict[str, dict[str, Any]], seeds: Iterable[int]) -> str:
    alarmed = [twins[str(seed)]["alarm"] is not None or twins[str(seed)]["loss"] is not None for seed in seeds]
    return f"{sum(alarmed)} of {len(alarmed)}"


def _steps(steps: list[int | None]) -> str:
    known = sorted(step for step in steps if step is not None)
    if not known:
        return "never"
    text = f"{statistics.median(known):g} ({known[0]} to {known[-1]})"
    return text if len(known) == len(steps) else f"{text} in {len(known)} of {len(steps)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="collapses; all by default")
    parser.add_argument("--table", action="store_true", help="only write the table into the docs")
    options = parser.parse_args()
    if not options.table:
        record(options.names or collapse_names())
    head, _, rest = PAGE.read_text().partition(BEGIN)
    tail = rest.partition(END)[2]
    PAGE.write_text(f"{head}{BEGIN}\n\n{table(json.loads(RECORD.read_text()))}\n\n{END}{tail}")


if __name__ == "__main__":
    main()
