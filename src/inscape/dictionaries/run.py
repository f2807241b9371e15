"""A training run: several dictionaries on the same batches, with checkpoints, alone or in several processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as processes
from torch import Tensor

from inscape.capturing.progress import progress_bar
from inscape.dictionaries.base import Recipe, check_positive
from inscape.dictionaries.checkpoints import keep, take_up
from inscape.dictionaries.core import Tensors, alone
from inscape.dictionaries.folding import folded
from inscape.dictionaries.rows import batches, entries_of, frame_of
from inscape.dictionaries.schedule import default_batch, default_patience, default_rate
from inscape.dictionaries.trained import Trained
from inscape.dictionaries.training import Trainer
from inscape.errors import DictionaryError, DivergenceError
from inscape.store import View

# Rows on which thresholds are set at the end.
CALIBRATION = 65536


@dataclass(frozen=True)
class Job:
    """One dictionary of a run: its place in the answer, its sites, its recipe, its seed, and what must agree to go on with it."""

    place: int
    group: tuple[View, ...]
    recipe: Trained
    seed: int
    plan: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """The settings that all dictionaries of a run share.

    Attributes:
        rows: rows to train on.
        batch: rows of a step, in all processes together.
        steps: rows // batch.
        rate: the learning rate that was asked for, or None.
        whiten: whether rows are whitened for the training.
        every: steps between checkpoints.
    """

    rows: int
    batch: int
    steps: int
    rate: float | None
    whiten: bool
    every: int

    @staticmethod
    def planned(
        groups: Sequence[Sequence[View]], rows: int | None, batch: int | None, rate: float | None, normalize: str, every: int | None
    ) -> Run:
        """Settings with their defaults filled in.

        Raises:
            DictionaryError: a setting makes no sense.
        """
        if normalize not in ("scale", "whiten"):
            raise DictionaryError(f"normalize={normalize!r} is not known; give 'scale' or 'whiten'")
        n = max(group[0].n for group in groups)
        rows = max(n, 500_000) if rows is None else rows
        for name, value in (("rows", rows), ("batch", batch), ("every", every)):
            if value is not None and (isinstance(value, bool) or int(value) != value or value < 1):
                raise DictionaryError(f"{name}={value!r}; expected a whole number above 0")
        if rate is not None:
            check_positive("decompose", rate=rate)
        batch = min(default_batch(rows), rows) if batch is None else batch
        if batch > rows:
            raise DictionaryError(f"batch={batch} is more than rows={rows}; a training takes at least one step")
        steps = rows // batch
        return Run(rows, batch, steps, rate, normalize == "whiten", every or max(1, steps // 10))

    def plan(self, group: Sequence[View], recipe: Recipe, seed: int) -> dict[str, Any]:
        """What must agree for one training to go on where another ended; the learning rate may change."""
        told: dict[str, Any] = {"recipe": recipe.describe(), "seed": seed, "sites": [view.site for view in group]}
        told |= {"system": [view.system for view in group], "n": group[0].n, "d": [view.d for view in group]}
        told["entries"] = [entries_of(view) for view in group]
        if isinstance(recipe, Trained):
            told |= {"rows": self.rows, "batch": self.batch, "normalize": "whiten" if self.whiten else "scale"}
        return told


def train(
    jobs: Sequence[Job], run: Run, folder: Path | None, progress: bool | None = False
) -> Iterator[tuple[Job, Tensors, dict[str, Any]]]:
    """Trains all jobs; gives each with its folded tensors and what is worth knowing about the training.

    Dictionaries of one seed share their batches where their sites have as many rows; each seed has an order of its own.
    """
    size, rank, total = _processes()
    if run.batch % size:
        raise DictionaryError(f"batch={run.batch} cannot be shared by {size} processes; give a multiple of {size}")
    views: dict[int, View] = {id(view): view for job in jobs for view in job.group}
    frames = {key: frame_of(view, run.whiten) for key, view in views.items()}
    for job in jobs:
        if run.whiten and (job.recipe.sites != "one" or job.recipe.unit):
            raise DictionaryError(f"normalize='whiten' does not suit {job.recipe.kind}; leave it out")
    trainers: list[Trainer] = []
    for job in jobs:
        inputs, outputs = job.recipe.sides(job.group)
        d, out = (sum(view.d for view in side) for side in (inputs, outputs))
        p = job.recipe.start(d, out, torch.Generator().manual_seed(job.seed))
        rate = run.rate or default_rate(run.steps, job.recipe.width, run.batch, job.recipe.haste)
        name = f"{job.recipe!r} of {job.group[0].system}/{job.group[0].site} (seed {job.seed})"
        patience = default_patience(run.rows, run.batch)
        trainers.append(Trainer(job.recipe, p, run.steps, run.batch, rate, patience, job.seed, name, total))
    plan = {"jobs": [job.plan for job in jobs]}
    if folder is not None:
        take_up(folder, trainers, plan)
    in_order: dict[tuple[int, int], list[int]] = {}
    for index, job in enumerate(jobs):
        in_order.setdefault((job.seed, job.group[0].n), []).append(index)
    done = trainers[0].step
    readers: list[tuple[list[int], list[int], Iterator[list[Tensor]]]] = []
    for (seed, _), members in in_order.items():
        keys = list(dict.fromkeys(id(view) for index in members for view in jobs[index].group))
        sites, scales = [views[key] for key in keys], [frames[key] for key in keys]
        readers.append((members, keys, batches(sites, scales, run.batch, steps=run.steps, start=done, seed=seed)))
    with progress_bar(run.steps, done, progress if rank == 0 else False, "decompose") as advance:
        for step in range(done, run.steps):
            for members, keys, reader in readers:
                share = run.batch // size
                found = {key: rows[rank * share : (rank + 1) * share] for key, rows in zip(keys, next(reader), strict=True)}
                for index in members:
                    inputs, outputs = (tuple(id(view) for view in side) for side in jobs[index].recipe.sides(jobs[index].group))
                    x = _joined([found[key] for key in inputs])
                    try:
                        trainers[index].advance(x, x if outputs == inputs else _joined([found[key] for key in outputs]))
                    except DivergenceError as error:
                        raise DivergenceError(f"{error}. {_survives(folder)}") from None
            if folder is not None and rank == 0 and ((step + 1) % run.every == 0 or step + 1 == run.steps):
                keep(folder, trainers, plan)
            advance(1)
    for job, trainer in zip(jobs, trainers, strict=True):
        inputs, outputs = job.recipe.sides(job.group)
        rows = min(CALIBRATION, run.rows, inputs[0].n)
        size_of = min(run.batch, rows)
        reader = batches(inputs, [frames[id(view)] for view in inputs], size_of, steps=rows // size_of, seed=job.seed)
        p = job.recipe.finish(trainer.p, (_joined(part) for part in reader))
        sides = [[frames[id(view)] for view in side] for side in (inputs, outputs)]
        learned = {"rows": run.steps * run.batch, "steps": run.steps, "batch": run.batch, "rate": trainer.rate}
        learned |= {
            "scales": [frames[id(view)].scale for view in job.group],
            "patience": trainer.patience,
            "dead": int(trainer.dead.sum()),
            "history": trainer.history,
        }
        yield job, folded(job.recipe, p, sides[0], sides[1]), learned


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), 1)


def _survives(folder: Path | None) -> str:
    return "Nothing was kept: give to= for checkpoints" if folder is None else f"The last good state is in {folder}"


def processes_at_work() -> int:
    """How many processes train together."""
    return _processes()[0]


def first_process() -> bool:
    """Whether this process is the one that writes."""
    return _processes()[1] == 0


def _processes() -> tuple[int, int, Any]:
    """How many processes train together, which one this is, and the sum over them."""
    if not (processes.is_available() and processes.is_initialized()) or processes.get_world_size() == 1:
        return 1, 0, alone
    if processes.get_backend() != "gloo":
        raise DictionaryError(
            f"the processes talk through {processes.get_backend()!r}, and dictionaries are trained on the CPU; "
            'begin with torch.distributed.init_process_group("gloo")'
        )

    def total(tensor: Tensor) -> Tensor:
        summed = tensor.clone()
        processes.all_reduce(summed)
        return summed

    return processes.get_world_size(), processes.get_rank(), total
