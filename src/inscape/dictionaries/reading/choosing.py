"""Which rows to show of each feature: the strongest and a uniform sample, chosen in one pass with memory for the chosen alone."""

from __future__ import annotations

import numpy as np


class Best:
    """For each feature the `keep` entries that come first in an order; nothing else of the rows is held.

    Entries may come in any order and any division into blocks: what is held at the end is the same.

    Attributes:
        rows: [m, keep] int64, in order; −1 where there are fewer entries.
        values: [m, keep] float32, the activation of each.
    """

    def __init__(self, m: int, keep: int) -> None:
        self.rows = np.full((m, keep), -1, np.int64)
        self.values = np.zeros((m, keep), np.float32)
        self._order = np.full((m, keep), np.inf)
        self._ties = np.zeros((m, keep), np.uint64)

    def offer(self, features: np.ndarray, rows: np.ndarray, values: np.ndarray, order: np.ndarray, ties: np.ndarray) -> None:
        """Takes in entries; smaller `order` comes first, equal ones by `ties`. All arguments are [e]."""
        m, keep = self.rows.shape
        hopeful = order <= self._order[features, -1]
        if not hopeful.any():
            return
        features, rows, values, order, ties = (part[hopeful] for part in (features, rows, values, order, ties))
        touched = np.unique(features)
        held = self.rows[touched] >= 0
        owner = np.repeat(touched, held.sum(1))
        features = np.concatenate([owner, features])
        rows = np.concatenate([self.rows[touched][held], rows])
        values = np.concatenate([self.values[touched][held], values])
        order = np.concatenate([self._order[touched][held], order])
        ties = np.concatenate([self._ties[touched][held], ties])
        sort = np.lexsort((ties, order, features))
        features = features[sort]
        counts = np.bincount(features, minlength=m)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        rank = np.arange(len(features)) - starts[features]
        first = rank < keep
        at = features[first], rank[first]
        chosen = sort[first]
        self.rows[at], self.values[at], self._order[at], self._ties[at] = rows[chosen], values[chosen], order[chosen], ties[chosen]


def mixed(keys: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Hash keys of (row, feature) from keys of rows: every feature draws rows of its own. uint64."""
    z = keys + (features.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Windows:
    """The context of rows: the rows before and after them that belong to the same presentation of the same stimulus.

    Args:
        stimulus: [n], the stimulus of each row.
        repeat: [n], which of its presentations.
        position: [n], the place inside it.
        before: rows of context in front.
        after: rows of context behind.
    """

    def __init__(self, stimulus: np.ndarray, repeat: np.ndarray, position: np.ndarray, before: int, after: int) -> None:
        self.before, self.after = before, after
        self._parts = stimulus, repeat, position
        self._steps = np.arange(-before, after + 1)

    @property
    def texts(self) -> np.ndarray:
        """[n]: which uninterrupted stretch of rows of one stimulus each row belongs to."""
        stimulus, repeat, _ = self._parts
        fresh = (stimulus[1:] != stimulus[:-1]) | (repeat[1:] != repeat[:-1])
        return np.concatenate([np.zeros(min(1, len(stimulus)), np.int64), np.cumsum(fresh)])

    @property
    def width(self) -> int:
        """Rows of a window."""
        return len(self._steps)

    def rows(self, centers: np.ndarray) -> np.ndarray:
        """[..., width]: the rows of each window, −1 outside of the stimulus; centers below 0 give windows of −1."""
        stimulus, repeat, position = self._parts
        n = len(stimulus)
        found = centers[..., None] + self._steps
        inside = (found >= 0) & (found < n) & (centers[..., None] >= 0)
        safe, center = np.where(inside, found, 0), np.maximum(centers, 0)[..., None]
        if n == 0:
            return np.full(found.shape, -1)
        inside &= (stimulus[safe] == stimulus[center]) & (repeat[safe] == repeat[center])
        inside &= position[safe].astype(np.int64) - position[center] == self._steps
        return np.where(inside, found, -1)


def apart(centers: np.ndarray, texts: np.ndarray, width: int, taken: list[tuple[int, int]], most: int, forms: np.ndarray) -> list[int]:
    """Places of the first centers whose windows share no row with each other or those taken, and whose words differ.

    Args:
        centers: rows in order of preference; −1 ends them.
        texts: the text of each center.
        width: rows of a window.
        taken: texts and rows that are taken already; grows by what is chosen.
        most: how many are wanted.
        forms: [centers, width], the words of each window.
    """
    chosen: list[int] = []
    seen: set[bytes] = set()
    for place, (row, text) in enumerate(zip(centers.tolist(), texts.tolist(), strict=True)):
        if row < 0 or len(chosen) == most:
            break
        form = forms[place].tobytes()
        if any(text == other and abs(row - center) < width for other, center in taken) or (width > 1 and form in seen):
            continue
        seen.add(form)
        chosen.append(place)
        taken.append((text, row))
    return chosen
