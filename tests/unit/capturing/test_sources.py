"""Where stimuli come from: Hugging Face data sets, loaders, token ids; each against the library's own reading of them."""

from __future__ import annotations

import io
import re
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import wavfile
from torch.utils.data import DataLoader, TensorDataset

import inscape as ix
from inscape.capturing import Stimuli, hub
from inscape.errors import MemoryBudgetError, StimuliError

datasets = pytest.importorskip("datasets")
SITE = "blocks.1.resid_post"
TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9", "w1 w1", "w2 w3 w4 w5"]


def png(pixels: np.ndarray) -> bytes:
    """The bytes of a picture."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def wav(wave: np.ndarray, rate: int) -> bytes:
    """The bytes of a sound."""
    file = io.BytesIO()
    wavfile.write(file, rate, wave)
    return file.getvalue()


@pytest.fixture
def gpt2(make, plain_tokenizer):
    """A tiny language model that reads words."""
    return ix.load(make("gpt2"), tokenizer=plain_tokenizer)


def last_rows(model: Any, texts: list[str]) -> torch.Tensor:
    """The stream after the second block at the last token, from transformers' own output, one text at a time."""
    rows: list[torch.Tensor] = []
    for text in texts:
        ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            rows.append(model.module(ids, output_hidden_states=True).hidden_states[2][0, -1])
    return torch.stack(rows)


def test_a_data_set_is_a_table(gpt2):
    data = datasets.Dataset.from_dict({"text": TEXTS, "label": [0, 1, 0, 1, 0], "name": list("abcde")})
    stimuli = Stimuli(data)
    assert (stimuli.kind, len(stimuli), stimuli.column("label")) == ("text", 5, [0, 1, 0, 1, 0])
    assert stimuli.digest() == Stimuli(data.to_dict()).digest()
    assert Stimuli(data, ids="name").ids == list("abcde")
    store = ix.capture(gpt2, data, sites=SITE)
    torch.testing.assert_close(store[SITE].torch(), last_rows(gpt2, TEXTS), rtol=0, atol=1e-5)
    assert store[SITE].column("name").tolist() == list("abcde")
    chosen = data.select([3, 1]).shuffle(seed=0)
    assert [Stimuli(chosen)[i] for i in range(2)] == list(chosen["text"])


def test_formats_and_transforms_of_a_data_set():
    data = datasets.Dataset.from_dict({"text": TEXTS, "ids": [[1, 2], [3], [4], [5, 6], [7]], "label": list(range(5))})
    for kind in ("numpy", "torch", "arrow", "pandas"):
        assert Stimuli(data.with_format(kind)).digest() == Stimuli(data).digest()
    some = data.with_format("torch", columns=["ids", "label"])
    stimuli = Stimuli(some)
    assert (stimuli.kind, stimuli.table.column_names) == ("tokens", ["stimulus", "ids", "label"])
    assert Stimuli(data.with_format("torch", columns=["ids"], output_all_columns=True)).kind == "text"
    assert Stimuli(data, column="ids").kind == "tokens"
    louder = data.with_transform(lambda batch: {"text": [text.upper() for text in batch["text"]]})
    assert [Stimuli(louder)[i] for i in range(5)] == [text.upper() for text in TEXTS]


def test_pictures_of_a_data_set():
    pytest.importorskip("PIL")
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 255, (4, 5, 3)).astype(np.uint8) for _ in range(3)]
    data = datasets.Dataset.from_dict({"image": [{"bytes": png(p), "path": f"{i}.png"} for i, p in enumerate(pixels)], "label": [0, 1, 2]})
    stimuli = Stimuli(data.cast_column("image", datasets.Image()))
    assert stimuli.kind == "image"
    for i in range(3):
        np.testing.assert_array_equal(stimuli[i], pixels[i])
    assert stimuli.column("image") == ["0.png", "1.png", "2.png"]  # their names, not their bytes
    nameless = datasets.Dataset.from_dict({"image": [{"bytes": png(p), "path": None} for p in pixels]}).cast_column(
        "image", datasets.Image()
    )
    assert Stimuli(nameless).table.column_names == ["stimulus"]
    assert len({Stimuli(data.select([i])).digest() for i in range(3)}) == 3
    np.testing.assert_array_equal(Stimuli([{"bytes": png(pixels[0]), "path": None}])[0], pixels[0])


