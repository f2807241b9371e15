"""A store's notebook page in a real browser, on a light and on a dark page, wide and narrow."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from inscape.store import Store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCHEMES = {"light": ("rgb(255, 255, 255)", "rgb(17, 17, 17)"), "dark": ("rgb(17, 19, 24)", "rgb(230, 230, 230)")}
# What notebooks set for every table.
NOTEBOOK = "table{font-size:12px;margin:0 auto} td,th{text-align:right;padding:.5em} tbody tr:nth-child(odd){background:#f5f5f5}"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (.ci/run installs one)"),
]


@pytest.fixture(scope="module")
def cards():
    rng = np.random.default_rng(0)
    sites = {f"blocks.{i}.resid_post": rng.standard_normal((40, 64)) for i in range(16)}
    table = {"stimulus": [f"s{i}" for i in range(40)], "text": ["a text that goes on and on " * 9] * 40, "score": rng.random(40)}
    store = Store.from_arrays(sites, table, system="net")
    return store._repr_html_() + store["blocks.3.resid_post"]._repr_html_()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_cards_take_the_colors_of_the_notebook_and_fit(browser, cards, scheme, width):
    background, ink = SCHEMES[scheme]
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.set_content(f"<style>{NOTEBOOK}</style><body style='background:{background};color:{ink}'>{cards}</body>")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cells = page.evaluate("[...document.querySelectorAll('td')].map(e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor])")
    assert {tuple(cell) for cell in cells} == {(ink, "rgba(0, 0, 0, 0)")}
    rows = page.evaluate("[...document.querySelectorAll('tr')].map(e => getComputedStyle(e).backgroundColor)")
    assert set(rows) == {"rgba(0, 0, 0, 0)"}
    # numbers stand right, words left, whatever the notebook says
    sides = page.evaluate("[...document.querySelectorAll('td')].map(e => [e.className == 'r', getComputedStyle(e).textAlign])")
    assert {tuple(side) for side in sides} == {(True, "right"), (False, "left")}
    page.close()
