"""Merged features against networks whose units were made alike, and arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import inscape as ix
from inscape.errors import MapError, ResultError
from inscape.plots.merging import merge_curves
from inscape.reporting.section import render
from inscape.results import Result

X = torch.from_numpy(np.random.default_rng(0).standard_normal((64, 2)).astype(np.float32))


def small() -> nn.Sequential:
    """Three hidden units with incoming weights (1, 0), (1, 0) and (0, 2)."""
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0], [1, 0], [0, 2]]))
        net[2].weight.copy_(torch.tensor([[1.0, 2, 3], [-1, 4, 0]]))
    return net


def test_equal_units_are_one_unit() -> None:
    net = small()
    made = ix.merge_features(net, X, thresholds=(0.0, 2.0))
    assert made.layers == (("0", "2"),)
    half = made.network(0.0)
    assert half[0].weight.tolist() == [[1, 0], [0, 2]] and half[2].weight.tolist() == [[3, 3], [3, 0]]
    assert half[0].out_features == 2 and half[2].in_features == 2
    assert torch.allclose(half(X), net(X), atol=1e-6)
    assert made.curves.value(site="0", measure="feature_complexity", at=0.0) == pytest.approx(2 / 3)
    assert made.curves.value(site="all", measure="merged_score", at=0.0) == 1.0


def test_a_group_is_the_mean_of_its_units_and_its_distance_is_relative() -> None:
    net = small()
    made = ix.merge_features(net, X, thresholds=(1.0,))
    # The two equal units, mean (1, 0), are sqrt(5) from (0, 2); the mean square length is (1 + 4) / 2: sqrt(5 / 2.5) = sqrt(2).
    assert [height for _, _, height in made._joins[0]] == pytest.approx([0.0, 2**0.5], abs=1e-12)
    one = made.network(1.5)
    assert one[0].weight.tolist() == [pytest.approx([2 / 3, 2 / 3])] and one[2].weight.tolist() == [[6], [3]]


def test_a_folded_batch_norm_and_a_flattened_map_leave_the_outputs_alone() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(20, 4), nn.ReLU(), nn.Linear(4, 3))
        images = torch.randn(32, 1, 4, 4)
        net(images * 3)  # running moments
    net.eval()
    with torch.no_grad():
        net[0].weight[3], net[0].bias[3] = net[0].weight[1], net[0].bias[1]
        for part in (net[1].weight, net[1].bias, net[1].running_mean, net[1].running_var):
            part[3] = part[1]
    made = ix.merge_features(net, images, thresholds=(1e-6,))
    assert made.layers == (("0", "4"), ("4", "6"))
    slim = made.network(1e-6)
    assert slim[0].out_channels == 4 and slim[4].in_features == 16 and isinstance(slim[1], nn.Identity)
    assert torch.allclose(slim(images), net(images), atol=1e-4)
    assert net[0].out_channels == 5 and isinstance(net[1], nn.BatchNorm2d)


def test_the_headline_is_the_least_share_within_the_tolerance() -> None:
    scores = iter([1.0, 0.995, 0.9])
    made = ix.merge_features(small(), X, thresholds=(0.5, 2.0), score=lambda _: next(scores))
    assert made.curves.value(measure="feature_complexity", site="all", axis=None) == pytest.approx(2 / 3)
    assert made.curves.settings["score"] == "given"


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(2, 3), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x))) + self.third(torch.relu(self.first(x)))


def test_a_layer_with_other_readers_is_refused() -> None:
    with pytest.raises(MapError, match="not the only layer that reads 'first'"):
        ix.merge_features(Shared(), X, layers=[("first", "second")])
    with pytest.raises(MapError, match="no two successive"):
        ix.merge_features(Shared(), X)
    with pytest.raises(MapError, match="'1' is no linear"):
        ix.merge_features(small(), X, layers=[("1", "2")])
    with pytest.raises(MapError, match="labels have 3 entries"):
        ix.merge_features(small(), X, [0, 1, 1])


def test_it_has_a_figure_and_a_section() -> None:
    curves = ix.merge_features(small(), X).curves
    assert [ax.get_title(loc="left") for ax in curves.plot().axes] == ["feature complexity", "what the network still does"]
    assert "of the units of Sequential are enough" in render(curves, "r").findings[0].text
    with pytest.raises(ResultError, match="nothing to draw"):
        merge_curves(Result([{"measure": "two_nn", "value": 1.0}]))
