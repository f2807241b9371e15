"""Attention models and convolutions trained on the same images build their layers differently."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

import inscape as ix
from inscape import zoo

PAPER = 'Raghu, Unterthiner, Kornblith, Zhang & Dosovitskiy, "Do vision transformers see like convolutional neural networks?", NeurIPS 2021'
CLAIM = (
    "A vision transformer's layers are more alike each other than a convolutional network's, and some of its heads look across the whole "
    "image already in the lowest layer."
)
SCALE = (
    "Digits of 8 × 8 pixels in place of ImageNet, 8 blocks of width 32 in place of 12 to 32 of 768 and more, and a plain CNN of 8 layers."
)


class CNN(nn.Module):
    """Eight convolutions without shortcuts, halving the image twice."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((1, 16, 1), *[(16, 16, 1)] * 2, (16, 32, 2), *[(32, 32, 1)] * 2, (32, 64, 2), (64, 64, 1))
        self.layers = nn.ModuleList(nn.Sequential(nn.Conv2d(a, b, 3, s, 1), nn.ReLU()) for a, b, s in widths)
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean((2, 3)))


def layers(model: nn.Module, images: torch.Tensor, sites: str) -> dict[str, np.ndarray]:
    """Each layer's whole activation of every image, flattened as in the paper, [n, places · units]."""
    store = ix.capture(model, images, sites=sites, tokens="all")
    return {site: store[site].numpy().reshape(len(images), -1) for site in store.sites}


def alike(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> np.ndarray:
    """Debiased CKA of every layer with every layer."""
    result = ix.compare(first, second, "linear_cka_debiased", interval=None)
    return np.array(result.column("value")).reshape(len(first), len(second))


def uniformity(table: np.ndarray) -> float:
    """Mean similarity of different layers of one network."""
    return float(table[~np.eye(len(table), dtype=bool)].mean())


def measured(seed: int, small: bool, *, attention: bool) -> dict[str, float]:
    data = zoo.digits(seed=seed)
    images = data.images[: 200 if small else 500]
    epochs = 5 if small else 20
    plain = zoo.train_digits(CNN, data, epochs=epochs, seed=seed, lr=3e-3)
    make = (lambda: zoo.DigitsViT(layers=8)) if attention else CNN
    other = zoo.train_digits(make, data, epochs=epochs, seed=seed + 100, lr=3e-3)
    c = layers(plain.module, images, "layers.*")
    v = layers(other.module, images, "blocks.*.resid_post" if attention else "layers.*")
    inside_v, inside_c, across = alike(v, v), alike(c, c), alike(v, c)
    values = {"accuracy_vit": other.accuracy, "accuracy_cnn": plain.accuracy}
    values |= {"uniformity_vit": uniformity(inside_v), "uniformity_cnn": uniformity(inside_c)}
    values |= {"first_with_last_vit": float(inside_v[0, -1]), "first_with_last_cnn": float(inside_c[0, -1])}
    for name, table in (("vit", inside_v), ("cnn", inside_c), ("across", across)):
        values |= {f"{name}_{i}{j}": float(table[i, j]) for i in range(8) for j in range(8)}
    if attention:
        looked = ix.capture(other.module, images, sites="blocks.*.attn_pattern|distance")
        reach = {site: looked[site].numpy().mean(0) for site in looked.sites}
        lowest = reach["blocks.0.attn_pattern|distance"]
        # Uniform attention over 16 patches in a row looks (16² − 1) / (3 · 16) patches far.
        values |= {"farthest_head_of_block_0": float(lowest.max() / 5.3125), "nearest_head_of_block_0": float(lowest.min() / 5.3125)}
    else:
        values |= {"farthest_head_of_block_0": 0.0, "nearest_head_of_block_0": 0.0}
    return values


def run(seed: int = 0, small: bool = False) -> dict[str, float]:
    return measured(seed, small, attention=True)


def control(seed: int = 0, small: bool = False) -> dict[str, float]:
    """A second convolutional network stands in for the transformer."""
    return measured(seed, small, attention=False)


CHECKS = {
    "the transformer's layers are more alike": lambda v: v["uniformity_vit"] > v["uniformity_cnn"] + 0.1,
    "more of the first layer is left in the last": lambda v: v["first_with_last_vit"] > v["first_with_last_cnn"] + 0.1,
    "a head of the first block looks across the image": lambda v: v["farthest_head_of_block_0"] > 0.8,
    "both learn the digits": lambda v: min(v["accuracy_vit"], v["accuracy_cnn"]) > 0.5,
}
CONTROL_FAILS = "the transformer's layers are more alike"
VERDICT = (
    "At this size the paper's difference is small. The transformer's layers are more alike at every seed, but by .04 to .09, never by the "
    "margin of .1 that was set beforehand; at one of three seeds its last layer does not keep more of the first. With 4 layers in "
    "place of 8, tried first, the convolutional network's layers were the more alike (.94 against .85)."
)


def figure(values: dict[str, float]) -> Figure:
    drawn = Figure(figsize=(9.6, 3.2), layout="constrained")
    titles = (("vit", "ViT with itself", "ViT", "ViT"), ("cnn", "CNN with itself", "CNN", "CNN"), ("across", "ViT with CNN", "ViT", "CNN"))
    for index, (name, title, vertical, horizontal) in enumerate(titles):
        ax = drawn.add_subplot(1, 3, index + 1)
        table = np.array([[values[f"{name}_{i}{j}"] for j in range(8)] for i in range(8)])
        image = ax.imshow(table, vmin=0, vmax=1, origin="lower", cmap="viridis")
        for (i, j), value in np.ndenumerate(table):
            ax.text(
                j,
                i,
                f"{value:.2f}".replace("0.", ".").replace("1.00", "1"),
                ha="center",
                va="center",
                fontsize=6,
                color="black" if value > 0.55 else "white",
            )
        ax.set_title(title, fontsize=10)
        ax.set_xticks(range(8), range(1, 9))
        ax.set_yticks(range(8), range(1, 9))
        ax.set_xlabel(f"layer of the {horizontal}")
        ax.set_ylabel(f"layer of the {vertical}")
    drawn.colorbar(image, ax=drawn.axes, shrink=0.8, label="debiased linear CKA")
    return drawn
