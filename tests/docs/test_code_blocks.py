"""Every Python block of README.md and of the pages runs, top to bottom, each page in a folder of its own.

A page may set up names for its blocks in an HTML comment that starts with `<!-- setup`; readers do not see it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("pages.py")
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]

spec = importlib.util.spec_from_file_location("inscape_pages", SCRIPT)
assert spec and spec.loader
pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pages)

WITH_CODE = [page for page in PAGES if pages.shown((ROOT / page).read_text())]


@pytest.fixture(scope="module")
def errors(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each page ended in."""
    work = tmp_path_factory.mktemp("pages")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(scene), str(work), *WITH_CODE],
        env={**os.environ, "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE)
def test_the_code_of_the_page_runs(page: str, errors: dict[str, str]):
    assert not errors[page], errors[page]


def test_the_pages_that_teach_have_code():
    for page in ("README.md", "docs/quickstart.md", "docs/capture.md", "docs/measure.md", "docs/compare.md", "docs/edit.md"):
        assert page in WITH_CODE
    assert pages.shown((ROOT / "README.md").read_text()) >= 6


@pytest.mark.parametrize("page", PAGES)
def test_links_inside_the_repository_lead_somewhere(page: str):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target) and "_generated" not in target and "_shots" not in target:
            if not ((ROOT / page).parent / target).exists():
                broken.append(target)
    assert not broken, f"{page}: {broken}"