def test_sounds_of_a_data_set(tmp_path):
    wave = (1000 * np.sin(np.arange(80))).astype(np.int16)
    (tmp_path / "b.wav").write_bytes(wav(wave[:40], 16000))
    rows = [{"bytes": wav(wave, 8000), "path": None}, {"bytes": None, "path": str(tmp_path / "b.wav")}]
    stimuli = Stimuli(datasets.Dataset.from_dict({"audio": rows}).cast_column("audio", datasets.Audio()))
    assert (stimuli.kind, [stimuli.rate(i) for i in range(2)]) == ("sound", [8000, 16000])
    np.testing.assert_array_equal(stimuli[0], wave / np.float32(32768))
    np.testing.assert_array_equal(stimuli[1], wave[:40] / np.float32(32768))
    decoded = Stimuli({"audio": [{"array": np.array([0.5, -0.5, 0.25]), "sampling_rate": 8000, "path": None}]})
    assert (decoded.kind, decoded.rate(0), decoded[0].tolist()) == ("sound", 8000, [0.5, -0.5, 0.25])
    stereo = Stimuli([{"array": np.array([[0.0, 1.0, 0.5], [1.0, 0.0, 0.5]]), "sampling_rate": 8000}])
    assert stereo[0].tolist() == [0.5, 0.5, 0.5]


def test_arrays_of_a_data_set_keep_their_dtype():
    features = datasets.Features({"x": datasets.Array3D((2, 3, 3), "uint8"), "y": datasets.Array2D((2, 2), "float32")})
    x, y = np.arange(36, dtype=np.uint8).reshape(2, 2, 3, 3), np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    data = datasets.Dataset.from_dict({"x": list(x), "y": list(y)}, features=features)
    stimuli = Stimuli(data, column="x")
    assert (stimuli.kind, stimuli[1].dtype) == ("image", np.uint8)
    np.testing.assert_array_equal(stimuli[1], x[1])
    np.testing.assert_array_equal(Stimuli(data, column="y")[0], y[0])


def test_what_a_data_set_cannot_be(monkeypatch):
    data = datasets.Dataset.from_dict({"text": TEXTS})
    both = datasets.DatasetDict({"train": data, "test": data.select([0])})
    words = "a DatasetDict holds several data sets ('train': 5 rows, 'test': 1 rows); choose one, as in data['train']"
    for take in (Stimuli, Stimuli.stream):
        with pytest.raises(StimuliError, match=re.escape(words)):
            take(both)
    with pytest.raises(StimuliError, match=r"several data sets \('train': a stream\)"):
        ix.capture(torch.nn.Linear(1, 1), datasets.IterableDatasetDict({"train": data.to_iterable_dataset()}))
    monkeypatch.setattr(hub, "available_memory", lambda: 100)
    with pytest.raises(MemoryBudgetError, match=r"too much to be read as a whole .* read it in pieces: data.to_iterable_dataset\(\)"):
        Stimuli(data)
    with pytest.raises(StimuliError, match=r"a picture or sound is missing"):
        Stimuli([{"bytes": None, "path": None}])
    with pytest.raises(StimuliError, match=r"'x.bin' \(it begins with b'nothing'\) is neither a picture nor a sound of a known kind"):
        Stimuli([{"bytes": b"nothing", "path": "x.bin"}])


def test_streams_of_hugging_face(gpt2, tmp_path):
    data = datasets.Dataset.from_dict({"text": TEXTS, "label": list(range(5))}).to_iterable_dataset(num_shards=2)
    expected = [row["text"] for row in data]
    for source in (data, data.with_format("torch"), data.select_columns("text")):
        store = ix.capture(gpt2, source, sites=SITE, shard_stimuli=2)
        torch.testing.assert_close(store[SITE].torch(), last_rows(gpt2, expected), rtol=0, atol=1e-5)
        assert store.stimuli["text"].to_pylist() == expected
        assert store.manifest.plan["stream"]["source"] == "IterableDataset"
    assert ix.capture(gpt2, data, sites=SITE, shard_stimuli=2)[SITE].column("label").tolist() == [row["label"] for row in data]
    mapped = data.map(lambda row: {"other": row["text"] + " w9"})
    store = ix.capture(gpt2, Stimuli.stream(mapped, column="other", ids="label"), sites=SITE, shard_stimuli=2)
    torch.testing.assert_close(store[SITE].torch(), last_rows(gpt2, [text + " w9" for text in expected]), rtol=0, atol=1e-5)
    assert store[SITE].ids.tolist() == [str(row["label"]) for row in data]


