"""Language models and image models that never met: does what they learned become more alike as they grow?"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import torch
from matplotlib.figure import Figure

import inscape as ix
from inscape import zoo

PAPER = 'Huh, Cheung, Wang & Isola, "The platonic representation hypothesis", ICML 2024'
CLAIM = "As models get larger, models of different seeds and of different modalities measure the distance between data in a more alike way."
SCALE = (
    "Language models of width 4 to 32 that read names of digits in made-up languages and sums of them, and image models of width 4 to 32 "
    "that sort scans of digits, in place of pretrained models of up to 65 billion weights on captioned photographs."
)
WIDTHS = (4, 8, 16, 32)
LANGUAGES, PLUS, IS, SAME, STOP = 6, 60, 61, 62, 63


def sentences(count: int, seed: int) -> zoo.Corpus:
    """Word ids: "a plus b is c" and "a same a same a", each number by its name in a language drawn at random; no picture is in them."""
    rng = np.random.default_rng(seed)
    rows: list[list[int]] = []
    for _ in range(count):
        a = int(rng.integers(10))
        word = lambda digit: digit * LANGUAGES + int(rng.integers(LANGUAGES))  # noqa: E731
        if rng.random() < 0.5:
            b = int(rng.integers(10 - a))
            rows.append([STOP, word(a), PLUS, word(b), IS, word(a + b)])
        else:
            rows.append([STOP, word(a), SAME, word(a), SAME, word(a)])
    ids = torch.tensor([i for row in rows for i in row], dtype=torch.uint8)
    cut = len(ids) * 9 // 10 // 6 * 6
    return zoo.Corpus(ids[:cut], ids[cut:], (), "sentences about digits")


def captions(digits: torch.Tensor, seed: int) -> list[list[int]]:
    """For each image "a same a same a" in three languages: 216 texts for one digit."""
    rng = np.random.default_rng(seed)
    names = rng.integers(LANGUAGES, size=(len(digits), 3))
    rows = [
        [STOP, d * LANGUAGES + n[0], SAME, d * LANGUAGES + n[1], SAME, d * LANGUAGES + n[2]]
        for d, n in zip(digits.tolist(), names, strict=True)
    ]
    return [[int(i) for i in row] for row in rows]


def image_models(data: zoo.Digits, seed: int, small: bool) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    for width in WIDTHS:
        model = zoo.train_digits(partial(zoo.DigitsMLP, width, 2), data, epochs=10 if small else 30, seed=seed).module
        found.append(ix.capture(model, data.images, sites="layers.1.0")["layers.1.0"].numpy())
    return found


def language_models(texts: list[list[int]], seed: int, small: bool) -> list[np.ndarray]:
    corpus = sentences(4000 if small else 20_000, seed)
    steps = 300 if small else 1000
    found: list[np.ndarray] = []
    for width in WIDTHS:
        make = partial(zoo.GPT, 64, width, 2, 1, 24)
        made = zoo.train(make, corpus, steps=steps, seed=seed, context=24, saved=[steps])
        model = ix.load(list(made)[-1].module)
        found.append(ix.capture(model, texts, sites="blocks.1.resid_post", tokens="last")["blocks.1.resid_post"].numpy())
    return found


def scores(first: list[np.ndarray], second: list[np.ndarray], name: str, seed: int) -> dict[str, float]:
    """Raw and calibrated alignment of models of one width, for each width."""
    values: dict[str, float] = {}
    for width, X, Y in zip(WIDTHS, first, second, strict=True):
        knn = ix.compare(X, Y, "mutual_knn", interval=None, null="permute", draws=100, seed=seed).rows()[0]
        cka = ix.compare(X, Y, "linear_cka", interval=None, null="closed").rows()[0]
        values |= {f"{name}_knn_{width}": knn["value"], f"{name}_knn_calibrated_{width}": knn["calibrated"]}
        values |= {f"{name}_cka_{width}": cka["value"], f"{name}_cka_calibrated_{width}": cka["calibrated"]}
    return values


def measured(seed: int, small: bool, *, broken: bool) -> dict[str, float]:
    data = zoo.digits(held_out=300 if small else 600, seed=seed)
    texts = captions(data.labels, seed)
    order = np.random.default_rng(seed).permutation(len(texts)) if broken else np.arange(len(texts))
    seeds = (10 * seed, 10 * seed + 1)
    pictures = [image_models(data, one, small) for one in seeds]
    words = [language_models(texts, one, small) for one in seeds]
    pairs = {"seeds of image models": pictures, "seeds of language models": words, "image and language": [pictures[0], words[0]]}
    values: dict[str, float] = {}
    for name, (first, second) in pairs.items():
        values |= scores(first, [Y[order] for Y in second], name.replace(" ", "_"), seed)
    return values


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    return measured(seed, small, broken=False)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """Every stimulus of the second model stands beside another one of the first."""
    return measured(seed, small, broken=True)


def grows(v: dict[str, float], name: str) -> bool:
    return v[f"{name}_{WIDTHS[-1]}"] > v[f"{name}_{WIDTHS[0]}"] + 0.05


def steadily(v: dict[str, float], name: str) -> bool:
    return sum(v[f"{name}_{b}"] > v[f"{name}_{a}"] - 0.01 for a, b in pairwise(WIDTHS)) == len(WIDTHS) - 1


CHECKS = {
    "modalities converge with size": lambda v: grows(v, "image_and_language_knn"),
    "steadily": lambda v: steadily(v, "image_and_language_knn"),
    "also calibrated": lambda v: grows(v, "image_and_language_knn_calibrated"),
    "seeds of image models converge with size": lambda v: grows(v, "seeds_of_image_models_knn"),
    "seeds of language models converge with size": lambda v: grows(v, "seeds_of_language_models_knn"),
}
CONTROL_FAILS = "modalities converge with size"
VERDICT = (
    "Image and language models converge with size at two of three seeds, raw and calibrated, and not by the margin of .05 at the third; "
    "seeds of image models always do. Seeds of language models do at two of three: where the smallest model already learns the few "
    "neighborhoods that there are, nothing is left to converge."
)


def figure(values: dict[str, float]) -> Figure:
    drawn = Figure(figsize=(9.6, 3.1), layout="constrained")
    names = {"seeds_of_image_models": "#0072B2", "seeds_of_language_models": "#009E73", "image_and_language": "#D55E00"}
    for ax, measure, label in zip(drawn.subplots(1, 2, sharey=True), ("knn", "cka"), ("mutual kNN (k = 10)", "linear CKA"), strict=True):
        for name, color in names.items():
            for kind, style in (("", "-o"), ("_calibrated", "--s")):
                heights = [values[f"{name}_{measure}{kind}_{width}"] for width in WIDTHS]
                ax.plot(WIDTHS, heights, style, color=color, markersize=3.5, label=name.replace("_", " ") if not kind else None)
        ax.plot([], [], "k--s", markersize=3.5, label="calibrated: 0 is chance")
        ax.set_xscale("log", base=2)
        ax.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
        ax.set_xlabel("width of both models")
        ax.set_title(label, fontsize=10)
        ax.set_ylim(-0.02, 1)
        ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    drawn.axes[0].set_ylabel("alignment")
    return drawn
