"""Two processes that train one model: sums are added over both, and one of them writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.training import read_log
from inscape.training.ranks import Ranks

WORKER = Path(__file__).with_name("ddp_worker.py")


def test_two_processes_measure_what_one_would(tmp_path: Path):
    processes = [
        subprocess.Popen([sys.executable, "-W", "ignore", str(WORKER), str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first["values"] == second["values"] and first["weights"] == second["weights"]
    assert first["told"] == [2, 4, 6] and second["told"] == []
    log = read_log(tmp_path / "log")
    assert len(log) == 3 * 5
    rows = np.array(first["rows"])
    assert log.value(site="2", measure="effective_rank", at=6) == pytest.approx(ix.measures.effective_rank(rows), rel=1e-6)
    assert log.value(site="2", measure="mean_cosine", at=6) == pytest.approx(ix.measures.mean_cosine(rows), rel=1e-6)
    assert first["values"][-2] == pytest.approx(ix.measures.two_nn(rows), rel=1e-5) and first["values"][-1] == 0.5  # the mean loss


def test_one_process_is_its_own_sum():
    alone = Ranks()
    assert alone.first and alone.count == 1
    assert alone.from_first({"a": [1, None]}) == {"a": [1, None]}
    assert [float(x) for x in alone.add(torch.tensor(2.0), torch.tensor(3.0))] == [2.0, 3.0]
