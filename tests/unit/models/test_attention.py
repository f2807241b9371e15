"""Attention patterns against each library's own weights, against q and k by hand, and what is left behind."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from torch.overrides import _get_current_function_mode_stack

import inscape as ix
from inscape.errors import EditError, InscapeError, SiteNotFoundError
from inscape.models.attention import Watch, attention_pattern, pop

from .conftest import SMALL, SOUND, TOKENS, footprint, same_footprint, seeded

T = 7
IDS = torch.randint(3, 50, (2, T), generator=torch.Generator().manual_seed(3))
RIGHT, LEFT = torch.ones(2, T, dtype=torch.long), torch.ones(2, T, dtype=torch.long)
RIGHT[1, 4:] = 0
LEFT[1, :3] = 0


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2Model

    return GPT2Model(GPT2Config(n_layer=2, n_embd=16, n_head=4, n_positions=32, **TOKENS))


def _llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2, **TOKENS))


def _mistral() -> Any:
    from transformers import MistralConfig, MistralModel

    return MistralModel(MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=3, **TOKENS))


def _qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3Model

    return Qwen3Model(Qwen3Config(**SMALL, num_key_value_heads=2, head_dim=8, **TOKENS))


def _gpt_neox() -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXModel

    return GPTNeoXModel(GPTNeoXConfig(**{**SMALL, "hidden_size": 32}, rotary_pct=0.5, **TOKENS))


def _gemma2() -> Any:
    from transformers import Gemma2Config, Gemma2Model

    sizes = {**SMALL, "num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 4, "sliding_window": 3}
    return Gemma2Model(Gemma2Config(**sizes, attn_logit_softcapping=0.5, query_pre_attn_scalar=4, **TOKENS))


def _bert() -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**SMALL, vocab_size=50))


def _deberta() -> Any:
    from transformers import DebertaV2Config, DebertaV2Model

    positions = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_position_embeddings": 32, "position_buckets": 4}
    return DebertaV2Model(DebertaV2Config(**{**SMALL, "num_hidden_layers": 2}, **positions, vocab_size=50, pad_token_id=0))


def _t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4, "relative_attention_num_buckets": 8}
    return T5EncoderModel(T5Config(**sizes, vocab_size=50, pad_token_id=0))


def _vit() -> Any:
    from transformers import ViTConfig, ViTModel

    return ViTModel(ViTConfig(**SMALL, image_size=8, patch_size=4))


def _wav2vec2() -> Any:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    return Wav2Vec2Model(Wav2Vec2Config(**SOUND, feat_extract_norm="layer", do_stable_layer_norm=True))


def _gpt_oss() -> Any:
    from transformers import GptOssConfig, GptOssModel

    sizes = {**SMALL, "num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 4, "sliding_window": 3, "num_local_experts": 2}
    return GptOssModel(GptOssConfig(**sizes, num_experts_per_tok=1, **TOKENS))


def _whisper() -> Any:
    from transformers import WhisperConfig, WhisperModel

    sizes = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 2}
    rest = {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 8, "max_source_positions": 6, "max_target_positions": 12}
    ends = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    return WhisperModel(WhisperConfig(**sizes, **rest, **ends, vocab_size=50))


TEXT: dict[str, Callable[[], Any]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _mistral,
    "qwen3": _qwen3,
    "gpt_neox": _gpt_neox,
    "gemma2": _gemma2,
    "bert": _bert,
    "deberta": _deberta,
    "t5": _t5,
    "gpt_oss": _gpt_oss,
}
SINGLE = ("bert", "deberta", "t5")  # left padding is nothing that these are made for


def patterns(model: Any, batch: Any, sites: Any = "blocks.*.attn_pattern") -> dict[str, Tensor]:
    """What the asked sites give for one batch."""
    got: dict[str, Tensor] = {}
    with model.hooked(sites, lambda name, x: got.__setitem__(name, x)):
        model.run(batch)
    return got


def eager_weights(make: Callable[[], Any], batch: dict[str, Tensor], name: str = "attentions") -> list[Tensor]:
    """What a twin with eager attention returns for `output_attentions=True`."""
    twin = seeded(make)
    twin.set_attn_implementation("eager")
    with torch.no_grad():
        return list(getattr(twin(**batch, output_attentions=True), name))


def clean() -> bool:
    """Whether no function mode is pushed."""
    return _get_current_function_mode_stack() == []


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
    for make, batch in ((_vit, {"pixel_values": images}), (_wav2vec2, {"input_values": sounds})):
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
    model = ix.load(seeded(_whisper))
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
        torch.testing.assert_close(got[site], eager_weights(_whisper, batch, field)[1], atol=1e-5, rtol=0)
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
    module = seeded(_gpt_oss)
    model = ix.load(module)
    got = patterns(model, {"input_ids": IDS})["blocks.0.attn_pattern"]
    assert got.shape == (2, 4, T, T)
    assert bool((got.sum(-1) < 1 - 1e-4).all())
    assert "the column of the attention sink is left out" in model.resolve("blocks.0.attn_pattern")[0].note


class Rows(nn.Module):
    """Attention written by hand, in one of the ways in which people write it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.heads = how, 2
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.soft = nn.Softmax(dim=-1)
        self.weights: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)  # [b, h, t, d] each
        scores = q @ k.mT / 2 + torch.full((x.shape[1], x.shape[1]), -torch.inf).triu(1)
        if self.how == "matmul":
            self.weights = torch.softmax(scores, -1)
            z = self.weights @ v
        elif self.how == "module":
            self.weights = self.soft(scores)
            z = torch.matmul(self.weights, v)
        elif self.how == "einsum":
            self.weights = scores.softmax(dim=3)
            z = torch.einsum("bhqk,bhkd->bhqd", self.weights, v)
        elif self.how == "folded":
            folded = F.softmax(scores.flatten(0, 1), dim=-1)
            self.weights = folded.unflatten(0, (-1, 2))
            z = torch.bmm(folded, v.flatten(0, 1)).unflatten(0, (-1, 2))
        elif self.how == "in place":
            gone = scores.softmax(-1)
            self.weights = gone.clone()
            gone.mul_(0.5)
            z = 2 * gone @ v
        elif self.how == "sdpa folded":
            z = F.scaled_dot_product_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), is_causal=True).unflatten(0, (-1, 2))
            self.weights = scores.softmax(-1)
        elif self.how == "sum":  # no product at all
            self.weights = scores.softmax(-1)
            z = (self.weights[..., None] * v[:, :, None]).sum(-2)
        else:  # a gate of its own beside attention
            gate = (x @ x.mT).softmax(-1).mean(-1)
            self.weights = scores.softmax(-1)
            z = (self.weights @ v) * gate[:, None, :, None]
        return self.out(z.transpose(1, 2).flatten(-2))


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
    module, twin = seeded(_llama), seeded(_llama)
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


