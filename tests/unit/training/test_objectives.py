"""Objectives, against NumPy on their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from inscape.errors import DegenerateInputError, StoreMismatchError, TooFewStimuliError
from inscape.training.objectives import (
    beta_schedule,
    decorrelation,
    local_dimension,
    objective,
    registered,
    sigma_reparam,
    stopped_similarity,
    variance_hinge,
    von_neumann_entropy,
)

X = np.random.default_rng(0).standard_normal((40, 6)) @ np.random.default_rng(1).standard_normal((6, 6))
ROWS = torch.from_numpy(X)


def test_von_neumann_entropy_by_definition():
    Z = X / np.linalg.norm(X, axis=1, keepdims=True)
    values = np.linalg.svd(Z, compute_uv=False) ** 2 / len(Z)
    assert float(von_neumann_entropy(ROWS)) == pytest.approx(-(values * np.log(values)).sum(), rel=1e-10)
    wide = ROWS[:4]
    Z = X[:4] / np.linalg.norm(X[:4], axis=1, keepdims=True)
    values = np.linalg.svd(Z, compute_uv=False) ** 2 / 4
    assert float(von_neumann_entropy(wide)) == pytest.approx(-(values * np.log(values)).sum(), rel=1e-10)


def test_decorrelation_by_numpys_correlations():
    r = np.corrcoef(X.T)
    assert float(decorrelation(ROWS)) == pytest.approx((r[~np.eye(6, dtype=bool)] ** 2).mean(), rel=1e-10)
    with pytest.raises(DegenerateInputError, match="at least 2 units"):
        decorrelation(ROWS[:, :1])


def test_variance_hinge_by_definition():
    expected = np.maximum(0, 2.5 - np.sqrt(X.var(0, ddof=1) + 1e-4)).mean()
    assert expected > 0
    assert float(variance_hinge(ROWS, 2.5)) == pytest.approx(expected, rel=1e-10)
    with pytest.raises(DegenerateInputError, match="least=0"):
        variance_hinge(ROWS, 0)


def test_stopped_similarity_by_definition():
    P, Z = X[:20], X[20:]
    cosines = (P * Z).sum(1) / np.linalg.norm(P, axis=1) / np.linalg.norm(Z, axis=1)
    assert float(stopped_similarity(ROWS[:20], ROWS[20:])) == pytest.approx(-cosines.mean(), rel=1e-10)
    with pytest.raises(StoreMismatchError, match="pairs of rows"):
        stopped_similarity(ROWS[:20], ROWS[:10])


def test_local_dimension_by_sorted_distances():
    k = 7
    logs = []
    for i, x in enumerate(X):
        r = np.sort(np.linalg.norm(np.delete(X, i, 0) - x, axis=1))[:k]
        logs.append(np.log(r.mean() / (r[-1] - r.mean())))
    assert float(local_dimension(ROWS, k)) == pytest.approx(-np.mean(logs), rel=1e-8)
    with pytest.raises(TooFewStimuliError, match="k=7 needs at least 8"):
        local_dimension(ROWS[:7], k)
    with pytest.raises(DegenerateInputError, match="k=1"):
        local_dimension(ROWS, 1)


def test_sigma_reparam_gives_the_spectral_norm_gamma():
    torch.manual_seed(0)
    layer = nn.Linear(6, 4).double()
    weight = layer.weight.detach().numpy().copy()
    sigma_reparam(layer)
    assert np.allclose(layer.weight.detach().numpy(), weight / np.linalg.svd(weight, compute_uv=False)[0], rtol=1e-10)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    for _ in range(300):  # the power iteration follows a weight that moves
        optimizer.zero_grad()
        (layer(ROWS) - 3 * ROWS[:, :4]).square().mean().backward()
        optimizer.step()
    norm = np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)[0]
    gamma = dict(layer.named_parameters())["parametrizations.weight.0.gamma"]
    assert norm == pytest.approx(abs(float(gamma.detach())), rel=1e-3) and norm > 1.5
    with pytest.raises(DegenerateInputError, match="no linear layer"):
        sigma_reparam(layer)
    zero = nn.Linear(2, 2)
    nn.init.zeros_(zero.weight)
    with pytest.raises(DegenerateInputError, match="all zero"):
        sigma_reparam(nn.Sequential(zero))


def norms(weight: torch.Tensor, count: int = 1) -> list[float]:
    return [float(np.linalg.svd(part, compute_uv=False)[0]) for part in np.split(weight.detach().numpy(), count)]


@pytest.mark.parametrize("widths", [{}, {"kdim": 6, "vdim": 10}], ids=["one weight", "three weights"])
def test_sigma_reparam_reaches_the_projections_of_torchs_attention(widths: dict[str, int]):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True, **widths).double()
    names = ["q_proj_weight", "k_proj_weight", "v_proj_weight"] if widths else ["in_proj_weight"]
    before = {name: getattr(attention, name).detach().clone() for name in names}
    assert sigma_reparam(attention) is attention
    for name in names:
        count = 1 if widths else 3
        expected = np.concatenate([w / np.linalg.svd(w, compute_uv=False)[0] for w in np.split(before[name].numpy(), count)])
        assert np.allclose(getattr(attention, name).detach().numpy(), expected, rtol=1e-10)
        assert norms(getattr(attention, name), count) == pytest.approx([1.0] * count)
    assert norms(attention.out_proj.weight) == pytest.approx([1.0])
    q, k, v = (
        torch.randn(2, 5, 8).double(),
        torch.randn(2, 7, widths.get("kdim", 8)).double(),
        torch.randn(2, 7, widths.get("vdim", 8)).double(),
    )
    state = {name: value.clone() for name, value in attention.eval().state_dict().items()}
    with torch.no_grad():  # torch's fast path
        fast = attention(q, k, v, need_weights=False)[0]
    assert torch.allclose(fast, attention(q, k, v)[0], atol=1e-12)
    assert all(torch.equal(value, state[name]) for name, value in attention.state_dict().items())
    attention.train()
    optimizer = torch.optim.SGD(attention.parameters(), lr=0.2)
    for _ in range(100):
        optimizer.zero_grad()
        (attention(q, k, v)[0] - 2 * q).square().mean().backward()
        optimizer.step()
    for _ in range(100):  # the power iteration comes to rest once the weights do
        attention(q, k, v)
    assert all(parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()) for parameter in attention.parameters())
    for name in names:
        gamma = dict(attention.named_parameters())[f"parametrizations.{name}.0.gamma"].detach().abs().flatten().tolist()
        assert norms(getattr(attention, name), len(gamma)) == pytest.approx(gamma, rel=1e-4)
    with pytest.raises(DegenerateInputError, match="no linear layer"):
        sigma_reparam(attention)


def test_sigma_reparam_reaches_gpt2s_layers_and_refuses_its_tied_embedding():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DegenerateInputError, match=r"transformer\.wte\.weight and lm_head\.weight are one tied weight"):
        sigma_reparam(model)
    assert list(model.state_dict()) == list(before)  # nothing was changed
    sigma_reparam(model.transformer)
    block = model.transformer.h[0]
    layers = [block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj]
    assert [norms(layer.weight) for layer in layers] == [[pytest.approx(1.0, rel=1e-5)]] * 4
    model(torch.arange(8)[None], labels=torch.arange(8)[None]).loss.backward()
    assert all(parameter.grad is not None for parameter in block.parameters())


def test_sigma_reparam_changes_nothing_where_it_refuses():
    pair = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    pair[1].weight = pair[0].weight
    with pytest.raises(DegenerateInputError, match=r"0\.weight and 1\.weight are one tied weight"):
        sigma_reparam(pair)
    late = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    nn.init.zeros_(late[1].weight)
    with pytest.raises(DegenerateInputError, match="weights of 1 are all zero"):
        sigma_reparam(late)
    assert isinstance(late[0].weight, nn.Parameter)


def test_beta_schedule_by_hand():
    assert [beta_schedule(step, 8, 2.0) for step in range(10)] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert [beta_schedule(step, 8, cycles=2, rising=1.0) for step in range(8)] == [0.0, 0.25, 0.5, 0.75, 0.0, 0.25, 0.5, 0.75]


def test_the_registry_knows_facts_and_refuses_what_has_none():
    assert registered()["decorrelation"].improves == "effective_rank"
    with pytest.raises(ValueError, match="kinds are"):
        objective("word", source="nobody")
    with pytest.raises(ValueError, match="source"):
        objective("rows", source="")
