"""Adapted, compiled and data-parallel models: read as a hook by hand reads them, or refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inscape as ix
from inscape.errors import MissingExtraError, ModelError, ModelNotFoundError, StoreMismatchError
from inscape.models.wrappers import core, trunk_of

from .by_hand import IDS, adapted, captured, hand, same


@pytest.fixture
def module(request: pytest.FixtureRequest) -> nn.Module:
    """A copy of the model that the test names, so that it may be dispatched or adapted."""
    return copy.deepcopy(request.getfixturevalue(request.param))


both = pytest.mark.parametrize("module", ["gpt2", "llama"], indirect=True)
first = pytest.mark.parametrize("module", ["gpt2", pytest.param("llama", marks=pytest.mark.slow)], indirect=True)


# Adapters


@both
def test_an_adapted_model_keeps_its_names_and_a_site_means_the_adapted_layer(module: nn.Module) -> None:
    plain = captured(ix.load(copy.deepcopy(module)))
    wrapped = adapted(module)
    model = ix.load(wrapped)
    found = captured(model)
    assert list(found) == list(plain)
    assert (model.modality, model.family) == ("text", module.config.model_type)
    assert model.has_trunk and trunk_of(wrapped) is module.base_model and core(wrapped) is module
    if hasattr(module, "transformer"):
        block, paths = "transformer.h.1", {"attn_out": "attn.c_proj", "mlp_act": "mlp.c_proj:in", "z": "attn.c_proj:in"}
        fused = hand(module, wrapped, "transformer.h.1.attn.c_attn")
        assert all(torch.equal(found[f"blocks.1.{n}"], part) for n, part in zip("qkv", fused.split(16, -1), strict=True))
    else:
        block, paths = "model.layers.1", {"attn_out": "self_attn.o_proj", "mlp_act": "mlp.down_proj:in", "z": "self_attn.o_proj:in"}
        paths |= {name: f"self_attn.{name}_proj" for name in "qkv"}
    for name, where in paths.items():
        path, _, port = where.partition(":")
        assert torch.equal(found[f"blocks.1.{name}"], hand(module, wrapped, f"{block}.{path}", port or "out")), name
        assert not torch.equal(found[f"blocks.1.{name}"], plain[f"blocks.1.{name}"]), "the adapter acts"
    assert torch.equal(found["blocks.1.resid_post"], hand(module, wrapped, block))
    with torch.no_grad():
        assert torch.equal(found["logits"], wrapped(input_ids=torch.tensor(IDS)).logits.flatten(0, 1))
    prefixed = captured(model, f"base_model.model.{block}")
    assert torch.equal(prefixed[f"base_model.model.{block}"], found["blocks.1.resid_post"])


@first
def test_an_adapter_that_is_off_gives_the_plain_model(module: nn.Module) -> None:
    plain = captured(copy.deepcopy(module))
    wrapped = adapted(module)
    model = ix.load(wrapped)
    with wrapped.disable_adapter():
        assert same(captured(model), plain)
    with_adapter = captured(model)
    assert not same(with_adapter, plain)
    wrapped.merge_adapter()
    merged = captured(model)
    for site, rows in merged.items():
        torch.testing.assert_close(rows, with_adapter[site], rtol=1e-4, atol=1e-5)


@first
def test_a_batch_of_different_lengths_reads_an_adapted_model_as_each_text_alone(module: nn.Module) -> None:
    model = ix.load(adapted(module))
    texts = [IDS[0], IDS[1][:3], IDS[2][:2]]
    for side in ("right", "left"):
        store = ix.capture(model, texts, "blocks.*.resid_post", "all", padding_side=side, batch_size=3)
        for site in store.sites:
            together = store[site].torch()
            alone = torch.cat([ix.capture(model, [text], site, "all")[site].torch() for text in texts])
            torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_identity_tells_adapters_and_their_states_apart(gpt2: Any) -> None:
    wrapped = adapted(copy.deepcopy(gpt2))
    model = ix.load(wrapped)
    facts = model.identity()["adapters"]
    assert {key: facts[key] for key in ("names", "kinds", "active", "merged", "enabled", "layers", "alike")} == {
        **{"names": ["default"], "kinds": ["LORA"], "active": ["default"], "merged": []},
        **{"enabled": True, "layers": 12, "alike": True},
    }
    states = [facts]
    with wrapped.disable_adapter():
        states.append(model.identity()["adapters"])
        assert states[-1]["enabled"] is False
    assert model.identity()["adapters"] == facts
    import peft

    torch.manual_seed(5)
    wrapped.add_adapter("second", peft.LoraConfig(target_modules=["c_attn"], r=2, init_lora_weights=False, fan_in_fan_out=True))
    assert model.identity()["adapters"]["names"] == ["default", "second"]
    states.append(model.identity()["adapters"])
    wrapped.set_adapter("second")
    states.append(model.identity()["adapters"])
    assert states[-1]["active"] == ["second"]
    wrapped.set_adapter("default")
    layer = wrapped.get_submodule("base_model.model.transformer.h.0.attn.c_attn")
    layer.set_scale("default", 0.5)
    states.append(model.identity()["adapters"])
    layer.set_scale("default", 1.0)
    wrapped.merge_adapter(["default"])
    states.append(model.identity()["adapters"])
    assert states[-1]["merged"] == ["default"]
    assert len({state["sha256"] for state in states}) == len(states)
    other = ix.load(adapted(copy.deepcopy(gpt2), seed=3)).identity()["adapters"]
    assert other["sha256"] != facts["sha256"]
    assert ix.load(adapted(copy.deepcopy(gpt2))).identity()["adapters"] == facts, "the same adapter is the same"
    assert "adapters" not in ix.load(gpt2).identity()


def test_a_capture_with_another_adapter_does_not_resume_the_first(gpt2: Any, tmp_path: Path) -> None:
    wrapped = adapted(copy.deepcopy(gpt2))
    wrapped.config._commit_hash = "abc"  # what a download has: the weights themselves are then not read
    ix.capture(wrapped, IDS, "blocks.0.resid_post", to=tmp_path / "s")
    assert ix.capture(wrapped, IDS, "blocks.0.resid_post", to=tmp_path / "s").complete
    with wrapped.disable_adapter(), pytest.raises(StoreMismatchError, match=r"model.adapters.enabled was True, now is False"):
        ix.capture(wrapped, IDS, "blocks.0.resid_post", to=tmp_path / "s")
    other = adapted(copy.deepcopy(gpt2), seed=3)
    other.config._commit_hash = "abc"
    with pytest.raises(StoreMismatchError, match=r"model.adapters.sha256 was"):
        ix.capture(other, IDS, "blocks.0.resid_post", to=tmp_path / "s")
    merged = adapted(copy.deepcopy(gpt2)).merge_and_unload()
    merged.config._commit_hash = "abc"
    ix.capture(copy.deepcopy(gpt2), IDS, "blocks.0.resid_post", to=tmp_path / "plain")
    with pytest.raises(StoreMismatchError, match=r"model.weights_sha256 was"):
        ix.capture(merged, IDS, "blocks.0.resid_post", to=tmp_path / "plain")


def test_the_folder_of_an_adapter_loads_its_model_too(gpt2: Any, tmp_path: Path) -> None:
    gpt2.save_pretrained(tmp_path / "base")
    base = type(gpt2).from_pretrained(tmp_path / "base").eval()
    wrapped = adapted(base)
    wrapped.save_pretrained(tmp_path / "adapter")
    model = ix.load(tmp_path / "adapter")
    assert model.identity()["adapters"]["enabled"] and type(model.module).__name__ == "GPT2LMHeadModel"
    assert same(captured(model), captured(wrapped))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match="the folder exists, but no model could be read from it"):
        ix.load(tmp_path / "empty")


@pytest.mark.parametrize("package", ["accelerate", "peft"])
def test_packages_that_are_missing(gpt2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    from inscape.models import loading

    gpt2.save_pretrained(tmp_path / "base")
    adapted(type(gpt2).from_pretrained(tmp_path / "base")).save_pretrained(tmp_path / "adapter")
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    where, given = (tmp_path / "base", {"device_map": "auto"}) if package == "accelerate" else (tmp_path / "adapter", {})
    with pytest.raises(MissingExtraError, match=rf"needs the package '{package}', which is not installed. Run: pip install {package}"):
        ix.load(where, **given)


def test_adapters_that_put_tokens_before_the_text_are_refused(gpt2: Any) -> None:
    import peft

    wrapped = peft.get_peft_model(copy.deepcopy(gpt2), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(ModelError, match=r"the adapter 'default' \(PromptTuningConfig\) puts virtual tokens before the text, so that pos"):
        ix.load(wrapped)


def test_an_adapter_around_a_plain_module() -> None:
    import peft

    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    wrapped = peft.get_peft_model(inner, peft.LoraConfig(target_modules=["0", "2"], init_lora_weights=False)).eval()
    x = torch.randn(5, 4)
    store = ix.capture(wrapped, x, ["base_model.model.0", "base_model.model.2"])
    with torch.no_grad():
        assert torch.equal(store["base_model.model.2"].torch(), wrapped(x))
        assert torch.equal(store["base_model.model.0"].torch(), inner[0](x))


# Compiled modules


def _in_place(module: nn.Module) -> nn.Module:
    module.compile(backend="eager")
    return module


def _blocks_in_place(module: nn.Module) -> nn.Module:
    for block in _blocks(module):
        block.compile(backend="aot_eager")
    return module


def _blocks_wrapped(module: nn.Module) -> nn.Module:
    blocks = _blocks(module)
    for i, block in enumerate(blocks):
        blocks[i] = torch.compile(block, backend="eager")
    return module


def _blocks(module: nn.Module) -> nn.ModuleList:
    return next(part for part in module.modules() if isinstance(part, nn.ModuleList))


COMPILED = {
    "wrapped": lambda m: torch.compile(m, backend="eager"),
    "in place": _in_place,
    "blocks in place": _blocks_in_place,
    "blocks wrapped": _blocks_wrapped,
}


@pytest.mark.parametrize(
    "how", ["wrapped", "in place", *(pytest.param(how, marks=pytest.mark.slow) for how in COMPILED if "blocks" in how)]
)
def test_a_compiled_model_equals_the_eager_one(llama: Any, how: str) -> None:
    plain = copy.deepcopy(llama)
    expected = captured(plain)
    compiled: Any = COMPILED[how](copy.deepcopy(llama))
    with torch.no_grad():
        before = compiled(torch.tensor(IDS)).logits  # compiled before any hook is there
    model = ix.load(compiled)
    assert same(captured(model), expected)
    direction = torch.linspace(-1, 1, 16)
    with ix.edit(plain, "blocks.1.resid_post", ix.edits.add(direction, scale=4)), torch.no_grad():
        changed = plain(torch.tensor(IDS)).logits
    with ix.edit(model, "blocks.1.resid_post", ix.edits.add(direction, scale=4)), torch.no_grad():
        torch.testing.assert_close(compiled(torch.tensor(IDS)).logits, changed, rtol=0, atol=0)
    with torch.no_grad():
        assert torch.equal(compiled(torch.tensor(IDS)).logits, before), "afterwards the compiled code runs as before"


class Inside(nn.Module):
    """Compiles a function that calls its parts, where nothing shows that it did."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.run = torch.compile(lambda x: self.last(torch.tanh(self.first(x))), backend="eager")

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


