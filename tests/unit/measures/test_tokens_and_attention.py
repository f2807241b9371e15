"""Measures of tokens, heads and single entries against NumPy, and through the verb on small language models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import inscape as ix
from inscape.capturing.reducers import get as reducer
from inscape.errors import DegenerateInputError, InscapeWarning
from inscape.measures.next_tokens import followed
from inscape.measures.places import read_place
from inscape.summaries import Extremes


def sequences() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat([3, 1, 2], [5, 9, 4])
    return rng.standard_normal((18, 7)) + 0.8 * rng.standard_normal((4, 7))[labels], labels


def test_tokens_of_each_sequence_follow_the_definitions() -> None:
    X, labels = sequences()
    rank, cosine = [], []
    for one in np.unique(labels):
        tokens = X[labels == one]
        rank.append(np.linalg.norm(tokens - tokens.mean(0)) / np.linalg.norm(tokens))
        units = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
        cosine.append((units @ units.T)[np.triu_indices(len(tokens), 1)].mean())
    assert ix.measures.rank_collapse(X, labels=labels) == pytest.approx(np.mean(rank), rel=1e-12)
    assert ix.measures.token_uniformity(X, labels=labels) == pytest.approx(np.mean(cosine), rel=1e-12)
    assert ix.measures.token_uniformity(X) == pytest.approx(ix.measures.mean_cosine(X), rel=1e-12)  # one sequence


def test_odd_sequences() -> None:
    assert ix.measures.rank_collapse(np.full((4, 3), 0.1)) == 0
    assert ix.measures.rank_collapse(np.zeros((4, 3))) == 0
    assert ix.measures.token_uniformity(np.array([[1.0, 0], [0, 0], [2, 0]])) == pytest.approx(1 / 3, abs=1e-12)
    X, labels = sequences()
    with pytest.warns(InscapeWarning, match="1 of 4 sequences have one token and are left out"):
        value = ix.measures.rank_collapse(np.vstack([X, X[:1]]), labels=np.append(labels, 9))
    assert value == pytest.approx(ix.measures.rank_collapse(X, labels=labels), rel=1e-12)
    with pytest.raises(DegenerateInputError, match="each of the 18 sequences has one row; .* capture with tokens='all'"):
        ix.measures.rank_collapse(X, labels=np.arange(18))


@pytest.fixture(scope="module")
def lm() -> ix.Model:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=4, attn_implementation="eager", bos_token_id=0, eos_token_id=0
    )
    return ix.load(GPT2LMHeadModel(config).eval())


@pytest.fixture(scope="module")
def ids() -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(1, 50, length).tolist() for length in (9, 14, 11, 16, 10, 12, 13, 15)]


SITE = "blocks.1.resid_post"


def test_verb_takes_stimuli_as_sequences_and_agrees_with_the_reducers(lm: ix.Model, ids: list[list[int]]) -> None:
    tokens = ix.capture(lm, ids, SITE, tokens="all")
    reduced = ix.capture(lm, ids, [f"{SITE}|rank_collapse", f"{SITE}|token_cosine"])
    straight = ix.measure(lm, ["rank_collapse", "token_uniformity"], stimuli=ids, sites=SITE, tokens="all")
    stored = ix.measure(tokens, ["rank_collapse", "token_uniformity"])
    for name, kind in (("rank_collapse", "rank_collapse"), ("token_uniformity", "token_cosine")):
        peer = float(reduced[f"{SITE}|{kind}"].numpy().mean())
        assert stored.value(measure=name) == pytest.approx(peer, abs=1e-5)
        assert straight.value(measure=name) == pytest.approx(stored.value(measure=name), abs=1e-9)
        assert ix.measures.get(name)(tokens[SITE]) == pytest.approx(stored.value(measure=name), abs=1e-9)
    row = stored.where(measure="rank_collapse").rows()[0]
    assert row["low"] <= row["value"] <= row["high"]


def test_heads_of_a_model(lm: ix.Model, ids: list[list[int]]) -> None:
    patterns: list[torch.Tensor] = []
    for one in ids:
        out = lm.module(torch.tensor([one]), output_attentions=True)
        patterns.append(out.attentions[1][0].detach().double())
    entropy = np.mean([(-(p * p.clamp(min=1e-300).log()).sum(-1)).mean(-1).numpy() for p in patterns], axis=0)
    overlap = []
    for p in patterns:
        units = p / p.norm(dim=-1, keepdim=True)
        cosines = torch.einsum("hqk,gqk->qhg", units, units).mean(0).numpy()
        overlap.append((cosines.sum(1) - 1) / 3)
    store = ix.capture(lm, ids, ["blocks.*.attn_pattern|entropy", "blocks.*.attn_pattern|head_overlap"])
    found = ix.measure(store["blocks.1.attn_pattern|entropy"], "attention_entropy")
    assert [row["value"] for row in found.rows()[1:]] == pytest.approx(entropy, abs=1e-5)
    assert found.value() == pytest.approx(entropy.mean(), abs=1e-5)
    diverse = ix.measures.head_diversity(store["blocks.1.attn_pattern|head_overlap"])
    assert diverse.values == pytest.approx(1 - np.mean(overlap, axis=0), abs=1e-5)
    assert diverse.axis == "head"


def test_rows_that_are_no_entropies_or_overlaps_are_refused() -> None:
    with pytest.raises(DegenerateInputError, match="head 1 has the mean -2; entropies are at least 0"):
        ix.measures.attention_entropy(np.array([[1.0, -2], [1, -2]]))
    with pytest.raises(DegenerateInputError, match="the overlaps of the heads are between 0.5 and 1.5"):
        ix.measures.head_diversity(np.array([[0.5, 1.5]]))


def test_head_overlap_by_hand() -> None:
    pattern = torch.tensor([[[[1.0, 0], [0.6, 0.8]], [[1.0, 0], [0, 1.0]], [[0.0, 1], [0.8, 0.6]]]])  # [1, 3 heads, 2, 2]
    everything = torch.ones(1, 2, dtype=torch.bool)
    found = reducer("head_overlap").of_pattern(pattern, everything, everything)
    # heads 0 and 1: 1 and .8; 0 and 2: 0 and .96; 1 and 2: 0 and .6
    assert found[0].tolist() == pytest.approx([(1.8 + 0.96) / 4, (1.8 + 0.6) / 4, (0.96 + 0.6) / 4], abs=1e-6)
    assert reducer("head_overlap").of_pattern(pattern[:, :1], everything, everything).tolist() == [[1.0]]


def test_massive_values_of_queries_by_definition() -> None:
    X = np.random.default_rng(0).standard_normal((50, 12)) + 0.5
    X[:, 4] *= 30
    sizes = np.linalg.norm(X, axis=0).reshape(3, 4)
    found = ix.measures.massive_qk(X, heads=3)
    assert found.values == pytest.approx(sizes.max(1) / sizes.mean(1), rel=1e-10)
    assert found.value == max(found.values)
    assert ix.measures.massive_qk(X).value == pytest.approx(sizes.max() / sizes.mean(), rel=1e-10)
    with pytest.raises(DegenerateInputError, match="12 units cannot be cut into 5 heads"):
        ix.measures.massive_qk(X, heads=5)
    with pytest.raises(DegenerateInputError, match="all units of head 1 are zero in all 50 rows"):
        ix.measures.massive_qk(X * (np.arange(12) < 6), heads=2)


def test_the_largest_entries_are_found_in_any_order_of_parts() -> None:
    X = np.random.default_rng(0).standard_normal((300, 9))
    X[[7, 120, 299], [3, 3, 8]] = [50, -80, 50]
    order = np.argsort(-np.abs(X), axis=None, kind="stable")[:16]
    expected = [(abs(X.flat[one]), one // 9, one % 9) for one in order.tolist()]
    assert Extremes.of(X).top == expected
    parts = [Extremes.of(X[start:stop], first_row=start) for start, stop in ((200, 300), (0, 50), (50, 200))]
    assert parts[0].merge(parts[1]).merge(parts[2]).top == expected
    assert Extremes.of(np.ones((1000, 5))).top == [(1.0, one // 5, one % 5) for one in range(16)]


def test_massive_activations_say_where(lm: ix.Model, ids: list[list[int]]) -> None:
    X = np.random.default_rng(0).standard_normal((80, 6))
    X[11, 4] = -3000
    found = ix.measures.massive_activations(X)
    assert found.at[0] == "11, 4"
    assert found.value == pytest.approx(3000 / np.median(np.abs(X)), rel=0.02)  # the histogram's 1.6 %
    store = ix.capture(lm, ids, SITE, tokens="all")
    result = ix.measure(store, "massive_activations", memory="17MB")
    rows = result.rows()
    values = store[SITE].numpy()
    row, unit = divmod(int(np.abs(values).argmax()), values.shape[1])
    assert rows[1]["axis"] == "stimulus, position, unit"
    assert read_place(rows[1]["at"]) == (str(store[SITE].ids[row]), int(store[SITE].position[row]), unit)
    assert rows[0]["value"] == pytest.approx(np.abs(values).max() / np.median(np.abs(values)), rel=0.02)
    with pytest.raises(DegenerateInputError, match="at least half of all entries"):
        ix.measures.massive_activations(np.eye(4))


def test_followed_tokens() -> None:
    rows, labels = followed(np.array([5, 5, 7, 5, 7]), np.array([0, 1, 0, 3, 1]), np.array([10, 11, 20, 13, 21]))
    assert rows.tolist() == [0, 2]  # position 1 of sequence 5 has no place 2, and 3 is its end
    assert labels.tolist() == [11, 21]


def test_next_tokens_are_the_classes_of_a_language_model(lm: ix.Model, ids: list[list[int]]) -> None:
    names = ["cdnv", "linguistic_collapse", "nc4_agreement"]
    store = ix.capture(lm, ids, SITE, tokens="all")
    X = np.concatenate([store[SITE].numpy()[store[SITE].stimulus == i][:-1] for i in range(len(ids))])
    labels = np.concatenate([one[1:] for one in ids])
    with pytest.warns(InscapeWarning, match="classes have one row"):
        stored = ix.measure(store, names, labels="next_token", weights=lm, interval=None)
    with pytest.warns(InscapeWarning, match="classes have one row"):
        straight = ix.measure(lm, names[:2], stimuli=ids, sites=SITE, tokens="all", labels="next_token", interval=None)
    expected: dict[str, float] = {}
    for name in names:
        rest = {"weights": lm.module.lm_head} if name == "nc4_agreement" else {}
        with pytest.warns(InscapeWarning, match="classes have one row"):
            expected[name] = float(ix.measures.get(name)(X, labels, **rest))
    for name in names:
        assert stored.value(measure=name) == pytest.approx(expected[name], rel=1e-6), name
    for name in names[:2]:
        assert straight.value(measure=name) == pytest.approx(expected[name], rel=1e-6), name
    assert stored.rows()[0]["n"] == len(labels)
    refused = ix.measure(X, "cdnv", labels="next_token").rows()[0]
    assert refused["status"] == "failed"
    assert refused["reason"].startswith("labels='next_token' needs token rows")
