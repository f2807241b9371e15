"""The monitor: training goes on bit for bit as without it, values are those of `ix.measure`, logs resume, alarms are data."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor, nn

import inscape as ix
from inscape.errors import DegenerateInputError, ResultError, SiteNotFoundError, StoreCorruptError, UnknownMeasureError
from inscape.training import Monitor, read_log
from inscape.training.log import MonitorLog, read_rows

HELD_OUT = torch.randn(48, 6, generator=torch.Generator().manual_seed(1))


class Counting(nn.Module):
    """Counts its passes in a buffer, as some quantizers and queues do, in whatever mode."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("last", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        self.last = x[0, :3].detach()
        return x


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), Counting(), nn.Tanh(), nn.utils.parametrizations.spectral_norm(nn.Linear(8, 3))
    )


def train(model: nn.Module, watch: Callable[[Tensor], object], steps: int = 12, autocast: bool = False) -> list[float]:
    """A loop in which everything that a probe could disturb takes part."""
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses: list[float] = []
    model.train()
    model[2].eval()  # a part that is frozen on purpose stays frozen
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        for step in range(steps):
            model[2].train(step % 2 == 0)
            x = torch.randn(16, 6) + random.random() + float(np.random.rand())
            loss = model(x).square().mean()
            optimizer.zero_grad()
            if step == 4:  # a look between forward and backward finds a graph that must stay whole
                watch(loss)
            loss.backward()
            optimizer.step()
            watch(loss)
            losses.append(float(loss.detach()))
    return losses


def differences(autocast: bool) -> list[str]:
    """What a watched run has other than one that nobody watches."""
    plain, watched = net(), net()
    expected = train(plain, lambda loss: None, autocast=autocast)
    mon = Monitor(watched, HELD_OUT, ["0", "4"], ["effective_rank", "two_nn", "mean_cosine"], every=2)
    found = [] if train(watched, mon.step, autocast=autocast) == expected else ["losses"]
    assert len(mon.result()) > 30
    pairs = zip(plain.state_dict().items(), watched.state_dict().items(), strict=True)
    found += [name for (name, a), (_, b) in pairs if not torch.equal(a, b)]
    gradients = zip(plain.parameters(), watched.parameters(), strict=True)
    found += ["gradients"] if any(p.grad is None or not torch.equal(p.grad, q.grad) for p, q in gradients) else []
    found += ["modes"] if [part.training for part in plain.modules()] != [part.training for part in watched.modules()] else []
    return found + ["hooks"] * any(part._forward_hooks or part._forward_pre_hooks for part in watched.modules())


def test_training_is_bit_identical_with_and_without():
    # In a process of its own: the type checks that pytest switches on draw from Python's random numbers.
    done = subprocess.run([sys.executable, "-W", "ignore", __file__], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["False []", "True []"], done.stdout + done.stderr


def test_values_are_those_of_the_model_at_that_step():
    model = net()
    by_hand: dict[int, float] = {}
    mon = Monitor(model, HELD_OUT, "4", "participation_ratio", every=3)

    def watch(loss: Tensor) -> None:
        mon.step(loss)
        if mon.steps % 3 == 0:
            training = [part for part in model.modules() if part.training]
            model.eval()
            state = {k: v.clone() for k, v in model.state_dict().items()}
            with torch.no_grad():
                rows = model[:5](HELD_OUT).double().numpy()
            model.load_state_dict(state)
            for part in training:
                part.training = True
            eigenvalues = np.linalg.eigvalsh(np.cov(rows.T))
            by_hand[mon.steps] = float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())

    train(model, watch)
    found = mon.result()
    assert found.kind == "trajectory" and sorted(by_hand) == [3, 6, 9, 12]
    for step, value in by_hand.items():
        assert found.value(measure="participation_ratio", at=step) == pytest.approx(value, rel=1e-6)


def test_the_loss_is_the_mean_since_the_last_probe():
    mon = Monitor(net(), HELD_OUT, "4", "effective_rank", every=4)
    for loss in range(1, 9):
        mon.step(torch.tensor(float(loss)))
    assert mon.result().where(measure="loss").column("value") == [2.5, 6.5]


