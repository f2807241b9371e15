"""Offloaded, adapted, compiled, wrapped, quantized and half-precision models: read as a hook by hand reads them, or refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inscape as ix
from inscape.errors import MissingExtraError, ModelError, ModelNotFoundError, StoreMismatchError
from inscape.models.identity import weights_hash
from inscape.models.placement import devices_of, input_device, is_dispatched
from inscape.models.wrappers import core, trunk_of

IDS = [[5, 9, 13, 7, 2, 30], [8, 3, 44, 21, 17, 6], [10, 11, 12, 13, 14, 15]]
SITES = ["embed", "blocks.*.*", "final_norm", "logits"]
EVERY = ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_act", "q", "k", "v", "z"]


@pytest.fixture
def module(request: pytest.FixtureRequest) -> nn.Module:
    """A copy of the model that the test names, so that it may be dispatched or adapted."""
    return copy.deepcopy(request.getfixturevalue(request.param))


both = pytest.mark.parametrize("module", ["gpt2", "llama"], indirect=True)
first = pytest.mark.parametrize("module", ["gpt2", pytest.param("llama", marks=pytest.mark.slow)], indirect=True)


def _captured(model: Any, sites: Any = SITES) -> dict[str, Tensor]:
    store = ix.capture(model, IDS, sites, "all", batch_size=3)
    return {site: store[site].torch() for site in store.sites}


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and len(a) > 0 and all(torch.equal(a[site], b[site]) for site in a)


def _hand(module: nn.Module, run: nn.Module, path: str, port: str = "out") -> Tensor:
    """What a hook by hand sees at a module of `run`, over all tokens."""
    seen: list[Tensor] = []

    def keep(value: Any) -> None:
        value = value[0] if isinstance(value, tuple) else value
        seen.append(value.detach().flatten(0, 1).clone())

    target = module.get_submodule(path)
    if port == "out":
        handle = target.register_forward_hook(lambda m, a, o: keep(o))
    else:
        handle = target.register_forward_pre_hook(lambda m, a: keep(a))
    with torch.no_grad():
        run(torch.tensor(IDS))
    handle.remove()
    return seen[0]


def _logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor(IDS)).logits


# Weights that are not on the device where they are used


def _disk_map(module: nn.Module) -> dict[str, str]:
    return {"": "disk"}


def _mixed_map(module: nn.Module) -> dict[str, str]:
    """Blocks and ends in turn on the CPU and on disk."""
    places = {name: "cpu" for name, _ in module.named_children()}
    trunk: Any = trunk_of(module)
    name = module.base_model_prefix
    places.pop(name)
    tied = "cpu" if isinstance(module.config.tie_word_embeddings, bool) and module.config.tie_word_embeddings else "disk"
    for part, child in trunk.named_children():
        if isinstance(child, nn.ModuleList):
            places |= {f"{name}.{part}.{i}": ("cpu", "disk")[i % 2] for i in range(len(child))}
        else:
            places[f"{name}.{part}"] = "disk" if "norm" in part or part == "ln_f" else tied if "tok" in part or part == "wte" else "cpu"
    return places


@both
@pytest.mark.parametrize("place", [_disk_map, _mixed_map], ids=["disk", "mixed"])
def test_a_device_map_with_weights_on_disk_changes_no_bit(module: nn.Module, place: Callable[..., Any], tmp_path: Path) -> None:
    expected = _captured(module)
    assert {site.rpartition(".")[2] for site in expected} >= set(EVERY)
    module.save_pretrained(tmp_path / "model")
    model = ix.load(tmp_path / "model", device_map=place(module), offload_folder=str(tmp_path / "weights"))
    assert any(p.device.type == "meta" for p in model.module.parameters()), "some weights are not in memory"
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    assert _same(_captured(model), expected)
    assert model.identity(weights=True)["weights_sha256"] == ix.load(module).identity(weights=True)["weights_sha256"]
    assert model.identity(weights=True)["parameters"] == sum(p.numel() for p in module.parameters())


@both
@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_a_module_that_accelerate_offloaded_equals_the_plain_one(module: nn.Module, where: str, tmp_path: Path) -> None:
    import accelerate

    plain = copy.deepcopy(module)
    if where == "cpu":
        accelerate.cpu_offload(module, execution_device=torch.device("cpu"))
    else:
        accelerate.disk_offload(module, str(tmp_path), execution_device=torch.device("cpu"))
    model = ix.load(module)
    assert model.device.type == "cpu" and devices_of(module) == ["cpu"] and is_dispatched(module)
    assert _same(_captured(model), _captured(plain))
    assert all(p.device.type == "meta" for p in module.parameters()), "every weight is off the device again"
    assert model.identity(weights=True)["weights_sha256"] == weights_hash(plain)


@first
def test_edits_of_an_offloaded_model_act_as_on_the_plain_one(module: nn.Module, tmp_path: Path) -> None:
    import accelerate

    plain = ix.load(copy.deepcopy(module))
    accelerate.disk_offload(module, str(tmp_path), execution_device=torch.device("cpu"))
    moved = ix.load(module)
    direction = torch.linspace(-1, 1, 16)
    changes = [
        ("blocks.1.resid_post", ix.edits.add(direction, scale=4)),
        ("blocks.0.z", ix.edits.ablate(heads=[1])),
        ("blocks.2.resid_mid", ix.edits.project_out(direction)),
    ]
    untouched = _logits(plain)
    for where, change in changes:
        with ix.edit(plain, where, change):
            expected, rows = _logits(plain), _captured(plain, "blocks.*.resid_post")
        with ix.edit(moved, where, change):
            assert torch.equal(_logits(moved), expected)
            assert _same(_captured(moved, "blocks.*.resid_post"), rows)
        assert not torch.equal(expected, untouched)
    assert torch.equal(_logits(moved), untouched)


class Rooted(nn.Module):
    """Holds a weight of its own beside its parts, as vision transformers hold their class token."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(6))
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.last(self.first(x) + self.start)


