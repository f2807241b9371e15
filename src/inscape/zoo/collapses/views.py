"""Training on two random views of the same images, judged by how well neighbors name the digit."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inscape.zoo.collapses.base import TrainingRun
from inscape.zoo.digits import digits


def trained_on_views(
    make: Callable[[], nn.Module],
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor],
    seed: int,
    *,
    sites: tuple[str, ...],
    measures: tuple[str, ...],
    rate: float,
    decay: float = 0.0,
    noise: float = 0.2,
) -> TrainingRun:
    """A run of 500 updates on handwritten digits, two views of each image at a time; the rate grows over the first 150.

    Args:
        make: makes the network, from the seed.
        loss: takes the network and two batches of views.
        seed: of the data, the start weights and the views.
        sites: of the run.
        measures: of the run.
        rate: of learning.
        decay: of the weights.
        noise: added to each view.
    """
    data = digits(seed=seed)
    images, held_out = data.train_images.flatten(1), data.images.flatten(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 150))

    def update() -> Tensor:
        model.train()
        value = loss(model, *two_views(images, 128, generator, noise=noise))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        warm.step()
        return value.detach()

    def metric() -> float:
        return knn_accuracy(model, images, data.train_labels, held_out, data.labels)

    return TrainingRun(model, update, 500, held_out[:256], sites, measures, metric, "kNN accuracy")


def two_views(images: Tensor, batch: int, generator: torch.Generator, noise: float = 0.2, dropped: float = 0.2) -> tuple[Tensor, Tensor]:
    """Two views of a random batch of images [n, d]: pixels dropped and noise added, independently."""
    chosen = images[torch.randint(0, len(images), (batch,), generator=generator)]

    def view() -> Tensor:
        kept = torch.rand(chosen.shape, generator=generator) > dropped
        return chosen * kept + noise * torch.randn(chosen.shape, generator=generator)

    return view(), view()


@torch.no_grad()
def knn_accuracy(encode: nn.Module, images: Tensor, labels: Tensor, held_out: Tensor, answers: Tensor, k: int = 5) -> float:
    """The share of held-out images whose k nearest neighbors by cosine name the right digit; the network's mode comes back."""
    training = encode.training
    encode.eval()
    rows, asked = (F.normalize(encode(x), dim=1) for x in (images, held_out))
    encode.train(training)
    near = labels[(asked @ rows.T).topk(k, dim=1).indices]
    return float((near.mode(1).values == answers).float().mean())
