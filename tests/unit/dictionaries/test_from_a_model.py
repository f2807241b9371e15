"""Straight from a model: the same weights whether rows lie in memory or on disk, and nothing left behind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.dictionaries import Dictionary, source
from inscape.dictionaries.training import Trainer
from tests.unit.dictionaries.scene import sparse_rows

X = torch.from_numpy(sparse_rows(512).astype(np.float32))
TOP = ix.dictionaries.TopK(width=32, k=3)


@pytest.fixture
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))


@pytest.fixture
def expected(net: torch.nn.Module) -> Dictionary:
    """From rows that the network gives by itself."""
    with torch.no_grad():
        return ix.decompose(net[0](X), TOP, rows=4096, seed=1)


def same(a: Dictionary, b: Dictionary) -> bool:
    return all(torch.equal(value, b.tensors[name]) for name, value in a.tensors.items())


def test_from_rows_in_memory_and_on_disk(
    net: torch.nn.Module, expected: Dictionary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert same(ix.decompose((net, X, "0"), TOP, rows=4096, seed=1), expected)
    monkeypatch.setattr(source, "IN_MEMORY", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    places: list[Any] = []
    monkeypatch.setattr(source, "capture", lambda *a, **k: places.append(k.get("to")) or ix.capture(*a, **k))
    assert same(ix.decompose((net, X, "0"), TOP, rows=4096, seed=1), expected)
    assert places[0] is None and str(places[1]).startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_from_a_stream_that_is_read_once(net: torch.nn.Module, expected: Dictionary) -> None:
    def rows() -> Iterator[torch.Tensor]:
        yield from X

    one = ix.decompose((net, rows(), "0"), TOP, rows=4096, seed=1)
    assert same(one, expected)


def test_interrupted_it_does_not_run_the_model_again(
    net: torch.nn.Module, expected: Dictionary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    net[0].register_forward_hook(lambda *_: calls.append(1))
    whole = Trainer.advance

    def stopped(self: Trainer, x: torch.Tensor, y: torch.Tensor) -> None:
        if self.step == 9:
            raise KeyboardInterrupt
        whole(self, x, y)

    monkeypatch.setattr(Trainer, "advance", stopped)
    with pytest.raises(KeyboardInterrupt):
        ix.decompose((net, X, "0"), TOP, rows=4096, seed=1, to=tmp_path / "run", every=4)
    assert (tmp_path / "run" / source.ROWS).is_dir()
    ran = len(calls)
    monkeypatch.setattr(Trainer, "advance", whole)
    one = ix.decompose((net, X, "0"), TOP, rows=4096, seed=1, to=tmp_path / "run", every=4)
    assert same(one, expected) and len(calls) - ran < ran / 4  # the shapes of sites are looked up
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"dictionary.json", "dictionary.safetensors"}


def test_a_bar_is_drawn_where_it_is_wanted(capfd: pytest.CaptureFixture[str]) -> None:
    ix.decompose(X, TOP, rows=2048, progress=True)
    assert "decompose" in capfd.readouterr().err
    ix.decompose(X, TOP, rows=2048)
    assert capfd.readouterr().err == ""