@pytest.mark.parametrize("fail", [False, True])
def test_a_pass_that_ends_early_leaves_no_weight_on_the_device(fail: bool) -> None:
    import accelerate

    module = Rooted()
    x = torch.randn(5, 4)
    with torch.no_grad():
        expected = module.first(x)
    accelerate.cpu_offload(module, execution_device=torch.device("cpu"))
    model = ix.load(module)
    if fail:
        handle = module.first.register_forward_hook(lambda *_: (_ for _ in ()).throw(ValueError("inside")))
        with pytest.raises(ValueError, match="inside"), model.hooked(["first"], lambda name, value: None):
            model.run(x)
        handle.remove()
    else:
        assert torch.equal(ix.capture(model, x, "first")["first"].torch(), expected)
    assert {p.device.type for p in module.parameters()} == {"meta"}


def test_weights_that_are_nowhere_are_refused() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    with pytest.raises(ModelError, match=r"parameter '0.weight' \[3, 4\] of Sequential is on the meta device, so it has no values: load"):
        ix.load(module)
    with pytest.raises(ModelError, match=r"'0.bias' \[3\] is on the meta device and nothing says where its values are"):
        weights_hash(module)


def test_the_place_of_inputs() -> None:
    assert input_device(nn.Tanh()) == torch.device("cpu")
    assert input_device(nn.Linear(2, 2, device="meta")) == torch.device("meta")
    assert devices_of(nn.Linear(2, 2)) == ["cpu"]


def test_options_that_would_do_nothing_are_refused(gpt2: Any, tmp_path: Path) -> None:
    import accelerate

    for given in ({"revision": "main"}, {"device_map": "auto"}, {"attn_implementation": "eager"}, {"local_files_only": True}):
        with pytest.raises(ModelError, match=rf"{next(iter(given))} cannot be applied to a module that is ready; they act"):
            ix.load(gpt2, **given)
    model = ix.load(gpt2)
    for given in ({"dtype": "float64"}, {"name": "other"}, {"device": "cpu"}):
        with pytest.raises(ModelError, match=rf"{next(iter(given))} cannot be applied to a loaded Model"):
            ix.load(model, **given)
    with pytest.raises(ModelError, match=r"dtype='bfloat61' is no dtype of torch; nearest: 'bfloat16'"):
        ix.load(gpt2, dtype="bfloat61")
    with pytest.raises(ModelError, match=r"device='cpu' and device_map=\{'': 'disk'\} both say where the weights go; give one of them"):
        ix.load(tmp_path, device="cpu", device_map={"": "disk"})
    moved = accelerate.cpu_offload(copy.deepcopy(gpt2), execution_device=torch.device("cpu"))
    with pytest.raises(ModelError, match=r"dtype='torch.float64': the parts of GPT2LMHeadModel were placed by accelerate and stay where"):
        ix.load(moved, dtype="float64")


