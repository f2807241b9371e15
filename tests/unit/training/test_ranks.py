"""Two processes that train one model: sums are added over both, and one of them writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import inscape as ix
from inscape.training import Monitor, read_log
from inscape.training.log import MonitorLog
from inscape.training.ranks import Ranks

WORKER = Path(__file__).with_name("ddp_worker.py")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, Path]:
    """What each of two processes says, and their folder."""
    tmp_path = tmp_path_factory.mktemp("ranks")
    early = Monitor(nn.Sequential(nn.Linear(6, 8)), torch.zeros(41, 6), "0", "effective_rank", 2)
    facts = {**early._settings, "system": "Sequential"}
    log = MonitorLog(tmp_path / "early0", facts)
    log.write(4, [{"step": 4, "site": "0", "measure": "effective_rank", "value": 2.5, "broken": False}])
    processes = [
        subprocess.Popen([sys.executable, "-W", "ignore", str(WORKER), str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    return first, second, tmp_path


def test_two_processes_measure_what_one_would(told: tuple[dict, dict, Path]):
    first, second, tmp_path = told
    assert first["values"] == second["values"] and first["weights"] == second["weights"]
    assert first["told"] == [2, 4, 6] and second["told"] == []
    log = read_log(tmp_path / "log")
    assert len(log) == 3 * 5
    rows = np.array(first["rows"])
    assert log.value(site="2", measure="effective_rank", at=6) == pytest.approx(ix.measures.effective_rank(rows), rel=1e-6)
    assert log.value(site="2", measure="mean_cosine", at=6) == pytest.approx(ix.measures.mean_cosine(rows), rel=1e-6)
    assert first["values"][-2] == pytest.approx(ix.measures.two_nn(rows), rel=1e-5) and first["values"][-1] == 0.5  # the mean loss


def test_processes_that_are_joined_after_the_monitor_was_made_are_one_run(told: tuple[dict, dict, Path]):
    first, second, folder = told
    # The first one's log ends at step 4, the second one has none: both go on from there, and the first alone writes.
    assert first["told_early"] == [6, 8, 10] and second["told_early"] == []
    assert first["early"] == second["early"] and len(first["early"]) == 1 + 3 * 2
    assert read_log(folder / "early0").where(measure="effective_rank").column("at") == [4, 6, 8, 10]
    assert not list((folder / "early1").glob("probes-*"))
    assert first["early"][-2] == pytest.approx(ix.measures.effective_rank(np.array(first["first rows"])), rel=1e-6)
    assert first["early"][-1] == 0.5  # the mean loss of both


def test_one_process_is_its_own_sum():
    alone = Ranks()
    assert alone.first and alone.count == 1
    assert alone.from_first({"a": [1, None]}) == {"a": [1, None]}
    assert [float(x) for x in alone.add(torch.tensor(2.0), torch.tensor(3.0))] == [2.0, 3.0]
