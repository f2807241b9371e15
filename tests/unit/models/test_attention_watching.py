"""Attention is watched only where it was asked for, nothing is left behind, and what has no pattern is refused."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

import inscape as ix
from inscape.errors import EditError, InscapeError, SiteNotFoundError
from inscape.models.attention import Watch, pop

from .attending import (
    IDS,
    Rows,
    T,
    clean,
    make_gpt2,
    make_llama,
    patterns,
)
from .conftest import footprint, same_footprint, seeded


def test_globs_leave_patterns_out_unless_they_name_them() -> None:
    model = ix.load(seeded(make_gpt2))
    for glob in ("blocks.0.*", "blocks.**", "**", "blocks.*.*", "blocks.*.attn*"):
        assert not any(site.port == "pattern" for site in model.resolve(glob)), glob
    expected = ["blocks.0.attn_pattern", "blocks.1.attn_pattern"]
    assert [site.name for site in model.resolve("blocks.*.attn_pattern")] == expected
    assert [site.name for site in model.resolve("blocks.*.attn.hook_pattern")] == expected
    assert model.resolve("blocks.-1.attn_pattern") == model.resolve("blocks.1.attn.hook_pattern")
    assert [site.name for site in model.resolve("h.*.attn:pattern")] == ["h.0.attn:pattern", "h.1.attn:pattern"]
    row = next(row for row in model.sites() if row.name == "blocks.0.attn_pattern")
    assert (row.path, row.shape, row.alias) == ("h.0.attn:pattern", (2, 4, 6, 6), "blocks.0.attn.hook_pattern")
    assert "scaled_dot_product_attention" in row.note
    assert next(row for row in model.sites() if row.name == "h.1.attn").note == "attention pattern: h.1.attn:pattern"


def test_only_the_asked_layer_is_watched() -> None:
    module = seeded(make_llama)
    depth: dict[str, list[int]] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda *_: depth.setdefault(name, []).append(len(_get_current_function_mode_stack()))

    model = ix.load(module)
    model.atlas()
    handles = [part.register_forward_hook(note(path)) for path, part in module.named_modules() if path]
    with model.hooked("blocks.1.attn_pattern", lambda site, x: None):
        model.run({"input_ids": IDS})
    for handle in handles:
        handle.remove()
    watched = {path for path, seen in depth.items() if seen != [0]}
    assert watched == {f"model.layers.1.self_attn.{part}_proj" for part in "qkvo"}


def test_one_pattern_at_a_time_is_alive() -> None:
    model = ix.load(seeded(make_llama))
    alive: list[weakref.ref[Tensor]] = []

    def reader(site: str, x: Tensor) -> None:
        gc.collect()
        assert all(ref() is None for ref in alive)
        alive.append(weakref.ref(x))

    with model.hooked("blocks.*.attn_pattern", reader):
        model.run({"input_ids": IDS})
    assert len(alive) == 3 and all(ref() is None for ref in alive)


class Stop(BaseException):
    """As a keyboard interrupt is."""


@pytest.mark.parametrize("error", [RuntimeError, Stop])
def test_an_error_inside_attention_leaves_nothing(error: type[BaseException]) -> None:
    module = seeded(make_llama)
    model = ix.load(module)
    before = footprint(module)
    site = model.resolve("blocks.1.attn_pattern")

    def fail(*_: Any) -> None:
        raise error("inside")

    for run in (lambda: model.run({"input_ids": IDS}), lambda: module(IDS)):
        with model.hooked(site, lambda name, x: None):
            handle = module.model.layers[1].self_attn.v_proj.register_forward_hook(fail)
            with pytest.raises(error, match="inside"):
                run()
            handle.remove()
            if error is RuntimeError:
                assert clean()  # at once, though the block is still open
            kept = patterns(model, {"input_ids": IDS})
            assert clean() and len(kept) == 3
        assert clean() and same_footprint(before, footprint(module))
    with pytest.raises(error), model.hooked(site, fail):
        model.run({"input_ids": IDS})
    assert clean() and same_footprint(before, footprint(module))


def test_a_pass_that_stops_early_and_readers_beside_each_other() -> None:
    module = seeded(make_llama)
    model = ix.load(module)
    other = ix.load(module)  # the same module under two names
    for loaded in (model, other):
        loaded.atlas()
    ran: list[int] = []
    handles = [layer.register_forward_pre_hook(lambda m, a, i=i: ran.append(i)) for i, layer in enumerate(module.model.layers)]
    kept: list[str] = []
    asked = ["blocks.0.attn_pattern", "model.layers.0.self_attn:pattern", "model.layers.0:pattern", "blocks.0.q"]
    with model.hooked(asked, lambda site, x: kept.append(site), stop_after_last=True):
        assert model.run({"input_ids": IDS}, stop=True) is None
        assert ran == [0] and sorted(kept) == sorted(asked)
        assert clean()
        first, second = [], []
        with model.hooked("blocks.0.attn_pattern", lambda s, x: first.append(x)):
            with other.hooked("blocks.0.attn_pattern", lambda s, x: second.append(x)):
                module(IDS)
        assert torch.equal(first[0], second[0]) and clean()
    for handle in handles:
        handle.remove()


def test_a_model_that_runs_inside_anothers_attention() -> None:
    """Watches nest; what runs inside counts for both, so the outer one says that it cannot tell."""
    inside: list[Tensor] = []
    small = ix.load(seeded(make_gpt2))
    small.atlas()
    model = ix.load(seeded(make_llama))
    model.atlas()

    def run_small(*_: Any) -> None:
        with small.hooked("blocks.0.attn_pattern", lambda s, p: inside.append(p)):
            small.run({"input_ids": IDS})

    with model.hooked("blocks.0.attn_pattern", run_small):  # a reader may run another model
        model.run({"input_ids": IDS})
    assert [tuple(x.shape) for x in inside] == [(2, 4, T, T)] and clean()
    handle = model.module.model.layers[1].self_attn.k_proj.register_forward_hook(run_small)
    with pytest.raises(SiteNotFoundError, match="there is no attention pattern to read: .* runs attention 3 times in one call"):
        patterns(model, {"input_ids": IDS})
    handle.remove()
    assert len(inside) == 2 and torch.equal(inside[0], inside[1]) and clean()


def test_a_watch_takes_off_itself_and_no_other() -> None:
    other, watch = Watch(), Watch()
    with watch.__class__() as outer:
        watch.__enter__()
        other.__enter__()
        pop(watch)
        assert _get_current_function_mode_stack() == [outer, other]
        pop(watch)
        assert _get_current_function_mode_stack() == [outer, other]
        pop(other)
    assert clean()


def test_many_passes_leave_nothing() -> None:
    module = seeded(make_gpt2)
    model = ix.load(module)
    before = footprint(module)
    site = model.resolve("blocks.0.attn_pattern")
    for i in range(1000):
        with model.hooked(site, lambda name, x: None, stop_after_last=True):
            model.run({"input_ids": IDS[:1, :2]}, stop=True)
        if i % 250 == 0:
            assert clean()
    gc.collect()
    assert not any(type(thing) is Watch for thing in gc.get_objects())
    assert clean() and same_footprint(before, footprint(module))
    assert model._pass.lookouts == [] and model._pass.readings == []


def test_modules_without_a_pattern_are_refused_with_the_reason(gpt2: Any) -> None:
    model = ix.load(gpt2)
    with pytest.raises(SiteNotFoundError, match=r"no site 'transformer.h.0.mlp:pattern': 'transformer.h.0.mlp' runs no attention whose"):
        model.resolve("transformer.h.0.mlp:pattern")
    with pytest.raises(
        SiteNotFoundError, match=r"runs attention 3 times in one call; name one of its parts: 'transformer.h.0.attn:pattern'"
    ):
        model.resolve("transformer:pattern")
    from transformers import MambaConfig, MambaModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "vocab_size": 50}
    mamba = ix.load(seeded(lambda: MambaModel(MambaConfig(**sizes, use_mambapy=False))))
    with pytest.raises(SiteNotFoundError, match=r"blocks.0.attn_pattern.*linear attention and state-space layers have no pattern"):
        mamba.resolve("blocks.0.attn_pattern")
    assert "blocks.0.attn_pattern" not in mamba.sites().names


class Linear(nn.Module):
    """Linear attention: a softmax over features, which is no pattern."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return q.softmax(-1) @ (k.softmax(-2).mT @ v)


