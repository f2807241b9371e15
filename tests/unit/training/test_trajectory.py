"""Trajectories, against NumPy on activations that a plain PyTorch hook reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inscape.errors import DegenerateInputError, TooFewStimuliError, UnknownMeasureError
from inscape.measures import spectral_alignment
from inscape.training import trajectory

IMAGES = np.random.default_rng(0).standard_normal((40, 6))


def net(scale: float) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh()).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale)
    return model


@pytest.fixture
def checkpoints() -> dict[int, nn.Module]:
    return {100: net(3.0), 0: net(0.1), 10: net(1.0)}


def hand(model: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(IMAGES)).numpy()


def participation(x: np.ndarray) -> float:
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T))
    return float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())


def cka(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(0), y - y.mean(0)
    return float(np.linalg.norm(x.T @ y) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y))


def test_every_step_is_measured_and_set_beside_the_last(checkpoints: dict[int, nn.Module]):
    result = trajectory(checkpoints, IMAGES, sites="1", measures=["participation_ratio", "linear_cka"], system="net")
    assert result.kind == "trajectory"
    assert result.settings["steps"] == [0, 10, 100]
    for step, model in checkpoints.items():
        assert result.value(measure="participation_ratio", at=step) == pytest.approx(participation(hand(model)), rel=1e-9)
        expected = cka(hand(model), hand(checkpoints[100]))
        assert result.value(measure="linear_cka", at=step) == pytest.approx(expected, rel=1e-9)
    rows = result.rows()
    assert [row["at"] for row in rows] == [0, 0, 10, 10, 100, 100]
    assert {row["axis"] for row in rows} == {"step"} and {row["system"] for row in rows} == {"net"}
    assert {row["system_b"] for row in rows if row["measure"] == "linear_cka"} == {"net, step 100"}


def test_pairs_of_step_and_model_may_come_one_by_one(checkpoints: dict[int, nn.Module]):
    result = trajectory(iter(checkpoints.items()), IMAGES, sites="1", measures="participation_ratio", interval=None)
    assert result.column("at") == [0, 10, 100]
    assert result.column("low") == [None] * 3


def test_captures_may_be_kept(checkpoints: dict[int, nn.Module], tmp_path: Path):
    trajectory(checkpoints, IMAGES, sites="1", measures="participation_ratio", to=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000000", "step-00000010", "step-00000100"]
    import inscape as ix

    np.testing.assert_array_equal(ix.open(tmp_path / "step-00000010")["1"].numpy(), hand(checkpoints[10]))


def test_one_checkpoint_is_no_trajectory():
    with pytest.raises(TooFewStimuliError, match="a trajectory needs at least 2 checkpoints, got 1; pass pairs of step and model"):
        trajectory({0: net(1.0)}, IMAGES, sites="1", measures="participation_ratio")


def test_unknown_measure_and_none_at_all(checkpoints: dict[int, nn.Module]):
    with pytest.raises(UnknownMeasureError, match="effective_rank"):
        trajectory(checkpoints, IMAGES, sites="1", measures="effective_rnk")
    with pytest.raises(UnknownMeasureError, match="no measure was asked for"):
        trajectory(checkpoints, IMAGES, sites="1", measures=[])


def test_two_checkpoints_of_one_step_are_refused():
    pairs = [(0, net(1.0)), (0, net(2.0)), (1, net(3.0))]
    with pytest.raises(DegenerateInputError, match=r"step 0 is that of the 1\. checkpoint \(Sequential\) and of the 2\. checkpoint"):
        trajectory(pairs, IMAGES, sites="1", measures="participation_ratio")


def test_each_checkpoint_brings_the_layer_that_measures_read_beside_the_rows():
    def headed(seed: int) -> nn.Sequential:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Linear(4, 3)).double().eval()

    steps = {0: headed(0), 10: headed(1)}
    found = trajectory(steps, IMAGES, sites="2", measures="spectral_alignment", interval=None)
    assert found.column("status") == ["ok", "ok"]
    for step, model in steps.items():
        with torch.no_grad():
            rows = model[:3](torch.from_numpy(IMAGES))
        assert found.value(at=step) == pytest.approx(spectral_alignment(rows, weights=model[3]))
    for weights in ("2", {"1": "2"}):
        named = trajectory(steps, IMAGES, sites="1", measures="spectral_alignment", weights=weights, interval=None)
        for step, model in steps.items():
            assert named.value(at=step) == pytest.approx(spectral_alignment(torch.from_numpy(hand(model[:2])), weights=model[2]))
    with pytest.raises(DegenerateInputError, match=r"weights='head' is no module of .*: 0, 2, 3"):
        trajectory(steps, IMAGES, sites="1", measures="spectral_alignment", weights="head")
