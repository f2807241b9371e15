"""The measure object: a function of summaries, what it asks for, and the ways to its value."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor

from inscape.arrays import as_rows, as_tensor
from inscape.errors import DegenerateInputError, InscapeError, StoreMismatchError, TooFewStimuliError, nearest
from inscape.measures.facts import Facts, sections
from inscape.results import Curve
from inscape.stats.closed_form import KernelInvariants
from inscape.summaries.base import Need, Summary
from inscape.summaries.cross import CrossMoments
from inscape.summaries.factors import factor_table
from inscape.summaries.sequences import sequences_of


class RowRoute(NamedTuple):
    """A second way to the same number, from the rows, for input on which the summaries have lost too many digits.

    Args:
        when: takes the summaries of the measure by name; true where the rows should be used if they are at hand.
        compute: takes the rows (one or two tensors of shape [n, d]) and gives the value.
    """

    when: Callable[..., bool]
    compute: Callable[..., float]


# Takes a side's rows [n, d]; gives the invariants of the kernel whose cosine with the other side's kernel is the measure.
Closed = Callable[[Tensor], KernelInvariants]

# Takes the two sides' rows [n, d], weights [draws, n] and the source of each row [n]; gives a value per draw.
Weighted = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Measure:
    """A function of summaries together with its declared facts.

    Call it with arrays, tensors or views (rows are stimuli), or `evaluate` it on summaries that are ready.

    Example:
        >>> import numpy as np, inscape as ix
        >>> X = np.random.default_rng(0).standard_normal((100, 4))
        >>> ix.measures.linear_cka(X, 2 * X + 1)
        1.0
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        facts: Facts,
        *,
        rows: RowRoute | None = None,
        weighted: Weighted | None = None,
        closed: Closed | None = None,
        record: Callable[..., dict[str, Any]] | None = None,
        bound: Mapping[str, Any] | None = None,
    ):
        self.fn = fn
        self.facts = facts
        self.rows = rows
        self.weighted = weighted
        self.closed = closed
        self._record = record
        self.name = fn.__name__
        self.doc = inspect.cleandoc(fn.__doc__ or "")
        self._injected, self._defaults = _signature(fn)
        self.bound: Mapping[str, Any] = MappingProxyType(dict(bound or {}))
        self.__name__ = self.name
        self.__qualname__ = fn.__qualname__
        self.__module__ = fn.__module__
        self.__doc__ = fn.__doc__
        self.__wrapped__ = fn

    # -- facts -----------------------------------------------------------------------------------------------------------------

    @property
    def needs(self) -> dict[str, tuple[type[Summary], dict[str, Any]]]:
        """By parameter, the summary class that is injected there and the options it is built with."""
        return {name: (cls, need.resolve(self.options)) for name, (cls, need) in self._injected.items()}

    @property
    def options(self) -> dict[str, Any]:
        """The keyword options with the values that are in force."""
        return {**self._defaults, **self.bound}

    @property
    def arity(self) -> int:
        """1 for a measure of one system, 2 for one of a pair."""
        classes = [cls for cls, _ in self._injected.values()]
        return 2 if any(cls.arity == 2 for cls in classes) or {"x", "y"} <= set(self._injected) else 1

    @property
    def turns(self) -> bool:
        """Whether no rotation of either side of a pair changes the value, so that rows may be replaced by coordinates in their span."""
        return self.arity == 2 and "rotation" in self.facts.invariant and not self.facts.one_space

    @property
    def labeled(self) -> bool:
        """Whether the measure needs a label per row."""
        return any(cls.labeled for cls, _ in self._injected.values())

    @property
    def factored(self) -> bool:
        """Whether its labels may be several columns, one for each factor of the stimuli."""
        return any(cls.factored for cls, _ in self._injected.values())

    @property
    def beside(self) -> str:
        """What it needs beside the rows and labels: "positions" of the units, a "map" of the space into itself, or nothing."""
        return next((cls.beside for cls, _ in self._injected.values() if cls.beside), "")

    @property
    def repeated(self) -> bool:
        """Whether the measure needs several presentations of every stimulus."""
        return any(getattr(cls, "repeated", False) for cls, _ in self._injected.values())

    @property
    def sequenced(self) -> bool:
        """Whether rows belong to sequences: of a view its stimuli, of an array one sequence unless `labels` says otherwise."""
        return any(cls.sequenced for cls, _ in self._injected.values())

    @property
    def headed(self) -> bool:
        """Whether the measure needs the layer that reads the rows: `weights=`."""
        return any(cls.parameters == "beside" for cls, _ in self._injected.values())

    @property
    def of_weights(self) -> bool:
        """Whether the input is a matrix of parameters, so that its rows are no sample of anything."""
        return all(cls.parameters == "input" for cls, _ in self._injected.values())

    @property
    def label(self) -> str:
        """The name, with the options that were changed: "mutual_knn(k=20)"."""
        changed = {key: value for key, value in self.bound.items() if value != self._defaults[key]}
        return self.name + (f"({', '.join(f'{key}={value!r}' for key, value in sorted(changed.items()))})" if changed else "")

    @property
    def invariant(self) -> frozenset[str]:
        return self.facts.invariant

    @property
    def sensitive(self) -> frozenset[str]:
        return self.facts.sensitive

    @property
    def range(self) -> tuple[float, float]:
        return self.facts.numeric_range

    @property
    def source(self) -> str:
        return self.facts.source

    @property
    def higher(self) -> str:
        return self.facts.higher

    @property
    def symmetric(self) -> bool:
        return self.facts.symmetric

    @property
    def status(self) -> str:
        return self.facts.status

    @property
    def null(self) -> str:
        return self.facts.null

    @property
    def what(self) -> str:
        """The first sentence of the docstring."""
        return " ".join(sections(self.doc)[""].split("\n\n")[0].split())

    @property
    def cost(self) -> str:
        return " ".join(sections(self.doc).get("Cost", "").split())

    @property
    def bias(self) -> str:
        return " ".join(sections(self.doc).get("Bias", "").split())

    # -- values ----------------------------------------------------------------------------------------------------------------

    def with_options(self, **options: Any) -> Measure:
        """The same measure with other options; its label says which.

        Raises:
            TypeError: an option that the measure does not have.
        """
        for key in options:
            if key not in self._defaults:
                known = f"its options: {nearest(key, self._defaults)}" if self._defaults else "it has no options"
                raise TypeError(f"{self.name} has no option {key!r}; {known}")
        routes: dict[str, Any] = {"rows": self.rows, "weighted": self.weighted, "closed": self.closed, "record": self._record}
        return Measure(self.fn, self.facts, **routes, bound={**self.bound, **options})

    def record(self, n: float, d: int) -> dict[str, Any]:
        """The options in force, and what else decided the value of an input of shape [n, d]: a result keeps it."""
        return {**self.options, **(self._record(n, d, **self.options) if self._record is not None else {})}

    def evaluate(self, **summaries: Any) -> float | Curve:
        """The value from ready summaries, one for each parameter in `needs`.

        Raises:
            DegenerateInputError: the numbers leave the measure undefined.
            TooFewStimuliError: there are fewer rows than the measure needs.
        """
        if set(summaries) != set(self._injected):
            raise TypeError(f"{self.name} is evaluated on the summaries {sorted(self._injected)}, got {sorted(summaries)}")
        self._check_count(min(summary.n for summary in summaries.values() if summary.parameters != "beside"))
        return self._guarded(lambda: self.fn(**summaries, **self.bound))

    def summarize(self, X: Any, other: Any = None, *, labels: Any = None, weights: Any = None) -> dict[str, Any]:
        """The summaries of arrays or views that `evaluate` takes."""
        return self._summaries(*self._inputs(X, other, labels), weights)

    def __call__(self, X: Any, other: Any = None, /, *, labels: Any = None, weights: Any = None, **options: Any) -> float | Curve:
        """The value for arrays, tensors or views of shape [n, d].

        Args:
            X: rows of the first system.
            other: rows of the second system (a pair), the label of each row (a labeled measure), or what else the measure needs beside
                the rows: positions of the units, a map.
            labels: the label of each row, or the name of a column where `X` is a view; for measures of factors a dictionary of columns,
                an array [n, f], or names of columns.
            weights: the layer that reads the rows, for measures that compare both: a matrix [out, d], a pair (matrix, bias), a linear
                layer, or a model, whose last linear layer is meant.
            **options: the measure's own keyword options.

        Raises:
            DegenerateInputError: NaN, infinity, a wrong number of axes, or numbers that leave the measure undefined.
            TooFewStimuliError: there are fewer rows than the measure needs.
            StoreMismatchError: the two inputs (or the labels) do not have the same rows.
        """
        if options:
            return self.with_options(**options)(X, other, labels=labels, weights=weights)
        rows, row_labels = self._inputs(X, other, labels)
        self._check_count(min(len(side) for side in rows))
        return self.settle(self._summaries(rows, row_labels, weights), rows)

    def settle(self, summaries: Mapping[str, Any], rows: Sequence[Tensor] | None = None) -> float | Curve:
        """The value from ready summaries, or from the rows where these are at hand and the summaries have lost too many digits."""
        if rows is not None and "constant" in self.facts.undefined:
            for data, name in zip(rows, ("X", "Y"), strict=False):
                check_varies(data, f"{self.label}: {name}")
        if rows is None or self.rows is None or not self.rows.when(**summaries):
            return self.evaluate(**summaries)
        return self._guarded(lambda compute=self.rows.compute: compute(*rows))

    def __repr__(self) -> str:
        kind = "a pair" if self.arity == 2 else "one system" + (" with labels" if self.labeled else "")
        return f"<measure {self.label} of {kind}, {self.facts.range_text}: {self.what}>"

    # -- the work behind them --------------------------------------------------------------------------------------------------

    def _inputs(self, X: Any, other: Any, labels: Any) -> tuple[list[Tensor], Any]:
        if self.labeled and self.arity == 1 and labels is None:
            labels, other = other, None
        if self.labeled and labels is None:
            raise TypeError(f"{self.name} needs labels: {self.name}(X, labels), one label per row")
        if not self.labeled and not self.sequenced and labels is not None:
            raise TypeError(f"{self.name} takes no labels")
        if self.beside:
            return self._with_beside(_single_view(X), other)
        if (self.arity == 2) != (other is not None):
            wanted = "two inputs, X and Y" if self.arity == 2 else "one input, X"
            raise TypeError(f"{self.name} takes {wanted}")
        first, other = _single_view(X), _single_view(other)
        if labels is not None:
            labels = self._row_labels(first, labels)
        elif self.sequenced and hasattr(first, "row_set"):
            labels = sequences_of(first.stimulus, first.repeat)
        if self.repeated:
            return [presentations(data) for data in (first, other) if data is not None], None
        try:
            rows = [as_rows(data, name) for data, name in ((first, "X"), (other, "Y")) if data is not None]
        except InscapeError as error:
            raise self._named(error) from error
        if len(rows) == 2 and self.facts.paired:
            rows = _paired(self.name, first, other, rows)
        if labels is not None and len(labels) != len(rows[0]):
            raise StoreMismatchError(f"{self.name}: {len(labels)} labels for {len(rows[0])} rows; give one label per row")
        return rows, labels

    def _row_labels(self, first: Any, labels: Any) -> Any:
        """Labels by row: columns by name are read from the view, several factors become one table."""
        several = self.factored and isinstance(labels, (list, tuple)) and all(isinstance(name, str) for name in labels)
        named = [labels] if isinstance(labels, str) else list(labels) if several and hasattr(first, "column") else []
        if named and not hasattr(first, "column"):
            raise TypeError(f"labels={labels!r} names a column, but X is {type(first).__name__}, not a view; pass one label per row")
        if named and (isinstance(labels, str) or set(named) <= set(first.store.stimuli.column_names)):
            labels = {name: first.column(name) for name in named} if several else first.column(named[0])
        try:
            return factor_table(labels) if self.factored else labels
        except InscapeError as error:
            raise self._named(error) from error

    def _with_beside(self, first: Any, other: Any) -> tuple[list[Tensor], Any]:
        """The rows, and the positions or the map; positions may be in the unit table of a view."""
        if other is None and self.beside == "positions":
            other = unit_positions(first)
        if other is None:
            what = "the positions of the units [d, 1 to 3]" if self.beside == "positions" else "a function from rows [n, d] to rows [n, d]"
            raise TypeError(f"{self.name}(X, {self.beside}) needs {what} beside the rows")
        try:
            return [as_rows(first, "X")], other
        except InscapeError as error:
            raise self._named(error) from error

    def _summaries(self, rows: list[Tensor], labels: Any, weights: Any) -> dict[str, Any]:
        built: dict[str, Any] = {}
        if self.headed == (weights is None):
            raise TypeError(
                f"{self.name} needs weights: {self.name}(…, weights=(matrix, bias)), the layer that reads the rows"
                if self.headed
                else f"{self.name} takes no weights"
            )
        for name, (cls, options) in self.needs.items():
            inputs: list[Any] = list(rows) if cls.arity == 2 else [rows[1] if name == "y" else rows[0]]
            if cls.labeled or cls.beside or (cls.sequenced and labels is not None):
                inputs.append(labels)
            if cls.parameters == "beside":
                inputs = [weights, rows[0].shape[1]]
            build: Callable[..., Summary] = cls.in_spans if issubclass(cls, CrossMoments) and self.turns else cls.of
            try:
                built[name] = build(*inputs, **options)
            except InscapeError as error:
                raise self._named(error) from error
        return built

    def _check_count(self, n: float) -> None:
        if n < self.facts.minimum:
            raise TooFewStimuliError(f"{self.label} needs at least {self.facts.minimum} rows, got {n:g}; use more stimuli")

    def _guarded(self, compute: Callable[[], Any]) -> float | Curve:
        """The value, finite; errors say which measure they come from."""
        try:
            value = compute()
        except InscapeError as error:
            raise self._named(error) from error
        except (OverflowError, ZeroDivisionError) as error:
            raise DegenerateInputError(
                f"{self.label} leaves the range of fp64 ({error}); the rows are too large or too small: multiply them by a constant first"
            ) from error
        number = float(value)
        if not math.isfinite(number):
            raise DegenerateInputError(f"{self.label} has no finite value here (it came out as {number})")
        return value if isinstance(value, Curve) else number

    def _named(self, error: InscapeError) -> InscapeError:
        text = str(error)
        return type(error)(text if text.startswith(self.name) else f"{self.label}: {text}")


