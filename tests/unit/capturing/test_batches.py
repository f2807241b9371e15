"""Batches and shards: nothing is lost, limits hold, and the outcome depends on the shard's own lengths alone."""

from __future__ import annotations

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
    assert [batch.tolist() for batch in found] == [[1, 3, 4], [0, 2]]


def test_padding_waste_on_a_zipf_corpus_is_small():
    lengths = np.minimum(np.random.default_rng(0).zipf(1.4, 10_000), 512)
    found = batches(lengths, np.zeros_like(lengths), Limits(2048, 256))
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in found)
    assert (padded - lengths.sum()) / padded < 0.05


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