def test_globs_leave_patterns_out_unless_they_name_them() -> None:
    model = ix.load(seeded(_gpt2))
    for glob in ("blocks.0.*", "blocks.**", "**", "blocks.*.*", "blocks.*.attn*"):
        assert not any(site.port == "pattern" for site in model.resolve(glob)), glob
    expected = ["blocks.0.attn_pattern", "blocks.1.attn_pattern"]
    assert [site.name for site in model.resolve("blocks.*.attn_pattern")] == expected
    assert [site.name for site in model.resolve("blocks.*.attn.hook_pattern")] == expected
    assert model.resolve("blocks.-1.attn_pattern") == model.resolve("blocks.1.attn.hook_pattern")
    assert [site.name for site in model.resolve("h.*.attn:pattern")] == ["h.0.attn:pattern", "h.1.attn:pattern"]
    row = next(row for row in model.sites() if row.name == "blocks.0.attn_pattern")
    assert (row.path, row.shape, row.alias) == ("h.0.attn:pattern", (2, 4, 6, 6), "blocks.0.attn.hook_pattern")
    assert "scaled_dot_product_attention" in row.note
    assert next(row for row in model.sites() if row.name == "h.1.attn").note == "attention pattern: h.1.attn:pattern"


def test_only_the_asked_layer_is_watched() -> None:
    module = seeded(_llama)
    depth: dict[str, list[int]] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda *_: depth.setdefault(name, []).append(len(_get_current_function_mode_stack()))

    model = ix.load(module)
    model.atlas()
    handles = [part.register_forward_hook(note(path)) for path, part in module.named_modules() if path]
    with model.hooked("blocks.1.attn_pattern", lambda site, x: None):
        model.run({"input_ids": IDS})
    for handle in handles:
        handle.remove()
    watched = {path for path, seen in depth.items() if seen != [0]}
    assert watched == {f"model.layers.1.self_attn.{part}_proj" for part in "qkvo"}


