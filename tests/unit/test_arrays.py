"""What goes in as an array, and amounts of memory."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from inscape import arrays
from inscape.errors import DegenerateInputError, TooFewStimuliError


def test_rows_keep_their_numbers_and_dtype():
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    rows = arrays.as_rows(values)
    assert rows.dtype == torch.float32
    np.testing.assert_array_equal(rows.numpy(), values)
    assert arrays.as_rows([[1, 2], [3, 4]]).dtype == torch.float64  # whole numbers become fp64
    values.flags.writeable = False
    np.testing.assert_array_equal(arrays.as_rows(values).numpy(), values)


def test_bad_rows_are_refused_in_words():
    with pytest.raises(DegenerateInputError, match=r"X has shape \(3,\); expected \[n, d\]: one row per stimulus, one column per unit"):
        arrays.as_rows(np.zeros(3))
    with pytest.raises(TooFewStimuliError, match=r"Y has 1 rows \(shape \(1, 2\)\); at least 2 are needed"):
        arrays.as_rows(np.zeros((1, 2)), "Y", minimum=2)
    with pytest.raises(DegenerateInputError, match=r"holds 2 NaN or infinite values, the first at row 1, unit 0 \(nan\)"):
        arrays.as_rows(np.array([[0.0, 1.0], [np.nan, np.inf]]))
    with pytest.raises(DegenerateInputError, match="expected numbers, got an array of dtype <U1"):
        arrays.as_rows(np.array([["a"]]))


def test_a_sum_that_overflows_is_no_error():
    large = np.full((4, 2), np.finfo(np.float32).max, dtype=np.float32)
    arrays.check_finite(torch.from_numpy(large))


def test_bfloat16_becomes_fp32_exactly():
    values = torch.tensor([1.0, 0.1, -3.5]).bfloat16()
    assert arrays.as_numpy(values).dtype == np.float32
    assert arrays.as_numpy(values).tolist() == values.float().tolist()


@pytest.mark.parametrize(("text", "count"), [("4GB", 4 * 10**9), ("512 MiB", 512 * 2**20), ("1.5kb", 1500), ("100", 100), (7, 7), (2.9, 2)])
def test_amounts_of_memory(text: str | float, count: int):
    assert arrays.parse_bytes(text) == count


def test_an_unreadable_amount_is_refused():
    with pytest.raises(ValueError, match="cannot read 'much' as an amount of memory; write for instance '4GB' or '512MiB'"):
        arrays.parse_bytes("much")


def test_bytes_for_people():
    assert [arrays.format_bytes(count) for count in (7, 1500, 2.5e9, 3e15)] == ["7 B", "1.5 kB", "2.5 GB", "3000.0 TB"]


def test_blocks_cover_the_rows_once():
    blocks = list(arrays.row_blocks(100_000, 64))
    assert blocks[0].start == 0
    assert all(a.stop == b.start for a, b in pairwise(blocks))
    assert blocks[-1].stop == 100_000
    assert list(arrays.row_blocks(0, 5)) == []


def test_threads_come_back_also_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), arrays.threads(2):
        assert torch.get_num_threads() == 2
        raise RuntimeError
    assert torch.get_num_threads() == before
