"""Raw paths: recurrent layers, convolutions, and every container a module may take or return."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import inscape as ix
from inscape.errors import InscapeError, SiteNotFoundError
from tests.unit.models.conftest import Answer


def read(model: ix.Model, sites: Any, batch: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    with model.hooked(sites, lambda name, x: found.__setitem__(name, x.clone())):
        model.run(batch)
    return found


class Recurrent(nn.Module):
    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, batch_first=batch_first)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Any) -> torch.Tensor:
        _, (h, _) = self.lstm(x)
        return self.head(h[-1])


def test_lstm_gives_its_states() -> None:
    torch.manual_seed(0)
    net, x = Recurrent(), torch.randn(2, 5, 3)
    model = ix.load(net)
    got = read(model, ["lstm", "head"], x)
    assert torch.equal(got["lstm"], net.lstm(x)[0])
    assert got["head"].shape == (2, 2)
    assert [(site.name, site.kind) for site in model.resolve(["lstm", "head"])] == [("lstm", "frames"), ("head", "vector")]


def test_time_first_lstm_is_turned_to_rows_of_stimuli() -> None:
    torch.manual_seed(0)
    net, x = Recurrent(batch_first=False), torch.randn(5, 2, 3)
    got = read(ix.load(net), ["lstm", "lstm:in"], x)
    assert torch.equal(got["lstm"], net.lstm(x)[0].transpose(0, 1))
    assert torch.equal(got["lstm:in"], x.transpose(0, 1))
    with ix.edit(net, "lstm", ix.edits.add(torch.ones(4))) as model:
        kept: list[Any] = []
        handle = net.lstm.register_forward_hook(lambda m, a, o: kept.append(o[0].clone()))
        model.run(x)
        handle.remove()
    assert torch.equal(kept[0], net.lstm(x)[0] + 1)


def test_packed_sequences_are_padded_and_packed_again() -> None:
    torch.manual_seed(0)
    net, x, lengths = Recurrent(), torch.randn(3, 5, 3), torch.tensor([2, 5, 3])
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    model = ix.load(net)
    got = read(model, ["lstm", "lstm:in"], {"x": packed})
    padded, _ = pad_packed_sequence(net.lstm(packed)[0], batch_first=True)
    assert torch.equal(got["lstm"], padded)
    assert torch.equal(got["lstm:in"][1], x[1])
    assert bool((got["lstm"][0, 2:] == 0).all())
    kept: list[Any] = []
    with ix.edit(model, "lstm:in", ix.edits.scale(2.0)):
        handle = net.lstm.register_forward_hook(lambda m, a, o: kept.append(o[0]))
        edited = model.run({"x": packed})
        handle.remove()
    doubled = pack_padded_sequence(2 * x, lengths, batch_first=True, enforce_sorted=False)
    assert torch.equal(edited, net(doubled))
    assert torch.equal(kept[0].batch_sizes, packed.batch_sizes)


def test_convolutions_give_one_row_per_place() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    x = torch.randn(2, 1, 8, 8)
    model = ix.load(net)
    got = read(model, ["0", "1", "4"], x)
    maps = net[0](x)
    assert torch.equal(got["0"], maps.permute(0, 2, 3, 1).reshape(2, 64, 4))
    assert torch.equal(got["1"], maps.relu().permute(0, 2, 3, 1).reshape(2, 64, 4))
    assert model.resolve("0")[0].kind == "patches"
    with ix.edit(model, "1", ix.edits.ablate(units=[2])):
        edited = model.run(x)
    kept = maps.relu()
    kept[:, 2] = 0
    assert torch.allclose(edited, net[4](kept.mean((2, 3))), atol=1e-6)


def test_sound_convolution_puts_time_before_channels(wav2vec2_group: Any) -> None:
    model = ix.load(wav2vec2_group)
    x = torch.randn(2, 60)
    got = read(model, ["feature_extractor.conv_layers.1", "feature_projection.projection"], {"input_values": x})
    assert got["feature_extractor.conv_layers.1"].shape == (2, 13, 8)  # frames, channels
    assert torch.equal(got["feature_extractor.conv_layers.1"], wav2vec2_group.feature_extractor(x).transpose(1, 2))
    assert got["feature_projection.projection"].shape == (2, 13, 16)


def test_mlp_in_and_out() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), torch.randn(4, 3)
    model = ix.load(net)
    got = read(model, ["0", "2:in", "logits"], x)
    assert torch.equal(got["0"], net[0](x))
    assert torch.equal(got["2:in"], net[0](x).relu())
    assert torch.equal(got["logits"], net(x))
    assert {row.name: row.shape for row in model.sites()}["0"] == (2, 5)


class Returns(nn.Module):
    """Returns its states inside whatever container it is told."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.wrap = wrap

    def forward(self, x: torch.Tensor) -> Any:
        return self.wrap(self.inner(x))


