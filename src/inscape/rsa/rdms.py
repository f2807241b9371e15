"""`RDMs`: representational dissimilarity matrices of several subjects, sites or models over one set of stimuli."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inscape.errors import DegenerateInputError, ResultError, StoreCorruptError, StoreMismatchError, TooFewStimuliError, nearest
from inscape.store.tables import ID
from inscape.summaries import RDM

FORMAT_VERSION = 1
SUBJECT = "subject"


class RDMs:
    """A stack of dissimilarity matrices with what is known about their stimuli and about whom they come from.

    Each matrix is kept as its upper triangle, row by row: (0,1), (0,2), …, (1,2), …; NaN marks a pair that was not measured. A single
    matrix is a stack of one.

    Args:
        values: dissimilarities of shape [k, n(n − 1)/2] or, for one matrix, [n(n − 1)/2].
        stimuli: columns with one entry for each of n stimuli, or their ids; numbers from 0 by default.
        subjects: columns with one entry for each of k matrices, or their names; numbers from 0 by default.
        distance: which dissimilarity it is.

    Raises:
        DegenerateInputError: the number of pairs belongs to no number of stimuli, or entries are infinite.
        StoreMismatchError: a column has another number of entries.

    Example:
        >>> import inscape as ix
        >>> rdms = ix.rdm({"ann": [[0.0, 1], [1, 0], [2, 2]], "bob": [[0.0, 1], [3, 0], [2, 1]]}, "euclidean")
        >>> len(rdms), rdms.n, rdms["bob"].square().shape
        (2, 3, (1, 3, 3))
    """

    def __init__(
        self,
        values: Any,
        stimuli: Mapping[str, Any] | Sequence[Any] | None = None,
        subjects: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        distance: str = "",
    ) -> None:
        array = np.array(torch.as_tensor(values).cpu() if isinstance(values, torch.Tensor) else values, dtype=np.float64)
        array = array[None] if array.ndim == 1 else array
        n = round((1 + (1 + 8 * array.shape[-1]) ** 0.5) / 2)
        if array.ndim != 2 or n * (n - 1) // 2 != array.shape[1] or n < 2 or not len(array):
            raise DegenerateInputError(
                f"dissimilarities have shape {array.shape}; expected [k, n(n - 1)/2], one row for each matrix. "
                "For square matrices use RDMs.from_squares"
            )
        if np.isinf(array).any():
            raise DegenerateInputError(f"{int(np.isinf(array).sum())} dissimilarities are infinite; mark missing pairs by NaN")
        self.values = array
        self.n = n
        self.distance = distance
        self.stimuli = _columns(stimuli, ID, n, "stimuli")
        self.subjects = _columns(subjects, SUBJECT, len(array), "matrices")

    @classmethod
    def from_squares(
        cls,
        squares: Any,
        stimuli: Mapping[str, Any] | Sequence[Any] | None = None,
        subjects: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        distance: str = "",
    ) -> RDMs:
        """From symmetric matrices [k, n, n] or [n, n] with zeros (or NaN) on the diagonal.

        Raises:
            DegenerateInputError: a matrix is not square, not symmetric, or holds similarities (a diagonal that is not 0).
        """
        array = np.asarray(squares, dtype=np.float64)
        array = array[None] if array.ndim == 2 else array
        if array.ndim != 3 or array.shape[1] != array.shape[2]:
            raise DegenerateInputError(f"squares have shape {array.shape}; expected [k, n, n] or [n, n]")
        scale = np.nanmax(np.abs(array), initial=0.0) if np.isfinite(array).any() else 0.0
        off = np.nanmax(np.abs(np.diagonal(array, axis1=1, axis2=2)), initial=0.0)
        if off > 1e-6 * scale:
            raise DegenerateInputError(f"the diagonal holds {off:.3g}, expected 0: are these similarities? Then give 1 - similarities")
        skew = np.nanmax(np.abs(array - array.transpose(0, 2, 1)), initial=0.0)
        if skew > 1e-6 * scale:
            raise DegenerateInputError(f"matrices are not symmetric (entries differ by up to {skew:.3g}); average both triangles first")
        above = np.triu_indices(array.shape[1], 1)
        return cls(array[:, above[0], above[1]], stimuli, subjects, distance=distance)

    # ---- reading -------------------------------------------------------------------------------------------------

    @property
    def ids(self) -> list[str]:
        """The ids of the stimuli, in order."""
        return [str(one) for one in self.stimuli[ID]]

    @property
    def names(self) -> list[str]:
        """The names of the matrices, in order."""
        return [str(one) for one in self.subjects[SUBJECT]]

    @property
    def complete(self) -> bool:
        """Whether no pair is missing."""
        return not np.isnan(self.values).any()

    def square(self) -> np.ndarray:
        """Symmetric matrices [k, n, n] with zeros on the diagonal."""
        full = np.zeros((len(self), self.n, self.n))
        above = np.triu_indices(self.n, 1)
        full[:, above[0], above[1]] = self.values
        return full + full.transpose(0, 2, 1)

    def summary(self) -> RDM:
        """The one matrix as the summary that measures take: `ix.measures.rsa_corr.evaluate(x=a.summary(), y=b.summary())`.

        Raises:
            ResultError: there are several matrices.
            DegenerateInputError: pairs are missing.
        """
        if len(self) != 1:
            raise ResultError(f"a measure takes one matrix, and these are {len(self)}: choose one (rdms[0]) or pool them (rdms.pool())")
        if not self.complete:
            raise DegenerateInputError(f"{int(np.isnan(self.values).sum())} pairs are missing; a measure takes complete matrices")
        return RDM(torch.from_numpy(self.values[0].copy()), self.n, self.distance)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[RDMs]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, which: int | str) -> RDMs:
        if isinstance(which, str):
            if which not in self.names:
                raise ResultError(f"there is no matrix {which!r}; nearest: {nearest(which, self.names)}")
            which = self.names.index(which)
        if not -len(self) <= which < len(self):
            raise IndexError(f"matrix {which} of {len(self)}")
        return self.select(subjects=[which % len(self)])

    def __repr__(self) -> str:
        missing = int(np.isnan(self.values).sum())
        text = f"RDMs: {len(self)} of {self.n} stimuli" + (f", {self.distance} distance" if self.distance else "")
        return text + (f", {missing} pairs missing" if missing else "")

    # ---- choosing ------------------------------------------------------------------------------------------------

    def select(self, stimuli: Any = None, subjects: Any = None) -> RDMs:
        """Some stimuli and some matrices, in the order asked for.

        Args:
            stimuli: numbers, a mask [n], or {column: value or values}; None for all.
            subjects: the same for the matrices.

        Raises:
            TooFewStimuliError: fewer than 2 stimuli remain.
            ResultError: a column that is not there, or nothing that fits.
        """
        rows = _choice(stimuli, self.stimuli, self.n, "stimuli")
        keep = _choice(subjects, self.subjects, len(self), "matrices")
        if len(rows) < 2:
            raise TooFewStimuliError(f"{len(rows)} of {self.n} stimuli were selected; a dissimilarity needs 2")
        if not len(keep):
            raise ResultError(f"none of the {len(self)} matrices was selected")
        if len(set(rows.tolist())) != len(rows):
            raise ResultError("a stimulus was selected twice; its distance to itself is no dissimilarity")
        values = self.values[keep]
        if len(rows) != self.n or (np.diff(rows) != 1).any():
            above = np.triu_indices(len(rows), 1)
            first, second = rows[above[0]], rows[above[1]]
            low, high = np.minimum(first, second), np.maximum(first, second)
            values = values[:, low * (2 * self.n - low - 1) // 2 + high - low - 1]
        return RDMs(
            values,
            {name: column[rows] for name, column in self.stimuli.items()},
            {name: column[keep] for name, column in self.subjects.items()},
            distance=self.distance,
        )

    def reorder(self, order: str | Sequence[int] | np.ndarray) -> RDMs:
        """All stimuli in another order: their numbers, or the column to sort by (equal entries keep their order).

        Raises:
            ResultError: numbers that are no order of all stimuli, or a column that is not there.
        """
        if isinstance(order, str):
            return self.select(stimuli=np.argsort(_column(self.stimuli, order, "stimuli"), kind="stable"))
        numbers = np.asarray(order)
        if sorted(numbers.tolist()) != list(range(self.n)):
            raise ResultError(f"an order names each of the {self.n} stimuli once, got {len(numbers)} numbers")
        return self.select(stimuli=numbers)

    def with_columns(self, stimuli: Mapping[str, Any] | None = None, subjects: Mapping[str, Any] | None = None) -> RDMs:
        """The same matrices with more (or other) columns that describe stimuli and matrices, one entry for each.

        Raises:
            StoreMismatchError: a column has another number of entries.
        """
        return RDMs(self.values, {**self.stimuli, **(stimuli or {})}, {**self.subjects, **(subjects or {})}, distance=self.distance)

    def align(self, other: RDMs) -> RDMs:
        """These matrices with the stimuli in the order of `other`.

        Raises:
            StoreMismatchError: the ids differ.
        """
        if self.ids == other.ids:
            return self
        mine, theirs = set(self.ids), set(other.ids)
        if mine != theirs or len(mine) != self.n:
            alone = sorted(mine ^ theirs)[:3]
            raise StoreMismatchError(
                f"stimuli differ: {len(mine - theirs)} only in one, {len(theirs - mine)} only in the other, such as {alone}; "
                "select the shared ones first"
            )
        place = {name: index for index, name in enumerate(self.ids)}
        return self.select(stimuli=[place[name] for name in other.ids])

    @staticmethod
    def concat(parts: Sequence[RDMs]) -> RDMs:
        """All matrices of several stacks, stimuli in the order of the first; columns that some lack are left out there.

        Raises:
            StoreMismatchError: the stimuli differ.
        """
        first = parts[0]
        aligned = [part.align(first) for part in parts]
        shared = [name for name in first.subjects if all(name in part.subjects for part in parts)]
        subjects = {name: np.concatenate([part.subjects[name].astype(object) for part in parts]) for name in shared}
        distances = list(dict.fromkeys(part.distance for part in parts))
        return RDMs(
            np.concatenate([part.values for part in aligned]),
            first.stimuli,
            subjects,
            distance=distances[0] if len(distances) == 1 else "mixed",
        )

    def pool(self, measure: str = "rsa_cosine") -> RDMs:
        """The one matrix that is most similar to all, on average, under a measure.

        Matrices are brought to one size for `rsa_cosine` (root mean square) and `rsa_cosine_whitened` (its own length), standardized for
        `rsa_corr` and `rsa_corr_whitened`, or ranked for `rsa_spearman`, `rsa_rho_a` and `rsa_tau_a` (for which mean ranks are an
        approximation), and averaged over those that have the pair.

        Raises:
            DegenerateInputError: a measure that pools in no known way, or a constant matrix.
        """
        from inscape.rsa.pooling import pooled

        return RDMs(pooled(self.values, measure), self.stimuli, ["pooled"], distance=self.distance)

    # ---- files, others, pictures ---------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes `rdms.safetensors` and `rdms.json` into a folder."""
        from safetensors.numpy import save_file

        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        text = {
            "format_version": FORMAT_VERSION,
            "distance": self.distance,
            "stimuli": {name: column.tolist() for name, column in self.stimuli.items()},
            "subjects": {name: column.tolist() for name, column in self.subjects.items()},
        }
        try:
            encoded = json.dumps(text, indent=1)
        except TypeError as error:
            raise ResultError(f"a column of these matrices cannot be written as JSON: {error}") from error
        save_file({"values": self.values}, folder / "rdms.safetensors.part")
        (folder / "rdms.json.part").write_text(encoded + "\n", encoding="utf-8")
        for name in ("rdms.safetensors", "rdms.json"):
            os.replace(folder / f"{name}.part", folder / name)
        return folder

    @staticmethod
    def load(path: str | os.PathLike[str]) -> RDMs:
        """Reads what `save` wrote, or a file of rsatoolbox (.h5, .hdf5; needs h5py).

        Raises:
            ResultError: there are no matrices, or they are of a newer format.
            StoreCorruptError: a file is missing or cannot be read.
        """
        from safetensors.numpy import load_file

        folder = Path(path)
        if folder.suffix in (".h5", ".hdf5"):
            from inscape.rsa.exchange import read_rsatoolbox

            return read_rsatoolbox(folder)
        if not (folder / "rdms.json").is_file():
            raise ResultError(f"{folder} holds no matrices: there is no rdms.json; give a folder that RDMs.save wrote")
        try:
            text = json.loads((folder / "rdms.json").read_text(encoding="utf-8"))
            version = text["format_version"]
            if version <= FORMAT_VERSION:
                values = load_file(folder / "rdms.safetensors")["values"]
                return RDMs(values, text["stimuli"], text["subjects"], distance=text["distance"])
        except ResultError:
            raise
        except Exception as error:  # safetensors raises a class of its own that derives from nothing narrower
            raise StoreCorruptError(f"a file of the matrices {folder} is missing or damaged: {error}") from error
        raise ResultError(f"{folder} is of format {version}, this inscape reads up to {FORMAT_VERSION}; upgrade inscape")

    def to_rsatoolbox(self, path: str | os.PathLike[str] | None = None) -> Any:
        """The `rsatoolbox.rdm.RDMs` of these matrices (needs rsatoolbox), or a file of it at `path` (.h5, needs h5py)."""
        from inscape.rsa.exchange import as_rsatoolbox, write_rsatoolbox

        return as_rsatoolbox(self) if path is None else write_rsatoolbox(self, path)

    @staticmethod
    def from_rsatoolbox(rdms: Any) -> RDMs:
        """From a `rsatoolbox.rdm.RDMs`; its descriptors become columns. For files see `load`."""
        from inscape.rsa.exchange import of_dictionary

        return of_dictionary(rdms.to_dict())

    def plot(self, other: RDMs | None = None, **options: Any) -> Any:
        """A matplotlib `Figure` of the matrices, or of one beside `other` with their difference; see `inscape.plots.rdm_heatmaps`."""
        from importlib import import_module

        return import_module("inscape.plots.rdms").rdm_heatmaps(self, other, **options)


