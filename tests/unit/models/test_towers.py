"""Models of several stacks: names per tower, the equations of the stream in each, and passes that run one tower alone."""

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
from tests.unit.models.conftest import SMALL, footprint, same_footprint

IDS = torch.arange(4, 16).reshape(2, 6)
STARTED = torch.tensor([[0, 5, 6], [0, 7, 8]])
PIXELS = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
FEATURES = torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(2))
TEXT, BOTH = {"input_ids": IDS}, {"input_ids": IDS, "decoder_input_ids": STARTED}


@pytest.fixture(autouse=True)
def without_gradients() -> Generator[None]:
    """Kernels may differ with gradients on, and passes run without."""
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def models() -> dict[str, ix.Model]:
    made = {name: families()[name].make for name in ("T5", "BART", "Whisper", "CLIP", "SigLIP", "LLaVA")}
    return {name: load(seeded(make)) for name, make in made.items()}


def read(model: ix.Model, sites: Any, batch: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    with model.hooked(sites, lambda name, x: found.__setitem__(name, x.clone())):
        model.run(batch)
    return found


def test_every_stack_has_its_names(models: dict[str, ix.Model]) -> None:
    assert models["T5"].towers == models["Whisper"].towers == ("encoder", "decoder")
    assert models["CLIP"].towers == models["SigLIP"].towers == ("text", "vision")
    assert models["LLaVA"].towers == ("", "vision")
    assert models["CLIP"].modality == models["LLaVA"].modality == "multimodal"
    paths = {site.name: site.path for site in models["Whisper"].resolve(["blocks.2.resid_post", "decoder.blocks.2.resid_post"])}
    assert paths == {"blocks.2.resid_post": "model.encoder.layers.2", "decoder.blocks.2.resid_post": "model.decoder.layers.2"}
    kinds = {
        name: models[name].resolve(site)[0].kind for name, site in [("Whisper", "embed"), ("T5", "decoder.embed"), ("CLIP", "vision.embed")]
    }
    assert kinds == {"Whisper": "frames", "T5": "tokens", "CLIP": "patches"}
    assert models["Whisper"].resolve("logits")[0].kind == "tokens"
    assert models["T5"].resolve("decoder.blocks.1.resid_mid")[0].note == "between self-attention and cross-attention"
    assert (
        models["BART"].resolve("decoder.blocks.1.resid_mid_cross")[0].note.startswith("between cross-attention and the MLP; after the norm")
    )
    assert models["T5"].resolve("blocks.1.resid_mid")[0].note == ""


BATCHES = {
    "T5": BOTH,
    "BART": BOTH,
    "Whisper": {"input_features": FEATURES, "decoder_input_ids": STARTED},
    "CLIP": {**TEXT, "pixel_values": PIXELS},
    "SigLIP": {**TEXT, "pixel_values": PIXELS},
}


@pytest.mark.parametrize("name", list(BATCHES))
def test_branches_add_up_in_every_tower(models: dict[str, ix.Model], name: str) -> None:
    model = models[name]
    got = read(model, "**", BATCHES[name])
    for tower in ("", "decoder.") if name in ("T5", "BART", "Whisper") else ("text.", "vision."):
        stream, *rest = (got[f"{tower}blocks.1.{part}"] for part in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"))
        attn, mid, mlp, post = rest
        before = got.get(f"{tower}blocks.1.resid_mid_cross", mid)
        if name == "BART":  # the norm stands behind each sum
            layer = model.module.get_submodule(model.resolve(f"{tower}blocks.1.resid_post")[0].path)
            assert torch.allclose(layer.self_attn_layer_norm(stream + attn), mid, atol=1e-4)
            assert torch.allclose(layer.final_layer_norm(before + mlp), post, atol=1e-4)
            if tower == "decoder.":
                crossed = layer.encoder_attn_layer_norm(mid + got["decoder.blocks.1.cross_attn_out"])
                assert torch.allclose(crossed, before, atol=1e-4)
            continue
        assert torch.allclose(stream + attn, mid, atol=1e-4)
        assert torch.allclose(before + mlp, post, atol=1e-4)
        assert torch.equal(got[f"{tower}blocks.2.resid_pre"], post)
        if tower == "decoder.":
            assert torch.allclose(mid + got["decoder.blocks.1.cross_attn_out"], before, atol=1e-4)


def test_the_encoder_also_goes_by_its_own_name(models: dict[str, ix.Model]) -> None:
    model = models["T5"]
    assert [site.name for site in model.resolve("encoder.blocks.1.resid_post")] == ["encoder.blocks.1.resid_post"]
    got = read(model, ["blocks.1.q", "encoder.blocks.1.q", "logits", "decoder.logits"], BOTH)
    assert torch.equal(got["blocks.1.q"], got["encoder.blocks.1.q"])
    assert torch.equal(got["logits"], got["decoder.logits"])
    assert [site.name for site in model.resolve("*.blocks.2.resid_post")] == ["decoder.blocks.2.resid_post", "encoder.blocks.2.resid_post"]
    assert [site.name for site in model.resolve("decoder.blocks.-1.cross_attn_out")] == ["decoder.blocks.2.cross_attn_out"]
    assert {site.tower for site in model.resolve(["encoder.*", "encoder.blocks.*.*"])} == {"encoder"}
    with pytest.raises(SiteNotFoundError, match="unknown site 'encoder.logits'"):
        model.resolve("encoder.logits")
    assert "blocks.* can also be called encoder.blocks.*" in model.sites().note


def test_transformer_lens_names_of_an_encoder_decoder(models: dict[str, ix.Model]) -> None:
    model = models["T5"]
    names = {
        "encoder.1.hook_resid_mid": "encoder.blocks.1.resid_mid",
        "decoder.1.hook_resid_mid_cross": "decoder.blocks.1.resid_mid_cross",
        "decoder.1.hook_cross_attn_out": "decoder.blocks.1.cross_attn_out",
        "decoder.blocks.1.attn.hook_q": "decoder.blocks.1.q",
    }
    for alias, name in names.items():
        assert [site.name for site in model.resolve(alias)] == [name]
    rows = {row.name: row.alias for row in model.sites()}
    assert rows["decoder.blocks.1.attn_out"] == "decoder.1.hook_attn_out"
    assert rows["blocks.1.attn_out"] == "blocks.1.hook_attn_out"


def test_rows_belong_to_the_tower_that_made_them(models: dict[str, ix.Model]) -> None:
    crossed = "decoder.block.0.layer.1.EncDecAttention"
    towers = {site.name: site.tower for site in models["T5"].resolve([f"{crossed}.q", f"{crossed}.k", "lm_head", "encoder.block.0"])}
    assert towers == {f"{crossed}.q": "decoder", f"{crossed}.k": "encoder", "lm_head": "decoder", "encoder.block.0": "encoder"}
    towers = {site.name: site.tower for site in models["CLIP"].resolve(["visual_projection", "text_projection"])}
    assert towers == {"visual_projection": "vision", "text_projection": "text"}
    paths = ["model.multi_modal_projector", "lm_head", "model.language_model.layers.0", "model.vision_tower.encoder.layers.0"]
    assert [site.tower for site in models["LLaVA"].resolve(paths)] == ["vision", "", "", "vision"]
    assert {site.tower for site in models["LLaVA"].resolve("blocks.*.*")} == {""}


@pytest.mark.parametrize("name", ["CLIP", "SigLIP"])
def test_a_dual_encoder_runs_one_tower_alone(models: dict[str, ix.Model], name: str) -> None:
    model = models[name]
    ran: list[str] = []
    handles = [
        model.module.get_submodule(path).register_forward_hook(lambda m, a, o, path=path: ran.append(path))
        for path in ("text_model", "vision_model")
    ]
    texts = read(model, ["text.blocks.2.resid_post", "text.embedding"], TEXT)
    images = read(model, ["vision.blocks.2.resid_post", "vision.embedding"], {"pixel_values": PIXELS})
    assert ran == ["text_model", "vision_model"]
    for handle in handles:
        handle.remove()
    whole = model.module(input_ids=IDS, pixel_values=PIXELS)
    for made, compared in ((texts["text.embedding"], whole.text_embeds), (images["vision.embedding"], whole.image_embeds)):
        assert torch.allclose(made / made.norm(dim=-1, keepdim=True), compared, atol=1e-6)
    assert torch.equal(texts["text.embedding"], model.module.get_text_features(input_ids=IDS).pooler_output)
    states = model.module.text_model(input_ids=IDS, output_hidden_states=True).hidden_states
    assert torch.equal(texts["text.blocks.2.resid_post"], states[3])


def test_a_dual_encoder_has_no_main_stack(models: dict[str, ix.Model]) -> None:
    model = models["CLIP"]
    with pytest.raises(SiteNotFoundError, match=r"2 stacks and none of them is the main one; say 'text\.blocks\.0\.q' or 'vision\.blocks"):
        model.resolve("blocks.0.q")
    with pytest.raises(SiteNotFoundError, match=r"say 'text\.embed' or 'vision\.embed'"):
        model.resolve("embed")
    with pytest.raises(SiteNotFoundError, match="scores every text against every image"):
        model.resolve("logits")
    assert len(model.resolve("*.blocks.*.resid_post")) == 6


def test_a_vision_language_model_runs_as_a_whole_or_in_parts(models: dict[str, ix.Model]) -> None:
    model = models["LLaVA"]
    image = model.config.image_token_id
    ids = torch.cat([torch.full((2, 4), image), IDS], 1)
    got = read(model, ["blocks.1.resid_post", "vision.blocks.1.resid_post", "logits"], {"input_ids": ids, "pixel_values": PIXELS})
    whole = model.module(input_ids=ids, pixel_values=PIXELS, output_hidden_states=True)
    assert torch.equal(got["logits"], whole.logits)
    assert torch.equal(got["blocks.1.resid_post"], whole.hidden_states[2])
    alone = read(model, "vision.blocks.1.resid_post", {"pixel_values": PIXELS})
    assert torch.equal(alone["vision.blocks.1.resid_post"], got["vision.blocks.1.resid_post"])
    assert torch.equal(read(model, "logits", TEXT)["logits"], model.module(input_ids=IDS).logits)


def test_the_encoder_runs_without_the_decoder_where_only_it_is_asked(models: dict[str, ix.Model]) -> None:
    for name, batch in (("T5", TEXT), ("Whisper", {"input_features": FEATURES})):
        model, decoded = models[name], []
        decoder = model.module.get_decoder()
        handle = decoder.register_forward_pre_hook(lambda m, a, ran=decoded: ran.append(1))
        model.resolve("blocks.1.resid_post")
        decoded.clear()
        found: list[Tensor] = []
        with model.hooked("blocks.2.resid_post", lambda name, x, found=found: found.append(x.clone()), stop_after_last=True):
            assert model.run(batch) is None
        handle.remove()
        assert not decoded
        states = model.module.get_encoder()(**batch, output_hidden_states=True).hidden_states
        # What transformers calls the last state has passed the final norm.
        last = model.module.get_submodule(model.resolve("final_norm")[0].path)
        assert torch.allclose(last(found[0]), states[-1], atol=1e-6)


def test_a_decoder_without_inputs_begins_with_its_start_token(models: dict[str, ix.Model]) -> None:
    for name, batch in (("T5", TEXT), ("Whisper", {"input_features": FEATURES})):
        model = models[name]
        start = torch.full((2, 1), model.config.decoder_start_token_id)
        assert torch.equal(model.run(batch).logits, model.module(**batch, decoder_input_ids=start).logits)
    shifted = models["BART"].run(TEXT).logits  # BART makes them itself, from the text
    assert torch.equal(shifted, models["BART"].module(**TEXT).logits)
    assert shifted.shape[1] == 6
    labels = torch.tensor([[5, 6], [7, 8]])
    assert torch.equal(models["T5"].run({**TEXT, "labels": labels}).logits, models["T5"].module(**TEXT, labels=labels).logits)


def test_an_edit_of_the_decoder_counts_its_own_tokens(models: dict[str, ix.Model]) -> None:
    model = models["T5"]
    padded = {
        "input_ids": IDS,
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]]),
        "decoder_input_ids": STARTED,
        "decoder_attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
    }
    plain = read(model, ["blocks.1.resid_post", "decoder.blocks.1.resid_post"], padded)
    for name, last in (("blocks.1.resid_post", (5, 1)), ("decoder.blocks.1.resid_post", (1, 2))):
        with ix.edit(model, name, ix.edits.add(torch.ones(16), tokens="last")):
            edited = read(model, name, padded)[name]
        expected = plain[name].clone()
        for row, at in enumerate(last):
            expected[row, at] += 1
        assert torch.equal(edited, expected)


