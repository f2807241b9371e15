"""Canonical names mean the same tensor in every family: checked by the equations of the residual stream."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import inscape as ix
from inscape.errors import SiteNotFoundError

PRE_NORM = ["gpt2", "llama", "vit", "wav2vec2_layer", "plain_gpt"]
POST_NORM = ["bert", "wav2vec2_group"]
BLOCK = ["resid_pre", "q", "k", "v", "z", "attn_out", "resid_mid", "mlp_act", "mlp_out", "resid_post"]


def batch_for(model: ix.Model) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    if model.modality == "image":
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator)}
    if model.modality == "audio":
        return {"input_values": torch.randn(2, 60, generator=generator)}
    ids = torch.randint(0, 50, (2, 7), generator=generator)
    return {"ids": ids} if type(model.module).__name__ == "PlainGPT" else {"input_ids": ids}


def read(model: ix.Model, sites: Any, batch: Any = None, **options: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    with model.hooked(sites, lambda name, x: found.__setitem__(name, x.clone())):
        model.run(batch_for(model) if batch is None else batch, **options)
    return found


def is_equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", PRE_NORM)
def test_pre_norm_streams_add_up(name: str, request: pytest.FixtureRequest) -> None:
    model = ix.load(request.getfixturevalue(name))
    got = read(model, "blocks.*.*")
    assert sorted(got) == sorted(f"blocks.{i}.{site}" for i in range(3) for site in BLOCK)
    for i in range(3):
        site = {part: got[f"blocks.{i}.{part}"] for part in BLOCK}
        assert is_equal(site["resid_mid"] - site["resid_pre"], site["attn_out"])
        assert is_equal(site["resid_post"] - site["resid_mid"], site["mlp_out"])
        if i:
            assert torch.equal(site["resid_pre"], got[f"blocks.{i - 1}.resid_post"])


@pytest.mark.parametrize("name", POST_NORM)
def test_post_norm_streams_are_normalized_sums(name: str, request: pytest.FixtureRequest) -> None:
    module: Any = request.getfixturevalue(name)
    got = read(ix.load(module), "blocks.*.*")
    for i in range(3):
        layer = module.encoder.layer[i] if name == "bert" else module.encoder.layers[i]
        norm1 = layer.attention.output.LayerNorm if name == "bert" else layer.layer_norm
        norm2 = layer.output.LayerNorm if name == "bert" else layer.final_layer_norm
        site = {part: got[f"blocks.{i}.{part}"] for part in BLOCK}
        assert is_equal(norm1(site["resid_pre"] + site["attn_out"]), site["resid_mid"])
        assert is_equal(norm2(site["resid_mid"] + site["mlp_out"]), site["resid_post"])


def output_projection(module: Any, name: str) -> nn.Module:
    return {
        "gpt2": lambda: module.transformer.h[1].attn.c_proj,
        "llama": lambda: module.model.layers[1].self_attn.o_proj,
        "bert": lambda: module.encoder.layer[1].attention.output.dense,
        "vit": lambda: module.layers[1].attention.o_proj,
        "wav2vec2_layer": lambda: module.encoder.layers[1].attention.out_proj,
        "wav2vec2_group": lambda: module.encoder.layers[1].attention.out_proj,
        "plain_gpt": lambda: module.layers[1].attn["proj"],
    }[name]()


@pytest.mark.parametrize("name", PRE_NORM + POST_NORM)
def test_z_times_output_weight_is_attn_out(name: str, request: pytest.FixtureRequest) -> None:
    module = request.getfixturevalue(name)
    got = read(ix.load(module), ["blocks.1.z", "blocks.1.attn_out"])
    assert is_equal(output_projection(module, name)(got["blocks.1.z"]), got["blocks.1.attn_out"])


@pytest.mark.parametrize("name", ["gpt2", "bert", "vit", "wav2vec2_layer", "wav2vec2_group", "plain_gpt"])
def test_attention_from_q_k_v_is_z(name: str, request: pytest.FixtureRequest) -> None:
    """Heads lie side by side in q, k, v and z: attention computed by hand from them gives z (families without rotary positions)."""
    got = read(ix.load(request.getfixturevalue(name)), "blocks.2.*")
    q, k, v = (got[f"blocks.2.{part}"].unflatten(-1, (4, 4)).transpose(1, 2) for part in "qkv")
    scores = q @ k.transpose(-1, -2) / 2.0
    if name in ("gpt2", "plain_gpt"):
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
    z = (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2)
    assert is_equal(z, got["blocks.2.z"])


def test_grouped_keys_of_llama(llama: nn.Module) -> None:
    """The first token attends only to itself, so its z is its value, each key-value head serving two query heads."""
    model = ix.load(llama)
    got = read(model, "blocks.0.*")
    assert got["blocks.0.k"].shape == (2, 7, 8)
    v = got["blocks.0.v"][:, 0].unflatten(-1, (2, 4)).repeat_interleave(2, 1).flatten(-2)
    assert is_equal(v, got["blocks.0.z"][:, 0])
    assert [site.heads for site in model.resolve(["blocks.0.q", "blocks.0.k"])] == [4, 2]


def test_mlp_act_is_what_the_down_projection_reads(gpt2: Any, llama: Any) -> None:
    got = read(ix.load(gpt2), ["blocks.1.resid_mid", "blocks.1.mlp_act"])
    block = gpt2.transformer.h[1]
    assert is_equal(block.mlp.act(block.mlp.c_fc(block.ln_2(got["blocks.1.resid_mid"]))), got["blocks.1.mlp_act"])
    got = read(ix.load(llama), ["blocks.1.resid_mid", "blocks.1.mlp_act"])
    layer = llama.model.layers[1]
    x = layer.post_attention_layernorm(got["blocks.1.resid_mid"])
    assert is_equal(nn.functional.silu(layer.mlp.gate_proj(x)) * layer.mlp.up_proj(x), got["blocks.1.mlp_act"])


def test_embed_final_norm_and_logits(gpt2: Any) -> None:
    model = ix.load(gpt2)
    batch = batch_for(model)
    got = read(model, ["embed", "blocks.-1.resid_post", "final_norm", "logits"], batch)
    positions = gpt2.transformer.wpe(torch.arange(7))
    assert torch.equal(got["embed"], gpt2.transformer.wte(batch["input_ids"]) + positions)
    assert torch.equal(got["final_norm"], gpt2.transformer.ln_f(got["blocks.2.resid_post"]))
    assert torch.equal(got["logits"], gpt2(**batch).logits)


@pytest.mark.parametrize("name", PRE_NORM + POST_NORM)
def test_equals_a_hand_written_hook_bit_for_bit(name: str, request: pytest.FixtureRequest) -> None:
    module = request.getfixturevalue(name)
    model = ix.load(module)
    site = model.resolve("blocks.1.resid_post")[0]
    kept: list[torch.Tensor] = []
    handle = module.get_submodule(site.path).register_forward_hook(
        lambda m, a, o: kept.append((o if isinstance(o, torch.Tensor) else o[0]).clone())
    )
    with torch.no_grad():
        model.run(batch_for(model))
    handle.remove()
    assert torch.equal(read(model, [site])["blocks.1.resid_post"], kept[0])


def test_transformer_lens_names(gpt2: nn.Module, llama: Any) -> None:
    model = ix.load(gpt2)
    pairs = {
        "blocks.1.hook_resid_pre": "blocks.1.resid_pre",
        "blocks.1.hook_resid_mid": "blocks.1.resid_mid",
        "blocks.1.attn.hook_z": "blocks.1.z",
        "blocks.1.mlp.hook_post": "blocks.1.mlp_act",
        "ln_final.hook_normalized": "final_norm",
    }
    for alias, canonical in pairs.items():
        assert model.resolve(alias) == model.resolve(canonical)
    assert [site.name for site in model.resolve("blocks.*.hook_resid_post")] == [f"blocks.{i}.resid_post" for i in range(3)]
    assert model.resolve("hook_embed")[0].path == "transformer.wte"  # TransformerLens's has no positions
    assert ix.load(llama).resolve("hook_embed")[0].path == "model.embed_tokens"


def test_unknown_and_unavailable_names(gpt2: nn.Module, bert: nn.Module) -> None:
    with pytest.raises(
        SiteNotFoundError, match=r"unknown site 'blocks.1.resid_pots'; nearest: 'blocks.1.resid_post', .*, .*model.sites\(\) lists"
    ):
        ix.load(gpt2).resolve("blocks.1.resid_pots")
    with pytest.raises(SiteNotFoundError, match="no site 'logits': the model was loaded without a head"):
        ix.load(bert).resolve("logits")
    with pytest.raises(SiteNotFoundError, match="no site 'final_norm': no norm follows the last block"):
        ix.load(bert).resolve("final_norm")
    with pytest.raises(SiteNotFoundError, match=r"unknown site 'blocks.9.resid_post'"):
        ix.load(gpt2).resolve("blocks.9.resid_post")


def test_a_list_of_modules_is_no_site(gpt2: nn.Module) -> None:
    with pytest.raises(
        SiteNotFoundError, match="'transformer.h' is a list of modules, which itself never runs; name a member, such as 'transformer.h.0'"
    ):
        ix.load(gpt2).resolve("transformer.h")


def test_a_module_with_a_canonical_name() -> None:
    """`embed` means the same in every model; the module that happens to be called so is `embed:out`."""
    from inscape.zoo.gpt import GPT

    model = ix.load(GPT(vocab=50, d=16, layers=1, heads=2, context=8))
    got = read(model, ["embed", "embed:out"], {"input_ids": torch.arange(3)[None]})
    assert torch.allclose(got["embed"] - got["embed:out"], model.module.get_submodule("pos").weight[:3], atol=1e-6)
    assert len(model.sites().names) == len(set(model.sites().names))


def test_globs_stay_within_a_part(gpt2: nn.Module) -> None:
    model = ix.load(gpt2)
    assert [site.name for site in model.resolve("transformer.h.*")] == ["transformer.h.0", "transformer.h.1", "transformer.h.2"]
    assert [site.name for site in model.resolve("transformer.**.c_fc")] == [f"transformer.h.{i}.mlp.c_fc" for i in range(3)]
    assert [site.name for site in model.resolve("blocks.[02].z")] == ["blocks.0.z", "blocks.2.z"]


def test_table_lists_everything(gpt2: nn.Module) -> None:
    table = ix.load(gpt2).sites()
    rows = {row.name: row for row in table}
    assert rows["blocks.0.q"].path == "transformer.h.0.attn.c_attn"
    assert rows["blocks.0.q"].shape == (2, 6, 16)
    assert rows["transformer.h.0.attn.c_attn"].shape == (2, 6, 48)
    assert rows["logits"].shape == (2, 6, 50)
    assert rows["blocks.0.z"].alias == "blocks.0.attn.hook_z"
    assert "transformer.h" not in rows  # a list is no module that runs
    text, page = repr(table), table._repr_html_()
    assert "blocks.0 … 2" in text and "├── resid_mid" in text
    assert "transformer.h.0 … 2" in text and ".ln_2:in" in text
    assert "shapes are for token ids of shape (2, 6)" in text
    assert "<td>blocks.0.resid_mid</td>" in page
    missing = {row.name: row for row in ix.load(gpt2.transformer).sites()}["logits"]
    assert not missing.available
    assert missing.note == "the model was loaded without a head"


def test_trunk_only_knows_what_needs_the_head(gpt2: nn.Module) -> None:
    model = ix.load(gpt2)
    assert model.has_trunk
    assert [site.needs_logits for site in model.resolve(["embed", "final_norm", "logits", "lm_head"])] == [False, False, True, True]
    got = read(model, ["final_norm", "logits"], trunk_only=True)
    assert list(got) == ["final_norm"]
    assert torch.equal(got["final_norm"], read(model, "final_norm")["final_norm"])
