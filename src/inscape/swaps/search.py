"""The k nearest documents of each query: exactly, block by block, or by FAISS."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from inscape.errors import StoreMismatchError, require
from inscape.maps.search import blocks, unit_rows

METRICS = ("cosine", "dot")
ENGINES = ("exact", "faiss")


def nearest(queries: Tensor, corpus: Tensor, k: int, *, metric: str = "cosine", engine: str = "exact") -> tuple[np.ndarray, np.ndarray]:
    """Scores and places of the k nearest documents, best first, [n, k] each; of equal scores the earlier document comes first.

    Args:
        queries: [n, d].
        corpus: [m, d].
        k: how many, at most m.
        metric: "cosine" or "dot".
        engine: "exact", or "faiss" for its flat index (exact too, in fp32).

    Raises:
        StoreMismatchError: an unknown metric or engine.
        MissingExtraError: FAISS is not installed.
    """
    if metric not in METRICS or engine not in ENGINES:
        raise StoreMismatchError(f"metric={metric!r}, search={engine!r}: choose one of {METRICS} and one of {ENGINES}")
    first, second = queries.float(), corpus.float()
    if metric == "cosine":
        first, second = unit_rows(first), unit_rows(second)
    k = min(k, len(second))
    if engine == "faiss":
        return _faiss(first, second, k)
    scores, places = np.empty((len(first), k), np.float32), np.empty((len(first), k), np.int64)
    for part in blocks(len(first), len(second)):
        near = first[part] @ second.T
        values, order = near.topk(k, dim=1)
        # topk leaves open which of several equal documents comes in; then the order of the corpus decides.
        tied = ((near >= values[:, -1:]).sum(1) > k).nonzero().squeeze(1)
        if len(tied):
            ranked = near[tied].sort(dim=1, descending=True, stable=True)
            values[tied], order[tied] = ranked.values[:, :k], ranked.indices[:, :k]
        within = np.lexsort((order.numpy(), -values.numpy()), axis=1)
        scores[part] = np.take_along_axis(values.numpy(), within, 1)
        places[part] = np.take_along_axis(order.numpy(), within, 1)
    return scores, places


def _faiss(first: Tensor, second: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    require("faiss", "knn", "search='faiss'")
    import faiss

    index = faiss.IndexFlatIP(second.shape[1])
    index.add(np.ascontiguousarray(second.numpy()))  # pyright: ignore[reportCallIssue]
    scores, places = index.search(np.ascontiguousarray(first.numpy()), k)  # pyright: ignore[reportCallIssue]
    return scores, places.astype(np.int64)
