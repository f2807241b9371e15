"""Attention patterns against each library's own weights, against q and k by hand, and of attention in every spelling."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right

import inscape as ix
from inscape.errors import SiteNotFoundError
from inscape.models.attention import attention_pattern

from .attending import (
    IDS,
    LEFT,
    RIGHT,
    SINGLE,
    TEXT,
    Rows,
    T,
    clean,
    eager_weights,
    make_gpt_oss,
    make_llama,
    make_vit,
    make_wav2vec2,
    make_whisper,
    patterns,
)
from .conftest import SMALL, footprint, same_footprint, seeded


@pytest.mark.parametrize("padding", ["none", "right", "left"])
@pytest.mark.parametrize("name", TEXT)
def test_equals_the_weights_of_eager_attention(name: str, padding: str) -> None:
    if padding == "left" and name in SINGLE:
        padding = "right"
    mask = {"none": torch.ones(2, T, dtype=torch.long), "right": RIGHT, "left": LEFT}[padding]
    batch: dict[str, Tensor] = {"input_ids": IDS, "attention_mask": mask}
    module = seeded(TEXT[name])
    model = ix.load(module)
    got = list(patterns(model, batch).values())
    if padding == "left":
        batch["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    expected = eager_weights(TEXT[name], batch)
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape and a.dtype == torch.float32
        real = mask.bool()[:, None, :, None]  # what a padded query looks at is nobody's business
        torch.testing.assert_close(a * real, b * real, atol=1e-5, rtol=0)
        if name != "gpt_oss":
            torch.testing.assert_close((a.sum(-1, keepdim=True) * real), real.float().expand(-1, 4, -1, -1), atol=1e-5, rtol=0)
        assert float((a * real * ~mask.bool()[:, None, None]).max()) == 0  # and no real one looks at padding


@pytest.mark.parametrize("name", TEXT)
def test_the_run_itself_is_the_same_bit_for_bit(name: str) -> None:
    module = seeded(TEXT[name])
    model = ix.load(module)
    batch = {"input_ids": IDS, "attention_mask": RIGHT}
    plain, kept = model.run(batch)[0], []
    before = footprint(module)
    with model.hooked("blocks.*.attn_pattern", lambda site, x: kept.append(x)):
        watched = model.run(batch)[0]
    assert len(kept) == len(model.resolve("blocks.*.attn_pattern"))
    assert torch.equal(plain, watched)
    assert same_footprint(before, footprint(module)) and clean()


def test_images_and_sounds() -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sounds = torch.randn(2, 60, generator=torch.Generator().manual_seed(0))
    for make, batch in ((make_vit, {"pixel_values": images}), (make_wav2vec2, {"input_values": sounds})):
        got = list(patterns(ix.load(seeded(make)), batch).values())
        expected = eager_weights(make, batch)
        assert len(got) == len(expected) == 3
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_encoder_decoder_and_cross_attention() -> None:
    batch = {
        "input_features": torch.randn(2, 8, 12, generator=torch.Generator().manual_seed(0)),
        "decoder_input_ids": torch.tensor([[0, 5, 6, 7, 8], [0, 9, 8, 7, 6]]),
    }
    model = ix.load(seeded(make_whisper))
    asked = {
        "encoder.blocks.1.attn_pattern": "encoder_attentions",
        "decoder.blocks.1.attn_pattern": "decoder_attentions",
        "encoder.layers.1.self_attn:pattern": "encoder_attentions",
        "decoder.layers.1.self_attn:pattern": "decoder_attentions",
        "decoder.layers.1.encoder_attn:pattern": "cross_attentions",
    }
    got = patterns(model, batch, list(asked))
    assert [tuple(got[site].shape) for site in asked] == [*2 * [(2, 4, 6, 6), (2, 2, 5, 5)], (2, 2, 5, 6)]
    for site, field in asked.items():
        torch.testing.assert_close(got[site], eager_weights(make_whisper, batch, field)[1], atol=1e-5, rtol=0)
    with pytest.raises(
        SiteNotFoundError,
        match=r"'decoder.layers.0' runs attention 2 times in one call; name one of its parts: 'decoder.layers.0.self_attn:pattern', "
        "'decoder.layers.0.encoder_attn:pattern'",
    ):
        model.resolve("decoder.layers.0:pattern")


def rotate(x: Tensor, base: float = 10000.0, part: int | None = None) -> Tensor:
    """Rotary positions by their formula, on `[b, h, t, d]`: the first `part` units turn, in halves."""
    part = part or x.shape[-1]
    turn, rest = x[..., :part], x[..., part:]
    angle = torch.arange(x.shape[-2])[:, None] * base ** -(torch.arange(0, part, 2) / part)
    a, b = turn.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin(), rest], -1)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "gpt_neox", "qwen3"])
def test_follows_from_captured_queries_and_keys(name: str) -> None:
    """Scores from q and k as they were projected, with norms, rotary positions, mask and softmax written out here."""
    module = seeded(TEXT[name])
    got: dict[str, Tensor] = {}
    with ix.load(module).hooked(["blocks.1.q", "blocks.1.k", "blocks.1.attn_pattern"], lambda site, x: got.__setitem__(site, x.double())):
        module(input_ids=IDS)
    many = 4 if name in ("gpt2", "gpt_neox") else 2
    q, k = got["blocks.1.q"].unflatten(-1, (4, -1)).transpose(1, 2), got["blocks.1.k"].unflatten(-1, (many, -1)).transpose(1, 2)
    if name == "qwen3":
        attention = module.layers[1].self_attn
        q, k = rms_norm(q, attention.q_norm.weight.double()), rms_norm(k, attention.k_norm.weight.double())
    if name != "gpt2":
        part = q.shape[-1] // 2 if name == "gpt_neox" else None
        q, k = rotate(q, part=part), rotate(k, part=part)
    scores = q @ k.repeat_interleave(4 // many, 1).transpose(-1, -2) / math.sqrt(q.shape[-1])
    i, j = torch.arange(T)[:, None], torch.arange(T)
    seen = (j <= i) & (j > i - 3) if name == "mistral" else j <= i
    expected = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    torch.testing.assert_close(got["blocks.1.attn_pattern"], expected, atol=1e-5, rtol=0)


def _by_identity(q: Tensor, k: Tensor, **options: Any) -> Tensor:
    """The pattern by torch's own kernel: values that are the identity come out as the weights themselves."""
    values = torch.eye(k.shape[-2], dtype=q.dtype).expand(*k.shape[:-1], -1)
    return F.scaled_dot_product_attention(q, k, values, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("keys", [5, 9, 3])
def test_every_argument_of_scaled_dot_product_attention(keys: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 5, 8, generator=generator, dtype=dtype)
    k = torch.randn(2, 2, keys, 8, generator=generator, dtype=dtype)
    whole = k.repeat_interleave(2, 1)
    allowed = torch.rand(2, 1, 5, keys, generator=generator) < 0.6
    allowed[..., 0] = True
    bias = torch.randn(4, 5, keys, generator=generator, dtype=dtype)
    cases: list[tuple[Tensor, dict[str, Any]]] = [
        (whole, {}),
        (whole, {"is_causal": True}),
        (whole, {"attn_mask": allowed}),
        (whole, {"attn_mask": bias}),
        (whole, {"attn_mask": torch.zeros(2, 1, 1, keys, dtype=dtype).masked_fill(~allowed[:, :, :1], -torch.inf)}),
        (whole, {"scale": 0.3, "attn_mask": torch.full((5, keys), torch.finfo(dtype).min, dtype=dtype).triu(1)}),
        (k, {"enable_gqa": True, "is_causal": True}),
    ]
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    for given, options in cases:
        got = attention_pattern(q, given, None, **options)
        assert got.dtype == dtype
        torch.testing.assert_close(got, _by_identity(q, given, **options), atol=tolerance, rtol=0)
    if keys >= 5:
        mask: Any = causal_lower_right(5, keys)
        expected = _by_identity(q, whole, attn_mask=torch.ones(5, keys, dtype=torch.bool).tril(keys - 5))
        torch.testing.assert_close(attention_pattern(q, whole, attn_mask=mask), expected, atol=tolerance, rtol=0)


def test_half_precision_is_widened_and_empty_rows_are_zero() -> None:
    q = torch.randn(1, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    half = q.bfloat16()
    got = attention_pattern(half, half)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, _by_identity(half.float(), half.float()), atol=1e-6, rtol=0)
    allowed = torch.ones(4, 4, dtype=torch.bool).tril(-1)  # the first query sees nothing
    torch.testing.assert_close(attention_pattern(q, q, attn_mask=allowed), _by_identity(q, q, attn_mask=allowed), atol=1e-6, rtol=0)
    assert float(attention_pattern(q, q, attn_mask=allowed)[:, :, 0].abs().max()) == 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(attention_pattern(q, q), _by_identity(q.double(), q.double()).float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_half_precision_models(name: str) -> None:
    module = seeded(TEXT[name]).bfloat16()
    got = patterns(ix.load(module), {"input_ids": IDS})
    assert {x.dtype for x in got.values()} == {torch.float32}
    module.set_attn_implementation("eager")
    with torch.no_grad():
        expected = module(input_ids=IDS, output_attentions=True).attentions
    for a, b in zip(got.values(), expected, strict=True):
        torch.testing.assert_close(a, b.float(), atol=2e-2, rtol=0)
    sums = next(iter(got.values())).sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-6, rtol=0)  # it was never rounded to bf16


def test_the_sink_of_gpt_oss_is_left_out_and_said_so() -> None:
    module = seeded(make_gpt_oss)
    model = ix.load(module)
    got = patterns(model, {"input_ids": IDS})["blocks.0.attn_pattern"]
    assert got.shape == (2, 4, T, T)
    assert bool((got.sum(-1) < 1 - 1e-4).all())
    assert "the column of the attention sink is left out" in model.resolve("blocks.0.attn_pattern")[0].note


@pytest.mark.parametrize("how", ["matmul", "module", "einsum", "folded", "in place", "sdpa folded", "sum", "gate"])
def test_attention_written_by_hand(how: str) -> None:
    module = seeded(lambda: nn.Sequential(nn.Linear(8, 8), Rows(how)))
    model = ix.load(module)
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))
    model.sites(example=x)
    got = patterns(model, x, "1:pattern")["1:pattern"]
    assert torch.equal(got, module[1].weights) if how != "sdpa folded" else torch.allclose(got, module[1].weights, atol=1e-6)
    row = next(row for row in model.sites() if row.name == "1")
    assert row.note == "attention pattern: 1:pattern" or how == "sum"
    assert model.resolve("1:pattern")[0].heads == 2


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_multihead_attention_of_torch(batch_first: bool, causal: bool) -> None:
    """`need_weights=False` is how its encoder calls it; the weights by head come from a second call."""

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(8, 2, batch_first=batch_first)

        def forward(self, x: Tensor) -> Tensor:
            time = x.shape[1 if batch_first else 0]
            mask = nn.Transformer.generate_square_subsequent_mask(time) if causal else None
            return self.attend(x, x, x, attn_mask=mask, is_causal=causal, need_weights=False)[0]

    module = seeded(Wrapped)
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))
    x = x if batch_first else x.transpose(0, 1)
    model = ix.load(module)
    model.sites(example=x)
    with torch.no_grad():
        plain = module(x)
        mask = torch.full((5, 5), -torch.inf).triu(1) if causal else None
        expected = module.attend(x, x, x, attn_mask=mask, average_attn_weights=False)[1]
    got = patterns(model, x, "attend:pattern")["attend:pattern"]
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    with model.hooked("attend:pattern", lambda site, x: None), torch.no_grad():
        torch.testing.assert_close(module(x), plain, atol=1e-6, rtol=0)
    assert model.resolve("attend:pattern")[0].heads == 2


