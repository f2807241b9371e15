"""Results small enough to know every mark of their figures by heart."""

from __future__ import annotations

import pytest

from inscape.results import Result

SITES = ["embed", "blocks.0.resid_post", "blocks.1.resid_post", "final_norm"]


@pytest.fixture
def profile():
    rows = []
    for system, offset in (("a", 0.0), ("b", 1.0)):
        for i, site in enumerate(SITES):
            rows.append(
                {"system": system, "site": site, "measure": "two_nn", "value": 10.0 + i + offset, "low": 9.0 + i, "high": 12.0 + i, "n": 50}
            )
            rows.append({"system": system, "site": site, "measure": "linear_cka", "value": 0.1 + 0.2 * i, "null_mean": 0.05, "n": 50})
    rows[0] |= {"value": None, "low": None, "high": None, "status": "too_few", "reason": "2 rows"}
    return Result(rows)


@pytest.fixture
def comparison():
    rows = []
    for i, site in enumerate(SITES[:3]):
        for j, other in enumerate(SITES[:2]):
            value = [[0.9, 0.1], [0.2, 0.8], [0.3, None]][i][j]
            rows.append(
                {"system": "a", "site": site, "system_b": "b", "site_b": other, "measure": "linear_cka", "value": value, "n": 50}
                | {"p": 0.5 if value == 0.1 else 0.01, "status": "ok" if value is not None else "degenerate"}
            )
    return Result(rows)


@pytest.fixture
def training():
    return Result(
        [
            {"system": "gpt", "site": site, "measure": "two_nn", "value": 10.0 + i - 0.5 * k, "axis": "step", "at": step, "n": 50}
            for i, site in enumerate(SITES)
            for k, step in enumerate((0, 1, 10, 100, 1000))
        ]
    )
