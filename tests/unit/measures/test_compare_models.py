"""Two models, or several, in one call: layers, units and heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.errors import StimuliError, StoreMismatchError
from inscape.zoo import GPT, ByteTokenizer

TEXTS = [f"the {word} is {i} miles away" for i, word in enumerate("red blue green old new big cold warm dark light far near".split() * 2)]
SITES = ["blocks.*.resid_post", "blocks.0.mlp_act", "blocks.*.attn_pattern|entropy"]


def gpt(seed: int, name: str | None = None, d: int = 16, layers: int = 2) -> ix.Model:
    torch.manual_seed(seed)
    return ix.load(GPT(258, d=d, layers=layers, heads=2, context=48).eval(), tokenizer=ByteTokenizer())


def test_layers_units_and_heads_of_two_models_in_one_call() -> None:
    a, b = gpt(0), gpt(1, d=24, layers=3)
    result = ix.compare(a, b, ["linear_cka_debiased", "neuron_match"], stimuli=TEXTS, sites=SITES, pairs="kind", interval=None)
    rows = result.where(measure="neuron_match").rows()
    kinds = {(row["site"].split(".")[-1], row["site_b"].split(".")[-1]) for row in rows}
    assert kinds == {("resid_post", "resid_post"), ("mlp_act", "mlp_act"), ("attn_pattern|entropy", "attn_pattern|entropy")}
    assert len(rows) == 2 * 3 + 1 + 2 * 3
    stores = [ix.capture(model, TEXTS, sites=SITES) for model in (a, b)]
    for site, other in (("blocks.1.resid_post", "blocks.2.resid_post"), ("blocks.0.attn_pattern|entropy", "blocks.1.attn_pattern|entropy")):
        alone = ix.measures.neuron_match(stores[0][site].numpy(), stores[1][other].numpy())
        assert result.value(measure="neuron_match", site=site, site_b=other) == pytest.approx(alone, abs=1e-6)
    assert all(system["path"] is None for system in result.settings["systems"])
    assert {row["system"] for row in rows} | {row["system_b"] for row in rows} == {"GPT 1", "GPT 2"}


def test_heads_are_matched_by_their_attention_maps() -> None:
    model = gpt(2)
    swapped = gpt(2)
    attention = swapped.module.blocks[0].attn
    order = torch.cat([torch.arange(8, 16), torch.arange(8)])  # the two heads change places
    with torch.no_grad():
        for part in (attention.q, attention.k, attention.v):
            part.weight.copy_(part.weight[order])
            part.bias.copy_(part.bias[order])
        attention.out.weight.copy_(attention.out.weight[:, order])
    site = "blocks.0.attn_pattern|entropy"
    stores = [ix.capture(one, TEXTS, sites=site) for one in (model, swapped)]
    matched = ix.measures.match_units(*stores)
    assert matched.arrays["partner/0"].tolist() == [1, 0] and matched.arrays["r/0"] == pytest.approx(1, abs=1e-5)


def test_many_models_and_a_model_beside_a_store() -> None:
    a, b = gpt(0), gpt(1)
    store = ix.capture(b, TEXTS, sites="blocks.1.resid_post", label="kept")
    result = ix.compare({"a": a, "b": b, "kept": store}, None, "linear_cka", stimuli=TEXTS, sites="blocks.1.resid_post", interval=None)
    assert result.value(system="b", system_b="kept") == pytest.approx(1, abs=1e-6) and result.kind == "systems"
    mixed = ix.compare(a, store, "linear_cka", stimuli=TEXTS, sites="blocks.1.resid_post", interval=None)
    assert mixed.value() == pytest.approx(result.value(system="a", system_b="kept"), abs=1e-6)
    same = ix.compare(a, a, "linear_cka", stimuli=TEXTS, interval=None)
    assert same.value(site="blocks.0.resid_post", site_b="blocks.0.resid_post") == pytest.approx(1)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(StimuliError, match="needs stimuli="):
        ix.compare(gpt(0), gpt(1), "linear_cka")
    X = np.random.default_rng(0).standard_normal((10, 3))
    with pytest.raises(StimuliError, match="neither side is one"):
        ix.compare(X, X, "linear_cka", stimuli=TEXTS)
    with pytest.raises(StoreMismatchError, match="names differ in numbers alone"):
        ix.compare({"early.0": X}, {"late.0": X}, "linear_cka", pairs="kind")
