"""The verb `decompose`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from inscape.dictionaries.base import Recipe
from inscape.dictionaries.checkpoints import STATE, check_plan
from inscape.dictionaries.closed import Closed
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.rows import check_paired
from inscape.dictionaries.run import Job, Run, first_process, train
from inscape.dictionaries.saving import DESCRIPTION, load, save
from inscape.dictionaries.source import captured, is_model
from inscape.dictionaries.trained import Trained
from inscape.errors import DictionaryError
from inscape.store import Store, View, view_of
from inscape.store import open as open_store

Group = tuple[View, ...]


def decompose(
    data: Any,
    dictionary: Any,
    rows: int | None = None,
    *,
    seed: int | Sequence[int] = 0,
    batch: int | None = None,
    rate: float | None = None,
    normalize: str = "scale",
    to: str | Path | None = None,
    every: int | None = None,
    progress: bool | None = None,
) -> Any:
    """Fits dictionaries: directions of which each row is a sparse (or, for PCA and ICA, a plain) combination.

    Args:
        data: a view, an array [n, d], a store (one dictionary for each site), or `(model, stimuli, site)`: rows of all tokens, which lie on
            disk for as long as the fit lasts where they are many, so that memory stays bounded. A transcoder takes a pair of views, read
            and written; a crosscoder several views, or a store.
        dictionary: what to fit, such as `ix.dictionaries.TopK(width=8192, k=32)`; or several, which see the same batches.
        rows: rows to train on, counted each time they are seen. Default: every row once, but 500 000 at least. Kinds that are computed
            without steps (PCA, ICA, SemiNMF) take every row; `info` says how many, and whether iterations converged.
        seed: seed of first values and order; or several, one dictionary for each.
        batch: rows of a step. Default: a 300th of `rows` rounded down to a power of two, within 256 and 4096.
        rate: highest learning rate of Adam. Default: from steps, width and batch.
        normalize: "scale" (mean 0, mean square 1) or "whiten" (all directions alike) for the training; folded into the result.
        to: a folder for the result, and for checkpoints, from which the same call goes on after an interruption.
        every: steps between checkpoints. Default: a tenth of all.
        progress: a bar with rate and time left; default: on a terminal.

    Returns:
        A fitted `Dictionary`; a list of them, in the order of sites, dictionaries and seeds, where several of any were asked for.

    Raises:
        DictionaryError: settings that make no sense for these rows, or a folder with another training.
        DivergenceError: a training left sensible numbers; names step and cause.
        DegenerateInputError: rows that are not finite, or all equal.

    Example:
        >>> sae = ix.decompose(X, ix.dictionaries.TopK(width=16, k=2), rows=4096)
        >>> sae.W_dec.shape
        torch.Size([16, 8])
    """
    recipes = [dictionary] if isinstance(dictionary, Recipe) else list(dictionary)
    for recipe in recipes:
        if not isinstance(recipe, Recipe):
            raise DictionaryError(f"expected a kind of dictionary such as ix.dictionaries.TopK(width=8192, k=32), got {recipe!r}")
    given = {"batch": batch, "rate": rate, "every": every, "normalize": None if normalize == "scale" else normalize}
    unused = [name for name, value in given.items() if value is not None]
    if unused and recipes and not any(isinstance(recipe, Trained) for recipe in recipes):
        kinds = ", ".join(dict.fromkeys(recipe.kind for recipe in recipes))
        raise DictionaryError(f"{kinds} is computed from all rows without steps; leave out {', '.join(f'{name}=' for name in unused)}")
    if not recipes:
        raise DictionaryError("no dictionary was asked for; for instance ix.dictionaries.TopK(width=8192, k=32)")
    if is_model(data):
        with captured(data, to, progress) as store:
            return decompose(
                store, dictionary, rows, seed=seed, batch=batch, rate=rate, normalize=normalize, to=to, every=every, progress=progress
            )
    seeds = [seed] if isinstance(seed, int) else list(seed)
    groups = _groups(data, recipes)
    several = len(groups) > 1 or not isinstance(dictionary, Recipe) or not isinstance(seed, int)
    for group in groups:
        check_paired(group)
    asked = [(group, recipe, number) for group in groups for recipe in recipes for number in seeds]
    folders = _folders(to, len(asked) if several else None)
    run = Run.planned(groups, rows, batch, rate, normalize, every)
    plans = [run.plan(group, recipe, number) for group, recipe, number in asked]
    if all(folder is not None and (folder / DESCRIPTION).is_file() for folder in folders):
        done = [load(folder) for folder in folders if folder is not None]
        for folder, one, plan in zip(folders, done, plans, strict=True):
            check_plan(Path(str(folder)), one.info.get("plan", {}), plan)
        return done if several else done[0]
    started = time.perf_counter()
    fitted: list[Dictionary | None] = [None] * len(asked)
    jobs: list[Job] = []
    for place, (group, recipe, number) in enumerate(asked):
        if isinstance(recipe, Trained):
            jobs.append(Job(place, group, recipe, number, plans[place]))
        elif isinstance(recipe, Closed):
            tensors, told = recipe.fit(group[0], number)
            fitted[place] = Dictionary(recipe, tensors, _provenance(group, number, plans[place]) | told)
    if jobs:
        for job, tensors, learned in train(jobs, run, Path(to) if to is not None else None, progress):
            about = _provenance(job.group, job.seed, job.plan) | learned
            fitted[job.place] = Dictionary(job.recipe, tensors, about)
    found = [one for one in fitted if one is not None]
    for folder, one in zip(folders, found, strict=True):
        one.info["seconds"] = round(time.perf_counter() - started, 3)
        if folder is not None and first_process():
            save(one, folder)
    if to is not None and first_process():
        (Path(to) / STATE).unlink(missing_ok=True)
    return found if several else found[0]


def _groups(data: Any, recipes: Sequence[Recipe]) -> list[Group]:
    """The sites of each dictionary: one, a pair, or several."""
    kinds = {recipe.sites for recipe in recipes}
    if len(kinds) > 1:
        raise DictionaryError(
            f"{', '.join(recipe.kind for recipe in recipes)} read different numbers of sites; fit them in calls of their own"
        )
    kind, views = kinds.pop(), _views(data)
    if kind == "one":
        return [(view,) for view in views]
    if kind == "pair" and len(views) != 2:
        raise DictionaryError(f"{recipes[0].kind} reads one site and writes another: give (view_in, view_out), got {len(views)} site(s)")
    if kind == "several" and len(views) < 2:
        raise DictionaryError(f"{recipes[0].kind} joins several sites; give a list of views or a store with several, got {len(views)}")
    return [tuple(views)]


def _views(data: Any) -> list[View]:
    if isinstance(data, Store):
        return [data[site] for site in data.sites]
    if isinstance(data, (str, Path)):
        return _views(open_store(str(data)))
    if isinstance(data, Mapping):
        return _views(Store.from_arrays(data))
    if isinstance(data, (tuple, list)) and data and all(isinstance(one, (View, torch.Tensor)) or hasattr(one, "__array__") for one in data):
        return [view_of(one, f"X{index}") for index, one in enumerate(data)]
    return [view_of(data)]


def _folders(to: str | Path | None, count: int | None) -> list[Path | None]:
    if to is None:
        return [None] * (count or 1)
    return [Path(to)] if count is None else [Path(to) / str(index) for index in range(count)]


def _provenance(group: Group, seed: int, plan: Mapping[str, Any]) -> dict[str, Any]:
    first = group[0]
    manifest = first.store.manifest
    sites = [view.site for view in group]
    return {
        "system": first.system,
        "site": sites[0] if len(sites) == 1 else None,
        "sites": sites,
        "seed": seed,
        "model": dict(manifest.model or {}),
        "input": dict(manifest.plan.get("input", {})),
        "tokens": dict(manifest.plan.get("rows", {})),
        "plan": dict(plan),
    }
