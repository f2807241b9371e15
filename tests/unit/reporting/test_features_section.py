"""The report on a dictionary's features, and their figure."""

from __future__ import annotations

import re

import numpy as np
import pytest

import inscape as ix
from inscape.errors import ResultError
from inscape.plots.features import feature_map
from inscape.reporting.section import render
from inscape.reporting.sections import features as module
from tests.unit.dictionaries.token_scene import WORDS, reading, texts, token_view


@pytest.fixture(scope="module")
def found():
    table = np.eye(WORDS)
    table[:, 29] = 0  # a feature that is never active
    return reading(np.eye(WORDS)).features(token_view(texts(80), table))


def test_the_section_says_how_many_and_names_the_clearest(found):
    made = render(found, "r0")
    assert made.title == "Features of GPT at embed"
    assert "<b>29</b> of 30 features are active" in made.findings[0].text
    assert "accuracy <b>1.00</b>" in made.findings[1].text
    assert re.search(r'<a href="#r0f\d+">\d+</a> ‘\d+’', made.findings[2].text)
    assert "1 feature never active here" in made.body


def test_every_feature_has_a_fold_with_shaded_examples_and_places_in_four_orders(found):
    body = render(found, "r0").body
    assert body.count("<details style=") == 29
    for key in "toln":
        assert sorted(int(place) for place in re.findall(rf"[;\"]--{key}:(\d+)", body)) == list(range(29))
    assert len(re.findall(r"id=r0f\d+>", body)) == 29
    assert "<b class=c style=--a:80>" in body and "Drawn at random where it is active" in body


def test_links_lead_to_folds(found, tmp_path):
    page = ix.report(found, to=tmp_path / "page.html").read_text()
    linked = set(re.findall(r'href="#(r0f\d+)"', page)) - {"r0f29"}
    assert linked <= set(re.findall(r"id=(r0f\d+)>", page))
    assert "<script" not in page and "What GPT represents" in page


def test_large_dictionaries_are_cut_and_the_page_says_so(found, monkeypatch):
    monkeypatch.setattr(module, "PAGES", 20_000)
    monkeypatch.setattr(module, "INDEX", 20)
    body = render(found, "r0").body
    folds = body.count("<details style=")
    assert 0 < folds < 20 and body.count("<div class=only") == 20 - folds
    assert f"20 of 29 active features are listed, {folds} open with their examples" in body


def test_texts_are_escaped():
    named = reading(np.eye(2)).features(np.eye(2, dtype=np.float32).repeat(6, 0), [f"<i>{i}&</i>" for i in range(12)])
    page = render(named, "r0").body + named[0]._repr_html_() + named._repr_html_()
    assert "<i>0&" not in page and "&lt;i&gt;" in page


def test_the_figure_has_one_dot_for_each_scored_feature(found):
    axes = feature_map(found.result).axes[0]
    assert len(axes.collections[0].get_offsets()) == 29
    assert axes.get_xscale() == "log" and axes.get_title(loc="left") == "features of embed"
    bare = found.result
    bare.arrays["detection"] = np.full(30, np.nan)
    assert sum(patch.get_height() for patch in feature_map(bare).axes[0].patches) == 29
    bare.arrays["density"] = np.zeros(30)
    with pytest.raises(ResultError, match="none of 30 features is active"):
        feature_map(bare)


def test_a_dictionary_that_is_never_active_can_be_reported(tmp_path):
    sae = reading(np.eye(WORDS))
    sae.tensors["b_enc"][:] = -5
    page = ix.report(sae.features(token_view()), to=tmp_path / "page.html").read_text()
    assert "30 features never active here" in page
