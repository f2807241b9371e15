"""Attention patterns in stores: their reducers by hand, their rows, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.capturing import reducers
from inscape.capturing.session import Session, Settings
from inscape.capturing.stimuli import Stimuli
from inscape.errors import MemoryBudgetError, SiteNotFoundError, StimuliError

from .conftest import words

NAMES = ("distance", "entropy", "head_overlap", "previous_token_share", "sink_share")
TEXTS = [words(5), words(11, 3), words(2, 9), words(7, 1)]


def random_pattern(t: int = 6, heads: int = 3, *, causal: bool = True, seed: int = 0) -> torch.Tensor:
    """[1, heads, t, t] in fp64."""
    scores = torch.randn(1, heads, t, t, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2
    if causal:
        scores = scores.masked_fill(~torch.ones(t, t, dtype=torch.bool).tril(), -torch.inf)
    return scores.softmax(-1)


def by_hand(name: str, pattern: np.ndarray, queries: range | list[int]) -> list[float]:
    """One value per head of a pattern [heads, t, t], in loops over its definition."""
    out: list[float] = []
    if name == "head_overlap":
        lengths = np.linalg.norm(pattern, axis=-1)
        heads = range(len(pattern))
        pairs = {(g, h): [pattern[g, i] @ pattern[h, i] / (lengths[g, i] * lengths[h, i]) for i in queries] for g in heads for h in heads}
        return [float(np.mean([pairs[g, h] for g in heads if g != h])) for h in heads]
    for a in pattern:
        if name == "entropy":
            values = [-sum(p * np.log(p) for p in a[i] if p > 0) for i in queries]
        elif name == "distance":
            values = [sum(p * abs(i - j) for j, p in enumerate(a[i])) for i in queries]
        elif name == "sink_share":
            values = [a[i, 0] for i in queries]
        else:
            values = [a[i, i - 1] for i in queries if i >= 1]
        out.append(float(np.mean(values)))
    return out


def all_of(*shape: int) -> torch.Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def test_these_are_registered_with_their_facts():
    assert tuple(reducers.names(attention=True)) == NAMES
    assert not set(NAMES) & set(reducers.names(attention=False))
    assert sorted([*NAMES, *reducers.names(attention=False)]) == reducers.names()
    for name in NAMES:
        known = reducers.get(name)
        assert known.attention and known.width == 0 and known.doc.strip() and known.source


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_values_by_hand(name, causal):
    pattern = random_pattern(causal=causal)
    got = reducers.get(name).of_pattern(pattern, all_of(1, 6), all_of(1, 6))
    assert got.shape == (1, 3) and got.dtype == torch.float64
    np.testing.assert_allclose(got[0], by_hand(name, pattern[0].numpy(), range(6)), rtol=1e-12)
    some = torch.tensor([[False, True, True, False, True, False]])  # special tokens are read, but not averaged over
    got = reducers.get(name).of_pattern(pattern, some, all_of(1, 6))
    np.testing.assert_allclose(got[0], by_hand(name, pattern[0].numpy(), [1, 2, 4]), rtol=1e-12)
    narrow = reducers.get(name).of_pattern(pattern.bfloat16(), all_of(1, 6), all_of(1, 6))
    assert narrow.dtype == torch.float32
    low, high = reducers.get(name).range
    assert bool(((narrow >= low) & (narrow <= high)).all())


def test_patterns_whose_values_are_known():
    t = 5
    uniform = torch.ones(t, t, dtype=torch.float64).tril()
    uniform = (uniform / uniform.sum(-1, keepdim=True))[None, None]
    itself, before, first = torch.eye(t)[None, None], torch.eye(t).roll(-1, 1)[None, None], torch.zeros(1, 1, t, t)
    before[0, 0, -1] = 0
    before = torch.zeros(1, 1, t, t)
    before[0, 0, range(1, t), range(t - 1)] = 1
    before[0, 0, 0, 0] = 1
    first[..., 0] = 1

    def value(name: str, pattern: torch.Tensor) -> float:
        return float(reducers.get(name).of_pattern(pattern, all_of(1, t), all_of(1, t)))

    assert value("entropy", uniform) == pytest.approx(sum(np.log(i + 1) for i in range(t)) / t)  # over i + 1 allowed keys
    assert value("distance", uniform) == pytest.approx(sum(i / 2 for i in range(t)) / t)
    assert value("sink_share", uniform) == pytest.approx(sum(1 / (i + 1) for i in range(t)) / t)
    assert value("previous_token_share", uniform) == pytest.approx(sum(1 / (i + 1) for i in range(1, t)) / (t - 1))
    assert [value(name, itself) for name in NAMES] == [0, 0, 1, 0, pytest.approx(1 / t)]
    assert [value(name, before) for name in NAMES] == [pytest.approx((t - 1) / t), 0, 1, 1, pytest.approx(2 / t)]
    assert [value(name, first) for name in NAMES] == [2, 0, 1, pytest.approx(1 / (t - 1)), 1]
    half = uniform / 2  # the other half rests on a sink that is no key: the spread over keys is the same, shares are not
    assert value("entropy", half) == pytest.approx(value("entropy", uniform))
    assert value("sink_share", half) == pytest.approx(value("sink_share", uniform) / 2)
    assert value("entropy", torch.zeros(1, 1, t, t)) == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fill", [0.0, 7.0, float("nan")])
def test_padding_changes_nothing(name, fill):
    pattern = random_pattern()
    expected = reducers.get(name).of_pattern(pattern, all_of(1, 6), all_of(1, 6))
    for before, after in ((0, 3), (2, 0), (2, 1)):
        t = before + 6 + after
        padded = torch.full((1, 3, t, t), fill, dtype=torch.float64)
        padded[:, :, before : before + 6, before : before + 6] = pattern
        mask = torch.zeros(1, t, dtype=torch.bool)
        mask[:, before : before + 6] = True
        torch.testing.assert_close(reducers.get(name).of_pattern(padded, mask, mask), expected, rtol=1e-12, atol=0)


def patterns_alone(model: Any, site: str = "blocks.1.attn_pattern", texts: list[str] = TEXTS) -> list[np.ndarray]:
    """[heads, t, t] of each text, run by itself."""
    found: list[np.ndarray] = []
    for text in texts:
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        with model.hooked(site, lambda name, x: found.append(x[0].numpy())):
            model.run({"input_ids": ids})
    return found


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_reduced_sites_are_rows_with_a_unit_for_each_head(make, plain_tokenizer, name, side):
    if (name, side) == ("bert", "left"):
        side = "right"
    model = ix.load(make(name), tokenizer=plain_tokenizer)
    alone = patterns_alone(model)
    sites = [f"blocks.1.attn_pattern|{reducer}" for reducer in NAMES]
    store = ix.capture(model, TEXTS, sites, padding_side=side)
    heads = alone[0].shape[0]
    assert store.sites == sites
    for reducer, site in zip(NAMES, sites, strict=True):
        view = store[site]
        assert (view.kind, view.shape, view.dtype) == ("stimulus", (4, heads), torch.float32)
        assert view.unit_table is not None and view.unit_table.to_pydict() == {"head": list(range(heads))}
        np.testing.assert_allclose(view.numpy(), [by_hand(reducer, p, range(p.shape[1])) for p in alone], atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_of_the_pattern_itself(make, plain_tokenizer, side):
    model = ix.load(make("llama"), tokenizer=plain_tokenizer)
    alone = patterns_alone(model)
    view = ix.capture(model, TEXTS, "blocks.1.attn_pattern", "all", padding_side=side)["blocks.1.attn_pattern"]
    heads, longest = 4, 11
    assert view.shape == (5 + 11 + 2 + 7, heads * longest) and view.kind == "token"
    table = view.unit_table
    assert table is not None and table.column_names == ["head", "key"]
    assert table["head"].to_pylist() == [h for h in range(heads) for _ in range(longest)]
    assert table["key"].to_pylist() == list(range(longest)) * heads
    values, mask = view.padded()
    patterns = values.unflatten(-1, (heads, longest)).transpose(1, 2)  # [n, heads, t, T]
    assert patterns.shape == (4, heads, longest, longest)
    assert mask.sum(1).tolist() == [5, 11, 2, 7]
    for i, expected in enumerate(alone):
        t = expected.shape[1]
        np.testing.assert_allclose(patterns[i, :, :t, :t], expected, atol=1e-6)
        assert float(patterns[i, :, :, t:].abs().max() if t < longest else 0) == 0
    assert list(view.tokens[:5]) == words(5).split()


@pytest.mark.parametrize(("tokens", "pick"), [("last", lambda p: p[:, -1]), ("first", lambda p: p[:, 0]), ("mean", lambda p: p.mean(1))])
def test_every_rule_chooses_queries(make, plain_tokenizer, tokens, pick):
    model = ix.load(make("gpt2"), tokenizer=plain_tokenizer)
    for side in ("right", "left"):
        store = ix.capture(model, TEXTS, ["blocks.1.attn_pattern", "blocks.1.resid_post"], tokens, padding_side=side)
        rows = store["blocks.1.attn_pattern"].torch().unflatten(-1, (2, 11))
        for got, expected in zip(rows, patterns_alone(model), strict=True):
            t = expected.shape[1]
            np.testing.assert_allclose(got[:, :t], pick(expected), atol=1e-6)
            assert float(got[:, t:].abs().max() if t < 11 else 0) == 0


def test_special_tokens_are_read_but_not_averaged_over(make, bert_tokenizer):
    model = ix.load(make("bert"), tokenizer=bert_tokenizer)
    texts = [words(3), words(6)]
    alone = patterns_alone(model, texts=texts)
    for name in NAMES:
        got = ix.capture(model, texts, f"blocks.1.attn_pattern|{name}", special="drop")[f"blocks.1.attn_pattern|{name}"].numpy()
        expected = [by_hand(name, p, range(1, p.shape[1] - 1)) for p in alone]
        np.testing.assert_allclose(got, expected, atol=1e-5)
    rows = ix.capture(model, texts, "blocks.1.attn_pattern", "all", special="drop")["blocks.1.attn_pattern"]
    assert rows.shape == (9, 2 * 8)  # [CLS] and [SEP] stay keys
    np.testing.assert_allclose(rows.torch().unflatten(-1, (2, 8))[:3, :, :5].transpose(0, 1), alone[0][:, 1:-1], atol=1e-6)


def test_patterns_of_images(make):
    model = ix.load(make("vit"))
    pictures = np.random.default_rng(0).standard_normal((5, 3, 8, 8)).astype(np.float32)
    twin = make("vit")
    before = twin.config._attn_implementation
    twin.set_attn_implementation("eager")
    with torch.no_grad():
        expected = twin(pixel_values=torch.from_numpy(pictures), output_attentions=True).attentions[0].numpy()
    twin.set_attn_implementation(before)
    store = ix.capture(model, pictures, ["blocks.0.attn_pattern", *(f"blocks.0.attn_pattern|{name}" for name in NAMES)], "all")
    rows = store["blocks.0.attn_pattern"]
    assert rows.shape == (5 * 5, 2 * 5)
    np.testing.assert_allclose(rows.padded()[0].unflatten(-1, (2, 5)).transpose(1, 2), expected, atol=1e-5)
    for name in NAMES:
        np.testing.assert_allclose(
            store[f"blocks.0.attn_pattern|{name}"].numpy(), [by_hand(name, p, range(5)) for p in expected], atol=1e-5
        )
    patches = ix.capture(model, pictures, "blocks.0.attn_pattern|sink_share", special="drop")["blocks.0.attn_pattern|sink_share"]
    np.testing.assert_allclose(patches.numpy(), [by_hand("sink_share", p, range(1, 5)) for p in expected], atol=1e-5)


def test_patterns_of_padded_sounds(make):
    model = ix.load(make("wav2vec2-layer"))
    generator = np.random.default_rng(0)
    sounds = [generator.standard_normal(n).astype(np.float32) for n in (400, 250, 330)]
    site = "blocks.1.attn_pattern"
    store = ix.capture(model, sounds, [f"{site}|{name}" for name in NAMES])
    for i, sound in enumerate(sounds):
        alone: list[np.ndarray] = []
        with model.hooked(site, lambda name, x, alone=alone: alone.append(x[0].numpy())):
            model.run({"input_values": torch.from_numpy(sound)[None]})
        for name in NAMES:
            view = store[f"{site}|{name}"].numpy()[i]
            np.testing.assert_allclose(view, by_hand(name, alone[0], range(alone[0].shape[1])), atol=1e-4)
    rows = ix.capture(model, sounds, site, "all")[site]  # the first one is the longest
    assert rows.d % 2 == 0
    shorter = [sounds[1], sounds[0]]
    with pytest.raises(StimuliError, match=r"an attention pattern has \d+ keys where the first stimulus has \d+"):
        ix.capture(model, shorter, site, "all")


def test_a_store_on_disk_and_globs(make, plain_tokenizer, tmp_path):
    model = ix.load(make("gpt2"), tokenizer=plain_tokenizer)
    sites = ["blocks.*.attn_pattern|entropy", "blocks.0.attn_pattern", "blocks.0.*"]
    store = ix.capture(model, TEXTS, sites, "all", to=tmp_path / "run", shard_stimuli=2)
    assert store.sites[:4] == [*(f"blocks.{i}.attn_pattern|entropy" for i in range(3)), "blocks.0.attn_pattern"]
    assert not any("attn_pattern" in site for site in store.sites[4:])
    again = ix.open(tmp_path / "run")
    memory = ix.capture(model, TEXTS, sites, "all")
    for site in store.sites:
        torch.testing.assert_close(again[site].torch(), memory[site].torch(), atol=1e-6, rtol=0)
    assert again["blocks.0.attn_pattern"].unit_table.equals(memory["blocks.0.attn_pattern"].unit_table)
    profile = ix.measure(again["blocks.1.attn_pattern|entropy"], "participation_ratio", interval=None)
    assert len(profile) == 1


def test_batches_change_nothing(make, plain_tokenizer):
    model = ix.load(make("llama"), tokenizer=plain_tokenizer)
    sites = ["blocks.2.attn_pattern", *(f"blocks.2.attn_pattern|{name}" for name in NAMES)]
    many = ix.capture(model, TEXTS, sites, "all", batch_size=4)
    single = ix.capture(model, TEXTS, sites, "all", batch_size=1)
    for site in sites:
        torch.testing.assert_close(many[site].torch(), single[site].torch(), atol=1e-5, rtol=0)


def test_bytes_are_known_before_the_run(make, plain_tokenizer):
    model = ix.load(make("gpt2"), tokenizer=plain_tokenizer)
    session = Session(model, Stimuli.of(TEXTS), "blocks.0.attn_pattern", Settings(tokens="all"))
    assert session.bytes == (5 + 11 + 2 + 7) * 2 * 11 * 4
    with pytest.raises(MemoryBudgetError, match="the rows take"):
        ix.capture(model, TEXTS, "blocks.0.attn_pattern", "all", memory="1KB")


def test_refusals(make, plain_tokenizer):
    model = ix.load(make("gpt2"), tokenizer=plain_tokenizer)
    with pytest.raises(
        SiteNotFoundError,
        match=r"'massive' reads activations, and site 'blocks.0.attn_pattern' holds an attention pattern; "
        "reducers of that are 'distance', 'entropy', 'head_overlap', 'previous_token_share', 'sink_share'",
    ):
        ix.capture(model, TEXTS, "blocks.0.attn_pattern|massive")
    with pytest.raises(
        SiteNotFoundError,
        match=r"'entropy' reads attention patterns, and site 'blocks.0.z' holds activations; reducers of that are 'mas",
    ):
        ix.capture(model, TEXTS, "blocks.0.z|entropy")
    with pytest.raises(StimuliError, match="previous_token_share needs 2 tokens; stimulus '1' has 1"):
        ix.capture(model, [words(3), words(1)], "blocks.0.attn_pattern|previous_token_share")
    with pytest.raises(SiteNotFoundError, match="'h.0.mlp' runs no attention whose pattern could be caught"):
        ix.capture(ix.load(make("gpt2").transformer, tokenizer=plain_tokenizer), TEXTS, "h.0.mlp:pattern|entropy")


class Folded(torch.nn.Module):
    """Attention whose heads and stimuli are folded with the heads outside, so that they cannot be told apart."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = torch.nn.Linear(4, 8), torch.nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k = (layer(x).unflatten(-1, (2, 4)).permute(2, 0, 1, 3).flatten(0, 1) for layer in (self.q, self.k))
        return torch.bmm((q @ k.mT).softmax(-1), k).unflatten(0, (2, -1)).mean(0)


