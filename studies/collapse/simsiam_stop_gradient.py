"""SimSiam keeps its images apart by the stopped gradient alone: without it every image gets one vector while the loss is at its best."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

import inscape as ix

PAPER = "Chen & He, 'Exploring simple siamese representation learning', CVPR 2021"
CLAIM = (
    "Without the stopped gradient the loss of SimSiam quickly reaches its minimum of −1 and the outputs become one vector; with it the "
    "outputs keep a spread near that of a round cloud, at a worse loss."
)
SCALE = "A three-layer network on 1,197 images of handwritten digits for 500 steps, in place of a ResNet-50 on ImageNet."


def spread(values: Any) -> float:
    return values["spread of directions at the end"]


CHECKS = {
    "outputs keep their spread": lambda v: spread(v) > 0.5,
    "the entropy of the spectrum stays above one nat": lambda v: v["von Neumann entropy at the end"] > 1,
    "the loss stays away from its minimum": lambda v: v["loss at the end"] > -0.95,
    "neighbors still name the digit": lambda v: v["kNN accuracy at the end"] > 0.9,
}
CONTROL_FAILS = "outputs keep their spread"


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    return _measured(seed, small, healthy=True)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The same network, images and order without the stopped gradient."""
    return _measured(seed, small, healthy=False)


def _measured(seed: int, small: bool, *, healthy: bool) -> dict[str, float]:
    """`spread` is the share of rows' squared length about their mean direction: 1 minus the mean cosine of two different rows."""
    training = ix.zoo.collapse_run("simsiam", healthy=healthy, seed=seed)
    steps = 200 if small else training.steps
    mon = ix.Monitor(training.model, training.stimuli, "projector", ["mean_cosine", "von_neumann_entropy"], max(1, steps // 20))
    losses: list[float] = []
    for _ in range(steps):
        loss = training.update()
        losses.append(float(loss))
        mon.step(loss)
    result = mon.result()
    found: dict[str, float] = {}
    for step in result.unique("at"):
        found[f"spread of directions, step {step}"] = 1 - result.value(measure="mean_cosine", at=step)
        found[f"loss, step {step}"] = result.value(measure="loss", at=step)
    last = result.unique("at")[-1]
    return found | {
        "spread of directions at the end": found[f"spread of directions, step {last}"],
        "von Neumann entropy at the end": result.value(measure="von_neumann_entropy", at=last),
        "loss at the end": sum(losses[-10:]) / 10,
        "kNN accuracy at the end": training.metric(),
    }


def figure(values: dict[str, float]) -> Figure:
    drawn = Figure(figsize=(6.4, 3.2), layout="constrained")
    left, right = drawn.subplots(1, 2)
    for axes, name, title in ((left, "spread of directions", "Spread of the outputs"), (right, "loss", "Loss")):
        points = [(int(key.rsplit(" ", 1)[1]), value) for key, value in values.items() if key.startswith(f"{name}, step ")]
        axes.plot(*zip(*sorted(points), strict=True), color="#2563eb")
        axes.set_title(title, loc="left")
        axes.set_xlabel("training step")
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylim(0, 1.05)
    right.set_ylim(-1, 0)
    return drawn