def test_linear_attention_is_no_canonical_pattern() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn, self.mlp = Linear(), nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attn(x)
            return x + self.mlp(x)

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    model = ix.load(seeded(Stack))
    model.sites(example=torch.randn(2, 5, 8))
    with pytest.raises(SiteNotFoundError, match=r"blocks.0.attn_pattern': .*shape \[2, 1, 5, 8\] where \[2, heads, 5, 5\] was expected"):
        model.resolve("blocks.0.attn_pattern")


def test_a_pattern_that_shows_only_at_run_time_is_an_error_there() -> None:
    class Fickle(Rows):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.shape[1] == 5 else self.out(x)

    module = seeded(lambda: nn.Sequential(Fickle("matmul")))
    model = ix.load(module)
    model.sites(example=torch.randn(2, 5, 8))
    with pytest.raises(SiteNotFoundError, match="there is no attention pattern to read: '0' runs no attention"):
        patterns(model, torch.randn(2, 4, 8), "0:pattern")
    assert clean()

    class Folded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            odd = torch.cat([x, x[:1]])
            return (odd @ odd.mT).softmax(-1) @ odd

    model = ix.load(nn.Sequential(Folded()))
    with pytest.raises(InscapeError, match=r"gives a pattern of shape \[3, 4, 4\] for 2 stimuli"):
        with model.hooked([ix.models.Site("0:pattern", "0", "pattern")], lambda s, x: None):
            model.module(torch.randn(2, 4, 8))


