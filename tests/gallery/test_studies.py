"""Every study holds at its small size, its negative control does not, and the results on record are of the file that is here."""

from __future__ import annotations

import ast
import math

import matplotlib.pyplot as plt
import pytest

from studies.record import Study, studies

STUDIES = studies()
each = pytest.mark.parametrize("study", STUDIES, ids=[f"{study.family}/{study.slug}" for study in STUDIES])


def test_results_on_record_are_of_the_files() -> None:
    for study in STUDIES:
        check_record(study)


def check_record(study: Study) -> None:
    record = study.recorded()
    assert record is not None, f"no results for {study.slug}: python -m studies.run {study.slug}"
    assert record["sha256"] == study.digest, f"{study.slug} changed since its results: python -m studies.run {study.slug}"
    assert record["size"] == "full" and len({run["seed"] for run in record["runs"]}) >= 3
    assert record["control"]["fails"]
    contradicts = any(run["failed"] for run in record["runs"])
    assert not contradicts or study.verdict, "a study that contradicts its paper says so in VERDICT"


def test_form() -> None:
    for study in STUDIES:
        check_form(study)


def check_form(study: Study) -> None:
    text = study.path.read_text()
    assert len(text.splitlines()) <= 150
    assert study.paper and study.claim and study.scale and study.control_fails in study.checks
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("inscape"):
            assert node.module == "inscape", "a study uses the public API alone: import inscape as ix"


@pytest.mark.study
@each
def test_holds_at_its_small_size_and_not_in_the_control(study: Study) -> None:
    values = study.run(0, small=True)
    assert all(math.isfinite(value) for value in values.values())
    assert not study.failed(values) or study.verdict
    assert study.control_fails in study.failed(study.control(0, small=True))
    figure = study.figure(values)
    assert figure.axes
    plt.close(figure)
