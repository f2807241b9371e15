"""Siamese training without negatives, which needs the stopped gradient: without it all images get one vector."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from inscape.zoo.collapses.base import TrainingRun, collapsing
from inscape.zoo.collapses.views import trained_on_views


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

    def loss(model: nn.Module, first: Tensor, second: Tensor) -> Tensor:
        assert isinstance(model, Siamese)
        a, b = model(first), model(second)
        to_a, to_b = (a.detach(), b.detach()) if healthy else (a, b)
        return -(F.cosine_similarity(model.predictor(a), to_b).mean() + F.cosine_similarity(model.predictor(b), to_a).mean()) / 2

    return trained_on_views(
        Siamese, loss, seed, sites=("projector",), measures=("von_neumann_entropy", "mean_cosine"), rate=0.2, decay=1e-3
    )
