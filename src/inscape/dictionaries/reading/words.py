"""Tokens as people read them, and the classes of words that a description may name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from inscape.errors import StimuliError
from inscape.store import View

# What may stand for the text outside of a stimulus, or outside of a window.
OUTSIDE = ""


def readable(tokens: Iterable[Any]) -> list[str]:
    r"""Tokens of one vocabulary as plain text: a word's space in front of it, bytes as the letters that they spell.

    Byte-level tokens ("Ġthe", "Ċ"), sentence pieces ("▁the", "<0x0A>") and word pieces ("the", "##ing") come out alike.

    Example:
        >>> readable(["ĠROME", "O", ":", "Ċ"])
        [' ROME', 'O', ':', '\n']
    """
    given = [str(token) for token in tokens]
    if any(token.startswith(("Ġ", "Ċ")) for token in given):
        table = _bytes()
        return [_spelled(token, table) for token in given]
    if any("▁" in token for token in given):
        return [_piece(token) for token in given]
    if any(token.startswith("##") and len(token) > 2 for token in given):
        return [token[2:] if token.startswith("##") and len(token) > 2 else token if special(token) else f" {token}" for token in given]
    return given


def words_of(view: View, texts: Any = None) -> tuple[list[str], np.ndarray]:
    """The different words of a view's rows, and which one each row is, [n] int32.

    A row is a token where the capture kept tokens, else its whole stimulus: its text, or its id.
    """
    import pyarrow as pa

    if texts is not None:
        listed = _texts(texts)
        if len(listed) != view.store.stimuli.num_rows:
            raise StimuliError(
                f"stimuli has {len(listed)} entries, the rows come from {view.store.stimuli.num_rows}; give one per stimulus"
            )
    else:
        listed = None
    if token_rows(view):
        tokens = view.tokens
        coded = pa.array(tokens if tokens.dtype == object else tokens.astype(str).tolist(), pa.string()).dictionary_encode()
        return readable(coded.dictionary.to_pylist()), coded.indices.to_numpy().astype(np.int32)
    if listed is None:
        names = view.store.stimuli.column_names
        listed = [str(text) for text in view.store.stimuli["text" if "text" in names else "stimulus"].to_pylist()]
    return listed, view.stimulus.astype(np.int32)


def token_rows(view: View) -> bool:
    """Whether rows are tokens of texts, so that neighbors of a row are its context."""
    return any(name in view.index.columns for name in ("token", "token_id"))


def special(word: str) -> bool:
    """Whether a token is none of the text's own, such as "[CLS]" or "<|endoftext|>"."""
    bare = word.strip()
    return len(bare) > 2 and ((bare[0] == "[" and bare[-1] == "]") or (bare[0] == "<" and bare[-1] == ">"))


def visible(word: str) -> str:
    """A token inside a sentence: line breaks spelled, spaces inside marked only where there is nothing else."""
    shown = word.replace("\n", "⏎").replace("\t", "⇥")
    return shown if shown.strip() else shown.replace(" ", "·")


def quoted(word: str) -> str:
    """A token in a description: ‘:’, ‘the’, a line break."""
    if word == "\n":
        return "a line break"
    return f"‘{visible(word).strip()}’" if word.strip() else f"‘{visible(word)}’"


CLASSES: dict[str, Callable[[str], bool]] = {
    "line breaks": lambda word: "\n" in word,
    "punctuation": lambda word: bool(word.strip()) and not any(letter.isalnum() for letter in word) and not special(word),
    "numbers": lambda word: word.strip().isdigit(),
    "words in capitals": lambda word: len(word.strip()) > 1 and word.strip().isalpha() and word.strip().isupper(),
    "capitalized words": lambda word: len(word.strip()) > 1 and word.strip().isalpha() and word.strip().istitle(),
    "words after a space": lambda word: word[:1] == " " and word[1:2].isalpha(),
    "parts that go on a word": lambda word: word[:1].isalpha() and word.islower(),
    "special tokens": special,
}


@lru_cache(maxsize=1 << 16)
def in_class(word: str, name: str) -> bool:
    """Whether a word belongs to a class of `CLASSES`."""
    return CLASSES[name](word)


def class_table(words: list[str]) -> np.ndarray:
    """[words + 1, classes]: which word belongs to which class; the last row is what lies outside of a text, which belongs to none."""
    rows = [[in_class(word, name) for name in CLASSES] for word in words]
    return np.array([*rows, [False] * len(CLASSES)], bool).reshape(-1, len(CLASSES))


def _texts(given: Any) -> list[str]:
    """One text per stimulus, from a list or a table with a column `text`."""
    if hasattr(given, "column_names"):
        given = given["text"].to_pylist()
    elif isinstance(given, dict):
        given = given["text"]
    elif type(given).__name__ == "DataFrame":
        given = given["text"]
    return [str(text) for text in given]


def _piece(token: str) -> str:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)]).decode("utf-8", "replace")
    return token.replace("▁", " ")


@lru_cache(maxsize=1)
def _bytes() -> dict[str, int]:
    """The letters by which byte-level tokenizers write bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [value for value in range(256) if value not in plain]
    return {chr(value): value for value in plain} | {chr(256 + place): value for place, value in enumerate(rest)}


def _spelled(token: str, table: dict[str, int]) -> str:
    if special(token) or not all(letter in table for letter in token):
        return token
    return bytes(table[letter] for letter in token).decode("utf-8", "replace")
