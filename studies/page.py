"""The page of the gallery, written from what the studies state and from their results on record: `docs/generate.py` calls it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from statistics import median
from typing import Any

from studies.record import GALLERY, Study, studies

FAMILIES = {
    "architectures": "Architectures",
    "benchmarks": "Benchmarks",
    "brain": "Brains",
    "collapse": "Collapse and rank",
    "compare": "Comparing representations",
    "decompose": "Taking representations apart",
    "dynamics": "Training over time",
    "generative": "Generative models",
    "geometry": "Geometry and dimension",
    "human": "Human judgments",
    "intervene": "Edits and their effects",
    "lens": "Lenses",
    "neurons": "Single units",
    "objectives": "Training objectives",
    "organisms": "Model organisms",
    "probe": "Probes and directions",
    "retrieval": "Retrieval",
    "rl": "Agents",
    "visualize": "Pictures",
}


def title(study: Study) -> str:
    """The paper's title, which stands in quotes in its reference; else the file's name in words."""
    quoted = re.search(r"[\"“](.+?)[\"”]", study.paper)
    return quoted.group(1).rstrip(",.") if quoted else study.slug.replace("_", " ").capitalize()


def outcome(record: dict[str, Any] | None) -> str:
    """How many seeds passed all checks, which did not, and that the control fails its check."""
    if record is None:
        return "No results on record."
    runs = record["runs"]
    broken = sorted({name for run in runs for name in run["failed"]})
    good = sum(not run["failed"] for run in runs)
    text = f"{'All' if good == len(runs) else good} of {len(runs)} seeds pass every check" if good else "No seed passes every check"
    text += f"; what fails: {', '.join(f'*{name}*' for name in broken)}." if broken else "."
    control = record["control"]
    text = f"{text} The negative control {'fails' if control['fails'] else 'passes'} *{control['check']}*."
    # Processor time does not depend on what else the machine did; where it was not kept, none is shown.
    spent = [run["cpu_seconds"] for run in runs if "cpu_seconds" in run]
    return f"{text} {max(spent):.0f} s of processor time a seed." if spent else text


def numbers(record: dict[str, Any]) -> list[str]:
    """A table of every number: its median over the seeds, the lowest and the highest, and the control's."""
    lines = ["| number | median | over seeds | control |", "| --- | --- | --- | --- |"]
    for name in record["runs"][0]["values"]:
        values = [run["values"][name] for run in record["runs"]]
        control = record["control"]["values"].get(name)
        cells = [f"{median(values):.3g}", f"{min(values):.3g} to {max(values):.3g}", "" if control is None else f"{control:.3g}"]
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return lines


def entry(study: Study) -> list[str]:
    """One study: what is claimed, what came out, the figure, and the numbers behind a line that opens them."""
    record = study.recorded()
    lines = [f"### {title(study)}", "", study.paper, "", f"**Claim.** {study.claim}", "", f"**Here.** {study.scale}", ""]
    lines += [f"**Outcome.** {outcome(record)}", ""]
    if study.verdict:
        lines += [f"**Verdict.** {study.verdict}", ""]
    if (GALLERY / f"{study.slug}.png").is_file():
        lines += [f"![{title(study)}: what was measured](../gallery/{study.slug}.png)", ""]
    if record is not None:
        lines += ["<details><summary>All numbers</summary>", "", *numbers(record), "", "</details>", ""]
    return [*lines, f"`python -m studies.run {study.slug}` runs it again: `studies/{study.family}/{study.slug}.py`.", ""]


def markdown(found: Sequence[Study] | None = None) -> str:
    """The whole page, families and studies in the order of their names."""
    found = studies() if found is None else found
    lines = [
        "# Gallery of studies",
        "",
        "Published findings, reproduced with the public API alone at a size that runs on two CPU cores in minutes. Every study fixes its",
        "checks before the first result, has a negative control that must fail one of them, and keeps its numbers over several seeds; one",
        "that contradicts its paper stays and says so.",
        "",
    ]
    for family, inside in groupby(sorted(found, key=lambda study: (study.family, study.slug)), key=lambda study: study.family):
        lines += [f"## {FAMILIES.get(family, family.capitalize())}", ""]
        for study in inside:
            lines += entry(study)
    return "\n".join(lines)
