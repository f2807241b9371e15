"""Measures along the checkpoints of a training run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from torch import nn

from inscape.capturing import capture
from inscape.errors import DegenerateInputError, TooFewStimuliError
from inscape.measures.base import Measure
from inscape.measures.inputs import Measures, as_measures
from inscape.measures.registry import get
from inscape.measures.verbs import compare, measure
from inscape.models import Model, load
from inscape.results import Result
from inscape.store import Store


def trajectory(
    checkpoints: Mapping[int, Any] | Iterable[tuple[int, Any]] | str | os.PathLike[str],
    stimuli: Any,
    *,
    sites: str | Sequence[str],
    measures: Measures,
    tokens: Any = "last",
    labels: Any = None,
    weights: Any = None,
    groups: Any = None,
    interval: str | int | None = "auto",
    seed: int = 0,
    system: str | None = None,
    against: str = "last",
    to: str | os.PathLike[str] | None = None,
    **loading: Any,
) -> Result:
    """Measures every checkpoint of a training run on the same stimuli.

    Measures of one system are taken at each site of each checkpoint. Measures of a pair compare a site with the same site of the last
    checkpoint, or of the one before. Each row holds the step in `at`; of a measure that is a curve only its headline is kept.

    Args:
        checkpoints: steps with models, in any order; a model is whatever `ix.load` takes. They are asked for one by one, so a generator
            may load or train them on the way. Or a folder of checkpoints, each a folder whose name ends in its step (`checkpoint-500`).
        stimuli: as for `ix.capture`.
        sites: names or globs.
        measures: names or measures, of one system or of a pair.
        tokens: which positions of a text make the rows.
        labels: a column or one label per row, for measures that need labels.
        weights: layers that measures read beside the rows, as for `ix.measure`; a name ("lm_head") is that module of each checkpoint.
            Default each checkpoint's last linear layer.
        groups: what is independent, as for `ix.measure`.
        interval: as for `ix.measure`.
        seed: of the inference.
        system: what the run is called in the result; by default the name of the first model.
        against: "last" or "previous": which checkpoint measures of a pair set a site beside; the first has none before it.
        to: a folder for the captures, one store a step; by default they stay in memory (measures of a pair need them all at the end).
        **loading: keywords for `ix.load`, such as `tokenizer`.

    Raises:
        TooFewStimuliError: there are fewer than two checkpoints.
        DegenerateInputError: two checkpoints of one step, or a name in `weights` that a checkpoint lacks.
        ValueError: `against` is neither "last" nor "previous".
        UnknownMeasureError: no measure has that name.

    Example:
        >>> runs = {1000: "my-model/step1000", 2000: "my-model/step2000"}    # doctest: +SKIP
        >>> trajectory(runs, texts, sites="blocks.*.resid_post", measures=["effective_rank", "linear_cka_debiased"]).plot()
    """
    if against not in ("last", "previous"):
        raise ValueError(f"against={against!r}: a checkpoint is set beside the 'last' or the 'previous' one")
    single, pairs = _by_arity(measures)
    stores: dict[int, Store] = {}
    found: dict[int, list[Result]] = {}
    names: dict[int, str] = {}
    for place, (step, source) in enumerate(_steps(checkpoints), 1):
        named = f"the {place}. checkpoint ({source if isinstance(source, (str, os.PathLike)) else type(source).__name__})"
        if step in names:
            raise DegenerateInputError(f"step {step} is that of {names[step]} and of {named}; give each checkpoint a step of its own")
        names[step] = named
        model = source if isinstance(source, Model) else load(source, **loading)
        system = system or model.name
        folder = None if to is None else Path(to) / f"step-{step:08d}"
        store = capture(model, stimuli, sites=sites, tokens=tokens, to=folder, label=system, progress=False)
        options: dict[str, Any] = {"groups": groups, "interval": interval, "seed": seed}
        found[step] = [measure(store, single, labels=labels, weights=_layers(weights, model), **options)] if single else []
        if pairs:
            stores[step] = store
    if len(found) < 2:
        raise TooFewStimuliError(f"a trajectory needs at least 2 checkpoints, got {len(found)}; pass pairs of step and model")
    order = sorted(found)
    beside = dict(pairwise(reversed(order))) if against == "previous" else dict.fromkeys(order, order[-1])
    for step, target in beside.items() if pairs else ():
        found[step].append(compare(stores[step], stores[target], pairs, pairs="diagonal", groups=groups, interval=interval, seed=seed))
    rows: list[dict[str, Any]] = []
    for step in sorted(found):
        for row in (row for part in found[step] for row in part.rows() if row["at"] is None):
            other = {"system_b": f"{system}, step {beside[step]}"} if row["site_b"] else {}
            rows.append({**row, **other, "axis": "step", "at": step})
    settings = dict(Result.merge(part for step in sorted(found) for part in found[step]).settings)
    for name in ("parts", "left_out"):  # what differs between steps is how long each took; arrays of groups are not kept here
        settings.pop(name, None)
    settings |= {"verb": "trajectory", "result": "trajectory", "measures": [one.label for one in (*single, *pairs)]}
    settings |= {
        "against": against,
        "steps": sorted(found),
        "sites": [sites] if isinstance(sites, str) else list(sites),
        "tokens": str(tokens),
    }
    return Result(rows, settings=settings)


def checkpoints_of(folder: str | os.PathLike[str]) -> dict[int, str]:
    """The checkpoints in a folder by their step: folders whose names end in a number.

    Raises:
        TooFewStimuliError: there is none.
        DegenerateInputError: two of one step.
    """
    found: dict[int, str] = {}
    for path in sorted(Path(folder).iterdir()):
        if path.is_dir() and (match := re.search(r"(\d+)$", path.name)):
            if (step := int(match[1])) in found:
                raise DegenerateInputError(
                    f"{found[step]} and {path} are both of step {step}; move one of them away, or give a dictionary from step to checkpoint"
                )
            found[step] = str(path)
    if not found:
        raise TooFewStimuliError(
            f"{folder} holds no checkpoint: none of its folders has a name that ends in a step, such as checkpoint-500"
        )
    return dict(sorted(found.items()))


def _steps(checkpoints: Mapping[int, Any] | Iterable[tuple[int, Any]] | str | os.PathLike[str]) -> Iterable[tuple[int, Any]]:
    if isinstance(checkpoints, (str, os.PathLike)):
        return checkpoints_of(checkpoints).items()
    return cast("Mapping[int, Any]", checkpoints).items() if isinstance(checkpoints, Mapping) else checkpoints


def _layers(weights: Any, model: Model) -> Any:
    """What `weights=` stands for in one checkpoint."""
    if weights is None:
        return model
    if isinstance(weights, Mapping):
        entries = cast("Mapping[str, Any]", weights)
        return {site: _layers(entry, model) for site, entry in entries.items()}
    if not isinstance(weights, str):
        return weights
    try:
        return model.module.get_submodule(weights)
    except AttributeError as error:
        known = [name for name, part in model.module.named_modules() if isinstance(part, nn.Linear)]
        raise DegenerateInputError(f"weights={weights!r} is no module of {model.name}; its linear layers: {', '.join(known)}") from error


def _by_arity(measures: Measures) -> tuple[list[Measure], list[Measure]]:
    """Measures of one system and of a pair, each checked and without repetition."""
    asked = [measures] if isinstance(measures, (str, Measure)) else list(measures)
    chosen = [get(one) if isinstance(one, str) else one for one in asked] or as_measures([], arity=1)
    single, pairs = ([one for one in chosen if one.arity == arity] for arity in (1, 2))
    return as_measures(single, arity=1) if single else [], as_measures(pairs, arity=2) if pairs else []
