"""Conversations as tokens: rendered, tokenized, cut, and every token assigned to the message that it belongs to."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inscape.capturing.chat import TEMPLATE, ChatTemplate, Message, Span, Unlocated, token_span
from inscape.capturing.stimuli import Stimuli
from inscape.errors import InscapeWarning, StimuliError

_CHUNK = 1024


@dataclass(frozen=True)
class Piece:
    """The tokens of one stimulus: ids, which of them are special, and how many there were before the cut."""

    ids: np.ndarray
    special: np.ndarray
    full: int


class ChatReader:
    """Reads chat stimuli once, in order, and keeps what was rendered.

    A token belongs to a message when it holds a character of the message's content; what the template adds belongs to none (message −1,
    role "template"). `assistant` is what the assistant wrote: the tokens that the template's `{% generation %}` marks enclose, else the
    contents of its messages and its tool calls.

    Attributes:
        texts: the rendered conversations.
        contents: for each of them, (start, stop, message) in characters.
        counts: for each of them, how many messages it has.
        roles: the names that the column `role` counts.
        offsets: per conversation, each token's characters; None without a fast tokenizer.
        reason: why messages could not be found in the rendered text, or None.
    """

    def __init__(self, tokenizer: Any, options: Mapping[str, Any], known: np.ndarray) -> None:
        self.template = ChatTemplate(tokenizer, options)
        self.tokenizer, self.known = tokenizer, known
        self.texts: list[str] = []
        self.contents: list[list[Span]] = []
        self.counts: list[int] = []
        self.roles: tuple[str, ...] = (TEMPLATE,)
        self.offsets: list[np.ndarray] | None = [] if getattr(tokenizer, "is_fast", False) else None
        self.reason: str | None = None
        self._columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def read(self, stimuli: Stimuli, maximum: int | None, side: str) -> Iterator[Piece]:
        """The tokens of each conversation, cut at `maximum` on `side`."""
        for start in range(0, len(stimuli), _CHUNK):
            where = range(start, min(len(stimuli), start + _CHUNK))
            texts = [self.template.render(stimuli[i], stimuli.ids[i]) for i in where]
            self.texts += texts
            self.counts += [len(stimuli[i]) for i in where]
            # The template writes its own special tokens; the tokenizer would add a second BOS.
            fast = self.offsets is not None
            made = self.tokenizer(texts, add_special_tokens=False, verbose=False, **({"return_offsets_mapping": True} if fast else {}))
            for step, (i, text) in enumerate(zip(where, texts, strict=True)):
                full = np.asarray(made["input_ids"][step], np.int32)
                offsets = np.asarray(made["offset_mapping"][step], np.int32).reshape(-1, 2) if fast else None
                kept = slice(None) if maximum is None else slice(None, maximum) if side == "right" else slice(-maximum, None)
                self._assign(stimuli[i], text, stimuli.ids[i], full, offsets, kept)
                if self.offsets is not None and offsets is not None:
                    self.offsets.append(offsets[kept])
                yield Piece(full[kept], np.isin(full[kept], self.known), len(full))
        if self.reason is not None:
            warnings.warn(f"rows carry no role, message or assistant mark: {self.reason}", InscapeWarning, stacklevel=7)

    @property
    def marks(self) -> dict[str, np.ndarray]:
        """Role (as numbers of `roles`), message and assistant mark of every token; nothing when a conversation did not tell."""
        if self.reason is not None:
            return {}
        names = ("role", "message", "assistant")
        return {name: np.concatenate([columns[i] for columns in self._columns]) for i, name in enumerate(names)}

    def no_role(self, name: str) -> StimuliError:
        """The error for a rule that asks for a role nobody has, or that cannot be told."""
        if self.reason is not None:
            return StimuliError(f"tokens={name!r} cannot be told: {self.reason}")
        known = ", ".join(map(repr, [role for role in self.roles if role != TEMPLATE]))
        return StimuliError(f"tokens={name!r}: no message has this role; the messages have {known}")

    def describe(self) -> dict[str, Any]:
        """What the manifest records."""
        told = "unknown" if self.reason is not None else "generation marks" if self.template.marked else "contents"
        return {**self.template.describe(), "assistant_from": told, **({"roles_unknown": self.reason} if self.reason else {})}

    def _assign(self, messages: Sequence[Message], text: str, name: str, ids: np.ndarray, offsets: np.ndarray | None, kept: slice) -> None:
        if self.reason is not None:
            return
        try:
            spans = self.template.locate(messages, text, name)
            role, message = np.zeros(len(ids), np.int16), np.full(len(ids), -1, np.int32)
            for start, stop, index in spans:
                at = token_span(self.tokenizer, text, ids.tolist(), offsets, (start, stop))
                role[at], message[at] = self._code(str(messages[index]["role"])), index
            assistant = role == self._code("assistant")
            if self.template.marked:
                assistant = self.template.written(messages, ids.tolist())
        except Unlocated as why:
            self.reason = f"in stimulus {name!r}, {why}"
            return
        self.contents.append(spans)
        self._columns.append((role[kept], message[kept], assistant[kept]))

    def _code(self, role: str) -> int:
        if role not in self.roles:
            self.roles = (*self.roles, role)
        return self.roles.index(role)
