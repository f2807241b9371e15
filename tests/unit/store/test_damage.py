"""Damaged and unfinished stores: the error names the file, and nothing else is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from inscape.errors import StoreCorruptError, StoreIncompleteError, StoreMismatchError
from inscape.store import Store
from inscape.store import open as open_store

SHARD = "shards/h.0/2.safetensors"


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _header(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"F32"', b'"F16"'))


def _garbage(path: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)


@pytest.mark.parametrize("how", ["read", "gather"])
@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (_truncate, r"2.safetensors holds 164 bytes; the manifest says 168: it was truncated or replaced"),
        (Path.unlink, r"2.safetensors is missing; the other shards stay readable; restore the file from a copy"),
        (_header, r"2.safetensors declares .*'F16'.*; the manifest says float32 \[2, 5\]"),
        (_garbage, r"2.safetensors has no readable safetensors header"),
    ],
)
def test_a_damaged_shard_is_named_and_the_others_stay_readable(
    toy: SimpleNamespace, folder: Path, damage: Callable[[Path], None], text: str, how: str
) -> None:
    damage(folder / SHARD)
    store = open_store(folder)
    view, whole = store["h.0"], toy.expected("h.0")
    with pytest.raises(StoreCorruptError, match=text):
        view.torch() if how == "read" else view.gather([0, 3])
    assert torch.equal(view.read(0, 2), whole[:2])
    assert torch.equal(view.gather([5, 0]), whole[[5, 0]])
    for site in ("h.1|z:*", "h.0/tokens"):
        assert torch.equal(store[site].torch(), toy.expected(site))
    (problem,) = store.verify()
    assert SHARD in problem


@pytest.mark.parametrize("damage", [_truncate, Path.unlink])
def test_damage_while_the_store_is_open(folder: Path, damage: Callable[[Path], None]) -> None:
    view = open_store(folder)["h.0"]
    view.torch()  # now mapped: touching a map beyond the end of its file would kill the process
    damage(folder / SHARD)
    with pytest.raises(StoreCorruptError, match="2.safetensors"):
        view.torch()
    with pytest.raises(StoreCorruptError, match="2.safetensors"):
        view.gather([2, 3])


def test_an_altered_value_is_found_by_its_checksum(toy: SimpleNamespace, folder: Path) -> None:
    assert open_store(folder).verify() == []
    _flip(folder / SHARD)
    (problem,) = open_store(folder).verify()
    assert "2.safetensors was altered: its SHA-256 is" in problem
    view = open_store(folder, verify=True)["h.0"]
    with pytest.raises(StoreCorruptError, match=r"2.safetensors was altered: its SHA-256 is"):
        view.torch()
    assert torch.equal(view.read(0, 2), toy.expected("h.0")[:2])


def test_verify_lists_every_problem(folder: Path) -> None:
    _flip(folder / SHARD)
    (folder / "shards/h.0/tokens".replace("h.0/tokens", "h.0%2Ftokens") / "7.safetensors").unlink()
    _flip(folder / "rows/tokens/3.parquet")
    store = open_store(folder)
    problems = store.verify()
    assert len(problems) == 3
    assert [name for name in ("2.safetensors", "7.safetensors", "3.parquet") if sum(name in text for text in problems) == 1] == [
        "2.safetensors",
        "7.safetensors",
        "3.parquet",
    ]
    with pytest.raises(StoreCorruptError, match=r"tokens.3.parquet was altered"):
        _ = store["h.0/tokens"].stimulus
    assert store["h.0"].stimulus.tolist() == list(range(6))


def test_damaged_stimuli(folder: Path) -> None:
    _truncate(folder / "stimuli.parquet")
    with pytest.raises(StoreCorruptError, match=r"stimuli.parquet cannot be read as Parquet"):
        open_store(folder)
    (folder / "stimuli.parquet").unlink()
    with pytest.raises(StoreCorruptError, match=r"stimuli.parquet is missing"):
        open_store(folder)


def test_a_damaged_unit_table_spoils_nothing_else(tmp_path: Path) -> None:
    store = Store.from_arrays(torch.ones(2, 3), units={"roi": ["V1", "V2", "IT"]}, to=tmp_path / "x")
    assert store["X"].select(units=[2]).unit_table.to_pydict() == {"roi": ["IT"]}
    _flip(tmp_path / "x" / "units" / "X.parquet")
    store = open_store(tmp_path / "x")
    assert store["X"].select(units=[0, 1]).torch().tolist() == [[1, 1], [1, 1]]
    with pytest.raises(StoreCorruptError, match=r"X.parquet was altered"):
        store.units("X")
    (problem,) = store.verify()
    assert "X.parquet was altered" in problem


def test_swapped_stimuli(folder: Path, tmp_path: Path) -> None:
    Store.from_arrays(torch.zeros(6, 2), to=tmp_path / "other")
    (folder / "stimuli.parquet").write_bytes((tmp_path / "other" / "stimuli.parquet").read_bytes())
    with pytest.raises(StoreCorruptError, match=r"stimuli.parquet was altered: its content is not what the manifest says"):
        open_store(folder)


def test_damaged_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(StoreCorruptError, match=r"manifest.json is no readable manifest"):
        open_store(folder)
    content = json.loads(whole)
    del content["shards"]
    path.write_text(json.dumps(content))
    with pytest.raises(StoreCorruptError, match=r"manifest.json lacks or garbles a field \(KeyError\('shards'\)\)"):
        open_store(folder)
    content = json.loads(whole)
    del content["shards"][1]["files"][SHARD]
    path.write_text(json.dumps(content))
    with pytest.raises(StoreCorruptError, match=r"manifest.json lists no file of 'h.0' for shard 1"):
        open_store(folder)
    path.write_text(whole.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(StoreMismatchError, match=r"manifest.json has format_version 2; this inscape reads 1. Update inscape"):
        open_store(folder)


def test_no_store_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreCorruptError, match=r"toyy does not exist; stores beside it: 'toy'"):
        open_store(tmp_path / "toyy")
    with pytest.raises(StoreCorruptError, match="has no manifest.json, so it is no store"):
        open_store(folder / "rows")
    with pytest.raises(StoreMismatchError, match=r"'s4://bucket/x' cannot be opened .*; nearest kinds of address: 's3'"):
        open_store("s4://bucket/x")


def test_a_file_address_opens(toy: SimpleNamespace, tmp_path: Path) -> None:
    toy.write(tmp_path / "with space")
    assert open_store((tmp_path / "with space").as_uri()).sites == list(toy.sites)
    assert open_store(str(tmp_path / "with space")).system == "toy"


def test_an_incomplete_store_opens_but_is_read_only_on_request(toy: SimpleNamespace, tmp_path: Path) -> None:
    toy.write(tmp_path / "x", stop=2, finish=False)
    store = open_store(tmp_path / "x")
    assert not store.complete
    assert store["h.0"].shape == (4, 5)
    for read in (store["h.0"].torch, lambda: store["h.0"].gather([0]), lambda: list(store["h.0"].batches())):
        with pytest.raises(StoreIncompleteError, match=r"x is incomplete: 2 shards are finished. Run the capture again .*partial=True"):
            read()
    assert "incomplete" in repr(store)
    assert "incomplete" in store._repr_html_()
    assert store["h.0"]._repr_html_()
    assert "is incomplete: run the capture again" in store.verify()[0]
    with pytest.raises(StoreIncompleteError, match="resume it before saving"):
        store.save(tmp_path / "y")
    with pytest.raises(StoreIncompleteError, match="resume it before appending"):
        store.append(store)
    partial = open_store(tmp_path / "x", partial=True)
    assert not partial.complete
    assert torch.equal(partial["h.0"].torch(), toy.expected("h.0")[:4])
    toy.write(tmp_path / "z", stop=0, finish=False)
    assert open_store(tmp_path / "z", partial=True)["h.0"].torch().shape == (0, 5)
    assert open_store(tmp_path / "z", partial=True)["h.0/tokens"].stimulus.tolist() == []
