"""What README claims is what was measured, and its commands exist."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def table():
    spec = importlib.util.spec_from_file_location("benchmark_table", ROOT / "benchmarks" / "table.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_figures_are_those_of_the_json(table):
    expected = f"{table.table(table.records())} [All figures](docs/speed.md)."
    assert table.section(README).removeprefix("## Speed, measured").strip() == expected, "run: python -m benchmarks.table"
    assert table.PAGE.read_text() == table.page(table.records()), "run: python -m benchmarks.table"
    known = {(record["case"], name) for record in table.records() for name in record["figures"]}
    assert set(table.HEADLINES) <= known


def test_a_figure_appears_only_with_its_measurement(table):
    rest = README.replace(table.section(README), "")
    assert not re.search(r"\d+(\.\d+)?\s*(×|x)\s+(faster|slower|less|more)", rest)


def test_the_table_is_written_from_the_records(table, monkeypatch):
    monkeypatch.setattr(table, "HEADLINES", (("one", "b"), ("one", "a"), ("one", "never measured")))
    figure = {
        "text": "CPU of a over b",
        "value": 0.71239,
        "quartiles": [0.7, 0.72],
        "unit": "×",
        "limit": 0.75,
        "better": "lower",
        "holds": True,
    }
    record = {
        "case": "one",
        "title": "A case.",
        "tiny": False,
        "figures": {"a": {**figure, "peer": None}, "b": {**figure, "text": "beside a peer", "peer": "other", "limit": None, "holds": None}},
        "machine": {"processor": "A chip", "cores": 2},
        "threads": {"torch": 2},
        "versions": {"torch": "2.13.0"},
        "peers": {"other": {"versions": {"other": "1.0"}}},
    }
    lines = table.table([record]).splitlines()
    assert lines[2] == "| beside a peer | 0.712 × | 0.7 – 0.72 |  |"
    assert lines[3] == "| CPU of a over b | 0.712 × | 0.7 – 0.72 | ≤ 0.75 |"
    assert lines[5] == "Medians over interleaved rounds, with quartiles, on A chip, 2 cores, 2 threads, torch 2.13.0; beside other 1.0."
    missed = table.table([{**record, "figures": {"a": {**figure, "peer": None, "holds": False}}}])
    assert "≤ 0.75 (missed)" in missed
    assert table.table([]) == ""
    assert "Goals that were missed say so; 1 are." in table.page([{**record, "figures": {"a": {**figure, "peer": None, "holds": False}}}])
    assert "## one\n\nA case.\n\n| what |" in table.page([record])


def test_its_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
