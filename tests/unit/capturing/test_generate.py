"""Tokens that the model adds itself: the module's own, alone or in a batch; their rows are what hooks see under the key-value cache."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.capturing import generating, journal
from inscape.errors import MemoryBudgetError, StimuliError, StoreMismatchError
from inscape.store.writer import StoreWriter

from .chat_scene import CHATML, byte_tokenizer, chat_model
from .conftest import words

PROMPTS = [words(5), words(1, 7), words(12, 3), words(3, 20), words(8, 11)]
SITES = ["blocks.0.resid_post", "blocks.2.resid_post"]
NEW = 6


def _own(module, tokenizer, prompt, **options):
    """The module's own continuation of one prompt, without the prompt."""
    ids = tokenizer(prompt, return_tensors="pt")
    made = module.generate(**ids, max_new_tokens=NEW, do_sample=False, pad_token_id=0, **options)
    return made[0, ids["input_ids"].shape[1] :].tolist()


def _generated(store):
    return store.stimuli["generated_ids"].to_pylist()


@pytest.fixture(params=["gpt2", "llama"])
def model(request, make, plain_tokenizer):
    return ix.load(make(request.param), tokenizer=plain_tokenizer)


@pytest.fixture
def gpt2(make, plain_tokenizer):
    return ix.load(make("gpt2"), tokenizer=plain_tokenizer)


def test_the_tokens_are_those_of_the_modules_own_generate(model):
    store = ix.capture(model, PROMPTS, SITES, "all", generate=NEW)
    expected = [_own(model.module, model.tokenizer, prompt) for prompt in PROMPTS]
    assert _generated(store) == expected
    assert store.stimuli["generated_text"].to_pylist() == [model.tokenizer.decode(ids, skip_special_tokens=True) for ids in expected]
    view = store[SITES[0]]
    assert view.column("token_id")[view.column("generated")].tolist() == [token for ids in expected for token in ids]
    assert [model.tokenizer.decode(view.column("token_id")[view.ids == str(i)]) for i in range(len(PROMPTS))] == [
        f"{prompt} {model.tokenizer.decode(ids)}" for prompt, ids in zip(PROMPTS, expected, strict=True)
    ]


def test_rows_are_what_hooks_see_step_by_step_under_the_cache(model):
    """Prefill and one token a pass, by hooks written by hand; the last token is never fed back, so only the capture has its row."""
    store = ix.capture(model, PROMPTS, SITES, "all", generate=NEW)
    layers = model.module.transformer.h if hasattr(model.module, "transformer") else model.module.model.layers
    for where, prompt in enumerate(PROMPTS):
        seen: dict[int, list[torch.Tensor]] = {0: [], 2: []}

        def keep(kept):
            return lambda module, args, out: kept.append((out if torch.is_tensor(out) else out[0])[0].clone())

        handles = [layers[i].register_forward_hook(keep(seen[i])) for i in seen]
        _own(model.module, model.tokenizer, prompt)
        for handle in handles:
            handle.remove()
        assert len(seen[0]) == len(_generated(store)[where]), "one pass for the prompt and one for each token but the last"
        for i, site in zip(seen, SITES, strict=True):
            rows = store[site].torch()[torch.from_numpy(store[site].stimulus == where)]
            torch.testing.assert_close(rows[:-1], torch.cat(seen[i]), rtol=0, atol=1e-5)


def test_in_a_batch_and_alone_are_the_same(model):
    together = ix.capture(model, PROMPTS, SITES, "generated", generate=NEW)
    alone = [ix.capture(model, [prompt], SITES, "generated", generate=NEW, batch_size=1) for prompt in PROMPTS]
    assert _generated(together) == [ids for store in alone for ids in _generated(store)]
    for site in SITES:
        torch.testing.assert_close(together[site].torch(), torch.cat([store[site].torch() for store in alone]), rtol=0, atol=1e-5)
        assert together[site].column("generated").all()
    assert together[SITES[0]].position.tolist() == [
        len(prompt.split()) + step for prompt, ids in zip(PROMPTS, _generated(together), strict=True) for step in range(len(ids))
    ]


