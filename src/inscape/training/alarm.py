"""An alarm is data: where, when, what, and beside which baseline."""

from __future__ import annotations

import math
from dataclasses import dataclass

from inscape.results import format_number

POOLED = "mean of sites"  # the site of a mean over sites, where one is followed


@dataclass(frozen=True)
class Alarm:
    """One series that left its own recent past.

    Attributes:
        step: of training.
        site: where; "" for the loss.
        measure: its name, or "loss".
        value: what it is now; NaN where it is no number.
        baseline: the median of the probes before, or None where there were too few.
        text: the same in a sentence.

    Example:
        >>> Alarm(240, "encoder", "effective_rank", 3.1, 17.2, "step 240: effective_rank of encoder fell to 3.10 (before: 17.2)").baseline
        17.2
    """

    step: int
    site: str
    measure: str
    value: float
    baseline: float | None
    text: str


def alarm(side: str, step: int, site: str, measure: str, value: float, baseline: float | None) -> Alarm:
    """The alarm for a change to one side ("fall", "rise" or "nonfinite"), with its sentence."""
    what = f"{measure} of {site}" if site else f"the {measure}"
    if side == "nonfinite" or not math.isfinite(value):
        text = f"step {step}: {what} is no longer a finite number"
    else:
        before = "" if baseline is None else f" (before: {format_number(baseline)})"
        text = f"step {step}: {what} {'fell' if side == 'fall' else 'rose'} to {format_number(value)}{before}"
    return Alarm(step, site, measure, value, baseline, text)
