"""The gradients written by hand equal those of autograd on the same loss, in fp64, for every kind that is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import inscape as ix
from inscape.dictionaries.core import Moment
from inscape.dictionaries.trained import auxiliary_count

D, M, B = 10, 24, 40
D_ = ix.dictionaries


def start(recipe: Any, d: int = D, out: int = D) -> dict[str, Tensor]:
    """Tensors off every symmetry: offsets, unequal encoder and decoder."""
    p = {name: value.double() for name, value in recipe.start(d, out, torch.Generator().manual_seed(3)).items()}
    for name in p:
        p[name] += 0.3 * torch.randn(p[name].shape, dtype=torch.float64)
    return p


def rows(d: int = D) -> Tensor:
    return torch.randn(B, d, dtype=torch.float64)


def moment(dead: Tensor | None = None, step: int = 50) -> Moment:
    return Moment(step, 100, torch.zeros(M, dtype=torch.bool) if dead is None else dead, B)


def compare(recipe: Any, loss: Callable[[dict[str, Tensor]], Tensor], p: dict[str, Tensor], learned: Any) -> None:
    """Every gradient, and the value of the loss."""
    leaves = {name: value.clone().requires_grad_() for name, value in p.items()}
    value = loss(leaves)
    value.backward()
    assert float(learned.error + learned.extra) == pytest.approx(float(value.detach()), rel=1e-10)
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        assert float(leaf.grad.abs().max()) > 0, f"{name} gets no gradient"
        torch.testing.assert_close(learned.gradients[name], leaf.grad, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


def activations(p: dict[str, Tensor], x: Tensor) -> Tensor:
    return (x - p["b_dec"]) @ p["encoder"].T + p["b_enc"]


def mean_square(z: Tensor, p: dict[str, Tensor], y: Tensor) -> Tensor:
    return (z @ p["decoder"] + p["b_dec"] - y).square().mean()


def largest(a: Tensor, k: int) -> Tensor:
    """relu of the k largest of each row."""
    return torch.zeros_like(a).scatter(1, a.topk(k).indices, 1.0) * a.clamp(min=0)


@pytest.mark.parametrize("k", [3, 20])
def test_top_k_also_where_rows_have_fewer_than_k_positive_activations(k: int) -> None:
    recipe = D_.TopK(width=M, k=k)
    p, x = start(recipe), rows()
    p["b_enc"] -= 1.0
    if k == 20:
        assert int((activations(p, x) > 0).sum(1).max()) < k
    compare(recipe, lambda q: mean_square(largest(activations(q, x), k), q, x), p, recipe.learn(p, x, x, moment()))


def test_coarse_choices_have_exact_strengths() -> None:
    recipe = D_.TopK(width=M, k=5, coarse=True)
    p, x = start(recipe), rows()
    exact, codes = activations(p, x), recipe.choose(p, x, moment())
    torch.testing.assert_close(codes.values, exact[codes.rows, codes.indices].clamp(min=0))
    chosen = torch.zeros(B, M, dtype=torch.bool)
    chosen[codes.rows, codes.indices] = True
    best = torch.zeros(B, M, dtype=torch.bool).scatter(1, exact.topk(5).indices, True)
    assert float((chosen == best).double().mean()) > 0.99
    q = {name: value.clone().requires_grad_() for name, value in p.items()}
    mean_square(activations(q, x).clamp(min=0) * chosen, q, x).backward()
    learned = recipe.learn(p, x, x, moment())
    for name, leaf in q.items():
        torch.testing.assert_close(learned.gradients[name], leaf.grad)


@pytest.mark.parametrize("count", [3, 12])
def test_the_auxiliary_loss_reaches_encoder_and_decoder(count: int) -> None:
    """More dead features than take part for a row, and fewer; dead features are not among the chosen ones."""
    recipe = D_.TopK(width=M, k=3, auxiliary=0.5)
    p, x = start(recipe), rows()
    dead = torch.zeros(M, dtype=torch.bool)
    dead[torch.arange(1, 2 * count, 2)] = True
    k = auxiliary_count(D)
    assert k == 4

    def loss(q: dict[str, Tensor]) -> Tensor:
        a = activations(q, x)
        z = largest(a, 3)
        error = z @ q["decoder"] + q["b_dec"] - x
        left = -error.detach()
        silent = torch.where(dead, a, -torch.inf)
        silent = torch.where(dead, torch.zeros_like(a).scatter(1, silent.topk(min(k, count)).indices, 1.0) * a.clamp(min=0), 0.0)
        miss = silent @ q["decoder"] - left
        return error.square().mean() + 0.5 * min(count / k, 1) * miss.square().sum() / (left - left.mean(0)).square().sum()

    learned = recipe.learn(p, x, x, moment(dead))
    compare(recipe, loss, p, learned)
    plain = D_.TopK(width=M, k=3, auxiliary=0.0).learn(p, x, x, moment(dead))
    for name in ("encoder", "decoder", "b_enc"):
        assert float((learned.gradients[name] - plain.gradients[name])[dead].abs().max()) > 1e-4


def test_batch_top_k() -> None:
    recipe = D_.BatchTopK(width=M, k=3)
    p, x = start(recipe), rows()

    def loss(q: dict[str, Tensor]) -> Tensor:
        a = activations(q, x).clamp(min=0)
        kept = torch.zeros(a.numel(), dtype=a.dtype).scatter(0, a.flatten().topk(3 * B).indices, 1.0).view_as(a)
        return mean_square(a * kept, q, x)

    learned = recipe.learn(p, x, x, moment())
    assert int((learned.codes.values > 0).sum()) == 3 * B
    compare(recipe, loss, p, learned)


def test_batch_top_k_finds_the_same_entries_from_any_guess() -> None:
    recipe = D_.BatchTopK(width=M, k=2)
    p, x = start(recipe), rows()
    expected = recipe.choose(p, x, moment())
    for guess in (0.0, 0.5, 3.0, 100.0):
        at = moment()
        at.kept["threshold"] = torch.tensor(guess)
        found = recipe.choose(p, x, at)
        assert torch.equal(found.torch(), expected.torch())


def test_matryoshka_is_the_mean_over_prefixes() -> None:
    prefixes = (4, 9, M)
    recipe = D_.Matryoshka(width=M, k=3, prefixes=prefixes)
    p, x = start(recipe), rows()

    def loss(q: dict[str, Tensor]) -> Tensor:
        a = activations(q, x).clamp(min=0)
        kept = torch.zeros(a.numel(), dtype=a.dtype).scatter(0, a.flatten().topk(3 * B).indices, 1.0).view_as(a)
        z = a * kept
        parts = [(z[:, :m] @ q["decoder"][:m] + q["b_dec"] - x).square().mean() for m in prefixes]
        return torch.stack(parts).mean()

    compare(recipe, loss, p, recipe.learn(p, x, x, moment()))


@pytest.mark.parametrize("offset", [0.0, -2.5])
def test_relu_with_dense_and_with_sparse_codes(offset: float) -> None:
    """Half of the features are active at first, few later: the two routes to the same gradients."""
    recipe = D_.ReLU(width=M, l1=2.0)
    p, x = start(recipe), rows()
    p["b_enc"] += offset

    def loss(q: dict[str, Tensor]) -> Tensor:
        z = activations(q, x).clamp(min=0)
        return mean_square(z, q, x) + 2.0 * z.sum() / (B * D)

    learned = recipe.learn(p, x, x, moment())
    assert (len(learned.codes.indices) > 0.3 * B * M) == (offset == 0)
    leaves = {name: value.clone().requires_grad_() for name, value in p.items()}
    loss(leaves).backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(learned.gradients[name], leaf.grad, rtol=1e-9, atol=1e-12)


def test_gated() -> None:
    recipe = D_.Gated(width=M, l1=2.0)
    p, x = start(recipe), rows()

    def loss(q: dict[str, Tensor]) -> Tensor:
        given = (x - q["b_dec"]) @ q["encoder"].T
        gate = (given + q["b_enc"]).clamp(min=0)
        z = (gate > 0) * (q["r_mag"].exp() * given + q["b_mag"]).clamp(min=0)
        frozen = (gate @ q["decoder"].detach() + q["b_dec"].detach() - x).square().mean()
        return mean_square(z, q, x) + frozen + 2.0 * gate.sum() / (B * D)

    compare(recipe, loss, p, recipe.learn(p, x, x, moment()))


class _Jump(torch.autograd.Function):
    """z = a [a > θ] with the paper's straight-through gradient by θ."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, theta: Tensor, width: float, value: bool) -> Tensor:
        ctx.save_for_backward(a, theta)
        ctx.width, ctx.value = width, value
        return a * (a > theta) if value else (a > theta).to(a.dtype)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        a, theta = ctx.saved_tensors
        inside = ((a - theta).abs() < ctx.width / 2).to(a.dtype) / ctx.width
        by_theta = (-(theta if ctx.value else 1.0) * inside * slopes[0]).sum(0)
        return slopes[0] * (a > theta) if ctx.value else None, by_theta, None, None


