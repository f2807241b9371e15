"""Networks that do not read text: stages of different width, maps of channels, registers, spectra, and the reasons for what they lack."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import inscape as ix
from inscape.errors import SiteNotFoundError
from inscape.models.loading import load
from tests.families.catalog import families, seeded
from tests.unit.models.conftest import SMALL


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def without_gradients() -> Generator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def resnet() -> ix.Model:
    return load(seeded(families()["ResNet"].make))


@pytest.fixture(scope="module")
def convnext() -> ix.Model:
    return load(seeded(families()["ConvNeXt"].make))


def read(model: ix.Model, sites: Any, batch: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    with model.hooked(sites, lambda name, x: found.__setitem__(name, x.clone())):
        model.run(batch)
    return found


def places(maps: Tensor) -> Tensor:
    """Rows of a map [b, c, h, w]: one per place."""
    b, c, h, w = maps.shape
    return maps.permute(0, 2, 3, 1).reshape(b, h * w, c)


def test_a_residual_network_in_stages(resnet: ix.Model) -> None:
    pixels = noise(2, 3, 32, 48)  # no square, so that height and width cannot be exchanged unseen
    states = resnet.module(pixels, output_hidden_states=True).hidden_states
    got = read(resnet, ["embed", "stages.*.blocks.*.*", "logits"], {"pixel_values": pixels})
    assert torch.equal(got["embed"], places(states[0]))
    for stage, last in ((0, 1), (1, 0), (2, 1)):
        assert torch.equal(got[f"stages.{stage}.blocks.{last}.resid_post"], places(states[stage + 1]))
    assert torch.equal(got["stages.2.blocks.0.resid_post"], got["stages.2.blocks.1.resid_pre"])
    assert torch.equal(got["logits"], resnet.module(pixels).logits)
    block = resnet.module.get_submodule("resnet.encoder.stages.2.layers.1")
    stream = got["stages.2.blocks.1.resid_pre"].transpose(1, 2).reshape(states[3].shape)
    assert torch.allclose(places((stream + block.layer(stream)).relu()), got["stages.2.blocks.1.resid_post"], atol=1e-5)
    notes = {site.name: site.note for site in resnet.resolve("stages.*.blocks.*.*")}
    assert notes["stages.2.blocks.1.resid_post"] == "after the activation that follows the sum"
    assert {site.kind for site in resnet.resolve("stages.*.blocks.*.*")} == {"patches"}


def test_a_convolutional_network_with_its_channels_last_inside(convnext: ix.Model) -> None:
    pixels = noise(2, 3, 16, 24)
    states = convnext.module(pixels, output_hidden_states=True).hidden_states
    got = read(convnext, ["stages.*.blocks.*.*", "final_norm", "convnext.encoder.stages.1.layers.0.pwconv1"], {"pixel_values": pixels})
    for stage, last in enumerate((0, 1, 0, 0)):
        assert torch.equal(got[f"stages.{stage}.blocks.{last}.resid_post"], places(states[stage + 1]))
    layer = convnext.module.get_submodule("convnext.encoder.stages.1.layers.0")
    stream = got["stages.1.blocks.0.resid_pre"].transpose(1, 2).reshape(2, 6, -1, states[2].shape[3])
    inside = layer.pwconv1(layer.layernorm(layer.dwconv(stream).permute(0, 2, 3, 1)))  # [b, h, w, c]: channels last already
    assert torch.allclose(got["convnext.encoder.stages.1.layers.0.pwconv1"], inside.flatten(1, 2), atol=1e-5)
    pooled = states[-1].mean((2, 3))
    assert torch.allclose(got["final_norm"], convnext.module.convnext.layernorm(pooled), atol=1e-6)
    assert convnext.resolve("final_norm")[0].note == "the norm of the mean over places"
    assert convnext.resolve("final_norm")[0].kind == "vector"


def test_an_edit_of_a_map_acts_at_its_place(resnet: ix.Model) -> None:
    pixels = noise(2, 3, 32, 48)
    with ix.edit(resnet, "stages.1.blocks.0.resid_post", ix.edits.ablate(units=[2])):
        edited = read(resnet, "stages.2.blocks.0.resid_pre", {"pixel_values": pixels})["stages.2.blocks.0.resid_pre"]
    plain = resnet.module(pixels, output_hidden_states=True).hidden_states[2].clone()
    plain[:, 2] = 0
    assert torch.equal(edited, places(plain))


def test_what_a_network_in_stages_lacks_is_said(resnet: ix.Model) -> None:
    with pytest.raises(SiteNotFoundError, match="stages of different width; a convolutional block has no attention and no MLP branch"):
        resnet.resolve("blocks.0.q")
    with pytest.raises(SiteNotFoundError, match=r"stages of different width; say 'stages\.0\.blocks\.\*\.resid_post'"):
        resnet.resolve("blocks.*.resid_post")
    with pytest.raises(SiteNotFoundError, match="no site 'stages.1.blocks.0.q': a convolutional block has no attention"):
        resnet.resolve("stages.1.blocks.0.q")
    with pytest.raises(SiteNotFoundError, match="no norm follows the last block"):
        resnet.resolve("final_norm")
    assert [site.name for site in resnet.resolve("stages.-1.blocks.-1.resid_post")] == ["stages.2.blocks.1.resid_post"]
    text = repr(resnet.sites())
    assert text.index("stages.0") < text.index("stages.2")


def test_windows_of_attention_are_no_rows_of_stimuli() -> None:
    model = ix.load(seeded(families()["Swin"].make))
    batch = {"pixel_values": noise(2, 3, 16, 16)}
    got = read(model, "stages.1.blocks.1.*", batch)
    assert torch.allclose(
        got["stages.1.blocks.1.resid_pre"] + got["stages.1.blocks.1.attn_out"], got["stages.1.blocks.1.resid_mid"], atol=1e-5
    )
    assert torch.allclose(
        got["stages.1.blocks.1.resid_mid"] + got["stages.1.blocks.1.mlp_out"], got["stages.1.blocks.1.resid_post"], atol=1e-5
    )
    with pytest.raises(SiteNotFoundError, match="attention runs within windows"):
        model.resolve("stages.0.blocks.0.k")


class Staged(nn.Module):
    """Stages as attributes with a number at their end, as many write them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layer1 = nn.Sequential(Residual(4), Residual(4))
        self.down = nn.Conv2d(4, 6, 2, stride=2)
        self.layer2 = nn.Sequential(Residual(6))
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer2(self.down(self.layer1(self.stem(x)))).mean((2, 3)))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(x)