def test_heads_outside_stimuli_are_noticed():
    torch.manual_seed(0)
    sequences = torch.randn(3, 5, 4) * 3
    with pytest.raises(SiteNotFoundError, match=r"gives two different attention patterns .* for two copies of one stimulus"):
        ix.capture(torch.nn.Sequential(Folded()), sequences, "0:pattern|entropy")


def test_cross_attention_counts_the_keys_of_its_encoder():
    class Reads(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.latents = torch.nn.Parameter(torch.randn(3, 8))
            self.attend = torch.nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.attend(self.latents.expand(len(x), -1, -1), x, x, need_weights=False)[0]

    torch.manual_seed(0)
    module, x = Reads().eval(), torch.randn(4, 5, 8)
    with torch.no_grad():
        expected = module.attend(module.latents.expand(4, -1, -1), x, x, average_attn_weights=False)[1].numpy()
    store = ix.capture(module, x, ["attend:pattern", "attend:pattern|entropy", "attend:pattern|sink_share"], "all")
    np.testing.assert_allclose(store["attend:pattern"].padded()[0].unflatten(-1, (2, 5)).transpose(1, 2), expected, atol=1e-6)
    for name in ("entropy", "sink_share"):
        np.testing.assert_allclose(store[f"attend:pattern|{name}"].numpy(), [by_hand(name, p, range(3)) for p in expected], atol=1e-5)
    with pytest.raises(SiteNotFoundError, match=r"'attend:pattern\|distance': .* cross-attention \(3 queries and 5 keys"):
        ix.capture(module, x, "attend:pattern|distance")


def test_cross_attention_of_padded_texts(plain_tokenizer):
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    torch.manual_seed(0)
    module = T5ForConditionalGeneration(T5Config(**sizes, vocab_size=44, decoder_start_token_id=0, pad_token_id=0)).eval()
    model = ix.load(module, tokenizer=plain_tokenizer)
    texts, targets = [words(3), words(6, 2), words(4, 5)], [words(2, 9), words(5, 3), words(3)]
    own, cross = "decoder.blocks.1.attn_pattern", "decoder.block.1.layer.1.EncDecAttention:pattern"
    sites = [own, cross, f"{own}|distance", *(f"{cross}|{name}" for name in ("entropy", "sink_share"))]
    store = ix.capture(model, {"text": texts, "target": targets}, sites, "all", batch_size=3)
    rows, mask = store[cross].padded()
    module.set_attn_implementation("eager")
    read = store[own].tokens
    for i, text in enumerate(texts):
        given = torch.tensor([[int(token) for token in store[own].column("token_id")[store[own].stimulus == i]]])
        ids = torch.tensor([plain_tokenizer(text)["input_ids"]])
        with torch.no_grad():
            out = module(input_ids=ids, decoder_input_ids=given, output_attentions=True)
        q, k = given.shape[1], ids.shape[1]
        across, within = out.cross_attentions[1][0].numpy(), out.decoder_attentions[1][0].numpy()
        got = rows[i].unflatten(-1, (2, 6)).transpose(0, 1)  # as many keys as the longest source has tokens
        np.testing.assert_allclose(got[:, :q, :k], across, atol=1e-5)
        assert float(got[:, :, k:].abs().sum()) == 0 and int(mask[i].sum()) == q
        for name in ("entropy", "sink_share"):
            np.testing.assert_allclose(store[f"{cross}|{name}"].numpy()[i], by_hand(name, across, range(q)), atol=1e-5)
        np.testing.assert_allclose(store[f"{own}|distance"].numpy()[i], by_hand("distance", within, range(q)), atol=1e-5)
    assert len(read) == store[cross].n
    with pytest.raises(SiteNotFoundError, match="is cross-attention"):
        ix.capture(model, texts, f"{cross}|previous_token_share")


def test_too_little_memory_inside_attention_halves_the_batch(make, plain_tokenizer):
    module = make("llama")
    model = ix.load(module, tokenizer=plain_tokenizer)
    sites = ["blocks.1.attn_pattern", "blocks.1.attn_pattern|entropy"]
    plain = ix.capture(model, TEXTS, sites, "all", batch_size=4)

    def full(part, args, output):
        if len(output) > 2:
            raise torch.OutOfMemoryError("out of memory")

    handle = module.model.layers[1].self_attn.v_proj.register_forward_hook(full)
    try:
        store = ix.capture(model, TEXTS, sites, "all", batch_size=4)
    finally:
        handle.remove()
    for site in sites:
        torch.testing.assert_close(store[site].torch(), plain[site].torch(), atol=1e-6, rtol=0)
    assert torch.overrides._get_current_function_mode_stack() == []
