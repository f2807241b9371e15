"""Known features come back in a short training with no other options, on the task of the benchmark."""

from __future__ import annotations

import pytest

from benchmarks.cases.dictionaries import quality


@pytest.mark.slow
def test_512_features_come_back_in_300_steps() -> None:
    found = quality(d=128, features=512, active=8, width=1024, k=16, rows=307_200, seed=5)
    assert found["mmcs"] >= 0.98
    assert found["fvu"] <= 0.12
