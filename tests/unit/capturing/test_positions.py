"""Pieces of text as token rules: substrings and character spans, by the tokenizer's own offsets, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.errors import InscapeWarning, StimuliError

from .chat_scene import byte_tokenizer, chat_model
from .conftest import words

SITE = "blocks.0.resid_post"
TEXTS = ["The cat sat on the mat.", "A cat, a cat!", "Zürich ist schön, no cat?"]


@pytest.fixture(scope="module")
def model():
    return ix.load(chat_model(), tokenizer=byte_tokenizer(merges=True))


def _picked(model, data, tokens, **options):
    view = ix.capture(model, data, SITE, tokens, **options)[SITE]
    return [[model.tokenizer.decode(int(i)) for i in view.column("token_id")[view.stimulus == s]] for s in range(len(np.unique(view.ids)))]


def _by_hand(model, text, start, stop):
    """Tokens that hold a character of [start, stop), from the fast tokenizer's offsets."""
    made = model.tokenizer(text, return_offsets_mapping=True)
    return [i for i, (a, b) in enumerate(made["offset_mapping"]) if a < stop and b > start]


def test_a_column_of_substrings(model):
    table = {"text": [TEXTS[0], TEXTS[2]], "word": ["cat sat", "schön"]}
    view = ix.capture(model, table, SITE, "word")[SITE]
    for where, (text, word) in enumerate(zip(table["text"], table["word"], strict=True)):
        start = text.index(word)
        assert view.position[view.stimulus == where].tolist() == _by_hand(model, text, start, start + len(word))
    everything = ix.capture(model, table, SITE, "all")[SITE]
    keys = list(zip(everything.stimulus.tolist(), everything.position.tolist(), strict=True))
    at = [keys.index(key) for key in zip(view.stimulus.tolist(), view.position.tolist(), strict=True)]
    assert torch.equal(view.torch(), everything.torch()[at])
    assert view.kind == "token"


def test_a_column_of_character_spans(model):
    table = {"text": TEXTS, "at": [[[4, 7], [19, 22]], [[2, 5]], [[0, 6]]]}
    view = ix.capture(model, table, SITE, "at")[SITE]
    for where, (text, spans) in enumerate(zip(table["text"], table["at"], strict=True)):
        expected = sorted({i for start, stop in spans for i in _by_hand(model, text, start, stop)})
        assert view.position[view.stimulus == where].tolist() == expected
    named = [[{"start": start, "stop": stop} for start, stop in spans] for spans in table["at"]]
    assert torch.equal(ix.capture(model, {"text": TEXTS, "at": named}, SITE, "at")[SITE].torch(), view.torch())


def test_a_flat_pair_is_positions_unless_called_a_span(model):
    table = {"text": TEXTS[:2], "pair": [[4, 7], [2, 5]]}
    assert ix.capture(model, table, SITE, "pair")[SITE].position.tolist() == [4, 7, 2, 5]
    view = ix.capture(model, table, SITE, {"span": "pair"})[SITE]
    assert view.position.tolist() == [i for text, pair in zip(TEXTS, table["pair"], strict=False) for i in _by_hand(model, text, *pair)]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ({"text": "cat", "which": "first"}, [[" cat"], [" cat"], [" cat"]]),
        ({"text": "cat", "which": "all"}, [[" cat"], [" cat", " cat"], [" cat"]]),
        ({"text": "a", "which": "last"}, [["at"], [" cat"], [" cat"]]),
        ({"text": ["cat", "at"], "which": "last"}, [[" cat", "at"], [" cat"], [" cat"]]),
        ({"text": "cat", "which": "first", "take": "last"}, [[" cat"], [" cat"], [" cat"]]),
    ],
)
def test_which_occurrence_and_which_of_its_tokens(model, tokens, expected):
    assert _picked(model, TEXTS, tokens) == expected


