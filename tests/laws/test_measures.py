"""Laws of every registered measure, generated from what it declares: a new measure gets them without an edit here."""

from __future__ import annotations

import doctest
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.errors import DegenerateInputError, InscapeError, InscapeWarning, TooFewStimuliError
from inscape.measures.base import Measure
from inscape.measures.facts import DEGENERATE, TRANSFORMATIONS, sections
from inscape.summaries import CrossMoments, GramProducts
from inscape.summaries.runner import TokenRunner

MEASURES = ix.measures.all_measures()
N, P, Q, CLASSES = 120, 36, 32, 4

each_measure = pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
# Two that take seconds where rows are odd: these cases run with the slow tests.
SLOW = ("one_to_many_lasso", "rtd")
each_measure_on_odd_rows = pytest.mark.parametrize(
    "measure", [pytest.param(one, marks=pytest.mark.slow if one.name in SLOW else (), id=one.name) for one in MEASURES]
)


def claims(kind: str) -> pytest.MarkDecorator:
    """One case per measure and transformation that it claims."""
    cases = [(measure, name) for measure in MEASURES for name in TRANSFORMATIONS if name in getattr(measure, kind)]
    return pytest.mark.parametrize("measure,transformation", cases, ids=[f"{measure.name}-{name}" for measure, name in cases])


# -- inputs ------------------------------------------------------------------------------------------------------------------------


