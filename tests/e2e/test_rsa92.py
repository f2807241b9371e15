"""The 92 images of Kriegeskorte et al. 2008: published correlations and ceilings, to the printed digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inscape as ix
from inscape.rsa import RDMs

pytestmark = pytest.mark.data


def matrices(folder: Path, file: str, key: str) -> Any:
    from scipy.io import loadmat

    return loadmat(folder / "brain" / "rsa92" / file)[key]


@pytest.fixture(scope="module")
def brain(data_dir: Path) -> RDMs:
    """Human IT of four subjects in two sessions each."""
    found = matrices(data_dir, "92_brainRDMs.mat", "RDMs")[0]
    squares = [found[subject, session]["RDM"].astype(float) for subject in range(4) for session in range(2)]
    return RDMs.from_squares(np.stack(squares), subjects=[f"subject {s}" for s in range(4) for _ in range(2)], distance="correlation")


@pytest.fixture(scope="module")
def models(data_dir: Path) -> RDMs:
    found = matrices(data_dir, "92_modelRDMs.mat", "Models")[0]
    return RDMs.from_squares(np.stack([one["RDM"].astype(float) for one in found]), subjects=[str(one["name"][0]) for one in found])


@pytest.mark.parametrize(
    "measure,lower,upper",
    [("rsa_spearman", 0.3723, 0.6657), ("rsa_corr", 0.3944, 0.6804), ("rsa_cosine", 0.9881, 0.9933), ("rsa_tau_a", 0.2539, 0.4767)],
)
def test_noise_ceilings(brain: RDMs, models: RDMs, measure: str, lower: float, upper: float) -> None:
    result = ix.compare(models["animacy"], brain, measure, ceiling=True, interval=None)
    assert round(result.value(at="lower"), 4) == lower
    assert round(result.value(at="upper"), 4) == upper


def test_ties_are_worth_something_to_spearman_alone(brain: RDMs, models: RDMs) -> None:
    result = ix.compare(models, brain, ["rsa_spearman", "rsa_rho_a"], interval=None).where(axis=None)
    values = {(row["system"], row["measure"]): round(row["value"], 3) for row in result.rows()}
    assert values["animacy", "rsa_spearman"] == 0.386 and values["animacy", "rsa_rho_a"] == 0.334
    assert values["monkeyIT", "rsa_spearman"] == values["monkeyIT", "rsa_rho_a"] == 0.296


def test_monkey_and_human_inferior_temporal_cortex(data_dir: Path, models: RDMs) -> None:
    found = matrices(data_dir, "Kriegeskorte_Neuron2008_supplementalData.mat", "RDMs_mIT_hIT_fig1")[0]
    areas = RDMs(np.stack([one["RDM"].reshape(-1) for one in found]), subjects=["monkey", "human"])

    def similarity(x: RDMs, y: RDMs) -> float:
        return round(ix.measures.rsa_spearman.evaluate(x=x.summary(), y=y.summary()), 3)

    assert similarity(areas["monkey"], areas["human"]) == 0.439
    assert [similarity(models["animacy"], areas[name]) for name in ("monkey", "human")] == [0.453, 0.588]
    assert [similarity(models["V1"], areas[name]) for name in ("monkey", "human")] == [0.074, 0.039]


def test_behavior_and_human_inferior_temporal_cortex(data_dir: Path) -> None:
    found = matrices(data_dir, "92_behavRDMs.mat", "rdms_behav_92")[0]
    behavior = RDMs.from_squares(np.mean([one["RDM"] for one in found], axis=0))
    areas = matrices(data_dir, "Kriegeskorte_Neuron2008_supplementalData.mat", "RDMs_mIT_hIT_fig1")[0]
    human = RDMs(areas[1]["RDM"].reshape(-1))
    assert round(ix.measures.rsa_spearman.evaluate(x=behavior.summary(), y=human.summary()), 3) == 0.392


def test_the_published_picture(brain: RDMs, models: RDMs) -> None:
    result = ix.compare(models, brain, "rsa_rho_a", ceiling=True, draws=100)
    figure = result.plot()
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()][:2] == ["animacy", "monkeyIT"]
    worse = result.where(system="animacy", axis="difference", at="V1").rows()[0]
    assert worse["value"] > 0.2 and worse["p_corrected"] < 0.05
