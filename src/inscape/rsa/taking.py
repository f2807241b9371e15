"""What may stand for models, subjects and matrices to control for, turned into stacks over one order of stimuli."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inscape.errors import DegenerateInputError, StoreMismatchError
from inscape.rsa.build import rdm
from inscape.rsa.models import FlexibleModel
from inscape.rsa.rdms import RDMs
from inscape.store import Store, View


@dataclass(frozen=True)
class Entry:
    """One model: its name, its site where it has one, its matrices, and what is fitted ("fixed" for nothing)."""

    name: str
    site: str | None
    components: RDMs
    kind: str


def as_entries(models: Any, distance: str) -> list[Entry]:
    """Models of a stack (each matrix one), a flexible model, a store (each site one), a view or array, or a list or dictionary of these."""
    if isinstance(models, FlexibleModel):
        return [Entry(models.name, None, models.components, models.kind)]
    if isinstance(models, RDMs):
        sites = models.subjects.get("site", np.array([None] * len(models), dtype=object))
        return [Entry(one.names[0], site, one, "fixed") for one, site in zip(models, sites, strict=True)]
    if isinstance(models, Mapping):
        found: list[Entry] = []
        for name, one in models.items():
            inside = as_entries(one, distance)
            single = len(inside) == 1
            found += [Entry(str(name) if single else f"{name}/{own.name}", own.site, own.components, own.kind) for own in inside]
        return found
    if isinstance(models, (list, tuple)) and models and any(isinstance(one, (RDMs, FlexibleModel, View, Store)) for one in models):
        return [entry for one in models for entry in as_entries(one, distance)]
    stack = rdm(models, distance)
    name = stack.names[0] if isinstance(models, (View, Store)) else "X"
    if len(stack) > 1:
        return as_entries(stack, distance)
    return [Entry(name, models.site if isinstance(models, View) else None, stack, "fixed")]


def as_subjects(data: Any, distance: str) -> list[tuple[str | None, RDMs]]:
    """One stack of subjects for each site that all of them have; matrices of one subject are averaged."""
    if isinstance(data, RDMs):
        return [(None, by_subject(data))]
    if isinstance(data, Mapping) and data and all(isinstance(one, Store) for one in data.values()):
        first = next(iter(data.values()))
        shared = [site for site in first.sites if all(site in one.sites for one in data.values())]
        if not shared:
            raise StoreMismatchError("the subjects' stores share no site; give {subject: store[site]} to say which belong together")
        return [(site, rdm({name: one[site] for name, one in data.items()}, distance)) for site in shared]
    if isinstance(data, Mapping):
        parts = [RDMs(_single(one, distance).values, _single(one, distance).stimuli, [str(name)]) for name, one in data.items()]
        return [(None, RDMs.concat(parts))]
    if isinstance(data, Store):
        return [(site, rdm(data[site], distance)) for site in data.sites]
    stack = rdm(data, distance)
    return [(data.site if isinstance(data, View) else None, stack)]


def _single(one: Any, distance: str) -> RDMs:
    stack = one if isinstance(one, RDMs) else rdm(one, distance)
    return by_subject(RDMs(stack.values, stack.stimuli, ["one"] * len(stack), distance=stack.distance))


def by_subject(stack: RDMs) -> RDMs:
    """The mean matrix of each subject, in order of first appearance."""
    names = list(dict.fromkeys(stack.names))
    if len(names) == len(stack):
        return stack
    owner = np.array([names.index(name) for name in stack.names])
    known = ~np.isnan(stack.values)
    means = np.full((len(names), stack.values.shape[1]), np.nan)
    for index in range(len(names)):
        mine = owner == index
        count = known[mine].sum(0)
        total = np.where(known[mine], stack.values[mine], 0.0).sum(0)
        means[index] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return RDMs(means, stack.stimuli, names, distance=stack.distance)


def in_order(stack: RDMs, data: RDMs, what: str) -> RDMs:
    """The stack with its stimuli in the order of the data; plain matrices without ids are taken to be in that order already.

    Raises:
        StoreMismatchError: other stimuli.
    """
    numbers = [str(index) for index in range(stack.n)]
    if stack.n == data.n and numbers in (stack.ids, data.ids):
        return stack
    try:
        return stack.align(data)
    except StoreMismatchError as error:
        raise StoreMismatchError(f"{what} and data: {error}") from error


def same_pairs(parts: Sequence[np.ndarray]) -> np.ndarray | None:
    """Which pairs all matrices have, if those that are missing are missing in all; None if they differ."""
    missing = [np.isnan(one) for part in parts for one in part]
    if any((one != missing[0]).any() for one in missing):
        return None
    return ~missing[0]


def group_labels(groups: Any, data: RDMs) -> np.ndarray:
    """A number for each stimulus [n]: stimuli of one number are drawn together.

    Raises:
        StoreMismatchError: another number of labels, or a column that is not there.
    """
    if groups is None:
        return np.arange(data.n)
    if isinstance(groups, str):
        if groups not in data.stimuli:
            raise StoreMismatchError(f"groups={groups!r}: the stimuli have no such column but {', '.join(data.stimuli)}")
        groups = data.stimuli[groups]
    labels = np.asarray([str(one) for one in groups])
    if len(labels) != data.n:
        raise StoreMismatchError(f"groups has {len(labels)} entries for {data.n} stimuli; give one for each")
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def check_complete(parts: Sequence[np.ndarray], measure: str) -> None:
    """Raises `DegenerateInputError` where a measure cannot do without some pairs."""
    count = sum(int(np.isnan(part).sum()) for part in parts)
    if count:
        raise DegenerateInputError(
            f"{count} pairs are missing; {measure} needs complete matrices (rsa_cosine, rsa_corr and rank measures do not)"
        )
