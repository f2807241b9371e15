"""Scores against the definitions written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import inscape as ix
from inscape.dictionaries import Dictionary
from inscape.dictionaries.directions import best_matches, largest_cosines
from inscape.errors import DegenerateInputError, DictionaryError, StoreMismatchError
from tests.unit.dictionaries.scene import sparse_rows

X = sparse_rows(600)


def by_hand() -> Dictionary:
    """A dictionary with numbers of its own: nothing is trained."""
    rng = np.random.default_rng(1)
    W = torch.from_numpy(rng.standard_normal((16, 24)))
    tensors = {"W_enc": W / 3, "W_dec": torch.from_numpy(rng.standard_normal((24, 16))) / 8 + W.T / 6}
    tensors |= {"b_enc": torch.full((24,), -0.5, dtype=torch.float64), "b_dec": torch.full((16,), 2.0, dtype=torch.float64)}
    return Dictionary(ix.dictionaries.TopK(width=24, k=4), tensors)


def codes_by_hand(sae: Dictionary, rows: np.ndarray) -> np.ndarray:
    """The four largest of each row, if positive."""
    a = (rows - sae.b_dec.numpy()) @ sae.W_enc.numpy() + sae.b_enc.numpy()
    kept = np.zeros_like(a)
    for row, values in zip(kept, a, strict=True):
        top = np.argsort(values)[-4:]
        row[top] = np.maximum(values[top], 0)
    return kept


def test_encode_and_decode_equal_the_definition() -> None:
    sae = by_hand()
    z = codes_by_hand(sae, X)
    np.testing.assert_allclose(sae.encode(X).numpy(), z, atol=1e-12)
    np.testing.assert_allclose(sae.decode(sae.encode(X)).numpy(), z @ sae.W_dec.numpy() + 2.0, atol=1e-12)
    np.testing.assert_allclose(sae.decode(z).numpy(), sae.reconstruct(X).numpy(), atol=1e-12)


def test_scores_equal_the_definitions() -> None:
    sae = by_hand()
    z = codes_by_hand(sae, X)
    guess = z @ sae.W_dec.numpy() + 2.0
    error, centered = X - guess, X - X.mean(0)
    found = sae.score(X)
    expected = {
        "l0": (z > 0).sum(1).mean(),
        "fvu": (error**2).sum() / (centered**2).sum(),
        "fvu_centered": ((error - error.mean(0)) ** 2).sum() / (centered**2).sum(),
        "cosine": np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(X, guess, strict=True)]),
        "norm_ratio": np.mean(np.linalg.norm(guess, axis=1) / np.linalg.norm(X, axis=1)),
        "shrinkage": ((guess - X.mean(0)) ** 2).sum() / (centered * (guess - X.mean(0))).sum(),
        "alive": (z > 0).any(0).mean(),
        "density_over_1pct": ((z > 0).mean(0) > 0.01).mean(),
        "density_over_10pct": ((z > 0).mean(0) > 0.1).mean(),
    }
    for name, value in expected.items():
        assert found.value(measure=name) == pytest.approx(value, rel=1e-9), name
    np.testing.assert_allclose(found.arrays["density"], (z > 0).mean(0))
    W = sae.W_dec.numpy() / np.linalg.norm(sae.W_dec.numpy(), axis=1, keepdims=True)
    others = W @ W.T - 2 * np.eye(24)
    assert found.value(measure="decoder_cosine") == pytest.approx(others.max(1).mean())
    V = sae.W_enc.numpy().T / np.linalg.norm(sae.W_enc.numpy(), axis=0)[:, None]
    assert found.value(measure="encoder_decoder_cosine") == pytest.approx((V * W).sum(1).mean())
    assert found.unique("n") == [600]


def test_intervals_are_those_of_leaving_groups_out() -> None:
    sae = by_hand()
    groups = np.arange(600) % 5
    row = sae.score(X, groups=groups, interval=5).where(measure="fvu").rows()[0]
    error = X - sae.reconstruct(X).numpy()
    left = []
    for group in range(5):
        kept = X[groups != group]
        left.append((error[groups != group] ** 2).sum() / ((kept - kept.mean(0)) ** 2).sum())
    spread = np.sqrt(4 / 5 * np.sum((np.array(left) - np.mean(left)) ** 2)) * stats.t.ppf(0.975, 4)
    assert row["low"] == pytest.approx(row["value"] - spread) and row["high"] == pytest.approx(row["value"] + spread)
    assert row["interval_method"] == "jackknife(5)"
    assert sae.score(X, interval=None).where(measure="fvu").rows()[0]["low"] is None


def test_a_constant_offset_changes_nothing_that_is_about_the_mean() -> None:
    sae = by_hand()
    moved = Dictionary(sae.recipe, {**sae.tensors, "b_dec": sae.b_dec + 1e4})
    a, b = sae.score(X), moved.score(X + 1e4)
    for name in ("l0", "fvu", "fvu_centered", "shrinkage"):
        assert b.value(measure=name) == pytest.approx(a.value(measure=name), rel=1e-9)


def test_what_cannot_be_scored() -> None:
    sae = by_hand()
    with pytest.raises(DegenerateInputError, match="all rows are equal"):
        sae.score(np.ones((50, 16)))
    with pytest.raises(StoreMismatchError, match="600 rows, target has 5"):
        sae.score(X, target=X[:5])
    with pytest.raises(DictionaryError, match="has 7 units"):
        sae.score(X[:, :7])
    with pytest.raises(DictionaryError, match="writes 16 units, the rows to compare with have 3"):
        sae.score(X, target=X[:, :3])
    with pytest.raises(ValueError, match="interval='bootstrap'"):
        sae.score(X, interval="bootstrap")


def test_cosines_in_blocks_equal_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    from inscape.dictionaries import directions

    a, b = np.random.default_rng(2).standard_normal((2, 50, 6))
    monkeypatch.setattr(directions, "_BLOCK", 7)
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (a, b)]
    pairs = unit[0] @ unit[1].T
    values, places = best_matches(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(values, pairs.max(1))
    assert places.tolist() == pairs.argmax(1).tolist()
    np.testing.assert_allclose(largest_cosines(torch.from_numpy(a)), (unit[0] @ unit[0].T - 2 * np.eye(50)).max(1))
