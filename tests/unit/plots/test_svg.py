"""Inline drawings: valid, small, the page's own colors, and the same bytes every time."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
from matplotlib.figure import Figure

from inscape.plots import layer_curves, site_heatmaps
from inscape.plots.svg import inline, vector
from inscape.plots.theme import THEMES, page_colors


def test_an_inline_drawing_is_valid_and_takes_the_pages_colors(profile):
    text = inline(lambda theme: layer_curves(profile, theme=theme), name="f1", alt='two "panels" & more')
    root = ET.fromstring(text)
    assert root.tag.endswith("svg")
    assert root.get("aria-label") == 'two "panels" & more'
    assert "currentColor" in text and "light-dark(#0072B2,#4FA3DB)" in text and "var(--muted" in text
    assert not set(page_colors()) & set(re.findall(r"#[0-9a-f]{6}\b", text))
    assert "two_nn" in text  # words stay words: they can be searched and read aloud
    assert len(text) < 40_000


def test_numbers_that_are_read_keep_their_digits():
    def draw(theme):
        figure = Figure(figsize=(3, 2))
        ax = figure.subplots()
        ax.plot([0, 1], [0.925, 0.93])
        ax.set_yticks([0.925, 0.93], ["0.925", "0.930"])
        return figure

    text = inline(draw, name="f0", alt="")
    assert ">0.925<" in text and ">0.930<" in text
    assert not re.search(r' d="[^"]*\.\d{3}', text)  # coordinates are cut


def test_identifiers_carry_the_name_and_every_reference_resolves(comparison):
    text = inline(lambda theme: site_heatmaps(comparison, theme=theme), name="f2", alt="")
    ids = set(re.findall(r' id="([^"]+)"', text))
    references = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert references <= ids
    assert all(name.startswith("f2-") for name in ids)


def test_the_same_figure_gives_the_same_bytes(comparison):
    assert vector(site_heatmaps(comparison)) == vector(site_heatmaps(comparison))
    assert "<dc:date>" not in vector(site_heatmaps(comparison))


def test_a_drawing_with_too_many_marks_becomes_a_picture_for_each_paper():
    def draw(theme):
        figure = Figure(figsize=(3, 2))
        ax = figure.subplots()
        rng = np.random.default_rng(0)
        for _ in range(60):
            ax.plot(rng.standard_normal(200), rng.standard_normal(200), color=THEMES[theme].ink)
        return figure

    text = inline(draw, name="f3", alt="a cloud")
    assert text.startswith("<picture>") and text.count("data:image/png;base64,") == 2
    assert "prefers-color-scheme: dark" in text and 'alt="a cloud"' in text
