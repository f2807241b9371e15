"""Comparison of matrices by ranks under weights: one sort for each matrix, however many draws."""

from __future__ import annotations

import numpy as np

from inscape.rsa.pooling import ranked
from inscape.stats.kendall import kendall_tau_a, tau_a_in_order

# Comparisons by tau that are made at a time: few enough to stay in the caches.
BATCH = 16


class Ranks:
    """Models and subjects made ready for weighted rank comparisons.

    Args:
        models: complete matrices [m, pairs].
        data: those of the subjects [s, pairs].
        n: stimuli.
        measure: "rsa_spearman", "rsa_rho_a" or "rsa_tau_a".
    """

    def __init__(self, models: np.ndarray, data: np.ndarray, n: int, measure: str) -> None:
        self.models = len(models)
        self.measure = measure
        self.above = np.triu_indices(n, 1)
        # Twice a mid-rank is a whole number, so that ties are exact and keys can be packed.
        keys = np.rint(2 * ranked(np.concatenate([models, data]))).astype(np.int64)
        self.order = np.argsort(keys, axis=1, kind="stable").astype(np.int32)
        self.ascending = np.take_along_axis(keys, self.order, 1)
        self.tied = bool((self.ascending[:, 1:] == self.ascending[:, :-1]).any())
        subjects = self.ascending[self.models :]
        self.subjects_tied = bool((subjects[:, 1:] == subjects[:, :-1]).any())

    def draw(self, counts: np.ndarray, copies: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Scores [m, s] for one draw of stimuli [n], and the ceilings [2] for each of several draws of subjects [s]."""
        weights = (counts[self.above[0]] * counts[self.above[1]]).astype(np.float64)
        kept = weights > 0
        w = weights[kept]
        place = (np.cumsum(kept) - 1).astype(np.int32)
        chosen = kept[self.order]
        order = place[self.order[chosen].reshape(len(self.order), -1)]
        ranks = _mid_ranks(self.ascending[chosen].reshape(order.shape) if self.tied else None, order, w)
        models, subjects, by_subject = ranks[: self.models], ranks[self.models :], order[self.models :]
        if self.measure == "rsa_tau_a":
            rows = np.repeat(np.arange(len(models)), len(subjects)), np.tile(np.arange(len(subjects)), len(models))
            scores = self._tau(models[rows[0]], subjects[rows[1]], by_subject[rows[1]], w).reshape(len(models), -1)
        else:
            scores = np.clip(self._standard(models, w) @ (standard := self._standard(subjects, w) * w).T, -1, 1)
            return scores, [self._ceilings(subjects, standard, w, one) for one in copies]
        return scores, [self._ceilings(subjects, by_subject, w, one) for one in copies]

    def _tau(self, a: np.ndarray, b: np.ndarray, by_b: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Tau-a of each of a with each of b [batch, pairs], weighted mid-ranks; `by_b` sorts b."""
        found: list[np.ndarray] = []
        twice = np.rint(2 * a).astype(np.int64)
        for start in range(0, len(a), BATCH):
            part = slice(start, start + BATCH)
            if self.subjects_tied:
                found.append(kendall_tau_a(twice[part], b[part], w))
            else:
                found.append(tau_a_in_order(np.take_along_axis(twice[part], by_b[part], 1), w[by_b[part]]))
        return np.concatenate(found)

    def _standard(self, ranks: np.ndarray, w: np.ndarray) -> np.ndarray:
        """Centered ranks, of length 1 for Spearman, or of the length that ranks without ties have."""
        return (ranks - (w.sum() + 1) / 2) / self._size(ranks, np.broadcast_to(w, ranks.shape))[:, None]

    def _ceilings(self, subjects: np.ndarray, ready: np.ndarray, w: np.ndarray, copies: np.ndarray) -> np.ndarray:
        """Each drawn subject against the ranks of the mean ranks of all, and of all but its own copies.

        Args:
            subjects: weighted mid-ranks [s, pairs].
            ready: for tau the order of each subject's ranks, else its standardized ranks times the weights [s, pairs].
            w: weights [pairs].
            copies: how often each subject was drawn [s].
        """
        drawn = np.flatnonzero(copies > 0)
        whole = copies @ subjects
        rest = whole - copies[drawn, None] * subjects[drawn] if len(drawn) > 1 else np.empty((0, subjects.shape[1]))
        pools = np.concatenate([whole[None], rest])
        # Sums of half ranks times whole copies: doubled, they are whole.
        bits = int(pools.shape[1]).bit_length()
        largest = 2 * float(pools.max(initial=0.0))
        kind = np.int32 if largest * 2**bits < 2**31 - 1 else np.int64
        packed = np.rint(2 * pools).astype(kind) << bits
        packed |= np.arange(pools.shape[1], dtype=kind)
        packed.sort(axis=1)
        order = packed & ((1 << bits) - 1)
        middle, mass = _sorted_ranks(packed >> bits, order, w)
        if self.measure == "rsa_tau_a":
            ranks = np.empty(order.shape)
            np.put_along_axis(ranks, order, middle, 1)
            own = subjects[drawn]
            upper = self._tau(np.broadcast_to(ranks[:1], own.shape), own, ready[drawn], w)
            lower = self._tau(ranks[1:], own, ready[drawn], w) if len(rest) else np.array([np.nan])
            return np.array([lower.mean(), upper.mean()])
        size = self._size(middle, mass)
        upper = ready[drawn][:, order[0]] @ middle[0] / size[0]
        lower = np.einsum("kp,kp->k", ready[drawn[:, None], order[1:]], middle[1:]) / size[1:] if len(rest) else np.array([np.nan])
        return np.array([lower.mean(), upper.mean()])

    def _size(self, ranks: np.ndarray, mass: np.ndarray) -> np.ndarray:
        """The length of ranks [k, pairs] about their mean; for rho-a, that of ranks without ties."""
        total = mass[0].sum()
        if self.measure == "rsa_rho_a":
            return np.full(len(ranks), np.sqrt((total**3 - total) / 12))
        squared = np.einsum("kp,kp->k", ranks * mass, ranks) - total * ((total + 1) / 2) ** 2
        return np.sqrt(np.where(squared > 1e-12 * total**3, squared, np.nan))


def _mid_ranks(ascending: np.ndarray | None, order: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Weighted mid-ranks [k, pairs], each at its pair; see `_sorted_ranks`."""
    ranks = np.empty(order.shape)
    np.put_along_axis(ranks, order, _sorted_ranks(ascending, order, w)[0], 1)
    return ranks


def _sorted_ranks(ascending: np.ndarray | None, order: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mid-ranks in ascending order [k, pairs] (the weight below, half of that of the ties, and ½), and their weights.

    Args:
        ascending: keys in ascending order, which show the ties; None where there are none.
        order: the pairs in that order.
        w: the weight of each pair.
    """
    if w.min() == w.max() == 1:  # all pairs once: what comes before is known
        mass = np.broadcast_to(1.0, order.shape)
        below = np.broadcast_to(np.arange(1.0, order.shape[1] + 1), order.shape)
        middle = below.copy()
    else:
        mass = w[order]
        below = np.cumsum(mass, axis=1)
        middle = below - 0.5 * mass
        middle += 0.5
    if ascending is not None:
        # Whether an entry is tied with the one before it; the first of a row never is, which also ends the row above.
        tied = np.zeros(order.size + 1, dtype=bool)
        within = tied[:-1].reshape(order.shape)
        np.equal(ascending[:, 1:], ascending[:, :-1], out=within[:, 1:])
        edges = np.flatnonzero(tied[1:] != tied[:-1])
        first, last = edges[::2], edges[1::2]
        if len(first):
            rows, width = first // order.shape[1], order.shape[1]
            starts, ends = first - rows * width, last - rows * width
            shared = 0.5 * (below[rows, starts] - mass[rows, starts] + below[rows, ends]) + 0.5
            lengths = last - first + 1
            inside = np.repeat(first - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths) + np.arange(lengths.sum())
            middle.reshape(-1)[inside] = np.repeat(shared, lengths)
    return middle, mass
