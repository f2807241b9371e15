"""Scores of models that are fitted: on held-out stimuli and subjects, inside every draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inscape.rsa.evaluation import LEAST_STIMULI, Draws
from inscape.rsa.models import fit
from inscape.rsa.quadratic import cosines, inner_products

# Splits into folds in each draw: with two, the part of the variance that splitting adds can be taken out again.
SPLITS = 2
# Splits for the value itself.
POINT_SPLITS = 20


def folds_of_stimuli(n: int) -> int:
    """How many folds n stimuli are cut into, so that each keeps at least 3."""
    return 2 if n < 12 else 3 if n < 24 else 4 if n < 40 else 5


def folds_of_subjects(n: int) -> int:
    """How many folds n subjects are cut into; one subject stays in training and test."""
    return 1 if n < 2 else 2 if n < 6 else 3 if n < 12 else 4 if n < 20 else 5


class Member(NamedTuple):
    """A model as the numbers of its components, and how it is fitted ("fixed" for one without parameters)."""

    kind: str
    components: tuple[int, ...]


@dataclass(frozen=True)
class Fitted:
    """Models of which some are fitted, all scored on the pairs among held-out stimuli, in held-out subjects.

    Attributes:
        members: the models.
        components: their matrices [c, pairs].
        data: one matrix for each subject [s, pairs].
        n: stimuli.
        measure: a measure that is a cosine.
        seed: of the splits.
        ceiling: whether ceilings are wanted.
    """

    members: Sequence[Member]
    components: np.ndarray
    data: np.ndarray
    n: int
    measure: str
    seed: int = 0
    ceiling: bool = True

    def point(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean scores [m, s] and ceilings [2] over splits of all data."""
        rng = np.random.default_rng(self.seed)
        counts, copies = np.ones((POINT_SPLITS, self.n)), np.ones((POINT_SPLITS, len(self.data)))
        scores, ceiling = self._split(counts, copies, rng)
        return scores.mean(0), ceiling.mean(0)

    def weights(self) -> list[np.ndarray]:
        """Weights of the components of each model, fitted to all data."""
        Q = inner_products(np.concatenate([self.components, self.data]), np.ones((1, self.n)), self.measure)
        c = len(self.components)
        target = (Q[:, :c, c:] / np.sqrt(np.einsum("bss->bs", Q[:, c:, c:]))[:, None, :]).sum(2)
        return [self._fitted(one, Q[:, :c, :c], target)[0] for one in self.members]

    def draws(self, counts: np.ndarray, copies: np.ndarray) -> tuple[Draws, Draws]:
        """Values under draws of stimuli [draws, n] and subjects [draws, s]: means over splits, and of one split alone."""
        every, all_stimuli = np.ones_like(copies), np.ones_like(counts)
        made: list[tuple[np.ndarray, np.ndarray]] = []
        for index, (m, r) in enumerate(((counts, copies), (all_stimuli, copies), (counts, every))):
            rng = np.random.default_rng([self.seed, index])
            parts: list[np.ndarray] = []
            for _ in range(SPLITS):
                scores, ceiling = self._split(m, r, rng)
                known = np.where(np.isnan(scores), 0.0, scores)
                mean = np.einsum("bms,bs->bm", known, r) / r.sum(1, keepdims=True)
                mean[np.isnan(scores).all(2)] = np.nan
                parts.append(np.concatenate([mean, ceiling], axis=1))
            made.append((np.mean(parts, axis=0), np.stack(parts)))
        return Draws(*(one for one, _ in made)), Draws(*(each for _, each in made))

    def _split(self, counts: np.ndarray, copies: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One split of each draw: scores [draws, m, s] of each drawn subject when held out, and ceilings [draws, 2]."""
        b, s, c = len(counts), len(self.data), len(self.components)
        distinct = (1 - np.exp(-1)) if (counts == 0).any() else 1.0
        k, g = folds_of_stimuli(round(distinct * self.n)), folds_of_subjects(round(distinct * s))
        fold, group = _assigned(counts, k, rng), _assigned(copies, g, rng)
        values = np.concatenate([self.components, self.data])
        scores = np.zeros((b, len(self.members), s))
        ceiling = np.zeros((b, 2))
        for f in range(k):
            train = inner_products(values, np.where(fold != f, counts, 0), self.measure)
            tested = np.where(fold == f, counts, 0)
            Q = inner_products(values, tested, self.measure)
            D = cosines(Q)[:, c:, c:]
            usable = np.where((tested > 0).sum(1) >= LEAST_STIMULI, 1.0, np.nan)
            lengths = np.sqrt(np.maximum(np.einsum("bss->bs", train[:, c:, c:]), 1e-300))
            own = np.sqrt(np.einsum("bss->bs", Q[:, c:, c:]))
            for h in range(g):
                held = (group == h) & (copies > 0)
                others = np.where(held, 0, copies) if g > 1 else copies
                target = np.einsum("bcs,bs->bc", train[:, :c, c:] / lengths[:, None, :], others)
                for index, member in enumerate(self.members):
                    w = self._fitted(member, train[:, :c, :c], target)
                    parts = list(member.components)
                    size = np.einsum("bc,bcd,bd->b", w, Q[:, parts][:, :, parts], w)
                    with np.errstate(divide="ignore", invalid="ignore"):
                        value = np.einsum("bc,bcs->bs", w, Q[:, parts, c:]) / np.sqrt(size)[:, None] / own
                    scores[:, index] += np.where(held, value * usable[:, None], 0.0) / k
                if self.ceiling and s > 1:
                    ceiling += _ceiling(D, others, copies, held) * (usable[:, None] / k)
        scores = np.where((copies > 0)[:, None, :], scores, np.nan)
        total = (copies > 0).sum(1, keepdims=True)
        return scores, ceiling / total if self.ceiling and s > 1 else np.full((b, 2), np.nan)

    def _fitted(self, member: Member, G: np.ndarray, target: np.ndarray) -> np.ndarray:
        parts = list(member.components)
        if member.kind == "fixed":
            return np.ones((len(G), 1))
        return fit(member.kind, G[:, parts][:, :, parts], target[:, parts])


def _assigned(counts: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """The fold of each drawn entry, dealt out in random order; copies of one entry share its fold."""
    keys = np.where(counts > 0, rng.random(counts.shape), np.inf)
    return np.argsort(np.argsort(keys, axis=1), axis=1) % folds


def _ceiling(D: np.ndarray, training: np.ndarray, copies: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Sums over held-out subjects of their cosine with the pool of the training subjects, and of all, on the held-out stimuli."""
    sums: list[np.ndarray] = []
    for pool in (training, copies):
        to_pool = np.einsum("bst,bt->bs", D, pool)
        size = np.einsum("bs,bs->b", pool, to_pool)
        with np.errstate(divide="ignore", invalid="ignore"):
            sums.append(np.where(held, to_pool / np.sqrt(size)[:, None], 0.0).sum(1))
    return np.stack(sums, axis=1)
