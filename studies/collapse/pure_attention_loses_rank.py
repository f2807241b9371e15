"""Attention without skip connections: tokens become one vector doubly exponentially with depth."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

import inscape as ix

PAPER = "Dong, Cordonnier & Loukas 2021, Attention is not all you need: pure attention loses rank doubly exponentially with depth"
CLAIM = (
    "Layers of attention alone turn the tokens of a sequence into one vector, and each layer multiplies the exponent of what is left; "
    "skip connections keep the tokens apart."
)
SCALE = "Networks at initialization with random Gaussian tokens (32 × 64, four heads), not BERT, ALBERT and XLNet on text."

LAYERS = 12
TOKENS, WIDTH, HEADS = 32, 64, 4

CHECKS = {
    "pure attention leaves less than 1e-8 of the tokens' differences at layer 6": lambda v: v["pure_6"] < 1e-8,
    # one exponential would multiply log(residual) by 3/2 from layer 2 to 3; the theorem's exponent triples with each layer
    "the exponent more than doubles from one layer to the next": lambda v: v["growth"] > 2,
    "with skip connections a tenth is left at layer 12": lambda v: v["skip_12"] > 0.1,
    "an MLP without skip connection does not stop it": lambda v: v["mlp_12"] < 1e-8,
}
CONTROL_FAILS = "pure attention leaves less than 1e-8 of the tokens' differences at layer 6"
VERDICT = (
    "Holds, except that in random networks without skip connections a ReLU MLP after each layer does not slow the collapse down, "
    "where the paper finds that it does."
)


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The share of the tokens' norm that is not their mean, after each layer."""
    return _residuals(seed, 4 if small else 20, mixing=True)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """Every token attends to itself alone: the same maps, but nothing is mixed."""
    return _residuals(seed, 4 if small else 20, mixing=False)


def _residuals(seed: int, sequences: int, *, mixing: bool) -> dict[str, float]:
    values: dict[str, float] = {}
    for kind in ("pure", "skip", "mlp"):
        left = np.ones((sequences, LAYERS + 1))
        for index in range(sequences):
            rng = np.random.default_rng((seed, index))
            X = rng.standard_normal((TOKENS, WIDTH))
            left[index, 0] = ix.measures.rank_collapse(X)
            for layer in range(LAYERS):
                X = _layer(X, rng, mixing=mixing, skip=kind == "skip", mlp=kind == "mlp")
                left[index, layer + 1] = ix.measures.rank_collapse(X)
        typical = np.median(left, axis=0)
        values |= {f"{kind}_{layer}": float(value) for layer, value in enumerate(typical)}
    first, second = np.log(max(values["pure_2"], 1e-300)), np.log(max(values["pure_3"], 1e-300))
    return values | {"growth": float(second / first) if first != 0 else 0.0}


def _layer(X: np.ndarray, rng: np.random.Generator, *, mixing: bool, skip: bool, mlp: bool) -> np.ndarray:
    """One layer with fresh weights; rows keep their size, which `rank_collapse` ignores."""
    width = WIDTH // HEADS
    out = np.zeros_like(X)
    for _ in range(HEADS):
        Q, K, V = (rng.standard_normal((WIDTH, width)) / np.sqrt(WIDTH) for _ in range(3))
        scores = (X @ Q) @ (X @ K).T / np.sqrt(width)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        pattern = weights / weights.sum(1, keepdims=True) if mixing else np.eye(len(X))
        out += pattern @ X @ V @ rng.standard_normal((width, WIDTH)) / np.sqrt(WIDTH)
    X = X + out if skip else out
    if mlp:
        up, down = rng.standard_normal((WIDTH, 4 * WIDTH)) / np.sqrt(WIDTH), rng.standard_normal((4 * WIDTH, WIDTH)) / np.sqrt(4 * WIDTH)
        X = np.maximum(X @ up, 0) @ down
    return X / np.sqrt(np.mean(X**2))


def figure(values: dict[str, float]) -> Figure:
    """Residual against depth on a logarithmic axis."""
    drawn = Figure(figsize=(5.2, 3.4), layout="constrained")
    ax = drawn.subplots()
    names = {"pure": "attention alone", "mlp": "with MLP", "skip": "with skip connection"}
    for kind, color in (("pure", "#D55E00"), ("mlp", "#E69F00"), ("skip", "#0072B2")):
        layers = range(LAYERS + 1)
        ax.semilogy(layers, [max(values[f"{kind}_{layer}"], 1e-17) for layer in layers], "o-", ms=3.5, color=color, label=names[kind])
    ax.set(xlabel="layers of attention", ylabel="rank_collapse: share that is not the mean", xlim=(0, LAYERS))
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return drawn