def test_an_edit_of_one_tower_acts_in_a_pass_of_it_alone(models: dict[str, ix.Model]) -> None:
    model = models["CLIP"]
    before = footprint(model.module)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    with ix.edit(model, "text.blocks.1.resid_post", ix.edits.add(torch.ones(16), tokens="last")):
        edited = read(model, "text.blocks.1.resid_post", {**TEXT, "attention_mask": mask})["text.blocks.1.resid_post"]
    plain = read(model, "text.blocks.1.resid_post", {**TEXT, "attention_mask": mask})["text.blocks.1.resid_post"]
    assert [tuple(at) for at in (edited - plain).abs().sum(-1).nonzero().tolist()] == [(0, 5), (1, 2)]
    assert same_footprint(before, footprint(model.module))


def test_names_do_not_depend_on_the_example() -> None:
    model = ix.load(seeded(families()["CLIP"].make))
    table = model.sites(example=TEXT)
    rows = {row.name: row for row in table}
    assert rows["text.blocks.1.q"].shape == (2, 6, 16)
    assert rows["vision.blocks.1.resid_post"].shape is None  # its tower did not run
    assert model.towers == ("text", "vision")


def test_encoders_and_decoders_of_other_families_joined() -> None:
    from transformers import GPT2Config, VisionEncoderDecoderConfig, VisionEncoderDecoderModel, ViTConfig

    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    words = GPT2Config(n_layer=2, n_embd=16, n_head=4, n_positions=32, vocab_size=44, add_cross_attention=True, is_decoder=True, **ends)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**SMALL, image_size=8, patch_size=4), words)
    model = ix.load(seeded(lambda: VisionEncoderDecoderModel(config)))
    assert model.modality == "image"
    got = read(model, "**.resid_post", {"pixel_values": PIXELS})  # the decoder begins with its start token
    assert got["blocks.2.resid_post"].shape == (2, 5, 16)
    assert got["decoder.blocks.1.resid_post"].shape == (2, 1, 16)
    assert [model.resolve(name)[0].kind for name in ("embed", "decoder.embed", "logits")] == ["patches", "tokens", "tokens"]


