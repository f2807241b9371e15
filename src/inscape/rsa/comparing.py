"""Models set against the dissimilarities of subjects: values, intervals, noise ceilings and tests, as rows of a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inscape.errors import DegenerateInputError, TooFewStimuliError
from inscape.rsa.evaluation import Draws, Fixed
from inscape.rsa.flexible import Fitted, Member
from inscape.rsa.inference import TARGETS, Target, corrected, split_variance, t_interval, t_p, variance
from inscape.rsa.pooling import QUADRATIC, RANKED
from inscape.rsa.rdms import RDMs
from inscape.rsa.taking import Entry, as_entries, as_subjects, check_complete, group_labels, in_order, same_pairs

Row = dict[str, Any]
CEILING = "noise ceiling"
LEAST_STIMULI = 5
PARTIAL = ("rsa_corr", "rsa_corr_whitened", "rsa_spearman")


@dataclass(frozen=True)
class Request:
    """How `ix.compare` is to judge models of dissimilarities; see there."""

    generalize_to: frozenset[str] | None
    ceiling: bool
    control: Any
    interval: bool
    groups: Any
    null: str | None
    draws: int
    correction: str | None
    level: float
    seed: int


def as_target(asked: Any) -> frozenset[str] | None:
    """The populations that were asked for.

    Raises:
        ValueError: others than "stimuli" and "subjects".
    """
    if asked is None:
        return None
    words = frozenset([asked] if isinstance(asked, str) else asked)
    if not words or not words <= TARGETS:
        raise ValueError(f"generalize_to={asked!r} must be 'stimuli', 'subjects', or both in a set")
    return words


def compare_models(models: Any, data: Any, measures: Sequence[Any], request: Request) -> tuple[list[Row], dict[str, np.ndarray]]:
    """The rows of all measures and sites, and the draws behind them as arrays."""
    rows: list[Row] = []
    arrays: dict[str, np.ndarray] = {}
    for measure in measures:
        distance = "squared_euclidean" if measure.name.endswith("whitened") or measure.name == "rsa_bures" else "correlation"
        entries = as_entries(models, distance)
        for site, subjects in as_subjects(data, distance):
            made, drawn = _Analysis(entries, subjects, site, measure, request).rows()
            rows += made
            if drawn is not None:
                label = measure.label if site is None else f"{measure.label}/{site}"
                arrays |= {f"draws/{label}/{part}": one for part, one in zip(Draws._fields, drawn, strict=True)}
    return rows, arrays


class _Analysis:
    """One measure on one set of subjects."""

    def __init__(self, entries: Sequence[Entry], data: RDMs, site: str | None, measure: Any, request: Request) -> None:
        self.entries, self.data, self.site, self.measure, self.request = entries, data, site, measure, request
        self.stacks = [in_order(one.components, data, f"model {one.name!r}").values for one in entries]
        self.control = None
        if request.control is not None:
            parts = [one.components for one in as_entries(request.control, "correlation")]
            self.control = np.concatenate([in_order(one, data, "control").values for one in parts])
            if measure.name not in PARTIAL:
                raise DegenerateInputError(
                    f"control= takes matrices out by regression, which {measure.label} is not; use {', '.join(PARTIAL)}"
                )
        self.fitted = any(one.kind != "fixed" for one in entries)
        if self.fitted and (measure.name not in QUADRATIC or self.control is not None):
            raise DegenerateInputError(f"models are fitted for {', '.join(QUADRATIC)} without control=, not for {measure.label}")
        self.sources = group_labels(request.groups, data)
        self.known = measure.name in (*QUADRATIC, *RANKED)
        self.target = self._target()
        self.ceiling = request.ceiling and self.known and len(data) > 1

    def _target(self) -> Target | None:
        """What is generalized to: what was asked for, or all that the sizes allow."""
        n, s = len(np.unique(self.sources)), len(self.data)
        asked = self.request.generalize_to
        least = 10 if self.fitted else LEAST_STIMULI
        reasons: dict[str, str] = {}
        if s < 2:
            reasons["subjects"] = f"there is {s} subject; at least 2 are needed to generalize to subjects"
        if n < least:
            reasons["stimuli"] = f"there are {n} stimuli; at least {least} are needed to generalize to stimuli"
        if not self.known:
            reasons["stimuli"] = f"{self.measure.label} is biased when stimuli are drawn twice; use generalize_to='subjects'"
        if asked is not None:
            for word in sorted(asked & set(reasons)):
                error = TooFewStimuliError if self.known or word == "subjects" else DegenerateInputError
                raise error(f"{self.measure.label}: {reasons[word]}")
        populations = asked if asked is not None else TARGETS - set(reasons)
        return Target(frozenset(populations), n, s) if populations and self.request.interval else None

    # ---- numbers -------------------------------------------------------------------------------------------------

    def _comparison(self) -> Fixed | Fitted:
        parts = [*self.stacks, self.data.values] + ([self.control] if self.control is not None else [])
        shared = same_pairs(parts)
        n = self.data.n
        if self.fitted:
            check_complete(parts, f"{self.measure.label} with fitted models")
            if n < 2 * 3:
                raise TooFewStimuliError(f"fitted models are tested on held-out stimuli, at least 3 in each of 2 folds; there are {n}")
            starts = np.cumsum([0, *(len(one) for one in self.stacks)])
            members = [
                Member(entry.kind, tuple(range(start, start + len(stack))))
                for entry, start, stack in zip(self.entries, starts[:-1].tolist(), self.stacks, strict=True)
            ]
            return Fitted(members, np.concatenate(self.stacks), self.data.values, n, self.measure.name, self.request.seed, self.ceiling)
        if self.measure.name.endswith("whitened") or self.control is not None or not self.known:
            check_complete(parts, self.measure.label if self.control is None else "control=")
        elif shared is None or not shared.all():
            models = np.concatenate(self.stacks)
            return Fixed(models, self.data.values, n, self.measure.name, None, self.ceiling)
        return Fixed(np.concatenate(self.stacks), self.data.values, n, self.measure.name, self.control, self.ceiling)

    def _draws(self, comparison: Fixed | Fitted) -> tuple[Draws, Draws | None]:
        assert self.target is not None
        rng = np.random.default_rng(self.request.seed)
        b, g, s = self.request.draws, self.target.stimuli, len(self.data)
        counts = rng.multinomial(g, np.full(g, 1 / g), size=b)[:, self.sources].astype(np.float64)
        copies = rng.multinomial(s, np.full(s, 1 / s), size=b).astype(np.float64)
        # A population that is not generalized to keeps its sample.
        if "stimuli" not in self.target.populations:
            counts = np.ones((1, self.data.n))
        if "subjects" not in self.target.populations:
            copies = np.ones((b, s))
        if isinstance(comparison, Fitted):
            return comparison.draws(np.broadcast_to(counts, (b, self.data.n)), copies)
        if len(counts) == 1:
            scores, ceilings = comparison.at(counts, [copies])
            subjects = np.concatenate([copies @ scores[0].T / s, ceilings[0]], axis=1)
            return Draws(subjects, subjects, np.full_like(subjects, np.nan)), None
        return comparison.draws(counts, copies), None

    def _others(self) -> np.ndarray:
        """Scores [m, s] of a measure that is evaluated matrix by matrix."""
        check_complete([*self.stacks, self.data.values], self.measure.label)
        subjects = [one.summary() for one in self.data]
        models = [RDMs(stack).summary() for stack in self.stacks]
        return np.array([[float(self.measure.evaluate(x=model, y=one)) for one in subjects] for model in models])

    # ---- rows ----------------------------------------------------------------------------------------------------

    def rows(self) -> tuple[list[Row], Draws | None]:
        comparison = self._comparison() if self.known else None
        if comparison is None:
            scores, ceiling = self._others(), np.full(2, np.nan)
        else:
            scores, ceiling = comparison.point()
        values = scores.mean(1)
        drawn, single = (None, None) if self.target is None or comparison is None else self._draws(comparison)
        rows: list[Row] = []
        heads: list[Row] = []
        for index, entry in enumerate(self.entries):
            if not np.isfinite(values[index]):
                reason = "all its dissimilarities are equal, or too few pairs are shared"
                heads.append(self._base(entry) | {"status": "degenerate", "reason": f"{self.measure.label}: {reason}"})
                continue
            head = self._base(entry) | {"value": float(values[index])}
            heads.append(head)
            rows_of_subjects = [
                self._base(entry) | {"value": float(score), "axis": "subject", "at": name, "subject": name}
                for name, score in zip(self.data.names, scores[index], strict=True)
                if np.isfinite(score)
            ]
            rows += rows_of_subjects if len(self.data) > 1 else []
        good = [index for index, head in enumerate(heads) if "value" in head]
        if self.target is not None:
            family = [(index, None) for index in good]
            self._test([heads[index] for index in good], family, values, scores, ceiling, (drawn, single), one_sided=True)
            pairs = [(i, j) for i in good for j in good if i < j]
            between = [
                self._base(self.entries[i])
                | {"value": float(values[i] - values[j]), "axis": "difference", "at": self.entries[j].name, "label": "difference"}
                for i, j in pairs
            ]
            self._test(between, pairs, values, scores, ceiling, (drawn, single), one_sided=False)
            rows += between
            if np.isfinite(ceiling[0]):
                below = [
                    self._base(self.entries[i])
                    | {"value": float(values[i] - ceiling[0]), "axis": "difference", "at": CEILING, "label": "difference"}
                    for i in good
                ]
                lower = len(self.entries)
                self._test(below, [(i, lower) for i in good], values, scores, ceiling, (drawn, single), one_sided=False)
                rows += below
        if self.request.null is not None:
            self._permuted([heads[index] for index in good], good, values)
        rows += self._ceiling_rows(ceiling) + self._weight_rows(comparison)
        return [*heads, *rows], drawn

    def _base(self, entry: Entry) -> Row:
        row: Row = {"system": entry.name, "site": entry.site, "system_b": "data", "site_b": self.site, "measure": self.measure.label}
        return row | {"n": self.data.n, "kind": "rdm"}

    def _test(
        self,
        rows: Sequence[Row],
        family: Sequence[tuple[int, int | None]],
        values: np.ndarray,
        scores: np.ndarray,
        ceiling: np.ndarray,
        drawn: tuple[Draws | None, Draws | None],
        *,
        one_sided: bool,
    ) -> None:
        """Interval and p of each row: a value (above 0) or a difference (from 0)."""
        assert self.target is not None
        draws, single = drawn
        all_values = np.concatenate([values, ceiling])
        p: list[float] = []
        t: list[float] = []
        contrasts: list[np.ndarray] = []
        kept: list[Row] = []
        for row, (i, j) in zip(rows, family, strict=True):
            contrast = np.zeros(len(all_values))
            contrast[i] = 1
            if j is not None:
                contrast[j] = -1
            error = self._error(contrast, scores, draws, single)
            if not np.isfinite(error):
                row["interval_method"] = "none: too few draws had enough different stimuli"
                continue
            value = float(row["value"])
            row["low"], row["high"] = t_interval(value, error, self.target.dof, self.request.level)
            row["interval_method"] = self._method(draws, j)
            row["p"] = t_p(value, error, self.target.dof, one_sided=one_sided)
            p.append(row["p"])
            t.append(value / error if error > 0 else float("nan"))
            contrasts.append(contrast)
            kept.append(row)
        null = self._centered(draws, contrasts)
        correction = "holm" if self.request.correction == "max" and null is None else self.request.correction
        found = corrected(p, np.array(t), null if null is not None else np.empty((0, len(p))), correction, one_sided=one_sided)
        for row, value in zip(kept, found, strict=True):
            row["p_corrected"] = value

    def _error(self, contrast: np.ndarray, scores: np.ndarray, draws: Draws | None, single: Draws | None) -> float:
        assert self.target is not None
        count = len(scores)
        if self.target.only == "subjects" and single is None and not contrast[count:].any():
            each = contrast[:count] @ scores  # exact: the standard error of a mean over subjects
            return float(each.std(ddof=1) / np.sqrt(len(each)))
        if draws is None:
            return float("nan")
        if single is not None:
            return float(np.sqrt(split_variance(draws, single, contrast, self.target)))
        return float(np.sqrt(variance(draws, contrast, self.target)))

    def _method(self, draws: Draws | None, other: int | None) -> str:
        assert self.target is not None
        words = " and ".join(sorted(self.target.populations))
        exact = self.target.only == "subjects" and not self.fitted and (other is None or other < len(self.entries))
        if exact or draws is None:
            return f"t({self.target.dof}) over {words}"
        name = "dual bootstrap" if len(self.target.populations) == 2 else "bootstrap"
        used = int(np.isfinite(draws.both[:, 0] if "stimuli" in self.target.populations else draws.subjects[:, 0]).sum())
        return f"t({self.target.dof}) over {words}, {name}({used})"

    def _centered(self, draws: Draws | None, contrasts: Sequence[np.ndarray]) -> np.ndarray | None:
        """Draws of the contrasts, for the null of their maximum."""
        if draws is None or not contrasts or self.target is None:
            return None
        which = {"stimuli": draws.stimuli, "subjects": draws.subjects}
        source = draws.both if self.target.only is None else which[self.target.only]
        columns: list[np.ndarray] = []
        for one in contrasts:
            used = np.flatnonzero(one)
            columns.append(source[:, used] @ one[used])
        null = np.stack(columns, axis=1)
        return null if np.isfinite(null).all(1).sum() >= 20 else None

    def _permuted(self, heads: Sequence[Row], good: Sequence[int], values: np.ndarray) -> None:
        """P against models whose stimuli were relabeled, the same way for all models."""
        if self.fitted or not self.known:
            raise DegenerateInputError("null='permute' relabels models without parameters under cosine, correlation and rank measures")
        rng = np.random.default_rng([self.request.seed, 1])
        stacks = RDMs(np.concatenate(self.stacks)[list(good)])
        null = np.empty((self.request.draws, len(good)))
        for draw in range(self.request.draws):
            moved = stacks.select(stimuli=rng.permutation(self.data.n)).values
            one = Fixed(moved, self.data.values, self.data.n, self.measure.name, self.control, ceiling=False)
            null[draw] = one.point()[0].mean(1)
        for column, (head, index) in enumerate(zip(heads, good, strict=True)):
            reached = null[:, column] >= values[index] - 1e-9 * abs(values[index])
            head["null_mean"] = float(null[:, column].mean())
            head["p"] = float((1 + reached.sum()) / (1 + len(null)))
        if self.request.correction == "max":
            for head, index in zip(heads, good, strict=True):
                reached = null.max(1) >= values[index] - 1e-9 * abs(values[index])
                head["p_corrected"] = float((1 + reached.sum()) / (1 + len(null)))
        elif self.request.correction is not None:
            found = corrected([head["p"] for head in heads], np.empty(0), np.empty((0, 0)), self.request.correction, one_sided=True)
            for head, value in zip(heads, found, strict=True):
                head["p_corrected"] = value

    def _ceiling_rows(self, ceiling: np.ndarray) -> list[Row]:
        if not self.request.ceiling:
            return []
        base: Row = {"system": CEILING, "system_b": "data", "site_b": self.site, "measure": self.measure.label, "n": self.data.n}
        base |= {"kind": "rdm", "axis": CEILING}
        if not self.ceiling:
            reason = "a noise ceiling needs 2 subjects" if self.known else f"no pooling is known for {self.measure.label}"
            status = "too_few" if self.known else "failed"
            return [
                base | {"at": at, "status": status, "reason": f"{reason}; there {'is' if len(self.data) == 1 else 'are'} {len(self.data)}"}
                for at in ("lower", "upper")
            ]
        return [base | {"at": at, "value": float(value)} for at, value in zip(("lower", "upper"), ceiling, strict=True)]

    def _weight_rows(self, comparison: Fixed | Fitted | None) -> list[Row]:
        if not isinstance(comparison, Fitted):
            return []
        rows: list[Row] = []
        for entry, weights in zip(self.entries, comparison.weights(), strict=True):
            if entry.kind == "fixed":
                continue
            rows += [
                self._base(entry) | {"value": float(weight), "axis": "weight", "at": name}
                for name, weight in zip(entry.components.names, weights, strict=True)
            ]
        return rows
