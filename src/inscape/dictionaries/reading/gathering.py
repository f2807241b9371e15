"""Two passes over rows: the first chooses what to show of each feature, the second reads what stands around it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from inscape.arrays import as_numpy
from inscape.dictionaries.codes import Codes
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.reading.choosing import Best, Windows, apart, mixed
from inscape.dictionaries.reading.labels import Labels
from inscape.store import View
from inscape.summaries.sample import row_keys

# Active rows of each feature that are drawn uniformly: quantiles, random examples and descriptions come from them.
RESERVOIR = 128
# Of these, the ones whose other active features are counted.
COMPANY = 64
BACKGROUND = 256
BANDS = 4
KINDS = ("top", "quantile", "random")


class Gathered:
    """What two passes found; every array is as large as the features and their examples, not as the rows.

    Attributes:
        count: [m], rows in which a feature is active.
        total: [m], sum of its activations.
        largest: [m], its largest activation (by absolute value, for kinds with signed codes).
        reservoir: [m, 128], active rows, uniformly drawn; −1 where there are fewer.
        strength: [m, 128], how active the feature is there, without the sign.
        rows: [m, 3, examples], the rows shown: largest, from quantiles, random; −1 where there are fewer.
        windows: [m, 3, examples, width], the rows around them.
        activations: the same shape, float32.
        background: [contexts, width], windows of random rows.
        silent: [m, examples], contexts of the background in which a feature is silent; −1 where there are fewer.
        partners: [m, m] sparse counts: in how many of the first 64 rows of a feature's reservoir others are active.
        correlations: [m, labels].
    """

    def __init__(
        self, dictionary: Dictionary, views: Sequence[View], words: np.ndarray, windows: Windows, labels: Sequence[str] | None, shape: Any
    ) -> None:
        self.dictionary, self.views, self.words, self.around = dictionary, views, words, windows
        self.examples, self.seed = shape
        self.n, self.m = views[0].n, dictionary.m
        self.keys = row_keys(views[0].ids, views[0].position, views[0].repeat, seed=self.seed)
        self.texts = windows.texts
        self.label = Labels(views[0], labels, self.m)
        self._choose()
        self._look()

    def codes(self) -> Generator[tuple[int, Codes]]:
        """Codes of all rows, block by block, with the first row of each; the same numbers each time."""
        size = max(256, 2**25 // max(self.m, self.dictionary.d))
        for at in range(0, self.n, size):
            parts = [view.select(rows=slice(at, min(self.n, at + size))) for view in self.views]
            yield at, self.dictionary.encode(parts[0] if self.dictionary.recipe.sites != "several" else parts)

    def _choose(self) -> None:
        m, wanted = self.m, self.examples
        self.count = np.zeros(m, np.int64)
        self.total, square, self.largest = np.zeros(m), np.zeros(m), np.zeros(m, np.float32)
        # More than are shown, because contexts that overlap or repeat are shown once.
        top, held = Best(m, 4 * wanted), Best(m, max(RESERVOIR, 4 * wanted))
        for at, codes in self.codes():
            features, rows = as_numpy(codes.indices), as_numpy(codes.rows) + at
            values = as_numpy(codes.values).astype(np.float32)
            wide = values.astype(np.float64)
            self.count += np.bincount(features, minlength=m)
            self.total += np.bincount(features, wide, m)
            square += np.bincount(features, wide**2, m)
            self.label.add(features, rows, wide)
            keys = self.keys[rows]
            top.offer(features, rows, values, -np.abs(wide), keys)
            drawn = mixed(keys, features)
            held.offer(features, rows, values, (drawn >> np.uint64(11)).astype(np.float64), drawn)
        self.largest = np.where(self.count > 0, top.values[:, 0], 0).astype(np.float32)
        self.correlations = self.label.correlations(self.total, square, self.n)
        self.reservoir, self.strength = held.rows[:, :RESERVOIR], np.abs(held.values[:, :RESERVOIR]).astype(np.float64)
        self._pick(top, held)
        self._background()

    def _pick(self, top: Best, held: Best) -> None:
        """Examples of each kind whose windows do not meet, so that the random ones are news to who has seen the others."""
        wanted = self.examples
        self.rows = np.full((self.m, 3, wanted), -1, np.int64)
        for feature in np.flatnonzero(self.count):
            taken: list[tuple[int, int]] = []
            few = self.count[feature] < 3 * wanted  # a rare feature's rows are shared out
            most = max(1, int(self.count[feature]) // 3) if few else wanted
            mine = top.rows[feature]
            chosen = self._apart(mine, taken, min(most, wanted))
            self.rows[feature, 0, : len(chosen)] = mine[chosen]
            drawn = held.rows[feature][held.rows[feature] >= 0]
            strength = np.abs(held.values[feature][: len(drawn)])
            bands = np.array_split(np.argsort(-strength, kind="stable"), BANDS)
            found: list[int] = []
            for place, band in enumerate(bands):
                share = (min(most, wanted) * (place + 1)) // BANDS - len(found)
                band = np.sort(band)  # in the order of the draw
                found += drawn[band[self._apart(drawn[band], taken, share)]].tolist()
            self.rows[feature, 1, : len(found)] = found
            rest = self._apart(drawn, taken, wanted)
            self.rows[feature, 2, : len(rest)] = drawn[rest]

    def _apart(self, rows: np.ndarray, taken: list[tuple[int, int]], most: int) -> list[int]:
        """Places of rows whose windows neither meet nor read alike."""
        found = self.around.rows(rows)
        return apart(rows, self.texts[rows], self.around.width, taken, most, np.where(found >= 0, self.words[found], -1))

    def _background(self) -> None:
        order = np.argsort(mixed(self.keys, np.full(self.n, -2)), kind="stable")[: 4 * BACKGROUND]
        chosen = order[self._apart(order, [], BACKGROUND)]
        self.background = self.around.rows(chosen)

    def _look(self) -> None:
        """Activations around the chosen rows, company in the reservoir, and where the background is silent."""
        m = self.m
        self.windows = self.around.rows(self.rows)
        self.activations = np.zeros(self.windows.shape, np.float32)
        flat = self.windows.reshape(-1)
        inside = np.flatnonzero(flat >= 0)
        owner = np.repeat(np.arange(m), self.windows[0].size)[inside]
        wanted = flat[inside] * m + owner
        order = np.argsort(wanted, kind="stable")
        wanted, inside = wanted[order], inside[order]
        company = self.reservoir[:, :COMPANY]
        pair_feature, pair_row = np.repeat(np.arange(m), company.shape[1]), company.reshape(-1)
        kept = pair_row >= 0
        pair_feature, pair_row = pair_feature[kept], pair_row[kept]
        order = np.argsort(pair_row, kind="stable")
        pair_feature, pair_row = pair_feature[order], pair_row[order]
        context_row = np.sort(self.background[self.background >= 0])
        context = np.repeat(np.arange(len(self.background)), self.background.shape[1])[self.background.reshape(-1) >= 0]
        context = context[np.argsort(self.background[self.background >= 0], kind="stable")]
        loud = np.zeros((len(self.background), m), bool)
        self.partners: Any = sparse.csr_matrix((m, m), dtype=np.int32)
        written = self.activations.reshape(-1)
        for at, codes in self.codes():
            features, rows, values = as_numpy(codes.indices), as_numpy(codes.rows), as_numpy(codes.values)
            end = at + codes.n
            low, high = np.searchsorted(wanted, [at * m, end * m])
            keys = (rows + at) * m + features
            if high > low and len(keys):
                place = np.minimum(np.searchsorted(keys, wanted[low:high]), len(keys) - 1)
                hit = keys[place] == wanted[low:high]
                written[inside[low:high][hit]] = values[place[hit]]
            active = sparse.csr_matrix((np.ones(len(features), np.int32), features, as_numpy(codes.offsets)), shape=(codes.n, m))
            low, high = np.searchsorted(pair_row, [at, end])
            if high > low:
                ones = np.ones(high - low, np.int32)
                mine = sparse.csr_matrix((ones, (pair_feature[low:high], pair_row[low:high] - at)), shape=(m, codes.n))
                self.partners = self.partners + mine @ active
            low, high = np.searchsorted(context_row, [at, end])
            if high > low:
                part = active[context_row[low:high] - at].tocoo()
                loud[context[low:high][part.row], part.col] = True
        self._silent(loud)

    def _silent(self, loud: np.ndarray) -> None:
        contexts = len(self.background)
        self.silent = np.full((self.m, self.examples), -1, np.int32)
        for feature in range(self.m):
            quiet = np.flatnonzero(~loud[:, feature])
            drawn = mixed(quiet.astype(np.uint64), np.full(len(quiet), feature % (contexts + 1) + 7 * feature))
            mine = quiet[np.argsort(drawn, kind="stable")][: self.examples]
            self.silent[feature, : len(mine)] = mine
