"""Training of small language models with checkpoints at log-spaced steps, where most of what happens early is seen."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from inscape.arrays import threads
from inscape.zoo.corpus import Corpus, spread


@dataclass(frozen=True)
class Checkpoint:
    """A copy of a model in training.

    Attributes:
        step: updates made so far.
        loss: cross-entropy on held-out text, in nats per token.
        module: the model, in evaluation mode; later training does not change it.
    """

    step: int
    loss: float
    module: nn.Module


def log_steps(last: int) -> list[int]:
    """0, the powers of two, and the last step.

    Example:
        >>> log_steps(10)
        [0, 1, 2, 4, 8, 10]
    """
    if last < 0:
        raise ValueError(f"the last step is {last}; it must not be negative")
    return sorted({0, last, *(2**i for i in range(last.bit_length()) if 2**i <= last)})


def train(
    make: Callable[[], nn.Module],
    corpus: Corpus,
    *,
    steps: int = 512,
    seed: int = 0,
    context: int = 64,
    batch: int = 16,
    lr: float = 3e-3,
    warmup: int = 32,
    saved: list[int] | None = None,
) -> Iterator[Checkpoint]:
    """Trains a next-token model and yields a checkpoint at each saved step, as training reaches it.

    The seed decides the start weights (the random state that `make` sees) and the order of the text; the caller's random state is left
    as it was. One thread: at this size two are slower, and sums then have one order, so the same seed gives the same weights.

    Args:
        make: builds the model; called once, under the seed.
        corpus: what to train on.
        steps: updates of AdamW, each on `batch` windows of `context` tokens.
        seed: see above.
        context: tokens per window.
        batch: windows per update.
        lr: learning rate after `warmup` linear steps; decays to a tenth of itself along a cosine.
        warmup: steps until the full rate.
        saved: steps to keep; by default `log_steps(steps)`.

    Example:
        >>> from inscape.zoo import GPT, standard_library, train
        >>> list(train(lambda: GPT(258), standard_library(), steps=64))[-1].loss    # doctest: +SKIP
        2.7
    """
    saved = log_steps(steps) if saved is None else saved
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
    held_out = spread(corpus.held_out, min(64, len(corpus.held_out) // (context + 1)), context + 1).long()
    order = torch.Generator().manual_seed(seed)
    # Norms and biases are not decayed: pulling a gain to zero is no regularization.
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _warm_then_cosine(warmup, steps))
    for step in range(steps + 1):
        if step in saved:
            with threads(1):
                loss = held_out_loss(model, held_out)
            yield Checkpoint(step, loss, copy.deepcopy(model).eval())
        if step < steps:
            with threads(1):  # inside the loop, so the caller's own work between checkpoints keeps its threads
                starts = torch.randint(0, len(corpus.train) - context, (batch,), generator=order)
                rows = corpus.train[starts[:, None] + torch.arange(context + 1)].long()
                optimizer.zero_grad()
                _loss(model.train(), rows).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()


@torch.no_grad()
def held_out_loss(model: nn.Module, rows: Int[Tensor, "n t"]) -> float:
    """Mean cross-entropy of the next token over rows of ids, in nats."""
    return float(_loss(model.eval(), rows))


def _loss(model: nn.Module, rows: Tensor) -> Tensor:
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


def _warm_then_cosine(warmup: int, steps: int) -> Callable[[int], float]:
    # 0.55 + 0.45 cos runs from 1 to 0.1.
    def factor(step: int) -> float:
        done = torch.tensor(torch.pi * min(1.0, step / max(1, steps)))
        return min(1.0, (step + 1) / max(1, warmup)) * (0.55 + 0.45 * float(done.cos()))

    return factor
