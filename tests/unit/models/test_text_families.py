"""Canonical sites of language models against computations written out by hand from the modules' own weights."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inscape as ix
from inscape.errors import SiteNotFoundError
from inscape.models import Model
from tests.families.catalog import Family
from tests.families.text import FAMILIES
from tests.unit.models.conftest import seeded

IDS = {"input_ids": torch.randint(4, 44, (3, 7), generator=torch.Generator().manual_seed(1))}
TOKENS = {"vocab_size": 44, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

BY_NAME: dict[str, Family] = {family.name: family for family in FAMILIES}

LLAMA = ("model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.down_proj")
# Family -> the last matrix of attention and that of the MLP; `{}` is the block.
PRE_NORM = {
    "GPT-2": ("transformer.h.{}.attn.c_proj", "transformer.h.{}.mlp.c_proj"),
    **dict.fromkeys(("Llama", "Qwen2", "Qwen3", "Mistral", "Phi-3"), LLAMA),
    "GPT-NeoX (sequential)": ("gpt_neox.layers.{}.attention.dense", "gpt_neox.layers.{}.mlp.dense_4h_to_h"),
    "OPT": ("model.decoder.layers.{}.self_attn.out_proj", "model.decoder.layers.{}.fc2"),
    "BLOOM": ("transformer.h.{}.self_attention.dense", "transformer.h.{}.mlp.dense_4h_to_h"),
    "ModernBERT": ("model.layers.{}.attn.Wo", "model.layers.{}.mlp.Wo"),
}
PARALLEL = {
    "GPT-NeoX (parallel)": PRE_NORM["GPT-NeoX (sequential)"],
    "GPT-J": ("transformer.h.{}.attn.out_proj", "transformer.h.{}.mlp.fc_out"),
    "Phi": ("model.layers.{}.self_attn.dense", "model.layers.{}.mlp.fc2"),
    **dict.fromkeys(("Falcon (one key head)", "Falcon (grouped)"), PRE_NORM["BLOOM"]),
}
BERT = ("attention.output.LayerNorm", "output.LayerNorm", "attention.output.dense", "output.dense")
# Family -> block, the norms behind attention and MLP, and the last matrices of both.
POST_NORM = {
    "BERT": ("encoder.layer.{}", *BERT),
    "RoBERTa": ("roberta.encoder.layer.{}", *BERT),
    "ELECTRA": ("electra.encoder.layer.{}", *BERT),
    "DeBERTa-v2": ("deberta.encoder.layer.{}", *BERT),
    "DistilBERT": ("distilbert.transformer.layer.{}", "sa_layer_norm", "output_layer_norm", "attention.out_lin", "ffn.lin2"),
    "OPT (post-norm)": ("model.decoder.layers.{}", "self_attn_layer_norm", "final_layer_norm", "self_attn.out_proj", "fc2"),
}


@cache
def model_of(name: str) -> Model:
    return ix.load(seeded(BY_NAME[name].make), name=name)


@pytest.fixture(autouse=True)
def without_gradients() -> Generator[None]:
    with torch.no_grad():
        yield


def read(model: Model, sites: Any, batch: dict[str, Tensor] = IDS) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    with model.hooked(sites, lambda name, x: found.__setitem__(name, x.clone())):
        model.run(batch)
    return found


def block(model: Model, number: int) -> dict[str, Tensor]:
    """All sites of one block, by the last part of their names."""
    return {name.rsplit(".", 1)[-1]: x for name, x in read(model, f"blocks.{number}.*").items()}


def part(model: Model, path: str, number: int = 1) -> Any:
    return model.module.get_submodule(path.format(number))


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize("name", PRE_NORM)
@pytest.mark.parametrize("number", [0, 2])
def test_pre_norm_blocks_add_what_their_last_matrices_give(name: str, number: int) -> None:
    model = model_of(name)
    site = block(model, number)
    attention, mlp = (part(model, path, number) for path in PRE_NORM[name])
    assert close(site["resid_pre"] + site["attn_out"], site["resid_mid"])
    assert close(site["resid_mid"] + site["mlp_out"], site["resid_post"])
    assert close(attention(site["z"]), site["attn_out"])
    assert close(mlp(site["mlp_act"]), site["mlp_out"])


@pytest.mark.parametrize("name", PARALLEL)
def test_parallel_blocks_add_both_branches_to_their_input(name: str) -> None:
    model = model_of(name)
    site = block(model, 1)
    attention, mlp = (part(model, path) for path in PARALLEL[name])
    assert close(site["resid_pre"] + site["attn_out"] + site["mlp_out"], site["resid_post"])
    assert close(attention(site["z"]), site["attn_out"])
    assert close(mlp(site["mlp_act"]), site["mlp_out"])


@pytest.mark.parametrize("name", POST_NORM)
def test_post_norm_blocks_normalize_each_sum(name: str) -> None:
    model = model_of(name)
    site, (path, *inner) = block(model, 1), POST_NORM[name]
    norm1, norm2, attention, mlp = (part(model, f"{path}.{end}") for end in inner)
    assert close(norm1(site["resid_pre"] + site["attn_out"]), site["resid_mid"])
    assert close(norm2(site["resid_mid"] + site["mlp_out"]), site["resid_post"])
    assert close(attention(site["z"]), site["attn_out"])
    assert close(mlp(site["mlp_act"]), site["mlp_out"])
    assert "after the norm that follows attention" in model.resolve("blocks.1.resid_mid")[0].note


@pytest.mark.parametrize("name", ["Gemma-2", "Gemma-3", "OLMo-2"])
def test_norms_behind_a_branch_are_part_of_what_is_added(name: str) -> None:
    model = model_of(name)
    site, layer = block(model, 1), part(model, "model.layers.{}")
    after = layer.post_feedforward_layernorm
    assert close(layer.post_attention_layernorm(layer.self_attn.o_proj(site["z"])), site["attn_out"])
    assert close(after(layer.mlp.down_proj(site["mlp_act"])), site["mlp_out"])
    assert close(site["resid_pre"] + site["attn_out"], site["resid_mid"])
    assert close(site["resid_mid"] + site["mlp_out"], site["resid_post"])
    assert "what is added to the stream" in model.resolve("blocks.1.attn_out")[0].note


def _separate(norm: str, names: str = "q_proj k_proj v_proj") -> Callable[[Any, Any, Tensor], list[Tensor]]:
    return lambda layer, attention, x: [attention.get_submodule(name)(layer.get_submodule(norm)(x)) for name in names.split()]


def _fused(norm: str, path: str, shape: tuple[int, ...], *picks: Any) -> Callable[[Any, Any, Tensor], list[Tensor]]:
    """Columns of one projection, seen as `shape` and picked: what each family's own code does."""

    def parts(layer: Any, attention: Any, x: Tensor) -> list[Tensor]:
        wide = attention.get_submodule(path)(layer.get_submodule(norm)(x) if norm else x).unflatten(-1, shape)
        return [wide[(..., *pick)].flatten(2) for pick in picks]

    return parts