def test_weights_from_a_download_are_told_by_their_commit_until_they_change(gpt2: Any, tmp_path: Path) -> None:
    gpt2.save_pretrained(tmp_path)
    model = ix.load(tmp_path)
    assert model.as_loaded and not ix.load(gpt2).as_loaded
    with torch.no_grad():
        next(model.module.parameters()).add_(1.0)
    assert not model.as_loaded
    from inscape.capturing.provenance import model_facts

    model.config._commit_hash = "abc"
    assert "weights_sha256" in model_facts(model, weights=True)
    again = ix.load(tmp_path)
    again.config._commit_hash = "abc"
    assert model_facts(again, weights=True)["commit"] == "abc" and "weights_sha256" not in model_facts(again, weights=True)


# Adapters


def _adapted(module: nn.Module, name: str = "default", seed: int = 0, **options: Any) -> Any:
    import peft

    torch.manual_seed(seed)
    conv = hasattr(module, "transformer")
    targets = ["c_attn", "c_proj", "c_fc"] if conv else ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
    config = peft.LoraConfig(target_modules=targets, r=4, init_lora_weights=False, fan_in_fan_out=conv, **options)
    return peft.get_peft_model(module, config, adapter_name=name).eval()


@both
def test_an_adapted_model_keeps_its_names_and_a_site_means_the_adapted_layer(module: nn.Module) -> None:
    plain = _captured(ix.load(copy.deepcopy(module)))
    wrapped = _adapted(module)
    model = ix.load(wrapped)
    found = _captured(model)
    assert list(found) == list(plain)
    assert (model.modality, model.family) == ("text", module.config.model_type)
    assert model.has_trunk and trunk_of(wrapped) is module.base_model and core(wrapped) is module
    if hasattr(module, "transformer"):
        block, paths = "transformer.h.1", {"attn_out": "attn.c_proj", "mlp_act": "mlp.c_proj:in", "z": "attn.c_proj:in"}
        fused = _hand(module, wrapped, "transformer.h.1.attn.c_attn")
        assert all(torch.equal(found[f"blocks.1.{n}"], part) for n, part in zip("qkv", fused.split(16, -1), strict=True))
    else:
        block, paths = "model.layers.1", {"attn_out": "self_attn.o_proj", "mlp_act": "mlp.down_proj:in", "z": "self_attn.o_proj:in"}
        paths |= {name: f"self_attn.{name}_proj" for name in "qkv"}
    for name, where in paths.items():
        path, _, port = where.partition(":")
        assert torch.equal(found[f"blocks.1.{name}"], _hand(module, wrapped, f"{block}.{path}", port or "out")), name
        assert not torch.equal(found[f"blocks.1.{name}"], plain[f"blocks.1.{name}"]), "the adapter acts"
    assert torch.equal(found["blocks.1.resid_post"], _hand(module, wrapped, block))
    with torch.no_grad():
        assert torch.equal(found["logits"], wrapped(input_ids=torch.tensor(IDS)).logits.flatten(0, 1))
    prefixed = _captured(model, f"base_model.model.{block}")
    assert torch.equal(prefixed[f"base_model.model.{block}"], found["blocks.1.resid_post"])


@first
def test_an_adapter_that_is_off_gives_the_plain_model(module: nn.Module) -> None:
    plain = _captured(copy.deepcopy(module))
    wrapped = _adapted(module)
    model = ix.load(wrapped)
    with wrapped.disable_adapter():
        assert _same(_captured(model), plain)
    adapted = _captured(model)
    assert not _same(adapted, plain)
    wrapped.merge_adapter()
    merged = _captured(model)
    for site, rows in merged.items():
        torch.testing.assert_close(rows, adapted[site], rtol=1e-4, atol=1e-5)


