"""The networks of the zoo: shapes, padding, causality, and sizes counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import inscape as ix
from inscape.zoo import GPT, ByteTokenizer, DigitsCNN, DigitsMLP, DigitsViT, RecurrentLM

MAKES = {"gpt": lambda: GPT(258, d=16, layers=2, heads=2, context=12), "recurrent": lambda: RecurrentLM(258, d=16, layers=2)}


@pytest.fixture(params=sorted(MAKES))
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return MAKES[request.param]().double().eval()


def test_logits_have_one_row_per_token(model: nn.Module):
    assert model(torch.randint(0, 256, (3, 12))).shape == (3, 12, 258)


def test_a_token_does_not_see_what_follows(model: nn.Module):
    ids = torch.randint(0, 256, (2, 12))
    changed = ids.clone()
    changed[:, 7] = 0
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(model: nn.Module, side: str):
    ids = torch.randint(0, 256, (1, 7))
    gap, on, off = torch.full((1, 4), 256), torch.ones(1, 7, dtype=torch.long), torch.zeros(1, 4, dtype=torch.long)
    padded = torch.cat([gap, ids] if side == "left" else [ids, gap], dim=1)
    mask = torch.cat([off, on] if side == "left" else [on, off], dim=1)
    out = model(padded, attention_mask=mask)
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out[:, mask[0].bool()], model(ids), rtol=1e-12, atol=1e-12)


def test_positions_may_be_given():
    model = MAKES["gpt"]()
    ids = torch.randint(0, 256, (1, 4))
    assert torch.equal(model(ids), model(ids, position_ids=torch.arange(4)[None]))
    assert not torch.allclose(model(ids), model(ids, position_ids=torch.arange(4)[None] + 3))


def test_gpt_attention_is_the_softmax_of_the_textbook():
    torch.manual_seed(0)
    block = GPT(16, d=8, layers=1, heads=2, context=5).blocks[0].double()
    x = torch.randn(1, 5, 8, dtype=torch.float64)
    q, k, v = (part(x).view(5, 2, 4).transpose(0, 1) for part in (block.attn.q, block.attn.k, block.attn.v))
    scores = q @ k.transpose(1, 2) / 2  # sqrt(4)
    scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf"))
    z = (scores.softmax(-1) @ v).transpose(0, 1).reshape(1, 5, 8)
    torch.testing.assert_close(block.attn(x), block.attn.out(z), rtol=1e-12, atol=1e-12)


def test_the_head_is_the_embedding():
    for make in MAKES.values():
        model = make()
        assert model.head.weight is model.embed.weight


def test_number_of_parameters():
    d, layers, vocab, context = 16, 2, 258, 12
    # four projections of attention, up and down of the MLP, two norms a block
    block = 4 * (d * d + d) + (d * 4 * d + 4 * d) + (4 * d * d + d) + 4 * d
    expected = {"gpt": vocab * d + context * d + layers * block + 2 * d}
    # a norm, three gates that each read input and state with a bias for both, and the map back
    block = 2 * d + 3 * (2 * d * d + 2 * d) + (d * d + d)
    expected["recurrent"] = vocab * d + layers * block + 2 * d
    assert {name: sum(p.numel() for p in make().parameters()) for name, make in MAKES.items()} == expected


def test_a_recurrent_block_is_the_gru_of_the_textbook():
    torch.manual_seed(0)
    block = RecurrentLM(16, d=6, layers=1).blocks[0].double()
    x = torch.randn(1, 5, 6, dtype=torch.float64)
    (w_ir, w_iz, w_in), (w_hr, w_hz, w_hn) = block.gru.weight_ih_l0.chunk(3), block.gru.weight_hh_l0.chunk(3)
    (b_ir, b_iz, b_in), (b_hr, b_hz, b_hn) = block.gru.bias_ih_l0.chunk(3), block.gru.bias_hh_l0.chunk(3)
    h, states = torch.zeros(6, dtype=torch.float64), []
    for u in block.norm(x)[0]:
        r = torch.sigmoid(w_ir @ u + b_ir + w_hr @ h + b_hr)
        z = torch.sigmoid(w_iz @ u + b_iz + w_hz @ h + b_hz)
        n = torch.tanh(w_in @ u + b_in + r * (w_hn @ h + b_hn))
        h = (1 - z) * n + z * h
        states.append(h)
    torch.testing.assert_close(block(x), x + block.out(torch.stack(states))[None], rtol=1e-12, atol=1e-12)


def test_too_long_and_uneven():
    with pytest.raises(ValueError, match="the input has 13 tokens; this model was built for at most 12"):
        MAKES["gpt"]()(torch.zeros(1, 13, dtype=torch.long))
    with pytest.raises(ValueError, match="d=10 cannot be cut into 4 heads"):
        GPT(16, d=10)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (DigitsMLP, 4 * (64 * 64 + 64) + 650),  # 650: from 64 units to 10 digits
        (DigitsCNN, (9 + 1) * 16 + (16 * 9 + 1) * 32 + (32 * 9 + 1) * 64 + 650),
        (DigitsViT, (4 + 1) * 32 + 16 * 32 + 3 * (12 * 32 * 32 + 13 * 32) + 2 * 32 + 330),
    ],
)
def test_digit_networks(make: type[nn.Module], size: int):
    model = make().eval()
    assert sum(p.numel() for p in model.parameters()) == size
    images = torch.rand(5, 1, 8, 8)
    assert model(images).shape == (5, 10)
    torch.testing.assert_close(model(images)[2:3], model(images[2:3]), rtol=1e-4, atol=1e-5)


def test_vit_patches_attend_both_ways():
    torch.manual_seed(0)
    model = DigitsViT(d=8, layers=1, heads=2)
    x = torch.randn(1, 16, 8)
    changed = torch.cat([x[:, :-1], torch.randn(1, 1, 8)], dim=1)
    assert not torch.allclose(model.blocks[0](x)[:, 0], model.blocks[0](changed)[:, 0])


CANONICAL = {
    "gpt": {
        "embed": "blocks.0:in",
        "blocks.1.resid_post": "blocks.1",
        "blocks.0.attn_out": "blocks.0.attn",
        "blocks.1.mlp_out": "blocks.1.mlp",
    },
    "recurrent": {"embed": "blocks.0:in", "blocks.1.resid_post": "blocks.1"},
}


@pytest.mark.parametrize("name", sorted(CANONICAL))
def test_canonical_names_read_what_a_plain_hook_reads(name: str):
    torch.manual_seed(0)
    module = MAKES[name]().eval()
    ids = torch.randint(0, 256, (2, 6))
    wanted = {**CANONICAL[name], "final_norm": "norm"}
    plain: dict[str, torch.Tensor] = {}
    handles = []
    for site, path in wanted.items():
        part = module.get_submodule(path.removesuffix(":in"))
        if path.endswith(":in"):
            handles.append(part.register_forward_pre_hook(lambda _m, args, site=site: plain.update({site: args[0].clone()})))
        else:
            handles.append(part.register_forward_hook(lambda _m, _a, out, site=site: plain.update({site: out.clone()})))
    with torch.no_grad():
        module(ids)
    for handle in handles:
        handle.remove()
    model = ix.load(module, tokenizer=ByteTokenizer())
    read: dict[str, torch.Tensor] = {}
    with model.hooked(list(wanted), lambda site, value: read.update({site: value.clone()})):
        model.run({"input_ids": ids})
    assert set(read) == set(plain) == set(wanted)
    for site in wanted:
        assert torch.equal(read[site], plain[site]), site


def test_every_block_has_a_residual_stream():
    for name, make in MAKES.items():
        model = ix.load(make(), tokenizer=ByteTokenizer())
        assert [site.name for site in model.resolve("blocks.*.resid_post")] == ["blocks.0.resid_post", "blocks.1.resid_post"], name
