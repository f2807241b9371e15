"""Conversations: what the tokenizer's template makes of them, whose words each token is, and what is refused."""

from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pyarrow as pa
import pytest
import torch

import inscape as ix
from inscape.errors import InscapeWarning, StimuliError

from .chat_scene import CHATML, FOLDED, FORGETFUL, MARKED, STRIPPING, TOOLS, byte_tokenizer, chat_model

SITE = "blocks.0.resid_post"
CHATS = [
    [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi cat"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "cat?"},
        {"role": "assistant", "content": "Yes: a cat."},
    ],
    [{"role": "user", "content": " A dog\n"}, {"role": "assistant", "content": "Wüf 🐕"}],
]


@pytest.fixture(scope="module")
def module():
    return chat_model()


def _model(module, template=CHATML, **options):
    return ix.load(module, tokenizer=byte_tokenizer(template, **options))


def _text(model, view, mask):
    return model.tokenizer.decode(view.column("token_id")[mask])


def _by_message(model, view, where):
    """What the rows of each message say, by role and number."""
    mine = view.stimulus == where
    numbers = view.column("message")
    found = [
        (str(view.column("role")[mine & (numbers == n)][0]), _text(model, view, mine & (numbers == n))) for n in np.unique(numbers[mine])
    ]
    return found[1:]  # the first is the template's own


@pytest.mark.parametrize("template", [CHATML, MARKED, FOLDED, TOOLS])
def test_the_ids_are_those_of_the_tokenizers_own_call(module, template):
    """One BOS where the template writes one, though the tokenizer opens plain texts with it; none where it writes none."""
    model = _model(module, template)
    view = ix.capture(model, CHATS, SITE, "all")[SITE]
    for where, messages in enumerate(CHATS):
        expected = model.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
        assert view.column("token_id")[view.stimulus == where].tolist() == expected
        assert expected.count(0) == (template == FOLDED)
    with torch.no_grad():
        states = module.model(torch.tensor([expected]), output_hidden_states=True).hidden_states[1][0]
    torch.testing.assert_close(view.torch()[torch.from_numpy(view.stimulus == 1)], states, rtol=0, atol=1e-5)


@pytest.mark.parametrize("merges", [False, True])
@pytest.mark.parametrize("template", [CHATML, MARKED, FOLDED])
def test_every_word_belongs_to_its_message(module, template, merges):
    model = _model(module, template, merges=merges)
    view = ix.capture(model, CHATS, SITE, "all")[SITE]
    trims = template == FOLDED
    for where, messages in enumerate(CHATS):
        expected = [(m["role"], m["content"].strip() if trims else m["content"]) for m in messages]
        found = _by_message(model, view, where)
        if merges:  # a token that holds a character of a message and the space before it is that message's
            assert [(role, text.strip()) for role, text in found] == [(role, text.strip()) for role, text in expected]
        else:
            assert found == expected
    template_rows = view.column("role") == "template"
    assert (view.column("message")[template_rows] == -1).all()
    assert not view.column("assistant")[template_rows & ~(view.column("special") & (template == MARKED))].any()


@pytest.mark.parametrize("said", ["\n\nHo", "\nHo\n", "  Ho ", "Ho", "\n"])
def test_newlines_that_a_template_takes_off(module, said):
    model = _model(module, STRIPPING)
    chat = [{"role": "user", "content": "\nHi\n"}, {"role": "assistant", "content": said}, {"role": "user", "content": "Hm"}]
    view = ix.capture(model, [chat], SITE, "all")[SITE]
    answer = [("assistant", said.lstrip("\n"))] if said.strip() else []
    assert _by_message(model, view, 0) == [("user", "\nHi\n"), *answer, ("user", "Hm")]


def test_the_assistant_is_what_the_generation_marks_enclose(module):
    model = _model(module, MARKED)
    view = ix.capture(model, CHATS, SITE, "all")[SITE]
    for where, messages in enumerate(CHATS):
        made = model.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        assert view.column("assistant")[view.stimulus == where].astype(int).tolist() == made["assistant_masks"]
    rows = ix.capture(model, CHATS, SITE, "assistant")[SITE]
    assert torch.equal(rows.torch(), view.torch()[torch.from_numpy(view.column("assistant").astype(bool))])
    assert _text(model, rows, rows.stimulus == 0) == "Hello.<|im_end|>Yes: a cat.<|im_end|>"
    assert rows.store.manifest.plan["input"]["template"]["assistant_from"] == "generation marks"


