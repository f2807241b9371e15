"""A classifier trained on one network reads another that it never met."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.figure import Figure

import inscape as ix
from inscape import zoo

PAPER = (
    'Moschella, Maiorca, Fumero, Norelli, Locatello & Rodolà, "Relative representations enable zero-shot latent space communication", '
    "ICLR 2023"
)
CLAIM = (
    "Angles between stimuli are much the same in networks that differ by their seed, so cosines with shared anchors are coordinates "
    "that both share: a classifier that was trained on those of one network reads the other without any training."
)
SCALE = "Fully connected networks on scans of 8 × 8 digits, four of different seeds, in place of VGG, ViT and text encoders."


def classifier(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Ridge regression on one-hot labels, [d + 1, 10]."""
    wide = np.c_[rows, np.ones(len(rows))]
    penalty = 1e-1 * np.trace(wide.T @ wide) / wide.shape[1]
    return np.linalg.solve(wide.T @ wide + penalty * np.eye(wide.shape[1]), wide.T @ np.eye(10)[labels])


def accuracy(weights: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> float:
    return float((np.c_[rows, np.ones(len(rows))] @ weights).argmax(1).__eq__(labels).mean())


def measured(seed: int, small: bool, *, anchored: bool) -> dict[str, float]:
    data = zoo.digits(seed=seed)
    images, digits = data.train_images, data.train_labels.numpy()
    held, truth = data.images, data.labels.numpy()
    spaces: list[tuple[np.ndarray, np.ndarray]] = []
    for one in range(4):
        net = zoo.train_digits(partial(zoo.DigitsMLP, 64, 2), data, epochs=20, seed=10 * seed + one).module
        spaces.append(tuple(ix.capture(net, part, sites="layers.1.0")["layers.1.0"].numpy() for part in (images, held)))
    found: dict[str, list[float]] = {name: [] for name in ("own", "absolute", "relative", "mapped", "cosine")}
    rng = np.random.default_rng(seed)
    for a, b in [(i, j) for i in range(len(spaces)) for j in range(len(spaces)) if i != j]:
        (train_a, held_a), (train_b, held_b) = spaces[a], spaces[b]
        shared = train_b if anchored else train_b[rng.permutation(len(train_b))]
        fitted = ix.align(train_a, shared, "relative", holdout=0, anchors=200, seed=seed)
        weights = classifier(fitted.relative(train_a).numpy(), digits)
        plain = classifier(train_a, digits)
        found["own"].append(accuracy(weights, fitted.relative(held_a).numpy(), truth))
        found["relative"].append(accuracy(weights, fitted.relative(held_b, of="b").numpy(), truth))
        found["absolute"].append(accuracy(plain, held_b, truth))
        found["mapped"].append(accuracy(plain, fitted.inverse(held_b).numpy(), truth))
        one, other = fitted.relative(held_a).numpy(), fitted.relative(held_b, of="b").numpy()
        found["cosine"].append(float(np.mean((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1))))
    return {name: float(np.mean(values)) for name, values in found.items()}


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    return measured(seed, small, anchored=True)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The anchors of the second network are of other stimuli."""
    return measured(seed, small, anchored=False)


CHECKS = {
    "a classifier reads the other network without training": lambda v: v["relative"] > 0.9 * v["own"],
    "relative coordinates lose little in the network itself": lambda v: v["own"] > 0.85,
    "as they are, activations of the other network mean nothing to it": lambda v: v["absolute"] < 0.4,
    "the two have nearly the same coordinates": lambda v: v["cosine"] > 0.8,
}
CONTROL_FAILS = "a classifier reads the other network without training"


def figure(values: dict[str, float]) -> Figure:
    drawn = Figure(figsize=(5.6, 3.2), layout="constrained")
    ax = drawn.subplots()
    names = {
        "own": "own network,\nrelative",
        "relative": "other network,\nrelative",
        "mapped": "other, mapped\nback",
        "absolute": "other network,\nas it is",
    }
    bars = ax.bar(list(names.values()), [values[name] for name in names], color=["#8c8b85", "#0072B2", "#56B4E9", "#D55E00"], width=0.62)
    ax.bar_label(bars, fmt="%.2f")
    ax.axhline(0.1, color="#6f6e69", linestyle=(0, (4, 3)), linewidth=1)
    ax.set_ylabel("accuracy in held-out images (dashed: chance)")
    ax.margins(y=0.12)
    ax.spines[["top", "right"]].set_visible(False)
    return drawn