def test_stages_of_ones_own() -> None:
    model = ix.load(seeded(Staged))
    pixels = noise(2, 3, 8, 10)
    got = read(model, ["stages.0.blocks.1.resid_post", "stages.1.blocks.0.resid_post", "layer1.0.mix.0", "down", "logits"], pixels)
    seen: dict[str, Tensor] = {}
    for path in ("layer1.1", "layer2.0", "layer1.0.mix.0", "down"):
        model.module.get_submodule(path).register_forward_hook(lambda m, a, out, path=path: seen.__setitem__(path, out))
    logits = model.module(pixels)
    assert torch.equal(got["stages.0.blocks.1.resid_post"], places(seen["layer1.1"]))
    assert torch.equal(got["stages.1.blocks.0.resid_post"], places(seen["layer2.0"]))
    assert torch.equal(got["layer1.0.mix.0"], places(seen["layer1.0.mix.0"]))
    assert torch.equal(got["down"], places(seen["down"]))
    assert torch.equal(got["logits"], logits)
    assert model.resolve("stages.0.blocks.0.resid_post")[0].note == ""


class Chain(nn.Module):
    """Convolutions one after the other, which add to nothing."""

    def __init__(self) -> None:
        super().__init__()
        block = lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())  # noqa: E731
        self.stem, self.blocks = nn.Conv2d(3, 4, 1), nn.Sequential(block(), block())

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))


def test_blocks_that_add_to_nothing_have_no_stream() -> None:
    model = ix.load(Chain())
    with pytest.raises(SiteNotFoundError, match="no list of equal blocks was found that add to one stream.*name its parts by their paths"):
        model.resolve("blocks.0.resid_post")
    assert read(model, "blocks.0", noise(2, 3, 8, 8))["blocks.0"].shape == (2, 64, 4)


