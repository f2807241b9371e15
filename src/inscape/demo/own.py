"""The demo on a model and texts of the user's own."""

from __future__ import annotations

import os
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import inscape as ix
from inscape import zoo
from inscape.demo.telling import Teller, extremes, fresh, stated, titled
from inscape.models import Model
from inscape.results import Result

SITES = "blocks.*.resid_post"
# Fewer texts than this give too few rows for a spectrum, so each token becomes a row.
FEW = 50


def own_model(out: Path, model: Any, texts: Any, *, seed: int, small: bool, say: Teller) -> Path:
    """Reads texts with a model, measures every layer, compares the layers with each other, and reports."""
    named = model.name if isinstance(model, Model) else str(model)
    say(f"Loading {named} …")
    loaded = ix.load(model)
    stimuli, what = texts, "your texts"
    if texts is None:
        stimuli, what = zoo.standard_library().windows(500, 120), "pieces of the Python standard library"
    elif _is_path(texts):
        what = f"the texts of {os.fspath(texts)}"
    given = ix.Stimuli.of(stimuli)
    if small and len(given) > 32:
        given = ix.Stimuli([given[i] for i in range(32)])
        what = f"the first 32 of {what}"
    tokens = "mean" if len(given) >= FEW else "all"
    rows = "the mean over the tokens of a text" if tokens == "mean" else "every token (there are few texts)"
    say(f"Reading {what} ({len(given):,}) at {SITES}; a row is {rows} …")
    folder = fresh(out / "stores" / (re.sub(r"[^\w.-]+", "-", loaded.name) or "model"))
    store = ix.capture(loaded, given, sites=SITES, tokens=tokens, to=folder, label=loaded.name, progress=False)
    command = "inscape demo" + _option("--model", model) + _option("--texts", texts) + f" --seed {seed}" * bool(seed) + " --small" * small
    # The first token of many texts is the same, and points that coincide have no nearest neighbor to measure: not for tokens.
    measures = ["effective_rank", "mean_cosine"] + ["two_nn"] * (tokens == "mean")
    profile = ix.measure(store, measures, seed=seed)
    rank = profile.where(measure="effective_rank").rows()
    _tell_rank(rank, say)
    cosine = [row for row in profile.where(measure="mean_cosine").rows() if row["value"] is not None]
    if cosine and (narrow := extremes(cosine)[1])["value"] > 0.5:
        say.finding(
            f"At {narrow['site']} two rows have a mean cosine of {stated(narrow)}: all point much the same way, so center before comparing."
        )
    say("Comparing the layers with each other …")
    alike = ix.compare(store, store, ["linear_cka_debiased", "mutual_knn"], sample=2048, seed=seed)
    _tell_change(alike, store.sites, say)
    told = [titled(profile, "Layer by layer", command), titled(alike, "How alike the layers are", command)]
    for result, name in zip(told, ("profile", "layers"), strict=True):
        result.save(out / "results" / name)
    return ix.report(*told, store, to=out / "report.html", title=f"What {loaded.name} represents of {what}")


def _tell_rank(rows: list[dict[str, Any]], say: Teller) -> None:
    known = [row for row in rows if row["value"] is not None]
    if not known:
        say(f"The effective rank could not be computed: {rows[0]['reason']}")
        return
    low, high = extremes(known)
    say.finding(
        f"The effective rank (how many directions are in use) is smallest at {low['site']}, {stated(low)}, and largest at {high['site']}, "
        f"{stated(high)}, of {low['d']} dimensions and {low['n']:,} rows."
    )


def _tell_change(result: Result, sites: list[str], say: Teller) -> None:
    """The step between neighboring layers that changes the geometry most."""
    steps: list[dict[str, Any]] = []
    for before, after in pairwise(sites):
        rows = result.where(measure="linear_cka_debiased", site=before, site_b=after).rows()
        steps += [row for row in rows if row["value"] is not None]
    if steps:
        turn = extremes(steps)[0]
        say.finding(
            f"The largest change of geometry between neighbors is from {turn['site']} to {turn['site_b']}: debiased CKA {stated(turn)}."
        )


def _is_path(texts: Any) -> bool:
    return isinstance(texts, (str, os.PathLike))


def _option(name: str, value: Any) -> str:
    return f" {name} {shlex.quote(os.fspath(value))}" if _is_path(value) else ""
