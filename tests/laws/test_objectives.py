"""Every objective is held to the facts in its decorator."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import Tensor, nn

import inscape as ix
from inscape.errors import InscapeError
from inscape.training.objectives import Objective, registered

ALL = registered()
ROWS = [one for one in ALL.values() if one.kind == "rows"]
PAIRS = [one for one in ALL.values() if one.kind == "pair"]
GENERATOR = torch.Generator().manual_seed(0)


def draw(n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=GENERATOR, dtype=torch.float64)


def rotation(d: int) -> Tensor:
    return torch.linalg.qr(draw(d, d)).Q


MAPS = {
    "translation": lambda X: X + draw(1, X.shape[1]),
    "rotation": lambda X: X @ rotation(X.shape[1]),
    "scale": lambda X: 7.0 * X,
    "unit_scale": lambda X: X * torch.linspace(0.5, 3, X.shape[1], dtype=X.dtype),
    "permutation": lambda X: X.flip(1),
    "row_order": lambda X: X.flip(0),
}


def named(one: Objective) -> str:
    return one.name


def test_the_registry_is_what_is_public():
    assert {one.fn for one in ALL.values()} <= {getattr(ix.training.objectives, name) for name in ix.training.objectives.__all__}
    for one in ALL.values():
        assert one.source in (one.source.strip(),) and "Source:" in (inspect.getdoc(one.fn) or "")


@pytest.mark.parametrize("one", ROWS, ids=named)
def test_terms_are_numbers_with_correct_finite_gradients(one: Objective):
    X = draw(24, 5).requires_grad_()
    value = one.fn(X)
    assert value.shape == () and one.range[0] <= float(value.detach()) <= one.range[1]
    assert torch.autograd.gradcheck(one.fn, (X,), atol=1e-5)
    assert float(one.fn(X.detach().view(4, 6, 5))) == pytest.approx(float(value.detach()), rel=1e-12)
    single = X.detach().float().requires_grad_()
    one.fn(single).backward()
    assert single.grad is not None and bool(torch.isfinite(single.grad).all())


@pytest.mark.parametrize("one", ROWS, ids=named)
@pytest.mark.parametrize("rows", ["zero", "constant", "one line", "twice"])
def test_rows_that_collapsed_give_finite_values_and_gradients(one: Objective, rows: str):
    base = draw(24, 5).float()
    made = {"zero": base * 0, "constant": base[:1].repeat(24, 1), "one line": base[:, :1] * base[:1], "twice": base[:12].repeat(2, 1)}
    X = made[rows].clone().requires_grad_()
    value = one.fn(X)
    value.backward()
    assert math.isfinite(float(value.detach())) and X.grad is not None and bool(torch.isfinite(X.grad).all())


@pytest.mark.parametrize("one", ROWS, ids=named)
def test_claimed_invariances_hold(one: Objective):
    X = draw(30, 6)
    for name in one.invariant:
        assert float(one.fn(MAPS[name](X))) == pytest.approx(float(one.fn(X)), rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("one", [one for one in ROWS if "translation" in one.invariant], ids=named)
@pytest.mark.parametrize("offset", [100.0, 10_000.0])
def test_rows_far_from_the_origin_lose_no_digits(one: Objective, offset: float):
    X = draw(60, 6)
    assert float(one.fn(X + offset)) == pytest.approx(float(one.fn(X)), rel=1e-9, abs=1e-12)
    far = (X + offset).float()
    near = far - offset  # exact, so that what the offset itself rounds away is gone from both
    assert float(one.fn(far)) == pytest.approx(float(one.fn(near)), rel=1e-4)
    slopes = []
    for rows in (far, near):
        leaf = rows.clone().requires_grad_()
        one.fn(leaf).backward()
        slopes.append(leaf.grad)
    assert torch.allclose(slopes[0], slopes[1], rtol=1e-2, atol=1e-3 * float(slopes[1].abs().max()))


@pytest.mark.parametrize("one", ROWS, ids=named)
def test_following_the_gradient_improves_what_is_claimed(one: Objective):
    assert one.improves is not None
    X = (draw(64, 2) @ draw(2, 8) + 0.05 * draw(64, 8)).requires_grad_()
    measure = ix.measures.get(one.improves)
    before, start = float(measure(X.detach())), float(one.fn(X).detach())
    sign = 1 if one.better == "lower" else -1
    optimizer = torch.optim.Adam([X], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        (sign * one.fn(X)).backward()
        optimizer.step()
    assert sign * float(one.fn(X).detach()) < sign * start
    assert float(measure(X.detach())) > 1.05 * before


@pytest.mark.parametrize("one", PAIRS, ids=named)
def test_pairs_are_best_when_they_agree_and_leave_the_target_alone(one: Objective):
    P, Z = draw(12, 5).requires_grad_(), draw(12, 5).requires_grad_()
    one.fn(P, Z).backward()
    assert Z.grad is None and P.grad is not None
    best = float(one.fn(Z.detach(), Z))
    assert best == pytest.approx(one.range[0]) and best < float(one.fn(P, Z).detach()) <= one.range[1]
    turn = rotation(5)
    for changed in ((3 * P, Z / 7), (P @ turn, Z @ turn), (P.flip(0), Z.flip(0))):
        assert float(one.fn(*changed).detach()) == pytest.approx(float(one.fn(P, Z).detach()))
    zero = torch.zeros(12, 5, requires_grad=True)
    one.fn(zero, Z).backward()
    assert zero.grad is not None and bool(torch.isfinite(zero.grad).all())


@pytest.mark.parametrize("one", [one for one in ALL.values() if one.kind == "layer"], ids=named)
def test_layers_keep_their_direction_train_and_do_not_change_in_evaluation(one: Objective):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    before = [layer.weight.detach().clone() for layer in (plain[0], plain[2])]
    changed = one.fn(plain)
    assert changed is plain
    for layer, weight in zip((plain[0], plain[2]), before, strict=True):
        ratio = layer.weight.detach() / weight
        assert torch.allclose(ratio, ratio[0, 0].expand_as(ratio))
    plain.eval()
    state = {name: value.clone() for name, value in plain.state_dict().items()}
    plain(draw(5, 6))
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())
    plain.train()
    plain(draw(5, 6)).square().sum().backward()
    assert all(parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()) for parameter in plain.parameters())
    with pytest.raises(InscapeError, match="no linear layer"):
        one.fn(nn.ReLU())


@pytest.mark.parametrize("one", [one for one in ALL.values() if one.kind == "schedule"], ids=named)
def test_schedules_rise_from_begin_to_end(one: Objective):
    values = [one.fn(step, 100, 4.0, begin=0.5) for step in range(150)]
    assert values[0] == 0.5 and values[-1] == 4.0 and values == sorted(values)
    with pytest.raises(InscapeError, match="step=-1"):
        one.fn(-1, 100)


@pytest.mark.parametrize("one", [*ROWS, *PAIRS], ids=named)
def test_what_is_no_batch_of_rows_is_refused(one: Objective):
    for wrong in (torch.zeros(5), torch.zeros(5, 3, dtype=torch.long), torch.zeros(0, 3)):
        with pytest.raises(InscapeError):
            one.fn(wrong, wrong) if one.kind == "pair" else one.fn(wrong)
