"""The corpus and the byte tokenizer, against what Python itself says about text and bytes."""

from __future__ import annotations

import dataclasses
import json
import sysconfig
from pathlib import Path

import pytest
import torch

from inscape.errors import StimuliError
from inscape.zoo import ByteTokenizer, standard_library
from inscape.zoo.corpus import spread

TEXTS = ["def f(x):\n    return x", "naïve ☃", ""]


def test_ids_are_the_utf8_bytes_of_the_text():
    ids = ByteTokenizer()(TEXTS)["input_ids"]
    assert ids == [list(text.encode()) for text in TEXTS]


def test_decode_gives_the_text_back():
    tokenizer = ByteTokenizer(bos=True)
    rows = tokenizer(TEXTS, padding=True)["input_ids"]
    assert tokenizer.batch_decode(rows, skip_special_tokens=True) == TEXTS
    assert tokenizer.decode(rows[1]) == "<bos>naïve ☃" + "<pad>" * (len(rows[0]) - 11)


def test_broken_utf8_decodes_to_the_replacement_character():
    assert ByteTokenizer().decode([0xE2, 65]) == b"\xe2A".decode(errors="replace")


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_fills_the_side_asked_for(side: str):
    out = ByteTokenizer(padding_side=side)(["ab", "c"], padding=True, return_tensors="pt")
    row, mask = ([256, 99], [0, 1]) if side == "left" else ([99, 256], [1, 0])
    assert out["input_ids"].tolist() == [[97, 98], row]
    assert out["attention_mask"].tolist() == [[1, 1], mask]


def test_truncation_and_fixed_length():
    tokenizer = ByteTokenizer(bos=True)
    assert tokenizer("abcdef", truncation=True, max_length=3)["input_ids"] == [257, 97, 98]
    assert tokenizer(["a"], padding="max_length", max_length=4)["input_ids"] == [[257, 97, 256, 256]]
    marked = tokenizer(["a"], padding="max_length", max_length=4, return_special_tokens_mask=True)
    assert marked["special_tokens_mask"] == [[1, 0, 1, 1]]


def test_without_special_tokens():
    assert ByteTokenizer(bos=True)("a", add_special_tokens=False)["input_ids"] == [97]


def test_tokens_read_as_characters():
    tokenizer = ByteTokenizer()
    assert tokenizer.convert_ids_to_tokens([100, 0xE2, 256, 257]) == ["d", "<0xE2>", "<pad>", "<bos>"]
    assert tokenizer.convert_ids_to_tokens(256) == "<pad>"
    assert len(tokenizer) == len(tokenizer.get_vocab()) == 258


def test_texts_of_different_length_make_no_tensor():
    with pytest.raises(ValueError, match="texts of different length make no tensor; pass padding=True"):
        ByteTokenizer()(["ab", "c"], return_tensors="pt")


def test_unknown_padding_side():
    with pytest.raises(ValueError, match="padding_side is 'up'; expected 'left' or 'right'"):
        ByteTokenizer(padding_side="up")


@pytest.fixture(scope="module")
def library():
    return standard_library(200_000)


def test_the_corpus_is_the_source_of_this_python(library):
    folder = Path(sysconfig.get_path("stdlib"))
    text = bytes([*library.train.tolist(), *library.held_out.tolist()])
    assert text == b"".join((folder / name).read_bytes() for name in library.files)[:200_000]
    assert len(library.files) > 3
    assert not any("test" in Path(name).parts for name in library.files)
    assert not any(Path(name).is_absolute() for name in library.files)
    assert len(library.train) + len(library.held_out) == 200_000
    assert 0.1 <= len(library.held_out) / 200_000 < 0.6
    first = bytes(library.train.tolist()).decode()
    assert "def " in first and "import " in first
    assert "200,000 bytes" in library.source and "Python 3." in library.source


def test_the_corpus_is_the_same_each_time(library):
    again = standard_library(200_000)
    assert again.files == library.files
    assert torch.equal(again.train, library.train) and torch.equal(again.held_out, library.held_out)


def test_a_folder_of_ones_own(tmp_path: Path):
    for index in range(10):
        (tmp_path / f"m{index}.py").write_text("#" * 199 + "\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_m.py").write_text("#" * 5000)
    (tmp_path / "snow.py").write_text("# ☃" * 500)
    corpus = standard_library(root=tmp_path)
    assert sorted(corpus.files) == [f"m{index}.py" for index in range(10)]
    assert len(corpus.held_out) == 200 and len(corpus.train) == 1800
    assert json.dumps(corpus.source) == '"source files of a folder, 10 files, 2,000 bytes"'


def test_too_little_source(tmp_path: Path):
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(StimuliError, match="only 6 bytes of Python source .* pass root= with a folder that holds .py files"):
        standard_library(root=tmp_path)


def test_windows_are_even_and_do_not_overlap(library):
    assert spread(torch.arange(10), 3, 3).tolist() == [[0, 1, 2], [3, 4, 5], [7, 8, 9]]
    windows = library.windows(16, 64)
    assert len(windows) == 16 and {len(text) for text in windows} == {64}
    assert bytes(library.held_out[:64].tolist()).decode() == windows[0]
    with pytest.raises(StimuliError, match="4 windows of 3 ids need 12; the text has 10"):
        spread(torch.arange(10), 4, 3)


def test_a_corpus_of_other_ids_has_no_windows_of_text(library):
    words = dataclasses.replace(library, train=torch.arange(40), held_out=torch.arange(400))
    with pytest.raises(StimuliError, match="only bytes .uint8. read as text, and these ids are torch.int64"):
        words.windows(2, 3)