@first
def test_a_batch_of_different_lengths_reads_an_adapted_model_as_each_text_alone(module: nn.Module) -> None:
    model = ix.load(_adapted(module))
    texts = [IDS[0], IDS[1][:3], IDS[2][:2]]
    for side in ("right", "left"):
        store = ix.capture(model, texts, "blocks.*.resid_post", "all", padding_side=side, batch_size=3)
        for site in store.sites:
            together = store[site].torch()
            alone = torch.cat([ix.capture(model, [text], site, "all")[site].torch() for text in texts])
            torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_identity_tells_adapters_and_their_states_apart(gpt2: Any) -> None:
    wrapped = _adapted(copy.deepcopy(gpt2))
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
    other = ix.load(_adapted(copy.deepcopy(gpt2), seed=3)).identity()["adapters"]
    assert other["sha256"] != facts["sha256"]
    assert ix.load(_adapted(copy.deepcopy(gpt2))).identity()["adapters"] == facts, "the same adapter is the same"
    assert "adapters" not in ix.load(gpt2).identity()


def test_a_capture_with_another_adapter_does_not_resume_the_first(gpt2: Any, tmp_path: Path) -> None:
    wrapped = _adapted(copy.deepcopy(gpt2))
    wrapped.config._commit_hash = "abc"  # what a download has: the weights themselves are then not read
    ix.capture(wrapped, IDS, "blocks.0.resid_post", to=tmp_path / "s")
    assert ix.capture(wrapped, IDS, "blocks.0.resid_post", to=tmp_path / "s").complete
    with wrapped.disable_adapter(), pytest.raises(StoreMismatchError, match=r"model.adapters.enabled was True, now is False"):
        ix.capture(wrapped, IDS, "blocks.0.resid_post", to=tmp_path / "s")
    other = _adapted(copy.deepcopy(gpt2), seed=3)
    other.config._commit_hash = "abc"
    with pytest.raises(StoreMismatchError, match=r"model.adapters.sha256 was"):
        ix.capture(other, IDS, "blocks.0.resid_post", to=tmp_path / "s")
    merged = _adapted(copy.deepcopy(gpt2)).merge_and_unload()
    merged.config._commit_hash = "abc"
    ix.capture(copy.deepcopy(gpt2), IDS, "blocks.0.resid_post", to=tmp_path / "plain")
    with pytest.raises(StoreMismatchError, match=r"model.weights_sha256 was"):
        ix.capture(merged, IDS, "blocks.0.resid_post", to=tmp_path / "plain")


def test_the_folder_of_an_adapter_loads_its_model_too(gpt2: Any, tmp_path: Path) -> None:
    gpt2.save_pretrained(tmp_path / "base")
    base = type(gpt2).from_pretrained(tmp_path / "base").eval()
    wrapped = _adapted(base)
    wrapped.save_pretrained(tmp_path / "adapter")
    model = ix.load(tmp_path / "adapter")
    assert model.identity()["adapters"]["enabled"] and type(model.module).__name__ == "GPT2LMHeadModel"
    assert _same(_captured(model), _captured(wrapped))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match="the folder exists, but no model could be read from it"):
        ix.load(tmp_path / "empty")


