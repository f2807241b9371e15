"""Prompts and what a model added to them, end to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from inscape.capturing.tokens import Encoded, special_ids

Rows = Callable[[np.ndarray, np.ndarray], dict[str, pa.Array]]


def joined(encoded: Encoded, ids: list[np.ndarray], tokenizer: Any, ends: list[int], told: Mapping[str, Any]) -> Encoded:
    """Prompts and continuations end to end, with the mark of what was generated."""
    known = np.union1d(special_ids(tokenizer), np.asarray(ends, np.int32))
    new = np.fromiter(map(len, ids), np.int64, len(ids))
    offsets = encoded.offsets + np.concatenate([[0], np.cumsum(new)])
    total = int(offsets[-1])
    generated = np.ones(total, bool)
    starts = offsets[:-1]
    old = np.arange(len(encoded.ids)) + np.repeat(starts - encoded.offsets[:-1], encoded.lengths)
    generated[old] = False

    def spread(values: np.ndarray, fill: Any) -> np.ndarray:
        wide = np.full((total, *values.shape[1:]), fill, values.dtype)
        wide[old] = values
        return wide

    both = spread(encoded.ids, 0)
    both[generated] = np.concatenate(ids)
    special = spread(encoded.special, False)
    special[generated] = np.isin(both[generated], known)
    marks, roles = {name: spread(values, 0) for name, values in encoded.marks.items()}, encoded.roles
    if "role" in marks:
        roles = roles if "assistant" in roles else (*roles, "assistant")
        marks["role"][generated], marks["assistant"][generated] = roles.index("assistant"), True
        # The answer is a message of its own; a message that goes on keeps its number.
        answers = np.array([_answer(encoded, where) for where in range(len(ids))], np.int32)
        marks["message"][generated] = np.repeat(answers, new)
    marks["generated"] = generated
    locate = encoded.locate
    return replace(
        encoded,
        ids=both,
        special=special,
        offsets=offsets,
        marks=marks,
        roles=roles,
        locate=None if locate is None else lambda: spread(locate(), 0),
        record={**encoded.record, "generate": dict(told)},  # the counts remain those of the texts
    )


def _answer(encoded: Encoded, where: int) -> int:
    """The number of the message that the generated tokens are."""
    assert encoded.chat is not None
    return encoded.chat.counts[where] - bool(encoded.chat.template.options.get("continue_final_message"))


def of_prompts(rows_of: Rows | None, lengths: np.ndarray) -> Rows | None:
    """The user's columns of one value per token, which generated tokens have none of."""
    if rows_of is None:
        return None

    def found(members: np.ndarray, positions: np.ndarray) -> dict[str, pa.Array]:
        given = positions < lengths[members]
        values = rows_of(members, np.where(given, positions, 0))
        kept = pa.array(np.arange(len(given)), mask=~given)  # taking no row gives no value
        return {name: column.take(kept) for name, column in values.items()}

    return found
