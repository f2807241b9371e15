"""The diffusion transformer of the zoo: what it computes, what it learns."""

from __future__ import annotations

import math

import pytest
import torch

from inscape.zoo import Digits, DigitsDiT, digits, draw_digits, train_digits, train_dit
from inscape.zoo.digits import DigitsCNN


def _few() -> Digits:
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.rand(64, 1, 8, 8, generator=generator), torch.arange(64) % 10
    return Digits(images, labels, images[:8], labels[:8])


def test_noise_keeps_the_variance_and_ends_in_noise_alone():
    model, generator = DigitsDiT(d=16, layers=1), torch.Generator().manual_seed(0)
    image, noise = (torch.randn(4000, 1, 8, 8, generator=generator) for _ in range(2))
    for step in (0, 50, 99):
        share = math.cos((step + 1) / 101 * math.pi / 2) ** 2
        made = model.add_noise(image, noise, torch.full((4000,), step))
        torch.testing.assert_close(made, math.sqrt(share) * image + math.sqrt(1 - share) * noise, rtol=0, atol=1e-5)
        assert float(made.var()) == pytest.approx(1, abs=0.01)
    assert float(model.share[0]) > 0.999 and float(model.share[99]) < 3e-4


def test_an_untrained_block_adds_nothing_and_patches_go_back_to_their_places():
    torch.manual_seed(0)
    model = DigitsDiT(d=16, layers=2)
    x = torch.randn(3, 16, 16)
    assert torch.equal(model.blocks[0](x, torch.randn(3, 16)), x)
    # A head that copies each patch shows where its four pixels go.
    model.embed = torch.nn.Conv2d(1, 16, 2, stride=2, bias=False)
    model.embed.weight.data.zero_()
    for i in range(4):
        model.embed.weight.data[i, 0].view(-1)[i] = 1
    model.pos.data.zero_()
    model.norm = torch.nn.Identity()
    model.head = torch.nn.Linear(16, 4, bias=False)
    model.head.weight.data = torch.eye(4, 16)
    images = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(model(images, torch.tensor([3, 4])), images)


def test_no_label_is_a_label_of_its_own():
    torch.manual_seed(0)
    model = DigitsDiT(d=16, layers=1)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    images, time = torch.randn(2, 1, 8, 8), torch.tensor([10, 20])
    with torch.no_grad():
        assert torch.equal(model(images, time), model(images, time, torch.tensor([10, 10])))
        assert not torch.equal(model(images, time), model(images, time, torch.tensor([1, 1])))


def test_the_same_seed_gives_the_same_weights_and_leaves_the_random_state():
    state = torch.random.get_rng_state()
    a, b, c = (train_dit(_few(), epochs=2, seed=seed, d=16, layers=1) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.head.weight, c.head.weight)
    assert torch.equal(draw_digits(a, torch.arange(3)), draw_digits(b, torch.arange(3)))


@pytest.mark.slow
def test_it_draws_the_digit_that_it_is_asked_for():
    """A network that never saw the drawings names most of them rightly after a short training."""
    model, reader = train_dit(digits(), epochs=40), train_digits(DigitsCNN).module
    labels = torch.arange(10).repeat(10)
    with torch.no_grad():
        named = reader((draw_digits(model, labels) + 1) / 2).argmax(1)
    assert float((named == labels).float().mean()) > 0.5