def test_a_function_compiled_inside_a_model_is_read_and_edited() -> None:
    torch.manual_seed(0)
    module, x = Inside(), torch.randn(5, 4)
    with torch.no_grad():
        plain = module(x)
    model = ix.load(module)
    assert torch.equal(ix.capture(model, x, "first")["first"].torch(), module.first(x).detach())
    with ix.edit(model, "first", ix.edits.scale(0.0)), torch.no_grad():
        assert torch.equal(module(x), module.last(torch.zeros(5, 6)))
    with torch.no_grad():
        assert torch.equal(module(x), plain)


def test_edits_that_overlap_out_of_order_keep_the_compiler_away_until_the_last_ends() -> None:
    torch.manual_seed(0)
    module, x = Inside(), torch.randn(5, 4)
    with torch.no_grad():
        plain = module(x)
    model = ix.load(module)
    first, last = ix.edit(model, "first", ix.edits.scale(0.0)), ix.edit(model, "last", ix.edits.scale(2.0))
    first.__enter__()
    last.__enter__()
    first.__exit__(None, None, None)
    with torch.no_grad():
        assert torch.equal(module(x), 2 * plain)
    last.__exit__(None, None, None)
    assert model._eagerly._open == 0 and model._eagerly._stance is None
    with torch.no_grad():
        assert torch.equal(module(x), plain)


