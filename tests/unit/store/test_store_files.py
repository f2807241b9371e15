"""The format: what other libraries read in our files, and what our reader gives back."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import inscape.store.shards as shards
from inscape.errors import StoreMismatchError
from inscape.store import SiteSpec, Store, StoreWriter
from inscape.store import open as open_store
from inscape.store.files import parquet_bytes, safe_name
from inscape.store.tables import content_hash, stimulus_table


def test_safetensors_reads_every_shard_and_data_are_aligned(toy: SimpleNamespace, folder: Path) -> None:
    files = sorted((folder / "shards").rglob("*.safetensors"))
    assert len(files) == 9
    for file in files:
        raw = file.read_bytes()
        assert (8 + int.from_bytes(raw[:8], "little")) % 64 == 0
    for site in toy.sites:
        first = 0
        for index in range(3):
            ours = toy.shard(index)[1][site]
            (tensor,) = load_file(folder / "shards" / safe_name(site) / f"{first}.safetensors").values()
            assert tensor.dtype == ours.dtype
            assert torch.equal(tensor, ours)
            first += len(ours)
    with safe_open(folder / "shards" / "h.0" / "0.safetensors", "pt") as file:
        assert list(file.keys()) == ["h.0"]


def test_pyarrow_reads_stimuli_and_index(folder: Path) -> None:
    assert pq.read_table(folder / "stimuli.parquet")["text"].to_pylist()[2] == "d e f"
    names = sorted(path.name for path in (folder / "rows" / "tokens").iterdir())
    assert names == ["0.parquet", "3.parquet", "7.parquet"]
    table = pq.read_table(folder / "rows" / "tokens" / "3.parquet")
    assert table.column_names == ["stimulus", "repeat", "position", "token_id"]
    assert table["stimulus"].to_pylist() == [2, 2, 2, 3]
    assert table["token_id"].to_pylist() == [20, 21, 22, 30]


def test_manifest_says_what_is_there(folder: Path) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    assert content["format_version"] == 1
    assert content["complete"] is True
    assert content["plan"]["model"] == {"name": "toy", "revision": "abc"}
    assert content["sites"]["h.1|z:*"] == {"row_set": "pooled", "d": 3, "dtype": "bfloat16", "kind": "stimulus"}
    assert [entry["rows"]["tokens"] for entry in content["shards"]] == [[0, 3], [3, 7], [7, 10]]
    assert [entry["notes"]["truncated"] for entry in content["shards"]] == [0, 1, 2]
    assert content["notes"] == {"fidelity": 0.0}
    for name, facts in content["shards"][1]["files"].items():
        assert (folder / name).stat().st_size == facts["bytes"]
    manifest = open_store(folder).manifest
    assert (manifest.model["name"], manifest.tokens["rule"], manifest.batch_plan) == ("toy", "all", {"shard": 2})
    assert manifest.rows("tokens") == 10


@pytest.mark.parametrize("site", ["h.0", "h.1|z:*", "h.0/tokens"])
def test_reading_equals_torch(toy: SimpleNamespace, store: Store, site: str) -> None:
    whole = toy.expected(site)
    view = store[site]
    assert view.shape == tuple(whole.shape)
    assert view.dtype == whole.dtype
    assert torch.equal(view.torch(), whole)
    assert torch.equal(torch.cat(list(view.batches(4))), whole)
    for start in range(len(whole) + 1):
        for stop in range(start, len(whole) + 1):
            assert torch.equal(view.read(start, stop), whole[start:stop])
    assert torch.equal(view.read(-2), whole[-2:])
    assert len(view.read(4, 2)) == 0
    rows = np.random.default_rng(0).integers(-len(whole), len(whole), 40)
    assert torch.equal(view.gather(rows), whole[torch.from_numpy(rows % len(whole))])
    assert torch.equal(view.gather([1, 0, 1]), whole[[1, 0, 1]])
    assert view.gather([]).shape == (0, whole.shape[1])
    np.testing.assert_array_equal(view.numpy(), whole.float().numpy() if whole.dtype == torch.bfloat16 else whole.numpy())


def test_what_is_read_is_a_copy(toy: SimpleNamespace, store: Store) -> None:
    view = store["h.0"]
    for read in (view.torch, lambda: view.read(0, 2), lambda: view.gather([0, 1])):
        read().zero_()
    assert torch.equal(view.torch(), toy.expected("h.0"))


def test_maps_are_dropped_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.arange(4096.0).reshape(64, 64)
    monkeypatch.setattr("inscape.store.growing.SHARD_BYTES", 2048)
    store = Store.from_arrays(values, to=tmp_path / "x")
    view = store["X"]
    assert len(store.manifest.shards) == 8
    view.source.maps = maps = shards.Maps(values.nbytes, limit=5000)  # type: ignore[attr-defined]
    rows = np.random.default_rng(0).permutation(64)
    for _ in range(2):
        assert torch.equal(view.gather(rows), values[torch.from_numpy(rows)])
        assert torch.equal(view.torch(), values)
    assert len(maps._open) == 2
    assert maps.frugal


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_every_dtype_and_not_a_number_survive(tmp_path: Path, dtype: str) -> None:
    values = torch.tensor([[1.5, float("nan")], [float("inf"), -0.0]]).to(getattr(torch, dtype))
    store = Store.from_arrays(values, to=tmp_path / "x")
    read = store["X"].torch()
    assert read.dtype == values.dtype
    assert read.view(torch.uint8).equal(values.view(torch.uint8))
    (theirs,) = load_file(next((tmp_path / "x" / "shards").rglob("*.safetensors"))).values()
    assert theirs.view(torch.uint8).equal(values.view(torch.uint8))


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(StoreMismatchError, match=r"a store holds float16, bfloat16, float32, float64; got torch.int64"):
        SiteSpec("pooled", 3, torch.int64)


def test_equal_runs_give_equal_bytes(toy: SimpleNamespace, tmp_path: Path) -> None:
    toy.write(tmp_path / "a")
    toy.write(tmp_path / "b")
    assert toy.contents(tmp_path / "a") == toy.contents(tmp_path / "b")


def test_parquet_bytes_ignore_chunks_and_metadata() -> None:
    import pyarrow as pa

    table = pa.table({"x": list(range(100)), "t": [str(i) for i in range(100)]})
    chunked = pa.concat_tables([table.slice(0, 33), table.slice(33)]).replace_schema_metadata({"who": "someone"})
    assert parquet_bytes(table) == parquet_bytes(chunked)
    assert content_hash(table) == content_hash(chunked)
    assert content_hash(table) != content_hash(table.slice(0, 99))
    assert content_hash(pa.table({"x": ["ab", "c"]})) != content_hash(pa.table({"x": ["a", "bc"]}))
    assert content_hash(pa.table({"x": [None, ""]})) != content_hash(pa.table({"x": ["", None]}))


def test_content_hash_does_not_depend_on_who_made_the_table() -> None:
    import pandas as pd
    import pyarrow as pa

    columns = {"stimulus": ["a", "b"], "x": [1, 2], "y": [0.5, None]}
    made = [stimulus_table(columns), stimulus_table(pd.DataFrame(columns)), stimulus_table(pa.table(columns))]
    assert len({table.schema.field("stimulus").type for table in made}) == 1
    assert content_hash(made[0]) == content_hash(made[2])


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("blocks.6.resid_post", "blocks.6.resid_post"),
        ("h.6:in|entropy", "h.6%3Ain%7Centropy"),
        ("a/b*", "a%2Fb%2A"),
        ("..", "%2E%2E"),
        ("ü", "%C3%BC"),
    ],
)
def test_site_folders_are_portable(name: str, encoded: str) -> None:
    assert safe_name(name) == encoded


def test_long_names_stay_apart() -> None:
    names = {safe_name("x" * 300 + tail) for tail in "ab"}
    assert len(names) == 2
    assert max(map(len, names)) <= 200


def test_row_sets_without_rows_in_a_shard(tmp_path: Path) -> None:
    import pyarrow as pa

    empty = pa.table({name: pa.array([], pa.int64()) for name in ("stimulus", "repeat", "position")})
    one = pa.table({"stimulus": [1], "repeat": [0], "position": [0]})
    with StoreWriter.create_or_resume(tmp_path / "x", {}, ["a", "b"], {"h": SiteSpec("tokens", 2, kind="token")}) as writer:
        writer.write_shard(0, {"tokens": empty}, {"h": torch.zeros(0, 2)})
        writer.write_shard(1, {"tokens": one}, {"h": torch.ones(1, 2)})
        store = writer.finish()
    assert store["h"].torch().tolist() == [[1.0, 1.0]]
    assert store["h"].ids.tolist() == ["b"]
    assert store.verify() == []
