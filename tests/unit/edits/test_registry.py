"""What holds for every kind of edit, generated from the registry."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inscape as ix
from inscape.edits.base import _KINDS, Edit, edit_kind, from_description, registered
from inscape.errors import EditError
from tests.unit.models.conftest import footprint, same_footprint

KINDS = list(registered())
IDS = {"input_ids": torch.arange(12).reshape(2, 6)}
D = 16


def streams(model: ix.Model, site: str) -> Tensor:
    kept: list[Tensor] = []
    with model.hooked(site, lambda name, x: kept.append(x.clone())):
        model.run(IDS)
    return kept[0]


def test_the_kinds() -> None:
    assert KINDS == ["ablate", "add", "clamp", "patch", "project_out", "replace", "scale"]
    assert all(getattr(ix.edits, name) is kind.make for name, kind in registered().items())
    with pytest.raises(AttributeError, match="has no attribute 'ad'; the kinds of edits are ablate, add"):
        ix.edits.ad
    assert "add" in dir(ix.edits)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("site", ["blocks.1.resid_post", "blocks.1.resid_mid", "blocks.1.v", "blocks.1.z", "transformer.h.0.attn"])
def test_changes_the_site_and_restores_exactly(name: str, site: str, gpt2: nn.Module) -> None:
    kind = registered()[name]
    model = ix.load(gpt2)
    before, logits, plain = footprint(gpt2), model.run(IDS).logits, streams(model, site)
    change = kind.make(**kind.example(D))
    with ix.edit(model, site, change):
        edited = streams(model, site)
        moved = model.run(IDS).logits
    assert bool(torch.isfinite(edited).all())
    assert bool(torch.isfinite(moved).all())
    assert not torch.equal(edited, plain)
    assert torch.equal(model.run(IDS).logits, logits)
    assert same_footprint(before, footprint(gpt2))


@pytest.mark.parametrize("name", KINDS)
def test_neutral_arguments_change_nothing(name: str, gpt2: nn.Module) -> None:
    kind = registered()[name]
    model = ix.load(gpt2)
    plain = model.run(IDS).logits
    with ix.edit(model, "blocks.*.resid_post", kind.make(**kind.neutral(D))):
        assert torch.allclose(model.run(IDS).logits, plain, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_restores_after_an_error_in_the_model(name: str, gpt2: nn.Module) -> None:
    kind = registered()[name]
    before = footprint(gpt2)
    with pytest.raises(ZeroDivisionError), ix.edit(gpt2, "blocks.1.resid_mid", kind.make(**kind.example(D))):
        raise ZeroDivisionError
    with pytest.raises(IndexError), ix.edit(gpt2, "blocks.1.resid_mid", kind.make(**kind.example(D))) as model:
        model.run({"input_ids": torch.tensor([[1, 999]])})  # no such token: the model itself fails
    assert same_footprint(before, footprint(gpt2))


@pytest.mark.parametrize("name", KINDS)
def test_acts_only_on_its_tokens(name: str, gpt2: nn.Module) -> None:
    kind = registered()[name]
    model = ix.load(gpt2)
    plain = streams(model, "blocks.1.resid_post")
    arguments = {**kind.example(D), "tokens": [1, -1]}
    with ix.edit(model, "blocks.1.resid_post", kind.make(**arguments)):
        edited = streams(model, "blocks.1.resid_post")
    same = (edited == plain).all(-1)
    assert torch.equal(same, torch.tensor([True, False, True, True, True, False]).expand(2, 6))


@pytest.mark.parametrize("name", KINDS)
def test_can_be_written_down_and_made_again(name: str, gpt2: nn.Module) -> None:
    kind = registered()[name]
    change = kind.make(**kind.example(D), tokens=torch.tensor([True, False, True, False, True, True]))
    told = json.loads(json.dumps(change.describe(values=True)))
    again = from_description(told)
    model = ix.load(gpt2)
    with ix.edit(model, "blocks.1.resid_post", change):
        first = model.run(IDS).logits
    with ix.edit(model, "blocks.1.resid_post", again):
        assert torch.equal(model.run(IDS).logits, first)
    assert again.describe() == change.describe()
    assert told["kind"] == name
    assert repr(change).startswith(f"{name}(")


@pytest.mark.parametrize("name", KINDS)
def test_is_frozen(name: str) -> None:
    kind = registered()[name]
    with pytest.raises(FrozenInstanceError):
        kind.make(**kind.example(D)).tokens = "last"  # type: ignore[misc]


def test_a_new_kind_is_one_class(gpt2: nn.Module) -> None:
    def nothing(d: int) -> dict[str, Any]:
        return {}

    @edit_kind("flip", example=nothing, neutral=nothing)
    @dataclass(frozen=True, eq=False, repr=False)
    class Flip(Edit):
        def change(self, x: Tensor, offset: int) -> Tensor:
            return -x

    try:
        model = ix.load(gpt2)
        plain = streams(model, "blocks.0.resid_post")
        with ix.edit(model, "blocks.0.resid_post", ix.edits.flip()):
            assert torch.equal(streams(model, "blocks.0.resid_post"), -plain)
        assert repr(Flip()) == "flip()"
    finally:
        del _KINDS["flip"]


def test_descriptions_that_cannot_be_read() -> None:
    with pytest.raises(EditError, match="unknown kind of edit 'ad'; nearest: 'add'"):
        from_description({"kind": "ad"})
    with pytest.raises(EditError, match=r"the description of 'vector' holds no values; make it with describe\(values=True\)"):
        from_description(ix.edits.add(torch.ones(2)).describe())
