"""One dictionary in training: its tensors, its optimizer, and which features have been silent for how long."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.distributed as processes
from torch import Tensor

from inscape.dictionaries.core import Moment, Tensors, alone
from inscape.dictionaries.schedule import rate_at
from inscape.dictionaries.trained import Trained
from inscape.errors import DivergenceError


@dataclass
class Trainer:
    """Trains one recipe on normalized batches.

    Attributes:
        recipe: what is trained.
        p: the tensors, changed in place.
        steps: steps planned.
        batch: rows of a batch, in all processes together.
        rate: highest learning rate.
        patience: rows of silence after which a feature is dead.
        seed: seed of replanting.
        name: what messages call it.
        total: adds tensors up over processes.
    """

    recipe: Trained
    p: Tensors
    steps: int
    batch: int
    rate: float
    patience: int
    seed: int = 0
    name: str = "dictionary"
    total: Callable[[Tensor], Tensor] = alone
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list[dict[str, float]])

    def __post_init__(self) -> None:
        lead, trail = self.recipe.momenta
        self.optimizer = torch.optim.Adam(list(self.p.values()), lr=self.rate, betas=(lead, trail), fused=True)
        self.mean = {name: torch.zeros_like(value) for name, value in self.p.items()}
        self.square = {name: torch.zeros_like(value) for name, value in self.p.items()}
        for name, value in self.p.items():
            self.optimizer.state[value] = {"step": torch.zeros(()), "exp_avg": self.mean[name], "exp_avg_sq": self.square[name]}
        self.silent = torch.zeros(self.recipe.width, dtype=torch.int64)
        self.kept: Tensors = {}
        self.first = math.nan

    @property
    def dead(self) -> Tensor:
        """[m]: features that have been silent for `patience` rows."""
        return self.silent >= self.patience

    def advance(self, x: Tensor, y: Tensor) -> None:
        """One step on this process's rows x [b, d] and targets y [b, out].

        Raises:
            DivergenceError: the loss is not finite, or far above that of a dictionary that says nothing.
        """
        dead = self.dead
        moment = Moment(self.step, self.steps, dead, self.batch, self.total, self.kept)
        learned = self.recipe.learn(self.p, x, y, moment)
        fired = torch.zeros(self.recipe.width, dtype=torch.int64)
        fired[learned.codes.indices[learned.codes.values != 0]] = 1
        report = self.total(torch.stack([learned.error, learned.extra, learned.codes.values.count_nonzero() / self.batch]))
        error, extra, active = (float(value) for value in report)
        self._check(error, extra)
        self._update({name: self.total(gradient) for name, gradient in learned.gradients.items()})
        self.silent += self.batch
        self.silent[self.total(fired) > 0] = 0
        if self.recipe.replants:
            self._replant(learned.left, dead & self.dead)  # not what has just woken up
        self.step += 1
        if self.step % max(1, self.steps // 100) == 0 or self.step == self.steps:
            self.history.append({"step": self.step, "fvu": error, "l0": active, "dead": float(dead.double().mean())})

    def _check(self, error: float, extra: float) -> None:
        self.first = error if math.isnan(self.first) else self.first
        if math.isfinite(error) and math.isfinite(extra) and error <= max(10.0, 10 * self.first):
            return
        cause = (
            f"the loss is {error:g}" if not math.isfinite(error + extra) else f"the share of variance lost is {error:.3g} (1 says nothing)"
        )
        raise DivergenceError(
            f"{self.name} diverged at step {self.step} of {self.steps}: {cause}, at a learning rate of "
            f"{rate_at(self.step, self.steps, self.rate):.3g}. Give a lower rate=, or look for rows with enormous values"
        )

    def _update(self, gradients: Tensors) -> None:
        """Clips, keeps decoder rows on the sphere, and takes a step of Adam."""
        decoder = self.p["decoder"]
        along = torch.linalg.vecdot(gradients["decoder"], decoder)
        gradients["decoder"].addcmul_(along[:, None], decoder, value=-1)
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in gradients.values()]))
        if not math.isfinite(float(norm)):
            raise DivergenceError(
                f"{self.name} diverged at step {self.step} of {self.steps}: the gradient has length {float(norm):g}. Give a lower rate="
            )
        for name, value in self.p.items():
            value.grad = gradients[name].div_(norm) if float(norm) > 1 else gradients[name]
        self.optimizer.param_groups[0]["lr"] = rate_at(self.step, self.steps, self.rate)
        for state in self.optimizer.state.values():
            state["step"].fill_(self.step)  # where a run is taken up, the optimizer must know how far it was
        self.optimizer.step()
        for value in self.p.values():
            value.grad = None
        decoder.div_(torch.linalg.vector_norm(decoder, dim=1, keepdim=True))

    def _replant(self, left: Tensor, dead: Tensor) -> None:
        """Starts dead features again from leftovers of this batch, drawn by how large they are; the same ones in every process."""
        every = max(1, self.patience // self.batch)
        places = dead.nonzero().flatten()[: max(1, self.recipe.width // 20)]  # many at once on similar rows would overshoot
        if self.step == 0 or self.step % every or self.step > 0.7 * self.steps or len(places) == 0:
            return
        weights = left.square().sum(1)
        if float(weights.sum()) <= 0:
            return
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        rows = left[torch.multinomial(weights, min(len(places), int((weights > 0).sum())), replacement=False, generator=generator)]
        if processes.is_available() and processes.is_initialized():
            rows = rows.contiguous()
            processes.broadcast(rows, 0)
        places = places[: len(rows)]
        self.recipe.replant(self.p, places, rows)
        for moments in (self.mean, self.square):
            for values in moments.values():
                if values.ndim and values.shape[0] == self.recipe.width:
                    values[places] = 0.0
        self.silent[places] = 0
