"""The page: findings, cautions, figures, measures and origin, one offline file."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from inscape.errors import ResultError
from inscape.reporting import Finding, Section, report, section
from inscape.reporting.card import LARGEST_CARD
from inscape.reporting.section import _renderers, render
from inscape.results import Result
from inscape.store import Store

VOID = {"meta", "link", "br", "img", "source", "use", "path"}


class Balance(HTMLParser):
    """Collects what is out of balance, every text, and every address a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.addresses = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "srcset", "href", "xlink:href") and value and not value.startswith(("#", "data:")):
                self.addresses.append(value)

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def text_of(page):
    body = re.sub(r"<style>.*?</style>|<svg.*?</svg>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", body))


@pytest.fixture
def page(profile, comparison, training, tmp_path):
    return report(training, profile, comparison, to=tmp_path / "deep" / "report.html").read_text()


def test_the_page_is_balanced_offline_and_small(page):
    checked = Balance()
    checked.feed(page)
    assert (checked.wrong, checked.open, checked.addresses) == ([], [], [])
    assert "<script" not in page and "@import" not in page and "url(http" not in page
    assert len(page) < 500_000
    ids = re.findall(r'\bid="?([^"\s>]+)', page)
    assert len(ids) == len(set(ids))


def test_findings_come_first_with_value_interval_n_and_null(page):
    text = text_of(page)
    assert text.index("Findings") < text.index("Training of gpt") < text.index("Measures") < text.index("Origin", 3000)
    assert (
        "While it trains, effective_rank at embed falls from 100.0 [97.0, 103.0] at step 0 to 20.0 [17.0, 23.0] at step 10, its lowest, "
        in text
    )
    assert "and rises again to 80.0 [77.0, 83.0] at step 1,000. 4 of 4 sites dip." in text
    assert "effective_rank of gpt falls from 30.0 [29.5, 30.5] at embed to 12.0 [11.5, 12.5] at blocks.0.resid_post, its lowest" in text
    assert "The same in vit 31.0 → 14.0 at blocks.0.resid_post → 24.0." in text
    assert "higher: more dimensions · 95 % interval: jackknife (32 groups) · n = 400 · no null tested" in text
    assert "gpt and vit are most alike at embed of both: linear_cka_debiased 0.900 [0.880, 0.920]." in text
    assert "a rank correlation of 1.00, and 4 of 4 sites find their own counterpart." in text
    assert "n = 400 · null 0.010 · p = 0.010" in text


def test_cautions_say_what_the_numbers_do_not_show(page):
    text = text_of(page)
    assert "two_nn has no number for 1 of 4: gpt embed. &lt;all rows&gt; are equal." in text
    assert "Inside their null, so without meaning for the systems: 2 of 16 by linear_cka_debiased (null mean 0.010)." in text


def test_few_rows_and_more_units_than_rows_are_said(tmp_path):
    rows = [{"system": "gpt", "site": "x", "measure": "effective_rank", "value": 5.0, "n": 12, "d": 64}]
    text = text_of(report(Result(rows), to=tmp_path / "r.html").read_text())
    assert "effective_rank rest on n = 12 rows, fewer than 30" in text
    assert "effective_rank: n = 12 rows are no more than the d = 64 units. Too low for n below about 10 d" in text


def test_where_nothing_beats_the_null_the_page_says_so(tmp_path):
    rows = [
        {"system": "a", "site": s, "system_b": "b", "site_b": "y", "measure": "linear_cka", "value": 0.1, "p": 0.9, "n": 99} for s in "xz"
    ]
    text = text_of(report(Result(rows), to=tmp_path / "r.html").read_text())
    assert "No number here stands out from its null or from its neighbors." in text
    assert "all by linear_cka" in text


def test_systems_that_cannot_be_told_apart(tmp_path, profile):
    result = profile.where(measure="effective_rank")
    text = text_of(report(result, to=tmp_path / "r.html").read_text())
    assert "effective_rank is higher in vit than in gpt at 3 of 4 sites; " in text
    assert "their intervals are apart at 1 of 4 shared sites (blocks.0.resid_post)." in text
    rows = [row | {"low": 0.0, "high": 99.0} for row in result.rows()]
    text = text_of(report(Result(rows), to=tmp_path / "r.html").read_text())
    assert "effective_rank does not tell gpt from vit: their intervals are apart at none of 4 shared sites." in text


def test_pairs_along_a_diagonal_are_told_site_by_site(tmp_path, comparison):
    rows = [row for row in comparison.rows() if row["site"] == row["site_b"]]
    text = text_of(report(Result(rows), to=tmp_path / "r.html").read_text())
    assert "Site by site it stays between 0.870 [0.850, 0.890] at final_norm and 0.900 [0.880, 0.920] at embed" in text


def test_a_system_beside_itself_does_not_count_as_a_match(tmp_path, comparison):
    rows = [row | {"system_b": "gpt"} for row in comparison.rows()]
    text = text_of(report(Result(rows), to=tmp_path / "r.html").read_text())
    assert "Within gpt, embed and blocks.0.resid_post are most alike: linear_cka_debiased 0.650 [0.630, 0.670]." in text


