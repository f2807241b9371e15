"""Findings in plain words, with the time they took."""

from __future__ import annotations

import shutil
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from inscape.results import Result, format_number, format_value

Row = dict[str, Any]


class Teller:
    """Writes lines with the seconds since the start in front.

    Args:
        write: takes each line.
        width: of a line, in characters.
    """

    def __init__(self, write: Callable[[str], Any], width: int = 110) -> None:
        self.plain = write
        self._width = width
        self._started = time.perf_counter()

    def __call__(self, text: str) -> None:
        head = f"[{time.perf_counter() - self._started:4.0f} s] "
        for line in textwrap.wrap(text, self._width - len(head), break_long_words=False, break_on_hyphens=False):
            self.plain(head + line)
            head = " " * len(head)

    def finding(self, text: str) -> None:
        """A line that states a result, marked so that it stands out from the lines about progress."""
        self("→ " + text)


def titled(result: Result, title: str, command: str) -> Result:
    """The same result with what the report should call it and how to get it again."""
    # In a report the column tells training runs apart; here it holds the seed of the inference, which the settings name anyway.
    rows = [{**row, "seed": None} for row in result.rows()]
    return Result(rows, settings={**result.settings, "title": title, "command": command}, arrays=result.arrays)


def fresh(folder: Path) -> Path:
    """A path for a store, free of the one that an earlier demo left there: weights in memory cannot be told apart by their name."""
    if (folder / "manifest.json").is_file():
        shutil.rmtree(folder)
    return folder


def apart(one: Row, other: Row) -> bool:
    """Whether the intervals of two numbers do not meet."""
    bounds = (one["low"], one["high"], other["low"], other["high"])
    return None not in bounds and (one["high"] < other["low"] or other["high"] < one["low"])


def extremes(rows: Iterable[Row]) -> tuple[Row, Row]:
    """The rows of the smallest and of the largest number."""
    known = [row for row in rows if row["value"] is not None]
    return min(known, key=_value), max(known, key=_value)


def spread(rows: Sequence[Row]) -> str:
    """The smallest to the largest number: "0.81 to 0.94"."""
    low, high = extremes(rows)
    first, last = format_number(low["value"], 2), format_number(high["value"], 2)
    return first if first == last else f"{first} to {last}"


def stated(row: Row) -> str:
    """A number with its interval, for a sentence."""
    return format_value(row)


def _value(row: Row) -> float:
    return float(row["value"])
