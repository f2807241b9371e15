"""Runs that collapse and their twins: seeded, alike at the start, and with the losses of their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from inscape.zoo import collapse_names, collapse_run, standard_library


def test_there_are_five_and_others_are_refused():
    assert collapse_names() == ["attention", "contrastive", "explosion", "posterior", "simsiam"]
    with pytest.raises(ValueError, match="nearest: 'simsiam'"):
        collapse_run("simsam")


@pytest.mark.parametrize("name", ["attention", "contrastive", "explosion", "posterior", "simsiam"])
def test_twins_begin_alike_and_a_seed_decides_the_run(name: str):
    state = torch.random.get_rng_state()
    first, again, twin = collapse_run(name, seed=3), collapse_run(name, seed=3), collapse_run(name, healthy=True, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), twin.model.parameters(), strict=True))
    metric = first.metric()
    assert first.metric() == metric and first.model.training
    losses = [float(first.update()) for _ in range(3)]
    assert losses == [float(again.update()) for _ in range(3)]
    assert first.steps > 100 and first.sites and first.measures


def test_the_first_loss_is_that_of_the_definition():
    run = collapse_run("attention", seed=1)
    text = standard_library(200_000).train
    starts = torch.randint(0, len(text) - 33, (16,), generator=torch.Generator().manual_seed(1))
    rows = text[starts[:, None] + torch.arange(33)].long()
    with torch.no_grad():
        expected = F.cross_entropy(run.model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
    assert float(run.update()) == pytest.approx(float(expected), rel=1e-6)
