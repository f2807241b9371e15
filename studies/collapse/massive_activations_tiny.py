"""Massive activations: whether a language model of a quarter of a million parameters has any, where they lie, and what they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

import inscape as ix

PAPER = "Sun, Chen, Kolter & Liu, Massive activations in large language models, COLM 2024"
CLAIM = (
    "A few activations of a trained language model are thousands of times larger than the rest. They lie in fixed units at the first "
    "token, hardly depend on the input, and act as biases that the model cannot do without."
)
SCALE = (
    "A GPT of 4 layers and 64 units trained for 512 steps on bytes of Python source, in place of LLaMA2, Mistral and ViTs of up to 70 "
    "billion parameters on text and images. The limits of the checks are the paper's where it has any; the share of entries in one unit "
    "and the growth against the untrained model were set after a look at one seed."
)
VERDICT = (
    "No massive activations at this size: the largest entry is about 10 times the median, where the paper's are above 1,000. It comes at "
    "any token, follows the input, and its unit does little more for the loss than others do. What holds is that it stands out more "
    "after training than before."
)

LAYERS, CONTEXT = 4, 64
SITES = [f"blocks.{layer}.resid_post" for layer in range(LAYERS)]


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    """One model after training and before it."""
    corpus = ix.zoo.standard_library()
    steps = 64 if small else 512
    before, after = ix.zoo.train(lambda: ix.zoo.GPT(259), corpus, steps=steps, seed=seed, saved=[0, steps])
    texts = _windows(corpus, 16 if small else 96)
    return _read(after.module, texts, "trained") | _read(before.module, texts, "untrained")


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """The untrained model in both places."""
    torch.manual_seed(seed)
    model = ix.zoo.GPT(259).eval()
    texts = _windows(ix.zoo.standard_library(), 16 if small else 96)
    return _read(model, texts, "trained") | _read(model, texts, "untrained")


def _windows(corpus: Any, count: int) -> torch.Tensor:
    """Byte ids [count, 64], evenly spread over text that was held out."""
    starts = torch.linspace(0, len(corpus.held_out) - CONTEXT, count).long().tolist()
    return torch.stack([corpus.held_out[start : start + CONTEXT] for start in starts]).long()


def _read(module: Any, ids: torch.Tensor, name: str) -> dict[str, float]:
    """The largest entries of every layer; at the layer where they stand out most their place, constancy and effect."""
    model = ix.load(module)
    store = ix.capture(model, ids, sites=SITES, tokens="all")
    found = {site: ix.measures.massive_activations(store[site]) for site in SITES}
    values = {f"{name} ratio {site}": found[site].value for site in SITES}
    site = max(SITES, key=lambda one: found[one].value)
    places = [tuple(int(number) for number in at.split(", ")) for at in found[site].at]  # row, unit
    unit, count = Counter(unit for _, unit in places).most_common(1)[0]
    X = store[site].numpy().astype(np.float64)
    column = X[:, unit]
    base = _loss(model, ids)
    others = [other for other in range(0, X.shape[1], 8) if other != unit]
    costs = [_loss_without(model, ids, site, other, None) - base for other in others]
    return values | {
        f"{name} ratio": found[site].value,
        f"{name} loss": base,
        f"{name} one unit": count / len(places),
        f"{name} first token": sum(row % CONTEXT == 0 for row, _ in places) / len(places),
        f"{name} mean over deviation": float(abs(column.mean()) / column.std()),
        f"{name} cost of zero": _loss_without(model, ids, site, unit, None) - base,
        f"{name} cost of mean": _loss_without(model, ids, site, unit, X.mean(0)) - base,
        f"{name} cost of another unit": float(np.median(costs)),
    }


def _loss(model: Any, ids: torch.Tensor) -> float:
    with torch.no_grad():
        logits = model.module(ids)
    return float(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))


def _loss_without(model: Any, ids: torch.Tensor, site: str, unit: int, mean: np.ndarray | None) -> float:
    """The loss with one unit of a site set to zero, or to its mean."""
    edit = ix.edits.ablate(units=(unit,)) if mean is None else ix.edits.ablate(units=(unit,), mode="mean", mean=mean)
    with ix.edit(model, site, edit):
        return _loss(model, ids)


CHECKS = {
    "the largest entry is above 1,000 times the median": lambda v: v["trained ratio"] > 1000,
    "it stands out more than in the untrained model": lambda v: v["trained ratio"] > 1.2 * v["untrained ratio"],
    "the largest entries of the layer lie in one unit": lambda v: v["trained one unit"] >= 0.7,
    "they lie at the first token": lambda v: v["trained first token"] > 0.5,
    "the unit hardly depends on the input": lambda v: v["trained mean over deviation"] > 3,
    "setting the unit to zero costs ten times what another unit does": lambda v: (
        v["trained cost of zero"] > 10 * max(0.0, v["trained cost of another unit"])
    ),
    "setting it to its mean costs nothing": lambda v: v["trained cost of mean"] < 0.1 * v["trained cost of zero"],
}
CONTROL_FAILS = "it stands out more than in the untrained model"


def figure(values: Mapping[str, float]) -> Any:
    """The largest entry over depth before and after training, and the line above which the paper calls it massive."""
    drawn = Figure(figsize=(5.2, 3.4), layout="constrained")
    ax = drawn.subplots()
    for name, color in (("trained", "#0072B2"), ("untrained", "#D55E00")):
        ax.semilogy(range(LAYERS), [values[f"{name} ratio {site}"] for site in SITES], "o-", ms=4, color=color, label=name)
    ax.axhline(1000, color="#6f6e69", lw=1, ls="--")
    ax.annotate("massive, in the paper's words", (0, 1000), (0, -4), textcoords="offset points", va="top", fontsize=8.5, color="#6f6e69")
    ax.set(xlabel="block", ylabel="largest entry over the median", xticks=range(LAYERS), ylim=(1, 3000))
    ax.legend(frameon=False, loc="center right")
    ax.spines[["top", "right"]].set_visible(False)
    return drawn