def test_pictures_of_a_stream(make):
    pytest.importorskip("PIL")
    pixels = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3)).astype(np.uint8)
    rows = {"image": [{"bytes": png(p), "path": None} for p in pixels]}
    data = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).to_iterable_dataset()
    store = ix.capture(make("vit"), data, sites="blocks.0.resid_post", shard_stimuli=2)
    assert torch.equal(
        store["blocks.0.resid_post"].torch(),
        ix.capture(make("vit"), pixels, sites="blocks.0.resid_post", shard_stimuli=2)["blocks.0.resid_post"].torch(),
    )


def test_loaders_give_rows_without_padding(gpt2):
    encoded = gpt2.tokenizer(TEXTS)["input_ids"]

    def pad(rows: list[int], side: str) -> dict[str, torch.Tensor]:
        width = max(len(encoded[i]) for i in rows)
        # 5 stands for padding, and is a word of its own: only the mask tells the two apart.
        ids, mask = torch.full((len(rows), width), 5), torch.zeros(len(rows), width, dtype=torch.long)
        for at, i in enumerate(rows):
            part = slice(0, len(encoded[i])) if side == "right" else slice(width - len(encoded[i]), width)
            ids[at, part], mask[at, part] = torch.tensor(encoded[i]), 1
        return {"input_ids": ids, "attention_mask": mask, "label": torch.tensor(rows)}

    plain = ix.capture(gpt2, encoded, sites=SITE, tokens="all")
    for side in ("right", "left"):
        loader = DataLoader(range(5), batch_size=2, collate_fn=lambda rows, side=side: pad(rows, side))  # pyright: ignore[reportArgumentType]
        store = ix.capture(gpt2, loader, sites=SITE, tokens="all", shard_stimuli=3)
        assert store["blocks.1.resid_post"].column("token_id").tolist() == [number for row in encoded for number in row]
        torch.testing.assert_close(store[SITE].torch(), plain[SITE].torch(), rtol=0, atol=1e-5)
        assert store[SITE].select(rows=[0, -1]).column("label").tolist() == [0, 4]
        assert store.stimuli["input_ids"].to_pylist() == encoded
        assert "attention_mask" not in store.stimuli.column_names


def test_tables_of_ids_are_read_without_padding(gpt2):
    gpt2.tokenizer.padding_side = "left"
    try:
        padded = gpt2.tokenizer(TEXTS, padding=True, return_token_type_ids=False)
    finally:
        gpt2.tokenizer.padding_side = "right"
    plain = ix.capture(gpt2, TEXTS, sites=SITE, tokens="all")[SITE].torch()
    for form in (padded, datasets.Dataset.from_dict(dict(padded)), datasets.Dataset.from_dict(dict(padded)).to_iterable_dataset()):
        torch.testing.assert_close(ix.capture(gpt2, form, sites=SITE, tokens="all")[SITE].torch(), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["tensor", "tuple", "dict", "named", "list of rows", "data set", "items"])
def test_loaders_of_every_form(form):
    torch.manual_seed(0)
    x, y = torch.randn(7, 4), torch.arange(7)
    pair = namedtuple("pair", ["features", "label"])
    loaders: dict[str, Any] = {
        "tensor": DataLoader(x, batch_size=3),  # pyright: ignore[reportArgumentType]
        "tuple": DataLoader(TensorDataset(x, y), batch_size=3),
        "dict": DataLoader([{"x": x[i], "label": y[i]} for i in range(7)], batch_size=3),  # pyright: ignore[reportArgumentType]
        "named": DataLoader([pair(x[i], y[i]) for i in range(7)], batch_size=3),  # pyright: ignore[reportArgumentType]
        "list of rows": DataLoader(TensorDataset(x, y), batch_size=3, collate_fn=lambda rows: list(rows)),
        "data set": TensorDataset(x, y),
        "items": DataLoader(TensorDataset(x, y), batch_size=None),
    }
    module = torch.nn.Sequential(torch.nn.Linear(4, 3))
    store = ix.capture(module, loaders[form], sites="0", shard_stimuli=4)
    with torch.no_grad():
        torch.testing.assert_close(store["0"].torch(), module(x), rtol=0, atol=1e-6)
    if form != "tensor":
        assert store["0"].column("label").tolist() == list(range(7))