def test_scripted_modules_are_refused() -> None:
    with pytest.warns(DeprecationWarning, match="torch.jit.trace"):
        traced = torch.jit.trace(nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 4))
    with pytest.raises(ModelError, match=r"is a TorchScript module, whose parts run where no hook sees them; load the nn.Module"):
        ix.load(traced)


# Parallel wrappers


@pytest.fixture
def process_group(tmp_path: Path) -> Any:
    """One process that is a group by itself."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_data_parallel_shells_are_taken_off(gpt2: Any, process_group: Any) -> None:
    expected = captured(copy.deepcopy(gpt2))
    for shell in (nn.DataParallel, nn.parallel.DistributedDataParallel):
        inner = copy.deepcopy(gpt2)
        model = ix.load(shell(inner))
        assert model.module is inner
        assert same(captured(model), expected)
    model = ix.load(torch.compile(nn.DataParallel(torch.compile(copy.deepcopy(gpt2), backend="eager")), backend="eager"))
    assert same(captured(model), expected)


@pytest.mark.filterwarnings("ignore")
def test_fully_sharded_modules_are_refused(process_group: Any) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    with pytest.raises(ModelError, match=r"is sharded by FullyShardedDataParallel: every process holds a part of each weight only"):
        ix.load(FullyShardedDataParallel(nn.Sequential(nn.Linear(4, 4)), device_id=torch.device("cpu")))


@first
def test_nothing_is_left_on_an_adapted_compiled_offloaded_model(module: nn.Module) -> None:
    import accelerate

    wrapped = adapted(module)
    accelerate.cpu_offload(wrapped, execution_device=torch.device("cpu"))
    model = ix.load(torch.compile(wrapped, backend="eager"))
    expected = captured(model)
    state = {name: (p.device, p.requires_grad, p.shape) for name, p in wrapped.named_parameters()}
    assert same(captured(model), expected)
    assert {name: (p.device, p.requires_grad, p.shape) for name, p in wrapped.named_parameters()} == state
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in wrapped.modules())
