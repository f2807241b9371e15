"""What every test can rely on: checked shapes, one thread, fixed seeds, and the two folders of material that some tests read."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "tests" / "reference"


def modules_with_shapes() -> list[str]:
    """The modules of the package whose signatures name shapes; checking every call of the others would double the time of the tests."""
    spec = find_spec("inscape")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    shaped = [path for path in package.rglob("*.py") if "from jaxtyping import" in path.read_text()]
    return sorted(".".join(path.relative_to(package.parent).with_suffix("").parts) for path in shaped)


# Before anything imports the package: calls of these modules are checked against the shapes in their signatures.
install_import_hook(modules_with_shapes(), "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the network must fail, not wait
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SEED = int(os.environ.get("INSCAPE_TEST_SEED", "0"))


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)  # one thread a worker: results must not depend on the machine, and workers must not fight


def pytest_report_header(config: pytest.Config) -> list[str]:
    data = os.environ.get("INSCAPE_DATA")
    return [
        f"inscape: seed {SEED} (INSCAPE_TEST_SEED), torch {torch.__version__} on {torch.get_num_threads()} thread",
        f"inscape: INSCAPE_DATA {'= ' + data if data else 'is not set: tests on real data are skipped'}",
    ]


@pytest.fixture(autouse=True)
def seeds() -> int:
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)
    return SEED


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real inputs; skipped where INSCAPE_DATA is unset, unless INSCAPE_REQUIRE_DATA=1 forbids that."""
    value = os.environ.get("INSCAPE_DATA", "")
    if value and Path(value).is_dir():
        return Path(value)
    reason = f"INSCAPE_DATA is {value!r}, which is no folder" if value else "INSCAPE_DATA is not set"
    if os.environ.get("INSCAPE_REQUIRE_DATA") == "1":
        pytest.fail(f"{reason}, and INSCAPE_REQUIRE_DATA=1 asks for it")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Any]:
    """Reads tests/reference/<name>.json: values from other libraries or straight from a definition."""

    def read(name: str) -> Any:
        return json.loads((REFERENCE / f"{name}.json").read_text())

    return read
