"""Images, sounds, convolutions and a language model from a folder."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import wavfile

import inscape as ix
from inscape.capturing import Stimuli
from inscape.errors import StimuliError

from .conftest import make_tokenizer, words

SITE = "blocks.1.resid_post"


def test_patches_are_rows_and_the_class_token_is_flagged(make):
    module = make("vit")
    images = torch.randn(3, 3, 8, 8)
    store = ix.capture(ix.load(module), images, ["blocks.1.resid_post", "blocks.0.resid_post|massive"], "all")
    view = store[SITE]
    assert (view.kind, view.row_set, view.n) == ("patch", "patch", 3 * 5)
    assert view.position.tolist() == [0, 1, 2, 3, 4] * 3
    assert view.column("special").tolist() == [True, False, False, False, False] * 3
    seen = []
    handle = module.layers[1].register_forward_hook(lambda m, a, out: seen.append((out if torch.is_tensor(out) else out[0]).clone()))
    with torch.no_grad():
        module(images)
    handle.remove()
    assert torch.equal(view.torch().reshape(3, 5, 16), seen[0])


def test_the_mean_over_patches_can_leave_out_the_class_token(make):
    model, images = ix.load(make("vit")), torch.randn(3, 3, 8, 8)
    rows = ix.capture(model, images, SITE, "all")[SITE].torch().reshape(3, 5, 16)
    torch.testing.assert_close(ix.capture(model, images, SITE, "mean")[SITE].torch(), rows.mean(1))
    torch.testing.assert_close(ix.capture(model, images, SITE, "mean", special="drop")[SITE].torch(), rows[:, 1:].mean(1))
    assert torch.equal(ix.capture(model, images, SITE, "first")[SITE].torch(), rows[:, 0])
    assert ix.capture(model, images, SITE, "all", special="drop")[SITE].position.tolist() == [1, 2, 3, 4] * 3


def test_image_files_pass_the_processor(make, tmp_path):
    from PIL import Image
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    processor = ViTImageProcessorPil(size={"height": 8, "width": 8})
    pixels = np.random.default_rng(0).integers(0, 255, (2, 10, 12, 3)).astype(np.uint8)
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    model = ix.load(make("vit"), processor=processor)
    ready = np.stack([np.asarray(processor(images=image, return_tensors="np")["pixel_values"])[0] for image in pixels])
    expected = ix.capture(ix.load(make("vit")), ready, SITE, "mean")[SITE].torch()
    for stimuli in (paths, pixels, {"image": [str(path) for path in paths]}):
        assert torch.equal(ix.capture(model, stimuli, SITE, "mean")[SITE].torch(), expected)


def test_images_without_a_processor_are_scaled_to_one(make):
    pixels = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3)).astype(np.uint8)
    scaled = np.moveaxis(pixels, -1, 1).astype(np.float32) / 255
    model = ix.load(make("vit"))
    assert torch.equal(ix.capture(model, pixels, SITE, "mean")[SITE].torch(), ix.capture(model, scaled, SITE, "mean")[SITE].torch())


def test_feature_maps_give_one_row_per_place_and_sets_of_their_own():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(36, 5))
    images = torch.randn(6, 3, 8, 8)
    store = ix.capture(module, images, ["0", "1", "3"], "all", batch_size=4)
    with torch.no_grad():
        maps = module[0](images)
        torch.testing.assert_close(store["0"].torch().reshape(6, 36, 4), maps.flatten(2).transpose(1, 2))
        torch.testing.assert_close(store["1"].torch().reshape(6, 9, 4), module[1](maps).flatten(2).transpose(1, 2))
        torch.testing.assert_close(store["3"].torch(), module(images))
    assert [store[site].row_set for site in ("0", "1", "3")] == ["position-36", "position-9", "stimulus"]
    means = ix.capture(module, images, "0", "mean")["0"].torch()
    torch.testing.assert_close(means, maps.mean((2, 3)))


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_frames_are_those_that_the_model_makes_of_each_sound_alone(make, norm):
    module = make(f"wav2vec2-{norm}")
    rng = np.random.default_rng(0)
    waves = [rng.normal(size=length).astype(np.float32) for length in (300, 200, 400)]
    store = ix.capture(ix.load(module), Stimuli(waves, sampling_rate=16000), SITE, "all")
    view = store[SITE]
    counts = [int(module._get_feat_extract_output_lengths(torch.tensor(len(wave)))) for wave in waves]
    assert (view.kind, view.n) == ("frame", sum(counts))
    assert np.bincount(view.stimulus).tolist() == counts
    with torch.no_grad():
        # The hook's own reading of the last hidden state of each sound, run alone.
        for i, wave in enumerate(waves):
            seen = []
            handle = module.encoder.layers[1].register_forward_hook(
                lambda m, a, out, seen=seen: seen.append((out if torch.is_tensor(out) else out[0]).clone())
            )
            module(torch.from_numpy(wave)[None])
            handle.remove()
            torch.testing.assert_close(view.torch()[view.stimulus == i], seen[0][0], rtol=0, atol=1e-4)


def test_sound_files_and_their_rate(make, tmp_path):
    from transformers import Wav2Vec2FeatureExtractor

    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True, sampling_rate=16000)
    rng = np.random.default_rng(0)
    waves = [(rng.normal(size=length) * 3000).astype(np.int16) for length in (300, 250)]
    paths = [tmp_path / f"{i}.wav" for i in range(2)]
    for path, wave in zip(paths, waves, strict=True):
        wavfile.write(path, 16000, wave)
    model = ix.load(make("wav2vec2-layer"), processor=extractor)
    rows = ix.capture(model, paths, SITE, "mean")[SITE].torch()
    ready = [extractor(wave / np.float32(32768), sampling_rate=16000)["input_values"][0] for wave in waves]
    expected = ix.capture(ix.load(make("wav2vec2-layer")), [np.asarray(x) for x in ready], SITE, "mean")[SITE].torch()
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-5)
    wavfile.write(paths[1], 8000, waves[1])
    message = "sound '1' has 8000 samples a second, Wav2Vec2Model reads 16000; resample it first (scipy.signal.resample_poly does)"
    with pytest.raises(StimuliError, match=re.escape(message)):
        ix.capture(model, paths, SITE, "mean")
    with pytest.raises(StimuliError, match="sound '0' has 8000 samples a second"):
        ix.capture(model, Stimuli([np.zeros(300)], sampling_rate=8000), SITE)


def test_wrong_modalities_are_told_what_the_model_reads(make):
    images, texts = np.zeros((2, 8, 8, 3), np.uint8), ["a cat"]
    with pytest.raises(StimuliError, match=r"ViTModel reads image input; got stimuli of kind 'text' \(the first is 'a cat'\). Give images"):
        ix.capture(ix.load(make("vit")), texts, SITE)
    with pytest.raises(StimuliError, match="Wav2Vec2Model reads audio input; got stimuli of kind 'image'"):
        ix.capture(ix.load(make("wav2vec2-layer")), images, SITE)
    with pytest.raises(StimuliError, match=r"image '0' has shape \[5, 8, 8\]; expected \[height, width, channel\]"):
        ix.capture(ix.load(make("vit")), np.zeros((2, 5, 8, 8), np.float32), SITE)
    with pytest.raises(StimuliError, match="special='drop' has nothing to leave out: Sequential has no class token"):
        ix.capture(torch.nn.Sequential(torch.nn.Linear(2, 2)), np.zeros((3, 2)), "0", special="drop")


def test_recurrent_sites_inside_a_module_that_puts_time_first():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(3, 4)
            self.head = torch.nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.lstm(x.transpose(0, 1))[0][-1])

    module, x = Net(), torch.randn(5, 6, 3)
    store = ix.capture(module, x, ["lstm", "head"], "all")
    with torch.no_grad():
        torch.testing.assert_close(store["lstm"].torch().reshape(5, 6, 4), module.lstm(x.transpose(0, 1))[0].transpose(0, 1))
    assert store["head"].shape == (5, 2)


def _check_folder(folder: Path, text: str) -> None:
    """A folder with a tokenizer loads, and its rows are those of the module fed by hand."""
    model = ix.load(str(folder))
    assert model.tokenizer is not None
    texts = [text[:40], text[40:47], text[47:120]]
    store = ix.capture(str(folder), texts, "blocks.*.resid_post", "all")
    ids = [model.tokenizer(part)["input_ids"] for part in texts]
    assert store[SITE].column("token_id").tolist() == [token for row in ids for token in row]
    seen = []
    with model.hooked(SITE, lambda name, x: seen.append(x[0].clone())), torch.no_grad():
        for row in ids:
            model(torch.tensor([row]))
    expected = torch.cat(seen)
    assert float((store[SITE].torch() - expected).abs().max()) <= 1e-4 * float(expected.square().mean().sqrt())


def test_a_model_in_a_folder_comes_with_its_tokenizer(make, tmp_path):
    make("gpt2").save_pretrained(tmp_path)
    make_tokenizer(special=False).save_pretrained(tmp_path)
    _check_folder(tmp_path, words(40))


@pytest.mark.data
def test_tiny_shakespeare_comes_with_its_tokenizer(data_dir):
    _check_folder(
        data_dir / "models" / "tiny-shakespeare-gpt" / "step1024", "First Citizen: Before we proceed any further, hear me speak. " * 3
    )


def test_without_a_rule_texts_give_their_last_token_and_images_their_mean(make, plain_tokenizer):
    text = ix.load(make("gpt2"), tokenizer=plain_tokenizer)
    assert ix.capture(text, [words(5)], SITE)[SITE].tokens.tolist() == ["w4"]
    images = torch.randn(3, 3, 8, 8)
    model = ix.load(make("vit"))
    assert torch.equal(ix.capture(model, images, SITE)[SITE].torch(), ix.capture(model, images, SITE, "mean")[SITE].torch())


def test_sites_made_of_heads_come_with_a_unit_table(make, plain_tokenizer):
    store = ix.capture(ix.load(make("gpt2"), tokenizer=plain_tokenizer), [words(3)], ["blocks.0.z", SITE])
    table = store["blocks.0.z"].unit_table
    assert table is not None
    assert table["head"].to_pylist() == [0] * 8 + [1] * 8
    assert table["channel"].to_pylist() == list(range(8)) * 2
    assert store[SITE].unit_table is None


def test_positions_that_a_model_keeps_for_itself_are_not_given_to_tokens(make):
    """RoBERTa numbers from its padding index + 1: 66 positions read 65 tokens."""
    from inscape.errors import InscapeWarning

    with pytest.warns(InscapeWarning, match="cut at max_length=65"):
        store = ix.capture(ix.load(make("roberta")), [[5] * 70], SITE, "all")
    assert store[SITE].n == 65