def test_one_token_of_one_piece_is_a_row_per_stimulus(model):
    table = {"text": TEXTS, "words": ["on the", "cat!", "no cat"], "lists": [["on", "the mat"], ["cat!"], ["no"]]}
    last = ix.capture(model, table, SITE, {"find": "words", "take": "last"})[SITE]
    assert (last.kind, last.n, last.position.tolist()) == ("stimulus", 3, [0, 0, 0])
    ends = [text.index(word) + len(word) for text, word in zip(TEXTS, table["words"], strict=True)]
    assert last.column("token_position").tolist() == [_by_hand(model, t, end - 1, end)[-1] for t, end in zip(TEXTS, ends, strict=True)]
    first = ix.capture(model, table, SITE, {"find": "words", "take": "first"})[SITE]
    assert (first.column("token_position") < last.column("token_position")).all()
    assert ix.capture(model, table, SITE, {"find": "lists", "take": "last"})[SITE].kind == "token"
    mean = ix.capture(model, table, SITE, {"find": "words", "take": "mean"})[SITE]
    rows = ix.capture(model, table, SITE, "words")[SITE]
    expected = torch.stack([rows.torch()[torch.from_numpy(rows.stimulus == i)].mean(0) for i in range(3)])
    assert mean.kind == "stimulus"
    torch.testing.assert_close(mean.torch(), expected, rtol=0, atol=1e-6)


def test_the_rule_is_recorded_and_decides_the_plan(model, tmp_path):
    from inscape.errors import StoreMismatchError

    table = {"text": TEXTS[:1], "word": ["cat"]}
    store = ix.capture(model, table, SITE, {"find": "word", "take": "last"}, to=tmp_path / "s")
    told = {"find": "word", "which": "only", "take": "last"}
    assert store.manifest.plan["rows"] == {"tokens": {"find": "word", "take": "last"}, "special": "keep", "pooled": False, "spans": told}
    with pytest.raises(StoreMismatchError, match="rows.tokens.take was 'last', now is 'first'"):
        ix.capture(model, table, SITE, {"find": "word", "take": "first"}, to=tmp_path / "s")


def test_substrings_in_a_conversation_are_looked_for_in_its_messages(model):
    """The template writes "user" itself; only the words of messages count."""
    chats = [[{"role": "user", "content": "I am a user of cats"}, {"role": "assistant", "content": "a cat"}]]
    assert "".join(_picked(model, chats, {"text": "user"})[0]).strip() == "user"
    with pytest.raises(StimuliError, match="stimulus '0' contains 'cat' 2 times; say which with"):
        ix.capture(model, chats, SITE, {"text": "cat"})
    with pytest.raises(StimuliError, match="characters would count the template's own; name substrings"):
        ix.capture(model, {"messages": chats, "at": [[[0, 3]]]}, SITE, "at")


def test_special_tokens_stand_in_no_text(make, bert_tokenizer):
    """[CLS] and [SEP] have no characters, so no piece takes them, and pieces are found behind them."""
    model = ix.load(make("bert"), tokenizer=bert_tokenizer)
    view = ix.capture(model, {"text": ["w0 w1 w2", "w3 w1"], "word": ["w1 w2", "w1"]}, SITE, "word", special="drop")[SITE]
    assert view.tokens.tolist() == ["w1", "w2", "w1"] and view.position.tolist() == [2, 3, 2]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("name", ["roberta", "gpt2"])
def test_pieces_do_not_depend_on_padding(make, bert_tokenizer, plain_tokenizer, name, side):
    """RoBERTa numbers positions from its padding index on; pieces are positions of tokens all the same."""
    model = ix.load(make(name), tokenizer=bert_tokenizer if name == "roberta" else plain_tokenizer)
    table = {"text": [words(3), words(9), words(20)], "word": ["w1 w2", "w7", "w19"]}
    together = ix.capture(model, table, SITE, "word", padding_side=side)[SITE]
    assert together.tokens.tolist() == ["w1", "w2", "w7", "w19"]
    alone = [ix.capture(model, {"text": [t], "word": [w]}, SITE, "word")[SITE].torch() for t, w in zip(*table.values(), strict=True)]
    torch.testing.assert_close(together.torch(), torch.cat(alone), rtol=0, atol=1e-5)


