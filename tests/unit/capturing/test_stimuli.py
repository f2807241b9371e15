"""What users hand in: every form, and what bad input is told."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.io import wavfile

import inscape as ix
from inscape.capturing import Stimuli
from inscape.errors import StimuliError

TABLE = {"text": ["A cat.", "A dog.", "A cat."], "animal": ["cat", "dog", "cat"], "run": [1, 1, 2]}


def test_texts_get_their_position_as_id():
    stimuli = Stimuli(["a", "b"])
    assert (stimuli.kind, stimuli.ids, len(stimuli), stimuli[1]) == ("text", ["0", "1"], 2, "b")
    assert stimuli.table.to_pydict() == {"stimulus": ["0", "1"], "text": ["a", "b"]}
    assert repr(stimuli) == "Stimuli(2 of kind text; columns: text)"


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl"])
def test_files_of_tables_hold_the_same_stimuli(tmp_path, suffix):
    path = tmp_path / f"table.{suffix}"
    table = pa.table(TABLE)
    if suffix == "parquet":
        pq.write_table(table, path)
    elif suffix == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))
    else:
        sign = "\t" if suffix == "tsv" else ","
        path.write_text("\n".join([sign.join(TABLE), *(sign.join(map(str, row.values())) for row in table.to_pylist())]))
    for stimuli in (Stimuli(path), Stimuli(str(path))):
        assert stimuli.digest() == Stimuli(TABLE).digest()


def test_tables_in_memory_hold_the_same_stimuli():
    pandas = pytest.importorskip("pandas")
    digest = Stimuli(TABLE).digest()
    for form in (pandas.DataFrame(TABLE), pa.table(TABLE), pa.table(TABLE).to_pylist()):
        assert Stimuli(form).digest() == digest


def test_text_files_give_one_text_a_line(tmp_path):
    (tmp_path / "texts.txt").write_text("first\nsecond\n")
    assert [Stimuli(tmp_path / "texts.txt")[i] for i in range(2)] == ["first", "second"]


def test_equal_ids_are_repeats_and_varying_columns_belong_to_the_rows():
    stimuli = Stimuli(TABLE, ids=["c", "d", "c"])
    assert stimuli.source.tolist() == [0, 1, 0]
    assert stimuli.repeat.tolist() == [0, 0, 1]
    assert stimuli.varying == ["run"]
    assert stimuli.table.to_pydict() == {"stimulus": ["c", "d"], "text": ["A cat.", "A dog."], "animal": ["cat", "dog"]}
    module = torch.nn.Sequential(torch.nn.Linear(2, 3))
    store = ix.capture(module, Stimuli({"array": [[0.0, 1.0], [1.0, 1.0], [0.0, 1.0]], "id": ["c", "d", "c"], "run": [1, 1, 2]}), "0")
    view = store["0"]
    assert view.ids.tolist() == ["c", "d", "c"]
    assert view.repeat.tolist() == [0, 0, 1]
    assert view.column("run").tolist() == [1, 1, 2]
    assert torch.equal(view.torch()[0], view.torch()[2])


def test_id_columns_are_found_or_named():
    assert Stimuli({"text": ["a", "b"], "id": [7, 9]}).ids == ["7", "9"]
    assert Stimuli({"text": ["a", "b"], "name": ["x", "y"]}, ids="name").ids == ["x", "y"]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ([[1, 2, 3], [4]], "tokens"),
        (np.zeros((3, 4), np.int64), "tokens"),
        (np.zeros((3, 4)), "array"),
        (torch.zeros(3, 4, 5), "array"),
        (np.zeros((2, 8, 8, 3), np.uint8), "image"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)], "image"),
        ([np.zeros(100), np.zeros(90)], "array"),
        (np.array(["a", "b"]), "text"),
        (["a.png", "not a file name"], "text"),
    ],
)
def test_kinds_are_judged_from_the_values(data, kind):
    assert Stimuli(data).kind == kind


def test_the_hash_sees_contents_ids_and_columns():
    base = Stimuli(["a", "b"]).digest()
    assert Stimuli(["a", "b"]).digest() == base
    changed = {"text": ["a", "b"], "x": [1, 2]}
    others = [Stimuli(["a", "c"]), Stimuli(["a", "b"], ids=["0", "2"]), Stimuli(changed), Stimuli(["ab", " "])]
    assert len({base, *(other.digest() for other in others)}) == 5
    x = np.arange(6.0).reshape(2, 3)
    assert Stimuli(x).digest() != Stimuli(x.astype(np.float32)).digest()


def test_images_from_files_are_rgb_arrays(tmp_path):
    pil = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 255, (4, 5, 3)).astype(np.uint8)
    path = tmp_path / "one.png"
    pil.fromarray(pixels).save(path)
    for stimuli in (Stimuli([str(path)]), Stimuli([path]), Stimuli([pil.open(path)]), Stimuli({"image": [str(path)]})):
        assert stimuli.kind == "image"
        np.testing.assert_array_equal(stimuli[0], pixels)


def test_sounds_from_files_are_mono_between_minus_one_and_one(tmp_path):
    wave = np.array([0, 16384, -32768, 32767], np.int16)
    wavfile.write(tmp_path / "a.wav", 8000, wave)
    wavfile.write(tmp_path / "b.wav", 8000, np.stack([wave, np.zeros_like(wave)], 1))
    wavfile.write(tmp_path / "c.wav", 8000, np.array([128, 192, 0], np.uint8))
    stimuli = Stimuli([str(tmp_path / f"{name}.wav") for name in "abc"])
    assert stimuli.kind == "sound"
    assert stimuli.rate(0) == 8000
    np.testing.assert_allclose(stimuli[0], [0, 0.5, -1, 32767 / 32768])
    np.testing.assert_allclose(stimuli[1], np.array([0, 0.5, -1, 32767 / 32768]) / 2)
    np.testing.assert_allclose(stimuli[2], [0, 0.5, -1])


def test_other_sound_files_are_read_by_soundfile(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    wave = np.array([0.0, 0.25, -0.5, 0.125])
    soundfile.write(tmp_path / "a.flac", wave, 16000)
    stimuli = Stimuli([str(tmp_path / "a.flac")])
    assert stimuli.rate(0) == 16000
    np.testing.assert_allclose(stimuli[0], wave, atol=1e-4)


def test_the_sampling_rate_of_arrays_is_an_argument_or_a_column():
    assert Stimuli([np.zeros(10)], kind="sound", sampling_rate=8000).rate(0) == 8000
    table = {"sound": [np.zeros(10), np.zeros(9)], "sampling_rate": [8000, 16000]}
    assert [Stimuli(table, kind="sound", sampling_rate=1).rate(i) for i in range(2)] == [8000, 16000]


BAD = [
    ([], {}, "there are no stimuli (the input is empty); give at least one"),
    ({"text": []}, {}, "there are no stimuli (the input is empty); give at least one"),
    (["a", ""], {}, "the text at position 1 is empty; a model has nothing to read there: drop the row or fill it"),
    ([[1], []], {"kind": "tokens"}, "the list of token ids at position 1 is empty"),
    ({"text": ["a", None]}, {}, "1 stimuli are missing (None), the first at position 1; drop those rows or fill them"),
    (Path("folder"), {}, "'folder' is a path of no known kind; expected a file that ends in .parquet"),
    ("", {}, "the text at position 0 is empty"),
    ("missing.csv", {}, "there is no stimulus file at 'missing.csv'"),
    (["missing.png"], {}, "there is no image file at 'missing.png'; every path must exist before a capture starts"),
    (["missing.wav"], {}, "there is no sound file at 'missing.wav'"),
    (["a", np.zeros((3, 3))], {}, "the stimuli mix array and text; a capture reads one kind, so pass them apart"),
    ({"text": ["a", float("nan")]}, {}, "1 stimuli are missing (nan), the first at position 1; drop those rows or fill them"),
    ([object()], {}, "a stimulus of type object is neither text, numbers, an image nor a sound"),
    (np.zeros(3), {}, "an array of stimuli has shape (3,); expected [n, ...]: one row per stimulus"),
    (3, {}, "cannot take stimuli from int; give a list, a table, a path or an array [n, ...]"),
    ({"txt": ["a"], "note": ["b"]}, {}, "which column holds the stimuli? The table has 'txt', 'note'"),
    ({"text": ["a"]}, {"column": "txt"}, "the table has no column 'txt'; nearest: 'text'"),
    ({"text": ["a"]}, {"ids": "tex"}, "the table has no column 'tex' to take the ids from; nearest: 'text'"),
    (["a"], {"column": "text"}, "column='text' needs a table; got list"),
    (["a"], {"ids": ["x", "y"]}, "2 ids were given for 1 stimuli; give one for each"),
    ({"text": ["a"], "id": [None]}, {}, "the id at position 0 is missing; every stimulus needs one"),
    (["a"], {"kind": "texts"}, "kind='texts' is unknown; nearest: 'text'"),
    ({"text": ["a"], "x": [1, 2]}, {}, "the columns differ in length (text: 1, x: 2); each needs one value per stimulus"),
    ({"text": ["a", "b"], "x": [1, "y"]}, {}, "column 'x' mixes kinds of values"),
    ({"text": "a"}, {}, "a table's columns are lists of one value per stimulus; got the single text 'a'"),
]


@pytest.mark.parametrize(("data", "options", "text"), BAD)
def test_bad_stimuli_are_told_what_is_wrong(data, options, text):
    with pytest.raises(StimuliError, match=re.escape(text)):
        Stimuli(data, **options)


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    (tmp_path / "bad.wav").write_bytes(b"nothing")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(StimuliError, match=r"bad.parquet' cannot be read as PARQUET"):
        Stimuli(tmp_path / "bad.parquet")
    with pytest.raises(StimuliError, match=r"bad.wav' is not a WAV file that can be read"):
        Stimuli([tmp_path / "bad.wav"])[0]
    pytest.importorskip("PIL")
    with pytest.raises(StimuliError, match=r"bad.png' is not an image that Pillow can read"):
        Stimuli([tmp_path / "bad.png"])[0]


def test_columns_are_read_by_name():
    stimuli = Stimuli(TABLE)
    assert stimuli.column("animal") == ["cat", "dog", "cat"]
    with pytest.raises(StimuliError, match="the stimuli have no column 'animals'; nearest: 'animal'"):
        stimuli.column("animals")
