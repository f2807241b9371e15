"""`Result`: the tidy table that every verb returns, and `Curve`, what a measure with many values returns."""

from __future__ import annotations

import fnmatch
import json
import math
import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from inscape.errors import ResultError, StoreCorruptError, nearest

FORMAT_VERSION = 1

# column -> type; `at` is decided by its values, because a step is a number and a class is a name.
COLUMNS: dict[str, str] = {
    "system": "string",
    "site": "string",
    "system_b": "string",
    "site_b": "string",
    "measure": "string",
    "value": "float64",
    "low": "float64",
    "high": "float64",
    "interval_method": "string",
    "null_mean": "float64",
    "p": "float64",
    "p_corrected": "float64",
    "calibrated": "float64",
    "kind": "string",
    "n": "int64",
    "d": "int64",
    "d_b": "int64",
    "axis": "string",
    "at": "at",
    "label": "string",
    "subject": "string",
    "seed": "int64",
    "status": "string",
    "reason": "string",
}

# what a result looks like on paper, by its kind. Names, not imports: a result must not drag matplotlib in.
PLOTS: dict[str, str] = {
    "measure": "inscape.plots.profiles:profile",
    "features": "inscape.plots.features:feature_map",
    "compare": "inscape.plots.heatmaps:site_heatmaps",
    "match": "inscape.plots.matches:match_paths",
    "units": "inscape.plots.matches:match_histograms",
    "systems": "inscape.plots.systems:system_map",
    "trajectory": "inscape.plots.trajectories:trajectories",
    "curve": "inscape.plots.places:curve_figure",
    "rsa": "inscape.plots.models:model_bars",
    "map": "inscape.plots.mapped:map_scores",
    "merge": "inscape.plots.merging:merge_curves",
    "swap": "inscape.plots.swaps:swap_routes",
}
CARD = "inscape.reporting.card:result_card"


@dataclass(frozen=True)
class Curve:
    """Many values along one axis, and the single number that sums them up.

    Args:
        value: the headline number.
        axis: what `at` counts: "scale", "head", "unit", "class", "rank", "step".
        at: the places on that axis, in order.
        values: one number per place.

    Example:
        >>> float(Curve(2.0, axis="scale", at=(10, 20), values=(1.5, 2.5)))
        2.0
    """

    value: float
    axis: str
    at: Any  # any sequence or array in, a tuple inside
    values: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))
        object.__setattr__(self, "at", tuple(_plain(place) for place in self.at))
        object.__setattr__(self, "values", tuple(float(value) for value in self.values))
        if len(self.at) != len(self.values):
            raise ResultError(
                f"a curve over {self.axis!r} has {len(self.at)} places but {len(self.values)} values; give one value per place"
            )

    def __float__(self) -> float:
        return self.value


