"""The rows of one site as the summaries read them: a fixed choice of rows, a compute dtype, in memory or straight from the store."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inscape.arrays import check_finite, compute_dtype
from inscape.store import View
from inscape.summaries.sequences import sequences_of
from inscape.summaries.spectra import solver_threads


class SiteRows:
    """Chosen rows of a view, in the dtype that GEMMs on them use.

    Held in memory after `load`, else read from the store at every touch. Half precision becomes fp32, fp64 stays fp64; `precise`
    asks for fp64 whatever is stored.

    Args:
        view: the site.
        rows: row numbers to use, in order; None for all.
        precise: compute in fp64.
    """

    def __init__(self, view: View, rows: np.ndarray | None = None, *, precise: bool = False) -> None:
        self.view = view
        self.rows = None if rows is None else np.asarray(rows, dtype=np.int64)
        self.n = view.n if self.rows is None else len(self.rows)
        self.d = view.d
        self.dtype = torch.float64 if precise else compute_dtype(view.dtype)
        self._held: Tensor | None = None

    @property
    def whole(self) -> SiteRows:
        """The rows as the store has them."""
        return self

    @property
    def name(self) -> str:
        """System and site, for messages."""
        return f"{self.view.system}/{self.view.site}"

    @property
    def nbytes(self) -> int:
        """Bytes when held in memory."""
        return self.n * self.d * self.dtype.itemsize

    @property
    def sources(self) -> np.ndarray:
        """The stimulus that each row comes from, shape [n]: rows of one stimulus are dependent."""
        return self.view.stimulus if self.rows is None else self.view.stimulus[self.rows]

    @property
    def sequences(self) -> np.ndarray:
        """The sequence that each row is a token of, shape [n]: a presentation of a stimulus."""
        found = sequences_of(self.view.stimulus, self.view.repeat)
        return found if self.rows is None else found[self.rows]

    def load(self) -> SiteRows:
        """Reads the rows into memory once; they stay until `release`."""
        if self._held is None:
            self._held = self._read(slice(0, self.n))
        return self

    def release(self) -> None:
        """Drops the rows from memory."""
        self._held = None

    @property
    def held(self) -> bool:
        """Whether the rows are in memory."""
        return self._held is not None

    def take(self, chosen: np.ndarray | slice) -> Tensor:
        """Rows by number within this choice, [m, d], checked to be finite when they come from the store.

        Raises:
            DegenerateInputError: a row holds NaN or infinity; the message names the site.
        """
        if self._held is not None:
            return self._held[chosen] if isinstance(chosen, slice) else self._held[torch.from_numpy(np.asarray(chosen))]
        return self._read(chosen)

    def all(self) -> Tensor:
        """Every row, [n, d]."""
        return self.take(slice(0, self.n))

    def _read(self, chosen: np.ndarray | slice) -> Tensor:
        if self.rows is None and isinstance(chosen, slice):
            tensor = self.view.read(chosen.start, chosen.stop)
        else:
            within = np.arange(chosen.start, chosen.stop) if isinstance(chosen, slice) else np.asarray(chosen)
            tensor = self.view.gather(within if self.rows is None else self.rows[within])
        tensor = tensor.to(self.dtype)
        check_finite(tensor, self.name)
        return tensor


class SpanRows(SiteRows):
    """The rows of a site with more units than rows, in memory, as coordinates in their own span: for what no rotation of them changes.

    Args:
        whole: the rows as the store has them.
    """

    def __init__(self, whole: SiteRows) -> None:
        super().__init__(whole.view, whole.rows)
        self._whole = whole
        self._held = in_span(whole.all())
        self.d, self.dtype = self._held.shape[1], self._held.dtype

    @property
    def whole(self) -> SiteRows:
        return self._whole


def in_span(rows: Tensor) -> Tensor:
    """The rows themselves, or, where units outnumber them, their coordinates [n, n] about their mean in a basis of their span; n² d."""
    n, d = rows.shape
    if d <= n:
        return rows
    centered = rows.double() - rows.mean(0, dtype=torch.float64)
    with solver_threads(n):
        return torch.linalg.qr(centered.T, mode="r").R.T.contiguous()
