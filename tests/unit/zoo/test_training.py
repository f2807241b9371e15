"""Training in the zoo: the schedule, the loss against chance, and sameness under a seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from inscape.zoo import GPT, DigitsCNN, DigitsMLP, digits, log_steps, standard_library, train, train_digits
from inscape.zoo.training import held_out_loss


def tiny() -> GPT:
    return GPT(258, d=32, layers=2, heads=2, context=32)


@pytest.fixture(scope="module")
def corpus():
    return standard_library(200_000)


@pytest.fixture(scope="module")
def checkpoints(corpus):
    return list(train(tiny, corpus, steps=40, context=32, batch=8, seed=3))


def test_steps_are_powers_of_two():
    assert log_steps(512) == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert log_steps(10) == [0, 1, 2, 4, 8, 10]
    assert log_steps(0) == [0]
    with pytest.raises(ValueError, match="the last step is -1; it must not be negative"):
        log_steps(-1)


def test_loss_starts_at_chance_and_falls(checkpoints):
    assert [c.step for c in checkpoints] == [0, 1, 2, 4, 8, 16, 32, 40]
    # A model that knows nothing spends ln(vocabulary) nats a token.
    assert checkpoints[0].loss == pytest.approx(math.log(258), abs=0.2)
    assert checkpoints[-1].loss < math.log(258) - 1


def test_loss_is_the_mean_surprise(corpus):
    model = tiny().eval()
    rows = corpus.train[: 4 * 33].view(4, 33).long()
    with torch.no_grad():
        logp = model(rows[:, :-1]).double().log_softmax(-1).numpy()
    expected = -np.mean([logp[i, t, rows[i, t + 1]] for i in range(4) for t in range(32)])
    assert held_out_loss(model, rows) == pytest.approx(expected, rel=1e-5)


def test_checkpoints_do_not_move_with_training(checkpoints):
    first, last = checkpoints[0].module, checkpoints[-1].module
    assert not torch.equal(first.embed.weight, last.embed.weight)
    assert first.head.weight is first.embed.weight
    assert not first.training


def test_the_same_seed_gives_the_same_weights(corpus, checkpoints):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = list(train(tiny, corpus, steps=40, context=32, batch=8, seed=3))
    assert torch.equal(before, torch.get_rng_state())
    for one, other in zip(again, checkpoints, strict=True):
        assert one.loss == other.loss
        assert all(torch.equal(a, b) for a, b in zip(one.module.parameters(), other.module.parameters(), strict=True))


def test_another_seed_gives_other_weights(corpus, checkpoints):
    other = next(train(tiny, corpus, steps=0, context=32, seed=4))
    assert not torch.equal(other.module.embed.weight, checkpoints[0].module.embed.weight)


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    data = digits(seed=1)
    assert data.train_images.shape == (1197, 1, 8, 8) and data.images.shape == (600, 1, 8, 8)
    both = torch.cat([data.train_labels, data.labels])
    assert torch.bincount(both).tolist() == np.bincount(load_digits().target).tolist()
    total = data.train_images.double().sum() + data.images.double().sum()
    assert float(total) == pytest.approx(load_digits().images.sum() / 16)


def test_digit_networks_beat_a_simple_classifier():
    from sklearn.naive_bayes import GaussianNB

    data = digits()
    baseline = GaussianNB().fit(data.train_images.flatten(1).numpy(), data.train_labels.numpy())
    floor = baseline.score(data.images.flatten(1).numpy(), data.labels.numpy())
    trained = train_digits(DigitsMLP, data, epochs=20)
    assert trained.accuracy > max(0.9, floor)
    with torch.no_grad():
        right = (trained.module(data.images).argmax(1) == data.labels).float().mean()
    assert trained.accuracy == pytest.approx(float(right))
    assert not torch.equal(trained.untrained.head.weight, trained.module.head.weight)


def test_digit_training_is_the_same_for_the_same_seed():
    data = digits()
    one, other = (train_digits(DigitsCNN, data, epochs=2, seed=5) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.module.parameters(), other.module.parameters(), strict=True))


def effective_rank(model: GPT, ids: torch.Tensor) -> float:
    """Roy and Vetterli, in NumPy: the exponential of the entropy of the centered singular values."""
    kept: list[torch.Tensor] = []
    handle = model.blocks[-1].register_forward_hook(lambda _m, _i, out: kept.append(out))
    with torch.no_grad():
        model(ids)
    handle.remove()
    x = kept[0].flatten(0, 1).double().numpy()
    s = np.linalg.svd(x - x.mean(0), compute_uv=False)
    p = s[s > 0] / s.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


@pytest.mark.slow
def test_rank_collapses_and_expands_again(corpus):
    ids = corpus.held_out[: 32 * 32].view(32, 32).long()
    ranks, loss = {}, math.inf
    for checkpoint in train(tiny, corpus, steps=512, context=32, batch=8):
        ranks[checkpoint.step], loss = effective_rank(checkpoint.module, ids), checkpoint.loss
    share = np.bincount(corpus.held_out.numpy()) / len(corpus.held_out)
    assert loss < -np.sum(share[share > 0] * np.log(share[share > 0])) - 0.2, "frequencies of bytes alone give as much"
    start, bottom, end = ranks[0], min(ranks.values()), ranks[512]
    assert bottom < 0.35 * start, ranks
    assert end > 1.8 * bottom, ranks
    assert 16 <= min(ranks, key=lambda step: ranks[step]) <= 128, ranks
