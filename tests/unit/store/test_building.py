"""Stores of arrays, tables and files; pickles are refused."""

from __future__ import annotations

import pickle  # noqa: TID251 — to show that one is refused
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from inscape.errors import DegenerateInputError, StimuliError, StoreCorruptError, StoreMismatchError
from inscape.store import Store, split_repeats, stimulus_table
from inscape.store import open as open_store

X = np.random.default_rng(0).standard_normal((4, 3))


def test_one_array() -> None:
    store = Store.from_arrays(X)
    assert store.sites == ["X"]
    assert store.path is None
    assert store.complete
    np.testing.assert_array_equal(store["X"].numpy(), X)
    assert store.stimuli["stimulus"].to_pylist() == ["0", "1", "2", "3"]
    assert store.verify() == []
    assert store.system == "arrays"


def test_arrays_in_memory_are_not_copied() -> None:
    tensor = torch.zeros(2, 2)
    store = Store.from_arrays(tensor)
    tensor += 1
    assert store["X"].torch().tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.ones((2, 2), np.int64), torch.float64),
        (np.ones((2, 2), bool), torch.float64),
        (np.ones((2, 2), np.float16), torch.float16),
        (torch.ones(2, 2, dtype=torch.bfloat16), torch.bfloat16),
        ([[1.0, 2.0], [3.0, 4.0]], torch.float64),
        (torch.ones(2, 2, requires_grad=True), torch.float32),
    ],
)
def test_dtypes(array: object, dtype: torch.dtype) -> None:
    view = Store.from_arrays(array)["X"]
    assert view.dtype == dtype
    assert view.torch().tolist() == torch.as_tensor(array).double().tolist()


@pytest.mark.parametrize(
    "stimuli",
    [
        ["a", "b", "c", "d"],
        np.array(["a", "b", "c", "d"]),
        {"stimulus": ["a", "b", "c", "d"], "label": [1, 2, 1, 2]},
        pa.table({"label": [1, 2, 1, 2], "stimulus": ["a", "b", "c", "d"]}),
        pd.DataFrame({"stimulus": ["a", "b", "c", "d"], "label": [1, 2, 1, 2]}),
        pd.DataFrame({"label": [1, 2, 1, 2]}, index=pd.Index(["a", "b", "c", "d"], name="stimulus")),
    ],
)
def test_kinds_of_stimuli(stimuli: object, tmp_path: Path) -> None:
    for to in (None, tmp_path / "x"):
        store = Store.from_arrays(X, stimuli, to=to)
        assert store["X"].ids.tolist() == ["a", "b", "c", "d"]
        assert store.stimuli.column_names[0] == "stimulus"
        if "label" in store.stimuli.column_names:
            assert store["X"].column("label").tolist() == [1, 2, 1, 2]


def test_columns_of_every_type_survive_the_disk(tmp_path: Path) -> None:
    columns = {
        "i": [1, None, 3, 4],
        "f": [0.5, float("nan"), None, 2.0],
        "b": [True, False, True, False],
        "t": ["x", None, "", "é"],
        "l": [[1, 2], [], [3], [4]],
    }
    memory = Store.from_arrays(X, columns)
    disk = Store.from_arrays(X, columns, to=tmp_path / "x")
    for name in columns:
        np.testing.assert_array_equal(memory["X"].column(name), disk["X"].column(name))
    assert disk["X"].column("b").dtype == bool
    assert disk["X"].column("t").tolist() == ["x", None, "", "é"]
    np.testing.assert_array_equal(disk["X"].column("i"), [1, np.nan, 3, 4])


def test_an_axis_of_repeats() -> None:
    values = np.random.default_rng(0).standard_normal((3, 2, 4))
    view = Store.from_arrays({"a": values}, ["p", "q", "r"])["a"]
    np.testing.assert_array_equal(view.numpy(), values.reshape(6, 4))
    assert view.ids.tolist() == ["p", "p", "q", "q", "r", "r"]
    assert view.repeat.tolist() == [0, 1, 0, 1, 0, 1]
    np.testing.assert_allclose(view.mean_over_repeats().numpy(), values.mean(1))
    with pytest.raises(StimuliError, match="the arrays have an axis of 2 repeats and stimulus ids come back as well"):
        Store.from_arrays(values, ["p", "q", "p"])


