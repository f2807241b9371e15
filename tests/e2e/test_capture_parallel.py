"""Real processes write the parts of one store at once, one of them is killed and started again; the bytes are those of one process.

This file is also the program that the test starts: it imports torch once and forks a child for every process.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SHARDS = 12
WHOLE, PART, REFUSED = 10, 11, 12  # how a child ends


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _capture(folder: Path, part: str | None, pause: float, flags: mmap.mmap) -> int:
    """One capture in this process; flags[i] is set before shard i is written, `pause` seconds pass before it."""
    import torch

    import inscape as ix
    from inscape.errors import StoreIncompleteError
    from inscape.store.writer import StoreWriter

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 16))
    stimuli = torch.randn(SHARDS * 10 - 3, 8, generator=torch.Generator().manual_seed(1))
    write = StoreWriter.write_shard

    def slowly(self: StoreWriter, *shard: Any) -> None:
        flags[shard[0]] = 1
        time.sleep(pause)
        write(self, *shard)

    StoreWriter.write_shard = slowly  # pyright: ignore[reportAttributeAccessIssue]
    options: dict[str, Any] = {"sites": ["0", "2"], "shard_stimuli": 10, "batch_size": 4, "progress": False}
    try:
        return WHOLE if ix.capture(module, stimuli, to=folder, part=part, **options).complete else PART
    except StoreIncompleteError as error:
        return REFUSED if "another process is writing part 1/2 of" in str(error) else 1


def _start(folder: Path, part: str | None, pause: float = 0.02) -> tuple[int, mmap.mmap]:
    flags = mmap.mmap(-1, SHARDS)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = _capture(folder, part, pause, flags)
        finally:
            os._exit(code)
    return child, flags


def _end(started: tuple[int, mmap.mmap]) -> dict[str, Any]:
    _, status = os.waitpid(started[0], 0)
    return {"code": os.waitstatus_to_exitcode(status), "shards": [i for i in range(SHARDS) if started[1][i]]}


def _program(root: Path) -> None:
    import torch

    import inscape as ix
    import inscape.capturing
    import inscape.store.parts

    assert ix is not None
    torch.set_num_threads(1)
    whole = _end(_start(root / "whole", None, 0.0))
    folder = root / "cut"
    victim, survivor = _start(folder, "1/2", 0.2), _start(folder, "2/2")
    while not victim[1][2]:
        time.sleep(0.001)
    os.kill(victim[0], signal.SIGKILL)
    report = {"whole": whole, "victim": _end(victim), "survivor": _end(survivor)}
    report["again"] = [_end(child) for child in [_start(folder, "1/2"), _start(folder, "1/2", 0.0), _start(folder, "2/2")]]
    report["same"] = contents(folder) == contents(root / "whole")
    report["at once"] = []
    for run in range(4):  # all parts from the first moment on, ending together
        folder = root / f"run{run}"
        ends = [_end(child) for child in [_start(folder, f"{k}/4", 0.0) for k in range(1, 5)]]
        report["at once"].append({"codes": sorted(end["code"] for end in ends), "same": contents(folder) == contents(root / "whole")})
    print(json.dumps(report))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_at_once_a_kill_and_a_restart(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, timeout=300, env=environment)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout.splitlines()[-1])
    assert report["whole"] == {"code": WHOLE, "shards": list(range(SHARDS))}
    assert report["victim"] == {"code": -signal.SIGKILL, "shards": [0, 1, 2]}
    assert report["survivor"] == {"code": PART, "shards": [6, 7, 8, 9, 10, 11]}
    # Two went on with the same part: one was turned away, or came when the other had ended. The third had nothing left to write.
    *both, other = report["again"]
    assert other["shards"] == [] and other["code"] in (PART, WHOLE)
    assert sorted(shard for end in both for shard in end["shards"]) == [2, 3, 4, 5], "what was finished before the kill is kept"
    assert WHOLE in [end["code"] for end in both] and {end["code"] for end in both} <= {WHOLE, REFUSED}
    assert report["same"]
    for ends in report["at once"]:
        assert set(ends["codes"]) <= {PART, WHOLE} and WHOLE in ends["codes"] and ends["same"]


if __name__ == "__main__":
    _program(Path(sys.argv[1]))