def test_pieces_that_were_cut_away_are_refused(make, bert_tokenizer):
    model = ix.load(make("bert"), tokenizer=bert_tokenizer)
    table = {"text": ["w0 w1 w2 w3 w4"], "word": ["w3 w4"]}
    with pytest.warns(InscapeWarning), pytest.raises(StimuliError, match=r"in stimulus '0' the piece 'w3 w4' at \[9, 14\) was cut away"):
        ix.capture(model, table, SITE, "word", max_length=6)
    with pytest.warns(InscapeWarning), pytest.raises(StimuliError, match=r"in stimulus '0' the piece 'w0' at \[0, 2\) was cut away"):
        ix.capture(model, {**table, "word": ["w0"]}, SITE, "word", max_length=5, truncation_side="left")
    with pytest.warns(InscapeWarning):
        view = ix.capture(model, {**table, "word": ["w4"]}, SITE, "word", max_length=5, truncation_side="left")[SITE]
    assert view.tokens.tolist() == ["w4"] and view.position.tolist() == [3]


@pytest.mark.parametrize(("side", "expected"), [("right", ["[CLS]", "w0", "w1", "[SEP]"]), ("left", ["[CLS]", "w3", "w4", "[SEP]"])])
def test_the_side_where_texts_are_cut(make, bert_tokenizer, side, expected):
    model = ix.load(make("bert"), tokenizer=bert_tokenizer)
    with pytest.warns(InscapeWarning, match="1 of 1 stimuli were cut at max_length=4: 3 of 7 tokens are not read"):
        store = ix.capture(model, ["w0 w1 w2 w3 w4"], SITE, "all", max_length=4, truncation_side=side)
    assert store[SITE].tokens.tolist() == expected
    assert store.manifest.plan["input"]["truncation_side"] == side and bert_tokenizer.truncation_side == "right"
    with pytest.warns(InscapeWarning, match="1 of 1 stimuli were cut"):
        ids = ix.capture(model, [[4, 5, 6, 7]], SITE, "all", max_length=2, truncation_side=side)[SITE].column("token_id")
    assert ids.tolist() == ([4, 5] if side == "right" else [6, 7])


def test_a_tokenizer_of_ones_own_cuts_on_its_side():
    from inscape import zoo

    model = ix.load(zoo.GPT(zoo.ByteTokenizer.vocab_size), tokenizer=zoo.ByteTokenizer())
    with pytest.warns(InscapeWarning, match="1 of 1 stimuli were cut at max_length=3"):
        ids = ix.capture(model, ["abcdef"], SITE, "all", max_length=3)[SITE].column("token_id")
    assert ids.tolist() == zoo.ByteTokenizer()("abcdef", truncation=True, max_length=3)["input_ids"]
    with pytest.raises(StimuliError, match="truncation_side='left': ByteTokenizer cuts on the right and cannot be told otherwise"):
        ix.capture(model, ["abcdef"], SITE, "all", max_length=3, truncation_side="left")


def test_results_say_what_was_cut(make, plain_tokenizer):
    model = ix.load(make("gpt2"), tokenizer=plain_tokenizer)
    with pytest.warns(InscapeWarning, match="cut at max_length=5"):
        store = ix.capture(model, [words(4 + i % 5, i) for i in range(40)], SITE, "last", max_length=5)
    cut = "48 of 240 tokens were cut at max_length=5 (24 stimuli)"
    assert cut in store.summary().splitlines()[-1] and cut in store._repr_html_()
    told = ix.measure(store, "effective_rank", interval=None).settings["warnings"]
    assert told == [f"{store.system}: 48 of 240 tokens were cut at max_length=5 (24 stimuli); the numbers are of what was read"]


