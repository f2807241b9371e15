"""Does aligning a model with human judgments also give its graph of neighbors the curvature of theirs?"""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

import inscape as ix

PAPER = (
    'Torbati, Gaebler, Hofmann & Scherf, "Exploring geometric representational alignment through Ollivier-Ricci curvature and Ricci '
    'flow", 2025'
)
CLAIM = (
    "Curvature of the graph of neighbors tells how human judgments and a model differ locally: a model that is aligned with the "
    "judgments comes "
    "closer to their distribution of curvatures and to their communities."
)
SCALE = (
    "Simulated faces in six kinds: people sort them by kind, the model also by pose and light, which vary smoothly and more. The "
    "aligned model is "
    "a ridge map of the model to the judgments of other faces, in place of VGG-Face fine-tuned on a large online study."
)


def faces(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Judgments [n, 8] and what the model holds [n, 40]."""
    kind = rng.integers(6, size=n)
    person = 4.5 * np.eye(8)[kind] + 0.6 * rng.standard_normal((n, 8))
    pose = rng.uniform(-9, 9, (n, 2))
    judged = person + 0.3 * rng.standard_normal(person.shape)
    return judged, np.c_[person, pose]


def measured(seed: int, small: bool, *, informative: bool) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    n = 120 if small else 200
    judged, held = faces(2 * n, rng)
    if not informative:
        judged = judged[rng.permutation(len(judged))]
    mixing = rng.standard_normal((held.shape[1], 40)) / 40**0.5
    model = held @ mixing + 0.05 * rng.standard_normal((2 * n, 40))
    fitted = ix.align(model[:n], judged[:n], "ridge", holdout=0)
    people, before, after = judged[n:], model[n:], fitted.transform(model[n:]).numpy()
    other = faces(n, rng)[0]
    edges = 60 if small else 100
    apart = {
        name: ix.measures.ricci_difference(people, rows, edges=edges)
        for name, rows in (("model", before), ("aligned", after), ("people", other))
    }
    groups = {
        name: float(ix.measures.ricci_communities(rows, landmarks=80))
        for name, rows in (("people", people), ("model", before), ("aligned", after))
    }
    curved = {
        name: float(ix.measures.ollivier_ricci(rows, edges=edges))
        for name, rows in (("people", people), ("model", before), ("aligned", after))
    }
    return {
        **{f"apart_{name}": value for name, value in apart.items()},
        **{f"groups_{name}": value for name, value in groups.items()},
        **{f"curvature_{name}": value for name, value in curved.items()},
        "rsa_model": ix.measures.rsa_spearman(people, before),
        "rsa_aligned": ix.measures.rsa_spearman(people, after),
    }


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    return measured(seed, small, informative=True)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The judgments belong to other faces, so there is nothing to align with."""
    return measured(seed, small, informative=False)


CHECKS = {
    "aligned, the model's curvatures are nearer to people's": lambda v: v["apart_aligned"] < 0.7 * v["apart_model"],
    "its communities are nearer in number": lambda v: (
        abs(v["groups_aligned"] - v["groups_people"]) <= abs(v["groups_model"] - v["groups_people"])
    ),
    "other judgments of the same kind are nearer still than the model": lambda v: v["apart_people"] < v["apart_model"],
    "its dissimilarities are nearer as well": lambda v: v["rsa_aligned"] > v["rsa_model"] + 0.1,
}
CONTROL_FAILS = "its dissimilarities are nearer as well"


def figure(values: dict[str, float]) -> Figure:
    drawn = Figure(figsize=(7.4, 3.0), layout="constrained")
    left, right = drawn.subplots(1, 2)
    bars = left.bar(
        ["model", "aligned\nmodel", "other faces,\nsame people"],
        [values["apart_model"], values["apart_aligned"], values["apart_people"]],
        color=["#D55E00", "#0072B2", "#8c8b85"],
        width=0.62,
    )
    left.bar_label(bars, fmt="%.3f")
    left.set_ylabel("distance of curvatures from people's")
    bars = right.bar(
        ["people", "model", "aligned\nmodel"],
        [values["groups_people"], values["groups_model"], values["groups_aligned"]],
        color=["#8c8b85", "#D55E00", "#0072B2"],
        width=0.62,
    )
    right.bar_label(bars, fmt="%.0f")
    right.set_ylabel("communities")
    for ax in (left, right):
        ax.margins(y=0.15)
        ax.spines[["top", "right"]].set_visible(False)
    return drawn
