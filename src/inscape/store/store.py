"""The store: the activations of one system over its stimuli, on disk or in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from inscape.errors import SiteNotFoundError, StoreCorruptError, StoreMismatchError, nearest
from inscape.store.files import check_file
from inscape.store.index import RowIndex
from inscape.store.manifest import Manifest, SiteSpec
from inscape.store.page import store_page, store_text
from inscape.store.reading import read_stimuli, read_units
from inscape.store.remote import place_of
from inscape.store.sources import ChosenRows, Source
from inscape.store.view import View, choice


@dataclass(frozen=True)
class Site:
    """One site of a store: what it holds, where its rows come from, which stimulus each is, and its unit table.

    A unit table on disk is a function that reads it, so that a damaged one spoils nothing else.
    """

    spec: SiteSpec
    source: Source
    index: RowIndex
    units: pa.Table | Callable[[], pa.Table] | None = None


class Store:
    """Activations by site, with the stimuli that they belong to; `store["site"]` is a lazy view of its rows.

    Stores come from `inscape.capture`, `inscape.open`, `Store.from_arrays` and `Store.from_parquet`.

    Example:
        >>> store = Store.from_arrays({"layer1": X, "layer2": Y}, stimuli={"stimulus": names, "label": labels})
        >>> store["layer1"].column("label")
    """

    def __init__(self, manifest: Manifest, stimuli: pa.Table, sites: Mapping[str, Site], *, path: str | None = None) -> None:
        self.manifest = manifest
        self.stimuli = stimuli
        self.path = path
        self._sites = dict(sites)

    @property
    def system(self) -> str:
        """A short label of the model or recording."""
        return self.manifest.system

    @property
    def sites(self) -> list[str]:
        """Names of the sites, in the order of the capture."""
        return list(self._sites)

    @property
    def complete(self) -> bool:
        """Whether the capture finished."""
        return self.manifest.complete

    @property
    def nbytes(self) -> int:
        """Bytes that the values of all sites take."""
        return sum(self.view(site).nbytes for site in self._sites)

    def view(self, site: str) -> View:
        """The rows of the site with this name, or of the only one that this glob matches.

        Raises:
            SiteNotFoundError: none matches (the nearest names are listed), or several do.
        """
        name = self._name(site)
        entry = self._sites[name]
        return View(self, name, source=entry.source, index=entry.index, spec=entry.spec, units=entry.units)

    __getitem__ = view

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def __contains__(self, site: object) -> bool:
        return site in self._sites

    def _name(self, site: str) -> str:
        if site in self._sites:
            return site
        plain = str(site).replace(".hook_", ".")  # the names people know from TransformerLens
        found = [name for name in self._sites if fnmatchcase(name, plain)]
        if len(found) == 1:
            return found[0]
        if found:
            raise SiteNotFoundError(
                f"{site!r} matches {len(found)} sites of {self.system}: {', '.join(map(repr, found[:3]))}, …; "
                "name one, or take several with store.select(sites=…)"
            )
        raise SiteNotFoundError(f"{self.system} has no site {site!r}; nearest: {nearest(plain, self._sites)}")

    def units(self, site: str) -> pa.Table | None:
        """The unit table of a site (head, channel, ROI, …), or None."""
        return self.view(site).unit_table

    def matching(self, patterns: str | Sequence[str]) -> list[str]:
        """The sites that any of these globs matches, in the order of the capture.

        Raises:
            SiteNotFoundError: a pattern matches nothing.
        """
        wanted = [patterns] if isinstance(patterns, str) else list(patterns)
        chosen: set[str] = set()
        for pattern in wanted:
            plain = pattern.replace(".hook_", ".")
            found = {pattern} & set(self._sites) or {name for name in self._sites if fnmatchcase(name, plain)}
            if not found:
                raise SiteNotFoundError(f"{self.system} has no site that matches {pattern!r}; nearest: {nearest(plain, self._sites)}")
            chosen |= found
        return [name for name in self._sites if name in chosen]

    def select(self, sites: str | Sequence[str] = "*", *, rows: Any = None, where: Any = None) -> Store:
        """A lazy store of some sites and rows; nothing is copied.

        Args:
            sites: a name, a glob, or several.
            rows: a slice, numbers or a mask, for stores whose sites share one row set.
            where: columns and the value (or list of values) they must have, or a function of the columns that gives a mask:
                `where={"label": "cat"}`, `where=lambda column: column["length"] > 8`.

        Raises:
            SiteNotFoundError: no site matches.
            StoreMismatchError: `rows` is given while the sites have several row sets, or `where` gives no mask.
            StimuliError: a column of `where` does not exist.
        """
        kept = {name: self._sites[name] for name in self.matching(sites)}
        heads = {entry.spec.row_set: name for name, entry in reversed(kept.items())}
        if rows is not None and len(heads) > 1:
            raise StoreMismatchError(
                f"rows= is ambiguous: the sites have {len(heads)} row sets ({', '.join(sorted(heads))}); "
                "use where=, select sites of one row set first, or store[site].select(rows=…)"
            )
        if rows is None and where is None:
            return Store(self._cut_manifest(kept), self.stimuli, kept, path=self.path)
        chosen: dict[str, range | np.ndarray] = {}
        for row_set, head in heads.items():
            view = self.view(head)
            numbers: Any = choice(rows, view.n, view) if rows is not None else None
            if where is not None:
                mask = _mask(view, where)
                numbers = np.flatnonzero(mask) if numbers is None else (found := np.asarray(numbers))[mask[found]]
            chosen[row_set] = numbers
        indexes = {name: kept[head].index.take(chosen[name]) for name, head in heads.items()}
        used = np.unique(np.concatenate([index.stimulus for index in indexes.values()]))
        renumber = np.full(self.stimuli.num_rows, -1, np.int64)
        renumber[used] = np.arange(len(used))
        fresh = {name: index.renumbered(renumber) for name, index in indexes.items()}
        parts = {
            name: Site(entry.spec, ChosenRows(entry.source, chosen[entry.spec.row_set]), fresh[entry.spec.row_set], entry.units)
            for name, entry in kept.items()
        }
        return Store(self._cut_manifest(kept), self.stimuli.take(pa.array(used)), parts)

    def _cut_manifest(self, kept: Mapping[str, Any]) -> Manifest:
        return self.manifest.with_(sites={name: self.manifest.sites[name] for name in kept})

    def append(self, other: Any, stimuli: Any = None, *, as_repeats: bool = False) -> Store:
        """This store with the rows of another store or of arrays after its own; a store on disk grows on disk.

        Args:
            other: a store with the same sites, or arrays by site as in `from_arrays`.
            stimuli: the stimuli of the arrays.
            as_repeats: ids that are already here count as further repeats; without it they are refused.

        Raises:
            StoreMismatchError: sites, units or dtypes differ, or an id is already here.
        """
        from inscape.store.growing import append

        return append(self, other, stimuli, as_repeats=as_repeats)

    def join(self, other: Store, *, repeats: str | None = None, on: str = "all") -> Store:
        """The sites of both stores over the same rows, matched by stimulus id (and position).

        Args:
            other: the other store; sites of the same name get "system/" in front.
            repeats: "mean" (average them), "split" (repeat i with repeat i) or "all" (every pair); needed when there are any.
            on: "all" refuses ids that one side lacks, "intersection" keeps the common ones.

        Raises:
            StoreMismatchError: ids differ, row sets are of different kinds, or `repeats` is needed.
        """
        from inscape.store.growing import join

        return join(self, other, repeats=repeats, on=on)

    def save(self, to: str | Path) -> Store:
        """Writes this store into the folder `to` and opens it; the same content resumes or is left as it is.

        Raises:
            StoreMismatchError: the folder holds something else.
        """
        from inscape.store.growing import save

        return save(self, to)

    @staticmethod
    def from_arrays(
        arrays: Any,
        stimuli: Any = None,
        *,
        to: str | Path | None = None,
        units: Any = None,
        system: str | None = None,
    ) -> Store:
        """A store of ready arrays; rows are stimuli.

        Args:
            arrays: one array or a mapping site -> array: [n, d], or [n, r, d] with r repeats. NumPy, torch, or the path of an
                `.npy`, `.npz` or `.safetensors` file. Maps (`np.memmap`, `.npy`, uncompressed `.npz`) stay on disk and are read block by
                block. NaN is stored; measures refuse it.
            stimuli: ids, a dict of columns, an Arrow table or a DataFrame: one entry per row. An id that comes back is a repeat.
            to: a folder to write; None keeps the store in memory (sharing the arrays' memory).
            units: a unit table (one row per unit), or a mapping site -> table.
            system: a short label.

        Raises:
            DegenerateInputError: an array is not numeric, or is pickled.
            StoreMismatchError: arrays have different numbers of rows.
            StimuliError: the stimuli do not fit the rows.
        """
        from inscape.store.building import from_arrays

        return from_arrays(arrays, stimuli, to=to, units=units, system=system)

    @staticmethod
    def from_parquet(
        path: str | Path | Sequence[str | Path],
        *,
        vector: str | Sequence[str] | None = None,
        columns: str | Sequence[str] | None = None,
        stimulus: str | None = None,
        to: str | Path | None = None,
        system: str | None = None,
    ) -> Store:
        """A store of a Parquet file: each `vector` column (lists of numbers) is a site, or `columns` together are one.

        Args:
            path: a Parquet file, a folder of them, a pattern such as "embeddings/*.parquet", or several of these, whose rows follow one
                another; their other columns describe the stimuli.
            vector: names of list columns; by default every list column of floats.
            columns: names or globs of numeric columns, which become the units of one site "X" with their names as unit table.
            stimulus: the column with the ids (default: `stimulus` if there is one, else row numbers).
            to: a folder to write; the rows then pass through memory one row group at a time.
            system: a short label; defaults to the file's name.

        Raises:
            StimuliError: a column is missing, ragged, not numeric or has nulls.
        """
        from inscape.store.building import from_parquet

        return from_parquet(path, vector=vector, columns=columns, stimulus=stimulus, to=to, system=system)

    @staticmethod
    def from_faiss(index: Any, stimuli: Any = None, *, to: str | Path | None = None, site: str = "X", system: str | None = None) -> Store:
        """A store of the vectors in a FAISS index; they are read back from it, and the index stays as it is.

        Args:
            index: an index, or the path of one that `faiss.write_index` has written.
            stimuli: ids, a dict of columns, an Arrow table or a DataFrame: one entry per vector, in the order in which they were added
                (for inverted lists: of their ids). Default: the ids of the index.
            to: a folder to write; None reads from the index whenever rows are asked for.
            site: what the rows are called.
            system: a short label; defaults to the file's name.

        Raises:
            StoreMismatchError: the index cannot give its vectors back, or is none.
            DegenerateInputError: the index is empty.
            MissingExtraError: FAISS is not installed.

        Example:
            >>> store = Store.from_faiss("corpus.index", stimuli=table)    # doctest: +SKIP
        """
        from inscape.store.building import from_faiss

        return from_faiss(index, stimuli, to=to, site=site, system=system)

    def fingerprint(self) -> str:
        """A hash of values, index and stimuli: equal texts mean equal content (cut into other shards, the same content gives another)."""
        from inscape.store.growing import fingerprint

        return fingerprint(self)

    def verify(self) -> list[str]:
        """Checks every file against its checksum; returns the problems, one sentence each (none: an empty list)."""
        problems: list[str] = [] if self.complete else [f"{self.system} is incomplete: run the capture again to resume"]
        if self.path is None:
            return problems
        root = place_of(self.path)
        checks: list[Callable[[], object]] = [lambda: read_stimuli(root, self.manifest)]
        checks += [lambda site=site: read_units(root, self.manifest, site) for site in self.manifest.units]
        for entry in self.manifest.shards:
            checks += [lambda n=name, f=facts: check_file(root / n, f, checksum=True) for name, facts in entry.files.items()]
        for check in checks:
            try:
                check()
            except StoreCorruptError as error:
                problems.append(str(error))
        return problems

    def summary(self) -> str:
        """What the store holds, as text."""
        return store_text(self)

    __repr__ = summary

    def _repr_html_(self) -> str:
        return store_page(self)


class _Columns(Mapping[str, np.ndarray]):
    """The columns that a `where` function sees."""

    def __init__(self, view: View) -> None:
        self.view = view

    def __getitem__(self, name: str) -> np.ndarray:
        return self.view.column(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.view.columns)

    def __len__(self) -> int:
        return len(self.view.columns)


def _mask(view: View, where: Any) -> np.ndarray:
    if callable(where):
        mask = np.asarray(where(_Columns(view)))
    elif isinstance(where, Mapping):
        mask = np.ones(view.n, bool)
        for name, wanted in where.items():
            values = view.column(name)
            many = isinstance(wanted, (list, tuple, set, frozenset, np.ndarray))
            hits = [np.asarray(values == item, bool) for item in (wanted if many else [wanted])]
            mask &= np.logical_or.reduce(hits) if hits else False
    else:
        raise StoreMismatchError(f"where must be a dict of columns or a function of them; got {type(where).__name__}")
    if mask.shape != (view.n,) or mask.dtype.kind not in "bO":
        raise StoreMismatchError(f"where gave {mask.dtype} of shape {mask.shape}; expected a mask of shape ({view.n},)")
    return mask.astype(bool)


def empty_rows(spec: SiteSpec) -> Tensor:
    """No rows of a site."""
    return torch.empty((0, spec.d), dtype=spec.torch_dtype)
