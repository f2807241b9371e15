"""Neural collapse in deep linear networks: a simplex where classes are balanced, lengths by class size where they are not."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.optimize import minimize

import inscape as ix

PAPER = "Dang, Tran, Osher, Tran-The, Ho & Nguyen 2023, Neural collapse in deep linear networks: from balanced to imbalanced data"
CLAIM = (
    "Trained without bias on squared error, free features behind a deep linear network collapse to class means that are orthogonal; they "
    "are equally long where classes are balanced, and as long as the size of their class says where they are not."
)
SCALE = "Five classes of 4 to 40 rows in 24 units behind two linear layers, as in the paper's direct experiments; no images."

CLASSES, WIDTH = 5, 24
BALANCED, IMBALANCED = (16,) * 5, (40, 20, 10, 6, 4)
DECAY = 1e-4  # weight decay of each linear layer, as in the paper; features have the same

CHECKS = {
    "balanced classes collapse to points": lambda v: v["balanced_nc1"] < 1e-4,
    "balanced class means form a simplex": lambda v: v["balanced_nc2_etf"] < 0.02,
    "the balanced classifier, centered as they are, is dual to its means": lambda v: v["balanced_nc3_duality"] < 0.05,
    "imbalanced classes collapse to points as well": lambda v: v["imbalanced_nc1"] < 1e-4,
    "imbalanced class means are orthogonal": lambda v: v["imbalanced_cosine"] < 0.02,
    "imbalanced class means are no simplex": lambda v: v["imbalanced_nc2_equinorm"] > 3 * v["balanced_nc2_equinorm"] + 0.02,
    "the lengths of imbalanced class means are those of the theory": lambda v: v["imbalanced_error"] < 0.03,
}
CONTROL_FAILS = "balanced classes collapse to points"


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    """Measures of collapse of features that were trained with balanced and with imbalanced classes."""
    steps = 4000 if small else 12000
    return {**_trained(BALANCED, seed, steps, "balanced"), **_trained(IMBALANCED, seed, steps, "imbalanced")}


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The same features before training."""
    return {**_trained(BALANCED, seed, 0, "balanced"), **_trained(IMBALANCED, seed, 0, "imbalanced")}


def _trained(sizes: tuple[int, ...], seed: int, steps: int, name: str) -> dict[str, float]:
    labels = np.repeat(np.arange(CLASSES), sizes)
    generator = torch.Generator().manual_seed(seed)
    H, W1 = (torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64) * 0.3 for rows in (len(labels), WIDTH))
    W2 = torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64) * 0.3
    Y = torch.eye(CLASSES, dtype=torch.float64)[torch.from_numpy(labels)]
    parameters = [part.requires_grad_() for part in (H, W1, W2)]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    for _ in range(steps):
        error = (H @ W1.T @ W2.T - Y).square().sum() / (2 * len(labels))
        loss = error + DECAY / 2 * (W1.square().sum() + W2.square().sum() + H.square().sum())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    X, head = H.detach().numpy(), (W2 @ W1).detach().numpy()
    found = ix.measure(X, ["nc1", "nc2_etf", "nc2_equinorm", "nc3_duality"], labels=labels, weights=head - head.mean(0), interval=None)
    values = {f"{name}_{row['measure']}": float(row["value"]) for row in found.rows()}
    means = np.stack([X[labels == one].mean(0) for one in range(CLASSES)])
    length = np.linalg.norm(means, axis=1)
    cosines = (means / length[:, None]) @ (means / length[:, None]).T
    values[f"{name}_cosine"] = float(np.abs(cosines[np.triu_indices(CLASSES, 1)]).max())
    expected = np.array([_length(size, len(labels)) for size in sizes])
    values[f"{name}_error"] = float(np.abs(length / expected - 1).max())
    return values | {f"{name}_length_{one}": float(value) for one, value in enumerate(length)}


def _length(size: int, rows: int) -> float:
    """The length of the features of a class at the optimum, where every class is a problem of its own in one direction."""

    def loss(x: np.ndarray) -> float:
        return size / (2 * rows) * (x[0] * x[1] * x[2] - 1) ** 2 + DECAY / 2 * (x[0] ** 2 + x[1] ** 2 + size * x[2] ** 2)

    return float(abs(minimize(loss, [1.0, 1.0, 0.5], tol=1e-14).x[2]))


def figure(values: dict[str, float]) -> Figure:
    """Lengths of class means with the lengths of the theory."""
    drawn = Figure(figsize=(6.4, 3.0), layout="constrained")
    for ax, name, sizes in zip(drawn.subplots(1, 2, sharey=True), ("balanced", "imbalanced"), (BALANCED, IMBALANCED), strict=True):
        lengths = [values[f"{name}_length_{one}"] for one in range(CLASSES)]
        ax.bar(range(CLASSES), lengths, color="#0072B2", label="trained")
        expected = [_length(size, sum(sizes)) for size in sizes]
        ax.plot(range(CLASSES), expected, "_", color="#D55E00", ms=22, mew=2.5, label="theory")
        ax.set(title=f"{name}: nc1 {values[f'{name}_nc1']:.0e}", xlabel="rows of the class", xticks=range(CLASSES))
        ax.set_xticklabels([str(size) for size in sizes])
        ax.spines[["top", "right"]].set_visible(False)
    drawn.axes[0].set_ylabel("length of the class mean")
    drawn.axes[1].legend(frameon=False, loc="upper left")
    return drawn
