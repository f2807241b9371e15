"""Replacing against arithmetic on the weights."""

from __future__ import annotations

import torch

import inscape as ix


def test_what_follows_sees_the_constant():
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    x, value = torch.randn(5, 4), torch.tensor([1.0, -2.0, 0.5])
    with ix.edit(net, "0", ix.edits.replace(value)), torch.no_grad():
        out = net(x)
    expected = value @ net[1].weight.T + net[1].bias
    torch.testing.assert_close(out, expected.detach().expand(5, 2))


def test_scaling_one_layer_of_a_linear_net_scales_its_part():
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2, bias=False))
    x = torch.randn(5, 4)
    with torch.no_grad():
        plain = net(x)
        with ix.edit(net, "0", ix.edits.scale(3.0)):
            torch.testing.assert_close(net(x), 3.0 * plain)
