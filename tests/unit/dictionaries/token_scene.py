"""Rows of tokens whose numbers are known."""

from __future__ import annotations

import numpy as np
import torch

import inscape as ix
from inscape.dictionaries import Dictionary
from inscape.store import View
from inscape.store.manifest import SiteSpec
from inscape.store.sources import TensorRows

WORDS = 30


def texts(count: int = 60, length: int = 20, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, WORDS, (count, length))


def token_view(ids: np.ndarray | None = None, table: np.ndarray | None = None) -> View:
    """One row per token; by default row i of the identity for token i. Tokens are named by their numbers."""
    given = texts() if ids is None else ids
    halves = ["first" if i < len(given) // 2 else "second" for i in range(len(given))]
    net = ix.zoo.GPT(vocab=WORDS, d=8, layers=1, heads=1, context=given.shape[1])
    view = ix.capture(net, ix.Stimuli({"input_ids": given.tolist(), "half": halves}), "embed", tokens="all", progress=False)["embed"]
    rows = np.eye(WORDS, dtype=np.float32) if table is None else table.astype(np.float32)
    return with_rows(view, rows[view.column("token_id")])


def with_rows(view: View, rows: np.ndarray) -> View:
    """The same tokens with other numbers."""
    return View(
        view.store,
        view.site,
        source=TensorRows(torch.from_numpy(rows)),
        index=view.index,
        spec=SiteSpec(view.row_set, rows.shape[1], "float32", kind=view.kind),
    )


def reading(W: np.ndarray) -> Dictionary:
    """Features that read and write along the rows of W [m, d]."""
    directions = torch.from_numpy(np.asarray(W, np.float32))
    zeros = {"b_enc": torch.zeros(len(W)), "b_dec": torch.zeros(W.shape[1])}
    return Dictionary(ix.dictionaries.ReLU(width=len(W)), {"W_enc": directions.clone().T, "W_dec": directions.clone(), **zeros})
