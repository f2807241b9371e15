"""A tiny language model under a learning rate that stays, or grows far beyond what it can bear."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from inscape.zoo.corpus import spread, standard_library
from inscape.zoo.gpt import GPT

_BASE, _BEGIN, _LENGTH = 3e-3, 120, 280


def ramped_gpt(top: float | None, seed: int) -> tuple[GPT, Callable[[], Tensor], Tensor, Callable[[], float]]:
    """The model, its update, token ids [32, 32] of held-out text, and the share of their next tokens that it names.

    Args:
        top: the learning rate at the end of an exponential ramp that begins at update 120 and lasts 280; None keeps it at 0.003.
        seed: of weights and batches.
    """
    corpus = standard_library(200_000)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT(258, d=32, layers=2, heads=4, context=32)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=_BASE, betas=(0.9, 0.95))
    end = _BASE if top is None else top
    ramp = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (end / _BASE) ** min(1.0, max(0.0, (step - _BEGIN) / _LENGTH)))

    def update() -> Tensor:
        model.train()
        starts = torch.randint(0, len(corpus.train) - 33, (16,), generator=generator)
        rows = corpus.train[starts[:, None] + torch.arange(33)].long()
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        ramp.step()
        return loss.detach()

    held_out = spread(corpus.held_out, 32, 33).long()

    @torch.no_grad()
    def accuracy() -> float:
        return float((model(held_out[:, :-1]).argmax(-1) == held_out[:, 1:]).float().mean())

    return model, update, held_out[:, :-1], accuracy
