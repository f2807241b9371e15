"""Two small stores on disk, and a way to run a command in this process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from inscape.cli import main
from inscape.store import Store


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.out.rstrip().splitlines()[-1]


@pytest.fixture
def inscape(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    def run(*argv):
        code = main([str(word) for word in argv])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.fixture
def stores(tmp_path, monkeypatch):
    """`a` and `b` hold the same 60 stimuli; layer3 of `a` is constant."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 8))
    stimuli = {"stimulus": [f"s{i}" for i in range(60)], "label": ["cat", "dog"] * 30}
    Store.from_arrays({"layer1": X, "layer2": X[:, :4], "layer3": np.zeros((60, 3))}, stimuli=stimuli, to="a", system="net-a")
    Store.from_arrays({"layer1": X + 0.1 * rng.standard_normal((60, 8))}, stimuli=stimuli, to="b", system="net-b")
    return tmp_path
