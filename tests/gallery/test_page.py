"""The page of the gallery: every study with its claim, what came out, its figure and its numbers, family by family."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from studies import page, record
from studies.record import Study


def study(folder: Path, family: str, slug: str, **facts: object) -> Study:
    module = ModuleType(slug)
    module.PAPER = 'Nobody, "A paper about nothing", 2020'  # type: ignore[attr-defined]
    module.CLAIM, module.SCALE, module.VERDICT = "More is more.", "Less of it.", str(facts.get("verdict", ""))  # type: ignore[attr-defined]
    path = folder / family / f"{slug}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    return Study(path, module)


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "GALLERY", tmp_path)
    one = study(tmp_path, "probe", "nothing", verdict="Only for one seed.")
    runs = [
        {"seed": seed, "seconds": 99.0, "cpu_seconds": 10.0 + seed, "failed": ["more"] if seed else [], "values": {"a_b": 0.5 * seed}}
        for seed in range(3)
    ]
    control = {"check": "more", "fails": True, "values": {"a_b": 0.25}}
    (tmp_path / "nothing.json").write_text(json.dumps({"runs": runs, "control": control}))
    (tmp_path / "nothing.png").write_bytes(b"")
    return one


def test_an_entry_says_what_was_claimed_and_what_came_out(recorded: Study) -> None:
    text = page.markdown([recorded])
    assert "### A paper about nothing" in text and "**Claim.** More is more." in text and "**Here.** Less of it." in text
    assert "1 of 3 seeds pass every check; what fails: *more*." in text
    assert "The negative control fails *more*. 12 s of processor time a seed." in text and "**Verdict.** Only for one seed." in text
    assert "| a b | 0.5 | 0 to 1 | 0.25 |" in text and "(../gallery/nothing.png)" in text


def test_families_in_order_and_studies_without_results_say_so(recorded: Study, tmp_path: Path) -> None:
    other = study(tmp_path, "compare", "unrun")
    text = page.markdown([recorded, other])
    assert text.index("## Comparing representations") < text.index("No results on record.") < text.index("## Probes and directions")