def gaussian(seed: int = 0, n: int = N) -> list[Any]:
    """X, a noisy linear image Y of it, and labels that both carry."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % CLASSES)
    spectrum = np.arange(1, P + 1) ** -0.4
    X = (rng.standard_normal((n, P)) + 1.5 * rng.standard_normal((CLASSES, P))[labels]) * spectrum + 0.5
    Y = np.tanh(X @ rng.standard_normal((P, Q)) / 3) + 0.3 * rng.standard_normal((n, Q)) - 0.2
    return [X, Y, labels]


def low_rank() -> list[Any]:
    X, Y, labels = gaussian(1)
    rng = np.random.default_rng(2)
    return [X[:, :5] @ rng.standard_normal((5, P)), Y[:, :4] @ rng.standard_normal((4, Q)), labels]


def wide() -> list[Any]:
    rng = np.random.default_rng(3)
    labels = np.arange(40) % CLASSES
    return [rng.standard_normal((40, 64)) + 1, rng.standard_normal((40, 50)), labels]


def twice(n: int = N // 2) -> list[Any]:
    return [np.concatenate([part, part]) for part in gaussian(4, n)]


def rank_one() -> list[Any]:
    X, Y, labels = gaussian(5)
    return [np.outer(X[:, 0], np.arange(1.0, P + 1)), Y, labels]


def constant() -> list[Any]:
    X, Y, labels = gaussian(6)
    return [np.full_like(X, 3.3) + np.arange(P), Y, labels]


def spoiled(value: float) -> list[Any]:
    X, Y, labels = gaussian(7)
    X[3, 2] = value
    return [X, Y, labels]


INPUTS: dict[str, Callable[[], list[Any]]] = {"gaussian": gaussian, "low_rank": low_rank, "wide": wide, "duplicates": twice}
ODD: dict[str, Callable[[], list[Any]]] = {
    **INPUTS,
    "constant": constant,
    "rank_one": rank_one,
    "one_row": lambda: gaussian(8, 1),
    "two_rows": lambda: gaussian(8, 2),
    "five_rows": lambda: gaussian(8, 5),
    "nan": lambda: spoiled(math.nan),
    "inf": lambda: spoiled(math.inf),
    "one_unit": lambda: [part[:, :1] if part.ndim == 2 else part for part in gaussian(9)],
    "zero_rows": lambda: [part * (np.arange(N) > 5)[:, None] if part.ndim == 2 else part for part in gaussian(10)],
    "huge": lambda: [part * 1e150 if part.ndim == 2 else part for part in gaussian(11)],
}


def arguments(measure: Measure, data: list[Any]) -> list[Any]:
    """What of X, Y and labels the measure takes, by position; sides that share a space are cut to one width."""
    X, Y, labels = in_one_space(measure, data)
    if measure.beside:
        return [X, aside(measure, X)]
    return [X] + ([Y] if measure.arity == 2 else []) + ([labels] if measure.labeled and measure.arity == 1 else [])


def aside(measure: Measure, X: Any) -> Any:
    """What a measure wants with the rows: places of the units on a grid, or a map that draws everything to 0."""
    if measure.beside == "positions":
        return np.stack(np.divmod(np.arange(X.shape[1]), 6), 1)
    if any(cls is TokenRunner for cls, _ in measure.needs.values()):
        return fading_memory
    return lambda Z: 0.5 * torch.tanh(torch.as_tensor(Z))


def fading_memory(Z: Any) -> torch.Tensor:
    """A model of sequences: each token gets a mean of those up to it, in which the past fades by half at every step."""
    age = torch.arange(len(Z))[:, None] - torch.arange(len(Z))
    weights = torch.where(age >= 0, 0.5 ** age.clamp(min=0).to(Z), 0.0)
    return torch.tanh(weights / weights.sum(1, keepdim=True) @ Z)


def two_factors(labels: Any) -> Any:
    """The labels and a second factor, as fields of one table."""
    if labels.dtype.names is not None:
        return labels
    table = np.zeros(len(labels), dtype=[("label", labels.dtype), ("third", int)])
    table["label"], table["third"] = labels, np.arange(len(labels)) % 3
    return table


def presented(side: Any) -> Any:
    """Rows as presentations [m, 4, d] of stimuli: four rows each, or few rows four times with some noise."""
    if side.ndim == 3:
        return side
    side = side[:, :6]  # a search over rotations takes its time
    if len(side) >= 16:
        return side[: len(side) // 4 * 4].reshape(len(side) // 4, 4, side.shape[1])
    noise = np.random.default_rng(0).standard_normal((len(side), 4, side.shape[1]))
    return side[:, None] + 0.1 * noise


def in_one_space(measure: Measure, data: list[Any]) -> list[Any]:
    """The data, its sides cut to one width for measures that may need rows of one space, or made presentations."""
    X, Y, labels = data
    if measure.repeated:
        return [presented(X), presented(Y), labels]
    X, Y = (in_domain(measure.facts.domain, side) for side in (X, Y))
    if measure.factored:
        return [X, Y, two_factors(labels)]
    if measure.arity == 2 and (measure.facts.one_space or not measure.facts.paired):
        X, Y = (side[:, : min(X.shape[1], Y.shape[1])] for side in (X, Y))
    return [X, Y, labels]


def heavy_tailed(side: Any) -> Any:
    """A matrix [n, 60] whose eigenvalues fall as a power law; rows that are equal, on a line or not finite stay as they are."""
    if side.shape[1] == 60 or not np.isfinite(side).all() or (side == side[0]).all() or np.linalg.matrix_rank(side - side.mean(0)) < 2:
        return side
    rng = np.random.default_rng(14)
    n = len(side)
    left, right = np.linalg.qr(rng.standard_normal((n, min(n, 60))))[0], np.linalg.qr(rng.standard_normal((60, 60)))[0]
    return (left * np.arange(1, left.shape[1] + 1) ** -0.5) @ right[: left.shape[1]]


# Makes an input one that a measure has a meaning for; what it has made already it leaves alone.
DOMAIN: dict[str, Callable[[Any], Any]] = {
    "real": lambda side: side,
    "nonnegative": np.abs,
    "share": lambda side: side if not ((side < 0) | (side > 1)).any() else np.abs(side) / (1 + np.nanmax(np.abs(side))),
    "heavy_tailed": heavy_tailed,
}


def in_domain(domain: str, side: Any) -> Any:
    if isinstance(side, torch.Tensor):
        return torch.from_numpy(DOMAIN[domain](side.numpy()))
    with np.errstate(invalid="ignore"):
        return DOMAIN[domain](side)


def beside(measure: Measure, data: list[Any]) -> dict[str, Any]:
    """The layer that reads X, with an output for each class, where the measure needs one."""
    if not measure.headed:
        return {}
    rng = np.random.default_rng(15)
    return {"weights": (rng.standard_normal((CLASSES, data[0].shape[1])), rng.standard_normal(CLASSES))}


def evaluated(measure: Measure, data: list[Any]) -> Any:
    """The value; warnings about chance or repeated rows are not what is tested here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InscapeWarning)
        if measure.arity == 2 and measure.labeled:
            return measure(data[0], data[1], labels=data[2])
        return measure(*arguments(measure, data), **beside(measure, data))


def number(measure: Measure, data: list[Any]) -> float:
    return float(evaluated(measure, data))


def transformed(name: str, data: list[Any], side: int) -> list[Any]:
    """The data with one side (0 for X, 1 for Y) transformed; `row_order` moves everything, stimuli with all their presentations."""
    rng = np.random.default_rng(42)
    X = data[side]
    n, d = len(X), X.shape[-1]
    if name == "row_order":
        order = rng.permutation(n)
        return [part[order] if len(part) == n else part for part in data]
    image = {
        "translation": lambda: X + 2 * rng.standard_normal(d),
        "rotation": lambda: X @ np.linalg.qr(rng.standard_normal((d, d)))[0],
        "scale": lambda: 3.7 * X,
        "permutation": lambda: X[..., rng.permutation(d)],
        "linear": lambda: X @ (np.linalg.qr(rng.standard_normal((d, d)))[0] * np.geomspace(0.2, 5, d)) @ _rotation(rng, d),
        "unit_scale": lambda: X * np.exp(rng.uniform(-1.5, 1.5, d)),
    }[name]()
    return [image if index == side else part for index, part in enumerate(data)]


