"""Columns of the user's table that a model reads beside the stimulus itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from inscape.capturing.stimuli import Stimuli
from inscape.errors import StimuliError

# What a model may be told about each token.
PER_TOKEN = ("attention_mask", "position_ids", "token_type_ids")
# What the index of a store says of a row by itself.
RESERVED = ("stimulus", "repeat", "position", "token_position", "token_id", "token", "special")


@dataclass
class TokenColumns:
    """Masks, positions and segments of the tokens, from columns that bear the names of the model's arguments.

    Zeros of a mask at the ends of token ids are padding that somebody else added; it is taken off, so that it gives no rows. Zeros inside
    hide a token from the others; its row stays.

    Attributes:
        values: by argument, one array per stimulus.
        trimmed: the stimuli without their padding, where they had any.
        padding: how many padded positions were taken off.
    """

    values: dict[str, list[np.ndarray]] = field(default_factory=dict[str, list[np.ndarray]])
    trimmed: Stimuli | None = None
    padding: int = 0

    @classmethod
    def of(cls, stimuli: Stimuli, names: list[str], model: str) -> TokenColumns:
        """The columns that there are.

        Raises:
            StimuliError: a column says something that the model takes no argument for.
        """
        found = {name: _per_stimulus(stimuli, name) for name in PER_TOKEN if stimuli.has(name)}
        columns = cls({name: rows for name, rows in found.items() if rows is not None})
        if stimuli.kind == "tokens" and "attention_mask" in columns.values:
            columns._trim(stimuli)
        for name in list(columns.values):
            if name not in names:
                if not all(_says_nothing(name, row) for row in columns.values[name]):
                    raise StimuliError(f"the stimuli have a column {name!r}, and the forward of {model} takes no {name}; drop or rename it")
                del columns.values[name]
            elif name == "attention_mask" and all(_says_nothing(name, row) for row in columns.values[name]):
                del columns.values[name]  # what remains is the lengths
        return columns

    def check(self, lengths: np.ndarray, stimuli: Stimuli) -> None:
        """Raises where a column does not have one value per token that is read."""
        for name, rows in self.values.items():
            for where, (row, length) in enumerate(zip(rows, lengths, strict=True)):
                if len(row) != length:
                    raise StimuliError(
                        f"column {name!r} has {len(row)} values for stimulus {stimuli.ids[where]!r}, of which {int(length)} tokens are "
                        "read; give one value per token, special tokens included, and cut both alike where the text is too long"
                    )

    def describe(self) -> dict[str, Any]:
        """What the manifest records: which columns the model reads, and how much padding was taken off."""
        note: dict[str, Any] = {"columns_read": sorted(self.values)} if self.values else {}
        return {**note, "padding_taken_off": self.padding} if self.padding else note

    def _trim(self, stimuli: Stimuli) -> None:
        kept: list[slice] = []
        for where, mask in enumerate(self.values["attention_mask"]):
            real = np.flatnonzero(mask)
            inside = int(real[-1] - real[0]) + 1 if len(real) else 0
            if len(mask) != len(stimuli[where]) and inside == len(stimuli[where]):  # its ids were cut when the stimuli were read
                kept.append(slice(int(real[0]), int(real[-1]) + 1))
                continue
            if len(mask) != len(stimuli[where]):
                raise StimuliError(
                    f"column 'attention_mask' has {len(mask)} values for stimulus {stimuli.ids[where]!r}, which has "
                    f"{len(stimuli[where])} token ids; give one value per token"
                )
            if not len(real):
                raise StimuliError(f"the attention mask of stimulus {stimuli.ids[where]!r} is zero everywhere; drop the stimulus")
            kept.append(slice(int(real[0]), int(real[-1]) + 1))
            self.padding += len(mask) - (kept[-1].stop - kept[-1].start)
        masks = self.values["attention_mask"]
        for name, rows in self.values.items():
            self.values[name] = [row[kept[i]] if len(row) == len(masks[i]) else row for i, row in enumerate(rows)]
        if self.padding:
            whole = [len(mask) == len(stimuli[i]) for i, mask in enumerate(masks)]
            ids = [stimuli[i][part] if whole[i] else stimuli[i] for i, part in enumerate(kept)]
            self.trimmed = Stimuli(ids, ids=stimuli.ids, kind="tokens")


def per_position(stimuli: Stimuli, lengths: np.ndarray) -> Callable[[np.ndarray, np.ndarray], dict[str, pa.Array]] | None:
    """Columns that hold a list with one value per position, as columns of the rows; None where there are none."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    found: dict[str, pa.Array] = {}
    for name in stimuli.presented.column_names:
        column = stimuli.presented.column(name).combine_chunks()
        if name in RESERVED or stimuli.is_content(name) or not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            continue
        if column.null_count == 0 and not pa.types.is_nested(column.type.value_type):
            if np.array_equal(np.diff(column.offsets.to_numpy()), lengths):
                found[name] = column.flatten()
    if not found:
        return None

    def columns(members: np.ndarray, positions: np.ndarray) -> dict[str, pa.Array]:
        at = pa.array(offsets[members] + positions)
        return {name: values.take(at) for name, values in found.items()}

    return columns


def _per_stimulus(stimuli: Stimuli, name: str) -> list[np.ndarray] | None:
    """The values of a column as arrays; None where it holds no numbers per token."""
    rows = [np.asarray(value if value is not None else []) for value in stimuli.column(name)]
    if not all(row.ndim == 1 and row.size and row.dtype.kind in "iub" for row in rows):
        raise StimuliError(f"column {name!r} is an argument of the model; it must hold one whole number per token for every stimulus")
    return [row.astype(np.int64) for row in rows]


def _says_nothing(name: str, row: np.ndarray) -> bool:
    """Whether a model does the same without it."""
    if name == "attention_mask":
        return bool((row == 1).all())
    return bool((row == (np.arange(len(row)) if name == "position_ids" else 0)).all())