def check_varies(rows: Tensor, name: str = "X") -> None:
    """Raises `DegenerateInputError` when all rows [n, d] are equal; reads two rows unless these are."""
    if bool((rows[0] == rows[-1]).all()) and bool((rows == rows[0]).all()):
        raise DegenerateInputError(
            f"{name} has {rows.shape[0]} equal rows (shape {tuple(rows.shape)}): a constant site says nothing about the stimuli"
        )


def unit_positions(view: Any) -> np.ndarray | None:
    """The columns x, y and z, as far as there are any, of a view's unit table, [d, 1 to 3]; None where there are none."""
    table = getattr(view, "unit_table", None)
    found = [name for name in ("x", "y", "z") if table is not None and name in table.column_names]
    return np.stack([np.asarray(table[name].to_pylist(), dtype=float) for name in found], 1) if table is not None and found else None


def presentations(data: Any) -> Tensor:
    """Repeats [m, r, d] of a view with as many presentations of every stimulus (stimuli in order of their ids); an array as it is.

    Raises:
        StoreMismatchError: stimuli were presented different numbers of times.
    """
    if not hasattr(data, "row_set"):
        return as_tensor(data)
    names, where, counts = np.unique(data.ids.astype(str), return_inverse=True, return_counts=True)
    if len(set(counts.tolist())) != 1:
        raise StoreMismatchError(
            f"{data.system}/{data.site}: stimuli were presented {counts.min()} to {counts.max()} times; select equally many of each"
        )
    return data.gather(np.argsort(where, kind="stable")).unflatten(0, (len(names), int(counts[0])))