@pytest.mark.parametrize(("tokens", "expected"), [("user", "Hi catcat?"), ("assistant", "Hello.Yes: a cat."), ("system", "Be kind.")])
def test_roles_are_token_rules(module, tokens, expected):
    model = _model(module)
    view = ix.capture(model, CHATS[:1], SITE, tokens)[SITE]
    assert view.kind == "token" and _text(model, view, slice(None)) == expected
    everything = ix.capture(model, CHATS[:1], SITE, "all")[SITE]
    assert torch.equal(view.torch(), everything.torch()[torch.from_numpy(view.position.astype(np.int64))])
    assert set(view.column("role")) == {tokens}


def test_marks_of_the_template_are_special(module):
    model = _model(module)
    view = ix.capture(model, CHATS, SITE, "all")[SITE]
    marks = view.column("token_id")[view.column("special")]
    assert set(model.tokenizer.convert_ids_to_tokens(marks)) == {"<|im_start|>", "<|im_end|>"}
    dropped = ix.capture(model, CHATS, SITE, "all", special="drop")[SITE]
    assert dropped.n == view.n - len(marks)
    assert ix.capture(model, CHATS, SITE, "all", special="bos_only")[SITE].n == view.n - len(marks) + len(CHATS)


def test_options_of_the_template(module):
    model = _model(module)
    stimuli = ix.Stimuli(CHATS[:1], template={"add_generation_prompt": True})
    view = ix.capture(model, stimuli, SITE, "all")[SITE]
    expected = model.tokenizer.apply_chat_template(CHATS[0], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert view.column("token_id").tolist() == expected
    assert _text(model, view, slice(-11, None)) == "<|im_start|>assistant\n"
    given = ix.Stimuli(CHATS[:1], template={"chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}"})
    plain = ix.capture(model, given, SITE, "all")[SITE]
    assert _text(model, plain, slice(None)) == "".join(m["content"] for m in CHATS[0])
    first, second = (view.store.manifest.plan["input"]["template"] for view in (view, plain))
    assert first["options"] == {"add_generation_prompt": True} and second["options"] == {}
    assert first["sha256"] != second["sha256"]


def test_tool_calls_are_words_of_the_assistant(module):
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    messages = [
        {"role": "user", "content": "Rome?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "18 C"},
        {"role": "assistant", "content": "Mild."},
    ]
    model = _model(module, TOOLS)
    view = ix.capture(model, [messages], SITE, "all")[SITE]
    said = json.dumps(call["function"], ensure_ascii=False)
    assert _by_message(model, view, 0) == [
        ("user", "Rome?"),
        ("assistant", f"<tool>{said}</tool><|im_end|>\n"),
        ("tool", "18 C"),
        ("assistant", "Mild."),
    ]
    assert view.column("assistant").sum() == (view.column("role") == "assistant").sum()
    reordering = TOOLS.replace("{% for message in messages %}", "{{ messages | length }}{% for message in messages %}", 1)
    with pytest.warns(
        InscapeWarning, match=r"rows carry no role, message or assistant mark: in stimulus '0', the template renders the messages"
    ):
        ix.capture(_model(module, reordering), [messages], SITE, "all")


def test_a_template_that_depends_on_the_words_has_no_roles_and_says_so(module):
    """The model still reads what the template makes; only who said what cannot be told, and a rule that asks for it is refused."""
    thinking = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>hm</think>Ho"},
        {"role": "user", "content": "Hm"},
    ]
    model = _model(module, FORGETFUL)
    with pytest.warns(
        InscapeWarning, match=r"rows carry no role, message or assistant mark: in stimulus '1', what the template makes of message 1"
    ):
        store = ix.capture(model, [CHATS[0], thinking], SITE, "all")
    assert "role" not in store[SITE].columns
    told = store.manifest.plan["input"]["template"]
    assert told["assistant_from"] == "unknown" and "depends on what the messages say" in told["roles_unknown"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InscapeWarning)
        with pytest.raises(StimuliError, match=r"tokens='user' cannot be told: in stimulus '1', what the template makes of message 1"):
            ix.capture(model, [CHATS[0], thinking], SITE, "user")
    assert set(ix.capture(model, [CHATS[0]], SITE, "all")[SITE].column("role")) == {"template", "system", "user", "assistant"}


def test_contents_in_parts_are_joined_and_other_parts_refused(module):
    model = _model(module)
    parts = [{"role": "user", "content": [{"type": "text", "text": "A "}, {"type": "text", "text": "dog"}]}]
    whole = [{"role": "user", "content": "A dog"}]
    a, b = (ix.capture(model, [chat], SITE, "all")[SITE] for chat in (parts, whole))
    assert torch.equal(a.torch(), b.torch())
    picture = [{"role": "user", "content": [{"type": "image", "url": "cat.png"}]}]
    with pytest.raises(
        StimuliError, match="message 0 of the conversation at position 1 holds a part of kind 'image'; a chat is read as text"
    ):
        ix.Stimuli([whole, picture])


def test_tables_files_and_single_conversations(module, tmp_path):
    model = _model(module)
    expected = ix.capture(model, CHATS, SITE, "last")[SITE].torch()
    table = {"messages": CHATS, "topic": ["cat", "dog"]}
    store = ix.capture(model, table, SITE, "last")
    assert torch.equal(store[SITE].torch(), expected) and store[SITE].column("topic").tolist() == ["cat", "dog"]
    assert [json.loads(text) for text in store.stimuli["messages"].to_pylist()] == CHATS
    (tmp_path / "chats.jsonl").write_text("\n".join(json.dumps({"messages": chat, "prompt": "x"}) for chat in CHATS))
    assert torch.equal(ix.capture(model, tmp_path / "chats.jsonl", SITE, "last")[SITE].torch(), expected)
    arrow = pa.table({"messages": [[{"role": m["role"], "content": m["content"]} for m in chat] for chat in CHATS]})
    assert torch.equal(ix.capture(model, arrow, SITE, "last")[SITE].torch(), expected)
    again = ix.Stimuli(store.stimuli)
    assert again.kind == "chat" and again[0] == CHATS[0]
    single = ix.Stimuli(CHATS[0])
    assert (len(single), single.kind, single.single) == (1, "chat", True)
    assert ix.capture(model, CHATS[0], SITE)[SITE].kind == "token"


def test_cutting_keeps_roles_with_their_tokens(module):
    model = _model(module)
    whole = ix.capture(model, CHATS, SITE, "all")[SITE]
    for side, kept in (("right", slice(None, 30)), ("left", slice(-30, None))):
        with pytest.warns(InscapeWarning, match="2 of 2 stimuli were cut at max_length=30"):
            store = ix.capture(model, CHATS, SITE, "all", max_length=30, truncation_side=side)
        view = store[SITE]
        for where in range(2):
            mine, all_of_it = view.stimulus == where, whole.stimulus == where
            for name in ("token_id", "role", "message", "assistant"):
                assert view.column(name)[mine].tolist() == whole.column(name)[all_of_it][kept].tolist()
        assert store.manifest.plan["input"]["truncation_side"] == side


def test_plans_differ_by_template(module, tmp_path):
    from inscape.errors import StoreMismatchError

    ix.capture(_model(module), CHATS, SITE, "last", to=tmp_path / "s")
    assert ix.capture(_model(module), CHATS, SITE, "last", to=tmp_path / "s").complete
    with pytest.raises(StoreMismatchError, match=r"input.template.sha256 was"):
        ix.capture(_model(module, MARKED), CHATS, SITE, "last", to=tmp_path / "s")


def _slow_tokenizer():
    """A tokenizer written in Python: no character offsets."""
    from transformers import PreTrainedTokenizer

    class Letters(PreTrainedTokenizer):
        vocab_size = 256

        def get_vocab(self):
            return {chr(i): i for i in range(256)}

        def _tokenize(self, text, **kwargs):
            return list(text)

        def _convert_token_to_id(self, token):
            return ord(token) if ord(token) < 256 else 63

        def _convert_id_to_token(self, index):
            return chr(index)

        def convert_tokens_to_string(self, tokens):
            return "".join(tokens)

    tokenizer = Letters(model_max_length=512)
    tokenizer.chat_template = CHATML.replace("<|im_start|>", "[").replace("<|im_end|>", "]")
    return tokenizer


def test_without_offsets_roles_are_found_by_the_ids_of_beginnings(module):
    model = ix.load(module, tokenizer=_slow_tokenizer())
    chats = [[{"role": "user", "content": "Hi cat"}, {"role": "assistant", "content": "Ho."}]]
    view = ix.capture(model, chats, SITE, "all")[SITE]
    assert _by_message(model, view, 0) == [("user", "Hi cat"), ("assistant", "Ho.")]
    with pytest.raises(StimuliError, match=r"Letters gives no character offsets \(it is a slow tokenizer\)"):
        ix.capture(model, ["Hi cat"], SITE, {"text": "cat"})


BAD = [
    ([{"role": "user", "content": 3}], "has a content of type int ('3'); expected a text or text parts"),
    ([{"role": "", "content": "x"}], "message 0 of the conversation at position 0 has the role ''"),
    (
        [{"role": "user", "content": None}, {"role": "user", "content": "x"}],
        "message 0 of the conversation at position 0 (role 'user') has no",
    ),
]


@pytest.mark.parametrize(("chat", "text"), BAD)
def test_messages_that_are_none(chat, text):
    with pytest.raises(StimuliError, match=re.escape(text)):
        ix.Stimuli([chat])


def test_what_cannot_be_rendered_says_why(module):
    with pytest.raises(StimuliError, match=r"has no chat template for these messages .*Give one with Stimuli\(\.\.\., template="):
        ix.capture(_model(module, None), CHATS, SITE)
    with pytest.raises(StimuliError, match="the stimuli are chat messages and the model has no tokenizer with a template; load it with"):
        ix.capture(chat_model(), CHATS, SITE)
    twice = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    with pytest.raises(StimuliError, match="the chat template cannot render stimulus '0': TemplateError: roles must alternate"):
        ix.capture(_model(module, FOLDED), [twice], SITE)
    with pytest.raises(StimuliError, match=r"template=\{'max_length': …\} is not for the template; lengths and padding are arguments of"):
        ix.capture(_model(module), ix.Stimuli(CHATS, template={"max_length": 3}), SITE)
    with pytest.raises(StimuliError, match=r"template=\{'a': 1\} is for chat messages; the stimuli are of kind 'text'"):
        ix.Stimuli(["x"], template={"a": 1})
    with pytest.raises(StimuliError, match="tokens='tool': no message has this role; the messages have 'system', 'user', 'assistant'"):
        ix.capture(_model(module), CHATS, SITE, "tool")
    with pytest.raises(
        StimuliError, match="tokens='user' picks the words of a role; only chat messages have roles, and the stimuli are 'text'"
    ):
        ix.capture(_model(module), ["x"], SITE, "user")
    with pytest.raises(StimuliError, match=r"stimulus '1' has \d+ tokens and none is left by tokens='system'"):
        ix.capture(_model(module), CHATS, SITE, "system")
    with pytest.raises(StimuliError, match="tokens='user' is both a role of the tokens and a column of the stimuli; rename the column"):
        ix.capture(_model(module), {"messages": CHATS, "user": ["a", "b"]}, SITE, "user")
    with pytest.raises(StimuliError, match="reads image input; got stimuli of kind 'chat'"):
        from .conftest import _vit

        ix.capture(_vit(), CHATS, SITE)
    with pytest.raises(StimuliError, match="is a text that is no JSON"):
        ix.Stimuli(["hello"], kind="chat")
    with pytest.raises(StimuliError, match="expected a list of messages, as in"):
        ix.Stimuli([["hello"]], kind="chat")


def test_streams_of_conversations(module):
    model = _model(module)
    for stimuli in (lambda: iter(CHATS), ({"messages": chat} for chat in CHATS)):
        streamed = ix.capture(model, stimuli, SITE, "assistant", shard_stimuli=1)[SITE]
        listed = ix.capture(model, CHATS, SITE, "assistant")[SITE]
        torch.testing.assert_close(streamed.torch(), listed.torch(), rtol=0, atol=1e-5)
        assert streamed.column("message").tolist() == listed.column("message").tolist()
