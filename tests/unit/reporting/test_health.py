"""The vital signs of layers: each against NumPy, collapsed networks told from those that work, and the reference as it is shipped."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import inscape as ix
from inscape.errors import ResultError, TooFewStimuliError
from inscape.reporting import Health, health
from inscape.reporting.health import SIGNS, ranges_of, read_layers, read_reference, vital_signs

ROOT = Path(__file__).parents[3]
VOCABULARY, TOKENS, D = 200, 32, 32


def texts(count: int = 40) -> list[list[int]]:
    return np.random.default_rng(0).integers(0, VOCABULARY, (count, TOKENS)).tolist()


def gpt(spread: float = 0.2) -> nn.Module:
    """A GPT-2 with random weights; at a spread of 0.2 its geometry is that of a network that works."""
    import transformers

    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    sizes = {"n_layer": 3, "n_embd": D, "n_head": 4, "n_positions": 64, "vocab_size": VOCABULARY}
    return transformers.GPT2Model(transformers.GPT2Config(**sizes, **ends, initializer_range=spread)).eval()


def names_of(found: Health) -> set[tuple[str, str]]:
    return {(one.sign.name, one.verdict) for one in found.findings}


# -- the signs ---------------------------------------------------------------------------------------------------------------------


def test_signs_equal_numpy() -> None:
    store = read_layers(ix.load(gpt()), texts())
    found = vital_signs(store)
    assert list(found) == [f"blocks.{i}.resid_post" for i in range(3)]
    before = None
    for site, signs in found.items():
        X = store[site].numpy().astype(float).reshape(40, TOKENS, D)
        rows = X[:, 1:].reshape(-1, D)
        centered = rows - rows.mean(0)
        values = np.linalg.svd(centered, compute_uv=False)
        share = values / values.sum()
        assert signs["rank_share"] == pytest.approx(np.exp(-(share * np.log(share)).sum()) / D, rel=1e-6)
        eigenvalues = values**2
        assert signs["isoscore"] == pytest.approx((eigenvalues.sum() ** 2 / (eigenvalues**2).sum() - 1) / (D - 1), rel=1e-6)
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        n = len(units)
        assert signs["mean_cosine"] == pytest.approx(((units.sum(0) ** 2).sum() - n) / (n * (n - 1)), rel=1e-6)
        apart = np.linalg.norm(X - X.mean(1, keepdims=True), axis=(1, 2)) / np.linalg.norm(X, axis=(1, 2))
        assert signs["token_spread"] == pytest.approx(apart.mean(), rel=1e-6)
        assert signs["massive"] == pytest.approx(np.abs(X).max() / np.median(np.abs(X)), rel=0.02)
        assert signs["dead"] == 0
        size = np.sqrt((rows**2).mean())
        assert signs.get("growth") == (None if before is None else pytest.approx(size / before, rel=1e-6))
        before = size


def test_attention_equals_patterns_of_the_model_itself() -> None:
    module = gpt()
    module.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = module(torch.tensor(texts()), output_attentions=True).attentions
    found = vital_signs(read_layers(ix.load(module), texts()))
    for signs, pattern in zip(found.values(), patterns, strict=True):
        entropy = torch.special.entr(pattern.double()).sum(-1).mean()
        assert signs["attention"] == pytest.approx(float(entropy) / np.log(TOKENS), rel=1e-5)


def test_token_spread_is_that_of_the_reducer() -> None:
    store = ix.capture(ix.load(gpt()), texts(), sites=["blocks.1.resid_post", "blocks.1.resid_post|rank_collapse"], tokens="all")
    expected = store["blocks.1.resid_post|rank_collapse"].numpy().mean()
    assert vital_signs(store)["blocks.1.resid_post"]["token_spread"] == pytest.approx(expected, rel=1e-5)


def test_dead_units_are_counted() -> None:
    class Dead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(VOCABULARY, D)
            self.layer = nn.Linear(D, D)
            with torch.no_grad():
                self.layer.weight[:8] = 0

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.layer(self.embed(input_ids))

    torch.manual_seed(0)
    found = health(ix.load(Dead()), texts(), sites=["embed", "layer"])
    assert {one.site: one.value for one in found.readings if one.sign.name == "dead"} == {"embed": 0, "layer": 0.25}
    assert ("dead", "above") in names_of(found)
    assert not any(one.sign.name == "attention" for one in found.readings)  # this network does not attend


# -- the verdict -------------------------------------------------------------------------------------------------------------------


def test_a_network_that_spreads_its_rows_is_in_range(tmp_path: Path) -> None:
    found = health(ix.load(gpt(), name="net"), texts())
    assert found.healthy and not found.findings
    assert found.verdict == "net: all 26 signs of 3 layers are in the range of the reference models."
    text = str(found)
    assert "blocks.2.resid_post" in text and "In range means like the reference, no more" in text and "net: all 26 signs" in text
    result = found.result
    assert result.value(site="blocks.1.resid_post", measure="rank_share") == found.readings[8].value
    assert result.plot(measures=["rank_share"]).axes
    assert {row["n"] for row in result.rows()} == {reading.rows for reading in found.readings} and found.readings[0].rows > 100
    page = ix.report(result, to=tmp_path / "page.html").read_text()
    assert "How far the tokens of a text lie from their mean." in page and "n = unknown" not in page
    assert len(health(ix.load(gpt()), texts(), sites="blocks.0.resid_post").readings) == len(SIGNS) - 1


def test_embeddings_on_a_line_are_told() -> None:
    module = gpt()
    with torch.no_grad():
        module.wte.weight.copy_(torch.outer(torch.randn(VOCABULARY), torch.randn(D)))
        module.wpe.weight.zero_()
        for block in module.h:
            block.attn.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()
    found = health(ix.load(module, name="line"), texts())
    assert names_of(found) >= {("rank_share", "below"), ("isoscore", "below"), ("two_nn", "below")}
    assert found.verdict.startswith("line: 3 of 3 layers are out of range, in rank_share, isoscore")
    assert re.search(r"  rank_share 0.031\d (\(≥ 0.20\)) at 3 layers, furthest at .*: few directions are in use: collapse", str(found))


def test_tokens_that_become_one_vector_are_told() -> None:
    module = gpt(0.02)
    with torch.no_grad():
        module.wte.weight.copy_(torch.randn(1, D) + 1e-3 * torch.randn(VOCABULARY, D))
        module.wpe.weight.zero_()
    assert names_of(health(ix.load(module), texts())) >= {("token_spread", "below"), ("mean_cosine", "above")}


def test_weights_that_start_too_large_collapse_the_attention() -> None:
    found = health(ix.load(gpt(5.0)), texts())
    assert names_of(found) == {("attention", "below")}
    assert "heads look at one token each" in str(found)


def test_activations_that_explode_are_told() -> None:
    module = gpt()
    with torch.no_grad():
        module.h[1].mlp.c_proj.weight.mul_(100)
    found = health(ix.load(module), texts())
    assert [one.site for one in found.findings if one.sign.name == "growth"] == ["blocks.1.resid_post"]


def test_a_dead_layer_is_a_finding_not_an_end() -> None:
    module = gpt()
    with torch.no_grad():
        for part in (module.wte, module.wpe):
            part.weight.zero_()
        for block in module.h:
            for name in ("attn", "mlp"):
                getattr(block, name).c_proj.weight.zero_()
                getattr(block, name).c_proj.bias.zero_()
    found = health(ix.load(module), texts())
    assert not found.healthy
    assert {one.sign.name for one in found.findings} >= {"rank_share", "two_nn"}
    assert "has no number" in str(found)
    assert found.result.where(measure="two_nn").rows()[0]["status"] == "degenerate"


# -- rows and texts ----------------------------------------------------------------------------------------------------------------


def test_few_rows_are_refused_and_some_are_noted() -> None:
    with pytest.raises(TooFewStimuliError, match="31 token rows after the first of each text, for 32 units; a reading needs at least 64"):
        health(ix.load(gpt()), texts(1))
    found = health(ix.load(gpt()), texts(5))
    assert any("155 rows for 32 units: ranks and isotropy come out low" in note for note in found.notes)


def test_many_texts_are_thinned_and_it_is_said() -> None:
    found = health(ix.load(gpt()), texts(300), sites="blocks.0.resid_post")
    assert found.notes == ("256 of 300 texts, evenly spaced, were read",)


# -- the reference -----------------------------------------------------------------------------------------------------------------


def test_the_reference_is_the_range_of_its_layers() -> None:
    held = read_reference()
    assert ranges_of(list(held["models"].values())) == held["ranges"]
    layers = [layer for layers in held["models"].values() for layer in layers.values()]
    assert len(layers) == 25
    for sign in SIGNS:
        values = [layer[sign.name] for layer in layers if sign.name in layer]
        assert held["ranges"][sign.name] == [min(values), max(values)]


def test_another_reference_decides_otherwise(tmp_path: Path) -> None:
    held = read_reference()
    strict = {**held, "models": {"mine": {}}, "ranges": {**held["ranges"], "rank_share": [3.0, 4.0]}}
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(strict))
    for reference in (strict, file):
        found = health(ix.load(gpt()), texts(), reference=reference)
        assert names_of(found) == {("rank_share", "below")}
        assert found.models == ("mine",)


def test_what_is_no_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="the reference .* cannot be read: .*make one with python -m studies.health_reference"):
        read_reference(tmp_path / "none.json")
    with pytest.raises(ResultError, match="lacks models, ranges"):
        read_reference({"signs": {}})
    with pytest.raises(ResultError, match="lacks isoscore, two_nn"):
        read_reference({"models": {}, "ranges": {"rank_share": [0, 1]}})


def test_the_page_quotes_the_reference() -> None:
    """Every row of the page's tables of layers is in the file that is shipped."""
    held = read_reference()
    layers = {name: signs for group in ("models", "not_reference") for name, signs in held[group].items()}
    lines = (ROOT / "docs" / "health.md").read_text().splitlines()
    header = next(line for line in lines if line.startswith("| model | layer"))
    names = [cell.strip(" `") for cell in header.strip("|").split("|")][2:]
    quoted = [line for line in lines[lines.index(header) :] if line.startswith("| ") and not line.startswith(("| model", "| ---"))]
    assert len(quoted) == 20
    for line in quoted:
        model, layer, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        signs = layers[model][f"blocks.{layer}.resid_post"]
        for name, cell in zip(names, cells, strict=True):
            assert cell == ("–" if name not in signs else f"{signs[name]:.2g}"), (line, name)


def test_the_page_tells_which_steps_of_training_are_in_range() -> None:
    held = read_reference()
    limits = {one.sign.name: one for one in health(ix.load(gpt()), texts(), sites="blocks.*.resid_post").readings}

    def inside(layers: dict[str, dict[str, float]]) -> bool:
        pairs = [(limits[name], value) for signs in layers.values() for name, value in signs.items() if name != "rows"]
        return all((value >= one.low or not one.sign.below) and (value <= one.high or not one.sign.above) for one, value in pairs)

    found = {name.split(" on ")[0].split(" at ")[1]: inside(layers) for name, layers in held["not_reference"].items()}
    assert found == {"step 0": True, "step 16": False, "step 64": False, "step 128": False, "step 256": False, "step 512": True}
    assert all(inside(layers) for layers in held["models"].values())