def test_ids_that_come_back_are_repeats() -> None:
    store = Store.from_arrays(
        X, {"stimulus": ["b", "a", "b", "b"], "label": [1, 2, 1, 1], "run": [1, 1, 2, 3], "gap": [None, "x", None, None]}
    )
    assert store.stimuli.to_pydict() == {"stimulus": ["b", "a"], "label": [1, 2], "gap": [None, "x"]}
    view = store["X"]
    assert view.stimulus.tolist() == [0, 1, 0, 0]
    assert view.repeat.tolist() == [0, 0, 1, 2]
    assert view.column("run").tolist() == [1, 1, 2, 3]
    assert view.column("label").tolist() == [1, 2, 1, 1]
    assert view.columns == ["stimulus", "label", "gap", "run"]
    assert store.select(where={"run": 1})["X"].ids.tolist() == ["b", "a"]


def test_split_repeats_with_nested_columns() -> None:
    table = stimulus_table({"stimulus": ["a", "a", "b"], "same": [[1], [1], [2]], "other": [[1], [2], [3]]})
    stimuli, stimulus, repeat, rows = split_repeats(table)
    assert stimuli.column_names == ["stimulus", "same"]
    assert rows.column_names == ["other"]
    assert (stimulus.tolist(), repeat.tolist()) == ([0, 0, 1], [0, 1, 0])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(StimuliError, match="there are 3 stimuli for 4 rows; give one entry per row"):
        Store.from_arrays(X, ["a", "b", "c"])
    with pytest.raises(StimuliError, match="1 of 4 stimuli have no id; fill the column 'stimulus'"):
        Store.from_arrays(X, {"stimulus": ["a", None, "c", "d"]})
    with pytest.raises(
        StimuliError, match="stimuli must be a list of ids, a dict of columns, an Arrow table or a pandas DataFrame; got int"
    ):
        Store.from_arrays(X, 4)
    with pytest.raises(StoreMismatchError, match=r"the arrays have different rows \('a': \(4, 3\), 'b': \(3, 3\)\)"):
        Store.from_arrays({"a": X, "b": X[:3]})
    with pytest.raises(StoreMismatchError, match="there are no arrays"):
        Store.from_arrays({})
    with pytest.raises(DegenerateInputError, match=r"site 'X' has shape \(2, 2, 2, 2\); expected \[n, d\]"):
        Store.from_arrays(np.zeros((2, 2, 2, 2)))


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "went-off",))

    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Bomb()))
    torch.save({"x": torch.ones(2)}, tmp_path / "x.pt")  # noqa: TID251 — to show that it is refused
    np.save(tmp_path / "x.npy", np.array([[Bomb()]], dtype=object), allow_pickle=True)
    for name in ("x.pkl", "x.pt"):
        with pytest.raises(DegenerateInputError, match=rf"{name} is not read: .*Pickled files .* always refused"):
            Store.from_arrays(tmp_path / name)
        with pytest.raises(DegenerateInputError, match=rf"{name} is not Parquet; .* pickled files are never loaded"):
            Store.from_parquet(tmp_path / name)
    with pytest.raises(DegenerateInputError, match=r"x.npy is refused \(Object arrays cannot be loaded when allow_pickle=False\)"):
        Store.from_arrays({"a": tmp_path / "x.npy"})
    with pytest.raises(DegenerateInputError, match=r"site 'a' is an array of Python objects of shape \(1, 1\); a store holds numbers"):
        Store.from_arrays({"a": np.array([[Bomb()]], dtype=object)})
    (tmp_path / "renamed.parquet").write_bytes((tmp_path / "x.pkl").read_bytes())
    with pytest.raises(StoreCorruptError, match=r"renamed.parquet cannot be read as Parquet"):
        Store.from_parquet(tmp_path / "renamed.parquet")
    (tmp_path / "renamed.npy").write_bytes((tmp_path / "x.pkl").read_bytes())
    with pytest.raises(DegenerateInputError, match=r"renamed.npy is refused"):
        Store.from_arrays(tmp_path / "renamed.npy")
    assert not (tmp_path / "went-off").exists()


