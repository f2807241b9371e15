"""While the loss of a transformer stands still its hidden states are nearly one vector, and its attention is already on the way."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from statistics import mean

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

import inscape as ix

PAPER = 'Gopalani & Hu, "What happens during the loss plateau? Understanding abrupt learning in transformers", NeurIPS 2025'
CLAIM = (
    "On the plateau before a sudden fall of the loss a transformer knows a part of the answer, repeats itself and has hidden states that "
    "are nearly parallel, while its attention moves to the right places; learning that attention is what takes the time."
)
SCALE = (
    "The paper's task and network (sums of neighbors modulo 17 behind 16 numbers; one layer, one head, attention without softmax) at a "
    "width of 64 in place of 256, with 64 sequences an update in place of 256 and a learning rate of .001 in place of .0001. On the "
    "plateau the loss of the sums is above .9 of that of a guess. Thresholds followed a draft at seed 0, updates and sizes more of them."
)

P, WIDTH, BATCH, EVERY, GUESS = 17, 64, 64, 20, math.log(17)
SHOWN = {"cosine": "#0072B2", "repetition": "#D55E00", "attention at the right places": "#009E73"}

CHECKS = {
    "the loss falls at once after a long plateau": lambda v: v["steps of the fall"] < 0.5 * v["plateau ends at step"],
    "on the plateau hidden states are nearly parallel": lambda v: v["cosine on the plateau"] > 0.9 and v["cosine at the end"] < 0.5,
    "on the plateau outputs repeat": lambda v: v["repetition on the plateau"] > 0.5 and v["repetition at the end"] < 0.15,
    "on the plateau a part is known": lambda v: v["first output right when it ends"] > 0.9 and v["sums right when it ends"] < 0.2,
    "attention is on its way before the loss": lambda v: v["way of attention when it ends"] > 0.25,
}
CONTROL_FAILS = "the loss falls at once after a long plateau"
VERDICT = (
    "Holds. With the right attention given from the start (the control) the plateau is a tenth as long and the loss then falls slowly; "
    "hidden states come close together in its first updates all the same, so that the collapse has causes besides."
)


class Attention(nn.Module):
    """Attention without softmax; `given` weights take the place of learned ones."""

    def __init__(self, context: int, given: Tensor | None) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.map, self.context, self.given = nn.Identity(), context, given
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.02 if parameter.ndim > 1 else 0.0)

    def forward(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        t = x.shape[1]
        weights = (self.q(x) @ self.k(x).mT / WIDTH**0.5).tril() if self.given is None else self.given[:t, :t].expand(len(x), t, t)
        return self.out(self.map(F.pad(weights, (0, self.context - t)))[..., :t] @ self.v(x))  # a capture wants rows of one length


def drawn(count: int, n: int, generator: torch.Generator) -> Tensor:
    """n numbers, a separator, and n outputs: the first number, then the sums of neighbors."""
    numbers = torch.randint(1, P, (count, n), generator=generator)
    return torch.cat([numbers, torch.full((count, 1), P), (numbers + F.pad(numbers, (1, 0))[:, :-1]) % P], 1)


def right_places(n: int) -> Tensor:
    """For each position that gives an output, 1 at the numbers that the output hangs on [n, 2 n]."""
    return torch.eye(n, 2 * n) + F.pad(torch.eye(n, 2 * n), (0, 0, 1, 0))[:-1]


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The course of training, and what it was on the plateau; small has 12 numbers in place of 16."""
    return _measured(seed, small, given=False)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The same network with the right attention given from the start, so that there is none to learn."""
    return _measured(seed, small, given=True)


def _trained(seed: int, n: int, steps: int, given: bool) -> Iterator[tuple[int, nn.Module]]:
    torch.manual_seed(seed)
    model = ix.zoo.GPT(P + 1, d=WIDTH, layers=1, heads=1, context=2 * n)
    model.head.weight = nn.Parameter(model.head.weight.detach().clone())  # not tied, as in the paper
    model.blocks[0].attn = Attention(2 * n, torch.cat([torch.eye(n, 2 * n), right_places(n)]) if given else None)
    optimizer, generator = torch.optim.Adam(model.parameters(), lr=1e-3), torch.Generator().manual_seed(seed)
    for step in range(steps + 1):
        if step % EVERY == 0:
            yield step, model
        rows = drawn(BATCH, n, generator)
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def _seen(model: nn.Module, rows: Tensor, n: int) -> dict[str, float]:
    logits, outputs, written = model(rows[:, :-1])[:, n:], rows[:, n + 1 :], rows[:, : n + 1]
    for _ in range(n):
        written = torch.cat([written, model(written)[:, -1:].argmax(-1)], 1)
    right = (logits.argmax(-1) == outputs).float().mean(0)
    store = ix.capture(ix.load(model), rows[:, :-1], sites="blocks.0.attn.map", tokens=slice(n, None), progress=False)
    weights = torch.from_numpy(store["blocks.0.attn.map"].numpy()).view(len(rows), n, 2 * n).abs()
    return {
        "loss of the sums": float(F.cross_entropy(logits[:, 1:].flatten(0, 1), outputs[:, 1:].flatten())),
        "first output right": float(right[0]),
        "sums right": float(right[1:].mean()),
        "repetition": float((written[:, n + 2 :] == written[:, n + 1 : -1]).float().mean()),
        "attention at the right places": float(((weights * right_places(n)).sum((1, 2)) / weights.sum((1, 2))).mean()),
    }


def _measured(seed: int, small: bool, *, given: bool) -> dict[str, float]:
    n, steps = (12, 440) if small else (16, 1000)
    held_out = drawn(64, n, torch.Generator().manual_seed(1000 + seed))
    at: dict[str, dict[int, float]] = {}

    def checkpoints() -> Iterator[tuple[int, nn.Module]]:
        for step, model in _trained(seed, n, steps, given):
            for name, value in _seen(model, held_out, n).items():
                at.setdefault(name, {})[step] = value
            yield step, model

    with warnings.catch_warnings(action="ignore"):  # where all rows are nearly parallel, one that is not looks like a sink
        course = ix.trajectory(checkpoints(), held_out[:, :-1], sites="norm", measures="token_uniformity", tokens=slice(n + 1, None))
    at["cosine"] = {row["at"]: row["value"] for row in course.rows()}
    loss, way = at["loss of the sums"], at["attention at the right places"]
    flat = [step for step in loss if loss[step] > 0.9 * GUESS]
    end, down = flat[-1], next((step for step in loss if loss[step] < 0.1 * GUESS), 2 * steps)
    found = {f"{name}, step {step}": value for name, values in at.items() for step, value in values.items()}
    for name in ("cosine", "repetition"):
        found |= {f"{name} on the plateau": mean(at[name][step] for step in flat[1:]), f"{name} at the end": at[name][steps]}
    found |= {f"{name} when it ends": at[name][end] for name in ("first output right", "sums right")}
    found["way of attention when it ends"] = (way[end] - way[0]) / ((way[steps] - way[0]) or 1.0)
    return found | {"plateau ends at step": float(end), "steps of the fall": float(down - end)}


def figure(values: dict[str, float]) -> Figure:
    drawing = Figure(figsize=(7.2, 3.1), layout="constrained")
    for ax, lines in zip(drawing.subplots(1, 2), ({"loss of the sums": "#0072B2"}, SHOWN), strict=True):
        ax.axvspan(0, values["plateau ends at step"], color="#6f6e69", alpha=0.12, lw=0)
        for name, color in lines.items():
            points = [(int(key.rsplit(" ", 1)[1]), value) for key, value in values.items() if key.startswith(f"{name}, step ")]
            ax.plot(*zip(*points, strict=True), color=color, label=name)
        ax.set(xlabel="update; gray: plateau", ylim=(0, None), xlim=(0, None), title="Loss, nats" if len(lines) == 1 else "Meanwhile")
        ax.spines[["top", "right"]].set_visible(False)
    drawing.legend(*drawing.axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return drawing
