"""Variational autoencoders that differ in one hyperparameter, placed by their means alone and by means and noise together."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

import inscape as ix
from inscape import zoo

PAPER = (
    "Duong, Zhou, Nassar, Berman, Olieslagers & Williams, "
    '"Representational dissimilarity metric spaces for stochastic neural networks", ICLR 2023'
)
CLAIM = (
    "Distances that see the noise tell networks apart that are the same on average, are metrics, and predict a training hyperparameter "
    "better than distances between mean responses."
)
SCALE = (
    "Twelve variational autoencoders of 6 latents on 8 × 8 digits in place of 1,800 on dSprites; the posterior's samples are the repeats."
)
BETAS = (0.05, 0.2, 0.8, 3.0)


class VAE(nn.Module):
    """One hidden layer on each side of a Gaussian code."""

    def __init__(self, d: int = 6) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2 * d))
        self.decode = nn.Sequential(nn.Linear(d, 64), nn.ReLU(), nn.Linear(64, 64))

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_variance = self.encode(x).chunk(2, 1)
        return mean, log_variance.clamp(-8, 4)

    def loss(self, x: torch.Tensor, beta: float, noise: torch.Tensor) -> torch.Tensor:
        mean, log_variance = self.posterior(x)
        error = (self.decode(mean + noise * (log_variance / 2).exp()) - x).square().sum(1)
        divergence = 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(1)
        return (error + 0.1 * beta * divergence).mean()


def trained(beta: float, seed: int, images: torch.Tensor, steps: int) -> VAE:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        x = images[torch.randint(len(images), (64,), generator=generator)]
        optimizer.zero_grad()
        model.loss(x, beta, torch.randn(64, 6, generator=generator)).backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def responses(model: VAE, images: torch.Tensor, repeats: int, seed: int, *, noise: bool) -> np.ndarray:
    """Repeats [m, r, d] of the code; without its own noise every network gets the same small one."""
    mean, log_variance = model.posterior(images)
    drawn = torch.randn(len(images), repeats, 6, generator=torch.Generator().manual_seed(seed))
    spread = (log_variance / 2).exp() if noise else torch.full_like(mean, 0.1)
    return (mean[:, None] + drawn * spread[:, None]).double().numpy()


def prediction_error(distances: np.ndarray, attribute: np.ndarray) -> float:
    """Mean error of the attribute of the three nearest other networks, over that of a guess from all others."""
    far = distances + np.diag(np.full(len(distances), np.inf))
    nearest = attribute[np.argsort(far, 1)[:, :3]].mean(1)
    others = (attribute.sum() - attribute) / (len(attribute) - 1)
    return float(np.abs(nearest - attribute).mean() / np.abs(others - attribute).mean())


def measured(seed: int, small: bool, *, noise: bool) -> dict[str, float]:
    data = zoo.digits(seed=seed)
    images, count, steps = data.images[: 20 if small else 40].flatten(1), 2 if small else 3, 200 if small else 800
    labels = [(beta, 100 * seed + index) for beta in BETAS for index in range(count)]
    models = [trained(beta, start, data.train_images.flatten(1), steps) for beta, start in labels]
    sites = [responses(model, images, 12 if small else 24, start, noise=noise) for model, (_, start) in zip(models, labels, strict=True)]
    # Distances are compared at one size of the code, so that no network stands out by its scale alone.
    sites = [X / np.sqrt(X.mean(1).var(0).sum()) for X in sites]
    kinds = {"means": 2.0, "both": 1.0, "noise": 0.0}
    tables = {name: np.zeros((len(sites), len(sites))) for name in kinds}
    for name, alpha in kinds.items():
        away = partial(ix.measures.stochastic_shape, alpha=alpha, restarts=2)
        for i, j in combinations(range(len(sites)), 2):
            tables[name][i, j] = tables[name][j, i] = away(sites[i], sites[j])
    attribute = np.log([beta for beta, _ in labels])
    values = {f"error_{name}": prediction_error(table, attribute) for name, table in tables.items()}
    # The same means, and noise turned by a rotation that the means do not share.
    X, turn = sites[0], np.linalg.qr(np.random.default_rng(seed).standard_normal((6, 6)))[0]
    stretched = X.mean(1, keepdims=True) + (X - X.mean(1, keepdims=True)) @ turn * (3.0 if noise else 1.0)
    values |= {f"twins_{name}": ix.measures.stochastic_shape(X, stretched, alpha=alpha) for name, alpha in kinds.items()}
    table = tables["both"]
    slack = [table[i, j] - table[i, k] - table[k, j] for i, j in combinations(range(len(table)), 2) for k in range(len(table))]
    return values | {"largest_triangle_violation": float(max(slack) / table.max())}


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    return measured(seed, small, noise=True)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """Every network has the same noise: then there is nothing that means alone do not tell."""
    return measured(seed, small, noise=False)


CHECKS = {
    "noise predicts the hyperparameter better than means": lambda v: v["error_noise"] < v["error_means"] - 0.05,
    "so do means and noise together": lambda v: v["error_both"] < v["error_means"],
    "twins with other noise are apart": lambda v: v["twins_both"] > 0.05 and v["twins_means"] < 0.01 * v["twins_both"],
    "the triangle inequality holds": lambda v: v["largest_triangle_violation"] < 0.01,
}
CONTROL_FAILS = "noise predicts the hyperparameter better than means"


def figure(values: dict[str, float]) -> Figure:
    drawn = Figure(figsize=(8.0, 3.0), layout="constrained")
    names = {"means": "means alone", "both": "means and noise", "noise": "noise alone"}
    colors = ("#56B4E9", "#009E73", "#D55E00")
    for ax, part, label in zip(
        drawn.subplots(1, 2),
        ("error", "twins"),
        ("error of the predicted log β, over a guess", "distance of twins with other noise"),
        strict=True,
    ):
        ax.bar_label(ax.bar(list(names.values()), [values[f"{part}_{name}"] for name in names], color=colors, width=0.6), fmt="%.2f")
        ax.set_ylabel(label)
        ax.margins(y=0.15)
        ax.spines[["top", "right"]].set_visible(False)
    return drawn