def test_a_text_ends_with_the_token_that_ends_it(gpt2):
    """Whatever the model says second becomes its end: rows stop there, and `special` marks it."""
    second = _own(gpt2.module, gpt2.tokenizer, PROMPTS[0])[1]
    store = ix.capture(gpt2, PROMPTS, SITES, "generated", generate={"max_new_tokens": NEW, "eos_token_id": second})
    expected = [_own(gpt2.module, gpt2.tokenizer, prompt, eos_token_id=second) for prompt in PROMPTS]
    assert _generated(store) == expected and len(expected[0]) <= 2
    record = store.manifest.plan["input"]["generate"]
    assert (record["read"], record["max_new_tokens"], record["do_sample"]) == ("recompute", NEW, False)
    assert record["generated_tokens"] == sum(map(len, expected))
    assert record["ended"] == sum(len(ids) < NEW for ids in expected)
    view = store[SITES[0]]
    assert view.tokens[view.column("special")].tolist() == [
        gpt2.tokenizer.convert_ids_to_tokens(ids[-1]) for ids in expected if ids[-1] == second
    ]


def test_pad_equal_to_the_end_and_no_pad_at_all(make, plain_tokenizer):
    """Prompts that hold the pad token, and models without one, are continued as they are alone."""
    for pad in (2, None):
        module = make("gpt2")
        tokenizer = plain_tokenizer
        model = ix.load(module)
        before = module.config.pad_token_id
        module.config.pad_token_id = pad
        try:
            prompts = [[0, 5, 0], [2, 4, 5, 6, 7, 2], [9]]
            together = ix.capture(model, prompts, SITES, "all", generate=4)
        finally:
            module.config.pad_token_id = before
        with torch.no_grad():
            for ids, found in zip(prompts, _generated(together), strict=True):
                row = torch.tensor([ids])
                made = module.generate(row, attention_mask=torch.ones_like(row), max_new_tokens=4, do_sample=False, pad_token_id=0)
                assert found == made[0, len(ids) :].tolist()
        assert "generated_text" not in together.stimuli.column_names
        assert tokenizer is plain_tokenizer


def test_open_edits_act_while_generating_and_while_reading(gpt2):
    vector = torch.linspace(-4, 4, 16)
    plain = ix.capture(gpt2, PROMPTS, SITES, "generated", generate=NEW)

    def hook(module, args, out):
        return out + vector if torch.is_tensor(out) else (out[0] + vector, *out[1:])

    with ix.edit(gpt2, "blocks.1.resid_post", ix.edits.add(vector)):
        steered = ix.capture(gpt2, PROMPTS, SITES, "generated", generate=NEW)
    handle = gpt2.module.transformer.h[1].register_forward_hook(hook)
    expected = [_own(gpt2.module, gpt2.tokenizer, prompt) for prompt in PROMPTS]
    by_hand = ix.capture(gpt2, [model_ids(gpt2, prompt) + ids for prompt, ids in zip(PROMPTS, expected, strict=True)], SITES, "all")
    handle.remove()
    assert _generated(steered) == expected != _generated(plain)
    rows = ix.capture(gpt2, PROMPTS[:1], SITES, "all")  # nothing of the edit is left
    assert rows[SITES[1]].n == 5
    lengths = [(len(prompt.split()), len(ids)) for prompt, ids in zip(PROMPTS, expected, strict=True)]
    kept = np.concatenate([np.r_[np.zeros(p, bool), np.ones(n, bool)] for p, n in lengths])
    torch.testing.assert_close(steered[SITES[1]].torch(), by_hand[SITES[1]].torch()[torch.from_numpy(kept)], rtol=0, atol=1e-5)


def model_ids(model, prompt):
    return model.tokenizer(prompt)["input_ids"]


