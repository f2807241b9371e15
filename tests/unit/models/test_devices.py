"""Offloaded, half-precision and quantized models: read as a hook by hand reads them, or refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inscape as ix
from inscape.errors import ModelError
from inscape.models.identity import weights_hash
from inscape.models.placement import devices_of, input_device, is_dispatched
from inscape.models.wrappers import trunk_of

from .by_hand import EVERY, IDS, captured, hand, logits, same


@pytest.fixture
def module(request: pytest.FixtureRequest) -> nn.Module:
    """A copy of the model that the test names, so that it may be dispatched or adapted."""
    return copy.deepcopy(request.getfixturevalue(request.param))


both = pytest.mark.parametrize("module", ["gpt2", "llama"], indirect=True)
first = pytest.mark.parametrize("module", ["gpt2", pytest.param("llama", marks=pytest.mark.slow)], indirect=True)


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
    expected = captured(module)
    assert {site.rpartition(".")[2] for site in expected} >= set(EVERY)
    module.save_pretrained(tmp_path / "model")
    model = ix.load(tmp_path / "model", device_map=place(module), offload_folder=str(tmp_path / "weights"))
    assert any(p.device.type == "meta" for p in model.module.parameters()), "some weights are not in memory"
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    assert same(captured(model), expected)
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
    assert same(captured(model), captured(plain))
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
    untouched = logits(plain)
    for where, change in changes:
        with ix.edit(plain, where, change):
            expected, rows = logits(plain), captured(plain, "blocks.*.resid_post")
        with ix.edit(moved, where, change):
            assert torch.equal(logits(moved), expected)
            assert same(captured(moved, "blocks.*.resid_post"), rows)
        assert not torch.equal(expected, untouched)
    assert torch.equal(logits(moved), untouched)


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


# Half precision and quantized weights


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_are_read_in_their_own_dtype(module: nn.Module, dtype: torch.dtype) -> None:
    model = ix.load(module, dtype=dtype)
    found = captured(model)
    assert {rows.dtype for rows in found.values()} == {dtype}
    assert {site.rpartition(".")[2] for site in found} >= set(EVERY)
    path = "transformer.h.1" if hasattr(module, "transformer") else "model.layers.1"
    assert torch.equal(found["blocks.1.resid_post"], hand(module, module, path))
    note = ix.capture(model, IDS, "blocks.1.resid_post").manifest.notes["fidelity"]
    assert note["model_dtype"] == str(dtype).removeprefix("torch.")


@both
def test_integer_weights_by_quanto(module: nn.Module) -> None:
    from optimum import quanto

    plain = ix.load(copy.deepcopy(module))
    quanto.quantize(module, weights=quanto.qint8)
    quanto.freeze(module)
    model = ix.load(module)
    found = captured(model)
    assert {site.rpartition(".")[2] for site in found} >= set(EVERY)
    path = "transformer.h.1" if hasattr(module, "transformer") else "model.layers.1.self_attn.o_proj"
    site = "blocks.1.resid_post" if hasattr(module, "transformer") else "blocks.1.attn_out"
    assert torch.equal(found[site], hand(module, module, path))
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
    found = captured(model)
    assert {site.rpartition(".")[2] for site in found} >= set(EVERY)
    assert torch.equal(found["blocks.2.mlp_out"], hand(model.module, model.module, "model.layers.2.mlp.down_proj"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_integer_weights_by_torch(llama: Any) -> None:
    def quantized(module: nn.Module) -> nn.Module:
        return torch.ao.quantization.quantize_dynamic(copy.deepcopy(module), {nn.Linear}, dtype=torch.qint8)

    module = quantized(llama)
    model = ix.load(module)
    found = captured(model)
    assert {site.rpartition(".")[2] for site in found} >= set(EVERY)
    for name in "qkv":
        assert torch.equal(found[f"blocks.0.{name}"], hand(module, module, f"model.layers.0.self_attn.{name}_proj"))
    assert torch.equal(found["blocks.0.mlp_act"], hand(module, module, "model.layers.0.mlp.down_proj", "in"))
    facts = model.identity(weights=True)
    assert facts["quantization"]["layers"]["torch.ao.nn.quantized.dynamic.modules.linear.Linear"] == 22
    assert facts["weights_sha256"] == ix.load(quantized(llama)).identity(weights=True)["weights_sha256"]
    other = copy.deepcopy(llama)
    other.model.layers[1].mlp.up_proj.weight.data += 1.0
    assert ix.load(quantized(other)).identity(weights=True)["weights_sha256"] != facts["weights_sha256"], "packed weights count too"
