"""`sites` and `capture` on a tiny GPT-2 with random weights, saved to a folder."""

from __future__ import annotations

import json
import re

import pytest
import torch

from inscape.store import open as open_store


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_layer=3, n_embd=16, n_head=2, vocab_size=50, n_positions=32, bos_token_id=0, eos_token_id=0)
    path = tmp_path_factory.mktemp("model") / "tiny gpt"
    GPT2LMHeadModel(config).save_pretrained(path)
    return path


@pytest.fixture
def ids(tmp_path):
    path = tmp_path / "ids.jsonl"
    rows = [{"input_ids": [(7 * i + 3 * k) % 50 for k in range(4 + i % 3)], "label": "ab"[i % 2]} for i in range(12)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_sites_draws_a_tree_in_which_blocks_that_are_alike_share_a_branch(inscape, folder):
    ran = inscape("sites", folder)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0] == "sites of tiny gpt (gpt2, text)"
    assert lines[1].split()[:3] == ["embed", "2×6×16", "transformer.h.0:in"]
    assert lines[2].split() == ["blocks.0", "…", "2", "transformer.h.0", "…", "2"]
    last = next(i for i, line in enumerate(lines) if line.startswith("└── resid_post"))
    assert lines[last].split() == ["└──", "resid_post", "2×6×16", ":out"]
    assert [line.split()[0] for line in lines[last + 1 : last + 3]] == ["final_norm", "logits"]
    assert "and 42 modules by their path: --modules" in lines
    assert ran.last == f"inscape capture '{folder}' texts.txt --sites 'blocks.*.resid_post' --to runs/store"
    assert "\x1b" not in ran.out and max(map(len, lines[:-1])) <= 120


def test_sites_expands_blocks_and_draws_modules_when_asked(inscape, folder):
    every = inscape("sites", folder, "--all").out
    assert [line.split()[0] for line in every.splitlines() if line.startswith("blocks.")] == [f"blocks.{i}" for i in range(3)]
    modules = inscape("sites", folder, "--modules").out
    assert "├── h.0 … 2" in modules and "c_fc" in modules and "--modules" not in modules


def test_sites_in_colors_on_a_terminal_within_its_width(inscape, folder, monkeypatch):
    plain = inscape("sites", folder).out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    colored = inscape("sites", folder).out
    assert "\x1b[" in colored and re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain
    monkeypatch.setenv("COLUMNS", "80")
    narrow = re.sub(r"\x1b\[[0-9;]*m", "", inscape("sites", folder).out)
    assert max(map(len, narrow.splitlines()[:-1])) <= 80
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in inscape("sites", folder).out


def test_sites_by_pattern_in_full_and_as_json(inscape, folder):
    names = [line.split()[0] for line in inscape("sites", folder, "blocks.*.attn_out").out.splitlines()[1:4]]
    assert names == [f"blocks.{i}.attn_out" for i in range(3)]
    content = json.loads(inscape("sites", folder, "logits", "--json").out)
    assert [site["name"] for site in content["sites"]] == ["logits"] and content["sites"][0]["shape"] == [2, 6, 50]
    ran = inscape("sites", folder, "blocks.*.attn_ot")
    assert ran.code == 2 and "nearest: 'blocks." in ran.err


def test_capture_writes_what_a_hand_written_hook_sees(inscape, folder, ids, tmp_path, monkeypatch):
    from transformers import GPT2LMHeadModel

    monkeypatch.chdir(tmp_path)
    ran = inscape(
        "capture", folder, "ids.jsonl", "--sites", "blocks.1.resid_post", "blocks.2.resid_post", "--to", "runs/x", "--label", "tiny"
    )
    assert ran.code == 0, ran.err
    assert ran.last == "inscape measure runs/x effective_rank two_nn --out runs/x-profile"
    store = open_store("runs/x")
    assert (store.system, store.sites, store.complete) == ("tiny", ["blocks.1.resid_post", "blocks.2.resid_post"], True)
    module, seen = GPT2LMHeadModel.from_pretrained(folder).eval(), []
    module.transformer.h[1].register_forward_hook(lambda m, i, o: seen.append((o[0] if isinstance(o, tuple) else o)[0, -1]))
    with torch.no_grad():
        for line in ids.read_text().splitlines():
            module(torch.tensor([json.loads(line)["input_ids"]]))
    torch.testing.assert_close(store["blocks.1.resid_post"].torch(), torch.stack(seen), rtol=1e-5, atol=1e-5)


def test_capture_refuses_an_unknown_site_with_the_nearest(inscape, folder, ids, tmp_path):
    ran = inscape("capture", folder, ids, "--sites", "blocks.1.resid_pots", "--to", tmp_path / "x")
    assert ran.code == 1
    assert "blocks.1.resid_post" in ran.err
    assert inscape("capture", folder, ids).code == 2  # --to is not optional


def test_capture_refuses_stimuli_that_are_not_there(inscape, folder, tmp_path):
    ran = inscape("capture", folder, "nowhere.txt", "--to", tmp_path / "x")
    assert ran.code == 1 and "nowhere.txt" in ran.err


def test_capture_of_what_the_model_adds_and_of_contexts(inscape, folder, ids, tmp_path):
    from transformers import GPT2LMHeadModel

    site = ("--sites", "blocks.1.resid_post")
    ran = inscape("capture", folder, ids, *site, "--tokens", "generated", "--generate", "3", "--to", tmp_path / "g")
    assert ran.code == 0, ran.err
    store, module = open_store(tmp_path / "g"), GPT2LMHeadModel.from_pretrained(folder).eval()
    for line, found in zip(ids.read_text().splitlines(), store.stimuli["generated_ids"].to_pylist(), strict=True):
        prompt = torch.tensor([json.loads(line)["input_ids"]])
        made = module.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=3, do_sample=False, pad_token_id=0)
        assert found == made[0, -len(found) :].tolist()
    for name, more in (("p", ["--pack", "16"]), ("a", [])):
        ran = inscape("capture", folder, ids, *site, "--tokens", "all", "--to", tmp_path / name, *more)
        assert ran.code == 0, ran.err
    packed, plain = (open_store(tmp_path / name)["blocks.1.resid_post"].torch() for name in "pa")
    torch.testing.assert_close(packed, plain, rtol=0, atol=1e-5)


def test_capture_in_parts_says_what_is_missing_until_the_last(inscape, folder, ids, tmp_path):
    words = ("capture", folder, ids, "--sites", "blocks.1.resid_post", "--to", tmp_path / "cut", "--shard-stimuli", "3")
    first = inscape(*words, "--part", "2/2")
    assert first.code == 0, first.err
    assert "This part is done; part 1/2 (0 of 2 shards done) is missing. Run the capture with part='1/2'" in first.last
    content = json.loads(inscape(*words, "--part", "2/2", "--json").out)
    assert content["complete"] is False and content["missing"].startswith("part 1/2")
    last = inscape(*words, "--part", "1/2")
    assert last.code == 0 and last.last.startswith("inscape measure ")
    whole = inscape(*words[:5], "--to", tmp_path / "whole", "--shard-stimuli", "3")
    assert whole.code == 0
    for file in sorted((tmp_path / "whole").rglob("*.safetensors")):
        assert (tmp_path / "cut" / file.relative_to(tmp_path / "whole")).read_bytes() == file.read_bytes()
    assert inscape(*words, "--part", "3/2").code == 1
