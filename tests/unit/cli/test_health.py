"""`inscape health`: what it prints, and its exit codes."""

from __future__ import annotations

import json

import pytest
import torch

from inscape.results import Result


@pytest.fixture
def models(tmp_path, monkeypatch):
    """`spread` and `line`: a GPT-2 whose rows fill their space, and one whose embeddings lie on a line; texts of 40 lines."""
    import tokenizers
    import transformers

    monkeypatch.chdir(tmp_path)
    words = [f"w{i}" for i in range(200)]
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="w0"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="w0", bos_token="w0")
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": 64, "vocab_size": 200, "bos_token_id": 0, "eos_token_id": 0}
    for name in ("spread", "line"):
        module = transformers.GPT2Model(transformers.GPT2Config(**sizes, initializer_range=0.2))
        if name == "line":
            with torch.no_grad():
                module.wte.weight.copy_(torch.outer(torch.randn(200), torch.randn(32)))
                module.wpe.weight.zero_()
                for block in module.h:
                    block.attn.c_proj.weight.zero_()
                    block.mlp.c_proj.weight.zero_()
        module.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    numbers = torch.randint(1, 200, (40, 32), generator=torch.Generator().manual_seed(0))
    (tmp_path / "texts.txt").write_text("\n".join(" ".join(f"w{i}" for i in row) for row in numbers.tolist()) + "\n")
    return tmp_path


def test_exit_codes_tell_healthy_ill_and_wrong(inscape, models):
    well = inscape("health", "spread", "--texts", "texts.txt")
    assert well.code == 0, well.err
    assert "spread: all 17 signs of 2 layers are in the range of the reference models." in well.out
    assert well.last == "inscape demo --model spread --texts texts.txt"
    ill = inscape("health", "line", "--texts", "texts.txt", "--out", "ill")
    assert ill.code == 4
    assert "line: 2 of 2 layers are out of range, in rank_share" in ill.out
    assert ill.last == "inscape report ill --to ill.html"
    assert Result.load("ill").settings["verdict"].startswith("line: 2 of 2 layers")
    assert inscape("report", "ill", "--to", "ill.html").code == 0
    assert inscape("health", "spread", "--texts", "none.txt").code == 1
    assert inscape("health", "spread").code == 2


def test_json_says_the_same(inscape, models):
    told = inscape("health", "line", "--texts", "texts.txt", "--json")
    assert told.code == 4
    payload = json.loads(told.out)
    assert payload["healthy"] is False and payload["verdict"].startswith("line: 2 of 2")
    below = {(one["site"], one["sign"]) for one in payload["readings"] if one["verdict"] == "below"}
    assert ("blocks.0.resid_post", "rank_share") in below
    assert len(payload["reference"]) == 5
