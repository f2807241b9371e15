"""Three small networks for the handwritten digits that come with scikit-learn: 1,797 images of 8 × 8 pixels."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from inscape.arrays import threads
from inscape.errors import require
from inscape.zoo.gpt import Block


class DigitsMLP(nn.Module):
    """Fully connected layers of equal width, so that layers can be set side by side."""

    def __init__(self, d: int = 64, layers: int = 4) -> None:
        super().__init__()
        widths = [64, *[d] * layers]
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths))
        self.head = nn.Linear(d, 10)

    def forward(self, images: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, "n 10"]:
        """Logits of the ten digits."""
        x = images.flatten(1)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class DigitsCNN(nn.Module):
    """Convolutions that halve the image twice, then a mean over places."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        widths = [1, channels, 2 * channels, 4 * channels]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=stride, padding=1), nn.ReLU())
            for (a, b), stride in zip(pairwise(widths), (1, 2, 2), strict=True)
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, images: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, "n 10"]:
        """Logits of the ten digits."""
        x = images
        for layer in self.layers:
            x = layer(x)
        return self.head(self.pool(x))


class DigitsViT(nn.Module):
    """A vision transformer on 16 patches of 2 × 2 pixels; the class is read from the mean over patches."""

    def __init__(self, d: int = 32, layers: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, d, 2, stride=2)
        self.pos = nn.Parameter(torch.randn(1, 16, d) * 0.02)
        self.blocks = nn.ModuleList(Block(d, heads, causal=False) for _ in range(layers))
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, 10)

    def forward(self, images: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, "n 10"]:
        """Logits of the ten digits."""
        x = self.embed(images).flatten(2).transpose(1, 2) + self.pos
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))


@dataclass(frozen=True)
class Digits:
    """The images in two parts; pixels lie between 0 and 1.

    Attributes:
        train_images: to learn from, [n, 1, 8, 8].
        train_labels: their digits.
        images: held out.
        labels: their digits.
    """

    train_images: Float[Tensor, "n 1 8 8"]
    train_labels: Int[Tensor, " n"]
    images: Float[Tensor, "m 1 8 8"]
    labels: Int[Tensor, " m"]


@dataclass(frozen=True)
class TrainedDigits:
    """A network before and after it learned the digits.

    Attributes:
        untrained: the start weights.
        module: the trained network.
        accuracy: share of held-out images that `module` names correctly.
    """

    untrained: nn.Module
    module: nn.Module
    accuracy: float


def digits(*, held_out: int = 600, seed: int = 0) -> Digits:
    """The digits of scikit-learn, shuffled by the seed; the last `held_out` images are not for training.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    require("sklearn", "demo", "the digits of the zoo")
    from sklearn.datasets import load_digits

    pixels, digit = load_digits(return_X_y=True)
    order = torch.randperm(len(digit), generator=torch.Generator().manual_seed(seed))
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8)[order] / 16
    labels = torch.tensor(digit)[order]
    cut = len(labels) - held_out
    return Digits(images[:cut], labels[:cut], images[cut:], labels[cut:])


def train_digits(
    make: Callable[[], nn.Module] = DigitsMLP, data: Digits | None = None, *, epochs: int = 30, seed: int = 0, lr: float = 3e-3
) -> TrainedDigits:
    """Trains a network on the digits, on one thread and the same for the same seed; seconds.

    Args:
        make: builds the network: `DigitsMLP`, `DigitsCNN`, `DigitsViT` or your own; called once, under the seed.
        data: by default `digits()`.
        epochs: passes over the training images, in batches of 64.
        seed: start weights and order of the images.
        lr: learning rate of Adam; falls to zero along a line.

    Example:
        >>> train_digits(DigitsCNN).accuracy > 0.9    # doctest: +SKIP
        True
    """
    data = digits() if data is None else data
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
    untrained = copy.deepcopy(model).eval()
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=epochs)
    with threads(1):
        for _ in range(epochs):
            for rows in torch.randperm(len(data.train_labels), generator=order).split(64):
                optimizer.zero_grad()
                F.cross_entropy(model(data.train_images[rows]), data.train_labels[rows]).backward()
                optimizer.step()
            scheduler.step()
        with torch.no_grad():
            hits = model.eval()(data.images).argmax(1) == data.labels
    return TrainedDigits(untrained, model, float(hits.float().mean()))
