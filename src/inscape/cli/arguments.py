"""Argument text that needs reading: measures and dictionaries with options, numbers that may be words."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

from inscape.cli.output import UsageError


def read_measures(texts: Sequence[str]) -> list[Any]:
    """Measures from names; options go in brackets: `mutual_knn(k=20)`.

    Raises:
        UsageError: no name, unreadable brackets, or an option that the measure does not have.
        UnknownMeasureError: no measure has that name.
    """
    from inscape import measures

    if not texts:
        raise UsageError("no measure was named; give one or several, for instance effective_rank")
    chosen: list[Any] = []
    for text in texts:
        match = re.fullmatch(r"([^()]+)(?:\((.*)\))?", text.strip())
        if match is None:
            raise UsageError(f"cannot read {text!r} as a measure; write a name, or a name with options: mutual_knn(k=20)")
        found = measures.get(match.group(1).strip())
        options = _options(match.group(2), text)
        try:
            chosen.append(found.with_options(**options) if options else found)
        except TypeError as error:
            raise UsageError(str(error)) from error
    return chosen


def read_dictionary(text: str, width: int) -> Any:
    """A kind of dictionary from its name; options go in brackets: `TopK(k=16)`.

    Raises:
        UsageError: unreadable brackets, no such kind, or an option that it does not have.
    """
    from inscape.dictionaries import registered
    from inscape.errors import nearest

    match = re.fullmatch(r"([^()]+)(?:\((.*)\))?", text.strip())
    if match is None:
        raise UsageError(f"cannot read {text!r} as a dictionary; write a kind, or a kind with options: TopK(k=16)")
    kinds, name = registered(), match.group(1).strip()
    if name not in kinds:
        raise UsageError(f"there is no kind of dictionary {name!r}; nearest: {nearest(name, kinds)}")
    try:
        return kinds[name].make(**{"width": width, **_options(match.group(2), text)})
    except TypeError as error:
        raise UsageError(f"{text!r}: {error}") from error


def number_or_word(text: str | None) -> str | int | None:
    """An integer where the text is one, None for "none", else the text."""
    if text is None or text == "none":
        return None
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def memory_text(text: str) -> str:
    """The text, if it is an amount of memory.

    Raises:
        UsageError: it is not.
    """
    from inscape.arrays import parse_bytes

    try:
        parse_bytes(text)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return text


def _options(inside: str | None, text: str) -> dict[str, Any]:
    """Literal keyword options only: nothing on a command line is run."""
    if not inside:
        return {}
    try:
        call = ast.parse(f"f({inside})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("only options by name")
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (ValueError, SyntaxError) as error:
        raise UsageError(f"cannot read the options of {text!r}; write them as in mutual_knn(k=20)") from error
