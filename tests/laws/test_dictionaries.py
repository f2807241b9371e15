"""Laws of every kind of dictionary, generated from the registry: a new kind gets them without an edit here."""

from __future__ import annotations

import doctest
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.dictionaries import Dictionary, DictionaryKind
from inscape.errors import DegenerateInputError, DictionaryError
from tests.unit.dictionaries.scene import sparse_rows

KINDS = list(ix.dictionaries.registered().values())
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
D = 16
X = sparse_rows(2048, D).astype(np.float32)


def given(kind: DictionaryKind, rows: np.ndarray) -> object:
    """Rows for a kind that reads one site, or two halves for those that read several."""
    return rows if kind.make.sites == "one" else [rows[:, : D // 2], rows[:, D // 2 :]]


def read(kind: DictionaryKind, rows: np.ndarray) -> np.ndarray:
    """The rows that the fitted dictionary encodes."""
    return rows[:, : D // 2] if kind.make.sites == "pair" else rows


def written(kind: DictionaryKind, rows: np.ndarray) -> np.ndarray:
    """The rows that it should give back."""
    return rows[:, D // 2 :] if kind.make.sites == "pair" else rows


@cache
def fitted(kind: DictionaryKind, scale: float = 1.0, offset: float = 0.0) -> Dictionary:
    return ix.decompose(given(kind, X * np.float32(scale) + np.float32(offset)), kind.make(**kind.example(D)), rows=8192, seed=3)


@each_kind
def test_it_says_what_it_is(kind: DictionaryKind) -> None:
    assert getattr(ix.dictionaries, kind.name) is kind.make
    assert kind.source and kind.what.endswith(".")
    doc = kind.make.__doc__ or ""
    assert "Attributes:" in doc and "Example:" in doc
    assert kind.name in repr(fitted(kind))


@each_kind
def test_its_example_runs(kind: DictionaryKind) -> None:
    given = {"ix": ix, "X": np.random.default_rng(0).standard_normal((64, 8))}
    test = doctest.DocTestParser().get_doctest(kind.make.__doc__ or "", given, kind.name, None, 0)
    said: list[str] = []
    assert test.examples and doctest.DocTestRunner().run(test, out=said.append).failed == 0, "".join(said)


@each_kind
def test_it_explains_variance(kind: DictionaryKind) -> None:
    one = fitted(kind)
    goal = torch.from_numpy(written(kind, X))
    error = (one.reconstruct(read(kind, X)) - goal).square().sum()
    assert float(error / (goal - goal.mean(0)).square().sum()) < 0.9


@each_kind
def test_shapes_and_signs(kind: DictionaryKind) -> None:
    one = fitted(kind)
    codes = one.encode(read(kind, X))
    assert codes.shape == (len(X), one.m)
    assert one.W_dec.shape == (one.m, written(kind, X).shape[1])
    assert one.b_dec.shape == (one.W_dec.shape[1],)
    assert one.recipe.signed or float(codes.values.min()) > 0
    assert not bool((codes.values == 0).any())
    key = codes.rows * one.m + codes.indices
    assert bool((key.diff() > 0).all())


@each_kind
def test_rows_are_encoded_each_for_itself(kind: DictionaryKind) -> None:
    one = fitted(kind)
    rows = read(kind, X)
    whole = one.encode(rows).select(torch.arange(100, 110))
    part = one.encode(rows[100:110])
    assert torch.equal(whole.indices, part.indices)
    torch.testing.assert_close(whole.values, part.values, rtol=1e-4, atol=1e-4)


@each_kind
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(kind: DictionaryKind) -> None:
    recipe = kind.make(**kind.example(D))
    again = ix.decompose(given(kind, X), recipe, rows=8192, seed=3)
    for name, tensor in fitted(kind).tensors.items():
        assert torch.equal(again.tensors[name], tensor), name


@each_kind
def test_saved_and_loaded_it_is_the_same(kind: DictionaryKind, tmp_path: Path) -> None:
    one = fitted(kind)
    one.save(tmp_path / "kept")
    back = Dictionary.load(tmp_path / "kept")
    assert back.recipe == one.recipe and back.info == json.loads(json.dumps(one.info))
    assert torch.equal(back.encode(read(kind, X)).torch(), one.encode(read(kind, X)).torch())
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"dictionary.json", "dictionary.safetensors"}


@each_kind
def test_scale_and_offset_of_the_rows_are_folded_exactly(kind: DictionaryKind) -> None:
    """Rows a power of two larger, elsewhere: reconstructions follow."""
    offset = 512.0 if kind.make.shifts else 0.0
    moved = fitted(kind, 8.0, offset)
    rows = X * np.float32(8) + np.float32(offset)
    expected = fitted(kind).reconstruct(read(kind, X)) * 8 + offset
    found = moved.reconstruct(read(kind, rows))
    spread = float((expected - expected.mean(0)).square().mean().sqrt())
    # The offset costs digits of fp32 rows, and a close choice may fall the other way: most rows agree closely.
    off = (found - expected).square().mean(1).sqrt() / spread
    assert float(off.median()) < 0.02


@each_kind
def test_odd_rows_are_refused(kind: DictionaryKind) -> None:
    recipe = kind.make(**kind.example(D))
    spoiled = X.copy()
    spoiled[3, 2] = np.nan
    spoiled[3, -2] = np.nan
    with pytest.raises(DegenerateInputError, match="NaN or infinite"):
        ix.decompose(given(kind, spoiled), recipe, rows=8192)
    with pytest.raises(DegenerateInputError, match="are equal"):
        ix.decompose(given(kind, np.ones_like(X)), recipe, rows=8192)
    with pytest.raises(DictionaryError, match=r"has 3 units"):
        fitted(kind).encode(X[:, :3])
    with pytest.raises(DegenerateInputError, match="NaN or infinite"):
        fitted(kind).encode(read(kind, spoiled))


@each_kind
def test_a_width_that_is_none_is_refused(kind: DictionaryKind) -> None:
    for width in (0, -3, True):
        with pytest.raises(DictionaryError, match="width="):
            kind.make(**{**kind.example(D), "width": width})
