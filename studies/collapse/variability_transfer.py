"""What the variability collapse index of a network says about how well its features serve another task."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import inscape as ix

PAPER = "Xu & Liu 2023, Quantifying the variability collapse of neural networks"
CLAIM = "Networks whose last features have collapsed further, by an index that no linear map changes, transfer worse to other classes."
SCALE = "Ten fully connected networks on handwritten digits 0 to 4 with more and more training and weight decay, probed on 5 to 9."

# Epochs and weight decay, from hardly trained to far beyond zero error.
SETTINGS = ((2, 0.0), (4, 0.0), (8, 0.0), (16, 0.0), (32, 0.0), (32, 3e-3), (64, 1e-3), (64, 3e-3), (128, 3e-3), (128, 1e-2))

CHECKS = {
    "training collapses the features": lambda v: v["last_vci"] < 0.5 * v["first_vci"],
    "less variability goes with worse transfer": lambda v: v["spearman"] > 0.5,
    "the index does not change under an invertible map": lambda v: v["map_change"] < 1e-6,
    "the trace ratio does": lambda v: v["map_change_nc1_trace"] > 0.05,
}
CONTROL_FAILS = "less variability goes with worse transfer"


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    """Index and transfer of every setting, and the rank correlation of the two."""
    return _series(seed, small, shuffle=False)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The same networks, with the index of another network beside each transfer."""
    return _series(seed, small, shuffle=True)


def _series(seed: int, small: bool, *, shuffle: bool) -> dict[str, float]:
    data = ix.zoo.digits(seed=seed)
    images, labels = torch.cat([data.train_images, data.images]), torch.cat([data.train_labels, data.labels])
    known = labels < 5
    settings = SETTINGS[::2] + SETTINGS[-1:] if small else SETTINGS
    values: dict[str, float] = {}
    kept: np.ndarray | None = None
    for index, (epochs, decay) in enumerate(settings):
        module = _train(images[known], labels[known], epochs, decay, seed)
        site = "layers.2"
        source = ix.capture(module, images[known], sites=site)[site].numpy().astype(float)
        target = ix.capture(module, images[~known], sites=site)[site].numpy().astype(float)
        source, classes = _lively(source), labels[known].numpy()
        kept = source if kept is None else kept  # of the network that is least collapsed, whose directions are all there in fp32
        values[f"vci_{index}"] = float(ix.measures.variability_collapse(source, classes))
        values[f"transfer_{index}"] = _probe(target, labels[~known].numpy(), seed)
    index = np.array([values[f"vci_{i}"] for i in range(len(settings))])
    transfer = np.array([values[f"transfer_{i}"] for i in range(len(settings))])
    if shuffle:
        index = index[::-1]
    rng = np.random.default_rng(seed)
    assert kept is not None
    mapped = kept @ (np.linalg.qr(rng.standard_normal((kept.shape[1],) * 2))[0] * np.geomspace(1, 30, kept.shape[1]))
    for name, key in (("variability_collapse", "map_change"), ("nc1_trace", "map_change_nc1_trace")):
        before, after = (float(ix.measures.get(name)(one, classes)) for one in (kept, mapped))
        values[key] = abs(after - before) / max(before, 1e-12)
    return values | {
        "first_vci": float(index[0]), "last_vci": float(index[-1]), "spearman": float(spearmanr(index, transfer).statistic),
        "count": float(len(settings)),
    }  # fmt: skip


def _train(images: torch.Tensor, labels: torch.Tensor, epochs: int, decay: float, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    module = ix.zoo.DigitsMLP(d=48, layers=3)
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.0)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(64):
            penalty = sum(part.square().sum() for part in module.parameters())
            loss = F.cross_entropy(module(images[batch]), labels[batch]) + decay / 2 * penalty
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return module.eval()


def _lively(X: np.ndarray) -> np.ndarray:
    """Without the units that are 0 for every row."""
    return X[:, X.std(0) > 1e-9]


def _probe(X: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """Accuracy on the other rows of a ridge classifier fitted to 100 rows of the new classes, averaged over 20 choices of them."""
    rng = np.random.default_rng(seed)
    scores: list[float] = []
    for _ in range(20):
        order = rng.permutation(len(X))
        few, rest = order[:100], order[100:]
        Z = (X - X[few].mean(0)) / (X[few].std() + 1e-12)
        weight = np.linalg.solve(Z[few].T @ Z[few] + np.eye(Z.shape[1]), Z[few].T @ (np.eye(5)[labels[few] - 5] - 0.2))
        scores.append(float(((Z[rest] @ weight).argmax(1) + 5 == labels[rest]).mean()))
    return float(np.mean(scores))


def figure(values: dict[str, float]) -> Figure:
    """Transfer against the index, one point a network."""
    drawn = Figure(figsize=(4.6, 3.4), layout="constrained")
    ax = drawn.subplots()
    count = int(values["count"])
    xs, ys = [values[f"vci_{i}"] for i in range(count)], [values[f"transfer_{i}"] for i in range(count)]
    drawn.colorbar(ax.scatter(xs, ys, c=range(count), cmap="viridis", s=42), ax=ax, label="from little to much training", ticks=[])
    ax.set(xlabel="variability_collapse on digits 0 to 4 (0: collapsed)", ylabel="accuracy of a probe on digits 5 to 9")
    ax.set_title(f"rank correlation {values['spearman']:.2f}", loc="left", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    return drawn