def _rotation(rng: np.random.Generator, d: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((d, d)))[0]


def close(value: float, other: float, tolerance: float) -> bool:
    return abs(value - other) <= tolerance * max(1.0, abs(other))


# -- what is declared holds --------------------------------------------------------------------------------------------------------


@claims("invariant")
def test_claimed_invariance_holds(measure: Measure, transformation: str) -> None:
    data = in_one_space(measure, gaussian())
    before = number(measure, data)
    for side in range(measure.arity):
        after = number(measure, transformed(transformation, data, side))
        assert close(after, before, 1e-8), f"{measure.name} changes from {before!r} to {after!r} under {transformation} of side {side}"


@claims("sensitive")
def test_claimed_sensitivity_bites(measure: Measure, transformation: str) -> None:
    data = in_one_space(measure, gaussian())
    before = number(measure, data)
    for side in range(measure.arity):
        after = number(measure, transformed(transformation, data, side))
        assert not close(after, before, 1e-4), f"{measure.name} stays at {before!r} under {transformation} of side {side}"


@pytest.mark.parametrize("measure", [m for m in MEASURES if "translation" in m.invariant], ids=lambda m: m.name)
def test_large_offset_costs_no_digits(measure: Measure) -> None:
    X, Y, labels = gaussian()
    before, after = number(measure, [X, Y, labels]), number(measure, [X + 1e4, Y - 1e4, labels])
    assert close(after, before, 1e-9)


@each_measure
@pytest.mark.parametrize("kind", INPUTS)
def test_range_holds(measure: Measure, kind: str) -> None:
    data = INPUTS[kind]()
    low, high = measure.facts.limits(*data[0].shape[:2])
    try:
        value = evaluated(measure, data)
    except InscapeError:
        return  # refused: the laws of odd input say how
    for one in (float(value), *getattr(value, "values", ())):
        assert low - 1e-9 <= one <= high + 1e-9 * max(1.0, abs(high) if math.isfinite(high) else 1.0)


@pytest.mark.parametrize("measure", [m for m in MEASURES if m.symmetric and m.arity == 2], ids=lambda m: m.name)
@pytest.mark.parametrize("kind", INPUTS)
def test_symmetric_pairs_are_symmetric(measure: Measure, kind: str) -> None:
    X, Y, labels = INPUTS[kind]()
    try:
        forward = number(measure, [X, Y, labels])
    except InscapeError as error:
        with pytest.raises(type(error)):
            evaluated(measure, [Y, X, labels])
        return
    assert close(number(measure, [Y, X, labels]), forward, 1e-10)


@pytest.mark.parametrize("measure", [m for m in MEASURES if m.arity == 2 and m.facts.reflexive], ids=lambda m: m.name)
def test_self_comparison_is_the_optimum(measure: Measure) -> None:
    X, Y, labels = gaussian()
    best = number(measure, [X, X, labels])
    sign = 1 if measure.higher == "more similar" else -1
    limit = measure.range[1] if sign > 0 else measure.range[0]
    if math.isfinite(limit):
        assert abs(best - limit) <= 1e-7
    rng = np.random.default_rng(12)
    for other in (Y, X + 0.5 * rng.standard_normal(X.shape), rng.standard_normal(X.shape)):
        assert sign * best >= sign * number(measure, [X, other, labels]) - 1e-9


@pytest.mark.parametrize("measure", [m for m in MEASURES if m.arity == 2 and not m.facts.paired], ids=lambda m: m.name)
def test_what_pairs_nothing_takes_any_rows(measure: Measure) -> None:
    X, Y, _ = gaussian()
    Y = Y[:, :20]
    value = measure(X[:, :20], Y)
    assert measure(X[::-1, :20].copy(), Y) == pytest.approx(value, abs=1e-10)
    assert math.isfinite(measure(X[:50, :20], Y))


# -- odd input ---------------------------------------------------------------------------------------------------------------------


def outcome(measure: Measure, data: list[Any]) -> Any:
    """The value, or the typed error."""
    try:
        return evaluated(measure, data)
    except InscapeError as error:
        return error


@each_measure_on_odd_rows
@pytest.mark.parametrize("kind", ODD)
def test_odd_input_gives_a_number_or_an_error_that_the_docstring_names(measure: Measure, kind: str) -> None:
    X, Y, labels = ODD[kind]()
    for data in ([X, Y, labels], [Y, X, labels])[: measure.arity]:
        result = outcome(measure, data)
        if isinstance(result, InscapeError):
            assert measure.name in str(result), f"the message does not say which measure: {result}"
            assert type(result).__name__ in measure.doc, f"{type(result).__name__} is not in the docstring: {result}"
        else:
            assert all(math.isfinite(one) for one in (float(result), *getattr(result, "values", ())))