def test_one_pattern_at_a_time_is_alive() -> None:
    model = ix.load(seeded(_llama))
    alive: list[weakref.ref[Tensor]] = []

    def reader(site: str, x: Tensor) -> None:
        gc.collect()
        assert all(ref() is None for ref in alive)
        alive.append(weakref.ref(x))

    with model.hooked("blocks.*.attn_pattern", reader):
        model.run({"input_ids": IDS})
    assert len(alive) == 3 and all(ref() is None for ref in alive)


class Stop(BaseException):
    """As a keyboard interrupt is."""


@pytest.mark.parametrize("error", [RuntimeError, Stop])
def test_an_error_inside_attention_leaves_nothing(error: type[BaseException]) -> None:
    module = seeded(_llama)
    model = ix.load(module)
    before = footprint(module)
    site = model.resolve("blocks.1.attn_pattern")

    def fail(*_: Any) -> None:
        raise error("inside")

    for run in (lambda: model.run({"input_ids": IDS}), lambda: module(IDS)):
        with model.hooked(site, lambda name, x: None):
            handle = module.model.layers[1].self_attn.v_proj.register_forward_hook(fail)
            with pytest.raises(error, match="inside"):
                run()
            handle.remove()
            if error is RuntimeError:
                assert clean()  # at once, though the block is still open
            kept = patterns(model, {"input_ids": IDS})
            assert clean() and len(kept) == 3
        assert clean() and same_footprint(before, footprint(module))
    with pytest.raises(error), model.hooked(site, fail):
        model.run({"input_ids": IDS})
    assert clean() and same_footprint(before, footprint(module))


def test_a_pass_that_stops_early_and_readers_beside_each_other() -> None:
    module = seeded(_llama)
    model = ix.load(module)
    other = ix.load(module)  # the same module under two names
    for loaded in (model, other):
        loaded.atlas()
    ran: list[int] = []
    handles = [layer.register_forward_pre_hook(lambda m, a, i=i: ran.append(i)) for i, layer in enumerate(module.model.layers)]
    kept: list[str] = []
    asked = ["blocks.0.attn_pattern", "model.layers.0.self_attn:pattern", "model.layers.0:pattern", "blocks.0.q"]
    with model.hooked(asked, lambda site, x: kept.append(site), stop_after_last=True):
        assert model.run({"input_ids": IDS}, stop=True) is None
        assert ran == [0] and sorted(kept) == sorted(asked)
        assert clean()
        first, second = [], []
        with model.hooked("blocks.0.attn_pattern", lambda s, x: first.append(x)):
            with other.hooked("blocks.0.attn_pattern", lambda s, x: second.append(x)):
                module(IDS)
        assert torch.equal(first[0], second[0]) and clean()
    for handle in handles:
        handle.remove()


