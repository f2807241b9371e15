"""Killed, resumed, mismatched and out of space: the store stays valid and ends with the same bytes."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from inscape.errors import StimuliError, StoreCorruptError, StoreIncompleteError, StoreMismatchError
from inscape.store import SiteSpec, Store, StoreWriter
from inscape.store import open as open_store

# A writer in a process of its own: 12 shards of two sites, byte for byte a function of the shard's number.
_WRITER = """
import sys, torch, pyarrow as pa
from inscape.store import SiteSpec, StoreWriter
print("ready", flush=True)
sites = {"a": SiteSpec("rows", 64, torch.float16), "b": SiteSpec("rows", 16)}
writer = StoreWriter.create_or_resume(sys.argv[1], {"model": "m"}, [str(i) for i in range(12)], sites)
for index in range(12):
    if index not in writer.done_shards:
        values = torch.randn(2000, 80, generator=torch.Generator().manual_seed(index))
        rows = pa.table({"stimulus": [index] * 2000, "repeat": list(range(2000)), "position": [0] * 2000})
        writer.write_shard(index, {"rows": rows}, {"a": values[:, :64].half(), "b": values[:, 64:]})
        print(index, flush=True)
writer.finish({"done": 1})
print("finished", flush=True)
"""


def _start(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_killed_at_any_time_it_resumes_to_the_same_bytes(toy: SimpleNamespace, tmp_path: Path) -> None:
    whole = _start(tmp_path / "whole")
    assert whole.stdout is not None
    began = 0.0
    for line in whole.stdout:
        began = time.perf_counter() if line.startswith("ready") else began
    a_shard = (time.perf_counter() - began) / 12
    whole.stdout.close()
    assert whole.wait() == 0
    reference = toy.contents(tmp_path / "whole")
    assert len(reference) == 2 + 12 * 3

    clock, interrupted = random.Random(0), 0
    for trial in range(4):
        path = tmp_path / f"killed{trial}"
        for _ in range(1 + trial % 2):  # killed once or twice, then left alone
            process = _start(path)
            assert process.stdout is not None
            for _ in range(1 + clock.randrange(5)):  # it says when it is ready, and when it has written a shard
                process.stdout.readline()
            time.sleep(clock.uniform(0.0, a_shard))
            interrupted += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            if (path / "manifest.json").exists():
                open_store(path, partial=True)["a"].torch()  # valid at every moment
        assert subprocess.run([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.DEVNULL, check=False).returncode == 0
        assert toy.contents(path) == reference
    assert interrupted >= 3


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_resumed_is_byte_equal(toy: SimpleNamespace, folder: Path, tmp_path: Path, stop: int) -> None:
    path = tmp_path / "resumed"
    toy.write(path, stop=stop, finish=False)
    assert not open_store(path).complete
    toy.write(path)
    assert toy.contents(path) == toy.contents(folder)


def test_every_prefix_of_the_writes_resumes_to_the_same_bytes(
    toy: SimpleNamespace, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies before each single rename in turn: the states between two files are all seen."""

    class Killed(BaseException):
        pass

    real, reference, left = os.replace, toy.contents(folder), 0

    def replace(source: Any, target: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        real(source, target)

    allowed = -1
    for allowed in range(40):
        path, left = tmp_path / f"prefix{allowed}", allowed
        monkeypatch.setattr(os, "replace", replace)
        try:
            toy.write(path)
            break
        except Killed:
            pass
        finally:
            monkeypatch.setattr(os, "replace", real)
        toy.write(path)
        assert toy.contents(path) == reference
    assert 20 <= allowed < 39  # 15 shard files, stimuli, and a manifest after each step


def test_leftovers_are_removed_and_foreign_files_are_not(toy: SimpleNamespace, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "left"
    toy.write(path, stop=1, finish=False)
    (path / "shards" / "h.0" / ".tmp-2.safetensors").write_bytes(b"half")
    (path / "shards" / "h.0" / "2.safetensors").write_bytes(b"orphan")
    (path / "rows" / "tokens" / "99.parquet").write_bytes(b"orphan")
    (path / "rows" / "tokens" / "mine.txt").write_bytes(b"kept")
    toy.write(path)
    found = toy.contents(path)
    assert found.pop("rows/tokens/mine.txt") == b"kept"
    assert found == toy.contents(folder)


def test_a_complete_store_is_left_alone(toy: SimpleNamespace, folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    writer = StoreWriter.create_or_resume(folder, toy.plan, toy.stimuli, toy.sites)
    assert writer.done_shards == {0, 1, 2}
    assert writer.complete
    with pytest.raises(StoreMismatchError, match="shard 3 cannot be written: the store is complete"):
        writer.write_shard(3, *toy.shard(2))
    writer.finish()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("stop", [1, 3])
def test_another_plan_is_refused_by_name(toy: SimpleNamespace, tmp_path: Path, stop: int) -> None:
    path = tmp_path / "x"
    toy.write(path, stop=stop, finish=stop == 3)
    before = toy.contents(path)
    plan = {**toy.plan, "model": {"name": "toy", "revision": "def"}, "batch_plan": {"shard": 4}}
    with pytest.raises(StoreMismatchError, match=r"model.revision was 'abc', now is 'def'; batch_plan.shard was 2, now is 4"):
        StoreWriter.create_or_resume(path, plan, toy.stimuli, toy.sites)
    with pytest.raises(StoreMismatchError, match="dtype was \\(absent\\), now is 'float16'"):
        StoreWriter.create_or_resume(path, {**toy.plan, "dtype": torch.float16}, toy.stimuli, toy.sites)
    with pytest.raises(StoreMismatchError, match=r"stimuli.sha256 was '\w+', now is '\w+'"):
        StoreWriter.create_or_resume(path, toy.plan, {**toy.stimuli, "label": [9] * 6}, toy.sites)
    with pytest.raises(StoreMismatchError, match=r"sites.h.0.d was 5, now is 6"):
        StoreWriter.create_or_resume(path, toy.plan, toy.stimuli, {**toy.sites, "h.0": SiteSpec("pooled", 6)})
    with pytest.raises(StoreMismatchError, match="sites \\(their order\\) was"):
        StoreWriter.create_or_resume(path, toy.plan, toy.stimuli, dict(reversed(toy.sites.items())))
    assert toy.contents(path) == before


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_is_no_place_for_a_folder(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreMismatchError, match="file is a file, and a store is a folder; choose another place for to="):
        Store.from_arrays({"a": np.zeros((2, 3))}, to=tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_with_other_files_is_refused(toy: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(StoreMismatchError, match=r"holds 1 files that belong to no store \(thesis.tex\); give an empty or a new folder"):
        toy.write(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_so_and_resumes(
    toy: SimpleNamespace, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    import inscape.store.files as files

    path, real, left = tmp_path / "full", files.write_block, 9

    def write_block(file: Any, part: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            real(file, bytes(part)[:3])
            raise OSError(code, os.strerror(code))
        real(file, part)

    monkeypatch.setattr(files, "write_block", write_block)
    with pytest.raises(StoreIncompleteError, match=r"the disk is full: .* could not be written .* run the same command again, it resumes"):
        toy.write(path)
    monkeypatch.setattr(files, "write_block", real)
    assert not [name for name in toy.contents(path) if ".tmp-" in name]
    assert not open_store(path).complete
    toy.write(path)
    assert toy.contents(path) == toy.contents(folder)


def test_a_full_disk_at_every_write(toy: SimpleNamespace, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import inscape.store.files as files

    real, reference, left = files.write_block, toy.contents(folder), 0

    def write_block(file: Any, part: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, part)

    allowed = -1
    for allowed in range(60):
        path, left = tmp_path / f"full{allowed}", allowed
        monkeypatch.setattr(files, "write_block", write_block)
        try:
            toy.write(path)
            break
        except StoreIncompleteError:
            pass
        finally:
            monkeypatch.setattr(files, "write_block", real)
        toy.write(path)
        assert toy.contents(path) == reference
    assert 20 <= allowed < 59


def test_other_write_errors_pass_through(toy: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import inscape.store.files as files

    def write_block(file: Any, part: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "write_block", write_block)
    with pytest.raises(OSError, match="Input/output error"):
        toy.write(tmp_path / "x")


def test_two_writers_cannot_share_a_folder(toy: SimpleNamespace, tmp_path: Path) -> None:
    with StoreWriter.create_or_resume(tmp_path / "x", toy.plan, toy.stimuli, toy.sites):
        with pytest.raises(StoreIncompleteError, match="another process is writing .*; wait for it, or give another folder"):
            toy.write(tmp_path / "x")
    toy.write(tmp_path / "x")


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_what_does_not_fit_is_refused(toy: SimpleNamespace, tmp_path: Path, where: str) -> None:
    writer = StoreWriter.create_or_resume(tmp_path / "x" if where == "disk" else None, toy.plan, toy.stimuli, toy.sites)
    rows, values = toy.shard(0)
    with pytest.raises(StoreMismatchError, match="shard 1 cannot be written: shard 0 is the next one; shards are written in order"):
        writer.write_shard(1, rows, values)
    with pytest.raises(StoreMismatchError, match=r"shard 0 has the sites \['h.0'\]; the store has"):
        writer.write_shard(0, rows, {"h.0": values["h.0"]})
    with pytest.raises(StoreMismatchError, match=r"site 'h.0' of shard 0 is torch.float64 \[2, 5\]; expected torch.float32 \[2, 5\]"):
        writer.write_shard(0, rows, {**values, "h.0": values["h.0"].double()})
    with pytest.raises(StoreMismatchError, match="the index of row set 'pooled' needs a full column 'repeat'; it has stimulus"):
        writer.write_shard(0, {**rows, "pooled": pa.table({"stimulus": [0, 1]})}, values)
    with pytest.raises(StoreMismatchError, match="row set 'pooled' of shard 0 points at stimulus 6; there are 6"):
        writer.write_shard(0, {**rows, "pooled": rows["pooled"].set_column(0, "stimulus", pa.array([5, 6]))}, values)
    assert writer.done_shards == set()
    with pytest.raises(StimuliError, match=r"1 stimulus ids occur more than once \('a'\)"):
        StoreWriter.create_or_resume(None, {}, ["a", "b", "a"], toy.sites)
    writer.close()


def test_notes_are_kept_before_their_shard(toy: SimpleNamespace, tmp_path: Path) -> None:
    writer = StoreWriter.create_or_resume(tmp_path / "x", toy.plan, toy.stimuli, toy.sites)
    writer.record(halvings=[[0, 16]])
    writer.close()
    again = StoreWriter.create_or_resume(tmp_path / "x", toy.plan, toy.stimuli, toy.sites)
    assert again.notes == {"halvings": [[0, 16]]}
    again.close()
    with pytest.raises(TypeError, match="a manifest cannot hold <object object"):
        StoreWriter.create_or_resume(None, {"model": object()}, ["a"], toy.sites)


def test_a_lost_shard_of_an_unfinished_store_is_written_again(toy: SimpleNamespace, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "x"
    toy.write(path, finish=False)
    (path / "shards" / "h.0" / "2.safetensors").unlink()
    writer = StoreWriter.create_or_resume(path, toy.plan, toy.stimuli, toy.sites)
    assert writer.done_shards == {0}
    writer.close()
    toy.write(path)
    assert toy.contents(path) == toy.contents(folder)
    (path / "shards" / "h.0" / "2.safetensors").unlink()
    with pytest.raises(StoreCorruptError, match=r"2.safetensors is missing"):
        toy.write(path)


def test_memory_writer_copies(toy: SimpleNamespace) -> None:
    writer = StoreWriter.create_or_resume(None, {}, ["a"], {"h": SiteSpec("pooled", 2)})
    buffer = torch.ones(1, 2)
    writer.write_shard(0, {"pooled": pa.table({"stimulus": [0], "repeat": [0], "position": [0]})}, {"h": buffer})
    buffer.zero_()
    assert writer.finish()["h"].torch().tolist() == [[1.0, 1.0]]
