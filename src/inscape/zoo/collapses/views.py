"""Two random views of the same images, and how well neighbors name the digit."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
