"""Planted circles, parallelograms and lobes, and what each is not."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from inscape.dictionaries import (
    Dictionary,
    feature_clusters,
    lobes,
    mixture_index,
    multidimensional,
    parallelism,
    separability_index,
)
from inscape.dictionaries.geometry import AFFINITIES, adjusted_mutual_information, spectral
from inscape.errors import DegenerateInputError, DictionaryError, MemoryBudgetError
from tests.unit.dictionaries.token_scene import reading


def circle(n: int = 4000) -> np.ndarray:
    angle = (np.arange(n) + 0.5) * 2 * np.pi / n
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def test_a_circle_is_not_separable():
    """Against the arcs that lie in each of the 10 × 10 cells."""
    edges = np.linspace(-1, 1, 11)
    cuts = np.sort(np.concatenate([np.arccos(edges), -np.arccos(edges), np.arcsin(edges), np.pi - np.arcsin(edges)]) % (2 * np.pi))
    cuts = np.concatenate([cuts, [cuts[0] + 2 * np.pi]])
    middle, share = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts) / (2 * np.pi)
    cells = np.zeros((10, 10))
    for angle, part in zip(middle, share, strict=True):
        cells[min(9, int((np.cos(angle) + 1) * 5)), min(9, int((np.sin(angle) + 1) * 5))] += part
    alone = np.outer(cells.sum(1), cells.sum(0))
    expected = (cells[cells > 0] * np.log2(cells[cells > 0] / alone[cells > 0])).sum()
    assert separability_index(circle()) == pytest.approx(expected, abs=0.01)
    assert separability_index(circle() @ np.array([[0.6, 0.8], [-0.8, 0.6]]) * 3 + 5) == pytest.approx(expected, abs=0.02)


def test_independent_axes_are_separable_however_they_are_turned():
    X = np.random.default_rng(0).uniform(-1, 1, (20_000, 2))
    bias = 81 / (2 * len(X) * np.log(2))
    for angle in (0.0, 0.5):
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        assert 0 <= separability_index(X @ turn) < 2 * bias + 0.005


def test_the_mixture_of_a_circle_is_that_of_the_arcsine_law():
    offset = np.linspace(-1, 1, 2001)
    reach = 0.1 * np.sqrt(0.5 + offset**2)
    below = lambda x: np.arcsin(np.clip(x, -1, 1)) / np.pi + 0.5  # noqa: E731
    assert mixture_index(circle()) == pytest.approx((below(offset + reach) - below(offset - reach)).max(), abs=0.01)


def test_two_features_that_are_never_active_together_are_a_mixture():
    rng = np.random.default_rng(1)
    strength, which = rng.uniform(0.5, 1, 2000), rng.random(2000) < 0.7
    X = np.where(which[:, None], [1.0, 0.0], [0.0, 1.0]) * strength[:, None]
    # 70 % of the points have no part in the second direction: they lie on a line through the origin.
    assert mixture_index(X) == pytest.approx(which.mean(), abs=0.01)
    with pytest.raises(DegenerateInputError, match="on one line"):
        mixture_index(np.outer(np.arange(5.0), [1, 2]))
    with pytest.raises(DegenerateInputError, match=r"expected \[n, 2\]"):
        separability_index(np.ones((5, 3)))
    with pytest.raises(DegenerateInputError, match="between 0 and 1"):
        mixture_index(X, width=2.0)


def planted(n: int = 3000, d: int = 10) -> tuple[Dictionary, np.ndarray]:
    """Twelve features around a circle, two that exclude each other, and four alone."""
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    angle = np.arange(12) * np.pi / 6
    ring = np.cos(angle)[:, None] * basis[0] + np.sin(angle)[:, None] * basis[1]
    pair = np.stack([basis[2], 0.7 * basis[2] + 0.71414 * basis[3]])
    W = np.concatenate([ring, pair, basis[4:8]])
    turn = rng.uniform(0, 2 * np.pi, n)
    rows = np.cos(turn)[:, None] * basis[0] + np.sin(turn)[:, None] * basis[1]
    first = rng.random(n) < 0.6
    dual = np.linalg.pinv(pair)  # so that each of the two is read without the other
    rows = rows + np.where(first[:, None], pair[0], pair[1]) * rng.uniform(0.5, 1, (n, 1))
    rows = rows + (rng.random((n, 4)) < 0.2) @ basis[4:8]
    sae = reading(W)
    sae.tensors["W_enc"][:, 12:14] = sae.W_enc.new_tensor(dual)
    sae.tensors["b_enc"][:12] = -0.8  # each is active on its stretch of the circle
    sae.tensors["b_enc"][12:] = -0.01  # rounding is no activity
    return sae, rows.astype(np.float32)


def test_a_planted_circle_is_found_and_a_mixture_is_told_from_it():
    sae, rows = planted()
    groups = feature_clusters(sae)
    assert [group.tolist() for group in groups] == [list(range(12)), [12, 13]]
    found = multidimensional(sae, rows)
    assert found.value(measure="clusters") == 2
    ring, pair = ({row["measure"]: row for row in found.where(axis="cluster", at=place)} for place in (0, 1))
    assert ring["separability"]["label"].startswith("features 0, 1, 2, 3, 4, 5, 6, 7 and 4 more; components 1 and 2")
    assert ring["separability"]["value"] > 1 > 5 * ring["separability"]["null_mean"] and ring["mixture"]["value"] < 0.3
    assert pair["mixture"]["value"] == pytest.approx(0.6, abs=0.03)  # the share of rows without the second feature
    assert ring["irreducibility"]["value"] > 2 * pair["irreducibility"]["value"]
    assert ring["irreducibility"]["value"] == pytest.approx((1 - ring["mixture"]["value"]) * ring["separability"]["value"])
    radius = np.linalg.norm(found.arrays["plane_0"], axis=1)
    assert radius.std() / radius.mean() < 0.15  # what the group writes together is a circle
    with pytest.raises(DictionaryError, match=r"no two features .* are joined at 0.99"):
        multidimensional(sae, rows, at=0.99)
    with pytest.raises(DictionaryError, match="active in 50 rows"):
        multidimensional(sae, rows[:20])


def test_features_can_be_joined_by_company():
    sae, rows = planted()
    features = sae.features(rows)
    together = feature_clusters(sae, features=features, at=0.3)
    assert together[0].tolist() == list(range(12))
    assert multidimensional(sae, rows, features=features, at=0.3).settings["joined_by"] == "company"


def test_rows_are_thinned_evenly(monkeypatch):
    sae, rows = planted()
    monkeypatch.setattr("inscape.dictionaries.manifold.ROWS", 400)
    assert multidimensional(sae, rows).where(axis="cluster", at=0).unique("n") == [400]


def test_parallelism_by_hand():
    """Differences e1, e1 and e2: cosines with the mean of the other two are 1/√2, 1/√2 and 0."""
    X = np.array([[0, 0], [1, 0], [5, 2], [6, 2], [3, 3], [3, 4.0]])
    found = parallelism(X, [[0, 1], [2, 3], [4, 5]], draws=0)
    assert found.value(measure="parallelism") == pytest.approx(2**0.5 / 3)
    np.testing.assert_allclose(found.arrays["cosine"], [2**-0.5, 2**-0.5, 0], atol=1e-12)


def test_pairs_may_share_their_members():
    # Steps of 1, 1 and 1 along a line: each is parallel to the others. A shuffle may pair a point with itself, which has no direction.
    points = np.stack([np.arange(4.0), np.zeros(4)], 1)
    found = parallelism(points, [[0, 1], [1, 2], [2, 3]], draws=50)
    assert found.value(measure="parallelism", label="all") == pytest.approx(1.0)
    (row,) = found.rows()
    assert 0 < row["p"] <= 1 and row["null_mean"] < 1


def test_planted_crystals_are_found_and_distractors_can_be_taken_out():
    rng = np.random.default_rng(3)
    words, female, royal, length = rng.standard_normal((12, 20)), *rng.standard_normal((3, 20)) * 4
    X = np.concatenate([words, words + female, words + royal])
    pairs = [[i, 12 + i] for i in range(12)] + [[i, 24 + i] for i in range(12)]
    relation = ["gender"] * 12 + ["rank"] * 12
    clean = parallelism(X, pairs, relation)
    for name in ("gender", "rank", "all"):
        row = clean.where(label=name).rows()[0]
        assert row["value"] == pytest.approx(1) and row["p"] < 0.01 and row["null_mean"] < 0.95
    longer = X + rng.standard_normal((36, 1)) * 3 * length  # short and long words
    assert parallelism(longer, pairs, relation).value(label="all") < 0.6
    assert parallelism(longer, pairs, relation, without=length[None]).value(label="all") == pytest.approx(1)
    noise = parallelism(rng.standard_normal((36, 20)), pairs, relation)
    assert abs(noise.value(label="all") - noise.where(label="all").rows()[0]["null_mean"]) < 0.15
    for bad, match in (([[0, 1, 2]], "row numbers below 36"), ([[0, 99], [1, 2]], "below 36"), ([[0, 0], [1, 2]], "same point")):
        with pytest.raises(DegenerateInputError, match=match):
            parallelism(X, bad)
    with pytest.raises(DegenerateInputError, match="'b' has a single pair"):
        parallelism(X, [[0, 1], [2, 3], [4, 5]], ["a", "a", "b"])
    with pytest.raises(DegenerateInputError, match="2 entries for 3 pairs"):
        parallelism(X, [[0, 1], [2, 3], [4, 5]], ["a", "a"])


def brain(alike: bool) -> tuple[Dictionary, np.ndarray]:
    """Two lobes of ten features, each active in stretches of 16 rows of its own."""
    rng = np.random.default_rng(4)
    lobe = np.arange(20) // 10
    side = lobe if alike else rng.permutation(lobe)
    W = 0.5 * rng.standard_normal((20, 24)) + np.where(side[:, None] == 0, 1, -1) * np.eye(24)[0] * 2
    turn = np.repeat(np.arange(60) % 2, 16)
    codes = (rng.random((960, 20)) < 0.1) * (turn[:, None] == lobe)
    sae = reading(W)
    sae.tensors["W_enc"] = sae.W_enc.new_tensor(np.linalg.pinv(W))
    sae.tensors["b_enc"][:] = -0.01
    return sae, (codes @ W).astype(np.float32)


def test_planted_lobes_are_found_and_compared_with_directions():
    sae, rows = brain(True)
    found = lobes(sae, rows, block=16)
    row = found.rows()[0]
    assert row["value"] == pytest.approx(1) and row["p"] < 0.01 and abs(row["null_mean"]) < 0.05
    assert len(set(found.arrays["lobe"][:10])) == len(set(found.arrays["lobe"][10:])) == 1
    apart = lobes(*brain(False), block=16)
    assert len(set(apart.arrays["lobe"][:10])) == 1 and apart.rows()[0]["value"] < 0.3
    for affinity in AFFINITIES:
        assert lobes(sae, rows, affinity=affinity, block=16, draws=0).value(measure="lobe_agreement") == pytest.approx(1)
    with pytest.raises(DictionaryError, match="affinity='cosine' is none of phi"):
        lobes(sae, rows, affinity="cosine")
    with pytest.raises(DictionaryError, match="too few for 9 lobes"):
        lobes(sae, rows, 9)
    with pytest.raises(DictionaryError, match="count=1"):
        lobes(sae, rows, 1)
    with pytest.raises(MemoryBudgetError, match="lobes take up to 8192"):
        lobes(reading(np.eye(1)[:, [0]].repeat(9000, 0)), np.ones((3, 1)))


def test_affinities_are_those_of_sets():
    rng = np.random.default_rng(5)
    active = rng.random((50, 6)) < 0.4
    both = (active.T.astype(float) @ active).astype(float)
    found = {name: of(both, both.diagonal(), 50) for name, of in AFFINITIES.items()}
    for i in range(6):
        for j in range(6):
            a, b = set(np.flatnonzero(active[:, i])), set(np.flatnonzero(active[:, j]))
            assert found["jaccard"][i, j] == pytest.approx(len(a & b) / len(a | b))
            assert found["dice"][i, j] == pytest.approx(2 * len(a & b) / (len(a) + len(b)))
            assert found["overlap"][i, j] == pytest.approx(len(a & b) / min(len(a), len(b)))
            assert found["simple_matching"][i, j] == pytest.approx((active[:, i] == active[:, j]).mean())
    np.testing.assert_allclose(found["phi"], np.corrcoef(active.T), atol=1e-12)


def test_agreement_of_divisions_is_that_of_scikit_learn():
    rng = np.random.default_rng(6)
    for _ in range(5):
        a, b = rng.integers(0, 4, 60), rng.integers(0, 3, 60)
        assert adjusted_mutual_information(a, b) == pytest.approx(adjusted_mutual_info_score(a, b), abs=1e-9)
    assert adjusted_mutual_information(a, a) == pytest.approx(1) and adjusted_mutual_information(a * 0, b * 0) == 1.0


def test_spectral_clustering_parts_what_is_not_joined():
    weight = np.kron(np.eye(3), np.ones((5, 5))) + 0.01
    label = spectral(weight, 3)
    assert [len(set(label[i : i + 5])) for i in (0, 5, 10)] == [1, 1, 1] and len(set(label)) == 3
