"""Which row of one view belongs to which row of another."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from inscape.errors import StoreMismatchError
from inscape.store.tables import ID, INDEX_COLUMNS
from inscape.store.view import View

REPEATS = ("mean", "split", "all")
Rows = np.ndarray | None


def pair_rows(a: View, b: View, *, repeats: str | None = None, on: str = "all", tokens: str = "same") -> tuple[Rows, Rows]:
    """Row numbers that pair `a` with `b` in the order of `a`; None stands for all rows as they are.

    Rows that are whole stimuli pair by stimulus id, tokens, patches and frames by id and position.

    Args:
        a: a view.
        b: the view to pair it with, of the same kind of row.
        repeats: needed when stimuli come back: "split" pairs repeat i with repeat i, "all" every repeat with every other.
        on: "all" refuses rows that one side lacks, "intersection" keeps what both have.
        tokens: "same" refuses rows whose token ids differ (another tokenizer), "any" does not look.

    Raises:
        StoreMismatchError: the kinds of row differ, rows are missing on one side, or `repeats` is needed.
    """
    if repeats not in (None, "split", "all"):
        more = "; means are not row numbers, use pair_views" if repeats == "mean" else ""
        raise StoreMismatchError(f"repeats={repeats!r} does not pair rows: choose 'split' or 'all'{more}")
    if on not in ("all", "intersection"):
        raise StoreMismatchError(f"on={on!r} is unknown: choose 'all' or 'intersection'")
    if _same_rows(a, b):
        return None, None
    if a.kind != b.kind:
        raise StoreMismatchError(
            f"{a!r} has {a.kind} rows and {b!r} has {b.kind} rows; rows of different kinds do not pair. Capture both with the same tokens="
        )
    # Showings that were selected so that every stimulus has one left need no decision.
    once = repeats is None and _shown_once(a) and _shown_once(b)
    if repeats is None and not once:
        counts = " and ".join(f"{view.system}/{view.site} up to {int(view.repeat.max(initial=0)) + 1}" for view in (a, b))
        raise StoreMismatchError(
            f"stimuli are repeated ({counts} times): say repeats='mean' (average them), 'split' (repeat i with repeat i) "
            "or 'all' (every repeat with every other)"
        )
    key_a, key_b = _keys(a, b, with_repeat=repeats != "all" and not once)
    if len(key_a) == len(key_b) and bool((key_a == key_b).all()) and (repeats != "all" or len(np.unique(key_a)) == len(key_a)):
        rows: tuple[Rows, Rows] = (None, None)
    else:
        rows = _all_pairs(a, b, key_a, key_b, on) if repeats == "all" else _one_to_one(a, b, key_a, key_b, on)
    if tokens == "same":
        _same_tokens(a, b, rows)
    return rows


def pair_views(a: View, b: View, *, repeats: str | None = None, on: str = "all", tokens: str = "same") -> tuple[View, View]:
    """`a` and `b` with row i of one belonging to row i of the other; also takes `repeats="mean"`.

    Raises:
        StoreMismatchError: see `pair_rows`.
    """
    if repeats is not None and repeats not in REPEATS:
        raise StoreMismatchError(f"repeats={repeats!r} is unknown: choose one of {', '.join(map(repr, REPEATS))}")
    if repeats == "mean":
        same = _same_rows(a, b)
        a, b, repeats = a.mean_over_repeats(), b.mean_over_repeats(), None
        if same:
            return a, b
    rows_a, rows_b = pair_rows(a, b, repeats=repeats, on=on, tokens=tokens)
    return (a if rows_a is None else a.select(rows=rows_a)), (b if rows_b is None else b.select(rows=rows_b))


def _same_rows(a: View, b: View) -> bool:
    """Whether both are the same rows of one store: then nothing is joined and repeats need no decision."""
    if a.index is b.index:
        return True
    if a.store is not b.store or a.row_set != b.row_set or a.n != b.n:
        return False
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in INDEX_COLUMNS)


def _shown_once(view: View) -> bool:
    if not view.repeat.any():
        return True
    showings = view.stimulus.astype(np.int64) * (1 + int(view.repeat.max())) + view.repeat
    return len(np.unique(showings)) == len(np.unique(view.stimulus))


def _keys(a: View, b: View, *, with_repeat: bool) -> tuple[np.ndarray, np.ndarray]:
    """One whole number per row, equal where rows belong together."""
    positional = a.kind != "stimulus"
    ids = pa.chunked_array([*a.store.stimuli[ID].chunks, *b.store.stimuli[ID].chunks], pa.string()).combine_chunks().dictionary_encode()
    codes = np.asarray((ids.chunk(0) if isinstance(ids, pa.ChunkedArray) else ids).indices, np.int64)
    n = a.store.stimuli.num_rows
    spans = [1 + max(int(getattr(v, name).max(initial=0)) for v in (a, b)) for name in ("repeat", "position")]
    keys: list[np.ndarray] = []
    for view, names in ((a, codes[:n]), (b, codes[n:])):
        key = names[view.stimulus] * spans[0] + (view.repeat if with_repeat else 0)
        keys.append(key * spans[1] + (view.position if positional else 0))
    return keys[0], keys[1]


def _one_to_one(a: View, b: View, key_a: np.ndarray, key_b: np.ndarray, on: str) -> tuple[Rows, Rows]:
    for view, key in ((a, key_a), (b, key_b)):
        _, first, counts = np.unique(key, return_index=True, return_counts=True)
        if (counts > 1).any():
            row = int(first[counts > 1][0])
            raise StoreMismatchError(f"{_name(view, row)} occurs {int(counts[counts > 1][0])} times in {view!r}; a row pairs once")
    _refuse_missing(a, b, key_a, key_b, on)
    order = np.argsort(key_b)
    common = np.isin(key_a, key_b)
    rows_a: Rows = None if bool(common.all()) else np.flatnonzero(common)
    rows_b = order[np.searchsorted(key_b, key_a[common], sorter=order)]
    same = len(rows_b) == len(key_b) and bool((rows_b == np.arange(len(key_b))).all())
    return rows_a, None if same else rows_b


def _all_pairs(a: View, b: View, key_a: np.ndarray, key_b: np.ndarray, on: str) -> tuple[Rows, Rows]:
    _refuse_missing(a, b, key_a, key_b, on)
    order = np.argsort(key_b, kind="stable")
    low = np.searchsorted(key_b, key_a, "left", sorter=order)
    counts = np.searchsorted(key_b, key_a, "right", sorter=order) - low
    rows_a = np.repeat(np.arange(len(key_a)), counts)
    ends = np.cumsum(counts)
    within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - counts, counts)
    return rows_a, order[np.repeat(low, counts) + within]


def _refuse_missing(a: View, b: View, key_a: np.ndarray, key_b: np.ndarray, on: str) -> None:
    only_a, only_b = np.flatnonzero(~np.isin(key_a, key_b)), np.flatnonzero(~np.isin(key_b, key_a))
    if on == "intersection" and len(only_a) < len(key_a):
        return
    if len(only_a) or len(only_b):
        sides = "; ".join(
            f"{len(rows)} of {view.n} rows are only in {view.system}/{view.site}"
            + (
                f" ({', '.join(dict.fromkeys(_name(view, int(row)) for row in rows[:3]))}{', …' if len(rows) > 3 else ''})"
                if len(rows)
                else ""
            )
            for view, rows in ((a, only_a), (b, only_b))
        )
        hint = "nothing is common" if len(only_a) == len(key_a) else "on='intersection' keeps the common ones"
        raise StoreMismatchError(f"the rows do not match: {sides}. Give both the same stimuli; {hint}")


def _name(view: View, row: int) -> str:
    stimulus = view.store.stimuli[ID][int(view.stimulus[row])].as_py()
    details = [f"repeat {view.repeat[row]}"] if view.repeat[row] else []
    details += [f"position {view.position[row]}"] if view.kind != "stimulus" else []
    return f"{stimulus!r} {' '.join(details)}".strip()


def _same_tokens(a: View, b: View, rows: tuple[Rows, Rows]) -> None:
    if a.kind != "token" or any("token_id" not in view.index.columns for view in (a, b)):
        return
    ids_a, ids_b = (view.column("token_id") if at is None else view.column("token_id")[at] for view, at in zip((a, b), rows, strict=True))
    different = np.flatnonzero(ids_a != ids_b)
    if len(different):
        row = int(different[0])
        place = _name(a, row if rows[0] is None else int(rows[0][row]))
        raise StoreMismatchError(
            f"{len(different)} of {len(ids_a)} paired rows are different tokens, the first at {place}: "
            f"{ids_a[row]} in {a.system}, {ids_b[row]} in {b.system}. "
            "Two tokenizers cut text differently; pool (tokens='mean') or give tokens='any'"
        )