class Result:
    """A tidy table of numbers: one row per system, site (or pair of sites), measure and place on a curve.

    Args:
        rows: dictionaries whose keys are names of `COLUMNS`; what is left out is null, and `status` is then "ok".
        settings: what it took to make the numbers; goes into `settings.json` and the report.
        arrays: large per-unit values by name, kept beside the table.

    Raises:
        ResultError: a row has a column that a result does not know.

    Example:
        >>> result = Result([{"site": "blocks.0.resid_post", "measure": "two_nn", "value": 7.5, "n": 100}])
        >>> result.value(measure="two_nn")
        7.5
    """

    def __init__(
        self,
        rows: Iterable[Mapping[str, Any]],
        *,
        settings: Mapping[str, Any] | None = None,
        arrays: Mapping[str, Any] | None = None,
    ) -> None:
        self.settings: dict[str, Any] = dict(settings or {})
        self.arrays: dict[str, Any] = {name: _as_array(array) for name, array in (arrays or {}).items()}
        self._table = _table([_checked(row) for row in rows])

    @classmethod
    def _of(cls, table: Any, settings: Mapping[str, Any], arrays: Mapping[str, Any]) -> Result:
        result = cls((), settings=settings, arrays=arrays)
        result._table = table
        return result

    # ---- reading -------------------------------------------------------------------------------------------------

    @property
    def table(self) -> Any:
        """The rows as a `pyarrow.Table` with the columns of `COLUMNS`."""
        return self._table

    def rows(self) -> list[dict[str, Any]]:
        """The rows as dictionaries, in order, every column present; what is missing is None."""
        rows: list[dict[str, Any]] = self._table.to_pylist()
        numbers = json.loads((self._table.schema.metadata or {}).get(b"inscape.at", b"{}"))
        for row in rows:
            # Beside names of classes, numbers had to become text; here they are numbers again.
            if isinstance(row["at"], str) and row["axis"] in numbers:
                row["at"] = int(row["at"]) if numbers[row["axis"]] == "int" else float(row["at"])
            elif row["at"] is not None and numbers.get(row["axis"] or "") == "int":
                row["at"] = int(row["at"])
        return rows

    def frame(self) -> Any:
        """The rows as a pandas `DataFrame` if pandas is installed, else as the Arrow table."""
        from importlib.util import find_spec

        return self._table.to_pandas() if find_spec("pandas") is not None else self._table

    def column(self, name: str) -> list[Any]:
        """One column as a list; raises `ResultError` with the nearest names for an unknown one."""
        _known(name)
        return [row[name] for row in self.rows()] if name == "at" else self._table.column(name).to_pylist()

    def unique(self, name: str) -> list[Any]:
        """The different values of a column without nulls, in order of first appearance."""
        return [value for value in dict.fromkeys(self.column(name)) if value is not None]

    def where(self, **columns: Any) -> Result:
        """The rows whose columns equal the given values.

        A list, tuple or set means one of these, `None` means null, and text with `*` or `?` is a glob.

        Example:
            >>> result.where(measure="two_nn", site="blocks.*")    # doctest: +SKIP
        """
        import pyarrow as pa

        for name in columns:
            _known(name)
        keep = [all(_matches(row[name], wanted) for name, wanted in columns.items()) for row in self.rows()]
        table = self._table.filter(pa.array(keep, type=pa.bool_()))
        return Result._of(table, self.settings, self.arrays)

    def value(self, **columns: Any) -> float:
        """The one number that these columns single out; of a curve, its headline.

        Raises:
            ResultError: no row matches, several do, or the one that does has no number (its reason is given).
        """
        rows = self.where(**columns).rows()
        if len(rows) > 1:
            rows = [row for row in rows if row["at"] is None] or rows
        asked = ", ".join(f"{name}={wanted!r}" for name, wanted in columns.items()) or "no condition"
        if len(rows) != 1:
            differing = [name for name in COLUMNS if len({str(row[name]) for row in rows}) > 1 and name in _KEYS]
            hint = (
                f"; they differ in {', '.join(differing)}"
                if rows
                else f"; the measures are {self.unique('measure')}, the sites {self.unique('site')}"
            )
            raise ResultError(f"value() with {asked} matches {len(rows)} rows, expected one{hint}")
        if rows[0]["value"] is None:
            raise ResultError(f"value() with {asked} has no number: {rows[0]['status']}, {rows[0]['reason']}")
        return float(rows[0]["value"])

    @property
    def kind(self) -> str:
        """Which picture and which section of the report fit: `settings["result"]`, or what the rows show."""
        named = self.settings.get("result")
        if isinstance(named, str):
            return named
        if self.unique("site_b"):
            return "compare"
        return "trajectory" if "step" in self.unique("axis") else "measure"

    # ---- joining, saving -----------------------------------------------------------------------------------------

    @staticmethod
    def merge(results: Iterable[Result]) -> Result:
        """One result with the rows of all, in order; settings that differ are kept under "parts"."""
        parts = list(results)
        rows = [row for part in parts for row in part.rows()]
        settings: dict[str, Any] = dict(parts[0].settings) if parts else {}
        if any(part.settings != settings for part in parts):
            shared = {k: v for k, v in settings.items() if all(k in p.settings and p.settings[k] == v for p in parts)}
            settings = {**shared, "parts": [{k: v for k, v in p.settings.items() if k not in shared} for p in parts]}
        arrays: dict[str, Any] = {}
        for index, part in enumerate(parts):
            for name, array in part.arrays.items():
                arrays[name if name not in arrays else f"{index}/{name}"] = array
        return Result(rows, settings=settings, arrays=arrays)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes `result.parquet`, `settings.json` and, if there are any, `arrays.safetensors` into a folder."""
        import pyarrow.parquet as pq

        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        text = {"format_version": FORMAT_VERSION, "settings": self.settings, "arrays": sorted(self.arrays)}
        try:
            encoded = json.dumps(text, indent=2, sort_keys=True, default=_plain_or_fail)
        except TypeError as error:
            raise ResultError(f"the settings of this result cannot be written as JSON: {error}") from error
        pending = {"result.parquet": folder / "result.parquet.part", "settings.json": folder / "settings.json.part"}
        pq.write_table(self._table, pending["result.parquet"])
        pending["settings.json"].write_text(encoded + "\n", encoding="utf-8")
        if self.arrays:
            from safetensors.numpy import save_file

            pending["arrays.safetensors"] = folder / "arrays.safetensors.part"
            save_file(self.arrays, pending["arrays.safetensors"])
        for name, part in pending.items():  # whole files only: a crash leaves the former result readable
            os.replace(part, folder / name)
        return folder

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Result:
        """Reads what `save` wrote.

        Raises:
            ResultError: the folder holds no result, or one of a newer format.
            StoreCorruptError: a file of it is missing or cannot be read.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder = Path(path)
        described = folder / "settings.json"
        if not described.is_file():
            raise ResultError(f"{folder} holds no result: there is no settings.json; give a folder that Result.save wrote")
        try:
            text = json.loads(described.read_text(encoding="utf-8"))
            version, settings, names = text["format_version"], text["settings"], text["arrays"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreCorruptError(f"{described} cannot be read as the settings of a result: {error}") from error
        if version > FORMAT_VERSION:
            raise ResultError(f"{folder} is a result of format {version}, this inscape reads up to {FORMAT_VERSION}; upgrade inscape")
        try:
            table = pq.read_table(folder / "result.parquet")
            arrays: dict[str, Any] = {}
            if names:
                from safetensors.numpy import load_file

                arrays = load_file(folder / "arrays.safetensors")
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StoreCorruptError(f"a file of the result {folder} is missing or damaged: {error}") from error
        except Exception as error:  # safetensors raises a class of its own that derives from nothing narrower
            raise StoreCorruptError(f"{folder / 'arrays.safetensors'} is damaged: {error}") from error
        return Result._of(table, settings, arrays)

    # ---- showing -------------------------------------------------------------------------------------------------

    def plot(self, ax: Any = None, **options: Any) -> Any:
        """A matplotlib `Figure` of the kind that fits, or the same drawn into `ax`; see `inscape.plots` for the options."""
        if self.kind not in PLOTS:
            raise ResultError(f"no figure is known for results of kind {self.kind!r}; there are {', '.join(PLOTS)}")
        return _named(PLOTS[self.kind])(self, ax=ax, **options)

    def _repr_html_(self) -> str:
        return _named(CARD)(self)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows())

    def __repr__(self) -> str:
        return text_table(self)