def test_loaders_of_texts_and_of_ids(gpt2):
    expected = last_rows(gpt2, TEXTS)
    encoded = gpt2.tokenizer(TEXTS)["input_ids"]
    loaders: list[Any] = [
        DataLoader(TEXTS, batch_size=2),  # pyright: ignore[reportArgumentType]
        DataLoader(list(zip(TEXTS, range(5), strict=True)), batch_size=2),  # pyright: ignore[reportArgumentType]
        DataLoader([torch.tensor(row) for row in encoded], batch_size=2, collate_fn=list),  # pyright: ignore[reportArgumentType]
        DataLoader(encoded, batch_size=2, collate_fn=list),
        DataLoader(datasets.Dataset.from_dict({"text": TEXTS}), batch_size=2),
    ]
    for loader in loaders:
        store = ix.capture(gpt2, loader, sites=SITE)
        torch.testing.assert_close(store[SITE].torch(), expected, rtol=0, atol=1e-5)


def test_token_ids_in_arrays_and_lists(gpt2):
    ids = np.array([[5, 6, 7], [8, 9, 10]])
    with torch.no_grad():
        expected = gpt2.module(torch.from_numpy(ids), output_hidden_states=True).hidden_states[2]
    for form in (ids, ids.tolist(), torch.from_numpy(ids), ids.astype(np.uint16), [np.array(row) for row in ids], {"input_ids": ids}):
        rows, _ = ix.capture(gpt2, form, sites=SITE, tokens="all")[SITE].padded()
        torch.testing.assert_close(rows, expected, rtol=0, atol=1e-5)
    ragged = [[5], [8, 9, 10]]
    rows, mask = ix.capture(gpt2, ragged, sites=SITE, tokens="all")[SITE].padded()
    torch.testing.assert_close(rows[1], expected[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(rows[0, 0], expected[0, 0], rtol=0, atol=1e-5)
    assert mask.tolist() == [[True, False, False], [True, True, True]]


BAD_BATCHES = [
    ([3], "batch 0 of the loader is of type int; expected a tensor, a dict of tensors, or a tuple whose first part holds the stimuli"),
    ([{"x": torch.zeros(2, 3), "y": torch.zeros(3)}], "batch 0 of the loader has parts of different length (x: 2, y: 3)"),
    ([(torch.zeros(2, 3), torch.zeros(3))], "batch 0 of the loader has parts of 2, 3 values"),
    ([{"x": torch.tensor(3)}], "'x' of a batch is a single number; a batch has one value per stimulus"),
    ([{"x": 3}], "'x' of a batch is of type int; expected a tensor or a list with one value per stimulus"),
    (
        [{"input_ids": torch.ones(1, 3, dtype=torch.long), "attention_mask": torch.zeros(1, 3)}],
        "a row of batch 0 has an attention mask of zeros alone",
    ),
]


@pytest.mark.parametrize(("batches", "words"), BAD_BATCHES)
def test_batches_that_cannot_be_cut(batches, words):
    loader = DataLoader(batches, batch_size=1, collate_fn=lambda rows: rows[0])  # pyright: ignore[reportArgumentType]
    with pytest.raises(StimuliError, match=re.escape(words)):
        ix.capture(torch.nn.Sequential(torch.nn.Linear(3, 2)), loader, sites="0")


def test_limits_hold_for_what_is_known_too(gpt2):
    store = ix.capture(gpt2, {"text": TEXTS, "label": list("abcde")}, sites=SITE, limit=2)
    torch.testing.assert_close(store[SITE].torch(), last_rows(gpt2, TEXTS[:2]), rtol=0, atol=1e-5)
    assert store.stimuli.to_pydict() == {"stimulus": ["0", "1"], "text": TEXTS[:2], "label": ["a", "b"]}
    assert Stimuli(TEXTS).first(99).digest() == Stimuli(TEXTS).digest()
    assert Stimuli(TEXTS).first(2).digest() == Stimuli(TEXTS[:2]).digest()
    for source in (TEXTS, iter(TEXTS)):
        with pytest.raises(StimuliError, match="limit=0 leaves no stimulus; give 1 or more"):
            ix.capture(gpt2, source, sites=SITE, limit=0)
