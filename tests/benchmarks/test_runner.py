"""The runner that speed claims rest on."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks/ is no part of the package

from benchmarks import run  # noqa: E402
from benchmarks.case import CASES, Figure, Setup, Subject, case, ratio  # noqa: E402


@pytest.fixture
def calls():
    """A case of two subjects, the second of which burns about three times the CPU of the first."""
    order: list[str] = []

    def burn(name: str, seconds: float) -> None:
        order.append(name)
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    def missing_peer(setup: Setup) -> None:
        raise AssertionError("a peer without an environment must not run here")

    @case("trial", peers={"no-such-peer": missing_peer})
    def trial(tiny: bool):
        """A trial."""
        subjects = {"a": Subject(lambda: burn("a", 0.02), reset=lambda: order.append("reset a")), "b": Subject(lambda: burn("b", 0.06))}
        figures = {
            "b_over_a": Figure("CPU of b over a", ratio("b", "a"), 2.0),
            "a_over_b": Figure("CPU of a over b", ratio("a", "b"), 0.1, "higher"),
            "beside": Figure("beside the peer", ratio("a", "b"), None, peer="no-such-peer"),
        }
        del figures["beside"]
        yield Setup(subjects, figures, {"memory": ("peak", 0.5, 1.0, "GB")}, notes={"tiny": tiny})
        order.append("closed")

    yield order
    del CASES["trial"]


def _arguments(**words: object) -> argparse.Namespace:
    return argparse.Namespace(**{"rounds": 4, "seed": 0, "tiny": False, "peer": None, **words})


def test_rounds_are_interleaved_and_the_first_is_dropped(calls: list[str], capsys: pytest.CaptureFixture[str]):
    record = run.run_case("trial", _arguments())
    runs = [name for name in calls if name in "ab"]
    assert len(runs) == 10  # 5 rounds of both, 4 of them kept
    assert all(sorted(runs[i : i + 2]) == ["a", "b"] for i in range(0, 10, 2))
    assert {tuple(runs[i : i + 2]) for i in range(0, 10, 2)} == {("a", "b"), ("b", "a")}
    assert calls.count("reset a") == 5
    assert calls[-1] == "closed"
    assert len(record["subjects"]["a"]["cpu_rounds"]) == 4
    assert "peer no-such-peer: no environment" in capsys.readouterr().out


def test_figures_have_median_quartiles_and_a_verdict(calls: list[str]):
    figures = run.run_case("trial", _arguments())["figures"]
    assert figures["b_over_a"]["value"] == pytest.approx(3, rel=0.3)
    low, high = figures["b_over_a"]["quartiles"]
    assert low <= figures["b_over_a"]["value"] <= high
    assert figures["b_over_a"]["holds"] is False
    assert figures["a_over_b"]["holds"] is True
    assert figures["memory"] == {
        "text": "peak",
        "value": 0.5,
        "quartiles": None,
        "unit": "GB",
        "limit": 1.0,
        "better": "lower",
        "holds": True,
        "peer": None,
    }
    assert all(figure["peer"] is None for figure in figures.values())  # the peer did not run


def test_the_record_says_where_and_with_what(calls: list[str]):
    record = run.run_case("trial", _arguments(rounds=1))
    assert record["title"] == "A trial."
    assert set(record["machine"]) >= {"processor", "cores", "memory_gb", "load_before"}
    assert record["versions"]["torch"].startswith("2.")
    assert record["threads"]["torch"] == 1
    assert record["commit"] != ""
    json.dumps(record)


def test_a_case_that_cannot_run_here_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    @case("elsewhere")
    def elsewhere(tiny: bool):
        """Needs what is not here."""
        yield Setup({}, {}, notes={"left out": "there is no such device here"})

    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["run", "elsewhere", "--out", str(out)])
    assert run.main() == 0
    assert not out.exists() and "left out: there is no such device here" in capsys.readouterr().out
    del CASES["elsewhere"]


def test_quartiles_are_those_of_numpy():
    import numpy as np

    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    assert run.quartiles(values) == pytest.approx(tuple(np.quantile(values, [0.25, 0.5, 0.75])))
    assert run.quartiles([2.0]) == (2.0, 2.0, 2.0)


def test_every_figure_with_a_peer_has_a_requirement_file():
    run.load_cases()
    for name, (_, peers) in CASES.items():
        for peer in peers:
            assert (ROOT / "benchmarks" / "peers" / f"{peer}.txt").exists(), f"{name} names the peer {peer}"


def test_an_unknown_case_is_refused():
    words = [sys.executable, "-m", "benchmarks.run", "nothing"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "name a case: " in done.stderr
    assert "capture_overhead" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "capture_overhead",
        "capture_per_forward",
        "store_read",
        "store_memory",
        "spectral_pass",
        "dimension_pass",
        "cka_pairs",
        "wide_pairs",
        "zipf_throughput",
        "gpu_capture",
        "layer_maps",
        "layer_map_loops",
        "permutation_null",
        "null_calibration",
        "neighbor_graph",
        "million_rows",
    ],
)
def test_each_case_runs_at_its_tiny_size(name: str, tmp_path: Path):
    out = tmp_path / "out.json"
    words = [sys.executable, "-m", "benchmarks.run", name, "--tiny", "--rounds", "1", "--out", str(out)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    record = json.loads(out.read_text())
    assert record["tiny"] is True
    assert record["figures"]
