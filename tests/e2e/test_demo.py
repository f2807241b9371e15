"""The demo from the first line to the report, at its small size, and on a model from a folder."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import inscape as ix
from inscape.demo import run_demo
from inscape.errors import StimuliError
from inscape.results import Result


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    lines: list[str] = []
    report = run_demo(tmp_path_factory.mktemp("demo"), small=True, progress=lines.append)
    return report, lines


@pytest.mark.slow
def test_the_tour_tells_findings_before_the_language_models_train(told: tuple[Path, list[str]]):
    _, lines = told
    first = next(index for index, line in enumerate(lines) if "→" in line)
    assert re.match(r"\[ *\d+ s\] → ", lines[first])
    assert first < next(index for index, line in enumerate(lines) if "Training a GPT" in line)
    assert sum("→" in line for line in lines) >= 5
    assert "  inscape measures" in lines and lines[-1].startswith("  inscape demo --model")


@pytest.mark.slow
def test_the_tour_writes_one_offline_report(told: tuple[Path, list[str]]):
    report, _ = told
    page = report.read_text(encoding="utf-8")
    assert report.name == "report.html" and len(page.encode()) < 2_000_000
    assert not re.search(r"""(?:src|href)=["']https?://""", page)
    systems = ("GPT, seed 0", "GPT, seed 1", "recurrent network", "digits MLP, untrained")
    for word in ("class_separation", "effective_rank", "linear_cka_debiased", "mutual_knn", "inscape demo --small", *systems):
        assert word in page, word


@pytest.mark.slow
def test_the_numbers_of_the_tour_are_those_of_numpy(told: tuple[Path, list[str]]):
    report, _ = told
    store = ix.open(report.parent / "stores" / "GPT-seed-0")
    profile = Result.load(report.parent / "results" / "profile")
    x = store["blocks.1.resid_post"].numpy().astype(np.float64)
    s = np.linalg.svd(x - x.mean(0), compute_uv=False)
    p = s / s.sum()
    expected = np.exp(-(p * np.log(p)).sum())
    assert profile.value(system="GPT, seed 0", site="blocks.1.resid_post", measure="effective_rank") == pytest.approx(expected, rel=1e-5)
    for name, other in (("seeds", "GPT, seed 1"), ("kinds", "recurrent network")):
        comparison = Result.load(report.parent / "results" / name)
        assert comparison.unique("system_b") == [other]
        assert all(row["p"] is not None and row["status"] == "ok" for row in comparison.rows())


@pytest.mark.slow
def test_a_model_and_texts_of_ones_own(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    config = transformers.GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    vocabulary = {"[UNK]": 0, **{f"w{i}": i + 1 for i in range(50)}}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]").save_pretrained(tmp_path / "model")
    draw = np.random.default_rng(0)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(" ".join(f"w{i}" for i in draw.integers(0, 50, 12)) for _ in range(60)))
    lines: list[str] = []
    report = run_demo(tmp_path / "out", model=str(tmp_path / "model"), texts=str(texts), progress=lines.append)
    text = "\n".join(lines)
    assert "60" in text and "a row is the mean over the tokens" in text and "effective rank" in text
    assert "blocks.1.resid_post" in report.read_text(encoding="utf-8")
    assert len(list((tmp_path / "out" / "stores").iterdir())) == 1


def test_texts_need_a_model(tmp_path: Path):
    with pytest.raises(StimuliError, match=r"texts='a.txt' needs a model that reads them; pass model= too"):
        run_demo(tmp_path, texts="a.txt")
