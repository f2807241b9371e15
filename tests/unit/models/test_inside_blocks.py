"""Blocks that no library has: what can be proved is named, what cannot is refused with the reason, nothing is guessed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inscape as ix
from inscape.errors import InscapeError, SiteNotFoundError
from inscape.models import Model, Site, dryrun
from inscape.models.names import in_order
from inscape.models.values import Layout
from tests.unit.models.conftest import seeded

IDS = {"ids": torch.randint(0, 30, (3, 6), generator=torch.Generator().manual_seed(2))}


class Attention(nn.Module):
    """Four heads from one projection, whose columns stand in the order of `order`; `norm` also normalizes queries and keys."""

    def __init__(self, order: str = "qkv", norm: bool = False) -> None:
        super().__init__()
        self.order = order
        self.mixed, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.q_norm, self.k_norm = (nn.LayerNorm(4), nn.LayerNorm(4)) if norm else (nn.Identity(), nn.Identity())

    def split(self, x: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.order, self.mixed(x).chunk(3, -1), strict=True))

    def forward(self, x: Tensor) -> Tensor:
        parts = {name: value.unflatten(-1, (4, 4)) for name, value in self.split(x).items()}
        q, k, v = self.q_norm(parts["q"]), self.k_norm(parts["k"]), parts["v"]
        z = nn.functional.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v)), is_causal=True)
        return self.out(z.transpose(1, 2).flatten(2))


class Sinks(nn.Module):
    """Attention written out, with a column of scores that belongs to no key; the keys and values stand on two projections."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(16, 32), nn.Linear(16, 16), nn.Linear(16, 16)
        self.sink = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        k, v = (part.unflatten(-1, (4, 4)).transpose(1, 2) for part in self.first(x).chunk(2, -1))
        q = self.second(x).unflatten(-1, (4, 4)).transpose(1, 2) * 0.5
        scores = torch.matmul(q, k.transpose(2, 3))
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf)
        scores = torch.cat([scores, self.sink[None, :, None, None].expand(*scores.shape[:3], 1)], -1)
        return self.out(torch.matmul(scores.softmax(-1)[..., :-1], v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm, with a choice of attention, of a factor on both branches, and of a switch that no class shows."""

    def __init__(self, attn: nn.Module, *, factor: float = 1.0, mlp: bool = True, turn: int = 0) -> None:
        super().__init__()
        self.attn, self.factor, self.turn = attn, factor, turn
        self.norm1, self.norm2 = nn.LayerNorm(16), nn.LayerNorm(16)
        self.up, self.down = (nn.Linear(16, 32), nn.Linear(32, 16)) if mlp else (None, None)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.factor * self.attn(self.norm1(x))
        if self.up is None or self.down is None:
            return x
        hidden = self.up(self.norm2(x)).relu()
        return x + self.factor * self.down(hidden if not self.turn else hidden.flip(-1))


class Net(nn.Module):
    """Words, blocks, a head."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.words, self.blocks, self.norm, self.head = nn.Embedding(30, 16), nn.ModuleList(blocks), nn.LayerNorm(16), nn.Linear(16, 30)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def made(*blocks: nn.Module, net: type[Net] = Net) -> Model:
    return ix.load(seeded(lambda: net(*blocks)), name="net")


def read(model: Model, number: int) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    with model.hooked(f"blocks.{number}.*", lambda name, x: found.__setitem__(name.rsplit(".", 1)[-1], x.clone())):
        model.run(IDS)
    return found


def reason(model: Model, name: str) -> str:
    with pytest.raises(SiteNotFoundError) as error:
        model.resolve(name)
    return str(error.value)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("order", ["qkv", "vkq", "kqv"])
def test_the_order_of_a_fused_projection_is_read_off_what_attention_multiplies(order: str, norm: bool) -> None:
    model = made(Block(Attention()), Block(Attention(order, norm)))
    site, block = read(model, 1), model.module.get_submodule("blocks.1")
    for name, expected in block.attn.split(block.norm1(site["resid_pre"])).items():
        assert torch.equal(site[name], expected)
    note = model.resolve("blocks.1.q")[0].note
    assert note == f"part of one fused projection, {'before their norm' if norm else 'as attention reads them'}"


def test_attention_that_is_written_out_is_followed_too() -> None:
    model = made(Block(Attention()), Block(Sinks()))
    site, block = read(model, 1), model.module.get_submodule("blocks.1")
    x = block.norm1(site["resid_pre"])
    k, v = block.attn.first(x).chunk(2, -1)
    assert torch.equal(site["q"], block.attn.second(x))
    assert torch.equal(site["k"], k)
    assert torch.equal(site["v"], v)
    assert torch.equal(block.attn.out(site["z"]), site["attn_out"])
    assert model.resolve("blocks.1.q")[0].note == "before the factor 0.5"


def test_a_branch_that_is_scaled_on_its_way_is_not_what_is_added() -> None:
    model = made(Block(Attention(), factor=0.5), Block(Attention(), factor=0.5))
    assert "the block multiplies what its Attention returns by a constant before adding it" in reason(model, "blocks.1.attn_out")
    assert "the block multiplies what its Linear returns by a constant" in reason(model, "blocks.1.mlp_out")
    site, block = read(model, 1), model.module.get_submodule("blocks.1")
    assert torch.allclose(site["resid_pre"] + 0.5 * block.attn.out(site["z"]), site["resid_mid"], atol=1e-6)
    assert torch.allclose(site["resid_mid"] + 0.5 * block.down(site["mlp_act"]), site["resid_post"], atol=1e-6)


def test_a_block_of_attention_alone() -> None:
    model = made(Block(Attention(), mlp=False), Block(Attention(), mlp=False))
    site = read(model, 1)
    assert torch.allclose(site["resid_pre"] + site["attn_out"], site["resid_post"], atol=1e-6)
    assert "no MLP: attention is all that this block adds" in reason(model, "blocks.1.mlp_out")
    assert "the block adds one branch only" in reason(model, "blocks.1.resid_mid")


def test_what_one_does_not_expect_of_a_model_is_not_listed_and_explained_when_asked() -> None:
    model = made(Block(Attention()), Block(Attention()))
    assert "this block has no mixture of experts" in reason(model, "blocks.0.router")
    assert "attention is what mixes the positions of this block; read attn_out" in reason(model, "blocks.1.mixer_out")
    assert "attends to no other sequence" in reason(model, "blocks.1.cross_attn_out")
    assert not [row.name for row in model.sites() if row.name.endswith(("router", "mixer_out", "cross_attn_out"))]


def test_blocks_that_are_built_alike_and_run_otherwise_are_not_taken_for_each_other() -> None:
    class Turned(Block):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if not self.turn else x + self.down(self.up(self.norm2(x + self.attn(self.norm1(x)))))

    model = made(Turned(Attention()), Turned(Attention(), turn=1))
    assert {"attn_out", "resid_mid", "mlp_out"} <= set(read(model, 0))
    assert set(read(model, 1)) == {"resid_pre", "resid_post"}
    assert "the block is not a sum of its input, an attention branch and an MLP branch" in reason(model, "blocks.1.attn_out")


class Skipping(Block):
    """Every block but the first leaves its own attention out."""

    def __init__(self, index: int) -> None:
        super().__init__(Attention())
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        x = x + (self.norm1(x) if self.index else self.attn(self.norm1(x)))
        return x + self.down(self.up(self.norm2(x)).relu())


def test_a_block_that_leaves_its_attention_out_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(Skipping(0), Skipping(1))
    assert set(read(model, 1)) == {"resid_pre", "resid_post"}
    assert "the block is not a sum of its input, an attention branch and an MLP branch" in reason(model, "blocks.1.z")
    # Where a dry run cannot keep what is inside every block, one that is built like it stands for it; not if it runs other parts.
    monkeypatch.setattr(dryrun, "SPARE_BYTES", 0)
    model = made(Skipping(0), Skipping(1), Skipping(0))
    assert "block 1 runs other modules than block 0, which is built like it" in reason(model, "blocks.1.z")
    assert set(read(model, 2)) == {*"qkvz", "resid_pre", "attn_out", "resid_mid", "mlp_act", "mlp_out", "resid_post"}


def test_two_branches_of_one_kind_are_not_called_attention_and_mlp() -> None:
    class Double(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.Tanh()) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.first(x)
            return x + self.second(x)

    model = made(Double(), Double())
    assert set(read(model, 1)) == {"resid_pre", "resid_post"}
    assert "is not a sum" in reason(model, "blocks.1.mlp_out")


class Apart(Net):
    """The list holds halves of blocks, with attention in a list of its own between them."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__(*blocks)
        self.others = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.Tanh()) for _ in blocks)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        for block, other in zip(self.blocks, self.others, strict=True):
            x = x + other(block(x)) + 1.0
        return self.head(self.norm(x))


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = Attention()

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x)


def test_a_list_whose_members_do_not_follow_each_other_is_no_stack() -> None:
    model = made(Halves(), Halves(), net=Apart)
    assert not [row.name for row in model.sites() if row.name.startswith("blocks.") and row.canonical and row.available]


class Twice(Net):
    """The same stack over two inputs: its second run does not go on where the first ended."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) + super().forward(ids.flip(1))


def test_a_stack_that_runs_twice_over_different_inputs_has_no_numbered_blocks() -> None:
    model = made(Block(Attention()), Block(Attention()), net=Twice)
    assert not [row.name for row in model.sites() if row.name.startswith("blocks.3")]


class Universal(Net):
    """One block that runs three times, each time on what it returned."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        for _ in range(3):
            x = self.blocks[0](x)
        return self.head(self.norm(x))


def test_a_block_that_runs_three_times_is_three_blocks() -> None:
    model = made(Block(Attention()), net=Universal)
    assert [site.call for site in model.resolve("blocks.*.resid_mid")] == [0, 1, 2]
    assert model.resolve("blocks.-1.z") == model.resolve("blocks.2.z")
    for number in range(3):
        site = read(model, number)
        assert torch.allclose(site["resid_pre"] + site["attn_out"], site["resid_mid"], atol=1e-6)
        assert torch.allclose(site["resid_mid"] + site["mlp_out"], site["resid_post"], atol=1e-6)
    assert torch.equal(read(model, 1)["resid_post"], read(model, 2)["resid_pre"])


def test_groups_of_columns_are_read_and_written_back() -> None:
    wide = torch.arange(48.0).reshape(1, 2, 24)
    layout = Layout(grouped=(3, 2, 5))
    expected = wide.view(1, 2, 3, 8)[..., 2:5].reshape(1, 2, 9)
    assert torch.equal(layout.read(wide), expected)
    changed = layout.write(wide, -expected)
    assert torch.equal(layout.read(changed), -expected)
    assert torch.equal(changed.view(1, 2, 3, 8)[..., :2], wide.view(1, 2, 3, 8)[..., :2])
    assert torch.equal(changed.view(1, 2, 3, 8)[..., 5:], wide.view(1, 2, 3, 8)[..., 5:])


def test_one_axis_of_stimuli_and_positions_is_unfolded_and_folded() -> None:
    site = Site("blocks.0.router", "gate", grid="block")
    flat = torch.arange(24.0).reshape(6, 4)
    rows = site.read(flat, (2, 3))
    assert torch.equal(rows, flat.view(2, 3, 4))
    assert torch.equal(site.write(flat, -rows, (2, 3)), -flat)
    with pytest.raises(InscapeError, match=r"'blocks.0.router': the output of module 'gate' has shape \[6, 4\].*expected 2×4 of them"):
        site.read(flat, (2, 4))


def test_names_of_a_block_stand_in_the_order_of_computation() -> None:
    names = ["blocks.0.experts_out", "blocks.0.mixer_out", "blocks.0.router", "blocks.0.resid_mid", "blocks.0.resid_pre"]
    expected = ["resid_pre", "mixer_out", "resid_mid", "router", "experts_out"]
    assert [name.rsplit(".", 1)[-1] for name in sorted(names, key=in_order)] == expected


class Remembering(nn.Module):
    """A running mean over everything before, padding included, whatever the mask says; `after` looks at what follows as well."""

    def __init__(self, after: bool = False) -> None:
        super().__init__()
        self.words, self.after = nn.Embedding(30, 8), after

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.words(input_ids)
        means = x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[None, :, None]
        return means if not self.after else means + x.mean(1, keepdim=True)


def _capture(model: Model, side: str, **options: Any) -> Any:
    ids = [[1, 2, 3], [4, 5, 6, 7, 8], [9], [10, 11, 12, 13]]
    return ix.capture(model, ids, sites="output", tokens="all", padding_side=side, progress=False, **options)


@pytest.mark.parametrize(("after", "side", "mixes"), [(False, "right", True), (False, "left", False), (True, "right", False)])
def test_lengths_share_a_batch_only_where_padding_is_not_read(after: bool, side: str, mixes: bool) -> None:
    """A mask among the arguments promises nothing: one short text is run alone and padded, and the rows are compared."""
    model = ix.load(seeded(lambda: Remembering(after)), name="remembering")
    together, alone = _capture(model, side), _capture(model, side, batch_size=1)
    assert torch.allclose(together["output"].torch(), alone["output"].torch(), atol=1e-6)
    assert together.manifest.plan["input"]["mixes_lengths"] is mixes
    runs: list[int] = []
    handle = model.module.register_forward_hook(lambda m, args, out: runs.append(out.shape[0]))
    _capture(model, side)
    handle.remove()
    assert runs[0] == 2  # the probe; what padding does is known by now
    assert runs[1:] == ([4] if mixes else [1, 1, 1, 1])