@pytest.mark.parametrize(("special", "opened"), [("keep", 2), ("bos_only", 2)])
def test_whether_texts_open_with_a_special_token_is_recorded(make, bert_tokenizer, plain_tokenizer, special, opened):
    model = ix.load(make("bert"), tokenizer=bert_tokenizer)
    store = ix.capture(model, ["w0 w1", "w2"], SITE, "all", special=special)
    assert store.manifest.plan["input"]["opened_by_special"] == opened
    bare = ix.load(make("bert"), tokenizer=plain_tokenizer)
    without = ix.capture(bare, ["w0 w1", "w2"], SITE, "all", special="bos_only")
    assert without.manifest.plan["input"]["opened_by_special"] == 0
    assert without[SITE].tokens.tolist() == ["w0", "w1", "w2"], "the first token is no BOS, and a word is never left out"


BAD = [
    ({"text": "dog"}, "stimulus '0' does not contain 'dog': 'The cat sat on the mat.'"),
    ({"find": "word"}, "stimulus '1' contains 'cat' 2 times; say which with tokens={..., 'which': 'first'}, 'last' or 'all'"),
    ({"find": "wort"}, "the stimuli have no column 'wort'; nearest: 'word'"),
    ({"find": "word", "which": "second"}, "which='second' is unknown; expected one of 'only', 'first', 'last', 'all'"),
    ({"find": "word", "take": "middle"}, "take='middle' is unknown; expected one of 'all', 'first', 'last', 'mean'"),
    ({"find": "word", "take_": 1}, "the key 'take_' is unknown; expected {'find': 'a column of substrings'}"),
    ({"find": "word", "text": "cat"}, "it names 2 sources; expected"),
    ({"span": "at", "which": "all"}, "'which' chooses among occurrences of a substring; a span is where it is"),
    ({"span": "far"}, "the span [20, 99) of stimulus '0' is empty or outside its text of 23 characters"),
    ({"span": "odd"}, "a span of stimulus '0' is [1, 2, 3]; expected two whole numbers [start, stop)"),
    ({"text": ""}, "looks for ''; expected a text of at least one character"),
    ("none", "column 'none' has no value for stimulus '1'"),
]


@pytest.mark.parametrize(("tokens", "text"), BAD)
def test_pieces_that_are_not_there_say_so(model, tokens, text):
    table = {
        "text": TEXTS[:2],
        "word": ["cat", "cat"],
        "at": [[0, 3], [0, 1]],
        "far": [[20, 99], [0, 1]],
        "odd": [[[1, 2, 3]], [[0, 1]]],
        "none": ["cat", None],
    }
    with pytest.raises(StimuliError, match=re.escape(text)):
        ix.capture(model, table, SITE, tokens)


def test_what_has_no_text_has_no_pieces(model, make):
    with pytest.raises(StimuliError, match=r"looks for text; the stimuli are of kind 'tokens', which have none"):
        ix.capture(model, [[5, 6]], SITE, {"text": "cat"})
    with pytest.raises(StimuliError, match="looks for pieces of text; the stimuli are of kind 'image'"):
        ix.capture(ix.load(make("vit")), np.zeros((2, 8, 8, 3), np.uint8), SITE, {"text": "cat"})


def test_other_stacks_have_other_tokens(plain_tokenizer):
    """A piece of the text says nothing about the positions of a decoder that reads something else."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    module = T5ForConditionalGeneration(T5Config(vocab_size=44, pad_token_id=0, decoder_start_token_id=0, **sizes)).eval()
    model = ix.load(module, tokenizer=plain_tokenizer)
    found = ix.capture(model, ["w0 w1 w2"], "encoder.blocks.0.resid_post", {"text": "w1"})["encoder.blocks.0.resid_post"]
    assert found.tokens.tolist() == ["w1"]
    with pytest.raises(
        StimuliError, match=r"tokens=\{'text': 'w1'\} picks tokens of the text; stimulus '0' has 3 of them, and a site gives"
    ):
        ix.capture(model, ["w0 w1 w2"], "decoder.blocks.0.resid_post", {"text": "w1"})
