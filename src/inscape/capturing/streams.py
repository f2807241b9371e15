"""Stimuli that are read piece by piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inscape.capturing.cursors import Cursor, cursor_of
from inscape.capturing.stimuli import Stimuli
from inscape.errors import StimuliError


class StimulusStream:
    """Stimuli that are read piece by piece, with what `Stimuli` would be told about each piece.

    Args:
        data: a Hugging Face `IterableDataset`, a `DataLoader`, a torch `Dataset`, a generator, a function that returns an iterator, or
            anything that can be iterated over but has no length. Its items are stimuli, or mappings of columns.
        column: the column that holds the stimulus.
        ids: the column that holds the ids; each may come once.
        kind: what the stimuli are; default: judged from the first piece.
        sampling_rate: of sounds given as arrays.
        template: for chats, arguments of the tokenizer's chat template.

    Raises:
        StimuliError: the data is no stream.
    """

    def __init__(
        self,
        data: Any,
        *,
        column: str | None = None,
        ids: str | None = None,
        kind: str | None = None,
        sampling_rate: int | None = None,
        template: Mapping[str, Any] | None = None,
    ) -> None:
        cursor = cursor_of(data)
        if cursor is None:
            raise StimuliError(
                f"a {type(data).__name__} is not read piece by piece; give an IterableDataset, a DataLoader, a generator or a function "
                "that returns one, or Stimuli(...) for what is taken as a whole"
            )
        self.cursor: Cursor = cursor
        self._options: dict[str, Any] = {
            "column": column,
            "ids": ids,
            "kind": kind,
            "sampling_rate": sampling_rate,
            "template": template,
        }

    @classmethod
    def of(cls, data: Any) -> StimulusStream | None:
        """The stream itself, or one for data that is read piece by piece; None for what is taken as a whole."""
        if isinstance(data, cls):
            return data
        return None if isinstance(data, Stimuli) or cursor_of(data) is None else cls(data)

    def piece(self, items: Sequence[Any], start: int) -> Stimuli:
        """Some items as stimuli, the first of them with the number `start`; the first piece decides what the later ones are."""
        stimuli = Stimuli(items, start=start, **self._options)
        if stimuli.content is not None and any(isinstance(item, Mapping) for item in items):
            self._options["column"] = stimuli.content
        self._options["kind"] = stimuli.kind
        if stimuli.table.num_rows != len(stimuli):
            again = next(name for name, repeat in zip(stimuli.ids, stimuli.repeat, strict=True) if repeat)
            raise StimuliError(
                f"the stimulus id {again!r} comes back in a stream; stimuli that are read piece by piece need ids of their own, since "
                "repeats could be anywhere. Leave the ids out, or give a table, which may hold repeats"
            )
        return stimuli
