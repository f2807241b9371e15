"""Which columns of the rows go with a feature: correlations of its activation with classes and numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inscape.store import View

MOST_CLASSES = 24
_NOT_LABELS = {"stimulus", "text", "token", "token_id", "repeat", "position", "special"}


class Labels:
    """Sums from which correlations follow, added up over blocks of rows; m × classes numbers.

    Args:
        view: rows whose columns are the labels.
        names: which columns; by default those with 2 to 24 different values, and numbers.
        m: features.
    """

    def __init__(self, view: View, names: Sequence[str] | None, m: int) -> None:
        self.names: list[str] = []
        columns: list[np.ndarray] = []
        for name in [name for name in view.columns if name not in _NOT_LABELS] if names is None else names:
            values = view.column(name)
            if values.dtype == object and isinstance(values[0], (list, dict, np.ndarray)):
                continue  # the stimuli themselves: token ids, conversations
            kinds, number = np.unique(values.astype(str), return_inverse=True)
            if len(kinds) <= MOST_CLASSES or (names is not None and values.dtype.kind not in "fiu"):
                if len(kinds) > 1:
                    self.names += [f"{name} = {kind}" for kind in kinds.tolist()]
                    columns += [number == place for place in range(len(kinds))]
            elif values.dtype.kind in "fiu" and np.isfinite(values.astype(float)).all():
                self.names.append(name)
                columns.append(values.astype(np.float64))
        self._columns = columns
        self._sums = np.zeros((m, len(columns)))

    def add(self, features: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
        """Takes in entries [e] of a block."""
        for place, column in enumerate(self._columns):
            self._sums[:, place] += np.bincount(features, values * column[rows], minlength=len(self._sums))

    def correlations(self, total: np.ndarray, square: np.ndarray, n: int) -> np.ndarray:
        """[m, labels]: Pearson's correlation of activation (0 where silent) and label over all n rows; 0 for features that never vary.

        Args:
            total: [m], sum of the activations.
            square: [m], sum of their squares.
            n: rows.
        """
        means = np.array([column.mean() for column in self._columns])
        spread = np.array([column.std() for column in self._columns])
        own = total / n
        deviation = np.sqrt(np.maximum(0.0, square / n - own**2))
        scale = deviation[:, None] * spread
        cross = self._sums / n - own[:, None] * means
        return np.divide(cross, scale, out=np.zeros_like(cross), where=scale > 1e-12)