ALL = slice(None)
HEAD_BY_HEAD = [(ALL, i, ALL) for i in range(3)]
# Family -> block, its attention, and queries, keys and values from what enters the block.
PROJECTED = {
    "GPT-2": ("transformer.h.{}", "attn", _fused("ln_1", "c_attn", (3, 16), *[(i, ALL) for i in range(3)])),
    **dict.fromkeys(("Llama", "Qwen2", "Qwen3", "Mistral", "Phi"), ("model.layers.{}", "self_attn", _separate("input_layernorm"))),
    "Gemma-2": ("model.layers.{}", "self_attn", _separate("input_layernorm")),
    "Phi-3": (
        *("model.layers.{}", "self_attn"),
        _fused("input_layernorm", "qkv_proj", (8, 4), (slice(0, 4), ALL), (slice(4, 6), ALL), (slice(6, 8), ALL)),
    ),
    "GPT-NeoX (parallel)": ("gpt_neox.layers.{}", "attention", _fused("input_layernorm", "query_key_value", (4, 3, 4), *HEAD_BY_HEAD)),
    "BLOOM": ("transformer.h.{}", "self_attention", _fused("input_layernorm", "query_key_value", (4, 3, 4), *HEAD_BY_HEAD)),
    "Falcon (one key head)": (
        *("transformer.h.{}", "self_attention"),
        _fused("input_layernorm", "query_key_value", (6, 4), (slice(0, 4), ALL), (slice(4, 5), ALL), (slice(5, 6), ALL)),
    ),
    "Falcon (grouped)": (
        *("transformer.h.{}", "self_attention"),
        _fused("ln_attn", "query_key_value", (2, 4, 4), (ALL, slice(0, 2), ALL), (ALL, 2, ALL), (ALL, 3, ALL)),
    ),
    "ModernBERT": ("model.layers.{}", "attn", _fused("attn_norm", "Wqkv", (3, 16), *[(i, ALL) for i in range(3)])),
    "OPT": ("model.decoder.layers.{}", "self_attn", _separate("self_attn_layer_norm")),
    "DeBERTa-v2": ("deberta.encoder.layer.{}", "attention.self", lambda layer, a, x: [a.query_proj(x), a.key_proj(x), a.value_proj(x)]),
    "DistilBERT": ("distilbert.transformer.layer.{}", "attention", lambda layer, a, x: [a.q_lin(x), a.k_lin(x), a.v_lin(x)]),
}


