"""What stands at the positions of one stack of a model: the tokens of a text, the patches of an image, the frames of a sound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from inscape.capturing.tokens import Encoded


@dataclass
class Stream:
    """Positions of one kind, as one stack of the model reads them.

    Attributes:
        kind: what a row is: "token", "patch", "frame", "position".
        tower: the stack ("vision", "decoder", …); "" for the main or only one.
        columns_of: further columns of the rows, from the stimuli's positions and the rows' own.
    """

    kind: str
    tower: str = ""
    columns_of: Callable[[np.ndarray, np.ndarray], dict[str, pa.Array]] | None = None

    @property
    def prefix(self) -> str:
        """What the names of its row sets begin with."""
        return f"{self.tower}-" if self.tower else ""

    @property
    def lengths(self) -> np.ndarray | None:
        """Positions per stimulus, where they are known before the run."""
        return None

    @property
    def marks_special(self) -> bool:
        """Whether it can say which positions are special."""
        return False

    def fits(self, t: int, probed: int) -> bool:
        """Whether a tensor of t positions in a probe of length `probed` holds one row per position of this stream."""
        return True

    def ids(self, where: int) -> np.ndarray | None:
        """The token ids of a stimulus, where there are any."""
        return None

    def special(self, where: int, length: int) -> np.ndarray | None:
        """Which of the `length` positions of a stimulus are special (tokens that no text has), or None when none is."""
        return None

    def columns(self, members: np.ndarray, positions: np.ndarray, t: int) -> dict[str, pa.Array]:
        """What is known about rows, beside stimulus and position; `t` is the length of the probed tensor."""
        return {} if self.columns_of is None else self.columns_of(members, positions)


@dataclass
class TokenStream(Stream):
    """Tokens, known before the run."""

    encoded: Encoded | None = None
    spell: Callable[[list[int]], list[str]] | None = None

    @property
    def known(self) -> Encoded:
        """The token ids of all stimuli."""
        assert self.encoded is not None
        return self.encoded

    @property
    def lengths(self) -> np.ndarray:
        """Tokens per stimulus."""
        return self.known.lengths

    @property
    def marks_special(self) -> bool:
        """The tokenizer says it."""
        return True

    def fits(self, t: int, probed: int) -> bool:
        """Latents have positions, but not one per token."""
        return t == probed

    def ids(self, where: int) -> np.ndarray:
        """The token ids of one stimulus."""
        return self.known.ids[self.known.offsets[where] : self.known.offsets[where + 1]]

    def special(self, where: int, length: int) -> np.ndarray | None:
        """The tokenizer's special tokens; None where the sequence is not that of the tokens."""
        marks = self.known.special[self.known.offsets[where] : self.known.offsets[where + 1]]
        return marks if len(marks) == length else None

    def columns(self, members: np.ndarray, positions: np.ndarray, t: int) -> dict[str, pa.Array]:
        """Token ids, and with a tokenizer the tokens and whether they are special."""
        at = self.known.offsets[members] + positions
        ids = self.known.ids[at]
        columns: dict[str, pa.Array] = {"token_id": pa.array(ids, pa.int32())}
        if self.spell is not None:
            unique, inverse = np.unique(ids, return_inverse=True)
            columns["token"] = pa.array(self.spell(unique.tolist()), pa.string()).take(pa.array(inverse))
            columns["special"] = pa.array(self.known.special[at])
        columns.update(self.known.rows(at))
        return {**columns, **super().columns(members, positions, t)}


@dataclass
class GridStream(Stream):
    """Patches or frames; class and register tokens may stand in front of the patches.

    Attributes:
        before: number of those tokens,
        whole: in outputs of this many positions.
    """

    before: int = 0
    whole: int = -1

    @property
    def marks_special(self) -> bool:
        """Once such tokens have been found."""
        return self.before > 0

    def find(self, patches: int, lengths: list[int]) -> None:
        """Notes how many tokens stand in front of `patches` patches, from the lengths that sites gave."""
        extra = [t - patches for t in lengths if 0 < t - patches <= 16]
        if extra:
            self.before, self.whole = extra[0], extra[0] + patches

    def special(self, where: int, length: int) -> np.ndarray | None:
        """The tokens in front."""
        if not self.before or length != self.whole:
            return None
        marks = np.zeros(length, bool)
        marks[: self.before] = True
        return marks

    def columns(self, members: np.ndarray, positions: np.ndarray, t: int) -> dict[str, pa.Array]:
        """Whether a row is one of the tokens in front."""
        marks = {"special": pa.array(positions < self.before)} if self.before and t == self.whole else {}
        return {**marks, **super().columns(members, positions, t)}
