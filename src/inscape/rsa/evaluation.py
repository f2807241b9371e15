"""Scores of models and noise ceilings, on all data and under draws of stimuli and subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inscape.rsa.missing import masked_ceiling, masked_scores
from inscape.rsa.pooling import QUADRATIC
from inscape.rsa.quadratic import ceilings, cosines, inner_products
from inscape.rsa.ranked import Ranks

# A draw of stimuli with fewer different ones than this says nothing.
LEAST_STIMULI = 3


class Draws(NamedTuple):
    """Values of the models and then the lower and upper ceiling [draws, m + 2] when both, subjects alone, or stimuli alone are drawn."""

    both: np.ndarray
    subjects: np.ndarray
    stimuli: np.ndarray


@dataclass(frozen=True)
class Fixed:
    """Models without parameters, set against the matrices of subjects.

    Attributes:
        models: one matrix each [m, pairs].
        data: one matrix for each subject [s, pairs]; NaN where a pair is missing.
        n: stimuli.
        measure: name of the comparison.
        control: matrices to take out of all others by regression [c, pairs].
        ceiling: whether ceilings are wanted; they take most of the time of rank measures.
    """

    models: np.ndarray
    data: np.ndarray
    n: int
    measure: str
    control: np.ndarray | None = None
    ceiling: bool = True

    def point(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores [m, s] and ceilings [2] on all data."""
        scores, ceiling = self.at(np.ones((1, self.n)), [np.ones((1, len(self.data)))])
        return scores[0], ceiling[0][0]

    def draws(self, counts: np.ndarray, copies: np.ndarray) -> Draws:
        """Values under draws.

        Args:
            counts: how often each stimulus was drawn [draws, n].
            copies: how often each subject was drawn [draws, s].
        """
        s = len(self.data)
        every = np.ones((1, s))
        scores, (both, stimuli) = self.at(counts, [copies, np.broadcast_to(every, copies.shape)])
        few = (counts > 0).sum(1) < LEAST_STIMULI
        scores[few], both[few], stimuli[few] = np.nan, np.nan, np.nan
        whole, (subjects,) = self.at(np.ones((1, self.n)), [copies])
        return Draws(
            np.concatenate([np.einsum("bms,bs->bm", scores, copies) / s, both], axis=1),
            np.concatenate([copies @ whole[0].T / s, subjects], axis=1),
            np.concatenate([scores.mean(2), stimuli], axis=1),
        )

    def at(self, counts: np.ndarray, copies: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Scores [draws, m, s], and ceilings [draws, 2] for each of several draws of subjects; one row of counts serves all draws."""
        if np.isnan(self.data).any() or np.isnan(self.models).any():
            return self._missing(counts, copies)
        if self.measure in QUADRATIC or self.control is not None:
            return self._quadratic(counts, copies)
        ready = Ranks(self.models, self.data, self.n, self.measure)
        scores = np.empty((len(counts), len(self.models), len(self.data)))
        found = [np.full((len(one), 2), np.nan) for one in copies]
        for index, m in enumerate(counts):
            if (m > 0).sum() < LEAST_STIMULI:
                continue
            single = len(counts) == 1
            drawn = [one for each in copies for one in each] if single else [each[index] for each in copies]
            scores[index], values = ready.draw(m, drawn if self.ceiling else [])
            for k, value in enumerate(values):
                found[0 if single else k][k if single else index] = value
        return scores, found

    def _quadratic(self, counts: np.ndarray, copies: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        parts = [self.models, self.data] + ([self.control] if self.control is not None else [])
        measure, values = self.measure, np.concatenate(parts)
        if measure == "rsa_spearman":  # with other matrices taken out: the partial correlation of ranks
            from inscape.rsa.pooling import ranked

            measure, values = "rsa_corr", ranked(values)
        control = 0 if self.control is None else len(self.control)
        C = cosines(inner_products(values, counts, measure, control))
        m = len(self.models)
        found = [ceilings(C[:, m:, m:], one) if self.ceiling else np.full((len(one), 2), np.nan) for one in copies]
        return C[:, :m, m:].copy(), found

    def _missing(self, counts: np.ndarray, copies: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        above = np.triu_indices(self.n, 1)
        scores = np.empty((len(counts), len(self.models), len(self.data)))
        found = [np.full((len(one), 2), np.nan) for one in copies]
        for index, m in enumerate(counts):
            weights = (m[above[0]] * m[above[1]]).astype(np.float64)
            scores[index] = masked_scores(self.models, self.data, weights, self.measure)
            if not self.ceiling:
                continue
            for k, each in enumerate(copies):
                rows = range(len(each)) if len(counts) == 1 else [index]
                for row in rows:
                    found[k][row] = masked_ceiling(self.data, weights, each[row], self.measure)
        return scores, found
