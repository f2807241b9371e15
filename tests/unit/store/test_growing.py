"""Saving and appending, in memory and on disk."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from inscape.errors import StoreMismatchError
from inscape.store import Store
from inscape.store import open as open_store

X = np.random.default_rng(0).standard_normal((5, 3))


def _base(to: Path | None) -> Store:
    return Store.from_arrays({"a": X[:3], "b": X[:3, :2].astype(np.float16)}, {"stimulus": ["p", "q", "r"], "label": [1, 2, 3]}, to=to)


def _more() -> dict[str, np.ndarray]:
    return {"b": X[3:, :2].astype(np.float16), "a": X[3:]}


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_append_new_stimuli(tmp_path: Path, where: str) -> None:
    store = _base(tmp_path / "x" if where == "disk" else None)
    grown = store.append(_more(), {"label": [4, 5], "stimulus": ["s", "t"]})
    np.testing.assert_array_equal(grown["a"].numpy(), X)
    np.testing.assert_array_equal(grown["b"].numpy(), X[:, :2].astype(np.float16))
    np.testing.assert_array_equal(grown["a"].gather([4, 0, 3]).numpy(), X[[4, 0, 3]])
    np.testing.assert_array_equal(grown["a"].select(rows=[4, 1], units=[2]).numpy(), X[[4, 1]][:, [2]])
    assert grown["a"].ids.tolist() == ["p", "q", "r", "s", "t"]
    assert grown["a"].column("label").tolist() == [1, 2, 3, 4, 5]
    assert grown.verify() == []
    assert store["a"].n == 3  # the object that was there still shows what it showed
    if where == "disk":
        assert open_store(tmp_path / "x")["a"].n == 5
        with pytest.raises(StoreMismatchError, match=r"appended was \[.*\], now is \(absent\)"):
            _base(tmp_path / "x")
    else:
        saved = grown.save(tmp_path / "y")
        np.testing.assert_array_equal(saved["a"].numpy(), X)
        assert saved.fingerprint() == open_store(tmp_path / "y").fingerprint()


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_append_repeats(tmp_path: Path, where: str) -> None:
    store = _base(tmp_path / "x" if where == "disk" else None)
    more = {"stimulus": ["q", "t"], "label": [2, 5]}
    with pytest.raises(StoreMismatchError, match=r"1 of 2 stimulus ids are in \w+ already \('q'\): give other ids .* as_repeats=True"):
        store.append(_more(), more)
    with pytest.raises(StoreMismatchError, match="stimulus 'q' has label = 2 here and 9 in what is appended; one stimulus has one value"):
        store.append(_more(), {"stimulus": ["q", "t"], "label": [9, 5]}, as_repeats=True)
    grown = store.append(_more(), more, as_repeats=True)
    assert grown["a"].ids.tolist() == ["p", "q", "r", "q", "t"]
    assert grown["a"].repeat.tolist() == [0, 0, 0, 1, 0]
    assert grown.stimuli["stimulus"].to_pylist() == ["p", "q", "r", "t"]
    again = grown.append(_more(), more, as_repeats=True)
    assert again["a"].repeat.tolist() == [0, 0, 0, 1, 0, 2, 1]
    np.testing.assert_allclose(again["a"].mean_over_repeats().numpy()[1], (X[1] + 2 * X[3]) / 3)


def test_appended_repeats_bring_their_row_columns() -> None:
    store = Store.from_arrays(X[:3], {"stimulus": ["p", "p", "q"], "run": [1, 2, 1]})
    grown = store.append(X[3:], {"stimulus": ["p", "q"], "run": [3, 2]}, as_repeats=True)
    assert grown["X"].column("run").tolist() == [1, 2, 1, 3, 2]
    assert grown["X"].repeat.tolist() == [0, 1, 0, 2, 1]


def test_append_a_store_with_several_row_sets(toy: SimpleNamespace, store: Store, tmp_path: Path) -> None:
    part = open_store(toy.write(tmp_path / "more").path)
    renamed = Store(part.manifest, part.stimuli.set_column(0, "stimulus", [[f"t{i}" for i in range(6)]]), part._sites)
    grown = store.append(renamed)
    for site in toy.sites:
        assert torch.equal(grown[site].torch(), torch.cat([toy.expected(site)] * 2))
    view = grown["h.0/tokens"]
    assert view.stimulus.tolist() == [*store["h.0/tokens"].stimulus, *(store["h.0/tokens"].stimulus + 6)]
    assert view.tokens.tolist() == list(store["h.0/tokens"].tokens) * 2
    assert grown.verify() == []


def test_a_killed_append_leaves_the_store_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    more = {"stimulus": ["s", "t"], "label": [4, 5]}
    whole = _base(tmp_path / "whole" / "x").append(_more(), more)
    reference = {file.name: file.read_bytes() for file in (tmp_path / "whole").rglob("*") if file.is_file()}
    real, left = os.replace, 0

    def replace(source: Any, target: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        real(source, target)

    for allowed in range(5):
        path, left = tmp_path / f"{allowed}" / "x", allowed
        store = _base(path)
        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(Killed):
            store.append(_more(), more)
        monkeypatch.setattr(os, "replace", real)
        survivor = open_store(path)
        assert survivor.verify() == []
        np.testing.assert_array_equal(survivor["a"].numpy(), X[:3])
        assert survivor.stimuli["stimulus"].to_pylist() == ["p", "q", "r"]
        assert survivor.append(_more(), more).fingerprint() == whole.fingerprint()
        assert {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()} == reference


def test_append_refuses_what_does_not_fit() -> None:
    store = _base(None)
    more, stimuli = _more(), {"stimulus": ["s", "t"], "label": [4, 5]}
    with pytest.raises(
        StoreMismatchError, match=r"the sites differ: 'b' on one side only \(nearest here: 'b', 'a'\); append takes the same"
    ):
        store.append({"a": more["a"]}, stimuli)
    with pytest.raises(
        StoreMismatchError, match="site 'a' has stimulus rows of 3 units in float64 here, and .* float32 in what is appended"
    ):
        store.append({**more, "a": more["a"].astype(np.float32)}, stimuli)
    with pytest.raises(StoreMismatchError, match="the stimuli have other columns: 'label' on one side only"):
        store.append(more, ["s", "t"])
    with pytest.raises(StoreMismatchError, match="a column of the appended stimuli has another type: "):
        store.append(more, {"stimulus": ["s", "t"], "label": ["four", "five"]})


def test_save_cuts_into_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inscape.store.growing.SHARD_BYTES", 64)
    values = np.arange(60.0).reshape(20, 3)
    store = Store.from_arrays({"a": values, "b": values[:, :1]}, to=tmp_path / "x")
    assert len(store.manifest.shards) == 8
    np.testing.assert_array_equal(store["a"].numpy(), values)
    np.testing.assert_array_equal(store["b"].gather(np.arange(20)[::-1]).numpy(), values[::-1, :1])
    assert store["a"].ids.tolist() == [str(i) for i in range(20)]


def test_save_of_a_selection_and_of_a_mean(toy: SimpleNamespace, store: Store, tmp_path: Path) -> None:
    chosen = store.select(where={"label": 1}).save(tmp_path / "chosen")
    assert chosen.path == str(tmp_path / "chosen")
    for site in toy.sites:
        rows = torch.from_numpy(store[site].stimulus % 2 == 1)
        assert torch.equal(chosen[site].torch(), toy.expected(site)[rows])
    assert chosen.manifest.model == toy.plan["model"]
    assert chosen.manifest.notes == {"fidelity": 0.0}
    assert chosen.verify() == []


def test_fingerprint_follows_the_content(toy: SimpleNamespace, tmp_path: Path) -> None:
    memory, disk = toy.write(None), toy.write(tmp_path / "x")
    assert disk.fingerprint() == open_store(tmp_path / "x").fingerprint()
    texts = {
        store.fingerprint()
        for store in (memory, memory.select("h.0"), memory.select("h.0", rows=[0, 1]), memory.select(rows=None, where={"label": 1}))
    }
    assert len(texts) == 4
    assert toy.write(None).fingerprint() == memory.fingerprint()