def test_transformer_encoder_of_torch_with_padding_and_extra_keys() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    module = seeded(lambda: nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    for part in module.layers:
        part.self_attn = nn.MultiheadAttention(8, 2, batch_first=True, add_zero_attn=True).eval()
    model = ix.load(module, forward=lambda part, batch: part(batch["x"], src_key_padding_mask=batch["pad"]))
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    pad = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    batch = {"x": x, "pad": pad}
    model.sites(example=batch)
    got = patterns(model, batch, "layers.1.self_attn:pattern")["layers.1.self_attn:pattern"]
    with torch.no_grad():
        y = module.layers[0](x, src_key_padding_mask=pad)
        expected = module.layers[1].self_attn(y, y, y, key_padding_mask=pad, average_attn_weights=False)[1]
    assert expected.shape == (2, 2, 5, 6)
    torch.testing.assert_close(got, expected[..., :5], atol=1e-6, rtol=0)
    assert "left out" in model.resolve("layers.1.self_attn:pattern")[0].note


def test_a_hand_written_gpt_has_the_canonical_name(plain_gpt: Any) -> None:
    model = ix.load(plain_gpt)
    site = model.resolve("blocks.1.attn_pattern")[0]
    assert (site.path, site.port, site.heads) == ("layers.1", "pattern", 4)
    got = patterns(model, {"ids": IDS})
    q, k = (_heads(x) for x in _read(model, ["blocks.1.q", "blocks.1.k"], {"ids": IDS}))
    scores = (q @ k.mT / 2).masked_fill(~torch.ones(T, T, dtype=torch.bool).tril(), -torch.inf)
    torch.testing.assert_close(got["blocks.1.attn_pattern"], scores.softmax(-1), atol=1e-6, rtol=0)


def _heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (4, -1)).transpose(1, 2)