def test_jump_relu_uses_the_rectangle_of_the_paper() -> None:
    recipe = D_.JumpReLU(width=M, l0=3, penalty=0.7, bandwidth=0.8)
    p, x = start(recipe), rows()

    def loss(q: dict[str, Tensor]) -> Tensor:
        a, theta = activations(q, x), q["log_threshold"].exp()
        l0 = _Jump.apply(a, theta, 0.8, False).sum() / B
        return mean_square(_Jump.apply(a, theta, 0.8, True), q, x) + 0.7 * (l0 / 3 - 1) ** 2

    compare(recipe, loss, p, recipe.learn(p, x, x, moment()))


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    """What processes sum: gradients of the halves, each told the size of the whole batch."""
    recipe = D_.TopK(width=M, k=3)
    p, x = start(recipe), rows()
    whole = recipe.learn(p, x, x, moment())
    halves = [recipe.learn(p, part, part, moment()) for part in x.split(B // 2)]
    for name, gradient in whole.gradients.items():
        torch.testing.assert_close(sum(half.gradients[name] for half in halves), gradient)


def test_a_transcoder_with_a_linear_path() -> None:
    recipe = D_.Transcoder(width=M, k=3, skip=True)
    p, x, y = start(recipe, D, 7), rows(), rows(7)

    def loss(q: dict[str, Tensor]) -> Tensor:
        z = largest(x @ q["encoder"].T + q["b_enc"], 3)
        return (z @ q["decoder"] + q["b_dec"] + x @ q["W_skip"] - y).square().mean()

    compare(recipe, loss, p, recipe.learn(p, x, y, moment()))


@pytest.mark.parametrize("wide", [True, False])
def test_matching_pursuit_goes_back_through_its_steps(wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With inner products of all pairs of directions kept up to date, and without."""
    from inscape.dictionaries.kinds import matching_pursuit

    if not wide:
        monkeypatch.setattr(matching_pursuit, "_GRAM_BYTES", 0)
    recipe = D_.MatchingPursuit(width=M, k=4)
    p, x = start(recipe), rows()

    def loss(q: dict[str, Tensor]) -> Tensor:
        r = x - q["b_dec"]
        for _ in range(4):
            c, j = (r @ q["decoder"].T).max(1)
            r = r - c.clamp(min=0)[:, None] * q["decoder"][j]
        return r.square().mean()

    p["decoder"] /= p["decoder"].norm(dim=1, keepdim=True)
    compare(recipe, loss, p, recipe.learn(p, x, x, moment()))


def test_a_jump_relu_transcoder_with_a_linear_path() -> None:
    recipe = D_.JumpReLUTranscoder(width=M, l0=3, penalty=0.7, bandwidth=0.8, skip=True)
    p, x, y = start(recipe, D, 7), rows(), rows(7)

    def loss(q: dict[str, Tensor]) -> Tensor:
        a, theta = x @ q["encoder"].T + q["b_enc"], q["log_threshold"].exp()
        z = _Jump.apply(a, theta, 0.8, True)
        miss = (_Jump.apply(a, theta, 0.8, False).sum() / B / 3 - 1) ** 2
        return (z @ q["decoder"] + q["b_dec"] + x @ q["W_skip"] - y).square().mean() + 0.7 * miss

    compare(recipe, loss, p, recipe.learn(p, x, y, moment()))
