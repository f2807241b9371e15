"""Runs: hooks leave nothing behind, passes stop early, flags and random state come back."""

from __future__ import annotations

import gc
import time
import weakref
from typing import Any

import pytest
import torch
from torch import nn

import inscape as ix
from inscape.errors import InscapeError
from tests.unit.models.conftest import footprint, same_footprint

IDS = {"input_ids": torch.arange(12).reshape(2, 6)}


def test_nothing_is_left_after_reading(gpt2: nn.Module) -> None:
    before = footprint(gpt2)
    model = ix.load(gpt2)
    with model.hooked(["blocks.*.*", "transformer.h.*"], lambda name, x: None):
        model.run(IDS)
    assert same_footprint(before, footprint(gpt2))
    assert all(count == 0 for count in footprint(gpt2)["hooks"].values())


def test_nothing_is_left_after_an_error(gpt2: nn.Module) -> None:
    before = footprint(gpt2)
    model = ix.load(gpt2)

    def fail(name: str, x: torch.Tensor) -> None:
        raise RuntimeError("the reader broke")

    with pytest.raises(RuntimeError, match="the reader broke"), model.hooked("blocks.*.z", fail):
        model.run(IDS)
    assert same_footprint(before, footprint(gpt2))
    model.run(IDS)  # and the model still runs


def test_stop_skips_what_follows(gpt2: nn.Module) -> None:
    model = ix.load(gpt2)
    sites = model.resolve(["blocks.1.resid_post", "blocks.0.z"])
    paths = ("transformer.h.0", "transformer.h.1", "transformer.h.2", "lm_head")
    ran: list[str] = []
    handles = [gpt2.get_submodule(path).register_forward_pre_hook(lambda m, a, path=path: ran.append(path)) for path in paths]
    seen: list[str] = []
    with model.hooked(sites, lambda name, x: seen.append(name), stop_after_last=True):
        assert model.run(IDS) is None
        assert model.run(IDS) is None
        assert ran == list(paths[:2]) * 2
        assert model(**IDS) is not None  # a call that is not `run` goes to the end
        assert ran == list(paths[:2]) * 2 + list(paths)
    with model.hooked("blocks.0.z", lambda name, x: None):
        assert model.run(IDS, stop=True) is None
        assert model.run(IDS) is not None
    for handle in handles:
        handle.remove()
    assert seen == ["blocks.0.z", "blocks.1.resid_post"] * 3


def test_two_readers_are_both_served_before_the_stop(gpt2: nn.Module) -> None:
    model = ix.load(gpt2)
    seen: list[str] = []
    with model.hooked("blocks.0.z", lambda n, x: seen.append(n)), model.hooked("blocks.2.z", lambda n, x: seen.append(n)):
        assert model.run(IDS, stop=True) is None
    assert seen == ["blocks.0.z", "blocks.2.z"]


def test_training_flags_come_back_part_by_part() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9), nn.BatchNorm1d(3)).train()
    net[2].eval()  # a frozen batch norm must stay frozen
    model = ix.load(net)
    x = torch.ones(4, 3)
    statistics = net[2].running_mean.clone()
    assert torch.equal(model.run(x), model.run(x))  # no dropout
    assert [part.training for part in net.modules()] == [True, True, True, False]
    assert torch.equal(net[2].running_mean, statistics)
    with pytest.raises(RuntimeError):
        model.run(torch.ones(4, 5))
    assert [part.training for part in net.modules()] == [True, True, True, False]


def test_looking_does_not_move_the_random_state(gpt2: nn.Module) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    ix.load(gpt2).sites()
    assert torch.equal(torch.rand(3), expected)


def test_no_gradient_and_no_inference_tensors(gpt2: nn.Module) -> None:
    model = ix.load(gpt2)
    kept: list[torch.Tensor] = []
    with model.hooked("blocks.0.z", lambda n, x: kept.append(x.clone())):
        model.run(IDS)
    assert not kept[0].requires_grad
    kept[0].requires_grad_()  # an inference tensor would refuse


def test_left_padding_gets_the_right_positions(gpt2: nn.Module, llama: nn.Module) -> None:
    for module in (gpt2, llama):
        model = ix.load(module)
        kept: dict[str, torch.Tensor] = {}
        with model.hooked("blocks.2.resid_post", lambda n, x, kept=kept: kept.__setitem__(n, x.clone())):
            model.run({"input_ids": torch.tensor([[5, 6, 7]])})
            alone = kept["blocks.2.resid_post"]
            model.run(
                {"input_ids": torch.tensor([[0, 0, 5, 6, 7], [1, 2, 3, 4, 5]]), "attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1] * 5])}
            )
        assert torch.allclose(kept["blocks.2.resid_post"][0, 2:], alone[0], atol=1e-5)


def test_a_pass_inside_a_pass_is_refused(gpt2: nn.Module) -> None:
    model = ix.load(gpt2)
    with (
        pytest.raises(InscapeError, match=r"Model.run was called from inside a pass"),
        model.hooked("blocks.0.z", lambda n, x: model.run(IDS)),
    ):
        model.run(IDS)
    assert model.run(IDS) is not None


def test_the_model_is_freed() -> None:
    """No cycle holds a module once its last name is gone; the collector is off."""
    gc.collect()
    gc.disable()
    try:
        net = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        model = ix.load(net)
        with model.hooked("0", lambda n, x: None), ix.edit(model, "1", ix.edits.scale(0.5)):
            model.run(torch.ones(2, 3))
        alive = weakref.ref(net)
        del net, model
        assert alive() is None
    finally:
        gc.enable()


def test_shared_module_names_its_calls() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(3):
                x = self.cell(x)
            return x

    torch.manual_seed(0)
    net = Shared()
    model = ix.load(net)
    assert [site.name for site in model.resolve("cell")] == ["cell#0", "cell#1", "cell#2"]
    got: dict[str, torch.Tensor] = {}
    x = torch.randn(2, 3)
    with model.hooked(["cell#2", "cell#0"], lambda n, v: got.__setitem__(n, v.clone())):
        for _ in range(2):  # the count starts anew in each pass
            model.run(x)
    assert torch.equal(got["cell#0"], net.cell(x))
    assert torch.equal(got["cell#2"], net(x))
    with ix.edit(model, "cell#1", ix.edits.scale(0.0)):
        assert torch.equal(model.run(x), net.cell(torch.zeros(2, 3)))
    expected = 2 * net.cell(2 * net.cell(2 * net.cell(x)))
    with ix.edit(model, "cell", ix.edits.scale(2.0)):
        assert torch.allclose(model.run(x), expected)
    assert "runs 3 times" in repr(model.sites())


def test_generate_needs_a_tokenizer(gpt2: nn.Module) -> None:
    with pytest.raises(InscapeError, match="has no tokenizer, so it cannot continue a text"):
        ix.load(gpt2).generate("hello")


def test_hooks_cost_little() -> None:
    """Reading 12 streams costs well below a millisecond per pass; the real figure is measured by the benchmark."""
    layers = [nn.Linear(8, 8) for _ in range(12)]
    model = ix.load(nn.Sequential(*layers))
    x = torch.ones(1, 8)

    def best(run: Any) -> float:
        times = []
        for _ in range(30):
            start = time.process_time()
            for _ in range(10):
                run()
            times.append((time.process_time() - start) / 10)
        return min(times)

    with model.evaluating():
        plain = best(lambda: model.run(x))
        with model.hooked([str(i) for i in range(12)], lambda n, v: None):
            hooked = best(lambda: model.run(x))
    assert hooked - plain < 1e-3
