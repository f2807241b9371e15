"""A variational autoencoder whose prior term grows until the code says nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inscape.zoo.collapses.base import TrainingRun, collapsing
from inscape.zoo.digits import digits


class SmallVAE(nn.Module):
    """Encoder to means and log-variances, and decoder; calling it gives the posteriors."""

    def __init__(self, latents: int = 8, width: int = 64) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 2 * latents))
        self.decoder = nn.Sequential(nn.Linear(latents, width), nn.ReLU(), nn.Linear(width, 64))

    def forward(self, images: Tensor) -> Tensor:
        """Means and log-variances [n, 2 latents] of images [n, 64]."""
        return self.encoder(images)


@collapsing("posterior")
def posterior(healthy: bool, seed: int) -> TrainingRun:
    """A VAE of handwritten digits whose weight of the prior rises along a ramp, or stays (Higgins et al. 2017; Lucas et al. 2019)."""
    data = digits(seed=seed)
    images, held_out = data.train_images.flatten(1), data.images.flatten(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SmallVAE()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    step = 0
    top = 0.1 if healthy else 10.0

    def update() -> Tensor:
        nonlocal step
        beta = 0.1 * (top / 0.1) ** (min(1.0, max(0.0, (step - 200) / 400)))
        step += 1
        model.train()
        batch = images[torch.randint(0, len(images), (128,), generator=generator)]
        mean, log_variance = model(batch).chunk(2, dim=1)
        code = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=generator)
        rebuilt = (model.decoder(code) - batch).square().sum(1) / (2 * 0.1)
        prior = (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2
        loss = (rebuilt + beta * prior).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def active() -> float:
        mean = model(held_out).chunk(2, dim=1)[0]
        return float((mean.var(0) > 0.01).sum())

    return TrainingRun(model, update, 600, held_out[:256], ("encoder",), ("posterior_kl",), active, "active units")
