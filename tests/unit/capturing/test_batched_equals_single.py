"""Rows do not depend on who else is in the batch, and are what a hand-written hook would have seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.models import Site
from inscape.models.values import Layout

from .conftest import words

LENGTHS = [5, 1, 17, 3, 40, 2, 9, 9, 28, 64]


def _texts(limit: int = 64):
    return [words(min(length, limit), start=i) for i, length in enumerate(LENGTHS)]


def _single(model, stimuli, site, tokens="all"):
    parts = [ix.capture(model, [one], site, tokens, batch_size=1)[site].torch() for one in stimuli]
    return torch.cat(parts)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "roberta"])
def test_text_models_batched_and_single_agree(make, plain_tokenizer, bert_tokenizer, name, side):
    tokenizer = bert_tokenizer if "bert" in name else plain_tokenizer
    model = ix.load(make(name), tokenizer=tokenizer)
    texts = _texts(62)
    for site in ("blocks.0.resid_post", "blocks.1.resid_post"):
        together = ix.capture(model, texts, site, "all", padding_side=side)[site].torch()
        alone = _single(model, texts, site)
        assert together.shape == alone.shape
        assert float((together - alone).abs().max()) <= 1e-4 * float(alone.square().mean().sqrt())


@pytest.mark.parametrize("tokens", ["last", "first", "mean"])
def test_one_row_rules_agree_with_all_rows(make, plain_tokenizer, tokens):
    model = ix.load(make("gpt2"), tokenizer=plain_tokenizer)
    site = "blocks.1.resid_post"
    everything = ix.capture(model, _texts(), site, "all")[site]
    rows = ix.capture(model, _texts(), site, tokens)[site].torch()
    values, owner = everything.torch(), everything.stimulus
    for i in range(len(LENGTHS)):
        mine = values[torch.from_numpy(owner == i)]
        expected = {"last": mine[-1], "first": mine[0], "mean": mine.mean(0)}[tokens]
        torch.testing.assert_close(rows[i], expected, rtol=0, atol=1e-5)


def test_vit_batched_and_single_agree(make):
    model = ix.load(make("vit"))
    images = np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)
    site = "blocks.1.resid_post"
    together = ix.capture(model, images, site, "all")[site]
    alone = _single(model, list(images), site)
    assert together.kind == "patch" and together.n == 5 * 5
    assert float((together.torch() - alone).abs().max()) <= 1e-4 * float(alone.square().mean().sqrt())


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_wav2vec2_batched_and_single_agree(make, norm):
    model = ix.load(make(f"wav2vec2-{norm}"))
    rng = np.random.default_rng(0)
    waves = [rng.normal(size=length).astype(np.float32) for length in (200, 320, 320, 260, 200, 400)]
    site = "blocks.1.resid_post"
    store = ix.capture(model, waves, site, "all")
    together = store[site].torch()
    alone = _single(model, waves, site)
    assert together.shape == alone.shape
    assert float((together - alone).abs().max()) <= 1e-4 * float(alone.square().mean().sqrt())
    note = store.manifest.notes["fidelity"]
    if norm == "group":
        assert note["padding"] == "none: only equal lengths share a batch"
        assert note["why"] == "the group norm of the feature extractor runs over time and would see the padding"
    else:
        assert note["padding"] == "right" and "why" not in note


def test_capture_equals_a_hand_written_hook_bit_for_bit(make, plain_tokenizer):
    module = make("gpt2")
    texts = [words(12, start=i) for i in range(4)]
    seen = {}
    handles = [
        module.transformer.h[i].register_forward_hook(
            lambda m, a, out, i=i: seen.__setitem__(i, (out if torch.is_tensor(out) else out[0]).clone())
        )
        for i in range(3)
    ]
    with torch.no_grad():
        module(**plain_tokenizer(texts, return_tensors="pt"))
    for handle in handles:
        handle.remove()
    store = ix.capture(ix.load(module, tokenizer=plain_tokenizer), texts, tokens="all")
    for i in range(3):
        assert torch.equal(store[f"blocks.{i}.resid_post"].torch(), seen[i].reshape(-1, 16))


def test_a_padded_batch_equals_a_hand_written_hook_bit_for_bit(make, plain_tokenizer):
    module = make("bert")
    texts = [words(4), words(9, 5), words(6, 8)]
    batch = plain_tokenizer(sorted(texts, key=len), return_tensors="pt", padding=True)
    seen = []
    handle = module.encoder.layer[1].register_forward_hook(lambda m, a, out: seen.append((out if torch.is_tensor(out) else out[0]).clone()))
    with torch.no_grad():
        module(**batch)
    handle.remove()
    by_length = {int(mask.sum()): row[mask.bool()] for row, mask in zip(seen[0], batch["attention_mask"], strict=True)}
    store = ix.capture(ix.load(module, tokenizer=plain_tokenizer), texts, "blocks.1.resid_post", "all")
    expected = torch.cat([by_length[4], by_length[9], by_length[6]])
    assert torch.equal(store["blocks.1.resid_post"].torch(), expected)


def test_left_padding_of_positions_is_checked_against_the_module(make, plain_tokenizer):
    """GPT-2 numbers positions from the left edge; with corrected position ids a left-padded row is the row alone."""
    module = make("gpt2")
    ids = torch.tensor([[7, 8, 9]])
    with torch.no_grad():
        expected = module.transformer(ids).last_hidden_state[0]
    store = ix.capture(
        ix.load(module, tokenizer=plain_tokenizer), [[7, 8, 9], list(range(4, 24))], "final_norm", "all", padding_side="left"
    )
    torch.testing.assert_close(store["final_norm"].torch()[:3], expected, rtol=0, atol=1e-5)


def test_an_unbatched_first_recurrent_module_keeps_stimuli_apart():
    torch.manual_seed(0)
    module = torch.nn.LSTM(4, 6)
    sequences = np.random.default_rng(1).normal(size=(5, 7, 4)).astype(np.float32)
    store = ix.capture(module, sequences, Site("states", "", layout=Layout(time_first=True)), "all")
    with torch.no_grad():
        for i in range(5):
            expected, _ = module(torch.from_numpy(sequences[i])[:, None])
            torch.testing.assert_close(store["states"].select(rows=np.arange(7 * i, 7 * i + 7)).torch(), expected[:, 0], rtol=0, atol=1e-6)


def test_sequences_of_different_length_never_share_a_batch_where_no_mask_is_taken():
    torch.manual_seed(0)
    module = torch.nn.LSTM(3, 5, batch_first=True, bidirectional=True)
    rng = np.random.default_rng(1)
    sequences = [rng.normal(size=(length, 3)).astype(np.float32) for length in (4, 7, 4, 2)]
    store = ix.capture(module, sequences, Site("states", ""), "last")
    with torch.no_grad():
        expected = torch.stack([module(torch.from_numpy(x)[None])[0][0, -1] for x in sequences])
    torch.testing.assert_close(store["states"].torch(), expected, rtol=0, atol=1e-6)
