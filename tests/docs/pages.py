"""Runs the Python blocks of pages, as a reader would: `python tests/docs/pages.py SCENE WORK PAGE…` prints one JSON object, page → error.

In a process of its own: the run-time type checks that pytest switches on belong to the unit tests, and slow long examples down.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"<!-- setup\n(.*?)-->|^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(text: str) -> list[tuple[int, str]]:
    """The code of a page, hidden set-up included, with the line on which each piece starts."""
    found: list[tuple[int, str]] = []
    for match in BLOCK.finditer(text):
        code = match.group(1) if match.group(1) is not None else match.group(2)
        found.append((text[: match.start()].count("\n") + 1, code))
    return found


def shown(text: str) -> int:
    """How many blocks a reader sees."""
    return sum(match.group(2) is not None for match in BLOCK.finditer(text))


def run(page: str) -> str:
    """The traceback that the page ends in, or nothing."""
    names: dict[str, object] = {"__name__": "__main__"}
    try:
        for line, code in blocks((ROOT / page).read_text()):
            # Padding makes a traceback name the line of the page.
            exec(compile("\n" * line + code, str(ROOT / page), "exec"), names)
    except Exception:
        return traceback.format_exc()
    return ""


def main() -> None:
    """Each page in a copy of the scene."""
    scene, work, *pages = sys.argv[1:]
    errors: dict[str, str] = {}
    warnings.simplefilter("error")  # an example must not warn
    for module in ("transformers", "torch"):
        for kind in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=kind, module=f"{module}.*")
    for page in pages:
        folder = Path(work) / page.replace("/", "-")
        shutil.copytree(scene, folder)
        os.chdir(folder)
        errors[page] = run(page)
    print("\n" + json.dumps(errors))


if __name__ == "__main__":
    main()
