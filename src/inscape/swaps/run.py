"""The verb `ix.swap`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from inscape.capturing import Stimuli
from inscape.errors import ResultError, StimuliError, TooFewStimuliError
from inscape.results import Result
from inscape.swaps.embedding import Embedded, embedded
from inscape.swaps.relevance import relevant_places
from inscape.swaps.report import Swap
from inscape.swaps.requirement import Requirement
from inscape.swaps.routes import Ranked, all_routes, query_values, route_rows

MAPS = ("orthogonal", "ridge")
_WORST = 10


def swap(
    old: Any,
    new: Any,
    queries: Any,
    corpus: Any,
    relevant: Any = None,
    segment: Any = None,
    *,
    require: str | Sequence[str] = (),
    k: int | Sequence[int] = (1, 10),
    maps: Sequence[str] = MAPS,
    site: str = "embedding",
    tokens: Any = None,
    metric: str = "cosine",
    threshold: float | None = None,
    sample: int = 5000,
    search: str = "exact",
    interval: str | int | None = "auto",
    level: float = 0.95,
    seed: int = 0,
) -> Swap:
    """Tells whether a new encoder may take an old one's place, with a new index or on the old one.

    Args:
        old: the encoder in use: a model or its name, a function of a list of texts, a store (or its folder) that holds queries and corpus
            by id, or a pair of arrays (queries, corpus).
        new: the other encoder, in any of these forms.
        queries: texts or other stimuli, with ids and columns if they come as a table.
        corpus: the documents, likewise.
        relevant: which documents answer which query: a column of the queries, one id or list for each query, a mapping from ids of
            queries, or a table with the columns query and corpus. Without it, the document that the old encoder puts first counts as the
            answer.
        segment: column of the queries, or one label for each, by which the numbers are also told.
        require: what must hold, such as "recall@10>=0.95", "recall@10>=0.98*old", "ridge:recall@10>=0.9", "overlap@10>=0.7 in segments";
            without a route it is about a new index.
        k: how many documents count.
        maps: methods of `ix.align` to try from the new space to the old, so that the old index can stay.
        site: where a model holds its vectors.
        tokens: how a model that has tokens there is read: "mean", "last", "first".
        metric: "cosine" or "dot".
        threshold: the score from which a best document is accepted today; default: the one that 90 % of the queries reach.
        sample: documents that maps are fitted on, at most.
        search: "exact", or "faiss" for its flat index.
        interval: "auto" or "jackknife" (over queries), a number of groups, or None.
        level: coverage of the intervals.
        seed: of samples and groups.

    Returns:
        A `Swap`: `ok`, `verdict`, `reasons`, `result`, `worst`, `maps`.

    Raises:
        StoreMismatchError: numbers of vectors, queries and documents do not fit.
        StimuliError: judgments of queries or documents that are not there, or a segment that is no column.
        ResultError: a requirement that cannot be read, or that names a route or measure that is not there.
        TooFewStimuliError: fewer than 2 queries or documents.

    Example:
        >>> found = ix.swap("old-encoder", "new-encoder", queries, corpus, require="recall@10>=0.95")     # doctest: +SKIP
        >>> found.ok, found.verdict                                                                       # doctest: +SKIP
    """
    wanted = [Requirement.of(text) for text in ([require] if isinstance(require, str) else require)]
    ks = tuple(sorted({k} if isinstance(k, int) else set(k)))
    if not ks or ks[0] < 1:
        raise ResultError(f"k={k}: how many documents count is at least 1")
    asked, documents = Stimuli.of(queries), Stimuli.of(corpus)
    if min(len(asked), len(documents)) < 2:
        raise TooFewStimuliError(f"{len(asked)} queries and {len(documents)} documents; at least 2 of each are needed")
    segments = _segments(segment, asked)
    answers = None if relevant is None else relevant_places(relevant, asked, documents)
    first = embedded(old, asked, documents, "old", site=site, tokens=tokens)
    second = embedded(new, asked, documents, "new", site=site, tokens=tokens)
    routes = all_routes(first, second, ks[-1], maps, metric=metric, engine=search, sample=sample, seed=seed)
    today = routes[0]
    assert today.scores is not None and today.places is not None
    bound = float(np.quantile(today.scores[:, 0], 0.1)) if threshold is None else float(threshold)
    rows: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for route in routes:
        if route.scores is None:
            names = [f"{name}@{k}" for k in ks for name in ("recall", "overlap")]
            rows += [{"label": route.name, "measure": name, "status": "undefined", "reason": route.reason} for name in names]
            continue
        values = query_values(route, today, answers, ks, bound)
        arrays |= {f"{route.name}/{name}": per for name, per in values.items()}
        arrays[f"{route.name}/score"] = np.asarray(route.scores[:, 0], np.float64)
        rows += route_rows(route, values, today, segments, interval=interval, level=level, seed=seed)
    shared = {"system": first.name, "system_b": second.name, "d": first.corpus.shape[1], "d_b": second.corpus.shape[1]}
    worst = _worst(routes, arrays[f"new/overlap@{ks[-1]}"], asked, documents)
    settings: dict[str, Any] = {
        "result": "swap",
        "k": list(ks),
        "metric": metric,
        "search": search,
        "threshold": bound,
        "relevant": "what the old encoder puts first" if answers is None else "judged",
        "queries": len(asked),
        "documents": len(documents),
        "routes": {route.name: route.what for route in routes},
        "require": [one.text for one in wanted],
        "truncated": {"old": dict(first.cut), "new": dict(second.cut)},
        "worst": worst,
        "notes": _notes(first, second, answers),
    }
    result = Result([{**shared, **row} for row in rows], settings=settings, arrays=arrays)
    ok, verdict, reasons = _judge(result, wanted, routes)
    result.settings |= {"ok": ok, "verdict": verdict, "reasons": reasons}
    fitted = {route.name: route.map for route in routes if route.map is not None}
    return Swap(result, ok, verdict, tuple(reasons), tuple(worst), fitted)


def _judge(result: Result, wanted: Sequence[Requirement], routes: Sequence[Ranked]) -> tuple[bool | None, str, list[str]]:
    notes: list[str] = list(result.settings["notes"])
    names = f"{result.unique('system')[0]} → {result.unique('system_b')[0]}"
    if not wanted:
        return None, f"{names}: no requirement was given, so there is no verdict", notes
    checked = [(one, *one.check(result)) for one in wanted]
    reasons = [f"{'holds' if holds else 'FAILS'}: {why}" for _, holds, why in checked]
    ok = all(holds for _, holds, _ in checked)
    # What would it be without embedding all documents anew? Said, but not part of the verdict.
    plain = [one for one in wanted if one.route == "new"]
    others = [route.name for route in routes if route.name not in ("old", "new") and route.scores is not None]
    enough = [name for name in others if plain and all(one.check(result, name)[0] for one in plain)]
    if plain:
        said = f"also without a new index: {', '.join(enough)}" if enough else "no route keeps it on the old index"
        reasons.append(said)
    failed = sum(not holds for _, holds, _ in checked)
    verdict = f"{names}: yes, all {len(checked)} requirements hold" if ok else f"{names}: no, {failed} of {len(checked)} requirements fail"
    return ok, verdict, [*reasons, *notes]


def _worst(routes: Sequence[Ranked], overlap: np.ndarray, asked: Stimuli, documents: Stimuli) -> list[dict[str, Any]]:
    today, after = routes[0].places, routes[1].places
    assert today is not None and after is not None
    found: list[dict[str, Any]] = []
    for i in np.argsort(overlap, kind="stable")[:_WORST].tolist():
        text = asked[i]
        one = {"query": asked.ids[i], "overlap": float(overlap[i])}
        one |= {"old_first": documents.ids[int(today[i, 0])], "new_first": documents.ids[int(after[i, 0])]}
        found.append(one | ({"text": text[:80]} if isinstance(text, str) else {}))
    return found


def _segments(segment: Any, asked: Stimuli) -> np.ndarray | None:
    if segment is None:
        return None
    labels = np.asarray(asked.column(segment) if isinstance(segment, str) else list(segment), dtype=object)
    if labels.shape != (len(asked),):
        raise StimuliError(f"segment has {labels.shape} entries for {len(asked)} queries; give one label each, or a column of the queries")
    return labels.astype(str)


def _notes(first: Embedded, second: Embedded, answers: list[np.ndarray] | None) -> list[str]:
    notes: list[str] = []
    for one in (first, second):
        for side, count in one.cut.items():
            if count:
                notes.append(f"{one.name} cut {count} of the {side} at its limit of tokens")
    empty = 0 if answers is None else sum(len(one) == 0 for one in answers)
    if empty:
        notes.append(f"{empty} queries have no relevant document and do not count for recall")
    return notes
