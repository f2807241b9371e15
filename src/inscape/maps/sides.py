"""Two sides of a map: views whose rows belong together, and which of them are dependent."""

from __future__ import annotations

from typing import Any

import numpy as np

from inscape.errors import StoreMismatchError
from inscape.store import Store, View, pair_views, view_of


def paired(A: Any, B: Any, *, repeats: str | None = None, on: str = "all") -> tuple[View, View]:
    """Two views whose row i is the same stimulus: joined by stimulus where both know their stimuli, else in order.

    Raises:
        StoreMismatchError: the numbers of rows differ, the stimuli do not match, or a store has several sites.
    """
    a, b = view_of(A, "a"), view_of(B, "b")
    if all(isinstance(side, (View, Store)) for side in (A, B)):
        return pair_views(a, b, repeats=repeats, on=on)
    if a.n != b.n:
        raise StoreMismatchError(
            f"a has {a.n} rows (shape {a.shape}), b has {b.n} (shape {b.shape}); row i of both must be the same stimulus"
        )
    return a, b


def labels_of(view: View, groups: Any) -> np.ndarray:
    """One whole number per row: the stimulus, or the group that a column or labels name.

    Raises:
        StoreMismatchError: as many labels as neither rows nor stimuli.
        StimuliError: there is no such column.
    """
    if groups is None:
        return view.stimulus
    labels = view.column(groups) if isinstance(groups, str) else np.asarray(groups)
    if len(labels) == view.store.stimuli.num_rows != view.n:
        labels = labels[view.stimulus]
    if len(labels) != view.n:
        raise StoreMismatchError(f"groups has {len(labels)} entries for {view.n} rows; give one per row or per stimulus")
    return np.unique(labels, return_inverse=True)[1]
