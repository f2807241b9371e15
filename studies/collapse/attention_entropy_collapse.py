"""Under a learning rate that grows too far attention sticks to single tokens; layers with a spectral norm of their own bear more."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

import inscape as ix
from inscape import training

PAPER = "Zhai et al. 2023, Stabilizing transformer training by preventing attention entropy collapse"
CLAIM = (
    "Where training becomes unstable the entropy of attention collapses; with σReparam, which holds the spectral norm of every linear "
    "layer to a number that is learned, it does not, and training goes on."
)
SCALE = (
    "A GPT of two layers and width 32 on bytes, 400 updates; the learning rate stays at .003 for 120 and then grows a hundredfold. "
    "The embedding, which is the output layer as well, is left as it is. The paper trains ViTs, translation and speech "
    "models for hundreds of epochs."
)

STEPS, BEGIN, RATE, GROWTH = 400, 120, 3e-3, 100.0
SITE = "blocks.*.attn_pattern|entropy"

CHECKS = {
    "without it attention loses half of its entropy": lambda v: v["plain: entropy at the end"] < 0.5 * v["plain: entropy before the ramp"],
    "with it attention keeps most": lambda v: v["sigma: entropy at the end"] > 0.7 * v["sigma: entropy before the ramp"],
    "without it the loss rises": lambda v: v["plain: loss at the end"] > v["plain: loss before the ramp"] + 0.5,
    "with it the loss is lower": lambda v: v["sigma: loss at the end"] < v["plain: loss at the end"] - 0.5,
}
CONTROL_FAILS = "without it attention loses half of its entropy"
VERDICT = (
    "Holds for the entropy at every seed: it falls to a fifth or less without σReparam and keeps seven to nine tenths with it. The "
    "loss begins to rise in the last updates, by .2 to .5 nats where .5 was asked, so a run of this length sees the beginning of the "
    "instability. With σReparam it ends .4 to .6 lower (.5 asked, missed at two seeds), after a slower start."
)


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    """Entropy of attention (nats, mean over heads and layers) and loss, with σReparam and without."""
    return _trained(seed, small, GROWTH)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The same at a learning rate that stays."""
    return _trained(seed, small, 1.0)


def _trained(seed: int, small: bool, growth: float) -> dict[str, float]:
    corpus = ix.zoo.standard_library(200_000)
    held_out = corpus.held_out[: 32 * 32].view(32, 32).long()
    found: dict[str, float] = {}
    for name in ("plain", "sigma"):
        torch.manual_seed(seed)
        model = ix.zoo.GPT(258, d=32, layers=2, heads=4, context=32)
        if name == "sigma":
            training.objectives.sigma_reparam(model.blocks)  # the head is the embedding
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE, betas=(0.9, 0.95))
        ramp = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: growth ** max(0.0, (step - BEGIN) / (STEPS - BEGIN)))
        mon = ix.Monitor(model, held_out[::2] if small else held_out, SITE, "attention_entropy", 40 if small else 20, tokens="all")
        generator = torch.Generator().manual_seed(seed)
        for _ in range(STEPS):
            starts = torch.randint(0, len(corpus.train) - 33, (16,), generator=generator)
            rows = corpus.train[starts[:, None] + torch.arange(33)].long()
            loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            ramp.step()
            mon.step(loss)
        for kind, measure in (("entropy", "attention_entropy"), ("loss", "loss")):
            course = mon.result().where(measure=measure)
            steps = course.unique("at")
            means = {step: float(torch.tensor(course.where(at=step).column("value")).mean()) for step in steps}
            found |= {f"{name}: {kind}, step {step}": value for step, value in means.items()}
            found |= {f"{name}: {kind} before the ramp": means[BEGIN], f"{name}: {kind} at the end": means[STEPS]}
    return found


def figure(values: dict[str, float]) -> Figure:
    """The course of both numbers in both networks."""
    drawn = Figure(figsize=(7.2, 3), layout="constrained")
    for ax, kind in zip(drawn.subplots(1, 2), ("entropy", "loss"), strict=True):
        for name, color in (("plain", "#D55E00"), ("sigma", "#0072B2")):
            start = f"{name}: {kind}, step "
            points = sorted((int(key.removeprefix(start)), value) for key, value in values.items() if key.startswith(start))
            ax.plot(*zip(*points, strict=True), color=color, label={"plain": "as it is", "sigma": "with σReparam"}[name])
        ax.axvline(BEGIN, color="#6f6e69", lw=1, ls=(0, (4, 3)))
        ax.text(BEGIN + 6, ax.get_ylim()[1], "the learning rate grows", fontsize=8, color="#6f6e69", va="top")
        ax.set(xlabel="update", title={"entropy": "Entropy of attention, nats", "loss": "Loss, nats a byte"}[kind])
        ax.spines[["top", "right"]].set_visible(False)
    drawn.axes[1].legend(frameon=False, fontsize=8.5, loc="center right")
    return drawn
