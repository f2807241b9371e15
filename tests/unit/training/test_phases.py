"""Phases, convergence and drift, against courses that were made by hand and NumPy's CKA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import inscape as ix
from inscape.errors import DegenerateInputError, ResultError, TooFewStimuliError
from inscape.training import convergence_to_final, phases, representation_drift

IMAGES = np.random.default_rng(0).standard_normal((40, 6))


def course(values: list[float], site: str = "a") -> list[dict]:
    rows = [{"site": site, "measure": "effective_rank", "value": v, "axis": "step", "at": 2**i} for i, v in enumerate(values)]
    return rows


def test_a_course_with_known_turns_is_cut_there():
    result = ix.Result(course([10, 8, 4, 4.2, 4.1, 7, 12, 11.5, 12.5, 9, 6]))
    found = phases(result)
    assert [(one.name, one.begin, one.end) for one in found] == [("collapse", 1, 4), ("expansion", 4, 256), ("compression", 256, 1024)]
    assert [one.factor for one in found] == pytest.approx([0.4, 12.5 / 4, 6 / 12.5])
    assert [phase.name for phase in phases(ix.Result(course([4, 8, 2, 9])))] == ["expansion", "compression", "expansion"]
    assert phases(ix.Result(course([10, 10.5, 9.8, 10.2]))) == []
    both = ix.Result([*course([8, 2, 4]), *course([2, 0.5, 1], "b")])
    for found in (phases(both), phases(both, site="a")):
        assert [(one.name, one.begin, one.end) for one in found] == [("collapse", 1, 2), ("expansion", 2, 4)]
        assert [one.factor for one in found] == pytest.approx([0.25, 2.0])


def test_phases_refuse_what_has_no_ratio():
    with pytest.raises(DegenerateInputError, match="smallest value is 0"):
        phases(ix.Result(course([1, 0])))
    with pytest.raises(DegenerateInputError, match="least=0"):
        phases(ix.Result(course([1, 2])), least=0)
    with pytest.raises(ResultError, match="has 0 steps"):
        phases(ix.Result(course([1, 2])), "two_nn")


def test_a_site_that_fails_at_one_step_makes_no_phase():
    whole, gap = course([10, 10, 10]), course([100, 100, 100], "b")
    gap[1] |= {"value": None, "status": "failed", "reason": "hand-made"}
    assert phases(ix.Result([*whole, *gap])) == []
    assert [phase.name for phase in phases(ix.Result([*course([8, 2, 4]), *gap]))] == ["collapse", "expansion"]
    whole[2] |= {"value": None, "status": "failed", "reason": "hand-made"}
    with pytest.raises(ResultError, match=r"'a', which has most, lacks step 4.*\['a', 'b'\]"):
        phases(ix.Result([*whole, *gap]))
    assert phases(ix.Result([*whole, *gap]), site="b") == []


def test_a_monitors_own_mean_of_sites_is_no_site_beside_them():
    both, mean = [*course([10, 10, 10]), *course([100, 100, 100], "b")], course([55, 5, 55], "mean of sites")
    assert phases(ix.Result([*both, *mean])) == []
    assert [phase.name for phase in phases(ix.Result(mean))] == ["collapse", "expansion"]


def test_convergence_is_not_claimed_across_a_step_that_failed():
    def rows(values: list[float | None], site: str = "a") -> list[dict]:
        place = {"site": site, "site_b": site, "measure": "linear_cka_debiased", "axis": "step"}
        status = {"status": "failed", "reason": "hand-made"}
        return [{**place, "at": 10 * i, "value": v, **({} if v is not None else status)} for i, v in enumerate(values)]

    found = convergence_to_final(ix.Result([*rows([0.95, None, 0.96, 1.0]), *rows([0.2, 0.95, 0.96, 1.0], "b"), *rows([0.95, 0.95], "c")]))
    assert found.column("value") == [20.0, 10.0, None]
    assert [row["status"] for row in found.rows()] == ["ok", "ok", "failed"]
    assert "not known at step 10" in found.column("reason")[0] and found.column("reason")[1] is None
    assert "not known at step 30" in found.column("reason")[2]


def net(mix: float) -> nn.Module:
    model = nn.Linear(6, 5, bias=False).double().eval()
    begin, end = (torch.randn(5, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (1, 2))
    with torch.no_grad():
        model.weight.copy_((1 - mix) * begin + mix * end)
    return nn.Sequential(model)


def cka(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(0), y - y.mean(0)
    return float(np.linalg.norm(x.T @ y) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y))


def rows(mix: float) -> np.ndarray:
    with torch.no_grad():
        return net(mix)(torch.from_numpy(IMAGES)).numpy()


def test_convergence_and_drift_by_numpys_cka():
    mixes = {0: 0.0, 10: 0.5, 20: 0.95, 30: 1.0}
    checkpoints = {step: net(mix) for step, mix in mixes.items()}
    to_last = ix.trajectory(checkpoints, IMAGES, sites="0", measures="linear_cka", interval=None)
    expected = {step: cka(rows(mix), rows(1.0)) for step, mix in mixes.items()}
    share = (expected[0] + expected[10]) / 2
    assert convergence_to_final(to_last, "linear_cka", share=share).value(site="0") == 10
    assert convergence_to_final(to_last, "linear_cka", share=(1 + expected[20]) / 2).value(site="0") == 30
    between = ix.trajectory(checkpoints, IMAGES, sites="0", measures="linear_cka", interval=None, against="previous")
    drift = representation_drift(between, "linear_cka")
    assert drift.column("at") == [10, 20, 30] and drift.kind == "trajectory"
    assert drift.value(at=20) == pytest.approx(1 - cka(rows(0.5), rows(0.95)), abs=1e-9)
    with pytest.raises(ResultError, match="against='previous'"):
        representation_drift(to_last, "linear_cka")
    with pytest.raises(ResultError, match="against='last'"):
        convergence_to_final(between, "linear_cka")
    with pytest.raises(DegenerateInputError, match="share=1"):
        convergence_to_final(to_last, "linear_cka", share=1)


def test_a_folder_of_checkpoints_is_read_by_the_numbers_in_its_names(tmp_path: Path):
    from inscape.training.trajectory import checkpoints_of

    for name in ("checkpoint-20", "checkpoint-3", "step100"):
        (tmp_path / name).mkdir()
    (tmp_path / "logs").mkdir()
    (tmp_path / "notes-7.txt").write_text("no folder")
    names = {3: "checkpoint-3", 20: "checkpoint-20", 100: "step100"}
    assert checkpoints_of(tmp_path) == {step: str(tmp_path / name) for step, name in names.items()}
    (tmp_path / "old-20").mkdir()
    with pytest.raises(DegenerateInputError, match=r"checkpoint-20 and .*old-20 are both of step 20"):
        checkpoints_of(tmp_path)
    with pytest.raises(TooFewStimuliError, match="no checkpoint"):
        checkpoints_of(tmp_path / "logs")
