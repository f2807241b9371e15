"""Siamese training without negatives, which needs the stopped gradient: without it all images get one vector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inscape.zoo.collapses.base import TrainingRun, collapsing
from inscape.zoo.collapses.views import knn_accuracy, two_views
from inscape.zoo.digits import digits


class Siamese(nn.Module):
    """An encoder and projector, whose output is compared, and the predictor on top of one side."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width))
        self.projector = nn.Sequential(nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width))
        self.predictor = nn.Sequential(nn.Linear(width, width // 4), nn.BatchNorm1d(width // 4), nn.ReLU(), nn.Linear(width // 4, width))

    def forward(self, images: Tensor) -> Tensor:
        """The projections [n, width] of images [n, 64]."""
        return self.projector(self.encoder(images))


@collapsing("simsiam")
def simsiam(healthy: bool, seed: int) -> TrainingRun:
    """SimSiam on handwritten digits, with and without the stopped gradient (Chen & He 2021)."""
    data = digits(seed=seed)
    images, held_out = data.train_images.flatten(1), data.images.flatten(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Siamese()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=1e-3)
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 150))

    def update() -> Tensor:
        model.train()
        a, b = (model(view) for view in two_views(images, 128, generator))
        first, second = (a.detach(), b.detach()) if healthy else (a, b)
        loss = -(F.cosine_similarity(model.predictor(a), second).mean() + F.cosine_similarity(model.predictor(b), first).mean()) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        warm.step()
        return loss.detach()

    return TrainingRun(
        model,
        update,
        500,
        held_out[:256],
        ("projector",),
        ("von_neumann_entropy", "mean_cosine"),
        lambda: knn_accuracy(model, images, data.train_labels, held_out, data.labels),
        "kNN accuracy",
    )
