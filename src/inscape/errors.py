"""The errors that inscape raises.

Every error is an `InscapeError` and also the built-in that fits, so `except KeyError` keeps working. The text says what happened,
the offending value with its shape, what was expected, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InscapeError(Exception):
    """Base of every error that inscape raises on purpose."""

    def __str__(self) -> str:
        # KeyError prints repr(args[0]); a message for people must stay readable.
        return str(self.args[0]) if self.args else ""


class ModelNotFoundError(InscapeError, OSError):
    """A model could not be had: no such folder, no such repository, or no way to reach it."""


class ModelError(InscapeError, ValueError):
    """A model cannot be read as it is: it has no weights, is spread over processes, or was given options that do not suit it."""


class SiteNotFoundError(InscapeError, KeyError):
    """No site of the model or store has this name; the message lists the nearest ones."""


class StoreMismatchError(InscapeError, ValueError):
    """Two stores (or an append) do not describe the same stimuli, rows or settings."""


class StoreIncompleteError(InscapeError, RuntimeError):
    """The capture behind a store did not finish; running it again resumes."""


class StoreCorruptError(InscapeError, OSError):
    """A file of a store is missing, truncated or altered; the message names it."""


class StimuliError(InscapeError, ValueError):
    """The stimuli cannot be used: wrong modality, empty text, a column that is missing."""


class TooFewStimuliError(InscapeError, ValueError):
    """There are fewer rows than the quantity needs."""


class DegenerateInputError(InscapeError, ValueError):
    """The numbers leave the quantity undefined: constant, NaN or infinite input, rank zero."""


class UnknownMeasureError(InscapeError, KeyError):
    """No measure has this name; the message lists the nearest ones."""


class MissingExtraError(InscapeError, ImportError):
    """An optional dependency is not installed; the message gives the pip command."""


class MemoryBudgetError(InscapeError, MemoryError):
    """No exact route fits into the memory that was allowed."""


class ResultError(InscapeError, ValueError):
    """A result was asked for something that it does not hold, or a folder holds no result."""


class EditError(InscapeError, ValueError):
    """An edit does not fit the site it was given for."""


class DictionaryError(InscapeError, ValueError):
    """A dictionary cannot be made, fitted, read or applied as asked."""


class MapError(InscapeError, ValueError):
    """A map between spaces, or networks joined by one, cannot be fitted, read or applied as asked."""


class DivergenceError(InscapeError, ArithmeticError):
    """Training left finite or sensible numbers; the message names the step, the cause and what was kept."""


class InscapeWarning(UserWarning):
    """A result stands, but on a condition that its reader must know; carries the value in its text."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """The `count` names of `known` that look most like `name`, as text for a message."""
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.0)
    return ", ".join(repr(other) for other in close) if close else "(there are none)"


def require(module: str, extra: str, purpose: str) -> None:
    """Raises `MissingExtraError` when `module` cannot be imported."""
    from importlib.util import find_spec

    if find_spec(module.split(".")[0]) is None:
        raise MissingExtraError(f"{purpose} needs the package {module!r}, which is not installed. Run: pip install 'inscape[{extra}]'")
