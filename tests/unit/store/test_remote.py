"""Stores behind an address: the same bytes as in a folder, read by ranges, resumed after any interruption."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

import inscape as ix
from inscape.errors import MissingExtraError, StoreCorruptError, StoreMismatchError
from inscape.store import SiteSpec, Store, StoreWriter, remote, remote_rows
from inscape.store import open as open_store

ROOT = "memory://bucket/toy"


class Piecemeal(MemoryFileSystem):
    """A file system on which a file grows under its name while it is sent, as on a disk."""

    protocol = "piecemeal"
    store: dict[str, Any] = {}
    pseudo_dirs = [""]


@pytest.fixture(autouse=True)
def clean():
    """Both file systems of this process, empty."""
    fsspec.register_implementation("piecemeal", Piecemeal, clobber=True)
    yield
    for files in (MemoryFileSystem, Piecemeal):
        files.store.clear()
        files.pseudo_dirs[:] = [""]


def there(address: str) -> dict[str, bytes]:
    """Every file behind an address with its bytes, by fsspec alone."""
    files, root = fsspec.core.url_to_fs(address)
    return {name.removeprefix(root).lstrip("/"): files.cat_file(name) for name in files.find(root)}


def alter(name: str, change: Any) -> None:
    """Changes the bytes of a file behind the address."""
    files, root = fsspec.core.url_to_fs(ROOT)
    data = change(files.cat_file(f"{root}/{name}"))
    if data is None:
        files.rm_file(f"{root}/{name}")
    else:
        files.pipe_file(f"{root}/{name}", data)


@pytest.mark.parametrize("address", [ROOT, "piecemeal://bucket/toy"])
def test_the_files_are_those_of_a_folder(toy: SimpleNamespace, tmp_path: Path, address: str) -> None:
    toy.write(tmp_path / "toy")
    store = toy.write(address)
    assert there(address) == toy.contents(tmp_path / "toy")
    assert store.path == address
    assert store.fingerprint() == open_store(tmp_path / "toy").fingerprint()
    assert store.verify() == []


def test_rows_are_read_as_from_a_folder(toy: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_rows, "BLOCK_BYTES", 16)  # rows of 20, 6 and 8 bytes: one row, or two, in a block
    monkeypatch.setattr(remote_rows, "REQUESTED_BYTES", 40)
    toy.write(ROOT)
    store = open_store(ROOT)
    local = toy.write(tmp_path / "toy")
    rng = np.random.default_rng(0)
    for site in toy.sites:
        view = store[site]
        assert torch.equal(view.torch(), toy.expected(site))
        rows = rng.integers(0, view.n, 25)
        assert torch.equal(view.select(rows=rows).torch(), toy.expected(site)[rows])
        assert torch.equal(view.read(1, 3), toy.expected(site)[1:3])
        assert view.read(2, 2).shape == (0, view.d)
        assert view.index.table.equals(local[site].index.table)
    assert store.stimuli.equals(local.stimuli)
    assert torch.equal(store.select(where={"label": 1})["h.0"].torch(), toy.expected("h.0")[1::2])


def wide(address: str | Path, rows: int = 5000) -> torch.Tensor:
    """A store with one shard of 64 kB rows."""
    values = torch.arange(rows * 16, dtype=torch.float32).reshape(rows, 16)
    with StoreWriter.create_or_resume(address, {}, [str(i) for i in range(rows)], {"x": SiteSpec("s", 16)}) as writer:
        import pyarrow as pa

        zero = np.zeros(rows, np.int32)
        writer.write_shard(0, {"s": pa.table({"stimulus": np.arange(rows), "repeat": zero, "position": zero})}, {"x": values})
        writer.finish()
    return values


def test_only_the_blocks_that_are_asked_for_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_rows, "BLOCK_BYTES", 640)  # ten rows
    values = wide(ROOT)
    asked: list[int] = []
    ranges = MemoryFileSystem.cat_ranges
    monkeypatch.setattr(
        MemoryFileSystem,
        "cat_ranges",
        lambda self, paths, starts, ends, **k: asked.append(len(paths)) or ranges(self, paths, starts, ends, **k),
    )
    view = open_store(ROOT)["x"]
    assert torch.equal(view.select(rows=[4000, 17, 4001, 17]).torch(), values[[4000, 17, 4001, 17]])
    blocks = view.source.blocks if hasattr(view.source, "blocks") else view.source.inner.blocks
    assert asked == [2]
    assert blocks.fetched == 2 * 640
    view.select(rows=[4009, 10]).torch()
    assert asked == [2] and blocks.fetched == 2 * 640  # both blocks were kept
    assert torch.equal(view.torch(), values)
    assert blocks.fetched == values.numel() * 4


def test_blocks_beyond_the_limit_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_rows, "BLOCK_BYTES", 640)
    values = wide(ROOT)
    view = open_store(ROOT)["x"]
    blocks = view.source.blocks
    blocks.limit = 2000
    assert torch.equal(view.torch(), values)
    assert sum(block.nbytes for block in blocks._kept.values()) <= 2000


def test_an_unfinished_store_resumes_and_ends_with_the_same_bytes(toy: SimpleNamespace, tmp_path: Path) -> None:
    toy.write(tmp_path / "toy")
    expected = toy.contents(tmp_path / "toy")
    toy.write(ROOT, stop=1, finish=False)
    assert "incomplete" in repr(open_store(ROOT))
    files, root = fsspec.core.url_to_fs(ROOT)
    before = files.modified(f"{root}/shards/h.0/0.safetensors")
    files.pipe_file(f"{root}/shards/h.0/2.safetensors", b"half a shard")
    files.pipe_file(f"{root}/shards/h.0/4.safetensors", b"of a run that was killed")
    with StoreWriter.create_or_resume(ROOT, toy.plan, toy.stimuli, toy.sites) as writer:
        assert writer.done_shards == {0}
        assert "shards/h.0/4.safetensors" not in there(ROOT)
        for index in (1, 2):
            writer.write_shard(index, *toy.shard(index), {"truncated": index})
        writer.finish({"fidelity": 0.0})
    assert there(ROOT) == expected
    assert files.modified(f"{root}/shards/h.0/0.safetensors") == before


def test_a_run_that_ends_at_any_file_resumes(toy: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.write(tmp_path / "toy")
    expected = toy.contents(tmp_path / "toy")
    put, sent = remote.RemotePath.put, [0, 0]

    def failing(self: remote.RemotePath, local: Path) -> None:
        sent[0] += 1
        if sent[0] == sent[1]:
            raise ConnectionError("the line is dead")
        put(self, local)

    monkeypatch.setattr(remote.RemotePath, "put", failing)
    for end in range(1, 17):
        MemoryFileSystem.store.clear()
        sent[:] = [0, end]
        with pytest.raises(ConnectionError):
            toy.write(ROOT)
        sent[:] = [0, -1]
        toy.write(ROOT)
        assert there(ROOT) == expected, end


def test_where_files_grow_under_their_name_they_get_it_last(toy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def half(self: Piecemeal, local: str, path: str, **_: Any) -> None:
        sent.append(path)
        self.pipe_file(path, Path(local).read_bytes()[:5])
        raise ConnectionError("the line is dead")

    toy.write("piecemeal://a/toy", stop=1, finish=False)
    before = there("piecemeal://a/toy")
    monkeypatch.setattr(Piecemeal, "put_file", half)
    with pytest.raises(ConnectionError):
        toy.write("piecemeal://a/toy")
    assert sent[0].endswith("rows/pooled/.tmp-2.parquet")
    left = there("piecemeal://a/toy")
    assert {name: left[name] for name in before} == before
    monkeypatch.undo()
    assert toy.write("piecemeal://a/toy").verify() == []
    assert not [name for name in there("piecemeal://a/toy") if ".tmp-" in name]


def test_damage_is_named(toy: SimpleNamespace) -> None:
    toy.write(ROOT)
    name = "shards/h.0/2.safetensors"
    alter(name, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    (problem,) = open_store(ROOT).verify()
    assert problem.startswith(f"{ROOT}/{name} was altered: its SHA-256 is ")
    with pytest.raises(StoreCorruptError, match=re.escape(f"{ROOT}/{name} was altered")):
        open_store(ROOT, verify=True)["h.0"].torch()
    alter(name, lambda data: data[:-8])
    with pytest.raises(StoreCorruptError, match=r"2.safetensors holds \d+ bytes; the manifest says \d+: it was truncated or replaced"):
        open_store(ROOT)["h.0"].torch()
    assert torch.equal(open_store(ROOT)["h.0"].read(0, 2), toy.expected("h.0")[:2])  # the other shards stay readable
    alter(name, lambda data: None)
    with pytest.raises(StoreCorruptError, match=r"2.safetensors is missing"):
        open_store(ROOT)["h.0"].torch()
    with pytest.raises(StoreCorruptError, match=r"2.safetensors is missing"):
        toy.write(ROOT)


def test_a_file_that_shrinks_after_the_store_was_opened(toy: SimpleNamespace) -> None:
    toy.write(ROOT)
    view = open_store(ROOT)["h.0"]
    view.read(0, 1)
    view.source.blocks._kept.clear()
    alter("shards/h.0/0.safetensors", lambda data: data[:-4])
    with pytest.raises(StoreCorruptError, match=r"0.safetensors gave \d+ of \d+ bytes: it was truncated or replaced"):
        view.read(0, 2)


def test_addresses_that_cannot_be_opened() -> None:
    with pytest.raises(StoreCorruptError, match=r"memory://bucket/toyy does not exist; stores beside it: 'toy'"):
        wide(ROOT, 3)
        open_store("memory://bucket/toyy")
    fsspec.register_implementation("needy", "no_such_package.Files", errtxt="Install no_such_package to reach needy", clobber=True)
    with pytest.raises(MissingExtraError, match=r"'needy://x' needs a package that is not installed: Install no_such_package to reach"):
        open_store("needy://x")
    with pytest.raises(StoreMismatchError, match=r"'memry://x' cannot be opened \(Protocol not known: memry\).* 'memory'"):
        ix.capture(torch.nn.Sequential(torch.nn.Linear(2, 2)), torch.zeros(2, 2), "0", to="memry://x")


def test_an_address_in_a_path_is_refused() -> None:
    with pytest.raises(StoreMismatchError, match="'memory:/bucket/x' is the address memory://bucket/x as a Path, which cannot hold one"):
        open_store(Path("memory://bucket/x"))
    with pytest.raises(StoreCorruptError, match="odd:/x does not exist"):
        open_store(Path("odd:/x"))


def test_folders_that_hold_something_else(toy: SimpleNamespace) -> None:
    fsspec.core.url_to_fs(ROOT)[0].pipe_file("/bucket/toy/notes.txt", b"mine")
    with pytest.raises(StoreMismatchError, match=r"memory://bucket/toy holds 1 files that belong to no store \(notes.txt\)"):
        toy.write(ROOT)
    toy.write("memory://bucket/other")
    with pytest.raises(StoreMismatchError, match="holds a store of another plan: model.revision was 'abc', now is 'abd'"):
        toy.write("memory://bucket/other", plan={**toy.plan, "model": {"name": "toy", "revision": "abd"}})
    with pytest.raises(
        StoreMismatchError, match="part=1/2 needs a local folder, which processes can lock; memory://bucket/p is an address"
    ):
        StoreWriter.create_or_resume("memory://bucket/p", toy.plan, toy.stimuli, toy.sites, part=(1, 2), shards=3)


def test_a_store_grows_as_in_a_folder(toy: SimpleNamespace, tmp_path: Path) -> None:
    arrays = {"x": np.arange(12.0).reshape(4, 3)}
    more = {"x": np.arange(6.0).reshape(2, 3)}
    for place in (tmp_path / "grown", "memory://bucket/grown"):
        Store.from_arrays(arrays, list("abcd"), to=place, system="s").append(more, list("ef"))
    assert there("memory://bucket/grown") == toy.contents(tmp_path / "grown")
    grown = open_store("memory://bucket/grown")
    np.testing.assert_array_equal(grown["x"].numpy(), np.concatenate([arrays["x"], more["x"]]))
    assert grown.verify() == []


def test_captures_write_and_open_addresses(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    x = torch.randn(20, 4)
    options: dict[str, Any] = {"sites": ["0", "2"], "shard_stimuli": 8, "progress": False}
    ix.capture(module, x, to=tmp_path / "a", **options)
    store = ix.capture(module, x, to="memory://runs/a", **options)
    with torch.no_grad():
        torch.testing.assert_close(store["2"].torch(), module(x), rtol=0, atol=1e-6)
    local = {path.relative_to(tmp_path / "a").as_posix(): path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert there("memory://runs/a") == local
    again = ix.capture(module, x, to="memory://runs/a", **options)
    assert again.complete
    measured = [ix.measure(place, ["effective_rank"]).frame()["value"].tolist() for place in ("memory://runs/a", tmp_path / "a")]
    assert measured[0] == measured[1]
    address = (tmp_path / "with space").as_uri()
    ix.capture(module, x, to=address, **options)
    assert (tmp_path / "with space" / "manifest.json").is_file()
    assert torch.equal(ix.open(address)["2"].torch(), store["2"].torch())


def test_the_command_line_takes_addresses(toy: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    from inscape.cli import main

    toy.write(ROOT)
    assert main(["verify", ROOT]) == 0
    alter("shards/h.0/2.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    assert main(["verify", ROOT]) != 0
    assert "2.safetensors was altered" in "".join(capsys.readouterr())


def test_nothing_stays_behind_here(toy: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    toy.write(ROOT)
    Store.from_arrays({"x": np.eye(3)}, to="memory://bucket/e").append({"x": np.eye(3)}, list("abc"))
    assert list(tmp_path.iterdir()) == []
    writer = StoreWriter.create_or_resume("memory://bucket/n", toy.plan, toy.stimuli, toy.sites)
    writer.close()
    with pytest.raises(StoreMismatchError, match="the writer of memory://bucket/n is closed"):
        writer.write_shard(0, *toy.shard(0))
