"""Encoder-decoders, dual encoders and images in texts: each stack gets what it reads, and its rows are those of its own positions."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.capturing import Stimuli
from inscape.errors import StimuliError
from tests.families.tokenizer import make_tokenizer, texts

from .tower_models import hooked, module, pictures

SOURCES, TARGETS = (5, 2, 9, 1), (3, 7, 2, 4)
ENCODER, DECODER = "blocks.1.resid_post", "decoder.blocks.1.resid_post"


def _ids(count: int, text: str) -> list[int]:
    return make_tokenizer(special=False)(text)["input_ids"][:count]


def _close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * float(b.square().mean().sqrt()))


@pytest.fixture(scope="module")
def t5():
    return ix.load(module("t5"), tokenizer=make_tokenizer(special=False))


def test_the_decoder_reads_the_target_behind_its_start_token(t5):
    table = {"text": texts(SOURCES), "target": texts(TARGETS)}
    store = ix.capture(t5, table, [ENCODER, DECODER], "all")
    source, target = store[ENCODER], store[DECODER]
    assert np.bincount(source.stimulus).tolist() == list(SOURCES)
    assert np.bincount(target.stimulus).tolist() == [count + 1 for count in TARGETS]
    assert (source.row_set, target.row_set, target.kind) == ("token", "decoder-token", "token")
    assert target.column("special").tolist() == [p == 0 for p in target.position.tolist()]
    for i, (text, aim) in enumerate(zip(table["text"], table["target"], strict=True)):
        given = {"input_ids": torch.tensor([_ids(99, text)]), "decoder_input_ids": torch.tensor([[0, *_ids(99, aim)]])}
        assert target.column("token_id")[target.stimulus == i].tolist() == given["decoder_input_ids"][0].tolist()
        run = lambda given=given: module("t5")(**given)  # noqa: E731
        _close(source.torch()[source.stimulus == i], hooked(module("t5").encoder.block[1], run)[0])
        _close(target.torch()[target.stimulus == i], hooked(module("t5").decoder.block[1], run)[0])


def test_padding_of_the_source_is_not_seen_by_the_decoder(t5):
    short = {"text": texts((2,)), "target": texts((4,))}
    beside = {"text": [*short["text"], *texts((20,))], "target": [*short["target"], *texts((1,))]}
    alone = ix.capture(t5, short, DECODER, "all")[DECODER].torch()
    _close(ix.capture(t5, beside, DECODER, "all", batch_tokens=10**6)[DECODER].torch()[:5], alone)


def test_without_a_target_the_decoder_gets_its_start_token_alone_and_the_record_says_so(t5):
    store = ix.capture(t5, texts(SOURCES), DECODER)
    assert store[DECODER].n == 4 and store[DECODER].column("token_id").tolist() == [0] * 4
    assert store.manifest.plan["input"]["decoder"] == {"tokens": 4, "from": "the start token alone", "start_token": 0}
    labels = ix.capture(t5, {"text": texts(SOURCES), "target": [0, 1, 1, 0]}, DECODER)  # a class is no text to write
    assert labels.manifest.plan["input"]["decoder"]["from"] == "the start token alone"
    assert torch.equal(labels[DECODER].torch(), store[DECODER].torch())


def test_decoder_ids_are_taken_as_they_are_given(t5):
    given = [[7, 8], [9], [4, 4, 4], [5]]
    store = ix.capture(t5, {"text": texts(SOURCES), "decoder_input_ids": given}, DECODER, "all")
    assert store[DECODER].column("token_id").tolist() == [token for row in given for token in row]
    assert store.manifest.plan["input"]["decoder"]["from"] == "column decoder_input_ids"


def test_the_closing_token_of_a_target_is_what_the_decoder_writes_and_not_what_it_reads():
    tokenizer = make_tokenizer(special=True)
    tokenizer.eos_token = "[SEP]"
    model = ix.load(module("t5"), tokenizer=tokenizer)
    ids = ix.capture(model, {"text": texts((2,)), "target": texts((2,))}, DECODER, "all")[DECODER].column("token_id").tolist()
    assert ids == [0, *tokenizer(texts((2,))[0])["input_ids"][:-1]]


def test_an_encoder_counts_positions_from_the_left(t5):
    with pytest.raises(StimuliError, match="padding_side='left' does not suit T5.*: an encoder counts positions from the left"):
        ix.capture(t5, texts(SOURCES), ENCODER, padding_side="left")


@pytest.fixture(scope="module")
def whisper():
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=8, sampling_rate=16000, chunk_length=1)
    return ix.load(module("whisper"), processor=extractor, tokenizer=make_tokenizer(special=False))


def test_silence_that_fills_up_a_sound_gives_no_rows(whisper):
    rng = np.random.default_rng(0)
    waves = [rng.normal(size=count).astype(np.float32) for count in (3000, 16000, 5000)]
    store = ix.capture(whisper, Stimuli(waves, sampling_rate=16000), [ENCODER, "model.encoder.conv1"], "all")
    # A frame of features is 160 samples, and the second convolution halves them.
    features = [-(-count // 160) for count in (3000, 16000, 5000)]
    assert np.bincount(store["model.encoder.conv1"].stimulus).tolist() == features
    assert np.bincount(store[ENCODER].stimulus).tolist() == [-(-count // 2) for count in features]
    assert "silence" in store.manifest.plan["input"]["frames"]
    for i, wave in enumerate(waves):
        made = whisper.processor(wave, sampling_rate=16000, return_tensors="pt")["input_features"]
        run = lambda made=made: module("whisper")(input_features=made, decoder_input_ids=torch.tensor([[1]]))  # noqa: E731
        rows = store[ENCODER].torch()[store[ENCODER].stimulus == i]
        _close(rows, hooked(module("whisper").model.encoder.layers[1], run)[0, : len(rows)])


def test_a_sound_that_the_model_would_cut_is_refused(whisper):
    with pytest.raises(StimuliError, match="sound '0' lasts 1.2 s, .* reads 1.0 s at a time; cut it into pieces"):
        ix.capture(whisper, Stimuli([np.zeros(20000, np.float32)], sampling_rate=16000), ENCODER)


def test_a_sound_beside_what_is_to_be_written(whisper):
    waves = [np.random.default_rng(i).normal(size=4000).astype(np.float32) for i in range(3)]
    store = ix.capture(whisper, {"audio": waves, "target": texts((3, 1, 2)), "sampling_rate": [16000] * 3}, [ENCODER, DECODER], "all")
    assert np.bincount(store[DECODER].stimulus).tolist() == [4, 2, 3]
    assert store[DECODER].column("token_id")[:4].tolist() == [1, *_ids(3, texts((3,))[0])]


def test_a_sound_beside_a_text_is_still_heard_and_known_again(whisper):
    waves = [np.random.default_rng(i).normal(size=4000).astype(np.float32) for i in range(3)]
    table = {"text": ["a", "b", "c"], "audio": waves}
    store = ix.capture(whisper, table, ENCODER)
    assert torch.equal(store[ENCODER].torch(), ix.capture(whisper, Stimuli(waves), ENCODER)[ENCODER].torch())
    other = ix.capture(whisper, {**table, "audio": waves[::-1]}, ENCODER)
    assert other.manifest.plan["input"]["content_sha256"] != store.manifest.plan["input"]["content_sha256"]


VISION, TEXT = "vision.blocks.1.resid_post", "text.blocks.1.resid_post"


@pytest.fixture(scope="module")
def clip():
    return ix.load(module("clip"), tokenizer=make_tokenizer(special=False))


def test_texts_run_the_text_tower_and_images_the_vision_tower(clip):
    table = {"text": texts(SOURCES), "image": pictures()}
    both = ix.capture(clip, table, [TEXT, VISION, "text.embedding", "vision.embedding"], "all")
    assert (both[TEXT].row_set, both[VISION].row_set) == ("text-token", "vision-patch")
    words = ix.capture(clip, texts(SOURCES), [TEXT, "text.embedding"], "all")
    seen = ix.capture(clip, np.stack(pictures()), [VISION, "vision.embedding"], "all")
    for store, sites in ((words, (TEXT, "text.embedding")), (seen, (VISION, "vision.embedding"))):
        for site in sites:
            _close(both[site].torch(), store[site].torch())
    with torch.no_grad():
        features = module("clip").get_image_features(pixel_values=torch.from_numpy(np.stack(pictures())))
        features = features if torch.is_tensor(features) else features.pooler_output
        _close(seen["vision.embedding"].torch(), features)
        for i, text in enumerate(texts(SOURCES)):
            alone = module("clip").get_text_features(input_ids=torch.tensor([_ids(99, text)]))
            alone = alone if torch.is_tensor(alone) else alone.pooler_output
            _close(both["text.embedding"].torch()[i], alone[0])
    assert both[VISION].column("special").tolist() == [True, False, False, False, False] * 4


def test_only_the_towers_that_are_asked_for_run(clip):
    ran: list[str] = []
    parts = {"text": module("clip").text_model, "vision": module("clip").vision_model}
    handles = [part.register_forward_pre_hook(lambda m, args, name=name: ran.append(name)) for name, part in parts.items()]
    clip.atlas()
    ran.clear()
    try:
        store = ix.capture(clip, {"text": texts(SOURCES), "image": pictures()}, TEXT)
    finally:
        for handle in handles:
            handle.remove()
    assert set(ran) == {"text"}
    assert "vision" not in store.manifest.plan["input"]


def test_a_site_in_a_tower_that_the_stimuli_do_not_reach_is_refused(clip):
    message = (
        "site 'vision.blocks.1.resid_post' is in the vision tower of CLIPModel, and the stimuli have nothing for it; "
        "give images, or a table with the columns 'text' and 'image'"
    )
    with pytest.raises(StimuliError, match=re.escape(message)):
        ix.capture(clip, texts(SOURCES), VISION)
    with pytest.raises(StimuliError, match="CLIPModel reads multimodal input; got stimuli of kind 'sound'"):
        ix.capture(clip, Stimuli([np.zeros(10)], kind="sound"), VISION)
    with pytest.raises(StimuliError, match="padding_side='left' does not suit CLIPModel"):
        ix.capture(clip, texts(SOURCES), TEXT, padding_side="left")


def test_pieces_of_a_text_are_rows_of_the_text_tower(clip):
    table = {"text": ["w1 w2 w3", "w4 w5"], "image": pictures(2), "word": ["w2", "w5"]}
    view = ix.capture(clip, table, TEXT, "word")[TEXT]
    assert view.column("token").tolist() == ["w2", "w5"]


def test_texts_of_siglip_are_padded_as_in_its_training():
    model = ix.load(module("siglip"), tokenizer=make_tokenizer(special=False))
    store = ix.capture(model, texts(SOURCES), [TEXT, "text.embedding"], "all")
    assert np.bincount(store[TEXT].stimulus).tolist() == list(SOURCES)
    assert store.manifest.plan["input"]["padded_to"] == 24
    for i, text in enumerate(texts(SOURCES)):
        ids = _ids(99, text)
        given = torch.tensor([ids + [0] * (24 - len(ids))])
        run = lambda given=given: module("siglip").get_text_features(input_ids=given)  # noqa: E731
        rows = store[TEXT].torch()[store[TEXT].stimulus == i]
        _close(rows, hooked(module("siglip").text_model.encoder.layers[1], run)[0, : len(rows)])


@pytest.fixture(scope="module")
def llava():
    return ix.load(module("llava"), tokenizer=make_tokenizer(special=False))


def test_rows_of_the_language_model_know_which_tokens_are_the_image(llava):
    table = {"text": texts(SOURCES), "image": pictures()}
    store = ix.capture(llava, table, ["blocks.1.resid_post", VISION], "all")
    view = store["blocks.1.resid_post"]
    assert np.bincount(view.stimulus).tolist() == [count + 4 for count in SOURCES]  # four patches, in front
    assert view.column("image_token")[view.stimulus == 0].tolist() == [True] * 4 + [False] * 5
    assert store[VISION].row_set == "vision-patch" and store[VISION].n == 4 * 5
    assert store.manifest.plan["input"]["image_token_added"] == 4
    for i, text in enumerate(table["text"]):
        ids = torch.tensor([[3] * 4 + _ids(99, text)])
        run = lambda ids=ids, i=i: module("llava")(input_ids=ids, pixel_values=torch.from_numpy(pictures()[i])[None])  # noqa: E731
        _close(view.torch()[view.stimulus == i], hooked(module("llava").model.language_model.layers[1], run)[0])


@pytest.mark.parametrize("side", ["right", "left"])
def test_images_in_texts_do_not_depend_on_their_batch(llava, side):
    table = {"text": texts(SOURCES), "image": pictures()}
    alone = ix.capture(llava, table, ["blocks.1.resid_post", VISION], "all", batch_size=1)
    together = ix.capture(llava, table, ["blocks.1.resid_post", VISION], "all", padding_side=side)
    for site in alone.sites:
        _close(together[site].torch(), alone[site].torch())


def test_an_image_token_stands_where_the_user_puts_it(llava):
    store = ix.capture(llava, {"input_ids": [[5, 3, 6], [3, 3, 3, 3, 7]], "image": pictures(2)}, "blocks.1.resid_post", "all")
    view = store["blocks.1.resid_post"]
    assert view.column("token_id").tolist() == [5, 3, 3, 3, 3, 6, 3, 3, 3, 3, 7]
    assert store.manifest.plan["input"]["image_token_added"] == 0
    with pytest.raises(StimuliError, match="stimulus '0' has 2 image tokens; expected one, which stands for its one image, or all 4 of it"):
        ix.capture(llava, {"input_ids": [[3, 3, 6]], "image": pictures(1)}, "blocks.1.resid_post")


def test_a_processor_makes_the_same_of_a_text_with_an_image():
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = make_tokenizer(special=False)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    made = CLIPImageProcessorPil(size={"height": 8, "width": 8}, crop_size={"height": 8, "width": 8}, do_center_crop=False)
    processor = LlavaProcessor(
        image_processor=made, tokenizer=tokenizer, patch_size=4, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    net = module("llava")
    before = net.config.image_token_id, net.model.config.image_token_id
    token = tokenizer.convert_tokens_to_ids("<image>")
    net.resize_token_embeddings(len(tokenizer))
    net.config.image_token_id = net.model.config.image_token_id = token
    pixels = [np.random.default_rng(i).integers(0, 255, (8, 8, 3)).astype(np.uint8) for i in range(2)]
    table = {"text": ["w1 <image> w2", "w3 w4 w5"], "image": pixels}
    try:
        model = ix.load(net, tokenizer=tokenizer, processor=processor)
        view = ix.capture(model, table, "blocks.1.resid_post", "all")["blocks.1.resid_post"]
        for i, text in enumerate(["w1 <image> w2", "<image>\nw3 w4 w5"]):
            given = processor(images=[pixels[i]], text=[text], return_tensors="pt")
            run = lambda given=given: net(input_ids=given["input_ids"], pixel_values=given["pixel_values"])  # noqa: E731
            expected = hooked(net.model.language_model.layers[1], run)
            _close(view.torch()[view.stimulus == i], expected[0])
            assert view.column("image_token")[view.stimulus == i].tolist() == (given["input_ids"][0] == token).tolist()
    finally:
        net.config.image_token_id, net.model.config.image_token_id = before
        net.resize_token_embeddings(44)


def test_what_a_vision_language_model_cannot_read_is_said(llava):
    with pytest.raises(StimuliError, match="max_length=3 would cut into the image's tokens"):
        ix.capture(llava, {"text": texts(SOURCES), "image": pictures()}, "blocks.1.resid_post", max_length=3)
    with pytest.raises(StimuliError, match="reads multimodal input; got stimuli of kind 'array'"):
        ix.capture(llava, np.stack(pictures()), "blocks.1.resid_post")
    with pytest.raises(StimuliError, match="is in the vision tower of Llava"):
        ix.capture(llava, texts(SOURCES), VISION)
    assert ix.capture(llava, texts(SOURCES), "blocks.1.resid_post")["blocks.1.resid_post"].n == 4