# the columns that tell rows apart
_KEYS = ("system", "site", "system_b", "site_b", "measure", "kind", "axis", "at", "label", "subject", "seed")


def text_table(result: Result, limit: int = 24) -> str:
    """The result for a terminal: a line of counts, then at most `limit` aligned rows."""
    rows = result.rows()
    measures, sites = len(result.unique("measure")), len(result.unique("site"))
    failed = sum(row["status"] != "ok" for row in rows)
    head = f"Result: {len(rows)} rows, {measures} measure{'s' * (measures != 1)}, {sites} site{'s' * (sites != 1)}"
    head += f", {failed} without a number" * bool(failed)
    shown = [
        name for name in ("system", "site", "system_b", "site_b", "measure", "axis", "at") if any(row[name] is not None for row in rows)
    ]
    if len(result.unique("system")) <= 1 and "system_b" not in shown:
        shown = [name for name in shown if name != "system"]
    extra = [name for name in ("null_mean", "p", "p_corrected", "n") if any(row[name] is not None for row in rows)]
    cells = [[*shown, "value", *extra]]
    for row in rows[:limit]:
        number = format_value(row) if row["status"] == "ok" else textwrap.shorten(f"{row['status']}: {row['reason']}", 60, placeholder=" …")
        cells.append([*(_short(row[name]) for name in shown), number, *(_short(row[name]) for name in extra)])
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    rest = [f"… {len(rows) - limit} more rows: .rows(), .frame()"] if len(rows) > limit else []
    return "\n".join([head, *(lines if rows else []), *rest])