def test_measures_are_explained_from_what_they_declare(page):
    text = text_of(page)
    assert "The number of directions that the centered rows use" in text
    assert "Range 1 to min(n - 1, d) · higher: more dimensions" in text
    assert "Roy & Vetterli 2007" in text.replace("&amp;", "&")


def test_an_uninstalled_measure_is_shown_without_facts(tmp_path):
    text = text_of(report(Result([{"site": "x", "measure": "theirs", "value": 1.0, "n": 99}]), to=tmp_path / "r.html").read_text())
    assert "theirs is 1.00 at x." in text and "Not among the measures that are installed here." in text


def test_origin_has_command_settings_versions_and_hashes(tmp_path, profile):
    import hashlib

    import torch

    store = Store.from_arrays({"x": torch.randn(5, 3)}, to=tmp_path / "gpt", system="gpt")
    page = report(profile, store, to=tmp_path / "r.html", title="A <title>").read_text()
    assert "<title>A &lt;title&gt;</title>" in page
    assert "inscape measure runs/gpt two_nn" in page
    assert f"torch {torch.__version__}" in page
    assert hashlib.sha256((tmp_path / "gpt" / "manifest.json").read_bytes()).hexdigest() in page
    assert "&quot;verb&quot;: &quot;measure&quot;" in page


def test_a_command_is_made_from_settings_where_none_was_recorded(tmp_path):
    settings = {"verb": "compare", "measures": ["mutual_knn(k=5)"], "systems": [{"system": "a", "path": "runs/my a"}], "interval": None}
    settings |= {"seed": 3, "null": "permute", "draws": 200}
    rows = [{"site": "x", "site_b": "x", "measure": "mutual_knn", "value": 1.0, "n": 99}]
    page = report(Result(rows, settings=settings), to=tmp_path / "r.html").read_text()
    assert (
        "inscape compare &#x27;runs/my a&#x27; &#x27;runs/my a&#x27; &#x27;mutual_knn(k=5)&#x27; --interval none --null permute --seed 3"
        in page
    )
    settings["systems"] = [{"system": "a", "path": None}]
    assert "without a recorded command" in report(Result(rows, settings=settings), to=tmp_path / "r.html").read_text()


def test_long_tables_are_cut_and_say_so(tmp_path):
    rows = [{"site": f"s{i}", "measure": "two_nn", "value": 1.0 + i, "n": 99} for i in range(450)]
    text = text_of(report(Result(rows), to=tmp_path / "r.html").read_text())
    assert "50 more rows are in the result, not on this page." in text


def test_what_cannot_be_reported_is_refused(tmp_path, profile, monkeypatch):
    with pytest.raises(ResultError, match="there is nothing to report: 0 results without a row, 0 stores"):
        report(to=tmp_path / "r.html")
    with pytest.raises(ResultError, match="a report is made of results, features and stores, got 'runs/x' of type str"):
        report("runs/x", to=tmp_path / "r.html")  # pyright: ignore
    with pytest.raises(
        ResultError,
        match="the report has no section for results of kind 'odd'; it has compare, features, .*measure, .*units",
    ):
        report(Result(profile.rows(), settings={"result": "odd"}), to=tmp_path / "r.html")
    monkeypatch.setattr("inscape.reporting.page.LARGEST_PAGE", 1000)
    with pytest.raises(ResultError, match=r"the report would have [\d,]+ bytes, more than 1,000; give fewer of the 1 results"):
        report(profile, to=tmp_path / "r.html")


def test_a_new_kind_of_result_is_one_registered_function(tmp_path):
    @section("odd")
    def odd_section(result, name):
        return Section("Oddities", (Finding("An odd <b>3</b>.", "n = 1", 1.0),), ("beware",), "<p>body</p>", ())

    try:
        text = text_of(report(Result([{"value": 3.0, "measure": "odd"}], settings={"result": "odd"}), to=tmp_path / "r.html").read_text())
        assert "An odd 3." in text and "beware" in text and "body" in text
        with pytest.raises(ValueError, match="two sections are registered for results of kind 'measure'"):
            section("measure")(odd_section)
    finally:
        _renderers.pop("odd")


def test_every_section_shows_its_table(profile, comparison, training):
    for result in (profile, comparison, training):
        assert "<table" in render(result, "x").body


def test_a_card_for_a_notebook_is_small_and_has_no_script(profile, comparison, training):
    large = Result([row | {"site": f"{row['site']}{k}"} for k in range(40) for row in comparison.rows()])
    for result in (profile, comparison, training, large, Result([])):
        card = result._repr_html_()
        assert len(card.encode()) <= LARGEST_CARD and "<script" not in card
    assert "<svg" in profile._repr_html_() and "effective_rank" in profile._repr_html_()
    assert profile._repr_html_().count("<tr>") == 13
