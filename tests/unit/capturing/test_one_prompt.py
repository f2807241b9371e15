"""A model that is already loaded, and one prompt in memory."""

from __future__ import annotations

import re

import pytest
import torch

import inscape as ix
from inscape.errors import StimuliError
from tests.families.catalog import seeded
from tests.families.tokenizer import VOCABULARY, make_tokenizer

SITE = "blocks.1.resid_post"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A GPT-2 and its tokenizer, saved as Hugging Face saves them."""
    from transformers import GPT2Config, GPT2LMHeadModel

    path = tmp_path_factory.mktemp("saved") / "tiny"
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    seeded(
        lambda: GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=16, n_head=2, vocab_size=VOCABULARY, n_positions=64, **ends))
    ).save_pretrained(path)
    make_tokenizer(special=False).save_pretrained(path)
    return path


@pytest.fixture
def hf(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def by_hand(module, ids):
    """The stream after the second block, from transformers' own output."""
    with torch.no_grad():
        return module(torch.tensor([ids]), output_hidden_states=True).hidden_states[2]


def test_one_prompt_gives_one_row_for_each_token(hf):
    model = ix.load(hf, tokenizer=make_tokenizer(special=False))
    rows, mask = ix.capture(model, "w1 w2 w3", sites=SITE)[SITE].padded()
    assert rows.shape == (1, 3, 16) and bool(mask.all())
    torch.testing.assert_close(rows, by_hand(hf, [5, 6, 7]), rtol=0, atol=0)


def test_one_prompt_may_ask_for_its_last_token_and_be_a_column(hf):
    model = ix.load(hf, tokenizer=make_tokenizer(special=False))
    store = ix.capture(model, "w1 w2 w3", sites=SITE, tokens="last")
    torch.testing.assert_close(store[SITE].torch(), by_hand(hf, [5, 6, 7])[:, -1], rtol=0, atol=0)
    assert ix.capture(model, "w1 w2", sites=SITE).stimuli.num_rows == 1


def test_a_bare_module_reads_text_with_the_tokenizer_beside_its_weights(hf):
    rows, _ = ix.capture(hf, "w1 w2 w3", sites=SITE)[SITE].padded()
    torch.testing.assert_close(rows, by_hand(hf, [5, 6, 7]), rtol=0, atol=0)
    assert not hasattr(hf, "tokenizer")


def test_a_bare_module_without_a_tokenizer_says_how_to_give_one(hf, folder):
    hf.config._name_or_path = ""
    words = "the model has no tokenizer; give it one with ix.load(model, tokenizer=tokenizer), or give token ids"
    with pytest.raises(StimuliError, match=re.escape(words)):
        ix.capture(hf, "w1 w2 w3", sites=SITE)


def test_a_tokenizer_of_another_model_is_not_taken(hf):
    hf.config.vocab_size = VOCABULARY - 1
    with pytest.raises(StimuliError, match="the model has no tokenizer"):
        ix.capture(hf, "w1 w2 w3", sites=SITE)


def test_looking_for_a_tokenizer_never_reaches_for_the_network(hf, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("a connection was opened"))
    hf.config._name_or_path = "nobody/nothing"
    with pytest.raises(StimuliError, match="the model has no tokenizer"):
        ix.capture(hf, "w1 w2 w3", sites=SITE)
