"""Pairing and joining by stimulus."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inscape.errors import StoreMismatchError
from inscape.store import SiteSpec, Store, StoreWriter, View, pair_rows, pair_views


def _view(ids: list[str], system: str, seed: int = 0) -> View:
    values = np.random.default_rng(seed).standard_normal((len(ids), 2))
    return Store.from_arrays(values, ids, system=system)["X"]


def _tokens(ids: list[str], lengths: list[int], system: str, *, token: int = 0, kind: str = "token") -> View:
    stimulus = np.repeat(np.arange(len(ids)), lengths)
    position = np.concatenate([np.arange(n) for n in lengths])
    rows = pa.table({"stimulus": stimulus, "repeat": 0 * stimulus, "position": position, "token_id": position + token})
    with StoreWriter.create_or_resume(None, {}, ids, {"X": SiteSpec("tokens", 1, kind=kind)}, system=system) as writer:
        writer.write_shard(0, {"tokens": rows}, {"X": torch.arange(len(stimulus)).float()[:, None]})
        return writer.finish()["X"]


def test_the_same_order_needs_no_rows() -> None:
    a, b = _view(["a", "b", "c"], "one"), _view(["a", "b", "c"], "two")
    assert pair_rows(a, b) == (None, None)
    assert pair_rows(a, a) == (None, None)
    assert pair_views(a, b) == (a, b)


@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.permutations(range(6)), st.permutations(range(6)), st.integers(0, 3))
def test_pairs_equal_a_pandas_merge(left: list[int], right: list[int], drop: int) -> None:
    ids_a, ids_b = [f"s{i}" for i in left], [f"s{i}" for i in right[drop:]]
    a, b = _view(ids_a, "one"), _view(ids_b, "two", 1)
    x, y = pair_views(a, b, on="intersection")
    frame = pd.DataFrame({"id": ids_a, "i": range(6)}).merge(pd.DataFrame({"id": ids_b, "j": range(6 - drop)}), on="id", how="inner")
    frame = frame.sort_values("i")
    np.testing.assert_array_equal(x.numpy(), a.numpy()[frame["i"]])
    np.testing.assert_array_equal(y.numpy(), b.numpy()[frame["j"]])
    if drop:
        with pytest.raises(StoreMismatchError, match=rf"{drop} of 6 rows are only in one/X \('s"):
            pair_rows(a, b)


def test_different_ids_are_shown_on_both_sides() -> None:
    a, b = _view(["a", "b", "c", "d", "e"], "one"), _view(["a", "z"], "two")
    with pytest.raises(StoreMismatchError) as caught:
        pair_rows(a, b)
    assert str(caught.value) == (
        "the rows do not match: 4 of 5 rows are only in one/X ('b', 'c', 'd', …); 1 of 2 rows are only in two/X ('z'). "
        "Give both the same stimuli; on='intersection' keeps the common ones"
    )
    rows = pair_rows(a, b, on="intersection")
    assert rows[0].tolist() == [0]
    assert rows[1].tolist() == [0]
    with pytest.raises(StoreMismatchError, match="nothing is common"):
        pair_rows(a, _view(["x", "y"], "two"), on="intersection")
    with pytest.raises(StoreMismatchError, match="on='some' is unknown: choose 'all' or 'intersection'"):
        pair_rows(a, b, on="some")


def test_tokens_pair_by_stimulus_and_position() -> None:
    a, b = _tokens(["p", "q"], [2, 3], "one"), _tokens(["q", "p"], [3, 2], "two")
    x, y = pair_views(a, b)
    assert x.torch().flatten().tolist() == [0, 1, 2, 3, 4]
    assert y.torch().flatten().tolist() == [3, 4, 0, 1, 2]
    assert x.ids.tolist() == y.ids.tolist()
    with pytest.raises(StoreMismatchError, match=r"1 of 6 rows are only in two/X \('p' position 2\)"):
        pair_rows(a, _tokens(["q", "p"], [3, 3], "two"))


def test_other_tokens_are_refused() -> None:
    a, b = _tokens(["p", "q"], [2, 3], "one"), _tokens(["p", "q"], [2, 3], "two", token=7)
    with pytest.raises(
        StoreMismatchError, match=r"5 of 5 paired rows are different tokens, the first at 'p' position 0: 0 in one, 7 in two"
    ):
        pair_rows(a, b)
    assert pair_rows(a, b, tokens="any") == (None, None)


def test_other_kinds_are_refused() -> None:
    a, b = _tokens(["p"], [2], "one"), _view(["p"], "two")
    with pytest.raises(
        StoreMismatchError, match=r"one/X: 2 token rows .* has token rows and .* has stimulus rows; rows of different kinds do not pair"
    ):
        pair_rows(a, b)
    with pytest.raises(StoreMismatchError, match="token rows and .* has patch rows"):
        pair_rows(a, _tokens(["p"], [2], "two", kind="patch"))


def test_stimulus_rows_ignore_where_in_the_text_they_were_read() -> None:
    def last(position: list[int]) -> View:
        rows = pa.table({"stimulus": [0, 1], "repeat": [0, 0], "position": position})
        with StoreWriter.create_or_resume(None, {}, ["p", "q"], {"X": SiteSpec("last", 1)}) as writer:
            writer.write_shard(0, {"last": rows}, {"X": torch.zeros(2, 1)})
            return writer.finish()["X"]

    assert pair_rows(last([4, 7]), last([3, 9])) == (None, None)


def test_repeats_must_be_decided() -> None:
    a, b = _view(["p", "q", "p"], "one"), _view(["q", "p"], "two")
    with pytest.raises(StoreMismatchError) as caught:
        pair_rows(a, b)
    assert str(caught.value) == (
        "stimuli are repeated (one/X up to 2 and two/X up to 1 times): say repeats='mean' (average them), "
        "'split' (repeat i with repeat i) or 'all' (every repeat with every other)"
    )
    with pytest.raises(
        StoreMismatchError, match="repeats='mean' does not pair rows: choose 'split' or 'all'; means are not row numbers, use pair_views"
    ):
        pair_rows(a, b, repeats="mean")
    with pytest.raises(StoreMismatchError, match="repeats='sum' is unknown: choose one of 'mean', 'split', 'all'"):
        pair_views(a, b, repeats="sum")
    with pytest.raises(StoreMismatchError, match=r"1 of 3 rows are only in one/X \('p' repeat 1\)"):
        pair_rows(a, b, repeats="split")
    x, y = pair_views(a, b, repeats="all")
    assert x.ids.tolist() == y.ids.tolist() == ["p", "q", "p"]
    np.testing.assert_array_equal(y.numpy(), b.numpy()[[1, 0, 1]])
    x, y = pair_views(a, b, repeats="mean")
    np.testing.assert_allclose(x.numpy(), [a.numpy()[[0, 2]].mean(0), a.numpy()[1]])
    np.testing.assert_array_equal(y.numpy(), b.numpy()[[1, 0]])


def test_split_and_all_with_repeats_on_both_sides() -> None:
    a, b = _view(["p", "p", "q"], "one"), _view(["q", "p", "p"], "two")
    x, y = pair_views(a, b, repeats="split")
    assert list(zip(x.ids, x.repeat, strict=True)) == list(zip(y.ids, y.repeat, strict=True)) == [("p", 0), ("p", 1), ("q", 0)]
    np.testing.assert_array_equal(y.numpy(), b.numpy()[[1, 2, 0]])
    rows = pair_rows(a, b, repeats="all")
    assert [row.tolist() for row in rows] == [[0, 0, 1, 1, 2], [1, 2, 1, 2, 0]]
    same = _view(["p", "p", "q"], "two")
    assert [row.tolist() for row in pair_rows(a, same, repeats="all")] == [[0, 0, 1, 1, 2], [0, 1, 0, 1, 2]]


def test_rows_of_one_store_need_no_decision() -> None:
    values = np.random.default_rng(0).standard_normal((3, 2))
    store = Store.from_arrays({"a": values, "b": values + 1}, ["p", "p", "q"])
    assert pair_rows(store["a"], store["b"]) == (None, None)
    assert pair_rows(store["a"].select(rows=[0, 2]), store["b"].select(rows=[0, 2])) == (None, None)
    assert pair_views(store["a"], store["b"], repeats="mean")[0].n == 2


def test_a_row_pairs_once() -> None:
    a, b = _view(["p", "q"], "one"), _view(["q", "p"], "two")
    with pytest.raises(StoreMismatchError, match=r"'p' occurs 2 times in View\(one/X: 3 stimulus rows"):
        pair_rows(a.select(rows=[0, 1, 0]), b)


@pytest.mark.parametrize("disk", [False, True])
def test_join(disk: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    a = Store.from_arrays({"X": np.arange(6.0).reshape(3, 2)}, {"stimulus": ["p", "q", "r"], "label": [1, 2, 3]}, system="one")
    b = Store.from_arrays(
        {"X": np.arange(3.0)[:, None], "Y": np.ones((3, 1))}, {"stimulus": ["r", "s", "p"], "run": [7, 8, 9]}, system="two"
    )
    with pytest.raises(StoreMismatchError, match=r"1 of 3 rows are only in one/X \('q'\)"):
        a.join(b)
    both = a.join(b, on="intersection")
    if disk:
        both = both.save(tmp_path_factory.mktemp("joined") / "x")
        assert both.verify() == []
    assert both.sites == ["one/X", "two/X", "Y"]
    assert both.system == "one+two"
    assert both.stimuli.to_pydict() == {"stimulus": ["p", "r"], "label": [1, 3], "run": [9, 7]}
    assert both["one/X"].torch().tolist() == [[0, 1], [4, 5]]
    assert both["two/X"].torch().tolist() == [[2], [0]]
    assert pair_rows(both["one/X"], both["two/X"]) == (None, None)
    with pytest.raises(StoreMismatchError, match="both stores are called 'one' and have the site 'X'"):
        a.join(a)


def test_join_of_repeats(tmp_path_factory: pytest.TempPathFactory) -> None:
    a = Store.from_arrays({"m": np.array([[1.0], [2.0]])}, ["p", "q"], system="model")
    b = Store.from_arrays({"v": np.array([[1.0], [3.0], [5.0]])}, {"stimulus": ["q", "q", "p"], "run": [1, 2, 1]}, system="brain")
    with pytest.raises(StoreMismatchError, match="stimuli are repeated"):
        a.join(b)
    mean = a.join(b, repeats="mean")
    assert mean["v"].torch().tolist() == [[5.0], [2.0]]
    every = a.join(b, repeats="all").save(tmp_path_factory.mktemp("joined") / "x")
    assert every["m"].torch().tolist() == [[1.0], [2.0], [2.0]]
    assert every["v"].torch().tolist() == [[5.0], [1.0], [3.0]]
    assert every["v"].repeat.tolist() == [0, 0, 1]
    assert every["v"].column("run").tolist() == [1, 1, 2]
    with pytest.raises(StoreMismatchError, match="are only in brain/v"):
        a.join(b, repeats="split")
    with pytest.raises(StoreMismatchError, match="repeats='sum' is unknown"):
        a.join(b, repeats="sum")


def test_join_refuses_other_kinds_and_ambiguous_row_sets() -> None:
    tokens = _tokens(["p"], [2], "one").store
    with pytest.raises(StoreMismatchError, match="one has token rows and two has stimulus rows; join stores with the same kinds of row"):
        tokens.join(_view(["p"], "two").store)
    rows = pa.table({"stimulus": [0], "repeat": [0], "position": [0]})
    sites = {"x": SiteSpec("last", 1), "y": SiteSpec("mean", 1)}
    with StoreWriter.create_or_resume(None, {}, ["p"], sites, system="two") as writer:
        writer.write_shard(0, {"last": rows, "mean": rows}, {"x": torch.zeros(1, 1), "y": torch.zeros(1, 1)})
        two = writer.finish()
    with pytest.raises(StoreMismatchError, match=r"two has several row sets of stimulus rows \('x', 'y'\); select sites of one first"):
        two.join(_view(["p"], "one").store)
    assert two.select("x").join(_view(["p"], "one").store).sites == ["x", "X"]