def test_arrays_from_files(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    save_file({"a": torch.from_numpy(X), "b": torch.ones(4, 1)}, tmp_path / "x.safetensors")
    save_file({"only": torch.ones(4, 1)}, tmp_path / "one.safetensors")
    np.testing.assert_array_equal(Store.from_arrays(tmp_path / "x.npy")["X"].numpy(), X)
    store = Store.from_arrays(tmp_path / "x.safetensors")
    assert store.sites == ["a", "b"]
    np.testing.assert_array_equal(store["a"].numpy(), X)
    assert Store.from_arrays({"s": str(tmp_path / "one.safetensors")})["s"].shape == (4, 1)
    with pytest.raises(StoreMismatchError, match=r"x.safetensors holds 2 tensors \(a, b\); give it alone"):
        Store.from_arrays({"s": tmp_path / "x.safetensors"})


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), 3)])
def test_from_parquet_with_vectors(tmp_path: Path, kind: pa.DataType) -> None:
    lists = X.astype(np.float16)
    table = pa.table(
        {
            "id": ["a", "b", "c", "d"],
            "emb": pa.array(list(lists) if kind.value_type == pa.float16() else X.tolist(), kind),
            "y": [1, 2, 3, 4],
        }
    )
    pq.write_table(table, tmp_path / "table.parquet")
    store = Store.from_parquet(tmp_path / "table.parquet", stimulus="id")
    assert store.system == "table"
    assert store.sites == ["emb"]
    assert store["emb"].ids.tolist() == ["a", "b", "c", "d"]
    assert store["emb"].column("y").tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(store["emb"].torch().double().numpy(), np.array(table["emb"].to_pylist(), float))


def test_from_parquet_with_columns(tmp_path: Path) -> None:
    pd.DataFrame({"v1": X[:, 0], "v2": [1, 2, 3, 4], "word": list("abcd")}).to_parquet(tmp_path / "t.parquet")
    store = Store.from_parquet(tmp_path / "t.parquet", columns="v*", to=tmp_path / "out", system="subject1")
    np.testing.assert_array_equal(store["X"].numpy(), np.stack([X[:, 0], [1, 2, 3, 4]], 1))
    assert store["X"].unit_table["unit"].to_pylist() == ["v1", "v2"]
    assert store["X"].column("word").tolist() == list("abcd")
    assert open_store(tmp_path / "out").system == "subject1"


def test_from_parquet_refuses(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"emb": [[1.0, 2.0], [1.0]], "none": [[1.0], None], "word": ["a", "b"], "label": [0, 1]}), path)
    with pytest.raises(StimuliError, match="there is no column 'embed'; nearest: 'emb'"):
        Store.from_parquet(path, vector="embed")
    with pytest.raises(StimuliError, match="column 'emb' is ragged: row 0 has 2 numbers, row 1 has 1"):
        Store.from_parquet(path, vector="emb")
    with pytest.raises(StimuliError, match="column 'none' has 1 rows without a vector"):
        Store.from_parquet(path, vector="none")
    with pytest.raises(StimuliError, match="column 'word' is string; a vector column holds lists of numbers"):
        Store.from_parquet(path, vector="word")
    with pytest.raises(StimuliError, match="column 'word' is string; units are numeric columns"):
        Store.from_parquet(path, columns=["label", "word"])
    with pytest.raises(StimuliError, match="there is no column 'name'; nearest: "):
        Store.from_parquet(path, columns="label", stimulus="name")
    pq.write_table(pa.table({"label": [0, 1], "stimulus": ["a", "b"]}), path)
    with pytest.raises(StimuliError, match="has no column of number lists; name numeric columns with columns=: label, stimulus"):
        Store.from_parquet(path)
    with pytest.raises(StimuliError, match="has a column 'stimulus' already"):
        Store.from_parquet(path, columns="label", stimulus="label")


def test_saving_again_is_a_no_op_and_other_content_is_refused(tmp_path: Path) -> None:
    Store.from_arrays(X, to=tmp_path / "x")
    before = (tmp_path / "x" / "manifest.json").stat().st_mtime_ns
    assert Store.from_arrays(X, to=tmp_path / "x")["X"].shape == (4, 3)
    assert (tmp_path / "x" / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(StoreMismatchError, match="holds a store of another plan: content was"):
        Store.from_arrays(X + 1, to=tmp_path / "x")
