"""`inscape decompose` and `inscape features`: the same dictionary as in Python, and a page of what its features are active on."""

from __future__ import annotations

import json

import pytest
import torch

import inscape as ix


@pytest.fixture
def model(tmp_path, monkeypatch):
    """`net`: a GPT-2 of two layers with random weights; `texts.txt`: 40 lines of words it knows."""
    import tokenizers
    import transformers

    monkeypatch.chdir(tmp_path)
    words = [f"w{i}" for i in range(50)]
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="w0"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="w0", bos_token="w0")
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 32, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, initializer_range=0.3)).save_pretrained("net")
    tokenizer.save_pretrained("net")
    numbers = torch.randint(1, 50, (40, 12), generator=torch.Generator().manual_seed(0))
    (tmp_path / "texts.txt").write_text("\n".join(" ".join(f"w{i}" for i in row) for row in numbers.tolist()) + "\n")
    return tmp_path


SITE = ("--texts", "texts.txt", "--site", "blocks.0.resid_post")


def test_decompose_fits_what_python_fits_and_features_reads_it(inscape, model):
    ran = inscape("decompose", "net", *SITE, "--width", "32", "--kind", "TopK(k=3)", "--rows", "4096", "--seed", "1", "--out", "sae")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("sae: Dictionary(TopK(width=32, k=3) of net/blocks.0.resid_post: 16 units → 32 features)")
    assert "at the end of 4,096 rows: " in ran.out
    assert ran.last == "inscape features sae net --texts texts.txt"
    found = ix.dictionaries.Dictionary.load("sae")
    expected = ix.decompose(("net", "texts.txt", SITE[-1]), ix.dictionaries.TopK(width=32, k=3), 4096, seed=1)
    assert all(torch.equal(value, expected.tensors[name]) for name, value in found.tensors.items())

    read = inscape("features", "sae", "net", "--texts", "texts.txt", "--to", "page.html", "--out", "kept", "--show", "3")
    assert read.code == 0, read.err
    lines = read.out.splitlines()
    assert lines[0] == "Features(32 of 32 features of TopK(width=32, k=3))"
    assert len(lines) <= 6 and lines[-2:] == ["page.html", "inscape report kept"]
    assert "<html" in (model / "page.html").read_text()[:200]
    rows = ix.capture("net", "texts.txt", sites=SITE[-1], tokens="all")[SITE[-1]]
    assert (ix.dictionaries.Features.load("kept").column("density") == expected.features(rows).column("density")).all()
    assert inscape("report", "kept").code == 0


def test_a_glob_gives_a_dictionary_for_each_site(inscape, model):
    ran = inscape(
        "decompose", "net", *SITE[:2], "--site", "blocks.*.resid_post", "--width", "4", "--kind", "PCA", "--out", "both", "--json"
    )
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert [(one["folder"], one["kind"], one["site"]) for one in told["dictionaries"]] == [
        ("both/0", "PCA", "blocks.0.resid_post"),
        ("both/1", "PCA", "blocks.1.resid_post"),
    ]
    assert told["next"] == "inscape features both/0 net --texts texts.txt"


def test_what_does_not_exist_is_told(inscape, model):
    options = ("decompose", "net", *SITE, "--out", "sae", "--width", "8")
    wrong = inscape(*options, "--kind", "TopL")
    assert wrong.code == 2 and "no kind of dictionary 'TopL'" in wrong.err and "TopK" in wrong.err
    assert inscape(*options, "--kind", "TopK(j=3)").code == 2
    assert inscape(*options, "--kind", "TopK(k=").code == 2
    many = inscape(*options, "--kind", "TopK(k=9)")
    assert many.code == 1 and "expected a whole number from 1 to the width, 8" in many.err
    assert inscape("features", "nothing", "net", "--texts", "texts.txt").code == 1
    fitted = ix.decompose(torch.randn(200, 16, generator=torch.Generator().manual_seed(0)), ix.dictionaries.PCA(width=4))
    fitted.info.pop("sites")
    fitted.save("bare")
    lost = inscape("features", "bare", "net", "--texts", "texts.txt")
    assert lost.code == 2 and "give --site" in lost.err
