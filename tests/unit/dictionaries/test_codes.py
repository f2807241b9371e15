"""Sparse codes against the dense arrays that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.dictionaries.codes import Codes
from inscape.dictionaries.sparse import decode, gather_by_feature, inner, inner_plain
from inscape.errors import DictionaryError


def dense(n: int = 30, m: int = 200, share: float = 0.03) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.standard_normal((n, m)) * (rng.random((n, m)) < share))


def test_codes_equal_the_dense_array() -> None:
    z = dense()
    codes = Codes.of(z)
    assert codes.shape == (30, 200)
    assert torch.equal(codes.torch(), z)
    assert np.array_equal(np.asarray(codes), z.numpy())
    assert codes.counts.tolist() == (z != 0).sum(1).tolist()
    assert torch.equal(Codes.cat([codes.select(slice_) for slice_ in (torch.arange(10), torch.arange(10, 30))]).torch(), z)
    assert torch.equal(codes.select([5, -1, 5]).torch(), z[[5, -1, 5]])
    assert torch.equal(codes.select(z[:, 3] == 0).torch(), z[z[:, 3] == 0])
    for feature in (0, 17, -1):
        rows, values = codes.feature(feature)
        assert rows.tolist() == z[:, feature].nonzero().flatten().tolist()
        assert torch.equal(values, z[rows, feature])
    with pytest.raises(DictionaryError, match="no feature 200"):
        codes.feature(200)
    with pytest.raises(DictionaryError, match=r"\[n, m\], got \(3,\)"):
        Codes.of(torch.zeros(3))


def test_measures_take_codes_as_rows() -> None:
    z = dense(60, 20, 0.5)
    assert ix.measures.participation_ratio(Codes.of(z)) == pytest.approx(ix.measures.participation_ratio(z))


@pytest.mark.parametrize("share", [0.0, 0.03, 0.5])
def test_sparse_products_equal_dense_ones(share: float) -> None:
    """Few entries take the sparse route, half of all the dense one, none at all must work too."""
    z = dense(share=share)
    codes = Codes.of(z)
    W, rows = torch.randn(200, 7, dtype=torch.float64), torch.randn(30, 7, dtype=torch.float64)
    torch.testing.assert_close(decode(codes, W), z @ W)
    torch.testing.assert_close(gather_by_feature(codes, codes.values, rows), z.T @ rows)
    expected = (rows @ W.T)[z != 0]
    torch.testing.assert_close(inner(codes, rows, W), expected)
    torch.testing.assert_close(inner_plain(codes, rows, W), expected)