def test_a_dual_encoder_for_sound_in_stages() -> None:
    from transformers import ClapConfig, ClapModel

    words = {**SMALL, "vocab_size": 44, "max_position_embeddings": 24, "projection_dim": 12}
    sounds = {"patch_embeds_hidden_size": 8, "depths": [1, 2], "num_attention_heads": [2, 4], "window_size": 4, "spec_size": 64}
    rest = {"num_mel_bins": 16, "hidden_size": 16, "patch_size": 4, "patch_stride": [4, 4], "projection_dim": 12}
    model = ix.load(seeded(lambda: ClapModel(ClapConfig(text_config=words, audio_config={**sounds, **rest}, projection_dim=12))))
    assert model.towers == ("text", "audio")
    batch = {"input_features": torch.randn(2, 1, 256, 16, generator=torch.Generator().manual_seed(0))}
    names = [
        "audio.stages.1.blocks.1.resid_pre",
        "audio.stages.1.blocks.1.attn_out",
        "audio.stages.1.blocks.1.resid_mid",
        "audio.embedding",
    ]
    pre, attn, mid, embedding = read(model, names, batch).values()
    assert torch.allclose(pre + attn, mid, atol=1e-5)
    assert torch.equal(torch.nn.functional.normalize(embedding, dim=-1), model.module.get_audio_features(**batch).pooler_output)


