"""Moments of the tokens of every sequence: what class moments are to classes."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from torch import linalg

from inscape.arrays import as_rows
from inscape.summaries.classes import ClassMoments


class SequenceMoments(ClassMoments):
    """Per sequence the count, the mean and Σ‖x−mean‖² of its tokens; with `unit` of the tokens divided by their length.

    Tokens of length zero stay zero. Sequences merge over parts, so one may be spread over several blocks of rows.

    Cost of a pass: n d; 8 d bytes per sequence.

    Example:
        >>> sequences = SequenceMoments.of(X[:5], [0, 0, 0, 1, 1])  # [5, d]: a sequence of three tokens and one of two
        >>> sequences.within_trace / sequences.counts
    """

    labeled: ClassVar[bool] = False
    sequenced: ClassVar[bool] = True

    @classmethod
    def of(cls, X: Any, labels: Any = None, *, scatter: bool = False, unit: bool = False) -> ClassMoments:
        """The moments of tokens X [n, d] by sequence.

        Args:
            X: array, tensor or view, [n, d].
            labels: the sequence of each token, [n]; None for one sequence.
            scatter: also hold the scatter within sequences, pooled.
            unit: divide every token by its length first.

        Raises:
            DegenerateInputError: X is not [n, d] or holds NaN or infinity, or there is not one label per row.
        """
        rows = as_rows(X, minimum=0)
        if unit:
            lengths = linalg.vector_norm(rows.double(), dim=1, keepdim=True)
            rows = rows.double() / lengths.masked_fill(lengths == 0, 1.0)
        return cls(scatter=scatter).update(rows, np.zeros(len(rows), dtype=np.int64) if labels is None else labels)


def sequences_of(stimulus: np.ndarray, repeat: np.ndarray) -> np.ndarray:
    """A number for the sequence of each row, [n] int64: a presentation of a stimulus is a sequence of its own."""
    return stimulus.astype(np.int64) * 2**31 + repeat.astype(np.int64)
