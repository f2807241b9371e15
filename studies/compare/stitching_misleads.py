"""One network stitched to itself, layer by layer, by the task and by the activations."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.figure import Figure

from inscape import maps, zoo

PAPER = 'Balogh & Jelasity, "How not to stitch representations to measure similarity: task loss matching versus direct matching", AAAI 2025'
CLAIM = (
    "A stitching layer that is trained on the task finds distant layers as alike as a layer and itself and sends activations that the "
    "network "
    "never sees; fitted on the activations, it puts every layer next to itself."
)
SCALE = (
    "A fully connected network of four layers of 48 units on scans of 8 × 8 digits, in place of ResNets and ViTs on CIFAR-10 and ImageNet."
)


def scores(net: object, front: object, data: zoo.Digits, sites: list[str], by: str, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and explained variance of every front layer stitched to every back layer, [front, back]."""
    found = np.zeros((2, len(sites), len(sites)))
    for i, first in enumerate(sites):
        for j, second in enumerate(sites):
            made = maps.stitch(front, net, data.images, data.labels, (first, second), by, steps=steps, seed=seed).scores
            found[:, i, j] = made.value(measure="stitch_accuracy"), made.value(measure="stitch_r2")
    return found[0], found[1]


def measured(seed: int, small: bool, *, by: str) -> dict[str, float]:
    data = zoo.digits(held_out=700, seed=seed)
    sites = ["layers.0", "layers.3"] if small else [f"layers.{i}" for i in range(4)]
    net = zoo.train_digits(partial(zoo.DigitsMLP, 48, 4), data, epochs=6 if small else 12, seed=seed).module
    steps = 80 if small else 120
    accuracy, sent = scores(net, net, data, sites, by, steps, seed)
    _, fitted = scores(net, net, data, sites, "direct", steps, seed)
    last = sites[-1:]
    fresh, fresh_sent = scores(net, maps.untrained(net, seed=seed), data, last, by, steps, seed)
    own = np.diag(accuracy)
    return {
        "accuracy_own": float(own.mean()),
        "accuracy_far": float((accuracy[0, -1] + accuracy[-1, 0]) / 2),
        "accuracy_untrained": float(fresh[0, 0]),
        "own_is_best_by_task": float(np.mean(own > np.where(np.eye(len(own), dtype=bool), -1, accuracy).max(0))),
        "own_is_best_directly": float(np.mean(np.diag(fitted) > np.where(np.eye(len(own), dtype=bool), -1, fitted).max(0))),
        "r2_own_by_task": float(np.diag(sent).mean()),
        "r2_own_directly": float(np.diag(fitted).mean()),
        "r2_far_directly": float((fitted[0, -1] + fitted[-1, 0]) / 2),
        "r2_untrained_by_task": float(fresh_sent[0, 0]),
    }


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    return measured(seed, small, by="task")


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The layer is fitted on the activations in place of the task."""
    return measured(seed, small, by="direct")


CHECKS = {
    "fitted directly, every layer is nearest to itself": lambda v: v["own_is_best_directly"] == 1,
    "trained on the task, not every layer is": lambda v: v["own_is_best_by_task"] < 1,
    "by the task the most distant layers are as alike as equal ones": lambda v: v["accuracy_far"] > v["accuracy_own"] - 0.03,
    "directly they are not": lambda v: v["r2_far_directly"] < v["r2_own_directly"] - 0.03,
    "the layer that was trained on the task sends what the network never sees": lambda v: v["r2_own_by_task"] < 0.9,
}
CONTROL_FAILS = "the layer that was trained on the task sends what the network never sees"


def figure(values: dict[str, float]) -> Figure:
    drawn = Figure(figsize=(7.4, 3.1), layout="constrained")
    left, right = drawn.subplots(1, 2)
    bars = left.bar(
        ["itself", "farthest\nlayer", "untrained\nnetwork"],
        [values["accuracy_own"], values["accuracy_far"], values["accuracy_untrained"]],
        color=["#0072B2", "#56B4E9", "#8c8b85"],
        width=0.62,
    )
    left.bar_label(bars, fmt="%.2f")
    left.set_ylabel("accuracy, trained on the task")
    names = ["itself,\ndirectly", "farthest,\ndirectly", "itself,\nby the task"]
    bars = right.bar(
        names,
        [values["r2_own_directly"], values["r2_far_directly"], max(values["r2_own_by_task"], 0)],
        color=["#0072B2", "#56B4E9", "#D55E00"],
        width=0.62,
    )
    right.bar_label(bars, labels=[f"{values[key]:.2f}" for key in ("r2_own_directly", "r2_far_directly", "r2_own_by_task")])
    right.set_ylabel("variance explained of the layer")
    for ax in (left, right):
        ax.margins(y=0.15)
        ax.spines[["top", "right"]].set_visible(False)
    return drawn
