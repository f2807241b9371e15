"""The part of `compare` that sets models against the dissimilarities of subjects."""

from __future__ import annotations

import time
from typing import Any

from inscape.measures.inputs import Measures, as_measures
from inscape.measures.uncertainty import Uncertainty, warn_once
from inscape.results import Result
from inscape.rsa import FlexibleModel, RDMs
from inscape.rsa.comparing import Request, as_target, compare_models

# Bootstrap draws where none are asked for: an error bar within 2 % of its own.
RSA_DRAWS = 1000


def asks_for_rsa(a: Any, b: Any, generalize_to: Any, ceiling: bool, control: Any) -> bool:
    """Whether a call of `compare` is about matrices of dissimilarities: one was given, or something only they have was asked for."""
    if b is None and (generalize_to is not None or ceiling or control is not None):
        raise ValueError("generalize_to, ceiling and control set models against subjects: compare(models, {subject: view}, measure)")
    if b is None:
        return False
    given = [a, b, *(a if isinstance(a, (list, tuple)) else []), *(a.values() if isinstance(a, dict) else [])]
    return generalize_to is not None or ceiling or control is not None or any(isinstance(one, (RDMs, FlexibleModel)) for one in given)


def compare_rsa(models: Any, data: Any, measures: Measures, *, uncertainty: Uncertainty, options: dict[str, Any]) -> Result:
    """Rows for each model, the ceilings, the differences, and the fitted weights.

    Args:
        models: what stands for models; see `inscape.compare`.
        data: what stands for subjects.
        measures: measures of two dissimilarity matrices.
        uncertainty: checked settings.
        options: generalize_to, ceiling, control, groups, and what such a comparison does not take.

    Raises:
        ValueError: an option that such a comparison does not have.
    """
    started = time.perf_counter()
    chosen = as_measures(measures, arity=2)
    for one in chosen:
        if {cls.__name__ for cls, _ in one.needs.values()} != {"RDM"}:
            raise ValueError(
                f"{one.label} does not compare dissimilarity matrices; take rsa_corr, rsa_rho_a or another whose name says rsa"
            )
    for name, idle in (("pairs", "all"), ("repeats", None), ("on", None), ("sample", None)):
        if options[name] != idle:
            raise ValueError(f"{name}={options[name]!r} is not for dissimilarity matrices; select stimuli before, with RDMs.select")
    if uncertainty.interval not in ("auto", "bootstrap", None):
        raise ValueError(f"interval={uncertainty.interval!r}: RSA draws stimuli and subjects; use 'auto', 'bootstrap' or None")
    if uncertainty.null not in (None, "permute"):
        raise ValueError(f"null={uncertainty.null!r}: models of dissimilarities are relabeled, null='permute'")
    request = Request(
        generalize_to=as_target(options["generalize_to"]),
        ceiling=options["ceiling"],
        control=options["control"],
        interval=uncertainty.interval is not None,
        groups=options["groups"],
        null=uncertainty.null,
        draws=uncertainty.draws,
        correction=uncertainty.correction,
        level=uncertainty.level,
        seed=uncertainty.seed,
    )
    rows, arrays = compare_models(models, data, chosen, request)
    warn_once(rows)
    settings = {"verb": "compare", "result": "rsa", "measures": [one.label for one in chosen], **uncertainty.settings()}
    asked = request.generalize_to
    settings |= {"generalize_to": sorted(asked) if asked else None, "ceiling": request.ceiling, "control": request.control is not None}
    groups = options["groups"]
    settings |= {"groups": groups if isinstance(groups, str) else None, "warnings": [], "seconds": time.perf_counter() - started}
    return Result(rows, settings=settings, arrays=arrays)
