"""The largest entries of rows, found through maxima of groups, are those that torch finds one row at a time."""

from __future__ import annotations

import pytest
import torch

from inscape.dictionaries.selection import top


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("width", "k"), [(4096, 32), (1024, 16), (1000, 7), (514, 3), (64, 32), (8, 8), (256, 1)])
def test_top_equals_topk(width: int, k: int, dtype: torch.dtype) -> None:
    rows = torch.randn(50, width, generator=torch.Generator().manual_seed(width)).to(dtype)
    values, places = top(rows, k)
    assert torch.equal(values.sort(1).values, rows.topk(k, 1).values.sort(1).values)
    assert torch.equal(rows.gather(1, places), values)
    assert all(len(row.unique()) == k for row in places)


def test_top_of_equal_entries_names_each_place_once() -> None:
    _, places = top(torch.zeros(3, 1024), 16)
    assert all(len(row.unique()) == 16 for row in places)


def test_what_is_no_number_is_not_passed_over() -> None:
    rows = torch.randn(2, 1024, generator=torch.Generator().manual_seed(0))
    rows[1, 700] = torch.nan
    assert 700 in top(rows, 8)[1][1]
