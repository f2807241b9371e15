"""The verbs `measure`, `compare` and `plan`."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from inscape.errors import StimuliError, TooFewStimuliError, UnknownMeasureError
from inscape.measures.best import take_left_out
from inscape.measures.cautions import tell, truncation
from inscape.measures.definition import Measure
from inscape.measures.inputs import (
    Measures,
    as_measures,
    as_views,
    label_names,
    share_notes,
    with_curves,
    without_failed_curves,
)
from inscape.measures.of_models import captured, holds_models, without_paths
from inscape.measures.one_system import Row, measure_sites, plan_sites
from inscape.measures.pairs import Pairs, compare_matched, failed_row, finish, match, plan_pairs, wanted_pairs
from inscape.measures.parameters import matrices_as_views, parameters_of
from inscape.measures.repeated import compare_repeated
from inscape.measures.rsa_verb import RSA_DRAWS, asks_for_rsa, compare_rsa
from inscape.measures.straight import measure_model
from inscape.measures.systems import as_systems, compare_systems
from inscape.measures.uncertainty import Uncertainty, warn_once
from inscape.measures.unpaired import compare_unpaired
from inscape.models import Model
from inscape.results import Result
from inscape.store import View
from inscape.summaries.plan import Plan, memory_budget

# Permutations and bootstrap samples of a comparison that asks for no number.
DEFAULT_DRAWS = 200


def measure(
    data: Any,
    measures: Measures,
    *,
    labels: Any = None,
    weights: Any = None,
    stimuli: Any = None,
    sites: Any = None,
    tokens: Any = None,
    interval: str | int | None = "auto",
    groups: Any = None,
    null: str | None = None,
    draws: int = 200,
    correction: str | None = "max",
    level: float = 0.95,
    memory: str | int = "4GB",
    seed: int = 0,
) -> Result:
    """Measures every site of a system: one number with its interval per site and measure.

    Args:
        data: a store (or its path), a view, an array [n, d] whose rows are stimuli, a dictionary from name to array, or a `Model` with
            `stimuli`, which is then measured straight from its forward passes. Measures of weights take a matrix, a dictionary of
            matrices, or a `Model` alone, whose parameters they then go through.
        measures: names or measures, one or several; `inscape measures` lists them.
        labels: for measures of classes: the name of a column, or one label per row or stimulus; "next_token" for the token that follows
            each token row, which leaves out the rows that none follows; for measures of factors: several names, a dictionary of columns, or
            an array [n, f].
        weights: for measures that set rows beside the layer that reads them: a matrix [out, d], a pair (matrix, bias), a linear layer, a
            model (its last linear layer), or a dictionary from site to one of these; default, with a model: its own last linear layer.
        stimuli: with a model, what `ix.capture` takes.
        sites: with a model, the sites to measure, by default `blocks.*.resid_post`; for measures of weights globs of parameters, by
            default all with two axes or more.
        tokens: with a model, the positions that give rows, as in `ix.capture`.
        interval: "auto" (delete-group jackknife, as many of 32 groups as are cheap), "jackknife", a number of groups, or None.
        groups: rows of one group are dependent and leave together: a column name, or one label per row or stimulus; default the stimulus.
        null: "permute" shuffles the labels of labeled measures over sources.
        draws: permutations.
        correction: of p over sites: "max" (null of the maximum), "holm", "bh" or None.
        level: coverage of the intervals.
        memory: most memory that rows and summaries may take, as in "4GB".
        seed: seed of groups and permutations.

    Returns:
        A `Result` with a row per site and measure (a curve adds a row per place). A dimension that is read at one scale comes with its
        curve over scales (`gride`, `mle_dimension_curve`), and says in `reason` where it depends on the scale. A site or measure that is
        undefined has no value but a `status` and a `reason`.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((200, 5))
        >>> round(ix.measure(X, "participation_ratio").value(), 1)
        4.8
    """
    started = time.perf_counter()
    uncertainty = Uncertainty(interval, level, null, draws, correction, seed)
    asked = as_measures(measures, arity=1)
    chosen = with_curves(asked)
    if null not in (None, "permute"):
        raise ValueError(f"null={null!r} is for pairs of systems; ix.measure shuffles labels with null='permute'")
    budget = memory_budget(memory)

    told: list[str] = []

    def stored(views: Sequence[View], weights: Any = weights) -> list[Row]:
        ready = plan_sites(views, chosen, uncertainty, budget, groups)
        found, cautions = measure_sites(views, chosen, ready, labels=labels, groups=groups, uncertainty=uncertainty, weights=weights)
        tell(cautions)
        told.extend([*truncation(views), *cautions])
        return found

    if isinstance(data, Model) and all(one.of_weights for one in chosen):
        if stimuli is not None:
            names = ", ".join(one.label for one in chosen)
            raise StimuliError(f"{names} of the model {data.name!r} looks at its parameters; leave stimuli= out")
        rows, systems = stored(parameters_of(data, sites)), [{"system": data.name, "path": None, "model": data.identity()}]
    elif isinstance(data, Model):
        mixed = [one.label for one in chosen if one.of_weights]
        if mixed:
            raise UnknownMeasureError(
                f"{', '.join(mixed)}: of a model's parameters, not of its activations; measure it in a call of its own"
            )
        if stimuli is None:
            raise StimuliError(f"ix.measure of the model {data.name!r} needs stimuli=; or capture a store first with ix.capture")
        rows = measure_model(
            data,
            stimuli,
            chosen,
            sites="blocks.*.resid_post" if sites is None else sites,
            tokens=tokens,
            labels=labels,
            weights=data if weights is None else weights,
            groups=groups,
            uncertainty=uncertainty,
            budget=budget,
            from_store=lambda store, layer: stored(as_views(store), layer),
        )
        systems = [{"system": data.name, "path": None, "model": data.identity()}]
    else:
        apart = isinstance(data, Mapping) and all(one.of_weights for one in chosen)
        views = matrices_as_views(data, "X") if apart else as_views(data)
        rows, systems = stored(views), _provenance(views)
    rows = without_failed_curves(rows, asked)
    warn_once(rows)
    share_notes(rows)
    settings = {"verb": "measure", "measures": [one.label for one in chosen], "memory": budget, **uncertainty.settings()}
    settings |= {
        "systems": systems,
        "warnings": told,
        "labels": label_names(labels),
        "groups": groups if isinstance(groups, str) else None,
        "options": _options(chosen, rows),
        "seconds": time.perf_counter() - started,
    }
    return Result(rows, settings=settings)


def compare(
    a: Any,
    b: Any,
    measures: Measures,
    *,
    stimuli: Any = None,
    sites: Any = "blocks.*.resid_post",
    tokens: Any = None,
    pairs: Pairs = "all",
    interval: str | int | None = "auto",
    groups: Any = None,
    null: str | None = None,
    draws: int | None = None,
    correction: str | None = "max",
    level: float = 0.95,
    repeats: str | None = None,
    on: str | None = None,
    sample: int | None = None,
    generalize_to: str | Collection[str] | None = None,
    ceiling: bool = False,
    control: Any = None,
    memory: str | int = "4GB",
    seed: int = 0,
) -> Result:
    """Compares the sites of one system with those of another, rows paired by stimulus (and position).

    Args:
        a: a store (or its path), a view, an array [n, d], a dictionary of arrays, or a model, which is then run over `stimuli`. With b=None
            a list of these, or a dictionary from name to store or model, is several systems, and all pairs of them are compared, sites of
            one name with each other. For RSA: models, as `RDMs`, flexible models (`inscape.rsa.weighted`), sites, or a list or dictionary
            of these.
        b: the same for the second system; the same object compares a system's sites with each other. For RSA: subjects, as `RDMs` or
            {subject: view or array}, whose units may differ.
        measures: names or measures of a pair.
        stimuli: with models, what `ix.capture` takes; all of them read the same.
        sites: with models, the sites to compare: layers, units ("blocks.*.mlp_act"), attention ("blocks.*.attn_pattern|distance").
        tokens: with models, the positions that give rows, as in `ix.capture`.
        pairs: "all" sites with all, "diagonal" (the i-th with the i-th), "kind" (those whose names differ in numbers alone, so that layers
            meet layers and attention meets attention), or a list of (site of a, site of b).
        interval: "auto" (delete-group jackknife, as many of 32 groups as are cheap), "jackknife", a number of groups, "bootstrap"
            (percentiles over weights, for the measures that stay valid under it), or None.
        groups: rows of one group are dependent; a column of `a`'s stimuli, or one label per row or stimulus; default the stimulus.
        null: "permute" breaks the pairing of rows, source by source: gives p, null mean and calibrated score. "sequential" does the same
            and stops once 20 draws have reached every score: far fewer where nothing is found. "closed" takes the exact moments over all
            pairings and needs no draw, for linear_cka and linear_cka_debiased of independent rows.
        draws: permutations, the same ones at every pair of sites, at most so many of a sequential null; and bootstrap samples. Default
            200, for RSA 1,000.
        correction: of p over pairs of sites: "max" (null of the best score, from shared draws; Holm's where a null has none), "holm",
            "bh" or None.
        level: coverage of the intervals.
        repeats: "mean", "split" or "all" where stimuli were shown several times.
        on: "intersection" compares the stimuli that both have; by default differing stimuli are refused.
        sample: compare at most this many rows, the same at every site and system (smallest keyed hashes).
        generalize_to: for RSA, "stimuli", "subjects", or both in a set: whose sampling the intervals and tests allow for. Default all that
            there are enough of.
        ceiling: for RSA, adds the noise ceiling over subjects: leave-one-out (lower) and pooled (upper).
        control: for RSA, matrices whose part is taken out of models and data by regression (partial RSA).
        memory: most memory that rows and summaries may take.
        seed: seed of groups, permutations and sample.

    Returns:
        A `Result` with a row per pair of sites and measure; `ix.measures.best_match` reads from it which site matches which.
        For RSA, a row per model, and rows for its subjects, the ceiling, the differences between models and from the ceiling, and fitted
        weights, told apart by `axis` and `at`.

    Raises:
        StimuliError: models without stimuli, or stimuli without a model.
        StoreMismatchError: no pair of sites has rows that can be paired; the text shows which ids differ.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 5))
        >>> round(ix.compare(X, 2 * X, "linear_cka").value(), 6)
        1.0
    """
    started = time.perf_counter()
    uncertainty = Uncertainty(interval, level, null, DEFAULT_DRAWS if draws is None else draws, correction, seed)
    chosen = as_measures(measures, arity=2)
    options: dict[str, Any] = {"interval": interval, "groups": groups, "null": null, "draws": draws, "correction": correction}
    options |= {"level": level, "repeats": repeats, "on": on, "sample": sample, "memory": memory, "seed": seed}
    rsa: dict[str, Any] = {"generalize_to": generalize_to, "ceiling": ceiling, "control": control}
    if holds_models(a, b):
        with captured((a, b), stimuli=stimuli, sites=sites, tokens=tokens) as (first, second):
            found = compare(first, first if b is a else second, chosen, pairs=pairs, **options, **rsa)
        return Result(found.rows(), settings=without_paths(found.settings), arrays=found.arrays)
    if stimuli is not None:
        raise StimuliError("stimuli= are for models; neither side is one, and stores and arrays have been run over theirs")
    if asks_for_rsa(a, b, **rsa):
        given = {**rsa, "groups": groups, "pairs": pairs, "repeats": repeats, "on": on, "sample": sample}
        asked = Uncertainty(interval, level, null, RSA_DRAWS if draws is None else draws, correction, seed)
        return compare_rsa(a, b, chosen, uncertainty=asked, options=given)
    systems = as_systems(a) if b is None else None
    if systems is not None:
        if pairs != "all":
            raise ValueError(f"pairs={pairs!r}: several systems are compared site by site, sites of one name with each other")
        rows, known = compare_systems(systems, lambda x, y, sites: compare(x, y, chosen, pairs=sites, **options), correction)
        arrays, axes = take_left_out(rows)
        settings = {"verb": "compare", "result": "systems", "measures": [one.label for one in chosen], **uncertainty.settings()}
        settings |= {"systems": known, "sample": sample, "left_out": axes, "seconds": time.perf_counter() - started}
        return Result(rows, settings=settings, arrays=arrays)
    for name, value, known in (("repeats", repeats, ("mean", "split", "all")), ("on", on, ("all", "intersection"))):
        if value is not None and value not in known:
            raise ValueError(f"{name}={value!r} is none of {known}")
    same = a is b or b is None
    left = as_views(a, "X")
    right = left if same else as_views(b, "Y")
    if repeats == "mean":
        left = [view.mean_over_repeats() for view in left]
        right = left if same else [view.mean_over_repeats() for view in right]
    budget = memory_budget(memory)
    wanted = wanted_pairs(left, right, pairs, same=same)
    loose, chosen = [one for one in chosen if not one.facts.paired], [one for one in chosen if one.facts.paired]
    unpaired = compare_unpaired(left, right, wanted, loose, uncertainty, groups) if loose else []
    noisy, chosen = [one for one in chosen if one.repeated], [one for one in chosen if not one.repeated]
    repeated = compare_repeated(left, right, wanted, noisy, uncertainty) if noisy else []
    if not chosen:
        wanted = []
    found, refused = match(left, right, wanted, same=same, repeats=None if repeats == "mean" else repeats, on=on, sample=sample, seed=seed)
    if not found and refused:
        raise refused[0][1]
    scored: list[Any] = []
    for matched in found:
        if matched.n < 2:
            raise TooFewStimuliError(f"{left[0].system} and {right[0].system} share {matched.n} rows; a comparison needs at least 2")
        plan, route = plan_pairs(matched, chosen, uncertainty, budget, groups)
        scored += compare_matched(matched, chosen, plan, route, groups=groups, uncertainty=uncertainty)
    rows = [*finish(scored, chosen, uncertainty), *finish(repeated, noisy, uncertainty), *unpaired]
    rows += [failed_row(left[i], right[j], one, error) for (i, j), error in refused for one in chosen]
    chosen = [*chosen, *noisy, *loose]
    warn_once(rows)
    settings = {"verb": "compare", "measures": [one.label for one in chosen], "memory": budget, **uncertainty.settings()}
    settings |= {
        "pairs": pairs if isinstance(pairs, str) else [list(pair) for pair in pairs],
        "repeats": repeats,
        "on": on,
        "sample": sample,
    }
    settings |= {"warnings": truncation([*left, *right]), "options": _options(chosen, rows)}
    arrays, axes = take_left_out(rows)
    settings |= {"systems": _provenance([*left, *right]), "left_out": axes, "seconds": time.perf_counter() - started}
    return Result(rows, settings=settings, arrays=arrays)


def plan(
    a: Any,
    measures: Measures,
    b: Any = None,
    *,
    pairs: Pairs = "all",
    interval: str | int | None = "auto",
    null: str | None = None,
    draws: int = 200,
    memory: str | int = "4GB",
) -> Plan:
    """What `measure(a, measures)` or `compare(a, b, measures)` would do: routes, bytes, multiply-adds, passes, time. Runs nothing.

    Args:
        a: as for `compare`.
        measures: names or measures; of one system without `b`, of a pair with it.
        b: the second system; `a` itself to compare its sites with each other.
        pairs: as for `compare`.
        interval: as for `measure`.
        null: as for `compare`.
        draws: permutations.
        memory: most memory that rows and summaries may take.

    Example:
        >>> import numpy as np, inscape as ix
        >>> ix.plan(np.zeros((1000, 64)), "two_nn").passes
        1
    """
    uncertainty = Uncertainty(interval, 0.95, null, draws)
    left = as_views(a)
    budget = memory_budget(memory)
    if b is None:
        return plan_sites(left, with_curves(as_measures(measures, arity=1)), uncertainty, budget)
    right = left if a is b else as_views(b, "Y")
    found, refused = match(
        left, right, wanted_pairs(left, right, pairs, same=a is b), same=a is b, repeats=None, on=None, sample=None, seed=0
    )
    if not found and refused:
        raise refused[0][1]
    parts = [plan_pairs(matched, as_measures(measures, arity=2), uncertainty, budget)[0] for matched in found]
    steps = tuple(step for part in parts for step in part.steps)
    return Plan(steps, budget, max((part.groups for part in parts), default=0), sum(part.seconds for part in parts))


def _options(measures: Sequence[Measure], rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """By measure, the options in force and what else decided its values (a window of ranks, say), once for each shape of site."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in measures:
        shapes = dict.fromkeys((row["n"], row["d"]) for row in rows if row["measure"] == one.label and row.get("value") is not None)
        records = [one.record(n, d) for n, d in shapes]
        found[one.label] = [record for index, record in enumerate(records) if record and record not in records[:index]]
    return {label: records for label, records in found.items() if records}


def _provenance(views: Sequence[View]) -> list[dict[str, Any]]:
    """Which systems the numbers come from: label, path, model identity, and how tokens became rows, as the stores know them."""
    stores = {id(view.store): view.store for view in views}
    return [
        {
            "system": store.system,
            "path": store.path,
            "model": dict(store.manifest.model or {}),
            "input": dict(store.manifest.plan.get("input", {})),
            "rows": dict(store.manifest.plan.get("rows", {})),
        }
        for store in stores.values()
    ]