class Mixed(nn.Module):
    """A part that takes maps with the channels first and holds linear maps over channels: its kinds alone do not tell its layout."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).mean((2, 3))


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.line = nn.Conv2d(3, 7, 1), nn.Linear(7, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_channels_are_the_axis_that_does_not_follow_the_size() -> None:
    model = ix.load(seeded(Mixed))
    pixels = noise(2, 3, 7, 7)  # as many places in a row as channels
    got = read(model, ["inner", "inner.conv", "inner.line", "inner:in"], pixels)
    inner = model.module.inner
    assert torch.equal(got["inner"], places(inner(pixels)))
    assert torch.equal(got["inner.conv"], places(inner.conv(pixels)))
    assert torch.equal(got["inner.line"], inner.line(inner.conv(pixels).permute(0, 2, 3, 1)).flatten(1, 2))
    assert torch.equal(got["inner:in"], places(pixels))


def test_the_class_token_and_the_registers_are_positions() -> None:
    model = ix.load(seeded(families()["DINOv2 with registers"].make))
    pixels = noise(2, 3, 8, 12)  # its positions are interpolated to other sizes
    got = read(model, ["blocks.1.*", "final_norm"], {"pixel_values": pixels})
    assert got["blocks.1.resid_post"].shape == (2, 1 + 3 + 6, 16)
    assert torch.equal(got["final_norm"], model.module(pixels).last_hidden_state)
    pre, attn, mid, mlp, post = (got[f"blocks.1.{name}"] for name in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"))
    assert torch.allclose(pre + attn, mid, atol=1e-5)
    assert torch.allclose(mid + mlp, post, atol=1e-5)
    layer = model.module.get_submodule("encoder.layer.1")
    assert torch.allclose(attn, layer.layer_scale1(layer.attention.o_proj(got["blocks.1.z"])), atol=1e-5)


def test_pictures_of_another_shape_and_channels() -> None:
    table = ix.load(seeded(families()["ViT classifier"].make)).sites()
    assert "random images of shape (2, 1, 8, 12)" in table.note
    assert {row.name: row.shape for row in table}["blocks.1.resid_post"] == (2, 7, 16)


def test_spectra_of_sound_as_pictures() -> None:
    from transformers import ASTConfig, ASTModel

    config = ASTConfig(**SMALL, patch_size=4, frequency_stride=4, time_stride=4, max_length=16, num_mel_bins=8)
    model = ix.load(seeded(lambda: ASTModel(config)))
    assert model.modality == "audio"
    spectra = noise(2, 16, 8)
    got = read(model, ["blocks.2.resid_post", "final_norm"], {"input_values": spectra})
    states = model.module(spectra, output_hidden_states=True)
    assert torch.equal(got["final_norm"], states.last_hidden_state)
    assert torch.equal(got["blocks.2.resid_post"], states.hidden_states[3])


def test_features_of_sound_that_are_no_spectra() -> None:
    from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel

    config = Wav2Vec2BertConfig(**SMALL, feature_projection_input_dim=12, output_hidden_size=16, position_embeddings_type=None)
    model = ix.load(seeded(lambda: Wav2Vec2BertModel(config)))
    features = noise(2, 10, 12)
    got = read(model, ["blocks.1.resid_post"], {"input_features": features})
    assert torch.equal(got["blocks.1.resid_post"], model.module(features, output_hidden_states=True).hidden_states[2])


def test_stages_of_a_transformer_whose_keys_are_fewer() -> None:
    from transformers import SegformerConfig, SegformerModel

    sizes = {"num_encoder_blocks": 2, "depths": [1, 2], "sr_ratios": [2, 1], "hidden_sizes": [8, 16], "mlp_ratios": [2, 2]}
    config = SegformerConfig(**sizes, patch_sizes=[3, 3], strides=[2, 2], num_attention_heads=[1, 2])
    model = ix.load(seeded(lambda: SegformerModel(config)))
    got = read(model, "stages.1.blocks.1.*", {"pixel_values": noise(2, 3, 32, 32)})
    pre, attn, mid, mlp, post = (
        got[f"stages.1.blocks.1.{name}"] for name in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
    )
    assert torch.allclose(pre + attn, mid, atol=1e-4)
    assert torch.allclose(mid + mlp, post, atol=1e-4)
    keys, queries = (model.atlas().rows(model.resolve(f"stages.0.blocks.0.{name}")[0]) for name in ("k", "q"))
    assert keys is not None
    assert queries is not None
    assert 4 * keys[1] == queries[1]


def test_a_detector_has_a_backbone_beside_its_stacks() -> None:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    eyes = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6, 8], depths=[1, 1, 2], layer_type="basic", out_features=["stage3"])
    sizes = {f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 32))}
    config = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=eyes, d_model=16, num_queries=5, **sizes
    )
    model = ix.load(seeded(lambda: DetrForObjectDetection(config)))
    assert model.towers == ("encoder", "decoder", "backbone")
    names = ["backbone.stages.2.blocks.1.resid_post", "blocks.0.resid_post", "decoder.blocks.0.resid_post"]
    got = read(model, names, {"pixel_values": noise(2, 3, 32, 32)})
    seen = model.module(noise(2, 3, 32, 32), output_hidden_states=True)
    assert torch.equal(got["blocks.0.resid_post"], seen.encoder_hidden_states[1])
    assert torch.equal(got["decoder.blocks.0.resid_post"], seen.decoder_hidden_states[1])
    assert got["backbone.stages.2.blocks.1.resid_post"].shape == (2, 4, 8)


def test_a_u_net_has_blocks_in_too_many_places_for_one_name() -> None:
    import diffusers

    net = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    model = ix.load(seeded(lambda: net))
    example = {"sample": noise(2, 3, 8, 8), "timestep": torch.tensor([1, 5])}
    assert not [row for row in model.sites(example=example) if row.canonical and row.available]
    with pytest.raises(SiteNotFoundError, match="blocks stand in several places .*, none of which is the main stack; name its parts"):
        model.resolve("blocks.0.resid_post")
    seen: list[Tensor] = []
    handle = net.down_blocks[1].attentions[0].register_forward_hook(lambda m, a, out: seen.append(out))
    got = read(model, "down_blocks.1.attentions.0", example)["down_blocks.1.attentions.0"]
    handle.remove()
    assert torch.equal(got, places(seen[-1]))