def test_a_model_that_runs_inside_anothers_attention() -> None:
    """Watches nest; what runs inside counts for both, so the outer one says that it cannot tell."""
    inside: list[Tensor] = []
    small = ix.load(seeded(_gpt2))
    small.atlas()
    model = ix.load(seeded(_llama))
    model.atlas()

    def run_small(*_: Any) -> None:
        with small.hooked("blocks.0.attn_pattern", lambda s, p: inside.append(p)):
            small.run({"input_ids": IDS})

    with model.hooked("blocks.0.attn_pattern", run_small):  # a reader may run another model
        model.run({"input_ids": IDS})
    assert [tuple(x.shape) for x in inside] == [(2, 4, T, T)] and clean()
    handle = model.module.model.layers[1].self_attn.k_proj.register_forward_hook(run_small)
    with pytest.raises(SiteNotFoundError, match="there is no attention pattern to read: .* runs attention 3 times in one call"):
        patterns(model, {"input_ids": IDS})
    handle.remove()
    assert len(inside) == 2 and torch.equal(inside[0], inside[1]) and clean()


def test_a_watch_takes_off_itself_and_no_other() -> None:
    other, watch = Watch(), Watch()
    with watch.__class__() as outer:
        watch.__enter__()
        other.__enter__()
        pop(watch)
        assert _get_current_function_mode_stack() == [outer, other]
        pop(watch)
        assert _get_current_function_mode_stack() == [outer, other]
        pop(other)
    assert clean()


def test_many_passes_leave_nothing() -> None:
    module = seeded(_gpt2)
    model = ix.load(module)
    before = footprint(module)
    site = model.resolve("blocks.0.attn_pattern")
    for i in range(1000):
        with model.hooked(site, lambda name, x: None, stop_after_last=True):
            model.run({"input_ids": IDS[:1, :2]}, stop=True)
        if i % 250 == 0:
            assert clean()
    gc.collect()
    assert not any(type(thing) is Watch for thing in gc.get_objects())
    assert clean() and same_footprint(before, footprint(module))
    assert model._pass.lookouts == [] and model._pass.readings == []


def test_modules_without_a_pattern_are_refused_with_the_reason(gpt2: Any) -> None:
    model = ix.load(gpt2)
    with pytest.raises(SiteNotFoundError, match=r"no site 'transformer.h.0.mlp:pattern': 'transformer.h.0.mlp' runs no attention whose"):
        model.resolve("transformer.h.0.mlp:pattern")
    with pytest.raises(
        SiteNotFoundError, match=r"runs attention 3 times in one call; name one of its parts: 'transformer.h.0.attn:pattern'"
    ):
        model.resolve("transformer:pattern")
    from transformers import MambaConfig, MambaModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "vocab_size": 50}
    mamba = ix.load(seeded(lambda: MambaModel(MambaConfig(**sizes, use_mambapy=False))))
    with pytest.raises(SiteNotFoundError, match=r"blocks.0.attn_pattern.*linear attention and state-space layers have no pattern"):
        mamba.resolve("blocks.0.attn_pattern")
    assert "blocks.0.attn_pattern" not in mamba.sites().names