def _read(model: Any, sites: list[str], batch: Any) -> list[Tensor]:
    got = patterns(model, batch, sites)
    return [got[site] for site in sites]


@pytest.mark.parametrize("padded", [False, True])
def test_a_single_new_token_under_a_cache(padded: bool) -> None:
    """Grouped queries stand in the place of heads when one token is decoded; the pattern has every head all the same."""
    module, twin = seeded(make_llama), seeded(make_llama)
    twin.set_attn_implementation("eager")
    mask = LEFT if padded else torch.ones_like(IDS)
    options: dict[str, Any] = {"input_ids": IDS, "attention_mask": mask, "max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    kept: list[Tensor] = []
    model = ix.load(module)
    with model.hooked("blocks.1.attn_pattern", lambda site, x: kept.append(x)), torch.no_grad():
        module.generate(**options)
    with torch.no_grad():
        told = twin.generate(**options, output_attentions=True, return_dict_in_generate=True)
    assert [tuple(x.shape) for x in kept] == [(2, 4, T, T), *((2, 4, 1, T + i) for i in (1, 2, 3))]
    for a, step in zip(kept, told.attentions, strict=True):
        real = mask.bool()[:, None, :, None] if a.shape[2] == T else torch.tensor(True)
        torch.testing.assert_close(a * real, step[1] * real, atol=1e-5, rtol=0)
    assert clean()


def test_shared_attention_runs_once_for_each_call() -> None:
    from transformers import AlbertConfig, AlbertModel

    def make() -> Any:
        return AlbertModel(AlbertConfig(**SMALL, embedding_size=8, vocab_size=50))

    model = ix.load(seeded(make))
    path = "encoder.albert_layer_groups.0.albert_layers.0.attention"
    sites = [site.name for site in model.resolve(f"{path}:pattern")]
    assert sites == [f"{path}:pattern#{i}" for i in range(3)]
    got = patterns(model, {"input_ids": IDS}, sites)
    canonical = patterns(model, {"input_ids": IDS})
    for i, expected in enumerate(eager_weights(make, {"input_ids": IDS})):
        torch.testing.assert_close(got[sites[i]], expected, atol=1e-5, rtol=0)
        assert torch.equal(got[sites[i]], canonical[f"blocks.{i}.attn_pattern"])


def test_weights_that_come_from_elsewhere_when_a_layer_runs() -> None:
    from accelerate import cpu_offload

    expected = patterns(ix.load(seeded(make_llama)), {"input_ids": IDS})
    module = seeded(make_llama)
    cpu_offload(module, execution_device="cpu")
    got = patterns(ix.load(module), {"input_ids": IDS})
    assert list(got) == list(expected)
    assert all(torch.equal(got[name], expected[name]) for name in got)