def test_a_folder_of_a_model_with_two_towers(tmp_path: Any) -> None:
    from tests.families.tokenizer import make_tokenizer

    module: Any = seeded(families()["CLIP"].make)
    module.save_pretrained(tmp_path)
    make_tokenizer(special=True).save_pretrained(tmp_path)
    model = ix.load(tmp_path)
    assert model.modality == "multimodal"
    assert model.tokenizer is not None
    assert model.tokenizer("w0 w1")["input_ids"] == [1, 4, 5, 2]
    assert torch.equal(read(model, "text.embedding", TEXT)["text.embedding"], module.get_text_features(input_ids=IDS).pooler_output)


def test_a_folder_of_an_encoder_decoder_has_its_head(tmp_path: Any) -> None:
    module: Any = seeded(families()["T5"].make)
    module.save_pretrained(tmp_path)
    model = ix.load(tmp_path)
    assert isinstance(model.module, type(module))
    assert torch.equal(model.run(BOTH).logits, module(**BOTH).logits)


class TwoStacks(nn.Module):
    """Two stacks without any word in their paths that tells what they are."""

    def __init__(self) -> None:
        super().__init__()
        make = lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)  # noqa: E731
        self.left = nn.ModuleDict({"layers": nn.ModuleList([make() for _ in range(2)])})
        self.right = nn.ModuleDict({"layers": nn.ModuleList([make() for _ in range(3)])})

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.left["layers"], *self.right["layers"]):
            x = layer(x)
        return x


def test_stacks_that_no_word_tells_apart_go_by_their_paths() -> None:
    model = ix.load(seeded(TwoStacks))
    example = torch.randn(2, 5, 16)
    table = model.sites(example=example)
    assert {row.name for row in table if row.name.endswith("resid_post")} == {
        *(f"blocks.{i}.resid_post" for i in range(3)),
        *(f"left.blocks.{i}.resid_post" for i in range(2)),
    }
    got = read(model, ["left.blocks.1.resid_post", "blocks.0.resid_pre"], example)
    assert torch.equal(got["left.blocks.1.resid_post"], got["blocks.0.resid_pre"])
