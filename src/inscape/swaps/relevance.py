"""Which documents answer which query, in whatever form that is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from inscape.capturing import Stimuli
from inscape.capturing.tables import read_table, table_columns
from inscape.errors import StimuliError

QUERY, DOCUMENT, GRADE = ("query", "query_id", "query-id"), ("corpus", "corpus_id", "corpus-id", "document", "doc_id"), ("score", "grade")


def relevant_places(relevant: Any, queries: Stimuli, corpus: Stimuli) -> list[np.ndarray]:
    """Places in the corpus of the documents that answer each query; empty where none is known.

    Args:
        relevant: a column of the queries with ids of documents; one id, place or list of them for each query; a mapping from ids of
            queries; or a table (or its path) with the columns query and corpus, where a score of 0 or less means not relevant.
        queries: the queries.
        corpus: the documents.

    Raises:
        StimuliError: a query or document that is not there, or a form that cannot be read.
    """
    if isinstance(relevant, str) and queries.has(relevant):
        relevant = queries.column(relevant)
    elif isinstance(relevant, str) or hasattr(relevant, "__fspath__"):
        relevant = _judged(read_table(relevant))
    elif not isinstance(relevant, Mapping) or _names_columns(relevant):
        columns = None if isinstance(relevant, (list, tuple, np.ndarray)) else table_columns(relevant)
        relevant = _judged(columns) if columns is not None else relevant
    place = {name: at for at, name in reversed(list(enumerate(corpus.ids)))}
    if isinstance(relevant, Mapping):
        known = set(queries.ids)
        strange = [str(name) for name in relevant if str(name) not in known]
        if strange:
            raise StimuliError(
                f"relevant names {len(strange)} queries that are not there, the first {strange[0]!r}; queries have ids {_few(queries)}"
            )
        by_name = {str(name): value for name, value in relevant.items()}
        relevant = [by_name.get(name, ()) for name in queries.ids]
    given = list(relevant)
    if len(given) != len(queries):
        raise StimuliError(f"relevant has {len(given)} entries for {len(queries)} queries; give one each, or a mapping from ids of queries")
    return [_places(one, place, corpus) for one in given]


def _places(one: Any, place: Mapping[str, int], corpus: Stimuli) -> np.ndarray:
    names = list(one) if isinstance(one, (list, tuple, set, frozenset, np.ndarray)) else [] if one is None else [one]
    found: list[int] = []
    for name in names:
        if isinstance(name, (int, np.integer)) and not isinstance(name, bool):
            if not 0 <= name < len(corpus):
                raise StimuliError(f"relevant names document {name}, but the corpus has {len(corpus)}")
            found.append(int(name))
        elif str(name) in place:
            found.append(place[str(name)])
        else:
            raise StimuliError(f"relevant names the document {str(name)!r}, which the corpus does not have; its ids are {_few(corpus)}")
    return np.unique(np.array(found, dtype=np.int64))


def _judged(columns: Any) -> dict[str, list[str]]:
    """Judgments by query, from a table with a row each."""
    names = [next((name for name in known if name in columns), None) for known in (QUERY, DOCUMENT, GRADE)]
    if names[0] is None or names[1] is None:
        raise StimuliError(
            f"a table of relevant documents has a column {QUERY[0]!r} and a column {DOCUMENT[0]!r}; this one has {list(columns)}"
        )
    count = len(columns[names[0]])
    grades = columns[names[2]] if names[2] is not None else [1] * count
    found: dict[str, list[str]] = {}
    for query, document, grade in zip(columns[names[0]], columns[names[1]], grades, strict=True):
        if float(grade) > 0:
            found.setdefault(str(query), []).append(str(document))
    return found


def _names_columns(relevant: Mapping[Any, Any]) -> bool:
    return any(name in relevant for name in QUERY) and any(name in relevant for name in DOCUMENT)


def _few(stimuli: Stimuli) -> str:
    shown = ", ".join(repr(name) for name in stimuli.ids[:3])
    return f"{shown}{', …' if len(stimuli) > 3 else ''}"
