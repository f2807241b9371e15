"""Every Python block of README.md and of the pages runs, top to bottom, each page in a folder of its own.

A page may set up names for its blocks in an HTML comment that starts with `<!-- setup`; readers do not see it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"<!-- setup\n(.*?)-->|^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]


def blocks(text: str) -> list[tuple[int, str]]:
    """The code of a page with the line on which each piece starts."""
    found: list[tuple[int, str]] = []
    for match in BLOCK.finditer(text):
        code = match.group(1) if match.group(1) is not None else match.group(2)
        found.append((text[: match.start()].count("\n") + 1, code))
    return found


def shown(text: str) -> int:
    return sum(match.group(2) is not None for match in BLOCK.finditer(text))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if shown((ROOT / page).read_text())])
def test_the_code_of_the_page_runs(page: str, page_folder: Path):
    import matplotlib.pyplot as plt

    names: dict[str, object] = {"__name__": "__main__"}
    for line, code in blocks((ROOT / page).read_text()):
        # Padding makes a traceback name the line of the page.
        exec(compile("\n" * line + code, str(ROOT / page), "exec"), names)
    plt.close("all")


def test_the_pages_that_teach_have_code():
    for page in ("README.md", "docs/quickstart.md", "docs/capture.md", "docs/measure.md", "docs/compare.md", "docs/edit.md"):
        assert shown((ROOT / page).read_text()), page
    assert shown((ROOT / "README.md").read_text()) >= 6


@pytest.mark.parametrize("page", PAGES)
def test_links_inside_the_repository_lead_somewhere(page: str):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not re.match(r"[a-z]+:", target) and "_generated" not in target and "_shots" not in target:
            if not ((ROOT / page).parent / target).exists():
                broken.append(target)
    assert not broken, f"{page}: {broken}"
