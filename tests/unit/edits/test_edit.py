"""Edits against hand-written hooks and hand-derived values; order, composition, tokens, generation, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inscape as ix
from inscape.errors import EditError, SiteNotFoundError

IDS = {"input_ids": torch.arange(12).reshape(2, 6)}
V = torch.linspace(-1, 1, 16)


def logits_with_hook(module: nn.Module, path: str, hook: Any, *, pre: bool = False) -> Tensor:
    part = module.get_submodule(path)
    handle = part.register_forward_pre_hook(hook) if pre else part.register_forward_hook(hook)
    with torch.no_grad():
        logits = module(**IDS).logits
    handle.remove()
    return logits


def read(model: ix.Model, site: str) -> Tensor:
    kept: list[Tensor] = []
    with model.hooked(site, lambda name, x: kept.append(x.clone())):
        model.run(IDS)
    return kept[0]


def test_add_equals_a_hand_written_hook(gpt2: Any) -> None:
    by_hand = logits_with_hook(gpt2, "transformer.h.1", lambda m, a, out: out + 4 * V)
    with ix.edit(gpt2, "blocks.1.resid_post", ix.edits.add(V, scale=4)) as model:
        assert torch.equal(model.run(IDS).logits, by_hand)


def test_ablated_head_equals_a_hand_written_hook(gpt2: Any) -> None:
    def zero(module: nn.Module, args: Any) -> Any:
        z = args[0].clone()
        z[..., 4:8] = 0
        return (z,)

    by_hand = logits_with_hook(gpt2, "transformer.h.2.attn.c_proj", zero, pre=True)
    with ix.edit(gpt2, "blocks.2.z", ix.edits.ablate(heads=[1])) as model:
        assert torch.equal(model.run(IDS).logits, by_hand)
    with ix.edit(gpt2, "blocks.2.z", ix.edits.ablate(heads=[-3])) as model:
        assert torch.equal(model.run(IDS).logits, by_hand)


def test_keys_inside_a_fused_projection(gpt2: Any) -> None:
    def double(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        q, k, v = out.split(16, -1)
        return torch.cat([q, 2 * k, v], -1)

    by_hand = logits_with_hook(gpt2, "transformer.h.0.attn.c_attn", double)
    with ix.edit(gpt2, "blocks.0.k", ix.edits.scale(2.0)) as model:
        assert torch.equal(model.run(IDS).logits, by_hand)


def test_mean_ablation_of_grouped_values(llama: Any) -> None:
    mean = torch.arange(8.0)

    def held(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        return torch.cat([out[..., :4], mean[4:].expand_as(out[..., 4:])], -1)

    by_hand = logits_with_hook(llama, "model.layers.1.self_attn.v_proj", held)
    with ix.edit(llama, "blocks.1.v", ix.edits.ablate("mean", mean=mean, heads=[1])) as model:
        assert torch.equal(model.run(IDS).logits, by_hand)


def test_tuple_output_of_attention(gpt2: Any) -> None:
    by_hand = logits_with_hook(gpt2, "transformer.h.0.attn", lambda m, a, out: (out[0] * 0.5, *out[1:]))
    with ix.edit(gpt2, "blocks.0.attn_out", ix.edits.scale(0.5)) as model:
        assert torch.equal(model.run(IDS).logits, by_hand)


def test_the_stream_between_attention_and_mlp_is_changed_for_both_its_readers(gpt2: Any, llama: Any, vit: Any) -> None:
    """Adding to resid_mid must reach the norm and the residual branch: it equals adding to what attention adds."""
    for module in (gpt2, llama):
        model = ix.load(module)
        with ix.edit(model, "blocks.1.attn_out", ix.edits.add(V)):
            expected = model.run(IDS).logits
        with ix.edit(model, "blocks.1.resid_mid", ix.edits.add(V)):
            assert torch.allclose(model.run(IDS).logits, expected, atol=1e-5)
    model = ix.load(vit)
    images = {"pixel_values": torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))}
    with ix.edit(model, "blocks.1.attn_out", ix.edits.add(V)):
        expected = model.run(images).last_hidden_state
    with ix.edit(model, "blocks.1.resid_mid", ix.edits.add(V)):
        assert torch.allclose(model.run(images).last_hidden_state, expected, atol=1e-5)


def test_project_out_leaves_nothing_along_the_directions(gpt2: Any) -> None:
    model = ix.load(gpt2)
    plain = read(model, "blocks.1.resid_post").double()
    basis = torch.stack([V, V**2, 2 * V])  # the third repeats the first
    q = torch.linalg.qr(basis[:2].double().T).Q
    with ix.edit(model, "blocks.1.resid_post", ix.edits.project_out(basis)):
        edited = read(model, "blocks.1.resid_post").double()
    assert torch.allclose(edited, plain - plain @ q @ q.T, atol=1e-5)
    assert float((edited @ basis.double().T).abs().max()) < 1e-5


def test_clamp_along_a_direction_and_of_a_unit(gpt2: Any) -> None:
    model = ix.load(gpt2)
    plain, axis = read(model, "blocks.0.resid_post"), V / V.norm()
    with ix.edit(model, "blocks.0.resid_post", ix.edits.clamp(direction=3 * V, value=2.0)):
        edited = read(model, "blocks.0.resid_post")
    assert torch.allclose(edited @ axis, torch.full((2, 6), 2.0), atol=1e-5)
    assert torch.allclose(edited - (edited @ axis)[..., None] * axis, plain - (plain @ axis)[..., None] * axis, atol=1e-5)
    with ix.edit(model, "blocks.0.resid_post", ix.edits.clamp(unit=3, min=-0.1, max=0.1)):
        edited = read(model, "blocks.0.resid_post")
    expected = plain.clone()
    expected[..., 3] = plain[..., 3].clamp(-0.1, 0.1)
    assert torch.equal(edited, expected)


def test_patch_of_everything_gives_the_other_run(gpt2: Any) -> None:
    model = ix.load(gpt2)
    other = {"input_ids": IDS["input_ids"] + 20}
    kept: list[Tensor] = []
    with model.hooked("blocks.1.resid_post", lambda n, x: kept.append(x.clone())):
        target = model.run(other).logits
    with ix.edit(model, "blocks.1.resid_post", ix.edits.patch(kept[0])):
        assert torch.equal(model.run(IDS).logits, target)
    with ix.edit(model, "blocks.1.resid_post", ix.edits.patch(kept[0], tokens=[2])):
        edited = read(model, "blocks.1.resid_post")
    assert torch.equal(edited[:, 2], kept[0][:, 2])
    assert torch.equal(edited[:, 3], read(model, "blocks.1.resid_post")[:, 3])


def test_another_vector_in_each_row_equals_separate_runs(gpt2: Any) -> None:
    model = ix.load(gpt2)
    both = torch.stack([V, -V])[:, None]
    with ix.edit(model, "blocks.1.resid_post", ix.edits.add(both)):
        together = model.run(IDS).logits
    for row, sign in enumerate((1, -1)):
        with ix.edit(model, "blocks.1.resid_post", ix.edits.add(sign * V)):
            alone = model.run({"input_ids": IDS["input_ids"][row : row + 1]}).logits
        assert torch.allclose(alone[0], together[row], atol=1e-5)


@pytest.mark.parametrize("read_first", [True, False])
@pytest.mark.parametrize("site", ["blocks.1.resid_post", "blocks.1.resid_mid", "blocks.1.z"])
def test_readers_see_edited_values_in_either_order(gpt2: Any, read_first: bool, site: str) -> None:
    model = ix.load(gpt2)
    expected = read(model, site) + V
    kept: list[Tensor] = []
    reader = model.hooked(site, lambda n, x: kept.append(x.clone()))
    change = ix.edit(model, site, ix.edits.add(V))
    first, second = (reader, change) if read_first else (change, reader)
    with first, second:
        model.run(IDS)
    assert torch.equal(kept[0], expected)


def test_edits_act_in_the_order_in_which_they_were_given(gpt2: Any) -> None:
    model = ix.load(gpt2)
    site = "blocks.1.resid_post"
    plain = read(model, site)
    add, double = ix.edits.add(V), ix.edits.scale(2.0)
    with ix.edit(model, site, [add, double]):
        assert torch.equal(read(model, site), (plain + V) * 2)
    with ix.edit(model, [(site, double), (site, add)]):
        assert torch.equal(read(model, site), plain * 2 + V)
    with ix.edit(model, site, add), ix.edit(model, site, double):
        assert torch.equal(read(model, site), (plain + V) * 2)
    with ix.edit(model, {site: double, "blocks.0.z": ix.edits.scale(1.0)}), ix.edit(model, site, add):
        assert torch.equal(read(model, site), plain * 2 + V)
    outer, inner = ix.edit(model, site, add), ix.edit(model, site, double)
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)  # the first may end first
    assert torch.equal(read(model, site), plain * 2)
    inner.__exit__(None, None, None)
    assert torch.equal(read(model, site), plain)


def test_an_edit_may_be_entered_again(gpt2: Any) -> None:
    model = ix.load(gpt2)
    plain = read(model, "blocks.0.z")
    steer = ix.edit(model, "blocks.0.z", ix.edits.add(V))
    for _ in range(2):
        with steer:
            assert torch.equal(read(model, "blocks.0.z"), plain + V)
    with steer, steer:
        assert torch.equal(read(model, "blocks.0.z"), plain + V + V)
    assert torch.equal(read(model, "blocks.0.z"), plain)


def test_last_token_under_padding(gpt2: Any) -> None:
    model = ix.load(gpt2)
    batch = {**IDS, "attention_mask": torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1]])}
    kept: list[Tensor] = []

    def run() -> Tensor:
        with model.hooked("blocks.1.resid_post", lambda n, x: kept.append(x.clone())):
            model.run(batch)
        return kept[-1]

    plain = run()
    with ix.edit(model, "blocks.1.resid_post", ix.edits.add(V, tokens="last")):
        changed = ~(run() == plain).all(-1)
    assert changed.nonzero().tolist() == [[0, 2], [1, 5]]
    with ix.edit(model, "blocks.1.resid_post", ix.edits.add(V, tokens=batch["attention_mask"].bool())):
        assert torch.equal(~(run() == plain).all(-1), batch["attention_mask"].bool())


def greedy(module: Any, ids: Tensor, steps: int) -> Tensor:
    """Greedy tokens by recomputing the whole sequence each time, without a cache."""
    for _ in range(steps):
        ids = torch.cat([ids, module(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    return ids


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("tokens", ["all", "mask", "positions"])
def test_generation_with_a_cache_equals_full_recomputation(name: str, tokens: str, request: pytest.FixtureRequest) -> None:
    module = request.getfixturevalue(name)
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    chosen: Any = {"all": "all", "mask": torch.tensor([True, False, True, True, False, True]), "positions": [1, 5]}[tokens]
    change = ix.edits.add(3 * V, tokens=chosen)
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    with torch.no_grad():
        plain = module.generate(ids, attention_mask=torch.ones_like(ids), **options)
        with ix.edit(module, "blocks.1.resid_post", change):
            cached = module.generate(ids, attention_mask=torch.ones_like(ids), use_cache=True, **options)
        if tokens != "all":  # position 5 does not exist in the first passes of a recomputation: compare with a mask of full length
            full = torch.zeros(12, dtype=torch.bool)
            full[[0, 2, 3, 5] if tokens == "mask" else [1, 5]] = True
            change = ix.edits.add(3 * V, tokens=full)
        with ix.edit(module, "blocks.1.resid_post", change):
            by_hand = greedy(module, ids, 8)
    assert cached.shape == (2, 12)
    if not bool((by_hand[:, 4:] == 1).any()):  # min_new_tokens forbids the end token, the hand-written loop does not
        assert torch.equal(cached, by_hand)
    assert tokens != "all" or not torch.equal(cached, plain)


def test_model_generate_with_a_tokenizer(gpt2: Any) -> None:
    class Letters:
        """Stands in for a tokenizer: the id of a character is its place in the alphabet."""

        def __call__(self, text: str, return_tensors: str) -> Any:
            from transformers import BatchEncoding

            ids = torch.tensor([[ord(letter) - 95 for letter in text]])
            return BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})

        def decode(self, ids: Tensor, skip_special_tokens: bool) -> str:
            return " ".join(str(int(i)) for i in ids)

    model = ix.load(gpt2, tokenizer=Letters())
    plain = model.generate("abc", max_new_tokens=5, min_new_tokens=5, pad_token_id=0)
    with torch.no_grad():
        ids = gpt2.generate(
            torch.tensor([[2, 3, 4]]), max_new_tokens=5, min_new_tokens=5, do_sample=False, pad_token_id=0, attention_mask=torch.ones(1, 3)
        )
    assert plain == " ".join(str(int(i)) for i in ids[0, 3:])
    with ix.edit(model, "blocks.*.resid_post", ix.edits.add(9 * V)):
        assert model.generate("abc", max_new_tokens=5, min_new_tokens=5, pad_token_id=0) != plain


def test_numbers_move_to_the_dtype_of_the_activations(gpt2: Any) -> None:
    import copy

    module = copy.deepcopy(gpt2).to(torch.bfloat16)
    by_hand = logits_with_hook(module, "transformer.h.1", lambda m, a, out: out + V.double().to(torch.bfloat16))
    with ix.edit(module, "blocks.1.resid_post", ix.edits.add(V.double())) as model:
        logits = model.run(IDS).logits
    assert logits.dtype == torch.bfloat16
    assert torch.equal(logits, by_hand)


def test_a_vector_can_be_trained_through_the_model(gpt2: Any) -> None:
    vector = V.clone().requires_grad_()
    for site in ("blocks.1.resid_post", "blocks.1.resid_mid"):
        with ix.edit(gpt2, site, ix.edits.add(vector)):
            (gradient,) = torch.autograd.grad(gpt2(**IDS).logits.square().sum(), vector)
        assert float(gradient.norm()) > 0
    step = 1e-2 * gradient / gradient.norm()
    double = ix.load(gpt2)

    def loss(shift: Tensor) -> float:
        with ix.edit(double, "blocks.1.resid_mid", ix.edits.add(V + shift)):
            return float(double.run(IDS).logits.double().square().sum())

    slope = (loss(step) - loss(-step)) / (2 * 1e-2)
    assert slope == pytest.approx(float(gradient.norm()), rel=2e-2)


def test_description_of_a_session(gpt2: Any) -> None:
    session = ix.edit(gpt2, {"blocks.2.z": ix.edits.ablate(heads=[1]), "blocks.*.resid_pre": ix.edits.scale(0.5)})
    assert [row["site"] for row in session.describe()] == ["blocks.2.z", "blocks.0.resid_pre", "blocks.1.resid_pre", "blocks.2.resid_pre"]
    assert session.describe()[0]["heads"] == [1]
    assert "blocks.2.z ← ablate(mode='zero', heads=(1,))" in repr(session)


MISFITS = [
    (
        "add",
        {"vector": torch.ones(5)},
        "blocks.0.z",
        r"the vector of add \(shape \(5,\)\) has 5 units, but site 'blocks.0.z' has 16; give one of length 16",
    ),
    ("replace", {"value": torch.ones(5)}, "blocks.0.z", r"the value of replace \(shape \(5,\)\) has 5 units"),
    ("project_out", {"basis": torch.ones(2, 5)}, "blocks.0.z", r"the basis of project_out \(shape \(2, 5\)\) has 5 units"),
    ("patch", {"values": torch.ones(2, 6, 5)}, "blocks.0.z", r"the values of patch \(shape \(2, 6, 5\)\) has 5 units"),
    ("clamp", {"direction": torch.ones(5), "value": 0.0}, "blocks.0.z", r"the direction of clamp \(shape \(5,\)\) has 5 units"),
    ("clamp", {"unit": 16, "value": 0.0}, "blocks.0.z", r"site 'blocks.0.z' has 16 units \(0 to 15\); there is no unit 16"),
    ("scale", {"factor": 1.0, "units": [99]}, "blocks.0.z", "there is no unit 99"),
    ("ablate", {"units": [-17]}, "blocks.0.z", "there is no unit -17"),
    ("ablate", {"heads": [4]}, "blocks.0.z", r"site 'blocks.0.z' has 4 heads \(0 to 3\); there is no head 4"),
    ("ablate", {"heads": [0]}, "blocks.0.resid_post", "site 'blocks.0.resid_post' is not made of attention heads"),
    ("ablate", {"mode": "mean", "mean": torch.ones(5)}, "blocks.0.z", r"the mean of ablate \(shape \(5,\)\) has 5 units"),
]


@pytest.mark.parametrize(("kind", "arguments", "site", "message"), MISFITS)
def test_misfits_are_told_before_the_run(kind: str, arguments: dict[str, Any], site: str, message: str, gpt2: Any) -> None:
    with pytest.raises(EditError, match=message):
        ix.edit(gpt2, site, getattr(ix.edits, kind)(**arguments))


BAD_ARGUMENTS = [
    (lambda: ix.edits.add(torch.tensor([1.0, float("nan")])), r"vector \(shape \(2,\)\) holds NaN or infinite values"),
    (lambda: ix.edits.add(torch.tensor(1.0)), "vector must have one entry per unit, got a single number"),
    (lambda: ix.edits.project_out(torch.zeros(3)), r"project_out: direction 0 of the basis \(shape \(3,\)\) is zero"),
    (lambda: ix.edits.project_out(torch.ones(1, 2, 3)), r"a direction \[d\] or a basis \[k, d\], got shape \(1, 2, 3\)"),
    (lambda: ix.edits.clamp(value=1.0), "either a unit or a direction"),
    (lambda: ix.edits.clamp(unit=1), "either a value or limits"),
    (lambda: ix.edits.clamp(unit=1, min=2.0, max=1.0), "min=2.0 is above max=1.0"),
    (lambda: ix.edits.clamp(direction=torch.zeros(3), value=1.0), "one direction .* that is not zero"),
    (lambda: ix.edits.ablate("mean"), r"mode='mean' needs mean=\[d\]"),
    (lambda: ix.edits.ablate("zero", mean=torch.ones(2)), r"mode='mean' needs mean=\[d\], and only that mode takes it"),
    (lambda: ix.edits.ablate(units=[1], heads=[1]), "units or heads, not both"),
    (lambda: ix.edits.patch(torch.ones(3)), r"patch takes values \[b, t, d\] or \[b, d\], got shape \(3,\)"),
    (lambda: ix.edits.scale(1.0, tokens="first"), "tokens='first' is not known; give 'all', 'last', a mask"),
    (lambda: ix.edits.scale(1.0, tokens=[]), "token positions are a list of whole numbers"),
    (
        lambda: ix.edits.scale(1.0, tokens=torch.ones(1, 1, 1, dtype=torch.bool)),
        r"a token mask has shape \[b, t\] or \[t\], got \(1, 1, 1\)",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD_ARGUMENTS)
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises(EditError, match=message):
        make()


def test_misfits_that_only_a_run_shows(gpt2: Any) -> None:
    model = ix.load(gpt2)
    site = "blocks.0.resid_post"
    cases = [
        (ix.edits.patch(torch.ones(3, 6, 16)), r"values have shape \(3, 6, 16\), but the activations have \(2, 6, 16\)"),
        (ix.edits.patch(torch.ones(2, 7, 16)), "values cover 7 positions, but this run has 6"),
        (ix.edits.add(torch.ones(3, 1, 16)), r"failed at site 'blocks.0.resid_post', whose activations have shape \(2, 6, 16\)"),
        (ix.edits.scale(2.0, tokens=[6]), "token position 6 lies outside the 6 positions"),
        (
            ix.edits.scale(2.0, tokens=torch.ones(3, 6, dtype=torch.bool)),
            "the token mask has 3 rows, but the batch at site 'blocks.0.resid_post' has 2",
        ),
    ]
    for change, message in cases:
        with pytest.raises(EditError, match=message), ix.edit(model, site, change):
            model.run(IDS)
    net = ix.load(nn.Linear(3, 2))
    with (
        pytest.raises(EditError, match="holds one vector per stimulus"),
        ix.edit(nn.Sequential(net.module), "0", ix.edits.scale(2.0, tokens="last")) as one,
    ):
        one.run(torch.ones(4, 3))


def test_how_edit_may_be_called(gpt2: Any) -> None:
    with pytest.raises(SiteNotFoundError, match=r"unknown site 'blocks.0.zz'; nearest: 'blocks.0.z'"):
        ix.edit(gpt2, "blocks.0.zz", ix.edits.scale(1.0))
    with pytest.raises(EditError, match=r"no edit was given for site 'blocks.0.z'; for instance ix.edits.add\(vector\)"):
        ix.edit(gpt2, "blocks.0.z")
    with pytest.raises(EditError, match=r"expected an edit for site 'blocks.0.z', got Tensor of shape \(16,\); for instance"):
        ix.edit(gpt2, "blocks.0.z", V)
    with pytest.raises(EditError, match="either a site and its edit, or a mapping"):
        ix.edit(gpt2, {"blocks.0.z": ix.edits.scale(1.0)}, ix.edits.scale(1.0))
    with pytest.raises(EditError, match="there is nothing to edit"):
        ix.edit(gpt2, {})


@pytest.mark.parametrize("given", [V.tolist(), V.numpy(), V.double()], ids=["list", "array", "fp64"])
def test_vectors_may_be_lists_and_arrays(given: Any, gpt2: Any) -> None:
    model = ix.load(gpt2)
    with ix.edit(model, "blocks.1.z", ix.edits.add(V)):
        expected = model.run(IDS).logits
    with ix.edit(model, "blocks.1.z", ix.edits.add(given)):
        assert torch.equal(model.run(IDS).logits, expected)
