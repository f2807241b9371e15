"""A thousand captures in one process: nothing stays on the model, nothing stays in memory.

In a process of its own: the run-time type checks that pytest switches on keep things of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import gc, json, psutil, torch
import inscape as ix
from inscape.errors import SiteNotFoundError
from tests.families.catalog import model_of
from tests.families.tokenizer import words
from tests.unit.models.conftest import footprint, same_footprint

torch.set_num_threads(1)
SITES = ["blocks.*.resid_post", "blocks.1.q", "blocks.1.attn_pattern|entropy"]
model = model_of("GPT-2")
before = footprint(model.module)

def rounds(count):
    for i in range(count):
        ix.capture(model, [words(3 + i % 4), words(7)], SITES, progress=False)
        if i % 10 == 0:
            try:
                ix.capture(model, [words(3)], "blocks.0.resid_pots", progress=False)
            except SiteNotFoundError:
                pass
    gc.collect()

def state():
    tensors = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
    held = sum(tensor.nbytes for tensor in tensors)
    return {"tensors": len(tensors), "bytes": held, "objects": len(gc.get_objects()), "rss": psutil.Process().memory_info().rss}

rounds(200)
first = state()
rounds(800)
hooks = sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.module.modules())
print(json.dumps({"first": first, "last": state(), "hooks": hooks, "same": same_footprint(before, footprint(model.module))}))
"""


@pytest.mark.slow
def test_a_thousand_captures_leave_no_hook_and_no_memory():
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    first, last = told["first"], told["last"]
    assert told["hooks"] == 0 and told["same"]
    assert (last["tensors"], last["bytes"]) == (first["tensors"], first["bytes"])
    assert last["objects"] - first["objects"] < 80  # fewer than one for ten captures
    assert last["rss"] - first["rss"] < 2 * 2**20  # the allocator's own play; three kilobytes a capture would show
