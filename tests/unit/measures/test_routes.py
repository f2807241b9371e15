"""One number by every route: rows in memory, blocks from the store, kernel tiles, merged shards in any order."""

from __future__ import annotations

from contextlib import nullcontext
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures import pair_values
from inscape.summaries import CrossMoments, GramProducts, SiteRows
from inscape.summaries.pair_pass import PairPass

MEASURES = ["linear_cka", "linear_cka_debiased", "cca_mean", "pwcca", "svcca", "procrustes", "linear_r2", "gulp", "shape_alpha"]


def layers(n: int, dtype: type = np.float64) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 12)) + 3
    left = {"a": X, "b": np.tanh(0.1 * X @ rng.standard_normal((12, 9)))}
    right = {"c": X @ rng.standard_normal((12, 7)) + rng.standard_normal((n, 7)), "d": rng.standard_normal((n, 10)) * 2 - 50}
    return ({k: v.astype(dtype) for k, v in left.items()}, {k: v.astype(dtype) for k, v in right.items()})


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)], ids=["fp64", "fp32"])
def test_blocks_from_the_store_give_the_numbers_of_rows_in_memory(
    dtype: type, tolerance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = layers(2000, dtype)
    resident = ix.compare(ix.Store.from_arrays(left), ix.Store.from_arrays(right), MEASURES, interval=None).rows()
    stores = [ix.Store.from_arrays(side, to=tmp_path / name) for name, side in (("left", left), ("right", right))]
    seen: list[bool] = []
    real = pair_values.PairPass

    def passed(sites: dict[int, SiteRows], *, precise: bool) -> PairPass:
        made = real(sites, precise=precise)
        seen.append(made.held)
        return made

    monkeypatch.setattr("inscape.measures.pairs._load", lambda sites, budget: {})  # as if the rows did not fit
    monkeypatch.setattr(pair_values, "PairPass", passed)
    monkeypatch.setattr("inscape.summaries.pair_pass.BLOCK_BYTES", 2**15)  # some blocks, of 341 rows
    streamed = ix.compare(*stores, MEASURES, interval=None).rows()
    assert seen and not any(seen)
    for a, b in zip(resident, streamed, strict=True):
        assert (a["site"], a["site_b"], a["measure"]) == (b["site"], b["site_b"], b["measure"])
        assert b["value"] == pytest.approx(a["value"], abs=tolerance, rel=tolerance), a["measure"]


def test_tiles_scatters_and_moments_give_one_debiased_cka() -> None:
    left, right = layers(60)
    X, Y = torch.from_numpy(left["a"]), torch.from_numpy(right["d"])
    values = [
        ix.measures.get("linear_cka_debiased").evaluate(pair=pair)
        for pair in (GramProducts.from_tiles(X, Y), GramProducts.from_scatters(X, Y), CrossMoments.of(X, Y).products())
    ]
    assert max(values) - min(values) < 1e-12


def test_any_partition_merged_in_any_order_gives_the_numbers_of_one_pass() -> None:
    left, right = layers(400)
    X, Y = left["a"], right["c"]
    rng = np.random.default_rng(1)
    for _ in range(3):
        rows = rng.permutation(400)
        cuts = np.sort(rng.choice(np.arange(1, 400), 4, replace=False))
        parts = [CrossMoments.of(X[chosen], Y[chosen], precise=True) for chosen in np.split(rows, cuts)]
        rng.shuffle(parts)
        merged, whole = reduce(CrossMoments.merge, parts), CrossMoments.of(X, Y)
        for name in MEASURES:
            measure = ix.measures.get(name)
            found = []
            for pair in (merged, whole):
                needs = {key: pair.products() if cls is GramProducts else pair for key, (cls, _) in measure.needs.items()}
                found.append(float(measure.evaluate(**needs)))
            assert found[0] == pytest.approx(found[1], abs=1e-10), name


@pytest.mark.parametrize("d", [8, 64, 512, 4096])
def test_independent_representations_have_no_debiased_cka_at_any_width(d: int) -> None:
    rng = np.random.default_rng(d)
    X, Y = rng.standard_normal((256, d)), rng.standard_normal((256, d))
    assert abs(ix.measures.linear_cka_debiased(X, Y)) <= 0.03
    assert ix.measures.linear_cka(X, Y) > d / (256 + d) / 2  # the biased one grows with the width
    if d == 512:  # at 4,096 the ranks of two scatters of that width take a minute
        with pytest.raises(DegenerateInputError, match="rank of n - 1 or more"):
            ix.measures.cca_mean(X, Y)
    elif d < 255:
        with pytest.warns(InscapeWarning, match="fewer than 5") if 256 < 10 * d else nullcontext():
            ix.measures.cca_mean(X, Y)
