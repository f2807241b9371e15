"""A small store with three shards and two row sets."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from inscape.store import SiteSpec, Store, StoreWriter

SITES = {
    "h.0": SiteSpec("pooled", 5, "float32", "stimulus"),
    "h.1|z:*": SiteSpec("pooled", 3, torch.bfloat16, "stimulus"),
    "h.0/tokens": SiteSpec("tokens", 4, torch.float16, "token"),
}
PLAN = {"model": {"name": "toy", "revision": "abc"}, "tokens": {"rule": "all", "max_length": 8}, "batch_plan": {"shard": 2}}
STIMULI = {"stimulus": [f"s{i}" for i in range(6)], "text": ["a b", "c", "d e f", "g", "h i", "j"], "label": [0, 1, 0, 1, 0, 1]}
LENGTHS = [2, 1, 3, 1, 2, 1]


def shard(index: int) -> tuple[dict[str, pa.Table], dict[str, torch.Tensor]]:
    """Two stimuli per shard, with values that only depend on the shard's number."""
    first = 2 * index
    generator = torch.Generator().manual_seed(index)
    counts = LENGTHS[first : first + 2]
    stimulus = np.repeat([first, first + 1], counts)
    position = np.concatenate([np.arange(count) for count in counts])
    rows = {
        "pooled": pa.table({"stimulus": [first, first + 1], "repeat": [0, 0], "position": [0, 0]}),
        "tokens": pa.table({"stimulus": stimulus, "repeat": 0 * stimulus, "position": position, "token_id": 10 * stimulus + position}),
    }
    values = {
        site: torch.randn(rows[spec.row_set].num_rows, spec.d, generator=generator).to(spec.torch_dtype) for site, spec in SITES.items()
    }
    return rows, values


def write(path: Path | None, *, stop: int = 3, plan: dict[str, Any] = PLAN, finish: bool = True) -> Store | None:
    """Writes (or goes on with) the store up to shard `stop`."""
    with StoreWriter.create_or_resume(path, plan, STIMULI, SITES) as writer:
        for index in range(stop):
            if index not in writer.done_shards:
                writer.write_shard(index, *shard(index), {"truncated": index})
        return writer.finish({"fidelity": 0.0}) if finish else None


def expected(site: str) -> torch.Tensor:
    """All rows of a site, put together by torch."""
    return torch.cat([shard(index)[1][site] for index in range(3)])


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete store on disk."""
    write(tmp_path / "toy")
    return tmp_path / "toy"


@pytest.fixture(params=["disk", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The same store on disk and in memory."""
    made = write(tmp_path / "toy" if request.param == "disk" else None)
    assert made is not None
    return made


@pytest.fixture
def toy() -> SimpleNamespace:
    """The pieces of the toy store, for tests that write it themselves."""
    return SimpleNamespace(sites=SITES, plan=PLAN, stimuli=STIMULI, shard=shard, write=write, expected=expected, contents=contents)