@pytest.mark.parametrize("package", ["accelerate", "peft"])
def test_packages_that_are_missing(gpt2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    from inscape.models import loading

    gpt2.save_pretrained(tmp_path / "base")
    _adapted(type(gpt2).from_pretrained(tmp_path / "base")).save_pretrained(tmp_path / "adapter")
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
    expected = _captured(plain)
    compiled: Any = COMPILED[how](copy.deepcopy(llama))
    with torch.no_grad():
        before = compiled(torch.tensor(IDS)).logits  # compiled before any hook is there
    model = ix.load(compiled)
    assert _same(_captured(model), expected)
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


def test_data_parallel_shells_are_taken_off(gpt2: Any, process_group: Any) -> None:
    expected = _captured(copy.deepcopy(gpt2))
    for shell in (nn.DataParallel, nn.parallel.DistributedDataParallel):
        inner = copy.deepcopy(gpt2)
        model = ix.load(shell(inner))
        assert model.module is inner
        assert _same(_captured(model), expected)
    model = ix.load(torch.compile(nn.DataParallel(torch.compile(copy.deepcopy(gpt2), backend="eager")), backend="eager"))
    assert _same(_captured(model), expected)


@pytest.mark.filterwarnings("ignore")
def test_fully_sharded_modules_are_refused(process_group: Any) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    with pytest.raises(ModelError, match=r"is sharded by FullyShardedDataParallel: every process holds a part of each weight only"):
        ix.load(FullyShardedDataParallel(nn.Sequential(nn.Linear(4, 4)), device_id=torch.device("cpu")))


# Half precision and quantized weights


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_are_read_in_their_own_dtype(module: nn.Module, dtype: torch.dtype) -> None:
    model = ix.load(module, dtype=dtype)
    found = _captured(model)
    assert {rows.dtype for rows in found.values()} == {dtype}
    assert {site.rpartition(".")[2] for site in found} >= set(EVERY)
    path = "transformer.h.1" if hasattr(module, "transformer") else "model.layers.1"
    assert torch.equal(found["blocks.1.resid_post"], _hand(module, module, path))
    note = ix.capture(model, IDS, "blocks.1.resid_post").manifest.notes["fidelity"]
    assert note["model_dtype"] == str(dtype).removeprefix("torch.")


@both
def test_integer_weights_by_quanto(module: nn.Module) -> None:
    from optimum import quanto

    plain = ix.load(copy.deepcopy(module))
    quanto.quantize(module, weights=quanto.qint8)
    quanto.freeze(module)
    model = ix.load(module)
    found = _captured(model)
    assert {site.rpartition(".")[2] for site in found} >= set(EVERY)
    path = "transformer.h.1" if hasattr(module, "transformer") else "model.layers.1.self_attn.o_proj"
    site = "blocks.1.resid_post" if hasattr(module, "transformer") else "blocks.1.attn_out"
    assert torch.equal(found[site], _hand(module, module, path))
    facts = model.identity(weights=True)
    assert facts["quantization"]["weights"] == ["quanto.qint8"]
    assert sum(facts["quantization"]["layers"].values()) == sum(type(part).__name__ == "QLinear" for part in module.modules())
    assert facts["weights_sha256"] != plain.identity(weights=True)["weights_sha256"]


def test_integer_weights_while_loading(llama: Any, tmp_path: Path) -> None:
    from transformers import QuantoConfig

    llama.save_pretrained(tmp_path)
    model = ix.load(tmp_path, quantization_config=QuantoConfig(weights="int8"))
    facts = model.identity()["quantization"]
    assert (facts["method"], facts["config"]["weights"]) == ("quanto", "int8")
    found = _captured(model)
    assert {site.rpartition(".")[2] for site in found} >= set(EVERY)
    assert torch.equal(found["blocks.2.mlp_out"], _hand(model.module, model.module, "model.layers.2.mlp.down_proj"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_integer_weights_by_torch(llama: Any) -> None:
    def quantized(module: nn.Module) -> nn.Module:
        return torch.ao.quantization.quantize_dynamic(copy.deepcopy(module), {nn.Linear}, dtype=torch.qint8)

    module = quantized(llama)
    model = ix.load(module)
    found = _captured(model)
    assert {site.rpartition(".")[2] for site in found} >= set(EVERY)
    for name in "qkv":
        assert torch.equal(found[f"blocks.0.{name}"], _hand(module, module, f"model.layers.0.self_attn.{name}_proj"))
    assert torch.equal(found["blocks.0.mlp_act"], _hand(module, module, "model.layers.0.mlp.down_proj", "in"))
    facts = model.identity(weights=True)
    assert facts["quantization"]["layers"]["torch.ao.nn.quantized.dynamic.modules.linear.Linear"] == 22
    assert facts["weights_sha256"] == ix.load(quantized(llama)).identity(weights=True)["weights_sha256"]
    other = copy.deepcopy(llama)
    other.model.layers[1].mlp.up_proj.weight.data += 1.0
    assert ix.load(quantized(other)).identity(weights=True)["weights_sha256"] != facts["weights_sha256"], "packed weights count too"


@first
def test_nothing_is_left_on_an_adapted_compiled_offloaded_model(module: nn.Module) -> None:
    import accelerate

    wrapped = _adapted(module)
    accelerate.cpu_offload(wrapped, execution_device=torch.device("cpu"))
    model = ix.load(torch.compile(wrapped, backend="eager"))
    expected = _captured(model)
    state = {name: (p.device, p.requires_grad, p.shape) for name, p in wrapped.named_parameters()}
    assert _same(_captured(model), expected)
    assert {name: (p.device, p.requires_grad, p.shape) for name, p in wrapped.named_parameters()} == state
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in wrapped.modules())