def test_a_log_is_taken_up_where_it_ends_and_ends_the_same(tmp_path: Path):
    told: list[tuple[dict[str, float], int]] = []

    def values() -> list[float]:
        return [1.0] * 30 + [5.0] * 10

    whole = Monitor(net(), HELD_OUT, "4", "effective_rank", every=1, to=tmp_path / "whole", log=lambda d, step: told.append((d, step)))
    alarms = [one for value in values() for one in whole.step(value)]
    assert [one.measure for one in alarms] == ["loss"] and alarms == whole.alarms
    assert 30 < alarms[0].step <= 36 and alarms[0].baseline == 1.0 and alarms[0].value == 5.0
    assert alarms[0].text == f"step {alarms[0].step}: the loss rose to 5.00 (before: 1.00)"
    assert told[0][1] == 1 and set(told[0][0]) == {"4/effective_rank", "loss"}
    first = Monitor(net(), HELD_OUT, "4", "effective_rank", every=1, to=tmp_path / "cut")
    for value in values()[:33]:
        first.step(value)
    second = Monitor(net(), HELD_OUT, "4", "effective_rank", every=1, to=tmp_path / "cut")
    assert second.steps == 33
    second.step(99.0, step=31)  # taken up at an earlier checkpoint: what came later goes
    assert second.result().where(measure="loss").column("value")[-1] == 99.0
    for step, value in enumerate(values()[30:], 31):
        second.step(value, step=step)
    assert second.alarms == whole.alarms
    assert read_log(tmp_path / "cut").rows() == read_log(tmp_path / "whole").rows() == second.result().rows()
    assert read_log(tmp_path / "cut").settings["alarms"][0]["text"] == alarms[0].text


def test_many_probes_are_put_into_few_files(tmp_path: Path):
    mon = Monitor(net(), HELD_OUT, "4", "effective_rank", every=1, to=tmp_path)
    for _ in range(150):
        mon.step(1.0)
    assert len(list(tmp_path.glob("probes-*.parquet"))) < 70
    assert read_log(tmp_path).rows() == mon.result().rows() and len(mon.result()) == 300


def test_a_network_that_breaks_is_an_alarm_at_once():
    model = net()
    mon = Monitor(model, HELD_OUT, "4", "effective_rank", every=1)
    assert mon.step() == []
    with torch.no_grad():
        model[0].weight.fill_(math.nan)
    (told,) = mon.step()
    assert told.text == "step 2: effective_rank of 4 is no longer a finite number" and math.isnan(told.value)
    assert mon.step(math.inf)[-1].measure == "loss"
    assert [row["status"] for row in mon.result().where(measure="effective_rank")] == ["ok", "failed", "failed"]


def test_a_measure_that_is_infinite_on_finite_rows_is_no_alarm(tmp_path: Path):
    labels = ["a", "b", "c"] * 16
    model = nn.Sequential(nn.Linear(6, 1))  # two of three class means lie in one direction of a line
    for pooled in (False, True):
        folder = tmp_path / str(pooled)
        mon = Monitor(model, HELD_OUT, "0", "gnc2", every=1, labels=labels, to=folder, pooled=pooled)
        assert mon.step() == []
        assert "infinite" in str(mon.result().column("reason")[0]) and mon.result().column("value")[0] is None
        again = Monitor(model, HELD_OUT, "0", "gnc2", every=1, labels=labels, to=folder, pooled=pooled)
        assert again.steps == 1 and again.alarms == []


def test_a_log_says_which_sites_were_broken_and_is_taken_up_with_its_alarms(tmp_path: Path):
    model = net()
    mon = Monitor(model, HELD_OUT, "4", "effective_rank", every=1, to=tmp_path)
    mon.step()
    with torch.no_grad():
        model[0].weight.fill_(math.nan)
    mon.step()
    assert [row["broken"] for row in read_rows(tmp_path)] == [False, True]
    again = Monitor(model, HELD_OUT, "4", "effective_rank", every=1, to=tmp_path)
    assert [one.text for one in again.alarms] == ["step 2: effective_rank of 4 is no longer a finite number"]
    for path in tmp_path.glob("probes-*.parquet"):  # as earlier versions wrote it
        pq.write_table(pq.read_table(path).drop_columns("broken"), path)
    older = Monitor(model, HELD_OUT, "4", "effective_rank", every=1, to=tmp_path)
    assert [one.text for one in older.alarms] == [one.text for one in again.alarms]


