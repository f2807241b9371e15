"""SIGKILL at 20 or more seeded moments of a capture, 15 of them inside a write; every resumed store equals an uninterrupted one.

This file is also the program that the test starts: it imports torch once and forks a child for every run, so that the children spend
their time in the capture and not in imports.
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
from pathlib import Path

import pytest

KILLS = 20
INSIDE = 15
SHARDS = 14


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _capture(folder: Path, flags: mmap.mmap) -> None:
    """One capture in this process; flags[0] is 1 during a write, flags[1] counts the shards, flags[2] says that the run has begun."""
    import torch

    import inscape as ix
    from inscape.store.writer import StoreWriter

    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 16))
    stimuli = torch.randn(SHARDS * 10, 8, generator=torch.Generator().manual_seed(1))
    write = StoreWriter.write_shard

    def watched(self: StoreWriter, index: int, *args: object, **kwargs: object) -> None:
        flags[2] = 1
        flags[0] = 1
        write(self, index, *args, **kwargs)  # pyright: ignore[reportArgumentType]
        flags[0] = 0
        flags[1] = index + 1

    StoreWriter.write_shard = watched  # pyright: ignore[reportAttributeAccessIssue]
    ix.capture(module, stimuli, sites=["0", "1", "2"], to=folder, shard_stimuli=10, batch_size=4, progress=False)


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


def _finish(folder: Path, flags: mmap.mmap) -> float:
    """Runs to the end; returns the seconds from the first write on."""
    child = _fork(folder, flags)
    while flags[2] == 0:
        time.sleep(0.0005)
        if os.waitpid(child, os.WNOHANG)[0]:
            return 0.0  # nothing was left to write
    began = time.perf_counter()
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise SystemExit(f"a run that nobody killed ended with status {status}")
    return time.perf_counter() - began


def _program(root: Path) -> None:
    import torch

    import inscape as ix
    import inscape.capturing
    import inscape.store

    assert torch is not None and ix is not None
    flags = mmap.mmap(-1, 3)
    whole = min(_finish(root / "reference", flags), _finish(root / "again", flags))
    expected = contents(root / "reference")
    report = {"files": len(expected), "repeatable": contents(root / "again") == expected, "kills": []}
    rng = random.Random(0)
    for attempt in range(3 * KILLS):
        # Where a busy machine delays the signal, a kill aimed at a write may fall between two: then further moments are drawn.
        if len(report["kills"]) >= KILLS and sum(kill["inside"] for kill in report["kills"]) >= INSIDE:
            break
        folder = root / f"run{attempt}"
        # By shards and not by the clock alone: on a busy machine a run may be twice as fast as the one that was timed.
        shard, delay = rng.randrange(SHARDS * 2 // 3), rng.random() * whole / SHARDS
        child = _fork(folder, flags)
        while flags[1] < shard or flags[2] == 0:
            time.sleep(0.0002)
        time.sleep(delay)
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
def test_a_killed_capture_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, timeout=300, env=environment)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout.splitlines()[-1])
    kills = report["kills"]
    assert report["repeatable"]
    assert len(kills) >= KILLS
    assert all(kill["signal"] == signal.SIGKILL for kill in kills)
    assert sum(kill["inside"] for kill in kills) >= INSIDE
    assert all(kill["same"] for kill in kills), [i for i, kill in enumerate(kills) if not kill["same"]]
    assert len({kill["shards"] for kill in kills}) > 3, "the kills must fall on different shards"


if __name__ == "__main__":
    _program(Path(sys.argv[1]))
