"""Words in language models of growing size, and the same words in a brain: how often does a map find the right one?"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

import inscape as ix

PAPER = (
    'Li, Karamolegkou, Kementchedjhieva, Abdou, Lehmann & Søgaard, "Structural similarities between language models and neural response '
    'measurements", 2023; Li, Kementchedjhieva, Fierro & Søgaard, "Do vision and language models share concepts?", TACL 2024'
)
CLAIM = (
    "The larger a language model, the more often a linear map finds a word's brain response among many (and the more alike the two "
    "spaces are); "
    "rare words and words of several senses are found less often."
)
SCALE = (
    "Everything is simulated: words are points of a shared space, a model of size s sees its first s directions with noise, more for "
    "rare words, "
    "and mixes the senses of a word that has several; the brain sees all of it through other units with noise. No text and no brain "
    "is read."
)
SIZES = (2, 4, 8, 16, 32)


class Words:
    """Words with a frequency and one sense or three, in a space whose directions matter less and less."""

    def __init__(self, n: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.scale = np.arange(1, 41) ** -0.5
        self.senses = self.rng.standard_normal((n, 3, 40)) * self.scale
        self.many = self.rng.random(n) < 0.5
        self.frequent = self.rng.random(n) < 0.5

    def brain(self) -> np.ndarray:
        """Responses of 60 units to the first sense."""
        clean = self.senses[:, 0] @ self.rng.standard_normal((40, 60)) / 40**0.5
        return clean + 0.25 * self.rng.standard_normal(clean.shape)

    def model(self, size: int) -> np.ndarray:
        """Vectors of 64 units; several senses are averaged, as far as the model knows them."""
        seen = np.where(self.many[:, None], 0.6 * self.senses[:, 0] + 0.4 * self.senses[:, 1:].mean(1), self.senses[:, 0])[:, :size]
        noise = np.where(self.frequent, 0.15, 0.6)[:, None] * self.rng.standard_normal(seen.shape) * self.scale[:size]
        return (seen + noise) @ self.rng.standard_normal((size, 64)) / 8


def measured(seed: int, small: bool, *, shared: bool) -> dict[str, float]:
    words = Words(500 if small else 1200, seed)
    brain = words.brain()
    if not shared:
        brain = brain[words.rng.permutation(len(brain))]
    kinds = {"frequent": words.frequent & ~words.many, "rare": ~words.frequent & ~words.many, "several_senses": words.frequent & words.many}
    found: dict[str, float] = {}
    for size in (SIZES[0], SIZES[-1]) if small else SIZES:
        vectors = words.model(size)
        train = np.arange(len(brain)) < len(brain) // 2
        fitted = ix.align(vectors[train], brain[train], "ridge", holdout=0, seed=seed)
        result = fitted.retrieval(10, vectors[~train], brain[~train], interval=None)
        found[f"found_{size}"] = result.value(at=10)
        found[f"rsa_{size}"] = ix.measures.rsa_spearman(vectors[~train][:150], brain[~train][:150])
        found["chance"] = result.column("null_mean")[0]
        if size == SIZES[-1]:
            for kind, chosen in kinds.items():
                one = chosen & ~train
                least = min((kind_rows & ~train).sum() for kind_rows in kinds.values())  # equal numbers of candidates
                rows = np.flatnonzero(one)[:least]
                found[f"found_{kind}"] = fitted.retrieval(1, vectors[rows], brain[rows], interval=None).value(at=1)
    return found


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    return measured(seed, small, shared=True)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The brain's responses belong to other words."""
    return measured(seed, small, shared=False)


CHECKS = {
    "the largest model's words are found far above chance": lambda v: v["found_32"] > 5 * v["chance"],
    "more often than the smallest model's": lambda v: v["found_32"] > 2 * v["found_2"],
    "and its space is more alike": lambda v: v["rsa_32"] > v["rsa_2"],
    "rare words are found less often": lambda v: v["found_rare"] < v["found_frequent"] - 0.05,
    "words of several senses too": lambda v: v["found_several_senses"] < v["found_frequent"] - 0.05,
}
CONTROL_FAILS = "the largest model's words are found far above chance"


def figure(values: dict[str, float]) -> Figure:
    drawn = Figure(figsize=(7.4, 3.1), layout="constrained")
    left, right = drawn.subplots(1, 2)
    sizes = [size for size in SIZES if f"found_{size}" in values]
    left.plot(sizes, [values[f"found_{size}"] for size in sizes], "o-", color="#0072B2")
    left.axhline(values["chance"], color="#6f6e69", linestyle=(0, (4, 3)), linewidth=1)
    left.set_xscale("log", base=2)
    left.set_xticks(sizes, [str(size) for size in sizes])
    left.set_xlabel("directions that the model sees")
    left.set_ylabel("found among 10 (dashed: chance)")
    left.set_ylim(0, 1)
    names = {"found_frequent": "frequent", "found_rare": "rare", "found_several_senses": "several\nsenses"}
    bars = right.bar(list(names.values()), [values[name] for name in names], color=["#0072B2", "#56B4E9", "#D55E00"], width=0.62)
    right.bar_label(bars, fmt="%.2f")
    right.set_ylabel("found at once, largest model")
    right.margins(y=0.15)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    return drawn
