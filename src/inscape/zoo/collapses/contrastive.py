"""Contrastive training whose strong views leave a few directions in use, while its loss goes on falling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inscape.zoo.collapses.base import TrainingRun, collapsing
from inscape.zoo.collapses.views import trained_on_views


@collapsing("contrastive")
def contrastive(healthy: bool, seed: int) -> TrainingRun:
    """InfoNCE on handwritten digits with a deep linear encoder; strong views make its weights collapse (Jing et al. 2022)."""

    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 32, bias=False), nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False))

    def loss(model: nn.Module, first: Tensor, second: Tensor) -> Tensor:
        logits = F.normalize(model(first), dim=1) @ F.normalize(model(second), dim=1).T / 0.2
        return F.cross_entropy(logits, torch.arange(len(logits)))

    measures = ("participation_ratio", "von_neumann_entropy")
    return trained_on_views(make, loss, seed, sites=("2",), measures=measures, rate=0.05, noise=0.2 if healthy else 1.0)