class Linear(nn.Module):
    """Linear attention: a softmax over features, which is no pattern."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return q.softmax(-1) @ (k.softmax(-2).mT @ v)


def test_linear_attention_is_no_canonical_pattern() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn, self.mlp = Linear(), nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attn(x)
            return x + self.mlp(x)

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    model = ix.load(seeded(Stack))
    model.sites(example=torch.randn(2, 5, 8))
    with pytest.raises(SiteNotFoundError, match=r"blocks.0.attn_pattern': .*shape \[2, 1, 5, 8\] where \[2, heads, 5, 5\] was expected"):
        model.resolve("blocks.0.attn_pattern")


def test_a_pattern_that_shows_only_at_run_time_is_an_error_there() -> None:
    class Fickle(Rows):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.shape[1] == 5 else self.out(x)

    module = seeded(lambda: nn.Sequential(Fickle("matmul")))
    model = ix.load(module)
    model.sites(example=torch.randn(2, 5, 8))
    with pytest.raises(SiteNotFoundError, match="there is no attention pattern to read: '0' runs no attention"):
        patterns(model, torch.randn(2, 4, 8), "0:pattern")
    assert clean()

    class Folded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            odd = torch.cat([x, x[:1]])
            return (odd @ odd.mT).softmax(-1) @ odd

    model = ix.load(nn.Sequential(Folded()))
    with pytest.raises(InscapeError, match=r"gives a pattern of shape \[3, 4, 4\] for 2 stimuli"):
        with model.hooked([ix.models.Site("0:pattern", "0", "pattern")], lambda s, x: None):
            model.module(torch.randn(2, 4, 8))


def test_compiled_attention_is_refused_and_a_compiled_wrapper_is_read() -> None:
    module = seeded(_gpt2)
    wrapped = ix.load(torch.compile(module, backend="eager"))
    torch.testing.assert_close(patterns(wrapped, {"input_ids": IDS}), patterns(ix.load(module), {"input_ids": IDS}), atol=1e-6, rtol=0)
    model = ix.load(module)
    site = model.resolve("blocks.0.attn_pattern")
    module.h[0].attn.compile(backend="eager")
    with pytest.raises(SiteNotFoundError, match=r"h.0.attn is compiled in place, so attention runs outside Python"):
        with model.hooked(site, lambda s, x: None):
            pass
    with model.hooked("blocks.1.attn_pattern", lambda s, x: None):  # its neighbor is not
        pass


def test_edits_show_in_the_pattern_and_cannot_be_made_there() -> None:
    module = seeded(_llama)
    model = ix.load(module)
    plain = patterns(model, {"input_ids": IDS})
    with ix.edit(model, "blocks.1.q", ix.edits.scale(0.0)):
        flat = patterns(model, {"input_ids": IDS})
    assert torch.equal(flat["blocks.0.attn_pattern"], plain["blocks.0.attn_pattern"])
    uniform = torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None]
    torch.testing.assert_close(flat["blocks.1.attn_pattern"], uniform.expand(2, 4, -1, -1), atol=1e-6, rtol=0)
    with pytest.raises(EditError, match=r"'blocks.1.attn_pattern' is computed beside .*ix.edits.ablate\(heads=\[1\]\)"):
        ix.edit(model, "blocks.1.attn_pattern", ix.edits.scale(0.5))
    with pytest.raises(EditError, match="would have no effect"):
        model.resolve("blocks.0.attn_pattern")[0].write(torch.zeros(1), torch.zeros(1))


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


def test_attention_that_does_not_stand_being_watched_costs_no_other_site() -> None:
    """Some kernels compile what surrounds them; then only the pattern is missing."""

    class Shy(Rows):
        def forward(self, x: Tensor) -> Tensor:
            if _get_current_function_mode_stack():
                raise RuntimeError("no modes here")
            return super().forward(x)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn, self.mlp = Shy("matmul"), nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attn(x)
            return x + self.mlp(x)

    model = ix.load(seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.ModuleList([Block()])[0])))
    model.sites(example=torch.randn(2, 5, 8))
    with pytest.raises(SiteNotFoundError, match=r"no site '1.attn:pattern': attention could not be watched: RuntimeError: no modes here"):
        model.resolve("1.attn:pattern")
    assert model.resolve("1.attn")[0].path == "1.attn"
    assert clean()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_flex_attention_is_refused_before_the_run() -> None:
    module = seeded(_llama)
    module.set_attn_implementation("flex_attention")
    model = ix.load(module)
    with pytest.raises(SiteNotFoundError, match=r"blocks.0.attn_pattern.*flex and compiled attention keep theirs in a kernel"):
        model.resolve("blocks.0.attn_pattern")
    assert clean()


def test_weights_that_come_from_elsewhere_when_a_layer_runs() -> None:
    from accelerate import cpu_offload

    expected = patterns(ix.load(seeded(_llama)), {"input_ids": IDS})
    module = seeded(_llama)
    cpu_offload(module, execution_device="cpu")
    got = patterns(ix.load(module), {"input_ids": IDS})
    assert list(got) == list(expected)
    assert all(torch.equal(got[name], expected[name]) for name in got)
