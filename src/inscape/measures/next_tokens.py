"""The token that follows each token: the classes of a causal language model."""

from __future__ import annotations

import numpy as np

from inscape.errors import StimuliError
from inscape.store import View
from inscape.summaries.sequences import sequences_of

NEXT_TOKEN = "next_token"


def followed(sequence: np.ndarray, position: np.ndarray, token: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that have a next token, and that token.

    Args:
        sequence: the sequence of each row, [n].
        position: its place there, [n].
        token: its token, [n].

    Returns:
        Row numbers, ascending, and the token at the following place of the same sequence.
    """
    order = np.lexsort((position, sequence))
    here, after = order[:-1], order[1:]
    follows = (sequence[here] == sequence[after]) & (position[here] + 1 == position[after])
    rows, labels = here[follows], token[after[follows]]
    ascending = np.argsort(rows, kind="stable")
    return rows[ascending], labels[ascending]


def with_next_tokens(view: View) -> tuple[View, np.ndarray]:
    """The rows of a view whose next token is known, and those tokens as ids.

    Raises:
        StimuliError: the rows are no tokens, or none is followed by another.
    """
    if "token_id" not in view.columns:
        raise StimuliError(
            f"labels='next_token' needs token rows, but those of {view.system}/{view.site} are {view.kind} rows without token ids; "
            "capture a language model with tokens='all'"
        )
    rows, labels = followed(sequences_of(view.stimulus, view.repeat), view.position, view.column("token_id"))
    if not len(rows):
        raise StimuliError(f"no row of {view.system}/{view.site} is followed by the next token; capture with tokens='all'")
    return view.select(rows=rows), labels
