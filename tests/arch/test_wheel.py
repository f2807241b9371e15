"""The wheel that users install, opened."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_it_holds_the_whole_package(wheel: zipfile.ZipFile):
    source = ROOT / "src"
    expected = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    missing = expected - set(wheel.namelist())
    assert not missing
    assert "inscape/py.typed" in wheel.namelist()
    assert [name for name in wheel.namelist() if name.startswith("inscape/reporting/") and name.endswith(".css")]


def test_it_holds_nothing_else(wheel: zipfile.ZipFile):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"inscape", next(top for top in tops if top.endswith(".dist-info"))}
    assert not [name for name in wheel.namelist() if "/tests/" in name or name.endswith((".safetensors", ".parquet", ".pt", ".pyc"))]


def test_it_names_its_license_script_and_extras(wheel: zipfile.ZipFile):
    info = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")).rsplit("/", 1)[0]
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata
    for extra in ("hf", "demo", "pretrained", "all"):
        assert f"Provides-Extra: {extra}\n" in metadata
    assert "inscape = inscape.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
