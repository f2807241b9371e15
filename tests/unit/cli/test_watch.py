"""`inscape watch`: a line per series, alarms in words, and the same as JSON."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from inscape.training import Monitor


@pytest.fixture
def log(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
    mon = Monitor(model, torch.randn(48, 6), "1", "effective_rank", 10, to=tmp_path / "log")
    for step in range(400):
        mon.step(1.0 if step < 300 else 4.0)
    return tmp_path / "log"


def test_every_series_is_a_line_and_alarms_are_told(inscape, log):
    shown = inscape("watch", log, "--once")
    assert shown.code == 0
    lines = shown.out.splitlines()
    assert lines[0] == "Sequential   step 400   1 alarm"
    assert [line.split()[:2] for line in lines[3:5]] == [["training", "loss"], ["1", "effective_rank"]]
    assert "▁▁▁" in lines[3] and "███" in lines[3] and "↑ step 350" in lines[3]
    assert "step 350: the loss rose to 4.00 (before: 1.00)" in shown.out
    assert shown.last == f"inscape watch {log}"


def test_json_and_errors(inscape, log, tmp_path):
    told = json.loads(inscape("watch", log, "--json").out)
    assert told["step"] == 400 and [one["measure"] for one in told["values"]] == ["effective_rank", "loss"]
    assert told["alarms"][0]["text"] == "step 350: the loss rose to 4.00 (before: 1.00)"
    assert inscape("watch", tmp_path / "nothing").code == 1
