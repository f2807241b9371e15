"""Stores whose stimuli come with their shards, as those of a stream do."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from inscape.errors import StimuliError, StoreCorruptError, StoreMismatchError
from inscape.store import SiteSpec, Store, StoreWriter
from inscape.store import open as open_store


def grow(place: Path | str | None, toy: SimpleNamespace, *, stop: int = 3, finish: bool = True) -> Store | None:
    """The toy store, whose stimuli come with its shards."""
    table = pa.table(toy.stimuli)
    with StoreWriter.create_or_resume(place, toy.plan, None, toy.sites) as writer:
        for index in range(len(writer.done_shards), stop):
            writer.write_shard(index, *toy.shard(index), {"truncated": index}, table.slice(2 * index, 2))
        return writer.finish({"fidelity": 0.0}) if finish else None


@pytest.mark.parametrize("kind", ["disk", "memory", "remote"])
def test_stimuli_may_come_with_the_shards(toy: SimpleNamespace, tmp_path: Path, kind: str) -> None:
    store = grow({"disk": tmp_path / "grown", "memory": None, "remote": f"memory://{tmp_path.name}/grown"}[kind], toy)
    whole = toy.write(None)
    assert store.stimuli.to_pydict() == toy.stimuli
    assert store.fingerprint().split() and all(torch.equal(store[site].torch(), whole[site].torch()) for site in toy.sites)
    assert store["h.0"].column("label").tolist() == toy.stimuli["label"]
    assert store.verify() == []
    if kind == "disk":
        assert sorted(path.name for path in (tmp_path / "grown" / "stimuli").iterdir()) == ["0.parquet", "2.parquet", "4.parquet"]
        assert not (tmp_path / "grown" / "stimuli.parquet").exists()


def test_a_growing_store_resumes_and_is_checked(toy: SimpleNamespace, tmp_path: Path) -> None:
    grow(tmp_path / "whole", toy)
    for stop in (0, 1, 2, 3):
        grow(tmp_path / f"cut{stop}", toy, stop=stop, finish=False)
        (tmp_path / f"cut{stop}" / "stimuli").mkdir(exist_ok=True)
        (tmp_path / f"cut{stop}" / "stimuli" / "99.parquet").write_bytes(b"of a run that was killed")
        assert open_store(tmp_path / f"cut{stop}", partial=True).stimuli.num_rows == 2 * stop
        grow(tmp_path / f"cut{stop}", toy)
        assert toy.contents(tmp_path / f"cut{stop}") == toy.contents(tmp_path / "whole")
    damaged = tmp_path / "cut2"
    grow(damaged / "x", toy, stop=2, finish=False)
    (damaged / "x" / "shards" / "h.0" / "2.safetensors").unlink()
    grow(damaged / "x", toy)  # the second shard is made again, with its stimuli
    assert toy.contents(damaged / "x") == toy.contents(tmp_path / "whole")
    part = tmp_path / "whole" / "stimuli" / "2.parquet"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreCorruptError, match=r"stimuli/2.parquet was altered"):
        open_store(tmp_path / "whole")


def test_a_growing_store_may_be_appended_to_and_saved(toy: SimpleNamespace, tmp_path: Path) -> None:
    store = grow(tmp_path / "a", toy).select("h.0").save(tmp_path / "b")
    assert store.stimuli.to_pydict() == toy.stimuli
    more = {"stimulus": ["x"], "text": ["k"], "label": [2]}
    alone = Store.from_arrays({"h.0": np.ones((1, 5), np.float32)}, more)
    with StoreWriter.create_or_resume(tmp_path / "c", {}, None, {"h.0": SiteSpec("s", 5)}) as writer:
        rows = pa.table({"stimulus": [0, 1], "repeat": [0, 0], "position": [0, 0]})
        writer.write_shard(0, {"s": rows}, {"h.0": torch.zeros(2, 5)}, stimuli=pa.table(toy.stimuli).slice(0, 2))
        grown = writer.finish().append(alone)
    assert grown.stimuli["stimulus"].to_pylist() == ["s0", "s1", "x"]
    assert open_store(tmp_path / "c").verify() == []


def test_columns_of_growing_stimuli(tmp_path: Path) -> None:
    sites, rows = {"x": SiteSpec("s", 1)}, pa.table({"stimulus": [0], "repeat": [0], "position": [0]})

    def shard(writer: StoreWriter, index: int, **columns: list[object]) -> None:
        table = pa.table({"stimulus": [index], "repeat": [0], "position": [0]})
        writer.write_shard(index, {"s": table}, {"x": torch.zeros(1, 1)}, stimuli=pa.table(columns))

    with StoreWriter.create_or_resume(tmp_path / "a", {}, None, sites) as writer:
        shard(writer, 0, stimulus=["a"], note=[None], size=[1])
        shard(writer, 1, stimulus=["b"], note=["n"], size=[2.5], late=[7])
        shard(writer, 2, stimulus=["c"])
        with pytest.raises(StimuliError, match=r"a column of the stimuli from number 3 on has another type than before"):
            shard(writer, 3, stimulus=["d"], note=[4])
        with pytest.raises(StimuliError, match="the stimulus id 'b' comes back in a stream; stimuli that are read piece by piece need"):
            shard(writer, 3, stimulus=["b"])
        with pytest.raises(StoreMismatchError, match="shard 3 brings no stimuli, and the store was begun without a table of them"):
            writer.write_shard(3, {"s": rows}, {"x": torch.zeros(1, 1)})
        with pytest.raises(StoreMismatchError, match="points at stimulus 9; there are 4"):
            writer.write_shard(
                3,
                {"s": pa.table({"stimulus": [9], "repeat": [0], "position": [0]})},
                {"x": torch.zeros(1, 1)},
                stimuli=pa.table({"stimulus": ["d"]}),
            )
        shard(writer, 3, stimulus=["d"])
        store = writer.finish()
    expected = {"stimulus": list("abcd"), "note": [None, "n", None, None], "size": [1.0, 2.5, None, None], "late": [None, 7, None, None]}
    assert store.stimuli.to_pydict() == expected
    with pytest.raises(StimuliError, match="the stimulus id 'a' comes back"):
        with StoreWriter.create_or_resume(None, {}, None, sites) as writer:
            both = pa.table({"stimulus": [0, 1], "repeat": [0, 0], "position": [0, 0]})
            writer.write_shard(0, {"s": both}, {"x": torch.zeros(2, 1)}, stimuli=pa.table({"stimulus": ["a", "a"]}))
    with pytest.raises(StoreMismatchError, match="is written by one process; leave part= out"):
        StoreWriter.create_or_resume(tmp_path / "p", {}, None, sites, part=(1, 2), shards=4)
    with pytest.raises(StoreMismatchError, match="shard 0 brings stimuli, and the store was begun with a table of them"):
        with StoreWriter.create_or_resume(None, {}, ["a"], sites) as writer:
            writer.write_shard(0, {"s": rows}, {"x": torch.zeros(1, 1)}, stimuli=pa.table({"stimulus": ["b"]}))
