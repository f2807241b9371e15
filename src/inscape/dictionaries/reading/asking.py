"""`Dictionary.features`: from rows to a table of what each feature is active on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import sparse

from inscape.arrays import as_numpy
from inscape.dictionaries.fitted import Dictionary
from inscape.dictionaries.reading.choosing import Windows
from inscape.dictionaries.reading.features import Features
from inscape.dictionaries.reading.gathering import COMPANY, Gathered
from inscape.dictionaries.reading.interpretability import offline_scores
from inscape.dictionaries.reading.logits import extremes, neighbors, output_map
from inscape.dictionaries.reading.rules import Counts, Rule
from inscape.dictionaries.reading.words import class_table, token_rows, words_of
from inscape.dictionaries.rows import check_paired
from inscape.errors import DegenerateInputError, DictionaryError
from inscape.store import Store, View, view_of

NEIGHBORS, PARTNERS, LOGITS, LABELS, WORDS = 6, 6, 8, 5, 6
_SAMPLE = 8192
# Labels and company below this do not help to tell what a feature is.
_WEAK = 0.05


def ask(
    dictionary: Dictionary,
    rows: Any,
    stimuli: Any,
    *,
    model: Any,
    labels: Sequence[str] | None,
    context: tuple[int, int],
    examples: int,
    seed: int,
) -> Features:
    """See `Dictionary.features`."""
    views = _views(dictionary, rows)
    view = views[0]
    if view.n == 0:
        raise DegenerateInputError(f"{view.system}/{view.site} has no rows")
    if examples < 4 or min(context) < 0:
        raise DictionaryError(f"examples={examples}, context={context}: at least 4 examples of a kind, and no negative context")
    words, coded = words_of(view, stimuli)
    before, after = context if token_rows(view) else (0, 0)
    windows = Windows(view.stimulus, view.repeat, view.position, before, after)
    found = Gathered(dictionary, views, coded, windows, labels, (examples, seed))
    around = _around(coded, view, len(words))
    sample = np.sort(np.argsort(found.keys, kind="stable")[:_SAMPLE])
    counts = Counts(words, class_table(words), around, sample, windows.width)
    density = found.count / view.n
    rules = [
        counts.rule(around[row[row >= 0]], strength[row >= 0], float(share))
        for row, strength, share in zip(found.reservoir, found.strength, density, strict=True)
    ]
    columns = _columns(dictionary, found, words, coded, rules, density)
    columns |= _logits(dictionary, model) if model is not None else {}
    coded_windows = np.where(found.windows >= 0, coded[found.windows], -1).astype(np.int32)
    used = np.unique(view.stimulus[found.rows[found.rows >= 0]])
    safe = np.maximum(found.rows, 0)
    arrays = {
        "rows": found.rows,
        "windows": coded_windows,
        "activations": found.activations,
        "background": np.where(found.background >= 0, coded[found.background], -1).astype(np.int32),
        "silent": found.silent,
        "stimulus": np.where(found.rows >= 0, np.searchsorted(used, view.stimulus[safe]), -1),
        "position": np.where(found.rows >= 0, view.position[safe], -1).astype(np.int32),
    }
    names = [str(name) for name in view.store.stimuli["stimulus"].take(used).to_pylist()]
    settings = {
        "verb": "dictionary.features", "dictionary": repr(dictionary.recipe), "recipe": dictionary.recipe.describe(), "m": dictionary.m,
        "system": view.system, "site": "+".join(one.site for one in views), "n": view.n, "context": [before, after], "examples": examples,
        "seed": seed, "one_row_is": view.kind, "signed": dictionary.recipe.signed,
        "fitted_on": {key: dictionary.info.get(key) for key in ("system", "site", "rows", "seed")},
    }  # fmt: skip
    import pyarrow as pa

    features = Features(pa.table(columns), arrays, words, settings, names, dict(enumerate(rules)))
    scores = offline_scores(features, rules, seed)
    for name, values in scores.items():
        features.table = features.table.append_column(name, pa.array(values, pa.float64(), from_pandas=True))
    return features


def _views(dictionary: Dictionary, rows: Any) -> list[View]:
    if dictionary.recipe.sites == "several":
        parts = [rows[site] for site in rows.sites] if isinstance(rows, Store) else rows
        views = [view_of(part) for part in (parts if isinstance(parts, (list, tuple)) else [parts])]
        check_paired(views)
        return views
    return [view_of(rows)]


def _around(coded: np.ndarray, view: View, edge: int) -> np.ndarray:
    """[n, 3]: the word before, at and after each row; `edge` where the text ends."""
    beside = np.full((len(coded), 3), edge, np.int32)
    beside[:, 1] = coded
    if token_rows(view):
        same = (view.stimulus[1:] == view.stimulus[:-1]) & (view.repeat[1:] == view.repeat[:-1])
        same &= view.position[1:] == view.position[:-1] + 1
        beside[1:, 0][same] = coded[:-1][same]
        beside[:-1, 2][same] = coded[1:][same]
    return beside


def _columns(
    dictionary: Dictionary, found: Gathered, words: list[str], coded: np.ndarray, rules: list[Rule], density: np.ndarray
) -> dict[str, Any]:
    m = dictionary.m
    places, cosines = (as_numpy(part) for part in neighbors(dictionary.W_dec, NEIGHBORS))
    joint = _joint(found, density)
    company = [_company(joint, density, feature) for feature in range(m)]
    label = [_strongest(found.correlations[feature], found.label.names) for feature in range(m)]
    often: list[list[str]] = []
    for row in found.reservoir:
        kinds, counts = np.unique(coded[row[row >= 0]], return_counts=True)
        often.append([words[i] for i in kinds[np.argsort(-counts, kind="stable")][:WORDS]])
    return {
        "feature": np.arange(m),
        "description": [str(rule) for rule in rules],
        "count": found.count,
        "density": density,
        "mean": np.divide(found.total, found.count, out=np.zeros(m), where=found.count > 0),
        "largest": found.largest.astype(np.float64),
        "words": often,
        "neighbors": places.tolist(),
        "neighbor_cosines": cosines.astype(np.float64).tolist(),
        "partners": [[number for number, _ in one] for one in company],
        "partner_phi": [[value for _, value in one] for one in company],
        "labels": [[name for name, _ in one] for one in label],
        "label_correlations": [[value for _, value in one] for one in label],
        "lead": [rule.lead for rule in rules],
    }


def _joint(found: Gathered, density: np.ndarray) -> Any:
    """[m, m] sparse: the share of rows in which both of two features are active, read off up to 64 rows of the rarer one."""
    m, drawn = len(density), np.maximum(1, np.minimum(COMPANY, found.count))
    counts = found.partners.tocoo()
    row, column = counts.row, counts.col
    rarer = (density[row] < density[column]) | ((density[row] == density[column]) & (row < column))
    row, column, share = row[rarer], column[rarer], (counts.data * (density / drawn)[row])[rarer]
    both = sparse.coo_matrix((np.concatenate([share, share]), (np.concatenate([row, column]), np.concatenate([column, row]))), (m, m))
    return both.tocsr()


def _company(joint: Any, density: np.ndarray, feature: int) -> list[tuple[int, float]]:
    """Features that are active in the same rows, by phi."""
    start, end = joint.indptr[feature : feature + 2]
    others, together = joint.indices[start:end], joint.data[start:end]
    own, rest = density[feature], density[others]
    scale = np.sqrt(own * (1 - own) * rest * (1 - rest))
    phi = np.divide(together - own * rest, scale, out=np.zeros(len(others)), where=scale > 0)
    best = np.argsort(-phi, kind="stable")[:PARTNERS]
    return [(int(others[i]), float(phi[i])) for i in best if phi[i] > _WEAK]


def _strongest(values: np.ndarray, names: list[str]) -> list[tuple[str, float]]:
    best = np.argsort(-np.abs(values), kind="stable")[:LABELS]
    return [(names[i], float(values[i])) for i in best if abs(values[i]) > _WEAK]


def _logits(dictionary: Dictionary, model: Any) -> dict[str, Any]:
    matrix, words = output_map(model)
    high, high_values, low, low_values = extremes(torch.as_tensor(dictionary.W_dec).detach().cpu(), matrix, LOGITS)
    return {
        "promoted": [[words[i] for i in row] for row in high.tolist()],
        "promoted_logits": high_values.double().tolist(),
        "suppressed": [[words[i] for i in row] for row in low.tolist()],
        "suppressed_logits": low_values.double().tolist(),
    }
