"""`Monitor`: watches the inside of a model while it trains, and says when something leaves its own past."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inscape.errors import DegenerateInputError, ResultError
from inscape.measures.base import Measure
from inscape.measures.inputs import as_measures
from inscape.models import Model
from inscape.results import Result
from inscape.training.alarm import POOLED, Alarm, alarm
from inscape.training.detection import ChangeDetector, alarm_threshold
from inscape.training.directions import harm_of
from inscape.training.log import MonitorLog, read_facts, read_rows, unique
from inscape.training.probe import Probe
from inscape.training.ranks import Ranks

Log = Callable[[dict[str, float], int], None]
Watched = str | Measure | Sequence[str | Measure] | Mapping[str, str]


class Monitor:
    """Measures some sites of a model on the same stimuli every so many steps of its training, without changing the training.

    On CPU training is bit for bit what it would be without: random numbers, modes, buffers and autocast come back. Each series, and the
    loss, is followed by a `ChangeDetector`; what leaves its own recent past gives an `Alarm`. Where several processes train one model
    (`DistributedDataParallel`), each makes a monitor and calls it at the same steps: sums are added over them, and the first writes. They
    may be joined after the monitor was made.

    Args:
        model: the network in training, or a loaded `Model`.
        stimuli: a few hundred held-out inputs, as for `ix.capture`; they stay the same.
        sites: names or globs, as for `ix.capture`.
        measures: names or measures of one system, or a mapping from name to the direction that is harm, "fall", "rise" or "both"; by
            default it follows from the name (`effective_rank` falls, `mean_cosine` rises).
        every: steps between two probes.
        to: a folder for the log, which `inscape watch` shows while it grows. One that is there already is taken up.
        tokens: which positions give rows, as for `ix.capture`.
        labels: for measures of classes, as for `ix.measure`.
        weights: layers that measures read beside the rows: one, or a dictionary from site to layer; default the last linear layer.
        false_alarms: the chance of any alarm in 1,000 probes while all series only scatter about a level, independently; up to .1.
        least: the smallest change that matters, as a share of a series' level, or of the way from there to the harmful end of the measure's
            range where that is more.
        pooled: follow the mean over the sites of each measure (the site "mean of sites") in place of every site by itself: fewer chances of
            a false alarm, and less noise where a collapse reaches all sites.
        log: gets a dictionary of numbers and the step at every probe; `wandb.log`, for instance.
        **loading: keywords for `ix.load`, such as `tokenizer`.

    Raises:
        SiteNotFoundError: a site is unknown.
        UnknownMeasureError: no measure has that name, or it is one of parameters.
        DegenerateInputError: `every` is below 1, or an option of the detector is out of range.
        ResultError: `to` is the log of something else.

    Example:
        >>> mon = ix.Monitor(net, stimuli=held_out, sites="layer*", measures="effective_rank")    # doctest: +SKIP
        >>> for alarm in mon.step(loss):                                                          # doctest: +SKIP
        ...     print(alarm.text)
    """

    def __init__(
        self,
        model: nn.Module | Model,
        stimuli: Any,
        sites: str | Sequence[str],
        measures: Watched,
        every: int = 100,
        *,
        to: str | os.PathLike[str] | None = None,
        tokens: Any = None,
        labels: Any = None,
        weights: Any = None,
        false_alarms: float = 0.01,
        least: float = 0.1,
        pooled: bool = False,
        log: Log | None = None,
        **loading: Any,
    ) -> None:
        if every < 1:
            raise DegenerateInputError(f"every={every} steps leaves no probe; give 1 or more")
        chosen = as_measures(list(measures) if isinstance(measures, Mapping) else measures, arity=1)
        given = dict(measures) if isinstance(measures, Mapping) else {}
        self._sides = {one.label: given.get(one.label, harm_of(one.name)) for one in chosen} | {"loss": harm_of("loss")}
        self._ends = {one.label: end for one in chosen if (end := _end(one, self._sides[one.label])) is not None}
        self.every, self.pooled = every, pooled
        self.steps = 0
        self.alarms: list[Alarm] = []
        self._log = log
        self._rows: list[dict[str, Any]] = []
        self._losses: list[Any] = []
        self._ranks = Ranks()
        self._probe = Probe(
            model, stimuli, sites, chosen, tokens=tokens, labels=labels, weights=weights, loading=loading, ranks=self._ranks
        )
        # A series that is watched on both sides has two chances of a false alarm.
        series = (1 if pooled else len(self._probe.sites)) * sum(2 if self._sides[one.label] == "both" else 1 for one in chosen) + 1
        self._threshold, self._least = alarm_threshold(false_alarms, series), least
        self._detectors: dict[tuple[str, str], ChangeDetector] = {}
        for label in self._sides:
            self._detector("", label)  # a side that is no side is refused here, not at the first probe
        self._detectors.clear()
        self._settings: dict[str, Any] = {
            "system": self._probe.model.name,
            "sites": self._probe.sites,
            "measures": [one.label for one in chosen],
            "every": every,
            "sides": self._sides,
            "false_alarms": false_alarms,
            "threshold": self._threshold,
            "least": least,
            "pooled": pooled,
        }
        self._file = MonitorLog(to, self._settings) if to is not None and self._ranks.first else None
        if to is not None:
            self._take_up(self._ranks.from_first(read_rows(to) if self._ranks.first else []))

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is left open between steps; the block only says how long the monitor is meant to live."""

    def step(self, loss: Tensor | float | None = None, *, step: int | None = None) -> list[Alarm]:
        """Counts one step of training, after the optimizer's; probes where one is due.

        Args:
            loss: of this step; its mean since the last probe is followed like any other series.
            step: the number of this step, where the loop counts itself; by default one more than the last. A number that was seen before
                means that the run was taken up at an earlier step, and what was logged from there on is dropped.

        Returns:
            The alarms of this step, mostly none.
        """
        self._join()
        number = self.steps + 1 if step is None else step
        if number <= self.steps and self._rows:
            self._cut(number)
        self.steps = number
        if loss is not None:
            self._losses.append(loss.detach() if isinstance(loss, Tensor) else loss)
        return self.probe() if number % self.every == 0 else []

    def probe(self) -> list[Alarm]:
        """Measures now, whatever the step; returns the alarms. A second look at one step takes the place of the first."""
        self._join()
        found = [{"step": self.steps, **row} for row in self._probe.look()]
        if self.pooled:
            found += [_mean(found, one.label) for one in self._probe.measures]
        losses = [float(loss) for loss in self._losses]
        self._losses.clear()
        total, count = self._ranks.add(torch.tensor(sum(losses), dtype=torch.float64), torch.tensor(float(len(losses))))
        if count:
            found.append({"step": self.steps, "site": "", "measure": "loss", "value": float(total) / float(count)})
        found = self._in_place_of_the_last(found)
        new = [one for row in found if (one := self._see(row)) is not None]
        self._rows += found
        self.alarms += new
        if self._file is not None:
            self._file.write(self.steps, found)
        if self._log is not None and self._ranks.first:
            self._log({_name(row): row["value"] for row in found if row["value"] is not None}, self.steps)
        return new

    def result(self) -> Result:
        """All values so far: a row per step, site and measure, the step in `at`. The loss is at "training"; settings hold the alarms."""
        return as_result(self._rows, self._settings)

    def _see(self, row: dict[str, Any]) -> Alarm | None:
        """Gives a value to its detector and notes in the row what this says.

        A measure that is undefined (equal rows, say) is a value that is missing, unless the rows themselves are no numbers.
        """
        if self.pooled and row["site"] not in ("", POOLED):
            return None
        value = row["value"]
        if value is None and not _is_broken(row):
            return None
        number = math.nan if value is None else float(value)
        detector = self._detector(row["site"], row["measure"])
        before = detector.baseline if not math.isfinite(number) else None
        side = detector.see(number)
        row["baseline"] = before if side == "nonfinite" else detector.baseline
        if side is None:
            return None
        told = alarm(side, row["step"], row["site"], row["measure"], number, row["baseline"])
        row |= {"alarm": side, "text": told.text}
        return told

    def _detector(self, site: str, label: str) -> ChangeDetector:
        key = (site, label)
        if key not in self._detectors:
            self._detectors[key] = ChangeDetector(self._sides[label], self._threshold, self._least, self._ends.get(label))
        return self._detectors[key]

    def _join(self) -> None:
        """Comes together with processes that were joined after this was made, as Lightning does in `fit`; goes on from the first's log."""
        if not self._ranks.join():
            return
        self._file = self._file if self._ranks.first else None
        self._probe.share()
        steps, losses = self._ranks.from_first(self.steps), self._losses
        self._take_up(self._ranks.from_first(self._rows))
        self.steps, self._losses = steps, losses

    def _in_place_of_the_last(self, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows of this step: those found, and of an earlier look at it what was not measured anew, such as the loss."""
        step = self.steps
        if not (own := [row for row in self._rows if row["step"] == step]):
            return found
        self._take_up([row for row in self._rows if row["step"] != step])
        self.steps = step
        return unique([*own, *found])

    def _cut(self, step: int) -> None:
        """Forgets what came at `step` and later."""
        kept = [row for row in self._rows if row["step"] < step]
        if self._file is not None:
            self._file.cut(step)
        self._take_up(kept)

    def _take_up(self, rows: list[dict[str, Any]]) -> None:
        """Comes to the state after these rows, by giving them to the detectors again."""
        self._detectors.clear()
        self._losses.clear()
        self._rows = rows
        self.alarms = [one for row in rows if (one := self._see(row)) is not None]
        self.steps = rows[-1]["step"] if rows else 0


def as_result(rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> Result:
    """The rows of a monitor or of its log as a `Result`."""
    tidy: list[dict[str, Any]] = []
    for row in rows:
        status = {} if row["value"] is not None else {"status": "failed", "reason": row.get("reason")}
        place = {"system": settings.get("system"), "site": row["site"] or "training", "axis": "step", "at": int(row["step"])}
        tidy.append({**place, "measure": row["measure"], "value": row["value"], "n": row.get("n"), "d": row.get("d"), **status})
    alarms = [{k: row[k] for k in ("step", "site", "measure", "value", "baseline", "text")} for row in rows if row.get("alarm")]
    return Result(tidy, settings={"verb": "monitor", "result": "trajectory", **settings, "alarms": alarms})


def read_log(path: str | os.PathLike[str]) -> Result:
    """The values of a monitor's log, of a run that goes on or has ended.

    Raises:
        ResultError: the folder holds no log, or nothing was logged yet.
        StoreCorruptError: a file of it is damaged.

    Example:
        >>> read_log("runs/monitor").plot()    # doctest: +SKIP
    """
    facts, rows = read_facts(path), read_rows(path)
    if not rows:
        raise ResultError(f"the log {path} holds no probe yet; the first comes after {facts.get('every')} steps")
    return as_result(rows, {key: value for key, value in facts.items() if key != "format_version"})


def _mean(rows: Sequence[Mapping[str, Any]], label: str) -> dict[str, Any]:
    """The mean of a measure over its sites; without a value where a site holds no numbers, or none has a value."""
    own = [row for row in rows if row["measure"] == label]
    values = [row["value"] for row in own if row["value"] is not None]
    broken = next((row["reason"] for row in own if row["value"] is None and row["broken"]), None)
    pooled = {"step": rows[0]["step"], "site": POOLED, "measure": label}
    if broken or not values:
        return {**pooled, "value": None, "reason": broken or "no site has a value", "broken": broken is not None}
    return {**pooled, "value": sum(values) / len(values)}


def _end(measure: Measure, side: str) -> float | None:
    """The end of a measure's range that lies on the side of harm, where there is one."""
    end = {"fall": measure.range[0], "rise": measure.range[1]}.get(side, math.inf)
    return end if math.isfinite(end) else None


def _is_broken(row: Mapping[str, Any]) -> bool:
    """Whether a row has no value because the rows of its site are no numbers. Older logs do not say so, but that it was an alarm."""
    broken = row.get("broken")
    return row.get("alarm") == "nonfinite" if broken is None else bool(broken)


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['site']}/{row['measure']}" if row["site"] else str(row["measure"])
