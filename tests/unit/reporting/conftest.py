"""Results whose findings are known beforehand."""

from __future__ import annotations

import pytest

from inscape.results import Result

SITES = ["embed", "blocks.0.resid_post", "blocks.1.resid_post", "final_norm"]


def rows_of(system, measure, values, *, half=0.5, **more):
    return [
        {"system": system, "site": site, "measure": measure, "value": v, "low": v - half, "high": v + half, "n": 400, "d": 32}
        | {"interval_method": "jackknife (32 groups)"}
        | more
        for site, v in zip(SITES, values, strict=True)
    ]


@pytest.fixture
def profile():
    rows = [*rows_of("gpt", "effective_rank", [30.0, 12.0, 18.0, 25.0]), *rows_of("vit", "effective_rank", [31.0, 14.0, 18.2, 24.0])]
    rows += rows_of("gpt", "two_nn", [5.0, 5.1, 5.2, 5.1], half=1.0)
    rows[8] |= {"value": None, "low": None, "high": None, "status": "degenerate", "reason": "<all rows> are equal"}
    return Result(
        rows, settings={"verb": "measure", "measures": ["effective_rank", "two_nn"], "command": "inscape measure runs/gpt two_nn"}
    )


@pytest.fixture
def comparison():
    rows = []
    for i, site in enumerate(SITES):
        for j, other in enumerate(SITES):
            value = 0.9 - 0.25 * abs(i - j) - 0.01 * i
            rows.append(
                {"system": "gpt", "site": site, "system_b": "vit", "site_b": other, "measure": "linear_cka_debiased", "value": value}
                | {"low": value - 0.02, "high": value + 0.02, "null_mean": 0.01, "p": 0.01 if value > 0.2 else 0.6, "n": 400, "d": 32}
                | {"d_b": 48, "interval_method": "jackknife (32 groups)"}
            )
    return Result(rows, settings={"verb": "compare", "measures": ["linear_cka_debiased"]})


@pytest.fixture
def training():
    dip = {0: 100.0, 1: 98.0, 10: 20.0, 100: 60.0, 1000: 80.0}
    return Result(
        [
            {"system": "gpt", "site": site, "measure": "effective_rank", "value": v + 2 * i, "low": v - 3, "high": v + 3 + 2 * i, "n": 2000}
            | {"axis": "step", "at": step, "interval_method": "jackknife (32 groups)"}
            for i, site in enumerate(SITES)
            for step, v in dip.items()
        ]
    )
