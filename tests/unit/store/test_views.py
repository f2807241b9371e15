"""Views: rows, labels, selections and sequences."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inscape.errors import DegenerateInputError, SiteNotFoundError, StimuliError, StoreMismatchError
from inscape.store import Store, view_of


def _store(n: int = 8, d: int = 5) -> tuple[Store, np.ndarray]:
    values = np.random.default_rng(0).standard_normal((n, d))
    return Store.from_arrays({"x": values}, {"stimulus": [f"s{i}" for i in range(n)], "label": [i % 3 for i in range(n)]}), values


def test_index_and_columns(toy: SimpleNamespace, store: Store) -> None:
    view = store["h.0/tokens"]
    stimulus = [s for s, count in enumerate([2, 1, 3, 1, 2, 1]) for _ in range(count)]
    assert view.stimulus.dtype == np.int64
    assert view.stimulus.tolist() == stimulus
    assert (view.repeat.dtype, view.position.dtype) == (np.int32, np.int32)
    assert view.position.tolist() == [0, 1, 0, 0, 1, 2, 0, 0, 1, 0]
    assert view.ids.tolist() == [f"s{s}" for s in stimulus]
    assert view.column("label").tolist() == [s % 2 for s in stimulus]
    assert view.column("text").tolist() == [toy.stimuli["text"][s] for s in stimulus]
    assert view.tokens.tolist() == [10 * s + p for s, p in zip(stimulus, view.position, strict=True)]
    assert view.column("position").tolist() == view.position.tolist()
    assert view.columns == ["stimulus", "text", "label", "token_id"]
    assert (view.system, view.site, view.row_set, view.kind, len(view)) == ("toy", "h.0/tokens", "tokens", "token", 10)
    with pytest.raises(StimuliError, match=r"toy/h.0/tokens has no column 'labels'; nearest: 'label'"):
        view.column("labels")
    with pytest.raises(StimuliError, match="rows of toy/h.0 are stimulus rows without tokens; capture with tokens='all'"):
        _ = store["h.0"].tokens
    with pytest.raises(ValueError, match="read-only"):
        view.stimulus[0] = 3


def test_padded_equals_a_loop(toy: SimpleNamespace, store: Store) -> None:
    view, whole = store["h.0/tokens"], toy.expected("h.0/tokens")
    values, mask = view.padded()
    assert values.shape == (6, 3, 4)
    assert values.dtype == torch.float16
    assert mask.sum(1).tolist() == [2, 1, 3, 1, 2, 1]
    start = 0
    for sequence, count in enumerate([2, 1, 3, 1, 2, 1]):
        assert torch.equal(values[sequence, :count], whole[start : start + count])
        assert not values[sequence, count:].any()
        start += count
    shuffled = view.select(rows=[9, 1, 0])
    values, mask = shuffled.padded()
    assert mask.tolist() == [[True, False], [True, True]]
    assert torch.equal(values[1], whole[[1, 0]])


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.data())
def test_chains_of_selections_equal_numpy(data: st.DataObject) -> None:
    store, expected = _store()
    view = store["x"]
    for _ in range(data.draw(st.integers(1, 4))):
        n, d = expected.shape
        kind = data.draw(st.sampled_from(["slice", "step", "numbers", "mask", "units", "unit slice"]))
        if kind == "slice":
            a, b = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
            view, expected = view.select(rows=slice(a, b)), expected[a:b]
        elif kind == "step":
            view, expected = view.select(rows=slice(None, None, -2)), expected[::-2]
        elif kind == "numbers" and n:
            rows = data.draw(st.lists(st.integers(-n, n - 1), max_size=10))
            view, expected = view.select(rows=rows), expected[np.asarray(rows, int)]
        elif kind == "mask":
            mask = np.asarray(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
            view, expected = view.select(rows=torch.from_numpy(mask)), expected[mask]
        elif kind == "units":
            units = data.draw(st.lists(st.integers(-d, d - 1), min_size=1, max_size=4))
            view, expected = view.select(units=units), expected[:, units]
        elif d > 1:
            view, expected = view.select(units=slice(1, None)), expected[:, 1:]
    assert view.shape == expected.shape
    np.testing.assert_array_equal(view.numpy(), expected)
    np.testing.assert_array_equal(np.asarray(view), expected)
    if len(expected):
        rows = [0, -1, 0]
        np.testing.assert_array_equal(view.gather(rows).numpy(), expected[rows])
        np.testing.assert_array_equal(view.read(1, 3).numpy(), expected[1:3])
        np.testing.assert_array_equal(np.concatenate([batch.numpy() for batch in view.batches(3)]), expected)
    assert len(view.ids) == len(view.stimulus) == view.n


def test_selected_rows_keep_their_labels() -> None:
    store, values = _store()
    view = store["x"].select(rows=[5, 2]).select(rows=[1], units=[3])
    assert view.ids.tolist() == ["s2"]
    assert view.column("label").tolist() == [2]
    assert view.numpy().item() == values[2, 3]


def test_wrong_rows_are_refused() -> None:
    view = _store()[0]["x"]
    with pytest.raises(IndexError, match=r"row 8 is outside View\(arrays/x: 8 stimulus rows × 5 units, float64\), which has 8 rows"):
        view.gather([0, 8])
    with pytest.raises(IndexError, match="row -9 is outside"):
        view.select(rows=[-9])
    with pytest.raises(IndexError, match="unit 5 is outside"):
        view.select(units=[5])
    with pytest.raises(StoreMismatchError, match=r"a mask of shape \(3,\) cannot choose among 8 rows"):
        view.select(rows=np.ones(3, bool))
    with pytest.raises(
        StoreMismatchError, match=r"rows must be a slice, a mask or integers in one axis; got dtype float64 of shape \(1,\)"
    ):
        view.gather([0.5])


def test_sites_by_name_glob_and_hook_name() -> None:
    names = [f"blocks.{i}.{port}" for i in range(3) for port in ("resid_pre", "resid_post")]
    store = Store.from_arrays({name: np.full((2, 1), i) for i, name in enumerate(names)}, system="toy")
    assert store["blocks.1.resid_post"].numpy()[0, 0] == 3
    assert store["*1.resid_post"].site == "blocks.1.resid_post"
    assert store["blocks.2.hook_resid_pre"].site == "blocks.2.resid_pre"
    assert store.select("blocks.*.resid_post").sites == names[1::2]
    assert store.select(["*.2.*", "blocks.0.hook_resid_pre"]).sites == [names[0], names[4], names[5]]
    assert list(store) == names
    assert len(store) == 6
    assert names[0] in store
    with pytest.raises(SiteNotFoundError, match=r"toy has no site 'blocks.1.resid_pst'; nearest: 'blocks.1.resid_post', "):
        store["blocks.1.resid_pst"]
    with pytest.raises(SiteNotFoundError, match=r"'blocks.\*' matches 6 sites of toy: 'blocks.0.resid_pre', .*store.select\(sites=…\)"):
        store["blocks.*"]
    with pytest.raises(SiteNotFoundError, match=r"toy has no site that matches 'layer.\*'; nearest: "):
        store.select("layer.*")


@pytest.mark.parametrize("site", ["h.0", "h.0/tokens"])
def test_where_selects_over_all_row_sets(toy: SimpleNamespace, store: Store, site: str) -> None:
    for where in ({"label": 1}, lambda column: column["label"] == 1, {"stimulus": ["s1", "s3", "s5"]}):
        chosen = store.select(where=where)
        assert chosen.stimuli["stimulus"].to_pylist() == ["s1", "s3", "s5"]
        view, keep = chosen[site], np.flatnonzero(store[site].stimulus % 2 == 1)
        assert torch.equal(view.torch(), toy.expected(site)[torch.from_numpy(keep)])
        assert view.ids.tolist() == store[site].ids[keep].tolist()
        assert set(view.column("label")) == {1}
    first = store.select("h.0/tokens", where={"position": 0})
    assert first["h.0/tokens"].n == 6
    both = store.select(["h.0", "h.1*"], rows=[4, 1, 0], where={"label": 0})
    assert both["h.0"].ids.tolist() == ["s4", "s0"]
    with pytest.raises(StoreMismatchError, match=r"rows= is ambiguous: the sites have 2 row sets \(pooled, tokens\)"):
        store.select(rows=[0])
    with pytest.raises(StoreMismatchError, match=r"where gave int64 of shape \(6,\); expected a mask of shape \(6,\)"):
        store.select("h.0", where=lambda column: column["label"])
    with pytest.raises(StoreMismatchError, match="where must be a dict of columns or a function of them; got str"):
        store.select(where="label == 1")
    with pytest.raises(StimuliError, match="has no column 'lable'"):
        store.select(where={"lable": 1})


def test_mean_over_repeats_equals_pandas() -> None:
    values = np.random.default_rng(0).standard_normal((7, 3))
    ids = ["b", "a", "b", "c", "a", "b", "c"]
    view = Store.from_arrays(values, ids)["X"].mean_over_repeats()
    frame = pd.DataFrame(values).groupby(pd.Series(ids), sort=False).mean()
    assert view.ids.tolist() == list(frame.index) == ["b", "a", "c"]
    np.testing.assert_allclose(view.numpy(), frame.to_numpy(), rtol=1e-14)
    np.testing.assert_allclose(view.gather([2, 0]).numpy(), frame.to_numpy()[[2, 0]], rtol=1e-14)
    assert view.repeat.tolist() == [0, 0, 0]
    half = Store.from_arrays(values.astype(np.float16), ids)["X"].mean_over_repeats()
    assert half.dtype == half.torch().dtype == torch.float32


def test_view_of() -> None:
    store, values = _store()
    view = store["x"]
    assert view_of(view) is view
    np.testing.assert_array_equal(view_of(store).numpy(), values)
    assert view_of(torch.from_numpy(values)).torch().data_ptr() != 0
    assert view_of(values, "Y").site == "Y"
    assert view_of(values).ids.tolist() == [str(i) for i in range(8)]
    with pytest.raises(StoreMismatchError, match="expected a store with one site, got 2: 'a', 'b'; choose one with store"):
        view_of(Store.from_arrays({"a": values, "b": values}))
    with pytest.raises(DegenerateInputError, match=r"site 'X' has shape \(3,\); expected \[n, d\]"):
        view_of(np.zeros(3))


def test_unit_tables_follow_their_units(tmp_path: Path) -> None:
    values = np.zeros((2, 3))
    units = {"roi": ["V1", "V2", "IT"], "x": [0.5, 1.5, 2.5]}
    for to in (None, f"{tmp_path}/x"):
        store = Store.from_arrays({"a": values, "b": values[:, :2]}, units={"a": units}, to=to)
        assert store.units("a").to_pydict() == units
        assert store.units("b") is None
        assert store["a"].select(units=[2, 0]).unit_table["roi"].to_pylist() == ["IT", "V1"]
        assert store["a"].select(rows=[0]).unit_table.to_pydict() == units
    with pytest.raises(StoreMismatchError, match="the unit table of 'X' has 2 rows for 3 units; give one row per unit"):
        Store.from_arrays(values, units=pa.table({"roi": ["a", "b"]}))
    with pytest.raises(StoreMismatchError, match="unit tables belong to sites; give units as a dict with the keys 'a', 'b'"):
        Store.from_arrays({"a": values, "b": values}, units=pa.table({"roi": ["a", "b", "c"]}))


def test_pages_are_small_and_escaped() -> None:
    text = "<script>alert(1)</script>" * 300
    sites = {f"blocks.{i}.<b>": np.zeros((30, 200)) for i in range(300)}
    store = Store.from_arrays(sites, {"stimulus": [f"s{i}" for i in range(30)], **{f"c{k}": [text] * 30 for k in range(40)}})
    for page in (store._repr_html_(), store["blocks.0.<b>"]._repr_html_()):
        assert len(page.encode()) <= 30_000
        assert "<script>" not in page
        assert "<b>.0" not in page
        assert "s0" in page
    assert repr(store).startswith("Store(arrays: 30 stimuli, 300 sites, in memory)\n  blocks.0.<b>  [30 × 200] float64, stimulus rows")
    assert "… and 240 more sites" in store.summary()