def test_edits_at_positions_meet_the_same_tokens_in_every_batch(gpt2):
    vector = torch.linspace(-4, 4, 16)
    with ix.edit(gpt2, "blocks.0.resid_post", ix.edits.add(vector, tokens=[0])):
        together = ix.capture(gpt2, PROMPTS, SITES, "all", generate=NEW)
        alone = [ix.capture(gpt2, [prompt], SITES, "all", generate=NEW) for prompt in PROMPTS]
    assert _generated(together) == [ids for store in alone for ids in _generated(store)]


@pytest.mark.parametrize("tokens", ["last", [-1], torch.ones(2, 3, dtype=torch.bool)])
def test_edits_that_each_pass_counts_for_itself_are_refused(gpt2, tokens):
    with (
        ix.edit(gpt2, SITES[0], ix.edits.add(torch.ones(16), tokens=tokens)),
        pytest.raises(
            StimuliError, match=r"the open edit add\(.* at 'blocks.0.resid_post' acts on tokens that each pass counts for itself"
        ),
    ):
        ix.capture(gpt2, PROMPTS, SITES, "all", generate=NEW)


def test_sampling_is_seeded_and_leaves_the_random_state(gpt2):
    state = torch.random.get_rng_state()
    options = {"max_new_tokens": NEW, "do_sample": True, "temperature": 2.0, "top_k": 0}
    first, again, other = (ix.capture(gpt2, PROMPTS, SITES, "generated", generate={**options, "seed": seed}) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert _generated(first) == _generated(again) != _generated(other)
    torch.manual_seed(3)
    expected = gpt2.module.generate(torch.tensor([[4, 5]]), attention_mask=torch.ones(1, 2, dtype=torch.long), pad_token_id=0, **options)
    alone = ix.capture(gpt2, [[4, 5]], SITES, "all", generate={**options, "seed": 3})
    assert _generated(alone) == expected[:, 2:].tolist()


def _contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class InterruptionError(Exception):
    pass


def test_a_killed_run_goes_on_with_what_was_generated(gpt2, tmp_path, monkeypatch):
    options = {"sites": SITES, "tokens": "generated", "generate": NEW, "batch_size": 2, "shard_stimuli": 2}
    ix.capture(gpt2, PROMPTS, to=tmp_path / "whole", **options)
    calls, run = [], generating._continue

    def failing(*args):
        if len(calls) == 1:
            raise InterruptionError
        calls.append(len(args[-1]))
        return run(*args)

    monkeypatch.setattr(generating, "_continue", failing)
    with pytest.raises(InterruptionError):
        ix.capture(gpt2, PROMPTS, to=tmp_path / "part", **options)
    lines = (tmp_path / "part" / journal._NAME).read_text().splitlines()
    assert len(lines) == 2 and len(json.loads(lines[1])["members"]) == 2
    (tmp_path / "part" / journal._NAME).write_text("\n".join(lines) + '\n{"members": [1, 2], "id')  # a torn line is not believed
    monkeypatch.setattr(generating, "_continue", lambda *args: calls.append(len(args[-1])) or run(*args))
    write = StoreWriter.write_shard

    def stop(self, index, *rest):
        if index == 1:
            raise InterruptionError
        write(self, index, *rest)

    monkeypatch.setattr(StoreWriter, "write_shard", stop)
    with pytest.raises(InterruptionError):
        ix.capture(gpt2, PROMPTS, to=tmp_path / "part", **options)
    assert calls == [2, 2, 1], "the first batch was not run again"
    assert not (tmp_path / "part" / journal._NAME).exists()
    monkeypatch.setattr(StoreWriter, "write_shard", write)
    monkeypatch.setattr(generating, "_continue", lambda *args: pytest.fail("the store has the tokens"))
    ix.capture(gpt2, PROMPTS, to=tmp_path / "part", **options)
    assert _contents(tmp_path / "part") == _contents(tmp_path / "whole")
    assert ix.capture(gpt2, PROMPTS, to=tmp_path / "part", **options).complete
    with pytest.raises(StoreMismatchError, match=r"holds a store of another plan: generate.max_new_tokens was 6, now is 5"):
        ix.capture(gpt2, PROMPTS, to=tmp_path / "part", **{**options, "generate": 5})
    ix.capture(gpt2, PROMPTS, to=tmp_path / "plain", tokens="all", sites=SITES)
    with pytest.raises(StoreMismatchError, match="holds a store of another plan: input.generate was None"):
        ix.capture(gpt2, PROMPTS, to=tmp_path / "plain", **options)


def test_too_little_memory_halves_the_batch(gpt2, monkeypatch):
    run, sizes = generating._continue, []

    def hungry(*args):
        sizes.append(len(args[-1]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("out of memory")
        return run(*args)

    expected = _generated(ix.capture(gpt2, PROMPTS, SITES, "all", generate=NEW))
    monkeypatch.setattr(generating, "_continue", hungry)
    assert _generated(ix.capture(gpt2, PROMPTS, SITES, "all", generate=NEW)) == expected
    assert sizes[0] == 5 and max(sizes[2:]) <= 2
    monkeypatch.setattr(generating, "_continue", lambda *args: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(MemoryBudgetError, match=r"a prompt of 1 tokens cannot be continued by 6: no room. Shorten it with max_length"):
        ix.capture(gpt2, PROMPTS, SITES, "all", generate=NEW)


@pytest.mark.parametrize("options", [{"repetition_penalty": 1.8}, {"no_repeat_ngram_size": 1}])
def test_penalties_count_no_padding(gpt2, options):
    prompts = [[4, 5], [6, 7, 8, 9, 10, 11], [9]]
    together = ix.capture(gpt2, prompts, SITES, "all", generate={"max_new_tokens": NEW, **options})
    for ids, found in zip(prompts, _generated(together), strict=True):
        row = torch.tensor([ids])
        made = gpt2.module.generate(
            row, attention_mask=torch.ones_like(row), max_new_tokens=NEW, do_sample=False, pad_token_id=0, **options
        )
        assert found == made[0, len(ids) :].tolist()


def test_what_a_models_own_settings_would_sample_is_greedy(make, plain_tokenizer):
    """Chat models come with do_sample, a temperature and beams in their generation settings; the capture says what it does."""
    module = make("gpt2")
    model = ix.load(module, tokenizer=plain_tokenizer)
    plain = _generated(ix.capture(model, PROMPTS, SITES, "all", generate=NEW))
    before = {name: getattr(module.generation_config, name) for name in ("do_sample", "temperature", "top_p", "num_beams", "max_length")}
    module.generation_config.update(do_sample=True, temperature=0.6, top_p=0.9, num_beams=2, max_length=8)
    try:
        assert _generated(ix.capture(model, PROMPTS, SITES, "all", generate=NEW)) == plain
    finally:
        module.generation_config.update(**before)


def test_models_whose_state_runs_over_padding_get_equal_lengths(plain_tokenizer):
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    module = MambaForCausalLM(
        MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=44, state_size=4, eos_token_id=2, pad_token_id=0)
    ).eval()
    model = ix.load(module, tokenizer=plain_tokenizer)
    store = ix.capture(model, PROMPTS, "blocks.0.resid_post", "all", generate=NEW)
    assert _generated(store) == [_own(module, plain_tokenizer, prompt) for prompt in PROMPTS]


@pytest.fixture
def chat():
    return ix.load(chat_model(), tokenizer=byte_tokenizer(CHATML))


CHATS = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Short."}, {"role": "user", "content": "A cat?"}],
]


def test_chats_are_asked_for_an_answer(chat):
    store = ix.capture(chat, CHATS, SITES[0], "all", generate=4)
    view = store[SITES[0]]
    for where, messages in enumerate(CHATS):
        ids = chat.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        made = chat.module.generate(**ids, max_new_tokens=4, do_sample=False, pad_token_id=0)[0].tolist()
        mine = view.stimulus == where
        assert view.column("token_id")[mine].tolist() == made
        answer = mine & view.column("generated")
        assert set(view.column("role")[answer]) == {"assistant"} and set(view.column("message")[answer]) == {len(messages)}
        assert view.column("assistant")[answer].all() and not view.column("assistant")[mine & ~answer].any()
    generated = ix.capture(chat, CHATS, SITES[0], "generated", generate=4)[SITES[0]]
    answers = ix.capture(chat, CHATS, SITES[0], "assistant", generate=4)[SITES[0]]
    assert torch.equal(generated.torch(), answers.torch())
    assert store.manifest.plan["input"]["template"]["options"] == {"add_generation_prompt": True}


def test_an_answer_goes_on_where_it_stopped(chat):
    answered = [[*CHATS[0], {"role": "assistant", "content": "He"}]]
    with pytest.raises(StimuliError, match=r"stimulus '0' ends with an answer of the assistant, and generate=4 asks for one"):
        ix.capture(chat, answered, SITES[0], "all", generate=4)
    view = ix.capture(chat, ix.Stimuli(answered, template={"continue_final_message": True}), SITES[0], "assistant", generate=4)[SITES[0]]
    assert view.tokens[:2].tolist() == ["H", "e"] and view.column("generated").tolist() == [False] * 2 + [True] * 4
    assert set(view.column("message")) == {1}


BAD = [
    (0, "generate=0: expected how many tokens, 1 or more, or a mapping with 'max_new_tokens'"),
    (True, "generate=True: expected how many tokens"),
    ({"do_sample": True}, "expected how many tokens, 1 or more"),
    ({"max_new_tokens": 3, "do_sample": True}, "samples, so it needs a 'seed'"),
    ({"max_new_tokens": 3, "num_return_sequences": 2}, "'num_return_sequences' belongs to the capture, which continues each prompt once"),
    ({"max_new_tokens": 3, "logits_processor": object()}, "which a manifest cannot hold"),
    (60, "stimulus '2' has 12 tokens, so generate=60 goes beyond the 64 positions of GPT2LMHeadModel; shorten it with max_length=4"),
    (64, "generate=64 leaves no room for a prompt in the 64 positions of GPT2LMHeadModel; ask for fewer tokens"),
]


@pytest.mark.parametrize(("asked", "text"), BAD)
def test_what_cannot_be_generated_says_why(gpt2, asked, text):
    with pytest.raises(StimuliError, match=re.escape(text)):
        ix.capture(gpt2, PROMPTS, SITES, "all", generate=asked)


def test_models_and_stimuli_that_have_no_continuation(make, bert_tokenizer, gpt2):
    with pytest.raises(StimuliError, match=r"generate=3 continues texts, and BertModel \(BertModel\) has no head that generates"):
        ix.capture(ix.load(make("bert"), tokenizer=bert_tokenizer), PROMPTS, SITES, "all", generate=3)
    with pytest.raises(StimuliError, match=r"generate=3 continues texts; ViTModel \(vit\) does not read prompt and answer in one stack"):
        ix.capture(ix.load(make("vit")), np.zeros((2, 8, 8, 3), np.uint8), "blocks.0.resid_post", "all", generate=3)
    with pytest.raises(StimuliError, match="the stimuli have a column 'generated_text' already, which this capture would write; rename it"):
        ix.capture(gpt2, {"text": PROMPTS, "generated_text": PROMPTS}, SITES, "all", generate=3)
    with pytest.raises(StimuliError, match=r"tokens='generated' picks what the model has added; say how much with generate=\.\.\."):
        ix.capture(gpt2, PROMPTS, SITES, "generated")


def test_generated_documents_can_be_packed(gpt2):
    packed = ix.capture(gpt2, PROMPTS, SITES, "generated", generate=4, pack=40)
    plain = ix.capture(gpt2, PROMPTS, SITES, "generated", generate=4)
    torch.testing.assert_close(packed[SITES[1]].torch(), plain[SITES[1]].torch(), rtol=0, atol=1e-5)


def test_repeats_and_columns_stay(gpt2):
    table = {"text": [PROMPTS[0], PROMPTS[1], PROMPTS[0]], "id": ["a", "b", "a"], "topic": ["x", "y", "x"]}
    store = ix.capture(gpt2, table, SITES[0], "last", generate=3)
    assert store.stimuli["stimulus"].to_pylist() == ["a", "b"] and store.stimuli["topic"].to_pylist() == ["x", "y"]
    assert len(_generated(store)) == 2 and store[SITES[0]].repeat.tolist() == [0, 0, 1]


def test_columns_of_tokens_are_empty_where_nobody_gave_them(gpt2):
    table = {"text": PROMPTS[:2], "surprise": [[0.5] * 5, [1.5]]}
    view = ix.capture(gpt2, table, SITES[0], "all", generate=2)[SITES[0]]
    np.testing.assert_array_equal(view.column("surprise").astype(float), [0.5] * 5 + [np.nan] * 2 + [1.5] + [np.nan] * 2)
    with pytest.raises(StimuliError, match=r"the stimuli give position_ids for each token of the prompt, and nobody gives it"):
        ix.capture(gpt2, {"input_ids": [[4, 5, 6]], "position_ids": [[0, 2, 4]]}, SITES[0], "all", generate=2)


def test_a_stream_is_continued_and_packed_piece_by_piece(gpt2):
    for options in ({"generate": NEW}, {"pack": 24}, {"pack": {"length": 16, "across": True}}):
        listed = ix.capture(gpt2, PROMPTS, SITES, "all", shard_stimuli=2, **options)
        streamed = ix.capture(gpt2, lambda: iter(PROMPTS), SITES, "all", shard_stimuli=2, **options)
        for site in SITES:
            torch.testing.assert_close(streamed[site].torch(), listed[site].torch(), rtol=0, atol=1e-5)
            assert streamed[site].position.tolist() == listed[site].position.tolist()
    assert "generated_ids" not in streamed.stimuli.column_names
    assert ix.capture(gpt2, lambda: iter(PROMPTS), SITES, "all", generate=NEW).stimuli["generated_ids"].to_pylist() == _generated(
        ix.capture(gpt2, PROMPTS, SITES, "all", generate=NEW)
    )


@pytest.mark.data
def test_a_trained_model_without_a_pad_token_goes_on_as_it_does_alone(data_dir):
    """Trained weights, text merged from bytes, BOS = EOS, no pad: tokens, rows and packed rows."""
    model = ix.load(data_dir / "models" / "tiny-shakespeare-gpt" / "step1024")
    assert model.tokenizer.pad_token_id is None
    prompts = ["First Citizen:", "ROMEO: What light", "Speak, my lord, and tell us of the king that was", "O"]
    site = "blocks.2.resid_post"
    view = ix.capture(model, prompts, site, "all", generate=12)[site]
    packed = ix.capture(model, prompts, site, "all", generate=12, pack=100)[site]
    states: list[torch.Tensor] = []
    handle = model.module.transformer.h[2].register_forward_hook(
        lambda m, args, out: states.append((out if torch.is_tensor(out) else out[0])[0].clone())
    )
    for where, prompt in enumerate(prompts):
        states.clear()
        made = _alone(model, prompt)
        rows = torch.from_numpy(view.stimulus == where)
        assert view.column("token_id")[view.stimulus == where].tolist() == made
        scale = float(view.torch()[rows].square().mean().sqrt())
        assert float((view.torch()[rows][:-1] - torch.cat(states)).abs().max()) <= 1e-5 * scale
        assert float((packed.torch()[rows] - view.torch()[rows]).abs().max()) <= 1e-4 * scale
    handle.remove()


def _alone(model, prompt):
    ids = model.tokenizer(prompt, return_tensors="pt")
    made = model.module.generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=model.tokenizer.eos_token_id)[0].tolist()
    return made
