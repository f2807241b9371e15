"""Batches and shards: nothing is lost, limits hold, and the outcome depends on the shard's own lengths alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inscape.capturing.batches import SHARD_BYTES, Limits, batches, shard_size, shards
from inscape.errors import StimuliError


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 100), st.integers(1, 8), st.integers(1, 3))
def test_every_stimulus_runs_once_within_the_limits(lengths, tokens, size, kinds):
    groups = np.arange(len(lengths)) % kinds
    found = batches(np.array(lengths), groups, Limits(tokens, size))
    assert sorted(int(i) for batch in found for i in batch) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[i] for i in batch)
        assert len(batch) <= size
        assert len(batch) == 1 or longest * len(batch) <= tokens
        assert len({int(groups[i]) for i in batch}) == 1


def test_lengths_are_bucketed_and_ties_keep_their_order():
    found = batches(np.array([9, 2, 9, 2, 5]), np.zeros(5), Limits(18, 10))
    assert [batch.tolist() for batch in found] == [[1, 3], [4], [0, 2]]
    assert [batch.tolist() for batch in batches(np.ones(7, int), np.zeros(7), Limits(100, 3))] == [[0, 1, 2], [3, 4, 5], [6]]
    found = batches(np.array([1, 1, 1, 1, 2]), np.zeros(5), Limits(6400, 2))
    assert [batch.tolist() for batch in found] == [[0, 1], [2, 3], [4]], "batches are full from the front"


def _cost(batches_of_lengths, limits):
    return sum(max(batch) * len(batch) + limits.overhead for batch in batches_of_lengths)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(30, 400), st.integers(1, 5))
def test_no_other_cut_of_the_sorted_lengths_is_cheaper(lengths, tokens, size):
    limits, ordered = Limits(tokens, size), sorted(lengths)
    best = None
    for cuts in itertools.product([False, True], repeat=len(lengths) - 1):  # every way to cut the row of lengths
        edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(lengths)]
        parts = [ordered[a:b] for a, b in itertools.pairwise(edges)]
        if all(len(part) == 1 or (len(part) <= size and max(part) * len(part) <= tokens) for part in parts):
            best = min(_cost(parts, limits), best or 10**9)
    found = batches(np.array(lengths), np.zeros(len(lengths)), limits)
    assert _cost([[lengths[i] for i in batch] for batch in found], limits) == best


def _zipf(n):
    """Lengths of which the k-th longest kind is 1/k as frequent as the first, up to 512."""
    rank = np.arange(1, 513)
    return np.random.default_rng(0).choice(rank, n, p=1 / rank / (1 / rank).sum())


def _padded(lengths, found):
    return sum(int(lengths[batch].max()) * len(batch) for batch in found)


@pytest.mark.parametrize("shard", [10_000, 1_000, 300, 100, 50])
def test_padding_waste_on_a_zipf_corpus_is_small(shard):
    lengths = _zipf(10_000)
    padded = 0
    for _, start, stop in shards(len(lengths), shard):
        part = lengths[start:stop]
        padded += _padded(part, batches(part, np.zeros_like(part), Limits(2048, 256)))
    assert (padded - lengths.sum()) / padded < 0.05
    in_file_order = _padded(lengths, [np.arange(i, i + 16) for i in range(0, 10_000, 16)])
    assert (in_file_order - lengths.sum()) / in_file_order > 0.5, "this is what batches of 16 in file order would waste"


def test_accelerators_get_larger_batches_and_shards():
    assert Limits(2048, 256).on("cuda") == Limits(16384, 1024) and Limits(2048, 256).on("cpu") == Limits(2048, 256)
    assert shard_size(10**6, SHARD_BYTES / 128, "cuda") == 8 * shard_size(10**6, SHARD_BYTES / 128)


def test_shards_are_consecutive_and_sized_by_bytes():
    assert list(shards(7, 3)) == [(0, 0, 3), (1, 3, 6), (2, 6, 7)]
    assert shard_size(10**6, SHARD_BYTES / 128) == 128
    assert shard_size(10, 1.0) == 10
    assert shard_size(10, 1e12) == 1


def test_halving_cuts_the_batch_that_failed():
    assert Limits(2048, 256).halved(16, 128) == Limits(1024, 256)
    assert Limits(10**9, 32).halved(32, 1) == Limits(16, 16)
    for count, longest in ((2, 700), (3, 5), (7, 1)):
        limits = Limits(2048, 64).halved(count, longest)
        assert max(len(batch) for batch in batches(np.full(count, longest), np.zeros(count), limits)) <= count // 2


def test_limits_below_one_are_refused():
    with pytest.raises(StimuliError, match="batch_tokens=0 leaves no batch; give 1 or more"):
        Limits(0, 1)
    with pytest.raises(StimuliError, match="batch_size=-1 leaves no batch; give 1 or more"):
        Limits(10, -1)
