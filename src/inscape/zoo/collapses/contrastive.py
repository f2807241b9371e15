"""Contrastive training whose strong views leave a few directions in use, while its loss goes on falling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inscape.zoo.collapses.base import TrainingRun, collapsing
from inscape.zoo.collapses.views import knn_accuracy, two_views
from inscape.zoo.digits import digits


@collapsing("contrastive")
def contrastive(healthy: bool, seed: int) -> TrainingRun:
    """InfoNCE on handwritten digits with a deep linear encoder; strong views make its weights collapse (Jing et al. 2022)."""
    data = digits(seed=seed)
    images, held_out = data.train_images.flatten(1), data.images.flatten(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 32, bias=False), nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 150))
    noise = 0.2 if healthy else 1.0

    def update() -> Tensor:
        model.train()
        a, b = (model(view) for view in two_views(images, 128, generator, noise=noise))
        logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / 0.2
        loss = F.cross_entropy(logits, torch.arange(len(logits)))
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
        ("2",),
        ("participation_ratio", "von_neumann_entropy"),
        lambda: knn_accuracy(model, images, data.train_labels, held_out, data.labels),
        "kNN accuracy",
    )