def _signature(fn: Callable[..., Any]) -> tuple[dict[str, tuple[type[Summary], Need]], dict[str, Any]]:
    """Splits the parameters into injected summaries (no default) and keyword options (with one)."""
    hints = get_type_hints(fn, include_extras=True)
    injected: dict[str, tuple[type[Summary], Need]] = {}
    options: dict[str, Any] = {}
    for name, parameter in inspect.signature(fn).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            options[name] = parameter.default
            continue
        hint = hints.get(name)
        need = Need()
        if get_origin(hint) is Annotated:
            hint, *extras = get_args(hint)
            need = next((extra for extra in extras if isinstance(extra, Need)), need)
        if not isinstance(hint, type) or not issubclass(hint, Summary):
            raise ValueError(f"{fn.__name__}: parameter {name!r} must be annotated with a summary class, not {hint!r}")
        injected[name] = (hint, need)
    if not injected:
        raise ValueError(f"{fn.__name__} asks for no summary; annotate a parameter with one, for instance `moments: Moments`")
    return injected, options


def _single_view(data: Any) -> Any:
    """A store that holds one site stands for that site's view."""
    if hasattr(data, "sites") and hasattr(data, "stimuli"):
        from inscape.store import view_of

        return view_of(data)
    return data


def _paired(name: str, X: Any, Y: Any, rows: list[Tensor]) -> list[Tensor]:
    if hasattr(X, "row_set") and hasattr(Y, "row_set"):
        from inscape.store import pair_rows

        chosen = pair_rows(X, Y)
        rows = [data if index is None else data[torch.as_tensor(index)] for data, index in zip(rows, chosen, strict=True)]
    if len(rows[0]) != len(rows[1]):
        raise StoreMismatchError(
            f"{name}: X has shape {tuple(rows[0].shape)} and Y {tuple(rows[1].shape)}; a pair needs the same stimuli in the same "
            "order, one row each"
        )
    return rows
