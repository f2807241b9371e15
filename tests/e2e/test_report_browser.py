"""A report in a real browser: offline, silent, readable on a phone, in both schemes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from inscape.measures import compare, measure
from inscape.reporting import report
from inscape.results import Result
from inscape.store import Store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (.ci/run installs one)"),
]


@pytest.fixture(scope="module")
def page_path(tmp_path_factory):
    """A report of real numbers: a store of five sites, its profile, a comparison with a null, and a made-up training run."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((150, 24))
    sites = {"embed": X}
    for i in range(3):
        X = np.tanh(X @ rng.standard_normal((24, 24)) / 4)
        sites[f"blocks.{i}.resid_post"] = X
    sites["final_norm"] = np.zeros((150, 4))
    other = {name: values + 0.3 * rng.standard_normal(values.shape) for name, values in sites.items()}
    a, b = (Store.from_arrays(arrays, to=folder / name, system=f"net-{name}") for name, arrays in (("a", sites), ("b", other)))
    profile = Result.merge([measure(store, ["effective_rank", "two_nn", "mean_cosine"]) for store in (a, b)])
    similarity = compare(a, b, ["linear_cka_debiased", "procrustes"], null="permute", draws=40)
    steps = [0, 1, 4, 16, 64, 256, 1024]
    rows = [
        {"system": "net-a", "site": site, "measure": "effective_rank", "value": 20 - 12 * np.exp(-((k - 3) ** 2)) - i, "axis": "step"}
        | {"at": step, "n": 150, "d": 24}
        for i, site in enumerate(sites)
        for k, step in enumerate(steps)
    ]
    return report(Result(rows), profile, similarity, a, b, to=folder / "report.html")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture(params=[(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")], ids=lambda p: f"{p[0]}-{p[1]}")
def opened(browser, page_path, request):
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda sent: asked.append(sent.url))
    page.goto(Path(page_path).as_uri())
    yield page, said, asked, width, scheme
    context.close()


def test_the_report_is_offline_silent_and_fits(opened, page_path):
    page, said, asked, width, _ = opened
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [Path(page_path).as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # nothing but the boxes that are made for it may scroll sideways
    wide = page.evaluate(
        """() => [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, pre, svg, details:not([open])'))
            .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert wide == []


def test_headline_findings_and_figures_are_there(opened):
    page, _, _, _, _ = opened
    assert page.locator("h1").inner_text() == "What net-a and net-b represent"
    findings = page.locator(".found").first.inner_text()
    assert "effective_rank" in findings and "at step" in findings
    assert "net-a and net-b are most alike" in findings
    assert "has no number for 1 of 10: net-a final_norm." in page.locator(".cautions").inner_text()
    drawn = page.locator("figure svg")
    assert drawn.count() == 9  # the run, four measures, the scales of two systems, two maps
    for i in range(drawn.count()):
        box = drawn.nth(i).bounding_box()
        assert box is not None and box["width"] > 200 and box["height"] > 120


def test_text_in_figures_has_the_contrast_of_the_page(opened):
    page, _, _, _, scheme = opened
    ink = page.evaluate("getComputedStyle(document.body).color")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    label = page.evaluate("getComputedStyle([...document.querySelectorAll('figure svg text')].find(t => /step/.test(t.textContent))).fill")
    assert label == ink
    brightness = [sum(int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")) / 3 for color in (ink, paper)]
    assert (brightness[0] < 60 and brightness[1] > 230) if scheme == "light" else (brightness[0] > 200 and brightness[1] < 60)


def test_tables_open_without_script(opened):
    page, _, _, _, _ = opened
    details = page.locator("details", has_text="numbers").first
    details.locator("summary").click()
    assert details.locator("table").is_visible()
