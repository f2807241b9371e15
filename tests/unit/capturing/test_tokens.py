"""Text to tokens: what is read, what is cut, which rows are kept, and what is recorded."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.errors import InscapeWarning, StimuliError
from tests.families.tokenizer import make_tokenizer

from .conftest import words

SITE = "blocks.0.resid_post"


@pytest.fixture
def bert(make, bert_tokenizer):
    return ix.load(make("bert"), tokenizer=bert_tokenizer)


@pytest.fixture
def gpt2(make, plain_tokenizer):
    return ix.load(make("gpt2"), tokenizer=plain_tokenizer)


def _rows(model, texts, tokens, **options):
    view = ix.capture(model, texts, SITE, tokens, **options)[SITE]
    return view, view.ids.tolist(), view.position.tolist()


def test_all_gives_token_rows_with_their_ids_and_strings(bert):
    view, ids, positions = _rows(bert, ["w0 w1", "w9"], "all")
    assert (view.kind, view.row_set) == ("token", "token")
    assert ids == ["0"] * 4 + ["1"] * 3
    assert positions == [0, 1, 2, 3, 0, 1, 2]
    assert view.column("token_id").tolist() == [1, 4, 5, 2, 1, 13, 2]
    assert view.tokens.tolist() == ["[CLS]", "w0", "w1", "[SEP]", "[CLS]", "w9", "[SEP]"]
    assert view.column("special").tolist() == [True, False, False, True, True, False, True]


@pytest.mark.parametrize(
    ("special", "tokens", "expected"),
    [
        ("keep", "all", ["[CLS]", "w0", "w1", "[SEP]"]),
        ("drop", "all", ["w0", "w1"]),
        ("bos_only", "all", ["[CLS]", "w0", "w1"]),
        ("keep", "last", ["[SEP]"]),
        ("drop", "last", ["w1"]),
        ("bos_only", "first", ["[CLS]"]),
        ("drop", "first", ["w0"]),
        ("keep", 1, ["w0"]),
        ("drop", -1, ["w1"]),
        ("keep", [0, -1, -1], ["[CLS]", "[SEP]"]),
        ("keep", slice(1, 3), ["w0", "w1"]),
        ("drop", slice(1, None), ["w1"]),
        ("keep", lambda ids: ids == 5, ["w1"]),
        ("keep", lambda ids: [1, 2], ["w0", "w1"]),
    ],
)
def test_rules_choose_rows_and_the_model_reads_every_token(bert, special, tokens, expected):
    everything = ix.capture(bert, ["w0 w1"], SITE, "all")[SITE]
    view = ix.capture(bert, ["w0 w1"], SITE, tokens, special=special)[SITE]
    names = everything.tokens.tolist()
    assert view.tokens.tolist() == expected
    assert torch.equal(view.torch(), everything.torch()[[names.index(name) for name in expected]])


def test_one_row_rules_pair_by_stimulus_and_keep_the_position_as_a_column(bert):
    view, ids, positions = _rows(bert, ["w0 w1", "w9"], "last")
    assert (view.kind, ids, positions) == ("stimulus", ["0", "1"], [0, 0])
    assert view.column("token_position").tolist() == [3, 2]
    view, *_ = _rows(bert, ["w0 w1"], [1, 2])
    assert (view.kind, view.position.tolist()) == ("token", [1, 2])


def test_the_mean_leaves_out_special_tokens_when_told(bert):
    everything = ix.capture(bert, ["w0 w1 w2"], SITE, "all")[SITE].torch()
    mean = ix.capture(bert, ["w0 w1 w2"], SITE, "mean")[SITE]
    torch.testing.assert_close(mean.torch()[0], everything.mean(0))
    assert mean.kind == "stimulus"
    dropped = ix.capture(bert, ["w0 w1 w2"], SITE, "mean", special="drop")[SITE]
    torch.testing.assert_close(dropped.torch()[0], everything[1:-1].mean(0))


def test_columns_give_masks_or_positions(bert):
    table = {"text": ["w0 w1", "w9"], "mask": [[False, True, False, False], [False, True, False]], "at": [2, 1], "spans": [[1, 2], [1]]}
    assert _rows(bert, table, "mask")[0].tokens.tolist() == ["w0", "w9"]
    view = _rows(bert, table, "at")[0]
    assert (view.kind, view.tokens.tolist()) == ("stimulus", ["w1", "w9"])
    assert _rows(bert, table, "spans")[0].tokens.tolist() == ["w0", "w1", "w9"]


def test_token_ids_need_no_tokenizer(make):
    model = ix.load(make("gpt2"))
    view, ids, positions = _rows(model, [[4, 5, 6], [7]], "all")
    assert (ids, positions) == (["0", "0", "0", "1"], [0, 1, 2, 0])
    assert view.tokens.tolist() == [4, 5, 6, 7]
    assert ix.capture(model, np.array([[4, 5], [6, 7]]), SITE, "all")[SITE].n == 4


def test_special_tokens_among_given_ids_are_known_from_the_tokenizer(bert):
    assert ix.capture(bert, [[1, 4, 5, 2]], SITE, "all", special="drop")[SITE].tokens.tolist() == ["w0", "w1"]


def test_a_text_of_100000_characters_is_cut_and_counted(gpt2):
    long = "w1 " * 33_334
    assert len(long) > 1e5
    with pytest.warns(InscapeWarning, match=r"1 of 2 stimuli were cut at max_length=64: 33270 of 33337 tokens are not read"):
        store = ix.capture(gpt2, [long, "w0 w1 w2"], SITE, "all")
    assert store[SITE].n == 67
    record = store.manifest.plan["input"]
    assert (record["max_length"], record["max_length_from"], record["truncated_stimuli"], record["truncated_tokens"]) == (
        64,
        "model",
        1,
        33270,
    )


def test_cut_texts_keep_their_closing_token(bert):
    with pytest.warns(InscapeWarning, match="cut at max_length=4"):
        view = ix.capture(bert, [words(9)], SITE, "all", max_length=4)[SITE]
    assert view.tokens.tolist() == ["[CLS]", "w0", "w1", "[SEP]"]


def test_a_long_text_is_refused_where_no_maximum_is_known():
    module = torch.nn.Sequential(torch.nn.Embedding(44, 4))
    from .conftest import make_tokenizer

    model = ix.load(module, tokenizer=make_tokenizer(special=False, maximum=int(1e30)))
    with pytest.raises(
        StimuliError, match=r"stimulus '0' has 33334 tokens and neither the model nor its tokenizer states a maximum; pass max_length"
    ):
        ix.capture(model, ["w1 " * 33_334], "0", "last")
    with pytest.warns(InscapeWarning, match="cut at max_length=100"):
        assert ix.capture(model, ["w1 " * 33_334], "0", "all", max_length=100)["0"].n == 100


def test_one_stimulus_is_enough(gpt2):
    store = ix.capture(gpt2, ["w0"], SITE)
    assert store[SITE].shape == (1, 16)


def test_the_manifest_records_the_call(bert):
    plan = ix.capture(bert, ["w0 w1", "w2"], SITE, "mean", special="drop").manifest.plan
    assert plan["input"] | {"tokenizer": "", "content_sha256": ""} == {
        "tokenizer": "",
        "vocabulary": 44,
        "input": "text",
        "add_special_tokens": True,
        "special": "drop",
        "max_length": 64,
        "max_length_from": "model",
        "truncation_side": "right",
        "truncated_stimuli": 0,
        "truncated_tokens": 0,
        "tokens": 7,
        "special_tokens": 4,
        "opened_by_special": 2,
        "padding": "right",
        "mixes_lengths": True,
        "content_sha256": "",
    }
    assert plan["rows"] == {"tokens": "mean", "special": "drop", "pooled": True}


def test_a_pad_token_that_is_also_a_word_is_not_taken_for_padding(make):
    """Padding is known from lengths; id 0 inside a text is a token like any other."""
    model = ix.load(make("gpt2"))
    view = ix.capture(model, [[0, 5, 0], [0]], SITE, "all")[SITE]
    alone = ix.capture(model, [[0, 5, 0]], SITE, "all", batch_size=1)[SITE]
    assert view.n == 4
    torch.testing.assert_close(view.torch()[:3], alone.torch(), rtol=0, atol=1e-5)


BAD = [
    ("gpt2", ["w0"], {"tokens": "lats"}, "tokens='lats' is neither a rule nor a column of the stimuli; nearest: 'last'"),
    (
        "gpt2",
        ["w0"],
        {"tokens": 1.5},
        "tokens=1.5 is no rule; expected one of 'last', 'first', 'mean', 'all', a position, a list",
    ),
    ("gpt2", ["w0"], {"tokens": []}, "tokens=[] is no rule"),
    ("gpt2", ["w0"], {"special": "dorp"}, "special='dorp' is unknown; expected one of 'keep', 'drop', 'bos_only'"),
    ("gpt2", ["w0 w1", "w0"], {"tokens": 1}, "position 1 is outside stimulus '1', which has 1 tokens"),
    ("gpt2", ["w0 w1", "w0"], {"tokens": slice(1, 2)}, "stimulus '1' has 1 tokens and none is left by tokens='slice(1, 2, None)'"),
    (
        "gpt2",
        ["w0"],
        {"max_length": 65},
        "max_length=65 is more than the 64 positions that the model and its tokenizer state",
    ),
    ("gpt2", ["w0"], {"max_length": 0}, "max_length=0 leaves no token; give 1 or more"),
    ("gpt2", ["   "], {}, "stimulus '0' has no token ('   '); drop it or fill it"),
    ("gpt2", ["w0"], {"padding_side": "top"}, "padding_side='top' is unknown; expected 'right' or 'left'"),
    ("bert", ["w0", "  "], {"special": "drop"}, "stimulus '1' has 2 tokens and none is left by tokens='last', special='drop'"),
    ("gpt2", np.zeros((2, 8, 8, 3), np.uint8), {}, "reads text input; got stimuli of kind 'image' (the first is an array uint8 [8, 8, 3])"),
    ("gpt2", np.zeros((2, 8)), {}, "Give texts, chat messages or lists of token ids"),
    ("gpt2", {"text": ["w0"], "m": [[True, False]]}, {"tokens": "m"}, "the mask of stimulus '0' has shape (2,), its sequence has 1 tokens"),
    ("gpt2", {"text": ["w0", "w1"], "m": [0, None]}, {"tokens": "m"}, "column 'm' has no value for stimulus '1'"),
    (
        "gpt2",
        {"text": ["w0"], "m": [[0.5]]},
        {"tokens": "m"},
        "positions of stimulus '0' are float64; expected whole numbers or",
    ),
    ("gpt2", [4, 5, 6], {}, "(the first is the single number 4). Give texts, chat messages or lists of token ids; one sequence of numbers"),
    ("gpt2", [[4, 44]], {}, "stimulus '0' has the token id 44, and GPT2LMHeadModel has embeddings for 0 to 43; give ids from 0 on"),
    ("gpt2", [[4], [5, -100]], {}, "stimulus '1' has the token id -100, and GPT2LMHeadModel has embeddings for 0 to 43"),
    ("gpt2", [[1.5, 2.5]], {}, "reads text input; got stimuli of kind 'array'"),
    ("gpt2", ["w0"], {"dtype": "float8"}, "dtype='float8' is unknown; nearest: 'float"),
    (
        "gpt2",
        ["w0"],
        {"dtype": torch.int8},
        "dtype=torch.int8 cannot be stored; expected one of float16, bfloat16",
    ),
    ("gpt2", ["w0"], {"shard_stimuli": 0}, "shard_stimuli=0 leaves no shard; give 1 or more"),
]


@pytest.mark.parametrize(("name", "stimuli", "options", "text"), BAD)
def test_bad_input_is_told_what_is_wrong(request, name, stimuli, options, text):
    model = request.getfixturevalue(name)
    with pytest.raises(StimuliError, match=re.escape(text)):
        ix.capture(model, stimuli, SITE, **options)


def test_a_tokenizer_that_grew_beyond_its_model_is_told_by_name(make):
    tokenizer = make_tokenizer(special=False)
    tokenizer.add_tokens(["<new>"])
    with pytest.raises(
        StimuliError, match=r"stimulus '1' has the token id 44, .*or it grew and the model did not: module.resize_token_emb"
    ):
        ix.capture(ix.load(make("gpt2"), tokenizer=tokenizer), ["w0", "w1 <new>"], SITE)


def test_texts_for_models_without_a_tokenizer(make):
    with pytest.raises(
        StimuliError,
        match=re.escape("the stimuli are texts ('w0' …) and the model has no tokenizer; give it one with ix.load(model, tokenizer="),
    ):
        ix.capture(ix.load(make("gpt2")), ["w0"], SITE)
    with pytest.raises(StimuliError, match="special='drop' needs a tokenizer that says which tokens are special; the model has none"):
        ix.capture(ix.load(make("gpt2")), [[4, 5]], SITE, special="drop")
    with pytest.raises(StimuliError, match="the stimuli are texts"):
        ix.capture(torch.nn.Sequential(torch.nn.Linear(2, 3)), ["w0"], "0")
    with pytest.raises(StimuliError, match="max_length cuts texts; this model reads tensor input"):
        ix.capture(torch.nn.Sequential(torch.nn.Linear(2, 3)), np.zeros((3, 2)), "0", max_length=3)


def test_two_functions_with_one_code_are_two_plans(gpt2, tmp_path):
    """What a function closes over decides its positions, so the plan holds those and not only the code."""
    from inscape.errors import StoreMismatchError

    def at(position):
        return lambda ids: [position]

    ix.capture(gpt2, [words(4)], SITE, at(1), to=tmp_path / "s")
    assert ix.capture(gpt2, [words(4)], SITE, at(1), to=tmp_path / "s").complete
    with pytest.raises(StoreMismatchError, match="rows.picked_sha256 was"):
        ix.capture(gpt2, [words(4)], SITE, at(2), to=tmp_path / "s")
