"""Documents in contexts: kept apart they are what they are alone; read on they are one text; every row knows its document."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.capturing.packing import _apart, _read_on
from inscape.errors import InscapeWarning, StimuliError

from .conftest import words

LENGTHS = [5, 1, 17, 3, 20, 2, 9, 9, 14, 7, 1, 6]
SITES = ["blocks.0.resid_post", "blocks.1.resid_post"]


def _texts():
    return [words(length, start=3 * i) for i, length in enumerate(LENGTHS)]


def _close(a, b):
    return float((a - b).abs().max()) <= 1e-4 * float(b.square().mean().sqrt())


@pytest.fixture
def model(make, plain_tokenizer):
    return ix.load(make("gpt2"), tokenizer=plain_tokenizer)


@pytest.mark.parametrize(
    ("name", "attention"),
    [("gpt2", "sdpa"), ("gpt2", "eager"), ("llama", "sdpa"), ("bert", "sdpa"), ("bert", "eager"), ("roberta", "sdpa")],
)
def test_packed_rows_are_the_rows_of_each_document_alone(make, plain_tokenizer, bert_tokenizer, name, attention):
    module = make(name)
    before = module.config._attn_implementation
    module.set_attn_implementation(attention)
    try:
        model = ix.load(module, tokenizer=bert_tokenizer if "bert" in name else plain_tokenizer)
        packed = ix.capture(model, _texts(), SITES, "all", pack=24, batch_tokens=60)
        alone = ix.capture(model, _texts(), SITES, "all", batch_size=1)
    finally:
        module.set_attn_implementation(before)
    for site in SITES:
        a, b = packed[site], alone[site]
        assert _close(a.torch(), b.torch())
        assert (a.tokens.tolist(), a.ids.tolist(), a.position.tolist()) == (b.tokens.tolist(), b.ids.tolist(), b.position.tolist())


def test_packing_is_seen_from_outside_in_the_modules_own_inputs(model):
    """The forwards get contexts of at most 24 tokens whose positions start again at each document."""
    seen = []
    handle = model.module.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append([kwargs.get(name) for name in ("input_ids", "position_ids", "attention_mask")]),
        with_kwargs=True,
    )
    ix.capture(model, _texts(), SITES[0], "all", pack=24)
    handle.remove()
    ids, positions, mask = seen[-1]
    assert mask is None and ids.shape[1] <= 24
    assert int((positions == 0).sum()) >= len(LENGTHS)
    total = sum(LENGTHS)
    assert ids.numel() <= 1.35 * total, "contexts are filled, not padded"


@pytest.mark.parametrize(("tokens", "special"), [("last", "keep"), ("mean", "keep"), (-3, "keep"), ("all", "drop"), ("column", "keep")])
def test_rules_hold_inside_a_context(make, bert_tokenizer, tokens, special):
    model = ix.load(make("bert"), tokenizer=bert_tokenizer)
    table = {"text": _texts(), "column": [[0, length] for length in LENGTHS]}
    packed = ix.capture(model, table, SITES[1], tokens, special=special, pack=24)[SITES[1]]
    plain = ix.capture(model, table, SITES[1], tokens, special=special)[SITES[1]]
    assert (packed.kind, packed.ids.tolist(), packed.position.tolist()) == (plain.kind, plain.ids.tolist(), plain.position.tolist())
    assert _close(packed.torch(), plain.torch())


def test_shards_of_contexts_resume_with_the_same_bytes(model, tmp_path):
    def contents(folder):
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

    options = {"tokens": "all", "pack": 24, "shard_stimuli": 5}
    ix.capture(model, _texts(), SITES, to=tmp_path / "a", **options)
    ix.capture(model, _texts(), SITES, to=tmp_path / "b", **options)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    whole = ix.capture(model, _texts(), SITES, "all")
    assert _close(ix.open(tmp_path / "a")[SITES[1]].torch(), whole[SITES[1]].torch())
    assert ix.open(tmp_path / "a").manifest.plan["input"]["pack"] == {
        "length": 24,
        "across": False,
        "apart_by": "position ids that start again with each document",
    }


def test_long_documents_are_cut_at_the_context_and_counted(model):
    texts = [words(length, 3 * i) for i, length in enumerate([5, 1, 17, 3, 16, 2, 9, 8, 14, 7, 6, 6])]
    with pytest.warns(InscapeWarning, match=r"4 of 12 stimuli were cut at max_length=8: 24 of 94 tokens are not read"):
        store = ix.capture(model, texts, SITES[0], "all", pack=8)
    assert store.manifest.plan["input"]["truncated_tokens"] == 24
    assert store[SITES[0]].n == 70


def test_read_on_is_the_modules_own_reading_of_the_joined_text(model):
    """Contexts of 16 tokens, cut from all documents with a token between them; each is run by hand."""
    store = ix.capture(model, _texts(), SITES, "all", pack={"length": 16, "across": True, "separator": 2}, batch_tokens=32)
    ids = [model.tokenizer(text)["input_ids"] for text in _texts()]
    joined, kept = [], []
    for row in ids:
        kept += range(len(joined), len(joined) + len(row))
        joined += [*row, 2]
    with torch.no_grad():
        contexts = [torch.tensor([joined[at : at + 16]]) for at in range(0, len(joined), 16)]
        parts = [model.module(ids, output_hidden_states=True).hidden_states[2][0] for ids in contexts]
    view = store[SITES[1]]
    assert _close(view.torch(), torch.cat(parts)[kept])
    assert view.position.tolist() == [p for row in ids for p in range(len(row))]
    assert view.ids.tolist() == [str(i) for i, row in enumerate(ids) for _ in row]
    last = ix.capture(model, _texts(), SITES, "last", pack={"length": 16, "across": True, "separator": 2})[SITES[1]]
    ends = np.cumsum(LENGTHS) - 1
    torch.testing.assert_close(last.torch(), view.torch()[torch.from_numpy(ends)], rtol=0, atol=1e-5)


def test_read_on_cuts_no_document(model):
    long = [words(150), words(30)]
    store = ix.capture(model, long, SITES[0], "all", pack={"length": 64, "across": True})
    assert store[SITES[0]].n == 180
    record = store.manifest.plan["input"]
    assert (record["truncated_tokens"], record["max_length"]) == (0, None)


def test_the_names_of_separators_are_the_tokenizers(make, bert_tokenizer):
    model = ix.load(make("bert"), tokenizer=bert_tokenizer)
    store = ix.capture(model, _texts(), SITES[0], "all", pack={"length": 32, "across": True, "separator": "sep"})
    assert store.manifest.plan["input"]["pack"] == {"length": 32, "across": True, "separator": 2}
    with pytest.raises(StimuliError, match="the tokenizer of BertModel has no 'eos' token; give a token id"):
        ix.capture(model, _texts(), SITES[0], "all", pack={"length": 32, "across": True, "separator": "eos"})


def _bloom():
    from transformers import BloomConfig, BloomForCausalLM

    return BloomForCausalLM(BloomConfig(hidden_size=16, n_layer=2, n_head=2, vocab_size=44))


def _mamba():
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=44, state_size=4))


def _mistral():
    from transformers import MistralConfig, MistralForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    return MistralForCausalLM(MistralConfig(vocab_size=44, max_position_embeddings=64, sliding_window=3, **sizes))


def _more(name):
    import transformers

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
    grouped = {"num_key_value_heads": 2, "head_dim": 4}
    own = {
        "Qwen3": {**sizes, **grouped},
        "Gemma2": {**sizes, **grouped, "sliding_window": 3},
        "GPTNeoX": sizes,
        "Phi": sizes,
        "OPT": {"hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 16},
    }
    config = getattr(transformers, f"{name}Config")(vocab_size=44, bos_token_id=1, eos_token_id=2, pad_token_id=0, **own[name])
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


@pytest.mark.parametrize("name", ["Qwen3", "Gemma2", "GPTNeoX", "Phi", "OPT"])
def test_more_families_keep_documents_apart(plain_tokenizer, name):
    torch.manual_seed(0)
    model = ix.load(_more(name), tokenizer=plain_tokenizer)
    packed = ix.capture(model, _texts(), SITES, "all", pack=24)
    plain = ix.capture(model, _texts(), SITES, "all", batch_size=1)
    assert _close(packed[SITES[1]].torch(), plain[SITES[1]].torch())


@pytest.mark.parametrize("module", [_bloom, _mamba])
def test_models_that_let_documents_mix_are_refused(plain_tokenizer, module):
    torch.manual_seed(0)
    model = ix.load(module(), tokenizer=plain_tokenizer)
    with pytest.raises(StimuliError, match=r"pack=24: .* does not keep documents of one context apart \(.*Capture without pack, or let"):
        ix.capture(model, _texts(), SITES[0], "all", pack=24)


def test_a_sliding_window_stays_inside_its_document(plain_tokenizer):
    torch.manual_seed(0)
    model = ix.load(_mistral(), tokenizer=plain_tokenizer)
    packed = ix.capture(model, _texts(), SITES, "all", pack=24)
    plain = ix.capture(model, _texts(), SITES, "all", batch_size=1)
    assert _close(packed[SITES[1]].torch(), plain[SITES[1]].torch())


BAD = [
    ({"pack": 1}, "pack=1: expected a context length of 2 or more, or"),
    ({"pack": {"length": 8, "cross": True}}, "expected a context length of 2 or more, or"),
    ({"pack": {"length": 8, "separator": 2}}, "a separator stands between documents that are read on as one text; say 'across': True"),
    ({"pack": 65}, "max_length=65 is more than the 64 positions that the model and its tokenizer state"),
    ({"pack": {"length": 65, "across": True}}, "pack=65 is more than the 64 positions that the model and its tokenizer state"),
    ({"pack": 24, "padding_side": "left"}, "pack=24 fills contexts from the left; padding_side='left' does not go with it"),
    (
        {"pack": {"length": 24, "across": True}, "tokens": "mean"},
        "read on may lie in several contexts, so they have no mean",
    ),
    ({"pack": 24, "sites": "blocks.0.resid_post|token_cosine"}, "is about whole sequences, and a context holds several documents"),
]


@pytest.mark.parametrize(("options", "text"), BAD)
def test_what_cannot_be_packed_says_why(model, options, text):
    with pytest.raises(StimuliError, match=re.escape(text)):
        ix.capture(model, _texts(), **{"sites": SITES, "tokens": "all", **options})


def test_other_inputs_and_edits_at_positions_are_refused(make, model):
    with pytest.raises(StimuliError, match="pack=8 packs texts into contexts; the stimuli are of kind 'image'"):
        ix.capture(ix.load(make("vit")), np.zeros((2, 8, 8, 3), np.uint8), SITES[0], "all", pack=8)
    edit = ix.edit(model, SITES[0], ix.edits.add(torch.ones(16), tokens=[0]))
    with (
        edit,
        pytest.raises(StimuliError, match=r"pack=24: the open edit add\(.*counts tokens of a context, which holds"),
    ):
        ix.capture(model, _texts(), SITES[0], "all", pack=24)
    everywhere = ix.edit(model, SITES[0], ix.edits.add(torch.ones(16)))
    with everywhere:
        packed, plain = (ix.capture(model, _texts(), SITES[1], "all", pack=pack) for pack in (24, None))
    assert _close(packed[SITES[1]].torch(), plain[SITES[1]].torch())


def test_contexts_by_arithmetic():
    """Best fit, longest first; reading on cuts every `size` tokens with the gap counted."""
    lengths = np.array([5, 3, 8, 2, 4])
    apart = [[(p.member, p.at) for p in context] for context in _apart(lengths, 8, 10)]
    assert apart == [[(12, 0)], [(10, 0), (11, 5)], [(13, 0), (14, 2)]]
    on = [[(p.member, p.first, p.count, p.at) for p in context] for context in _read_on(lengths, 8, 1, 0)]
    assert on == [
        [(0, 0, 5, 0), (1, 0, 2, 6)],
        [(1, 2, 1, 0), (2, 0, 6, 2)],
        [(2, 6, 2, 0), (3, 0, 2, 3), (4, 0, 2, 6)],
        [(4, 2, 2, 0)],
    ]
