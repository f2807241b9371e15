"""The seeded inputs behind the reference values, loaded by path because tests/ is no package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

REFERENCE = Path(__file__).resolve().parents[2] / "reference"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"reference_{name}", REFERENCE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def compare_inputs() -> ModuleType:
    return _load("compare_inputs")


@pytest.fixture(scope="session")
def measure_inputs() -> ModuleType:
    return _load("measure_inputs")