@pytest.mark.parametrize("name", PROJECTED)
def test_queries_keys_and_values_are_the_projections_of_the_normed_stream(name: str) -> None:
    model = model_of(name)
    path, attention, parts = PROJECTED[name]
    layer, site = part(model, path), block(model, 1)
    for which, expected in zip("qkv", parts(layer, layer.get_submodule(attention), site["resid_pre"]), strict=True):
        assert close(site[which], expected), which
    heads = [model.resolve(f"blocks.1.{which}")[0].heads for which in "qkv"]
    assert [site[which].shape[-1] // count for which, count in zip("qkv", heads, strict=True)] == [site["z"].shape[-1] // 4] * 3


def test_codegen_has_its_values_before_its_keys() -> None:
    """Four blocks of columns, each queries, values, keys: no list of layouts had it, what attention multiplies shows it."""
    from transformers import CodeGenConfig, CodeGenForCausalLM

    config = CodeGenConfig(n_embd=32, n_layer=2, n_head=8, n_positions=32, rotary_dim=2, **TOKENS)
    model = ix.load(seeded(lambda: CodeGenForCausalLM(config)))
    site, layer = block(model, 1), part(model, "transformer.h.{}")
    wide = layer.attn.qkv_proj(layer.ln_1(site["resid_pre"])).unflatten(-1, (4, 3, 8))
    for which, place in (("q", 0), ("v", 1), ("k", 2)):
        assert close(site[which], wide[..., place, :].flatten(2))


@pytest.mark.parametrize("name", ["Llama", "Qwen3"])
def test_rotary_positions_and_norms_come_after_the_queries_and_keys(name: str) -> None:
    """Attention by hand: the norms (where there are any) and the rotation applied to q and k as they were read."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    model = model_of(name)
    site, attention = block(model, 1), part(model, "model.layers.{}.self_attn")
    size = attention.head_dim
    q, k, v = (site[which].unflatten(-1, (-1, size)) for which in "qkv")
    if name == "Qwen3":
        q, k = attention.q_norm(q), attention.k_norm(k)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    cos, sin = part(model, "model.rotary_emb")(v, torch.arange(7)[None])
    q, k = apply_rotary_pos_emb(q, k, cos, sin)
    z = nn.functional.scaled_dot_product_attention(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), is_causal=True)
    assert close(z.transpose(1, 2).flatten(2), site["z"])


def test_notes_say_what_happens_to_queries_and_keys_before_they_meet() -> None:
    notes = {
        "GPT-2": "part of one fused projection, as attention reads them",
        "Llama": "before rotary positions",
        "Qwen3": "before their norm and before rotary positions",
        "OPT": "before the factor 0.5",
        "Falcon (grouped)": "part of one fused projection, before rotary positions",
        "BERT": "as attention reads them",
    }
    assert {name: model_of(name).resolve("blocks.1.q")[0].note for name in notes} == notes
    assert model_of("OPT").resolve("blocks.1.k")[0].note == "as attention reads them"


def test_each_run_of_alberts_one_layer_is_a_block() -> None:
    model = model_of("ALBERT")
    layer = part(model, "albert.encoder.albert_layer_groups.0.albert_layers.0")
    x = read(model, "embed")["embed"]
    for number in range(3):
        site = block(model, number)
        assert close(site["resid_pre"], x)
        assert close(layer.attention.query(x), site["q"])
        assert close(layer.attention.dense(site["z"]), site["attn_out"])
        assert close(layer.attention.LayerNorm(x + site["attn_out"]), site["resid_mid"])
        assert close(layer.ffn_output(site["mlp_act"]), site["mlp_out"])
        x = layer.full_layer_layer_norm(site["resid_mid"] + site["mlp_out"])
        assert close(site["resid_post"], x)


def test_an_edit_of_one_run_of_a_shared_layer_leaves_the_others() -> None:
    model = model_of("ALBERT")
    before = read(model, "blocks.*.attn_out")
    with ix.edit(model, "blocks.1.attn_out", ix.edits.scale(0.0)):
        after = read(model, "blocks.*.attn_out")
    assert torch.equal(after["blocks.0.attn_out"], before["blocks.0.attn_out"])
    assert not after["blocks.1.attn_out"].any()
    assert after["blocks.2.attn_out"].any()


def _mixture(module: Any, x: Tensor, logits: Tensor, *, renormalize: bool) -> Tensor:
    """Every expert on every token, weighted as the router's two best say."""
    chances = logits.softmax(-1)
    best = chances.topk(2, -1)
    weights = torch.zeros_like(chances).scatter(-1, best.indices, best.values)
    if renormalize:
        weights = weights / weights.sum(-1, keepdim=True)
    total = torch.zeros_like(x)
    for e in range(logits.shape[-1]):
        gate, up = nn.functional.linear(x, module.gate_up_proj[e]).chunk(2, -1)
        total += weights[..., e : e + 1] * nn.functional.linear(nn.functional.silu(gate) * up, module.down_proj[e])
    return total


@pytest.mark.parametrize(("name", "renormalize"), [("Mixtral", True), ("OLMoE", False), ("Qwen2-MoE", False)])
def test_router_logits_and_what_the_experts_add(name: str, renormalize: bool) -> None:
    model = model_of(name)
    for number in (1, 2):
        site, layer = block(model, number), part(model, "model.layers.{}", number)
        x = layer.post_attention_layernorm(site["resid_mid"])
        assert site["router"].shape == (3, 7, 4)
        assert close(x @ layer.mlp.gate.weight.T, site["router"])
        routed = _mixture(layer.mlp.experts, x, site["router"], renormalize=renormalize)
        if name == "Qwen2-MoE":
            assert close(routed, site["experts_out"])
            routed = routed + layer.mlp.shared_expert_gate(x).sigmoid() * layer.mlp.shared_expert(x)
        assert close(routed, site["mlp_out"])
        assert close(site["resid_mid"] + site["mlp_out"], site["resid_post"])


def test_an_edit_of_the_routed_experts_leaves_the_shared_one() -> None:
    """The site has stimuli and positions on one axis in the model, and on two in the edit."""
    model = model_of("Qwen2-MoE")
    layer = part(model, "model.layers.{}")
    with ix.edit(model, "blocks.1.experts_out", ix.edits.scale(0.0)):
        site = block(model, 1)
    x = layer.post_attention_layernorm(site["resid_mid"])
    assert close(layer.mlp.shared_expert_gate(x).sigmoid() * layer.mlp.shared_expert(x), site["mlp_out"])
    seen: list[tuple[int, ...]] = []
    with model.written([(model.resolve("blocks.1.router")[0], lambda x, moment: seen.append(tuple(x.shape)) or x)]):
        model.run(IDS)
    assert seen == [(3, 7, 4)]


def test_an_edit_of_opts_flattened_stream_reaches_its_end() -> None:
    model = model_of("OPT")
    direction = torch.ones(16)
    before = block(model, 1)
    with ix.edit(model, "blocks.1.resid_mid", ix.edits.add(direction, scale=2.0)):
        after = block(model, 1)
    assert close(after["resid_mid"], before["resid_mid"] + 2.0)
    assert close(after["resid_post"], after["resid_mid"] + after["mlp_out"])


@pytest.mark.parametrize("name", ["Mamba", "Mamba-2", "Falcon-Mamba"])
def test_a_state_space_block_adds_its_mixer(name: str) -> None:
    model = model_of(name)
    for number in (0, 2):
        site, layer = block(model, number), part(model, "backbone.layers.{}", number)
        assert set(site) == {"resid_pre", "mixer_out", "resid_post"}
        assert close(site["resid_pre"] + site["mixer_out"], site["resid_post"])
        assert close(layer.mixer(layer.norm(site["resid_pre"])), site["mixer_out"])


def test_blocks_of_a_hybrid_are_looked_into_one_by_one() -> None:
    model = model_of("Jamba")
    for number in range(4):
        site, layer = block(model, number), part(model, "model.layers.{}", number)
        mixed = site["attn_out" if number % 2 else "mixer_out"]
        assert close(site["resid_pre"] + mixed, site["resid_mid"])
        assert close(site["resid_mid"] + site["mlp_out"], site["resid_post"])
        assert ("router" in site) == (number % 2 == 1)
        if number % 2:
            assert close(layer.pre_ff_layernorm(site["resid_mid"]) @ layer.feed_forward.router.weight.T, site["router"])
            assert close(layer.self_attn.o_proj(site["z"]), site["attn_out"])
        else:
            assert close(layer.feed_forward.down_proj(site["mlp_act"]), site["mlp_out"])


def test_latent_attention_has_its_values_beside_parts_of_its_keys() -> None:
    model = model_of("DeepSeek-V3")
    site, layer = block(model, 1), part(model, "model.layers.{}")
    attention, x = layer.self_attn, layer.input_layernorm(site["resid_pre"])
    latent = attention.kv_a_layernorm(attention.kv_a_proj_with_mqa(x)[..., :8])
    assert close(attention.kv_b_proj(latent).unflatten(-1, (4, 8))[..., 4:].flatten(2), site["v"])
    assert close(attention.o_proj(site["z"]), site["attn_out"])
    y = layer.post_attention_layernorm(site["resid_mid"])
    assert close(site["experts_out"] + layer.mlp.shared_experts(y), site["mlp_out"])


def test_decoders_of_encoder_decoders_attend_twice() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(d_model=16, d_kv=4, d_ff=32, num_layers=3, num_heads=4, vocab_size=44, decoder_start_token_id=0)
    model = ix.load(seeded(lambda: T5ForConditionalGeneration(config)))
    got = read(model, "decoder.blocks.1.*", {**IDS, "decoder_input_ids": IDS["input_ids"][:, :4]})
    site = {name.rsplit(".", 1)[-1]: x for name, x in got.items()}
    layer = part(model, "decoder.block.{}.layer")
    assert close(site["resid_pre"] + site["attn_out"], site["resid_mid"])
    assert close(site["resid_mid"] + site["cross_attn_out"], site["resid_mid_cross"])
    assert close(site["resid_mid_cross"] + site["mlp_out"], site["resid_post"])
    assert close(layer[0].SelfAttention.q(layer[0].layer_norm(site["resid_pre"])), site["q"])
    assert close(layer[0].SelfAttention.o(site["z"]), site["attn_out"])
    assert model.resolve("decoder.blocks.1.hook_cross_attn_out") == model.resolve("decoder.blocks.1.cross_attn_out")


@pytest.mark.parametrize("name", ["Llama", "GPT-NeoX (parallel)", "BERT", "Mixtral"])
def test_huge_units_and_half_precision_hide_nothing(name: str) -> None:
    """A few units of the stream a thousand times as large as the rest, in bf16: every site is still where it is in fp32."""
    module = seeded(BY_NAME[name].make)
    table = next(part for part in module.modules() if isinstance(part, nn.Embedding))
    table.weight[:, 3] *= 1000.0
    half = ix.load(module.to(torch.bfloat16), name=name)
    places = {site.name: (site.path, site.port, site.layout) for site in model_of(name).resolve("**")}
    assert {site.name: (site.path, site.port, site.layout) for site in half.resolve("**")} == places


def test_what_is_scaled_before_it_is_added_has_no_site() -> None:
    from transformers import GraniteConfig, GraniteForCausalLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32}
    model = ix.load(seeded(lambda: GraniteForCausalLM(GraniteConfig(**sizes, **TOKENS, residual_multiplier=0.5))))
    with pytest.raises(SiteNotFoundError, match="multiplies what its GraniteAttention returns by a constant"):
        model.resolve("blocks.1.attn_out")
    site, layer = block(model, 1), part(model, "model.layers.{}")
    assert close(site["resid_pre"] + 0.5 * layer.self_attn.o_proj(site["z"]), site["resid_mid"])
    assert close(site["resid_mid"] + 0.5 * layer.mlp.down_proj(site["mlp_act"]), site["resid_post"])


def test_a_recurrence_that_reads_left_padding_gets_texts_of_one_length_together() -> None:
    from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 32, "lru_width": 16}
    kinds = ("recurrent", "recurrent", "attention")
    config = RecurrentGemmaConfig(**sizes, **TOKENS, attention_window_size=8, block_types=kinds)
    model = ix.load(seeded(lambda: RecurrentGemmaForCausalLM(config)))
    ids = [[4, 5, 6], [7, 8, 9, 10, 11, 12, 13], [14, 15, 16], [17]]
    sites = ["blocks.0.mixer_out", "blocks.2.attn_out", "blocks.2.resid_post"]
    alone = ix.capture(model, ids, sites, "all", batch_size=1, progress=False)
    for side, mixes in (("right", True), ("left", False)):
        store = ix.capture(model, ids, sites, "all", padding_side=side, progress=False)
        assert store.manifest.plan["input"]["mixes_lengths"] is mixes
        assert all(torch.allclose(store[site].torch(), alone[site].torch(), atol=1e-5) for site in sites)
