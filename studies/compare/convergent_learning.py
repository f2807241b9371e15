"""Three language models that differ in their seed alone: which of their units are the same, and which only span the same space."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from matplotlib.figure import Figure

import inscape as ix
from inscape import zoo

PAPER = 'Li, Yosinski, Clune, Lipson & Hopcroft, "Convergent learning: do different neural networks learn the same representations?", 2015'
CLAIM = (
    "Some units are learned reliably by every network and others are not; the subspaces that units span are shared far better than the "
    "units themselves."
)
SCALE = "Three GPTs of 2 layers and width 48 on Python source in place of three AlexNets on ImageNet; 192 units of the first MLP each."
SITE = "blocks.0.mlp_act"


def activations(seed: int, small: bool) -> list[np.ndarray]:
    """Rows [n, 192] of the same held-out characters from three networks."""
    corpus = zoo.standard_library(600_000)
    width, steps = (24, 250) if small else (48, 800)
    texts = corpus.windows(60 if small else 150, 48)
    found: list[np.ndarray] = []
    for network in range(3):
        last = list(zoo.train(lambda: zoo.GPT(258, d=width, layers=2), corpus, steps=steps, seed=10 * seed + network, saved=[steps]))[-1]
        model = ix.load(last.module, tokenizer=zoo.ByteTokenizer())
        # Eight of the 48 characters of a text: neighbors in a text are not independent.
        found.append(ix.capture(model, texts, sites=SITE, tokens=slice(8, 48, 5))[SITE].numpy().astype(np.float64))
    return found


def rotated(X: np.ndarray, seed: int) -> np.ndarray:
    """The same space in another basis."""
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((X.shape[1], X.shape[1])))[0]
    return (X - X.mean(0)) @ Q


def measured(sites: list[np.ndarray], seed: int, small: bool) -> dict[str, float]:
    result: dict[str, list[float]] = {}
    for X, Y in combinations(sites, 2):
        found = ix.compare(X, Y, "neuron_match", interval=None, null="permute", draws=20, seed=seed).rows()[0]
        best = np.corrcoef(X.T, Y.T)[: X.shape[1], X.shape[1] :]
        best = np.nan_to_num(best).max(1)
        one = {"matched_mean_r": found["value"], "chance_mean_r": found["null_mean"], "p": found["p"]}
        one |= {f"units_above_{int(10 * at)}": float((best > at).mean()) for at in (0.3, 0.5, 0.7, 0.9)}
        one |= {"matched_mean_r_rotated": ix.measures.neuron_match(rotated(X, seed), Y)}
        one |= {"one_unit_r2": float(np.mean(best**2)), "few_units_r2": ix.measures.one_to_many_lasso(Y, X, penalty=0.2)}
        one |= {"subspace_r2": ix.measures.ridge_r2(Y, X), "cka": ix.measures.linear_cka_debiased(X, Y)}
        for name, value in one.items():
            result.setdefault(name, []).append(float(value))
    return {name: float(np.mean(values)) for name, values in result.items()}


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    return measured(activations(seed, small), seed, small)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The networks no longer see the same characters: rows of each are shuffled by themselves."""
    rng = np.random.default_rng(seed)
    return measured([X[rng.permutation(len(X))] for X in activations(seed, small)], seed, small)


CHECKS = {
    "units match beyond chance": lambda v: v["matched_mean_r"] > 1.5 * v["chance_mean_r"] and v["p"] <= 0.05,
    "some units are learned reliably": lambda v: v["units_above_7"] > 0.02,
    "most units are not": lambda v: v["units_above_7"] < 0.5,
    "the basis matters": lambda v: v["matched_mean_r"] > 1.1 * v["matched_mean_r_rotated"],
    "subspaces are shared better than units": lambda v: v["subspace_r2"] > 1.5 * v["one_unit_r2"],
    "a few units predict better than one": lambda v: v["few_units_r2"] > v["one_unit_r2"],
}
CONTROL_FAILS = "units match beyond chance"
VERDICT = (
    "At full size every check holds at every seed. It depends on training: after less of it, as at the small size, the networks still "
    "share most of their units, which have learned little but the frequent characters, and a rotated basis matches nearly as well."
)


def figure(values: dict[str, float]) -> Figure:
    drawn = Figure(figsize=(9.0, 3.0), layout="constrained")
    left, right = drawn.subplots(1, 2, width_ratios=(1, 1.25))
    places = (0.3, 0.5, 0.7, 0.9)
    left.bar([str(at) for at in places], [values[f"units_above_{int(10 * at)}"] for at in places], color="#0072B2", width=0.6)
    left.set_ylim(0, 1)
    left.set_xlabel("correlation with the best unit above")
    left.set_ylabel("share of units")
    names = {"one_unit_r2": "the best unit", "few_units_r2": "a few units (lasso)", "subspace_r2": "all units (ridge, held out)"}
    bars = right.barh(list(names.values()), [values[name] for name in names], color=("#56B4E9", "#009E73", "#D55E00"), height=0.55)
    right.bar_label(bars, fmt="%.2f", padding=3)
    right.set_xlim(0, 1)
    right.invert_yaxis()
    right.set_xlabel("variance of a unit that another network explains")
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    return drawn
