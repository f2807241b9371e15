"""Raters are simulated: people with tastes of their own, and a language model that is asked many times."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

import inscape as ix
from inscape import rsa

PAPER = 'Ogg, Bose, Scharf, Ratto & Wolmetz, "Turing representational similarity analysis (RSA)", 2024'
CLAIM = (
    "Pairwise similarity ratings put models and people into one space: a model can agree with the group as well as people do, while its "
    "runs differ from each other far less than people differ."
)
SCALE = (
    "Ratings are simulated: 24 items in four categories, 20 people and 20 runs of a model, each rating 70 % of the pairs on a scale of 1 "
    "to 7. No language model is asked."
)


def ratings(points: np.ndarray, taste: float, noise: float, count: int, seed: int) -> dict[str, list]:
    """A table of judgments: each rater stretches the space in a way of their own, errs, and rounds to whole numbers."""
    rng = np.random.default_rng(seed)
    table: dict[str, list] = {"first": [], "second": [], "rating": [], "rater": []}
    n, d = points.shape
    for rater in range(count):
        own = points * np.exp(taste * rng.standard_normal(d))
        far = np.linalg.norm(own[:, None] - own[None], axis=-1)
        similar = 7 - 6 * far / far.max() + noise * rng.standard_normal((n, n))
        for i in range(n):
            for j in range(i + 1, n):
                if rng.random() < 0.7:
                    table["first"].append(f"item{i:02d}")
                    table["second"].append(f"item{j:02d}")
                    table["rating"].append(float(np.clip(np.rint(similar[i, j]), 1, 7)))
                    table["rater"].append(f"r{rater}")
    return table


def mean_agreement(stack: rsa.RDMs) -> float:
    """Mean rank correlation of all pairs of raters, over the pairs of items that both rated."""
    found = [
        ix.compare(one, other, "rsa_spearman", interval=None).value(axis=None)
        for k, one in enumerate(stack)
        for other in list(stack)[k + 1 :]
    ]
    return float(np.mean(found))


def measured(seed: int, small: bool, *, same: bool) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    n, count = (16, 8) if small else (24, 20)
    points = rng.standard_normal((4, 6)).repeat(n // 4, 0) + 0.6 * rng.standard_normal((n, 6))
    ids = [f"item{i:02d}" for i in range(n)]
    # The model is one rater with a taste of its own, asked again and again.
    bent = points * np.exp(0.4 * np.random.default_rng(seed + 50).standard_normal(6))
    people = rsa.from_ratings(ratings(points, 0.7, 0.9, count, seed + 1), rater="rater", scale=(1, 7), stimuli=ids)
    told = ratings(points, 0.7, 0.9, count, seed + 2) if same else ratings(bent, 0.0, 0.5, count, seed + 2)
    runs = rsa.from_ratings(told, rater="rater", scale=(1, 7), stimuli=ids)
    unrelated = rsa.from_ratings(ratings(rng.standard_normal((n, 6)), 0.0, 0.5, count, seed + 3), rater="rater", scale=(1, 7), stimuli=ids)
    models = rsa.RDMs.concat([runs.pool("rsa_spearman"), unrelated.pool("rsa_spearman")]).with_columns(
        subjects={"subject": ["model", "unrelated"]}
    )
    result = ix.compare(models, people, "rsa_spearman", generalize_to="subjects", ceiling=True)
    group = people.pool("rsa_spearman")
    return {
        "model": result.value(system="model", axis=None),
        "unrelated": result.value(system="unrelated", axis=None),
        "ceiling_low": result.value(at="lower"),
        "ceiling_high": result.value(at="upper"),
        "group": ix.compare(models["model"], group, "rsa_spearman", interval=None).value(axis=None),
        "between_people": mean_agreement(people),
        "between_runs": mean_agreement(runs),
    }


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    return measured(seed, small, same=False)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The runs of the model have tastes that differ like people's."""
    return measured(seed, small, same=True)


CHECKS = {
    "the model agrees with the group": lambda v: v["group"] > 0.6,
    "with single people it reaches most of the ceiling": lambda v: v["model"] > 0.8 * v["ceiling_low"],
    "an unrelated model does not": lambda v: v["unrelated"] < 0.3 * v["ceiling_low"],
    "its runs differ less than people do": lambda v: 1 - v["between_runs"] < 0.5 * (1 - v["between_people"]),
}
CONTROL_FAILS = "its runs differ less than people do"


def figure(values: dict[str, float]) -> Figure:
    drawn = Figure(figsize=(7.4, 3.0), layout="constrained")
    left, right = drawn.subplots(1, 2)
    left.axhspan(values["ceiling_low"], values["ceiling_high"], color="#6f6e69", alpha=0.22, linewidth=0)
    bars = left.bar(["model", "unrelated"], [values["model"], values["unrelated"]], color=["#0072B2", "#56B4E9"], width=0.6)
    left.bar_label(bars, fmt="%.2f")
    left.set_ylabel("Spearman with single people")
    left.set_xlabel("gray: noise ceiling")
    bars = right.bar(
        ["people", "runs of the model"], [values["between_people"], values["between_runs"]], color=["#D55E00", "#0072B2"], width=0.6
    )
    right.bar_label(bars, fmt="%.2f")
    right.set_ylabel("Spearman between raters")
    for ax in (left, right):
        ax.margins(y=0.15)
        ax.spines[["top", "right"]].set_visible(False)
    return drawn
