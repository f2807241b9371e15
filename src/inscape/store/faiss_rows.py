"""The vectors of a FAISS index as rows, read back from the index when they are asked for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.errors import DegenerateInputError, InscapeWarning, StoreMismatchError, require
from inscape.store.array_rows import hash_rows

# Indexes that keep the numbers they were given; what they give back is those, bit for bit.
_EXACT = ("IndexFlat", "IndexFlatL2", "IndexFlatIP", "IndexFlat1D", "IndexIVFFlat", "IndexIVFFlatDedup")

Read = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Kept:
    """What an index keeps of its vectors.

    Attributes:
        n: how many.
        d: units.
        read: gives the vectors at some places.
        ids: their ids in the index, where those are not their places.
        kinds: the index and those within it.
        exact: the vectors are those that were added.
        owner: the index itself, without which its parts are gone.
    """

    n: int
    d: int
    read: Read
    ids: np.ndarray | None
    kinds: tuple[str, ...]
    exact: bool
    owner: Any = None


class FaissRows:
    """Rows of an index."""

    dtype = "float32"

    def __init__(self, kept: Kept) -> None:
        self.kept, self.n, self.d = kept, kept.n, kept.d

    def read(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop)."""
        return self.gather(np.arange(start, stop))

    def gather(self, rows: np.ndarray) -> Tensor:
        """The rows with these numbers, in this order."""
        if not len(rows):
            return torch.empty(0, self.d)
        return torch.from_numpy(self.kept.read(np.ascontiguousarray(rows, np.int64)))

    def fingerprint(self) -> str:
        """The hash that the same rows have in memory."""
        return hash_rows(self)


def open_index(source: Any) -> Any:
    """The index itself, or the one in a file.

    Raises:
        MissingExtraError: FAISS is not installed.
        StoreMismatchError: there is no index.
    """
    require("faiss", "knn", "reading a FAISS index")
    import faiss

    if isinstance(source, (str, os.PathLike)):
        path = Path(os.fspath(source))
        if not path.is_file():
            raise StoreMismatchError(
                f"there is no file at {str(path)!r}; give an index, or the path of one that faiss.write_index has written"
            )
        try:
            source = faiss.read_index(str(path))
        except RuntimeError as error:
            raise StoreMismatchError(f"{str(path)!r} cannot be read as a FAISS index: {_last(error)}") from error
    if not isinstance(source, faiss.Index):
        kind = type(source).__name__
        bits = "; a binary index holds bits and no numbers" if kind.startswith("IndexBinary") else ""
        raise StoreMismatchError(f"expected a FAISS index of vectors or the path of one, got {kind}{bits}")
    return source


def kept_by(index: Any) -> Kept:
    """What an index keeps; nothing in it is changed.

    Raises:
        StoreMismatchError: it cannot give its vectors back.
        DegenerateInputError: it is empty.
    """
    if index.ntotal == 0:
        raise DegenerateInputError(f"the {type(index).__name__} of {index.d} units holds no vectors; add some first")
    kept = replace(_kept(index), owner=index)
    try:
        kept.read(np.zeros(1, np.int64))  # one by one: where this is not possible, FAISS ends the process when asked for many
    except RuntimeError as error:
        raise StoreMismatchError(
            f"this index ({' of '.join(kept.kinds)}) cannot give its vectors back: {_last(error)}. Give the arrays that it was made from"
        ) from error
    return kept


def tell_loss(kept: Kept) -> None:
    """Warns where the vectors are not those that were added."""
    if not kept.exact:
        warnings.warn(
            f"the index ({' of '.join(kept.kinds)}) keeps codes and not the vectors themselves: the rows of this store are what the codes "
            "stand for. Distances between near vectors suffer most",
            InscapeWarning,
            stacklevel=4,
        )


def _kept(given: Any) -> Kept:
    import faiss

    index = given
    name = type(index).__name__
    if name.startswith("Gpu"):
        return _kept(faiss.index_gpu_to_cpu(index))
    if isinstance(index, faiss.IndexIDMap):
        inner = _within(index, index.index)
        own = faiss.vector_to_array(index.id_map)
        return replace(inner, ids=own if inner.ids is None else own[inner.ids])
    if isinstance(index, faiss.IndexPreTransform):
        inner = _within(index, index.index)

        def back(rows: np.ndarray) -> np.ndarray:
            made, out = np.ascontiguousarray(inner.read(rows)), np.empty((len(rows), index.d), np.float32)
            getattr(index, "reverse_chain")(len(rows), faiss.swig_ptr(made), faiss.swig_ptr(out))  # noqa: B009
            return out

        return replace(inner, d=index.d, read=back, exact=False)
    if isinstance(index, faiss.IndexRefine):
        return _within(index, index.refine_index)
    if isinstance(index, (faiss.IndexHNSW, faiss.IndexNSG)):
        return _within(index, getattr(index, "storage"))  # noqa: B009  (FAISS's own types leave it out)
    if isinstance(index, faiss.IndexIVF):
        return _inverted(index)

    def each(rows: np.ndarray) -> np.ndarray:
        return np.stack([index.reconstruct(int(row)) for row in rows]) if len(rows) == 1 else index.reconstruct_batch(rows)

    return Kept(int(index.ntotal), int(index.d), each, None, (name,), name in _EXACT)


def _within(outer: Any, inner: Any) -> Kept:
    import faiss

    kept = _kept(faiss.downcast_index(inner))
    return replace(kept, kinds=(type(outer).__name__, *kept.kinds))


def _inverted(index: Any) -> Kept:
    """An index of inverted lists: its vectors by ascending id, each at its place in a list; no map is made inside the index."""
    import faiss

    lists, sizes = index.invlists, [int(index.invlists.list_size(i)) for i in range(index.nlist)]
    ids = np.concatenate([np.array(faiss.rev_swig_ptr(lists.get_ids(i), size)) for i, size in enumerate(sizes) if size])
    order = np.argsort(ids, kind="stable")
    places = np.concatenate([np.arange(size) for size in sizes])[order]
    number = np.repeat(np.arange(index.nlist), sizes)[order]
    ids = ids[order]

    def read(rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), index.d), np.float32)
        for at, row in enumerate(rows):
            index.reconstruct_from_offset(int(number[row]), int(places[row]), faiss.swig_ptr(out[at]))
        return out

    own = None if np.array_equal(ids, np.arange(len(ids))) else ids
    name = type(index).__name__
    return Kept(len(ids), int(index.d), read, own, (name,), name in _EXACT)


def _last(error: RuntimeError) -> str:
    """What FAISS says, without where in its sources it says it."""
    return str(error).rpartition(": ")[2].strip() or str(error)
