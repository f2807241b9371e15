"""Stitched networks against passes written out by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from inscape import maps
from inscape.errors import DegenerateInputError, MapError, SiteNotFoundError
from inscape.plots.mapped import map_scores


def net(seed: int, width: int = 12) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = (nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3))
        return nn.Sequential(*layers).eval()


X = torch.from_numpy(np.random.default_rng(0).standard_normal((240, 6)).astype(np.float32))
FRONT, BACK = net(1), net(2, width=10)
with torch.no_grad():
    LABELS = BACK(X).argmax(1)


@pytest.mark.parametrize("by", ["direct", "task"])
def test_the_joined_network_is_front_layer_and_back(by: str) -> None:
    before = copy.deepcopy(BACK.state_dict())
    made = maps.stitch(FRONT, BACK, X, LABELS, ("1", "3"), by, steps=60)
    with torch.no_grad():
        sent = FRONT[1](FRONT[0](X)).double()
        weight, mean_a, mean_b = (made.map.tensors[name] for name in ("weight", "mean_a", "mean_b"))
        expected = BACK[4](((sent - mean_a) @ weight + mean_b).float())
    assert torch.allclose(made(X), expected, atol=1e-5)
    order = np.random.default_rng(0).permutation(240)
    test = np.sort(order[:72])
    right = (expected.argmax(1) == LABELS)[test].double().mean()
    assert made.scores.value(measure="stitch_accuracy") == pytest.approx(float(right), abs=1e-12)
    assert made.scores.value(measure="back_accuracy") == 1.0
    assert all(torch.equal(value, before[name]) for name, value in BACK.state_dict().items())
    assert all(parameter.grad is None for parameter in BACK.parameters())
    with torch.no_grad():
        real = BACK[:4](X).double()
    error = (real - (sent - mean_a) @ weight - mean_b)[test].square().sum() / (real - mean_b)[test].square().sum()
    assert made.scores.value(measure="stitch_r2") == pytest.approx(1 - float(error), abs=1e-5)


def test_the_task_lowers_the_loss_and_direct_lowers_the_distance() -> None:
    found = {by: maps.stitch(FRONT, BACK, X, LABELS, "1", by) for by in ("direct", "task")}
    loss = {by: float(nn.functional.cross_entropy(made(X), LABELS)) for by, made in found.items()}
    assert loss["task"] < loss["direct"]
    assert found["task"].scores.value(measure="stitch_r2") < found["direct"].scores.value(measure="stitch_r2")


def test_a_layer_stitched_to_itself_is_itself() -> None:
    result = maps.stitching_checks(FRONT, FRONT, X, LABELS, ["1", "3"], steps=10)
    assert result.unique("label") == ["direct", "task", "direct, untrained front", "task, untrained front"]
    for site in ("1", "3"):
        assert result.value(label="direct", measure="stitch_r2", site=site, site_b=site) > 1 - 1e-4
    assert result.value(label="direct, untrained front", measure="stitch_r2", site="1", site_b="1") < 0.999
    assert len(map_scores(result.where(site="1", site_b="3")).axes) == 6  # two rows of panels


def test_places_of_a_map_are_rows_of_the_layer() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cnn = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.Flatten(), nn.Linear(80, 3)).eval()
    images = torch.from_numpy(np.random.default_rng(1).standard_normal((60, 1, 4, 4)).astype(np.float32))
    labels = cnn(images).argmax(1).detach()
    made = maps.stitch(cnn, cnn, images, labels, ("1", "1"))
    assert made.map.d_a == 4 and made.map.info["n"] == 42 * 16
    assert made.scores.value(measure="stitch_accuracy") == 1.0


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + self.layer(x))


def test_a_cut_that_cuts_nothing_is_refused() -> None:
    with pytest.raises(MapError, match="reach them around it"):
        maps.stitch(FRONT, Around(), X, LABELS, ("1", "layer"))


def test_fresh_weights_leave_the_network_as_it_is() -> None:
    before = copy.deepcopy(FRONT.state_dict())
    one, again, other = maps.untrained(FRONT), maps.untrained(FRONT), maps.untrained(FRONT, seed=1)
    assert torch.equal(one[0].weight, again[0].weight) and not torch.equal(one[0].weight, other[0].weight)
    assert all(torch.equal(value, before[name]) for name, value in FRONT.state_dict().items())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = nn.Linear(6, 12)
    assert torch.equal(one[0].weight, expected.weight)


def test_what_cannot_be_stitched_is_said() -> None:
    with pytest.raises(MapError, match="'direct' fits"):
        maps.stitch(FRONT, BACK, X, LABELS, "1", "both")
    with pytest.raises(DegenerateInputError, match=r"shape \(10,\) for 240 inputs"):
        maps.stitch(FRONT, BACK, X, LABELS[:10], "1")
    with pytest.raises(SiteNotFoundError):
        maps.stitch(FRONT, BACK, X, LABELS, "nowhere")
    with pytest.raises(MapError, match="class scores"):
        maps.stitch(FRONT, nn.Sequential(BACK, nn.Unflatten(1, (3, 1))), X, LABELS, ("1", "0.1"))
