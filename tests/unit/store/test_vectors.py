"""Vectors that are there already: arrays in files, Parquet columns and FAISS indexes, each against what the library itself reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import inscape as ix
from inscape.errors import DegenerateInputError, InscapeWarning, StimuliError, StoreCorruptError, StoreMismatchError
from inscape.store import Store, array_rows
from inscape.store.array_rows import ArrayRows
from inscape.store.sources import TensorRows

X = np.random.default_rng(0).standard_normal((50, 6))


def rows_of(store: Store, site: str = "X") -> np.ndarray:
    """The rows of a site."""
    return store[site].numpy()


# ---------------------------------------------------------------- arrays in files


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "int16", "uint8", "bool"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_files_are_mapped_and_read_as_numpy_reads_them(tmp_path: Path, dtype: str, order: str) -> None:
    array = np.asarray(100 * abs(X)).astype(dtype, order=order)  # pyright: ignore[reportCallIssue, reportArgumentType]
    np.save(tmp_path / "x.npy", array)
    store = Store.from_arrays(tmp_path / "x.npy")
    assert isinstance(store["X"].source, ArrayRows)
    np.testing.assert_array_equal(rows_of(store), np.load(tmp_path / "x.npy").astype(float))
    np.testing.assert_array_equal(store["X"].select(rows=[7, 3, 7]).numpy(), array[[7, 3, 7]].astype(float))
    memory = Store.from_arrays(array.astype(array.dtype.newbyteorder("=")))
    assert isinstance(memory["X"].source, TensorRows)
    assert (store["X"].dtype, store.fingerprint()) == (memory["X"].dtype, memory.fingerprint())


def test_maps_of_the_user_stay_maps(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for given in (mapped, mapped[10:20], mapped[::2]):
        store = Store.from_arrays({"a": given}, list(map(str, range(len(given)))))
        assert isinstance(store["a"].source, ArrayRows)
        np.testing.assert_array_equal(rows_of(store, "a"), np.array(given))
    repeats = Store.from_arrays(mapped.reshape(10, 5, 6))
    np.testing.assert_array_equal(rows_of(repeats), X)
    assert repeats["X"].repeat.tolist() == 10 * list(range(5))
    saved = Store.from_arrays(mapped, to=tmp_path / "saved")
    np.testing.assert_array_equal(rows_of(saved), X)
    assert saved.verify() == []


@pytest.mark.parametrize("packed", [False, True])
def test_npz_archives_give_a_site_for_each_array(tmp_path: Path, packed: bool) -> None:
    arrays = {"a": X, "b": X[:, :2].astype(np.float32), "c": np.asfortranarray(X[:, 1:4])}
    (np.savez_compressed if packed else np.savez)(tmp_path / "x.npz", **arrays)
    store = Store.from_arrays(tmp_path / "x.npz")
    assert store.sites == ["a", "b", "c"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(rows_of(store, name), array)
        assert isinstance(store[name].source, TensorRows if packed else ArrayRows)
    np.savez(tmp_path / "one.npz", only=X)
    np.testing.assert_array_equal(rows_of(Store.from_arrays({"s": tmp_path / "one.npz"}), "s"), X)
    with pytest.raises(StoreMismatchError, match=r"x.npz holds 3 arrays \(a, b, c\); give it alone, not as one site"):
        Store.from_arrays({"s": tmp_path / "x.npz"})


def test_archives_with_pickles_or_damage_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.array([{"an": "object"}], object))
    (tmp_path / "y.npz").write_bytes(b"nothing")
    for name in ("x.npz", "y.npz"):
        with pytest.raises(DegenerateInputError, match=f"{name} is refused"):
            Store.from_arrays(tmp_path / name)["a"].torch()


def test_a_file_is_never_in_memory_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 40_000
    big = np.lib.format.open_memmap(tmp_path / "big.npy", "w+", np.float32, (rows, 512))  # 82 MB
    big[:] = np.arange(rows, dtype=np.float32)[:, None]
    big.flush()
    del big
    asked: list[int] = []
    read = ArrayRows.read
    monkeypatch.setattr(ArrayRows, "read", lambda self, start, stop: asked.append(stop - start) or read(self, start, stop))
    monkeypatch.setattr("inscape.store.growing.SHARD_BYTES", 4 * 2**20)
    monkeypatch.setattr(array_rows, "_HASHED", 8 * 2**20)
    store = Store.from_arrays(tmp_path / "big.npy", to=tmp_path / "out")
    assert max(asked) * 512 * 4 <= 8 * 2**20
    assert sum(asked) == 2 * rows  # once for the fingerprint, once for the shards
    assert len(store.manifest.shards) == 20
    np.testing.assert_array_equal(store["X"].select(rows=[0, 31_415, rows - 1]).numpy()[:, 0], [0, 31_415, rows - 1])


# ---------------------------------------------------------------- Parquet


def write_parts(folder: Path, dtype: Any) -> np.ndarray:
    """Two files with a list column; returns what is in them."""
    made: list[np.ndarray] = []
    folder.mkdir(parents=True, exist_ok=True)
    for part in (0, 2):
        values = np.random.default_rng(part).standard_normal((10 + part, 4)).astype(dtype.to_pandas_dtype())
        table = {
            "emb": pa.array(list(values), pa.list_(dtype)),
            "id": [f"p{part}r{i}" for i in range(len(values))],
            "part": [part] * len(values),
        }
        pq.write_table(pa.table(table), folder / f"{part}.parquet", row_group_size=4)
        made.append(values)
    return np.concatenate(made)


@pytest.mark.parametrize("dtype", [pa.float16(), pa.float32(), pa.float64()])
def test_several_files_follow_one_another(tmp_path: Path, dtype: Any) -> None:
    expected = write_parts(tmp_path / "all", dtype)
    ids = [f"p{part}r{i}" for part in (0, 2) for i in range(10 + part)]
    for path in (tmp_path / "all", str(tmp_path / "all" / "*.parquet"), [tmp_path / "all" / "0.parquet", tmp_path / "all" / "2.parquet"]):
        for to in (None, tmp_path / f"out-{type(path).__name__}"):
            store = Store.from_parquet(path, vector="emb", stimulus="id", to=to)
            np.testing.assert_array_equal(rows_of(store, "emb").astype(float), expected.astype(float))
            assert str(store["emb"].dtype) == f"torch.{np.dtype(dtype.to_pandas_dtype()).name}"
            assert store["emb"].ids.tolist() == ids
            assert store["emb"].column("part").tolist() == [int(name[1]) for name in ids]
            assert store.system == "all"
            assert store.verify() == []


def test_a_parquet_file_is_read_one_group_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((100, 3))
    columns = {f"v{i}": values[:, i] for i in range(3)}
    pq.write_table(pa.table({"emb": list(values), **columns}), tmp_path / "x.parquet", row_group_size=8)
    sizes: list[int] = []
    group = ix.store.parquet_vectors.ParquetFiles.group  # pyright: ignore[reportAttributeAccessIssue]

    def watched(self: Any, number: int, columns: Any) -> pa.Table:
        sizes.append(group(self, number, columns).num_rows)
        return group(self, number, columns)

    monkeypatch.setattr("inscape.store.parquet_vectors.ParquetFiles.group", watched)
    for options, site in (({"vector": "emb"}, "emb"), ({"columns": "v*"}, "X")):
        sizes.clear()
        store = Store.from_parquet(tmp_path / "x.parquet", to=tmp_path / site, **options)
        assert max(sizes) == 8 and len(sizes) <= 2 * 13 + 1
        np.testing.assert_array_equal(rows_of(store, site), values)
        memory = Store.from_parquet(tmp_path / "x.parquet", **options)
        assert memory.save(tmp_path / site).path == str(tmp_path / site)  # the same content, so nothing is written
    assert store["X"].unit_table["unit"].to_pylist() == ["v0", "v1", "v2"]


def test_whole_numbers_and_many_vectors(tmp_path: Path) -> None:
    table = pa.table({"a": [[1, 2], [3, 4]], "b": [[0.5], [1.5]], "label": ["x", "y"]})
    pq.write_table(table, tmp_path / "x.parquet")
    store = Store.from_parquet(tmp_path / "x.parquet", vector=["a", "b"])
    assert rows_of(store, "a").tolist() == [[1, 2], [3, 4]]
    assert rows_of(store, "b").tolist() == [[0.5], [1.5]]
    assert store["a"].column("label").tolist() == ["x", "y"]


def test_what_parquet_files_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(StimuliError, match=r"there is no Parquet file at .*none/\*.parquet'; give a file, a folder or a pattern"):
        Store.from_parquet(str(tmp_path / "none" / "*.parquet"))
    with pytest.raises(StimuliError, match="there are no Parquet files; give at least one"):
        Store.from_parquet([])
    with pytest.raises(StoreCorruptError, match="gone.parquet cannot be read as Parquet"):
        Store.from_parquet(tmp_path / "gone.parquet")
    pq.write_table(pa.table({"emb": [[1.0]], "y": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"emb": [[1.0, 2.0]], "y": [2]}), tmp_path / "b.parquet")
    with pytest.raises(StimuliError, match="column 'emb' is ragged: row 0 has 1 numbers, row 1 has 2"):
        Store.from_parquet(tmp_path)
    pq.write_table(pa.table({"emb": [[1.0]], "z": [2]}), tmp_path / "b.parquet")
    with pytest.raises(StimuliError, match=r"a.parquet lacks 'z', which other files have"):
        Store.from_parquet(tmp_path)
    pq.write_table(pa.table({"emb": [[1.0]], "y": ["text"]}), tmp_path / "b.parquet")
    with pytest.raises(StimuliError, match="the files have columns of one name that do not go together"):
        Store.from_parquet(tmp_path)
    pq.write_table(pa.table({"emb": [[1.0, None]], "y": [1]}), tmp_path / "c.parquet")
    with pytest.raises(StimuliError, match="column 'emb' has vectors with 1 numbers missing; fill them"):
        Store.from_parquet(tmp_path / "c.parquet")
    with pytest.raises(StimuliError, match="column 'y' is int64; a vector column holds lists of numbers; numeric columns are named with"):
        Store.from_parquet(tmp_path / "c.parquet", vector="y")
    with pytest.raises(StimuliError, match="units are numeric columns; a column of lists is named with vector="):
        Store.from_parquet(tmp_path / "c.parquet", columns="emb")
    pq.write_table(pa.table({"emb": pa.array([[]], pa.list_(pa.float32()))}), tmp_path / "d.parquet")
    with pytest.raises(DegenerateInputError, match="column 'emb' holds lists without a number"):
        Store.from_parquet(tmp_path / "d.parquet")


# ---------------------------------------------------------------- FAISS


def made(factory: str, vectors: np.ndarray, ids: np.ndarray | None = None) -> Any:
    """An index by FAISS's own description."""
    faiss = pytest.importorskip("faiss")
    index = faiss.index_factory(vectors.shape[1], factory)
    index.train(vectors)
    if ids is None:
        index.add(vectors)
    else:
        index.add_with_ids(vectors, ids)
    return index


V = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
EXACT = ["Flat", "IVF4,Flat", "HNSW8,Flat", "NSG8,Flat", "IVF4_HNSW4,Flat", "PQ4x4,RFlat"]
LOSSY = [
    "SQ8",
    "SQfp16",
    "PQ4x4",
    "IVF4,SQ8",
    "IVF4,PQ4x4",
    "HNSW8,SQ8",
    "PQ4x4fs",
    "IVF4,PQ4x4fs",
    "RR8,Flat",
    "OPQ4,PQ4x4",
    "L2norm,Flat",
]


@pytest.mark.parametrize("factory", EXACT)
def test_indexes_give_their_vectors_back(factory: str, tmp_path: Path) -> None:
    index = made(factory, V)
    store = Store.from_faiss(index)
    np.testing.assert_array_equal(rows_of(store), V)
    np.testing.assert_array_equal(store["X"].select(rows=[399, 0, 7]).numpy(), V[[399, 0, 7]])
    assert store.manifest.plan["vectors"] == "as added"
    assert store["X"].ids.tolist() == [str(i) for i in range(400)]
    if "IVF" in factory:
        with pytest.raises(RuntimeError, match="direct map not initialized"):
            index.reconstruct(0)  # the index is as it was
    assert store.fingerprint() == Store.from_arrays(V).fingerprint()
    assert Store.from_faiss(index, to=tmp_path / "s").verify() == []