def format_number(value: float | None, digits: int = 3) -> str:
    """A number for people: three significant digits, no exponent for ordinary sizes; a dash when there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value) or value == 0:
        return f"{value:g}"
    if 1e-3 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:,.{decimals}f}" if abs(value) >= 1000 else f"{value:.{decimals}f}"
    return f"{value:.{digits - 1}e}"


def format_value(row: Mapping[str, Any], digits: int = 3) -> str:
    """A row's value with its interval in the same decimals: `12.3 [11.8, 12.9]`."""
    value, interval = format_parts(row, digits)
    return f"{value} {interval}" if interval else value


def format_parts(row: Mapping[str, Any], digits: int = 3) -> tuple[str, str]:
    """The value and its interval as two texts, the second one empty without an interval.

    Decimals follow the width of the interval: what it leaves open is not printed.
    """
    value, low, high = row["value"], row["low"], row["high"]
    if low is None or high is None or value is None:
        return format_number(value, digits), ""
    largest = max(abs(value), abs(low), abs(high))
    if not (math.isfinite(largest) and 1e-3 <= largest < 1e6):
        return format_number(value, digits), f"[{format_number(low, digits)}, {format_number(high, digits)}]"
    most = digits - math.floor(math.log10(largest))
    decimals = max(0, min(1 - math.floor(math.log10(high - low)), most) if high > low else most - 1)
    texts = [f"{number:,.{decimals}f}" for number in (value, low, high)]
    return texts[0], f"[{texts[1]}, {texts[2]}]"


def _short(value: Any) -> str:
    if value is None:
        return "–"
    return format_number(value) if isinstance(value, float) else str(value)


def _named(target: str) -> Any:
    module, name = target.split(":")
    return getattr(import_module(module), name)


def _known(name: str) -> None:
    if name not in COLUMNS:
        raise ResultError(f"a result has no column {name!r}; closest: {nearest(name, COLUMNS)}")


def _checked(row: Mapping[str, Any]) -> dict[str, Any]:
    for name in row:
        _known(name)
    full = {name: _plain(row.get(name)) for name in COLUMNS}
    full["status"] = full["status"] or "ok"
    return full


def _matches(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, (list, tuple, set, frozenset)):
        return any(_matches(value, one) for one in wanted)
    if isinstance(wanted, str) and isinstance(value, str) and ("*" in wanted or "?" in wanted):
        return fnmatch.fnmatchcase(value, wanted)
    return bool(value == wanted)


def _table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    places = [row["at"] for row in rows if row["at"] is not None]
    text = any(isinstance(place, str) for place in places)
    whole = all(isinstance(place, int) for place in places)
    at = pa.string() if text else pa.int64() if whole and places else pa.float64()
    fields = [pa.field(name, at if kind == "at" else getattr(pa, kind)()) for name, kind in COLUMNS.items()]
    # By axis, because one table may hold steps (numbers) beside classes (names).
    axes: dict[str, str] = {}
    for axis in {row["axis"] for row in rows if row["at"] is not None and row["axis"] is not None}:
        types = {type(row["at"]) for row in rows if row["axis"] == axis and row["at"] is not None}
        if str not in types:
            axes[axis] = "int" if types == {int} else "float"
    schema = pa.schema(fields, metadata={"inscape.at": json.dumps(axes, sort_keys=True)})
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    if text:
        columns["at"] = [None if place is None else str(place) for place in columns["at"]]
    for name in ("system", "site", "system_b", "site_b", "label", "subject"):
        columns[name] = [None if entry is None else str(entry) for entry in columns[name]]
    try:
        return pa.table({name: pa.array(columns[name], type=schema.field(name).type) for name in COLUMNS}, schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ResultError(f"a row of the result has a value of the wrong type: {error}") from error


def _plain(value: Any) -> Any:
    """Python scalars in place of NumPy's and torch's."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def _plain_or_fail(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    plain = _plain(value)
    if plain is value:
        raise TypeError(f"{value!r} of type {type(value).__name__}; use text, numbers, lists and dictionaries")
    return plain


def _as_array(array: Any) -> Any:
    import numpy as np

    if hasattr(array, "detach"):
        from inscape.arrays import as_numpy

        array = as_numpy(array)
    return np.ascontiguousarray(array)
