"""What single kinds promise beyond the laws of all."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.dictionaries import Dictionary
from inscape.dictionaries.kinds import matching_pursuit
from inscape.errors import DictionaryError, StoreMismatchError
from tests.unit.dictionaries.scene import features, sparse_rows

X = sparse_rows(1200)


def pursuit(k: int = 5, **options: float) -> Dictionary:
    W = torch.from_numpy(features(40, 16))
    return Dictionary(ix.dictionaries.MatchingPursuit(width=40, k=k, **options), {"W_dec": W, "b_dec": torch.full((16,), 2.0).double()})


def by_hand(rows: np.ndarray, k: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Codes and leftovers of matching pursuit, one step after the other."""
    W = features(40, 16)
    r, z, leftovers = rows - 2.0, np.zeros((len(rows), 40)), [rows - 2.0]
    for _ in range(k):
        p = r @ W.T
        j, c = p.argmax(1), np.maximum(p.max(1), 0)
        z[np.arange(len(rows)), j] += c
        r = r - c[:, None] * W[j]
        leftovers.append(r)
    return z, leftovers


@pytest.mark.parametrize("gram", [True, False])
def test_matching_pursuit_equals_the_dense_loop(gram: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not gram:
        monkeypatch.setattr(matching_pursuit, "_GRAM_BYTES", 0)
    z, leftovers = by_hand(X, 5)
    np.testing.assert_allclose(pursuit().encode(X).numpy(), z, atol=1e-10)
    np.testing.assert_allclose(pursuit().reconstruct(X).numpy(), X - leftovers[-1], atol=1e-10)


def test_leftovers_shrink_and_are_orthogonal_to_the_last_direction() -> None:
    lengths = [np.linalg.norm(X - pursuit(k).reconstruct(X).numpy(), axis=1) for k in (1, 2, 3, 4, 5)]
    assert all((later <= earlier + 1e-12).all() for earlier, later in pairwise(lengths))
    last = pursuit(1)
    left = X - last.reconstruct(X).numpy()
    chosen = last.encode(X)
    assert len(chosen.indices) == len(X)
    assert np.abs((left * features(40, 16)[chosen.indices.numpy()]).sum(1)).max() < 1e-10


def test_a_tolerance_ends_rows_early_and_other_limits_need_no_training() -> None:
    full = pursuit(5)
    adaptive = full.using(k=30, tolerance=0.05)
    codes = adaptive.encode(X)
    left = ((X - adaptive.reconstruct(X).numpy()) ** 2).sum(1) / ((X - 2.0) ** 2).sum(1)
    assert (left < 0.05).mean() > 0.99
    assert len(set(codes.counts.tolist())) > 3
    steps = by_hand(X, 30)[1]
    share = np.stack([(r**2).sum(1) for r in steps]) / ((X - 2.0) ** 2).sum(1)
    needed = (share > 0.05).sum(0)  # steps until the leftover is small enough
    one_by_one = [(np.abs(by_hand(X[i : i + 1], needed[i])[0]) > 0).sum() for i in range(20)]
    assert codes.counts[:20].tolist() == one_by_one
    assert full.recipe.k == 5
    with pytest.raises(DictionaryError, match="has no option 'depth'; it has width, k, tolerance"):
        full.using(depth=3)


def test_pursuit_needs_unit_directions_and_implies_its_encoder() -> None:
    assert torch.equal(pursuit().W_enc, pursuit().W_dec.T) and float(pursuit().b_enc.abs().max()) == 0
    with pytest.raises(DictionaryError, match="must have length 1, one has 2"):
        Dictionary(pursuit().recipe, {"W_dec": 2 * pursuit().W_dec, "b_dec": torch.zeros(16)})
    with pytest.raises(DictionaryError, match="normalize='whiten' does not suit MatchingPursuit"):
        ix.decompose(X, ix.dictionaries.MatchingPursuit(width=40, k=3), rows=1024, normalize="whiten")
    with pytest.raises(DictionaryError, match="a dictionary of kind SemiNMF has no W_enc"):
        ix.decompose(X, ix.dictionaries.SemiNMF(width=4, iterations=3)).W_enc


def mapped() -> tuple[np.ndarray, np.ndarray]:
    """Rows, and what a linear map with a kink makes of them."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((6000, 10)) + 1
    return x, np.maximum(x @ rng.standard_normal((10, 14)), 0) @ rng.standard_normal((14, 6)) - 3


def test_a_transcoder_maps_one_site_to_another() -> None:
    x, y = mapped()
    plain = ix.decompose((x, y), ix.dictionaries.Transcoder(width=64, k=6), rows=120_000)
    skip = ix.decompose((x, y), ix.dictionaries.Transcoder(width=64, k=6, skip=True), rows=120_000)
    design = np.concatenate([x, np.ones((len(x), 1))], 1)
    linear = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    linear_fvu = (linear**2).sum() / ((y - y.mean(0)) ** 2).sum()
    scores = [one.score(x, target=y).value(measure="fvu") for one in (plain, skip)]
    assert scores[1] < linear_fvu and scores[1] < scores[0] < 0.3
    z = skip.encode(x).numpy()
    expected = z @ skip.W_dec.numpy() + skip.b_dec.numpy() + x.astype(np.float32) @ skip.tensors["W_skip"].numpy()
    np.testing.assert_allclose(skip.reconstruct(x).numpy(), expected, atol=1e-3)
    with pytest.raises(DictionaryError, match=r"codes alone do not give rows; use reconstruct\(X\)"):
        skip.decode(skip.encode(x))
    with pytest.raises(DictionaryError, match=r"give \(view_in, view_out\), got 1 site"):
        ix.decompose(x, ix.dictionaries.Transcoder(width=64, k=6))
    with pytest.raises(StoreMismatchError, match="6000 rows"):
        ix.decompose((x, y[:5]), ix.dictionaries.Transcoder(width=64, k=6))
    # As wide as what it writes: without a target the rows that it reads must not stand in for them.
    alike = (
        ix.decompose((x, y[:, : x.shape[1]]), ix.dictionaries.Transcoder(width=64, k=6), rows=1024) if y.shape[1] >= x.shape[1] else plain
    )
    with pytest.raises(DictionaryError, match="reads one site and writes another; give the rows that it is to write as target="):
        alike.score(x)
    with pytest.raises(DictionaryError, match="a Transcoder does not give back the site that it reads"):
        ix.dictionaries.loss_recovered(alike, None, ["text"], site="a")


def test_a_crosscoder_tells_shared_features_from_those_of_one_site() -> None:
    rng = np.random.default_rng(6)
    true = features(30, 24, seed=9)
    z = rng.uniform(0.5, 1.5, (12000, 30)) * (rng.random((12000, 30)) < 0.06)
    first, second = true[:, :12].copy(), true[:, 12:].copy()
    first[:8], second[8:16] = 0, 0  # eight features are missing from each side
    a, b = z @ first * 4 + 3, z @ second * 40
    cross = ix.decompose([a, b], ix.dictionaries.Crosscoder(width=40, k=3), rows=200_000)
    found = ix.dictionaries.site_shares(cross)
    joint = np.concatenate([first * 4 / a.std(), second * 40 / b.std()], 1)
    directions = torch.cat([block / scale for block, scale in zip(cross.W_dec.split(12, 1), cross.info["scales"], strict=True)], 1).numpy()
    cosines = (joint / np.linalg.norm(joint, axis=1, keepdims=True)) @ (directions / np.linalg.norm(directions, axis=1, keepdims=True)).T
    match, shares = cosines.argmax(1), found.arrays["shares"]
    good = cosines.max(1) > 0.9
    assert good.mean() > 0.8
    assert shares[match[:8][good[:8]], 1].min() > 0.8 and shares[match[8:16][good[8:16]], 0].min() > 0.8
    assert 0.15 < shares[match[16:][good[16:]], 0].min() and shares[match[16:][good[16:]], 0].max() < 0.85
    assert found.value(measure="site_share", site="X0") == pytest.approx(shares[:, 0].mean())
    assert found.value(measure="exclusive", site="X1") == pytest.approx((shares[:, 1] >= 0.9).mean())
    assert cross.score([a, b]).value(measure="fvu") == pytest.approx(cross.score(np.concatenate([a, b], 1)).value(measure="fvu"))
    assert torch.equal(cross.encode([a, b]).indices, cross.encode(np.concatenate([a, b], 1)).indices)
    with pytest.raises(DictionaryError, match="expected a fitted Crosscoder"):
        ix.dictionaries.site_shares(pursuit())
    with pytest.raises(DictionaryError, match="joins several sites"):
        ix.decompose(a, cross.recipe)