@pytest.mark.parametrize("factory", LOSSY)
def test_codes_are_read_as_what_they_stand_for_and_said_to_be_lossy(factory: str) -> None:
    faiss = pytest.importorskip("faiss")
    index = made(factory, V)
    with pytest.warns(InscapeWarning, match=r"keeps codes and not the vectors themselves: the rows of this store are what the codes stand"):
        store = Store.from_faiss(index)
    inner = faiss.extract_index_ivf(index) if "IVF" in factory else None
    if inner is not None:
        inner.make_direct_map()
    expected = np.stack([index.reconstruct(i) for i in range(400)])
    np.testing.assert_allclose(rows_of(store), expected, rtol=0, atol=0 if "R8" not in factory and "OPQ" not in factory else 1e-5)
    assert store.manifest.plan["vectors"] == "lossy: reconstructed from codes"
    assert store.manifest.plan["index"].startswith(type(index).__name__)


@pytest.mark.parametrize("factory", ["IDMap,Flat", "IDMap2,Flat", "IVF4,Flat", "IDMap,HNSW8,Flat"])
def test_ids_of_the_index_are_those_of_the_stimuli(factory: str, tmp_path: Path) -> None:
    ids = np.random.default_rng(1).permutation(4000)[:400].astype(np.int64)
    store = Store.from_faiss(made(factory, V, ids))
    expected = {str(name): row for name, row in zip(ids, V, strict=True)}
    assert sorted(store["X"].ids.tolist()) == sorted(expected)
    np.testing.assert_array_equal(rows_of(store), np.stack([expected[name] for name in store["X"].ids]))