def test_a_second_look_at_one_step_keeps_its_loss_and_comes_once(tmp_path: Path):
    model = net().eval()
    mon = Monitor(model, HELD_OUT, "4", "effective_rank", every=1, to=tmp_path)
    mon.step(1.0)
    mon.step(3.0)
    with torch.no_grad():
        model[0].weight[1:] = 0
    mon.probe()
    found = mon.result()
    assert [(row["at"], row["measure"]) for row in found.rows()] == [(step, m) for step in (1, 2) for m in ("effective_rank", "loss")]
    assert found.where(measure="loss").column("value") == [1.0, 3.0]
    assert found.value(measure="effective_rank", at=2) < found.value(measure="effective_rank", at=1)
    assert read_log(tmp_path).rows() == found.rows()
    taken_up = Monitor(model, HELD_OUT, "4", "effective_rank", every=1, to=tmp_path)
    assert taken_up._detectors["4", "effective_rank"]._values == mon._detectors["4", "effective_rank"]._values
    log = MonitorLog(tmp_path, mon._settings)
    log.write(2, [{"step": 2, "site": "4", "measure": "effective_rank", "value": 1.5}])  # whoever writes by hand
    assert read_log(tmp_path).value(measure="loss", at=2) == 3.0 and read_log(tmp_path).value(measure="effective_rank", at=2) == 1.5


def test_a_reader_that_meets_files_which_go_looks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = MonitorLog(tmp_path, {})
    for step in range(64):
        log.write(step, [{"step": step, "site": "", "measure": "loss", "value": float(step)}])
    read, seen = pq.read_table, []

    def reading(path: Path, **options: object) -> object:
        seen.append(path)
        if len(seen) == 2:  # the 65th probe puts all of them into one file while the reader is at its second
            monkeypatch.setattr(pq, "read_table", read)
            log.write(64, [{"step": 64, "site": "", "measure": "loss", "value": 64.0}])
            monkeypatch.setattr(pq, "read_table", reading)
        return read(path, **options)

    monkeypatch.setattr(pq, "read_table", reading)
    assert [row["value"] for row in read_rows(tmp_path)] == list(range(65))
    (tmp_path / "probes-000000000099.parquet").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreCorruptError, match="cannot be opened"):
        read_rows(tmp_path)


def test_labels_weights_and_directions_reach_the_measures():
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    labels = ["a", "b", "c"] * 16
    mon = Monitor(model, HELD_OUT, "1", {"nc1": "rise", "spectral_alignment": "both"}, every=1, labels=labels, weights={"1": model[2]})
    mon.step()
    rows = model[:2](HELD_OUT).detach()
    assert mon.result().value(measure="nc1", at=1) == pytest.approx(ix.measures.nc1(rows, labels), rel=1e-6)
    assert mon.result().value(measure="spectral_alignment", at=1) == ix.measures.spectral_alignment(rows, weights=model[2])


def test_a_bounded_measure_is_followed_on_its_way_to_the_harmful_end():
    mon = Monitor(net(), HELD_OUT, "4", ["mean_cosine", "effective_rank", "alpha_req"], every=1)
    # A cosine can rise to 1 and a rank can fall to 1; the exponent is watched on both sides, so no end of it is the harmful one.
    assert mon._ends == {"mean_cosine": 1.0, "effective_rank": 1.0}


def test_wrong_input_is_refused_before_training(tmp_path: Path):
    model = net()
    with pytest.raises(DegenerateInputError, match="every=0"):
        Monitor(model, HELD_OUT, "4", "effective_rank", every=0)
    with pytest.raises(SiteNotFoundError, match="nowhere"):
        Monitor(model, HELD_OUT, "nowhere", "effective_rank")
    with pytest.raises(UnknownMeasureError, match="effective_rank"):
        Monitor(model, HELD_OUT, "4", "efective_rank")
    with pytest.raises(UnknownMeasureError, match="weight_alpha: of parameters"):
        Monitor(model, HELD_OUT, "4", "weight_alpha")
    with pytest.raises(DegenerateInputError, match="side='down'"):
        Monitor(model, HELD_OUT, "4", {"effective_rank": "down"})
    with pytest.raises(DegenerateInputError, match="false_alarms=0"):
        Monitor(model, HELD_OUT, "4", "effective_rank", false_alarms=0)
    Monitor(model, HELD_OUT, "4", "effective_rank", to=tmp_path)
    with pytest.raises(ResultError, match="every was 100, now 50"):
        Monitor(model, HELD_OUT, "4", "effective_rank", every=50, to=tmp_path)
    with pytest.raises(ResultError, match="no probe yet"):
        read_log(tmp_path)
    with pytest.raises(ResultError, match=r"no monitor\.json"):
        read_log(tmp_path / "elsewhere")
    (tmp_path / "probes-000000000001.parquet").write_bytes(b"no table")
    with pytest.raises(StoreCorruptError, match="delete it"):
        read_log(tmp_path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for autocast in (False, True):
        print(autocast, differences(autocast))