def test_compiled_attention_is_refused_and_a_compiled_wrapper_is_read() -> None:
    module = seeded(make_gpt2)
    wrapped = ix.load(torch.compile(module, backend="eager"))
    torch.testing.assert_close(patterns(wrapped, {"input_ids": IDS}), patterns(ix.load(module), {"input_ids": IDS}), atol=1e-6, rtol=0)
    model = ix.load(module)
    site = model.resolve("blocks.0.attn_pattern")
    module.h[0].attn.compile(backend="eager")
    with pytest.raises(SiteNotFoundError, match=r"h.0.attn is compiled in place, so attention runs outside Python"):
        with model.hooked(site, lambda s, x: None):
            pass
    with model.hooked("blocks.1.attn_pattern", lambda s, x: None):  # its neighbor is not
        pass


def test_edits_show_in_the_pattern_and_cannot_be_made_there() -> None:
    module = seeded(make_llama)
    model = ix.load(module)
    plain = patterns(model, {"input_ids": IDS})
    with ix.edit(model, "blocks.1.q", ix.edits.scale(0.0)):
        flat = patterns(model, {"input_ids": IDS})
    assert torch.equal(flat["blocks.0.attn_pattern"], plain["blocks.0.attn_pattern"])
    uniform = torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None]
    torch.testing.assert_close(flat["blocks.1.attn_pattern"], uniform.expand(2, 4, -1, -1), atol=1e-6, rtol=0)
    with pytest.raises(EditError, match=r"'blocks.1.attn_pattern' is computed beside .*ix.edits.ablate\(heads=\[1\]\)"):
        ix.edit(model, "blocks.1.attn_pattern", ix.edits.scale(0.5))
    with pytest.raises(EditError, match="would have no effect"):
        model.resolve("blocks.0.attn_pattern")[0].write(torch.zeros(1), torch.zeros(1))


def test_attention_that_does_not_stand_being_watched_costs_no_other_site() -> None:
    """Some kernels compile what surrounds them; then only the pattern is missing."""

    class Shy(Rows):
        def forward(self, x: Tensor) -> Tensor:
            if _get_current_function_mode_stack():
                raise RuntimeError("no modes here")
            return super().forward(x)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn, self.mlp = Shy("matmul"), nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attn(x)
            return x + self.mlp(x)

    model = ix.load(seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.ModuleList([Block()])[0])))
    model.sites(example=torch.randn(2, 5, 8))
    with pytest.raises(SiteNotFoundError, match=r"no site '1.attn:pattern': attention could not be watched: RuntimeError: no modes here"):
        model.resolve("1.attn:pattern")
    assert model.resolve("1.attn")[0].path == "1.attn"
    assert clean()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_flex_attention_is_refused_before_the_run() -> None:
    module = seeded(make_llama)
    module.set_attn_implementation("flex_attention")
    model = ix.load(module)
    with pytest.raises(SiteNotFoundError, match=r"blocks.0.attn_pattern.*flex and compiled attention keep theirs in a kernel"):
        model.resolve("blocks.0.attn_pattern")
    assert clean()