def test_indexes_on_disk_with_stimuli(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlatIP(8)
    index.add(V)
    faiss.write_index(index, str(tmp_path / "corpus.index"))
    table = {"stimulus": [f"s{i}" for i in range(400)], "label": [i % 3 for i in range(400)]}
    store = Store.from_faiss(tmp_path / "corpus.index", table, site="emb", to=tmp_path / "store")
    np.testing.assert_array_equal(rows_of(store, "emb"), V)
    assert store.system == "corpus"
    assert store["emb"].column("label").tolist() == table["label"]
    plan = ix.open(tmp_path / "store").manifest.plan
    assert {name: plan[name] for name in ("source", "index", "metric", "vectors")} == {
        "source": "faiss",
        "index": "IndexFlatIP",
        "metric": "inner product",
        "vectors": "as added",
    }
    with pytest.raises(StimuliError, match="there are 2 stimuli for 400 rows"):
        Store.from_faiss(index, ["a", "b"])


def test_what_is_no_index_of_vectors(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    with pytest.raises(StoreMismatchError, match=r"this index \(IndexPreTransform of IndexLSH\) cannot give its vectors back: reverse"):
        Store.from_faiss(made("ITQ8,LSH", V))
    with pytest.raises(StoreMismatchError, match="got IndexBinaryFlat; a binary index holds bits and no numbers"):
        Store.from_faiss(faiss.IndexBinaryFlat(16))
    with pytest.raises(StoreMismatchError, match="expected a FAISS index of vectors or the path of one, got ndarray"):
        Store.from_faiss(V)
    with pytest.raises(DegenerateInputError, match="the IndexFlatL2 of 8 units holds no vectors"):
        Store.from_faiss(faiss.IndexFlatL2(8))
    with pytest.raises(StoreMismatchError, match=re.escape(f"there is no file at '{tmp_path}/none.index'")):
        Store.from_faiss(tmp_path / "none.index")
    (tmp_path / "bad.index").write_bytes(b"nothing at all")
    with pytest.raises(StoreMismatchError, match=r"bad.index' cannot be read as a FAISS index"):
        Store.from_faiss(tmp_path / "bad.index")
