"""SIGKILL at seeded moments of a capture that reads a stream; every resumed store equals an uninterrupted one byte for byte.

This file is also the program that the test starts: it imports torch once and forks a child for every run.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

KILLS = 8
PIECES = 10
SIZE = 10


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _rows() -> Iterator[dict[str, Any]]:
    """The stream: endless, and the same each time."""
    rng = random.Random(1)
    number = 0
    while True:
        yield {"array": [rng.random() for _ in range(8)], "parity": number % 2, "id": f"s{number}"}
        number += 1


def _capture(folder: Path, flags: mmap.mmap) -> None:
    """One capture in this process; flags[0] is 1 during a write, flags[1] counts the shards, flags[2] says that the run has begun."""
    import torch

    import inscape as ix
    from inscape.store.writer import StoreWriter

    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 16))
    write = StoreWriter.write_shard

    def watched(self: StoreWriter, index: int, *args: object, **kwargs: object) -> None:
        flags[2] = 1
        flags[0] = 1
        write(self, index, *args, **kwargs)  # pyright: ignore[reportArgumentType]
        flags[0] = 0
        flags[1] = index + 1

    StoreWriter.write_shard = watched  # pyright: ignore[reportAttributeAccessIssue]
    ix.capture(module, _rows, sites=["0", "2"], to=folder, shard_stimuli=SIZE, limit=PIECES * SIZE - 3, progress=False)


def _fork(folder: Path, flags: mmap.mmap) -> int:
    flags[0:3] = b"\0\0\0"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _capture(folder, flags)
            code = 0
        finally:
            os._exit(code)
    return child


def _finish(folder: Path, flags: mmap.mmap) -> None:
    """Runs to the end."""
    _, status = os.waitpid(_fork(folder, flags), 0)
    if status != 0:
        raise SystemExit(f"a run that nobody killed ended with status {status}")


def _program(root: Path) -> None:
    import torch

    import inscape as ix
    import inscape.capturing
    import inscape.store

    assert torch is not None and ix is not None
    flags = mmap.mmap(-1, 3)
    for name in ("reference", "again"):
        _finish(root / name, flags)
    expected = contents(root / "reference")
    report: dict[str, Any] = {"files": sorted(expected), "repeatable": contents(root / "again") == expected, "kills": []}
    rng = random.Random(0)
    for attempt in range(4 * KILLS):
        if len(report["kills"]) == KILLS:
            break
        folder = root / f"run{attempt}"
        shard, inside = rng.randrange(PIECES - 2), attempt % 4 != 3
        child = _fork(folder, flags)
        while flags[1] < shard or flags[2] == 0 or (inside and flags[0] == 0):
            time.sleep(0.0001)
        time.sleep(rng.random() * 0.004)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or contents(folder) == expected:
            continue  # the machine let this one finish before the signal came: the next moment is drawn
        kill = {"signal": os.WTERMSIG(status), "inside": bool(flags[0]), "shards": flags[1]}
        _finish(folder, flags)
        kill["same"] = contents(folder) == expected
        report["kills"].append(kill)
    print(json.dumps(report))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_stream_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, timeout=300, env=environment)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout.splitlines()[-1])
    kills = report["kills"]
    assert [name for name in report["files"] if name.startswith("stimuli/")] == [f"stimuli/{SIZE * i}.parquet" for i in range(PIECES)]
    assert report["repeatable"]
    assert len(kills) == KILLS
    assert all(kill["signal"] == signal.SIGKILL for kill in kills)
    assert sum(kill["inside"] for kill in kills) >= KILLS // 2
    assert all(kill["same"] for kill in kills), [i for i, kill in enumerate(kills) if not kill["same"]]
    assert len({kill["shards"] for kill in kills}) > 2, "the kills must fall on different shards"


if __name__ == "__main__":
    _program(Path(sys.argv[1]))
