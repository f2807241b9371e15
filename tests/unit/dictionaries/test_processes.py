"""Two processes on halves of every batch train what one process trains on the whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import inscape as ix
from inscape.dictionaries import Dictionary
from inscape.errors import DictionaryError
from tests.unit.dictionaries.scene import sparse_rows

ROOT = Path(__file__).resolve().parents[3]
RECIPES = [ix.dictionaries.TopK(width=64, k=3), ix.dictionaries.ReLU(width=64, l1=2.0), ix.dictionaries.JumpReLU(width=64, l0=3)]
SCRIPT = """
import sys
import torch, torch.distributed as processes
import inscape as ix
from tests.unit.dictionaries.scene import sparse_rows
from tests.unit.dictionaries.test_processes import RECIPES
torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), sys.argv[2]
processes.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
found = ix.decompose(sparse_rows(4000), RECIPES, rows=256 * 6, batch=256, to=f"{folder}/run")
for index, one in enumerate(found):
    one.save(f"{folder}/rank{rank}/{index}")
try:
    ix.decompose(sparse_rows(4000), RECIPES[0], rows=1000, batch=255)
except ix.errors.DictionaryError as error:
    print(error)
processes.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    words = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    running = [
        subprocess.Popen([*words, str(rank), str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    for process in running:
        said, error = process.communicate(timeout=240)
        assert process.returncode == 0, error
        assert "batch=255 cannot be shared by 2 processes; give a multiple of 2" in said
    alone = ix.decompose(sparse_rows(4000), RECIPES, rows=256 * 6, batch=256)
    for index, expected in enumerate(alone):
        first, second, kept = (Dictionary.load(tmp_path / name / str(index)) for name in ("rank0", "rank1", "run"))
        for name, tensor in expected.tensors.items():
            assert torch.equal(first.tensors[name], second.tensors[name]) and torch.equal(first.tensors[name], kept.tensors[name])
            if expected.recipe.kind != "JumpReLU":  # whose first threshold is the mean of those of the parts
                torch.testing.assert_close(first.tensors[name], tensor, rtol=1e-3, atol=1e-3)
        goal = sparse_rows(1000, seed=77)
        scores = [one.score(goal, interval=None).value(measure="fvu") for one in (first, expected)]
        assert scores[0] == pytest.approx(scores[1], rel=0.02)


def test_processes_that_do_not_exist_are_not_waited_for() -> None:
    assert not (torch.distributed.is_available() and torch.distributed.is_initialized())
    with pytest.raises(DictionaryError, match="batch=300 is more than rows=256"):
        ix.decompose(sparse_rows(300), RECIPES[0], rows=256, batch=300)
