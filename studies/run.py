"""Runs studies at full size over several seeds and keeps what came out: `python -m studies.run [part of a name] [--seeds 3] [--small]`."""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from typing import Any

from studies.record import GALLERY, RESULTS, Study, studies


def commit() -> str:
    """The commit that the study ran at, with a + where files were changed."""
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    dirty = subprocess.run(["git", "status", "--porcelain", "src"], capture_output=True, text=True, check=False).stdout.strip()
    return head + ("+" if dirty else "")


def keep(study: Study, seeds: int, *, small: bool) -> dict[str, Any]:
    """Runs one study and writes its JSON and its figure."""
    runs: list[dict[str, Any]] = []
    for seed in range(seeds):
        began, worked = time.perf_counter(), time.process_time()
        values = study.run(seed, small=small)
        seconds = {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(time.process_time() - worked, 1)}
        runs.append({"seed": seed, **seconds, "failed": study.failed(values), "values": values})
        print(
            f"{study.family}/{study.slug} seed {seed}: {runs[-1]['seconds']} s, failed checks: {runs[-1]['failed'] or 'none'}", flush=True
        )
    control = study.control(0, small=small)
    broken = study.control_fails in study.failed(control)
    print(f"  control fails {study.control_fails!r}: {broken}", flush=True)
    record = {
        "paper": study.paper,
        "claim": study.claim,
        "scale": study.scale,
        "verdict": study.verdict,
        "size": "small" if small else "full",
        "commit": commit(),
        "sha256": study.digest,
        "runs": runs,
        "control": {"check": study.control_fails, "fails": broken, "values": control},
    }
    RESULTS.mkdir(exist_ok=True)
    GALLERY.mkdir(exist_ok=True)
    (RESULTS / f"{study.slug}.json").write_text(json.dumps(record, indent=1) + "\n")
    study.figure(runs[0]["values"]).savefig(GALLERY / f"{study.slug}.png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", default="", help="part of family/name; all studies without it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--small", action="store_true")
    given = parser.parse_args()
    chosen = studies(given.part)
    if not chosen:
        raise SystemExit(f"no study's name contains {given.part!r}; there are: {', '.join(s.slug for s in studies())}")
    for study in chosen:
        keep(study, given.seeds, small=given.small)


if __name__ == "__main__":
    main()
