"""Superposition: features that share directions overlap by 1/d, and so does the loss of a model that keeps them all."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure

import inscape as ix

PAPER = "Liu, Liu & Gore 2025, Superposition yields robust neural scaling"
CLAIM = (
    "A model that represents many more features than it has units, all at once, has squared overlaps and a loss that fall as 1/d, whatever "
    "the frequencies of the features."
)
SCALE = (
    "600 features instead of 1,000 and more, widths 8 to 64, 400 steps; no language models. The decay that makes superposition weak was "
    "raised from .1 to 1 after .1 had left it strong."
)

WIDTHS = (8, 16, 32, 64)
FEATURES = 600
ACTIVE = 1.5  # features present at a time, on average, whatever the exponent

CHECKS = {
    "strong: squared overlaps fall as 1/d": lambda v: -1.25 < v["strong_overlap_slope"] < -0.8,
    "strong: overlaps lie between Welch's bound and twice the random level": lambda v: v["least"] >= 1 and v["most"] < 2,
    "strong: the loss falls as 1/d": lambda v: -1.35 < v["strong_loss_slope"] < -0.7,
    "strong: most features are represented": lambda v: v["strong_kept"] > 0.9,
    "weak: only some features are": lambda v: v["weak_kept"] < 0.5,
}
CONTROL_FAILS = "strong: squared overlaps fall as 1/d"


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    """Overlaps and losses over widths, with weights that are pushed to length 1 (strong) or decay (weak)."""
    steps = 250 if small else 400
    return _scaled(seed, WIDTHS[:3] if small else WIDTHS, steps)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """Features of two units, however wide the model: they share directions, but width does not help."""
    values = _scaled(seed, WIDTHS[:3], 30)
    rng = np.random.default_rng(seed)
    overlaps = [ix.measures.superposition(np.pad(rng.standard_normal((FEATURES, 2)), ((0, 0), (0, d - 2)))) for d in WIDTHS]
    return values | {"strong_overlap_slope": _slope(WIDTHS, overlaps)}


def _scaled(seed: int, widths: tuple[int, ...], steps: int) -> dict[str, float]:
    values: dict[str, float] = {"count": float(len(widths))}
    ratios: list[float] = []
    for kind in ("strong", "weak"):
        overlaps, losses, kept = [], [], []
        for index, d in enumerate(widths):
            W, loss = _train(d, kind == "strong", steps, seed)
            length = np.linalg.norm(W, axis=1)
            used = W[length > 0.5]
            overlaps.append(float(ix.measures.superposition(used if len(used) > 1 else W)))
            losses.append(loss)
            kept.append(float((length > 0.5).mean()))
            if kind == "strong":
                bounds = ix.measures.get("superposition").record(len(used), d)
                ratios.append(overlaps[-1] / bounds["welch_bound"])
                values["most"] = max(values.get("most", 0.0), overlaps[-1] / bounds["random"])
            values |= {f"{kind}_overlap_{index}": overlaps[-1], f"{kind}_loss_{index}": loss}
        values |= {f"{kind}_overlap_slope": _slope(widths, overlaps), f"{kind}_loss_slope": _slope(widths, losses)}
        values[f"{kind}_kept"] = float(np.mean(kept))
    return values | {"least": min(ratios)}


def _train(d: int, strong: bool, steps: int, seed: int) -> tuple[np.ndarray, float]:
    """y = ReLU(Wᵀ W x + b) learns to give back sparse x whose features are present with frequencies that fall as 1/rank."""
    generator = torch.Generator().manual_seed(seed)
    frequency = 1 / torch.arange(1, FEATURES + 1.0)
    frequency = (frequency / frequency.sum() * ACTIVE).clamp(max=1)
    W = (torch.randn(FEATURES, d, generator=generator) / d**0.5).requires_grad_()
    b = torch.zeros(FEATURES, requires_grad=True)
    optimizer = torch.optim.Adam([W, b], lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    recent: list[float] = []
    for step in range(steps):
        present = torch.rand(512, FEATURES, generator=generator) < frequency
        x = present * (2 * torch.rand(512, FEATURES, generator=generator))
        loss = (torch.relu(x @ W @ W.T + b) - x).square().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():  # decay towards zero keeps few features, decay towards length 1 keeps all
            length = W.norm(dim=1, keepdim=True).clamp(min=1e-6)
            rate = schedule.get_last_lr()[0]
            W += rate * (1.0 * W * (1 / length - 1) if strong else -W)
        if step >= 0.9 * steps:
            recent.append(float(loss.detach()))
    return W.detach().double().numpy(), float(np.mean(recent))


def _slope(widths: tuple[int, ...], values: list[float]) -> float:
    return float(np.polyfit(np.log(widths), np.log(np.maximum(values, 1e-12)), 1)[0])


def figure(values: dict[str, float]) -> Figure:
    """Overlaps and loss over the width, on logarithmic axes."""
    count = int(values["count"])
    widths = WIDTHS[:count]
    drawn = Figure(figsize=(7.2, 3.2), layout="constrained")
    left, right = drawn.subplots(1, 2)
    for kind, color in (("strong", "#0072B2"), ("weak", "#D55E00")):
        for ax, name in ((left, "overlap"), (right, "loss")):
            ys = [max(values[f"{kind}_{name}_{i}"], 1e-6) for i in range(count)]
            ax.loglog(widths, ys, "o-", color=color, ms=4, label=f"{kind}: slope {values[f'{kind}_{name}_slope']:.2f}")
    left.loglog(widths, [1 / d for d in widths], color="#6f6e69", lw=1, ls=(0, (4, 3)), label="1/d")
    for ax, name in ((left, "superposition: mean squared overlap"), (right, "loss")):
        ax.set(xlabel="units d", ylabel=name)
        ax.set_xticks(widths, [str(d) for d in widths])
        ax.minorticks_off()
        ax.legend(frameon=False, fontsize=8.5)
        ax.spines[["top", "right"]].set_visible(False)
    return drawn