@each_measure
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_are_refused_with_their_place(measure: Measure, value: float) -> None:
    with pytest.raises(DegenerateInputError, match=rf"{measure.name}.*row 3, unit 2"):
        evaluated(measure, spoiled(value))


@each_measure_on_odd_rows
@pytest.mark.parametrize("kind", DEGENERATE)
def test_degenerate_input_is_refused_exactly_where_declared(measure: Measure, kind: str) -> None:
    data = ODD[kind]()
    if kind in measure.facts.undefined:
        with pytest.raises(DegenerateInputError):
            evaluated(measure, data)
    else:
        assert math.isfinite(number(measure, data))


@each_measure
def test_too_few_rows_are_refused_by_name_and_number(measure: Measure) -> None:
    least = measure.facts.minimum
    if least < 2:
        return
    with pytest.raises(TooFewStimuliError, match=rf"{measure.name}.*at least {least} rows, got {least - 1}"):
        evaluated(measure, gaussian(13, least - 1))


# -- routes to the same number -----------------------------------------------------------------------------------------------------


@each_measure
def test_merged_summaries_give_the_value_of_one_pass(measure: Measure) -> None:
    data = in_one_space(measure, gaussian())
    parts = [[part[chosen] for part in data] for chosen in (slice(0, 17), slice(17, 70), slice(70, None))]
    merged: dict[str, Any] = {}
    for name, (cls, options) in measure.needs.items():
        built = CrossMoments if cls is GramProducts else cls
        if not built.additive:
            return  # row-set summaries need all rows; their own tests cover take and drop
        sides = slice(1, 2) if name == "y" else slice(0, 2 if built.arity == 2 else 1)
        total, *rest = [built.of(*part[sides], *([part[2]] if getattr(built, "labeled", False) else []), **options) for part in parts]
        for other in rest:
            total = total.merge(other)  # type: ignore[attr-defined]
        merged[name] = total.products() if cls is GramProducts else total
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InscapeWarning)
        value = float(measure.evaluate(**merged))
    assert close(value, number(measure, data), 1e-10)


@each_measure
def test_fp32_input_agrees_with_fp64(measure: Measure) -> None:
    X, Y, labels = gaussian()
    narrow = [X.astype(np.float32), Y.astype(np.float32), labels]
    exact = [narrow[0].astype(np.float64), narrow[1].astype(np.float64), labels]
    assert close(number(measure, narrow), number(measure, exact), 1e-5)


@each_measure
def test_tensors_and_summaries_give_the_same_value(measure: Measure) -> None:
    data = gaussian()
    value = number(measure, data)
    assert number(measure, [torch.from_numpy(data[0]), torch.from_numpy(data[1]), data[2]]) == value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InscapeWarning)
        data = in_one_space(measure, data)
        other = data[1] if measure.arity == 2 else aside(measure, data[0]) if measure.beside else None
        ready = measure.summarize(data[0], other, labels=data[2] if measure.labeled else None, **beside(measure, data))
        assert close(float(measure.evaluate(**ready)), value, 1e-8)


@pytest.mark.parametrize("measure", [m for m in MEASURES if m.weighted is not None], ids=lambda m: m.name)
def test_weighted_form_with_equal_weights_is_the_value(measure: Measure) -> None:
    X, Y, _ = gaussian()
    assert measure.weighted is not None
    draws = measure.weighted(torch.from_numpy(X), torch.from_numpy(Y), torch.ones(2, N, dtype=torch.float64), torch.arange(N))
    assert draws.shape == (2,)
    value = number(measure, [X, Y, _])
    assert all(close(float(draw), value, 1e-8) for draw in draws)


# -- what is written ---------------------------------------------------------------------------------------------------------------


@each_measure
def test_docstring_says_what_a_reader_needs(measure: Measure) -> None:
    parts = sections(measure.doc)
    assert measure.what.endswith(".")
    assert len(measure.what) <= 200
    for name in ("Returns", "Source", "Cost", "Bias", "Example"):
        assert parts.get(name), f"{measure.name} has no section {name!r}"
    assert measure.invariant | measure.sensitive, "a measure claims at least one transformation"
    if measure.arity == 2:
        assert measure.null, "a measure of a pair says what independent representations score"


@each_measure
def test_example_runs(measure: Measure) -> None:
    found = doctest.DocTestParser().get_doctest(measure.doc, {}, measure.name, measure.__module__, 0)
    assert 1 <= len(found.examples) <= 4
    report: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InscapeWarning)
        outcome = doctest.DocTestRunner(verbose=False).run(found, out=report.append)
    assert outcome.failed == 0, "".join(report)