WRAPS: dict[str, tuple[Any, Any]] = {
    "tuple": (lambda x: (x, None), lambda y: y[0]),
    "ids first": (lambda x: (torch.zeros(2, dtype=torch.long), x), lambda y: y[1]),
    "list": (lambda x: [x, 3], lambda y: y[0]),
    "dict": (lambda x: {"mask": torch.ones(2, dtype=torch.bool), "states": x}, lambda y: y["states"]),
    "dataclass": (lambda x: Answer("a", x), lambda y: y.states),
    "nested": (lambda x: {"deep": (None, [x])}, lambda y: y["deep"][1][0]),
}


@pytest.mark.parametrize("name", list(WRAPS))
def test_containers_are_read_and_written_back(name: str) -> None:
    wrap, unwrap = WRAPS[name]
    torch.manual_seed(0)
    net = nn.Sequential(Returns(wrap))
    x = torch.randn(2, 3)
    model = ix.load(net)
    plain = net(x)
    assert torch.equal(read(model, "0", x)["0"], unwrap(plain))
    with ix.edit(model, "0", ix.edits.add(torch.ones(3))):
        edited = model.run(x)
    assert type(edited) is type(plain)
    assert torch.equal(unwrap(edited), unwrap(plain) + 1)


def test_model_outputs_keep_their_type(gpt2: Any) -> None:
    ids = torch.arange(6)[None]
    plain = gpt2.transformer(ids)
    with ix.edit(gpt2, "transformer", ix.edits.scale(2.0)) as model:
        kept: list[Any] = []
        handle = gpt2.transformer.register_forward_hook(lambda m, a, o: kept.append(o))
        logits = model.run({"input_ids": ids}).logits
        handle.remove()
    assert type(kept[0]) is type(plain)
    assert torch.equal(kept[0].last_hidden_state, kept[0][0])
    assert torch.allclose(logits, gpt2.lm_head(2 * plain.last_hidden_state), atol=1e-5)


def test_no_floating_tensor_is_an_error() -> None:
    net = nn.Sequential(Returns(lambda x: {"label": "a"}))
    with pytest.raises(InscapeError, match=r"site '0': the output of module '0' holds no floating tensor \(it is dict\)"):
        read(ix.load(net), "0", torch.ones(2, 3))


def test_an_example_where_none_can_be_made_up() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(6, 4)

        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return self.mix(torch.cat([left, right], -1))

    model = ix.load(Odd())
    assert "no shapes" in model.sites().note
    with pytest.raises(SiteNotFoundError, match="site 'logits' cannot be located: the dry run on random numbers"):
        model.resolve("logits")
    example = {"left": torch.randn(2, 3), "right": torch.randn(2, 3)}
    assert model.sites(example=example)[0].name == "logits"
    assert read(model, "logits", example)["logits"].shape == (2, 4)


def test_a_forward_of_ones_own() -> None:
    net = nn.Linear(3, 2)
    model = ix.load(nn.Sequential(net), forward=lambda module, batch: module(batch["points"] * 2))
    x = torch.randn(4, 3)
    assert torch.equal(read(model, "0", {"points": x})["0"], net(2 * x))


def test_pytorchs_own_transformer() -> None:
    torch.manual_seed(0)
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=False), 2, enable_nested_tensor=False).eval()
    model = ix.load(net)
    x = torch.randn(5, 2, 16)
    got = read(model, ["blocks.1.resid_pre", "blocks.1.attn_out", "blocks.1.resid_mid"], x)
    layer = net.layers[1]
    assert got["blocks.1.resid_pre"].shape == (2, 5, 16)
    assert torch.allclose(layer.norm1(got["blocks.1.resid_pre"] + got["blocks.1.attn_out"]), got["blocks.1.resid_mid"], atol=1e-5)
    with pytest.raises(SiteNotFoundError, match="attention runs fused, without modules for its projections"):
        model.resolve("blocks.1.q")


def test_a_transformer_over_pictures_has_patches() -> None:
    from inscape.zoo import DigitsViT

    model = ix.load(DigitsViT())
    assert {site.kind for site in model.resolve("blocks.*.*")} == {"patches"}
    assert model.resolve("logits")[0].kind == "vector"


def test_a_module_without_parts_has_its_output_as_a_site():
    lstm = torch.nn.LSTM(5, 7, batch_first=True)
    x = torch.randn(6, 4, 5)
    model = ix.load(lstm)
    names = [info.name for info in model.sites(example=x)]
    assert names == ["output", "output:out.1.0", "output:out.1.1"]  # all states; then the last hidden and cell states
    seen = {}
    with model.hooked(model.resolve("output"), lambda name, value: seen.update({name: value.clone()})):
        model.run({"input": x})
    assert torch.equal(seen["output"], lstm(x)[0])
