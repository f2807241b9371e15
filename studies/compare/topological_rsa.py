"""Layers of small networks are told apart by their geometry, by their topology, and by what lies between the two."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

import inscape as ix
from inscape import zoo

PAPER = 'Lin & Kriegeskorte, "The topology and geometry of neural representations", PNAS 2024'
CLAIM = (
    "Geo-topological matrices, in which small distances count as none and large ones as one, tell which layer a representation comes from "
    "about as well as full geometry does, and stay the same when distances are distorted monotonically."
)
SCALE = (
    "Five stages (input to output) of eight small networks of 8 × 8 digits, in place of networks trained on CIFAR and of fMRI; the stage "
    "of one network is named by the nearest stage of another, from a noisy sample of its units."
)
GRID = ((0.0, 1.0), (0.0, 0.6), (0.2, 0.8), (0.4, 1.0), (0.4, 0.6), (0.8, 1.0))


def network(seed: int, images: torch.Tensor, labels: torch.Tensor, steps: int) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        chosen = torch.randint(len(images), (64,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimizer.step()
    return model


@torch.no_grad()
def layers(model: nn.Sequential, images: torch.Tensor, seed: int, share: float, noise: float) -> list[np.ndarray]:
    """A noisy sample of the units of the input, of each hidden layer, and all outputs [images, units], as a recording would give."""
    rng = np.random.default_rng(seed)
    sites = [images]
    for part in model:
        sites.append(part(sites[-1]))
    found: list[np.ndarray] = []
    for x in (sites[0], sites[2], sites[4], sites[6], sites[7]):
        rows = x.double().numpy()
        units = rng.choice(rows.shape[1], max(10, int(share * rows.shape[1])), replace=False)
        found.append(rows[:, units] + noise * rows.std() * rng.standard_normal((len(rows), len(units))))
    return found


def distorted(square: np.ndarray) -> np.ndarray:
    """Distances after a steep monotone map that squeezes small and large ones."""
    unit = square / square.max()
    return 1 / (1 + np.exp(-12 * (unit - 0.5))) - 1 / (1 + np.exp(6.0))


def measured(seed: int, small: bool, *, shuffled: bool) -> dict[str, float]:
    data = zoo.digits(seed=seed)
    images, labels = data.train_images.flatten(1), data.train_labels
    shown = data.images[: 30 if small else 60].flatten(1)
    count, steps = (3, 150) if small else (8, 400)
    models = [network(100 * seed + k, images, labels, steps) for k in range(count)]
    recorded = [layers(model, shown, 10 * seed + k, 0.8, 0.1) for k, model in enumerate(models)]
    if shuffled:  # what is recorded has lost its layer
        rng = np.random.default_rng(seed)
        recorded = [[one[index] for index in rng.permutation(len(one))] for one in recorded]
    right: dict[str, list[bool]] = {}
    for mine, others in ((a, b) for a in recorded for b in recorded if a is not b):
        for place, rows in enumerate(mine):
            curves = [ix.measures.trsa(rows, other) for other in others]
            for column, name in enumerate(curves[0].at):
                right.setdefault(name, []).append(int(np.argmax([curve.values[column] for curve in curves])) == place)
    values = {f"accuracy_{low:g}_{high:g}": float(np.mean(right[f"{low:g}–{high:g}"])) for low, high in GRID}
    # One representation against itself with distances distorted: only what survives a monotone map still agrees.
    square = ix.rdm(recorded[0][1]).square()[0]
    pair = [ix.rdm(recorded[0][1]), ix.rdm(recorded[0][1])]
    pair[1].values[0] = distorted(square)[np.triu_indices(len(square), 1)]
    x, y = (one.summary() for one in pair)
    values["self_geometry"] = ix.measures.rsa_corr.evaluate(x=x, y=y)
    values["self_topology"] = float(ix.measures.trsa.with_options(low=0.4, high=0.6).evaluate(x=x, y=y))
    values["chance"] = 1 / len(recorded[0])
    return values


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    return measured(seed, small, shuffled=False)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """Layers in random order: there is nothing to tell."""
    return measured(seed, small, shuffled=True)


def best(v: dict[str, float]) -> float:
    """The best accuracy of a geo-topological matrix that is not the geometry itself."""
    return max(value for name, value in v.items() if name.startswith("accuracy") and name != "accuracy_0_1")


CHECKS = {
    "geometry names the layer": lambda v: v["accuracy_0_1"] > 1.6 * v["chance"],
    "the best geo-topological matrix is as good": lambda v: best(v) > v["accuracy_0_1"] - 0.03,
    "topology survives a monotone distortion better": lambda v: v["self_topology"] > v["self_geometry"],
}
CONTROL_FAILS = "geometry names the layer"


def figure(values: dict[str, float]) -> Figure:
    drawn = Figure(figsize=(7.6, 3.0), layout="constrained")
    left, right = drawn.subplots(1, 2, width_ratios=[2.2, 1])
    names = [name for name in values if name.startswith("accuracy")]
    shown = ["–".join(name.split("_")[1:]) for name in names]
    colors = ["#6f6e69" if name == "accuracy_0_1" else "#0072B2" for name in names]
    left.bar_label(left.bar(shown, [values[name] for name in names], color=colors, width=0.65), fmt="%.2f")
    left.axhline(values["chance"], color="#D55E00", linewidth=1, linestyle="--")
    left.set_ylabel("layer named rightly")
    left.set_xlabel("quantiles (low–high); gray: full geometry; dashed: chance")
    bars = right.bar(["geometry", "topology"], [values["self_geometry"], values["self_topology"]], color=["#6f6e69", "#0072B2"], width=0.6)
    right.bar_label(bars, fmt="%.2f")
    right.set_ylabel("r with its distorted self")
    for ax in (left, right):
        ax.margins(y=0.15)
        ax.spines[["top", "right"]].set_visible(False)
    return drawn
