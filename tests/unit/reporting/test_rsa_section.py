"""The report's section on models of dissimilarities."""

from __future__ import annotations

import numpy as np

import inscape as ix
from inscape.reporting.section import render


def test_section_names_the_best_model_and_the_ceiling() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((14, 5))
    subjects = ix.rdm({f"s{i}": truth @ rng.standard_normal((5, 9)) + rng.standard_normal((14, 9)) for i in range(4)})
    models = ix.rdm({"noise": rng.standard_normal((14, 5)), "truth": truth})
    result = ix.compare(models, subjects, "rsa_corr", ceiling=True, draws=60)
    made = render(result, "r1")
    assert made.title == "2 models of representational dissimilarities"
    assert "truth fits the data best" in made.findings[0].text and "noise ceiling" in made.findings[0].text
    assert "of 1 others" in made.findings[0].detail
    assert "<svg" in made.body
