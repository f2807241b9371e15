"""Reducers: values by hand, and the laws that every registered one keeps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.capturing import reducers
from inscape.errors import SiteNotFoundError, StimuliError

from .conftest import words


def _sequence(t=6, d=5, seed=0, dtype=torch.float32):
    return torch.randn(1, t, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("name", reducers.names(attention=False))
def test_padding_changes_nothing(name):
    reducer = reducers.get(name)
    x = _sequence()
    expected = reducer(x, torch.ones(1, 6, dtype=torch.bool))
    for before, after, fill in itertools.product((0, 2), (0, 3), (0.0, 1e6, float("inf"), float("nan"))):
        padded = torch.cat([torch.full((1, before, 5), fill), x, torch.full((1, after, 5), fill)], 1)
        mask = torch.zeros(1, padded.shape[1], dtype=torch.bool)
        mask[:, before : before + 6] = True
        torch.testing.assert_close(reducer(padded, mask), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", reducers.names(attention=False))
def test_shape_dtype_range_and_facts(name):
    reducer = reducers.get(name)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        values = reducer(_sequence(dtype=dtype).expand(3, -1, -1), torch.ones(3, 6, dtype=torch.bool))
        assert values.shape == (3, reducer.width)
        assert values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        low, high = reducer.range
        assert bool(((values >= low - 1e-6) & (values <= high + 1e-6)).all())
    zeros = reducer(torch.zeros(1, 4, 5), torch.ones(1, 4, dtype=torch.bool))
    assert bool(torch.isfinite(zeros).all())
    assert reducer.doc.strip() and reducer.source and reducer.minimum >= 1


def test_token_cosine_is_the_mean_over_pairs():
    x = _sequence(t=7)
    rows = x[0].double().numpy()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = np.mean([unit[i] @ unit[j] for i, j in itertools.combinations(range(7), 2)])
    assert float(reducers.get("token_cosine")(x, torch.ones(1, 7, dtype=torch.bool))) == pytest.approx(expected, abs=1e-6)
    same = torch.ones(1, 3, 4)
    assert float(reducers.get("token_cosine")(same, torch.ones(1, 3, dtype=torch.bool))) == pytest.approx(1)


def test_massive_is_the_largest_magnitude():
    x = torch.tensor([[[1.0, -7.0], [3.0, 2.0]]])
    assert float(reducers.get("massive")(x, torch.tensor([[True, True]]))) == 7
    assert float(reducers.get("massive")(x, torch.tensor([[False, True]]))) == 3


def test_rank_collapse_by_hand():
    collapse = reducers.get("rank_collapse")
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert float(collapse(torch.tensor([[[1.0, 2.0], [1.0, 2.0]]]), mask)) == pytest.approx(0, abs=1e-7)
    assert float(collapse(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]), mask)) == pytest.approx(1)
    # Mean (1/2, 1/2): the residuals have norm 1, the whole has norm sqrt 2.
    assert float(collapse(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), mask)) == pytest.approx(2**-0.5)


def test_reduced_sites_are_rows_of_the_store(make, plain_tokenizer):
    model = ix.load(make("gpt2"), tokenizer=plain_tokenizer)
    texts = [words(5), words(11, 3), words(2, 9)]
    site = "blocks.1.resid_post"
    store = ix.capture(model, texts, [site, *(f"{site}|{name}" for name in reducers.names(attention=False))], "all")
    everything = store[site]
    for name in reducers.names(attention=False):
        view = store[f"{site}|{name}"]
        assert (view.kind, view.shape) == ("stimulus", (3, reducers.get(name).width))
        for i in range(3):
            mine = everything.select(rows=np.flatnonzero(everything.stimulus == i)).torch()[None]
            torch.testing.assert_close(view.torch()[i : i + 1], reducers.get(name)(mine, torch.ones(1, mine.shape[1], dtype=torch.bool)))


def test_globs_may_end_in_a_reducer_and_special_tokens_stay_out(make, bert_tokenizer):
    model = ix.load(make("bert"), tokenizer=bert_tokenizer)
    store = ix.capture(model, [words(3), words(6)], "blocks.*.resid_post|massive", special="drop")
    assert store.sites == [f"blocks.{i}.resid_post|massive" for i in range(3)]
    rows = ix.capture(model, [words(3), words(6)], "blocks.0.resid_post", "all", special="drop")["blocks.0.resid_post"]
    first = rows.torch()[rows.stimulus == 0]
    assert float(store["blocks.0.resid_post|massive"].torch()[0]) == pytest.approx(float(first.abs().max()), rel=1e-6)


def test_unknown_reducers_and_sequences_that_are_too_short(make, plain_tokenizer):
    model = ix.load(make("gpt2"), tokenizer=plain_tokenizer)
    with pytest.raises(SiteNotFoundError, match=r"no reducer is named 'token_cosin' .*nearest: 'token_cosine'"):
        ix.capture(model, ["w1"], "blocks.0.resid_post|token_cosin")
    with pytest.raises(StimuliError, match="token_cosine needs 2 tokens; stimulus '1' has 1"):
        ix.capture(model, [words(3), words(1)], "blocks.0.resid_post|token_cosine")
    with pytest.raises(SiteNotFoundError, match=r"reducer 'massive' takes sequences \[t, d\]; site '0' gives one vector per stimulus"):
        ix.capture(torch.nn.Sequential(torch.nn.Linear(2, 3)), torch.zeros(3, 2), "0|massive")


def test_a_name_cannot_be_registered_twice_and_needs_a_docstring():
    def massive(x, mask):
        """Another."""

    with pytest.raises(ValueError, match="a reducer named 'massive' exists already"):
        reducers.reducer(source="none")(massive)

    def undocumented(x, mask):
        return x

    with pytest.raises(ValueError, match="reducer 'undocumented' has no docstring"):
        reducers.reducer(source="none")(undocumented)
