"""Block shapes beyond the plain ones: parallel branches, norms on both sides, encoders beside decoders, real trained weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import inscape as ix
from inscape.errors import SiteNotFoundError
from tests.unit.models.conftest import SMALL, TOKENS, seeded

IDS = {"input_ids": torch.arange(2, 16).reshape(2, 7)}


def read(model: ix.Model, sites: Any, batch: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    with model.hooked(sites, lambda name, x: found.__setitem__(name, x.clone())):
        model.run(batch)
    return found


def adds_up(got: dict[str, Tensor], block: int = 1) -> bool:
    site = {name.rsplit(".", 1)[-1]: x for name, x in got.items() if name.startswith(f"blocks.{block}.")}
    first = torch.allclose(site["resid_mid"] - site["resid_pre"], site["attn_out"], atol=1e-4)
    return first and torch.allclose(site["resid_post"] - site["resid_mid"], site["mlp_out"], atol=1e-4)


def test_parallel_branches_have_no_stream_between_them() -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    model = ix.load(seeded(lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL, **TOKENS))))
    with pytest.raises(SiteNotFoundError, match="attention and MLP both read the block's input, so there is no stream between them"):
        model.resolve("blocks.0.resid_mid")
    got = read(model, "blocks.1.*", IDS)
    assert torch.allclose(
        got["blocks.1.resid_pre"] + got["blocks.1.attn_out"] + got["blocks.1.mlp_out"], got["blocks.1.resid_post"], atol=1e-4
    )
    fused = model.module.get_submodule("gpt_neox.layers.1.attention.query_key_value")
    norm = model.module.get_submodule("gpt_neox.layers.1.input_layernorm")
    heads = fused(norm(got["blocks.1.resid_pre"])).unflatten(-1, (4, 12))  # head by head: query, key, value
    for i, name in enumerate("qkv"):
        assert torch.allclose(got[f"blocks.1.{name}"], heads[..., 4 * i : 4 * i + 4].flatten(-2), atol=1e-5)


def test_norms_on_both_sides_of_a_branch() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    model = ix.load(seeded(lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=4, **TOKENS))))
    got = read(model, ["blocks.1.*", "logits"], IDS)
    assert adds_up(got)
    assert torch.equal(got["logits"], model.run(IDS).logits)  # after the soft cap: what the model returns


def test_the_encoder_is_meant_where_there_is_also_a_decoder() -> None:
    from transformers import T5Config, T5Model

    config = T5Config(d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, vocab_size=50, decoder_start_token_id=0)
    model = ix.load(seeded(lambda: T5Model(config)))
    assert model.resolve("blocks.1.resid_post")[0].path == "encoder.block.1"
    batch = {**IDS, "decoder_input_ids": torch.zeros(2, 1, dtype=torch.long)}
    assert adds_up(read(model, "blocks.1.*", batch))
    assert read(model, "decoder.block.0", batch)["decoder.block.0"].shape == (2, 1, 16)


@pytest.mark.data
@pytest.mark.parametrize("folder", ["tiny-shakespeare-gpt/step1024", "stories260k/hf"])
def test_trained_models(folder: str) -> None:
    data = os.environ.get("INSCAPE_DATA")
    if not data:
        assert not os.environ.get("INSCAPE_REQUIRE_DATA"), "INSCAPE_REQUIRE_DATA is set, but INSCAPE_DATA is not"
        pytest.skip("INSCAPE_DATA is not set")
    model = ix.load(Path(data) / "models" / folder)
    assert all(row.available for row in model.sites())
    assert adds_up(read(model, "blocks.1.*", IDS))