def _columns(given: Mapping[str, Any] | Sequence[Any] | None, first: str, count: int, what: str) -> dict[str, np.ndarray]:
    """Columns as arrays of Python values, the first of them naming each entry."""
    columns: Mapping[str, Any] = given if isinstance(given, Mapping) else {} if given is None else {first: given}
    made = {name: np.array([_plain(one) for one in column], dtype=object) for name, column in columns.items()}
    for name, column in made.items():
        if column.shape != (count,):
            raise StoreMismatchError(f"column {name!r} has {len(column)} entries for {count} {what}")
    if first not in made:
        made = {first: np.array([str(index) for index in range(count)], dtype=object), **made}
    return made


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
    return value.decode() if isinstance(value, bytes) else value


def _column(columns: Mapping[str, np.ndarray], name: str, what: str) -> np.ndarray:
    if name not in columns:
        raise ResultError(f"{what} have no column {name!r}; nearest: {nearest(name, columns)}")
    return columns[name]


def _choice(asked: Any, columns: Mapping[str, np.ndarray], count: int, what: str) -> np.ndarray:
    if asked is None:
        return np.arange(count)
    if isinstance(asked, Mapping):
        mask = np.ones(count, dtype=bool)
        for name, wanted in asked.items():
            values = list(wanted) if isinstance(wanted, (list, tuple, set, frozenset, np.ndarray)) else [wanted]
            mask &= np.array([one in values for one in _column(columns, str(name), what)])
        return np.flatnonzero(mask)
    numbers = np.asarray(asked)
    if numbers.dtype == bool:
        if numbers.shape != (count,):
            raise ResultError(f"a mask of shape {numbers.shape} cannot choose among {count} {what}")
        return np.flatnonzero(numbers)
    numbers = numbers.astype(np.int64).reshape(-1)
    if len(numbers) and (numbers.min() < -count or numbers.max() >= count):
        raise IndexError(f"{what} are numbered 0 … {count - 1}, got {numbers.min()} … {numbers.max()}")
    return np.where(numbers < 0, numbers + count, numbers)
