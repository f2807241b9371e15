"""Dictionaries of other libraries: which formats there are, and reading and writing them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, ClassVar, TypeVar

from inscape.dictionaries.base import names
from inscape.dictionaries.files import Files
from inscape.dictionaries.fitted import Dictionary
from inscape.errors import DictionaryError, nearest
from inscape.models.names import to_canonical


class Format:
    """How one library keeps dictionaries: a subclass in a file of its own in `dictionaries/formats`, under `@dictionary_format`.

    Attributes:
        name: as in `dictionary.save(path, format=name)`.
        source: the library, and where its files are described.
        writes: the kinds of dictionaries that it can hold, where it can be written.
        stated: whether its files say by what rows were multiplied; where they do not, `scale=` may.
    """

    name: ClassVar[str] = ""
    source: ClassVar[str] = ""
    writes: ClassVar[tuple[str, ...]] = ()
    stated: ClassVar[bool] = True

    def fits(self, files: Files) -> bool:
        """Whether these are files of this format, by what they hold and not by what they are called."""
        raise DictionaryError(f"{type(self).__name__} does not say which files are of its format; define fits(files)")

    def read(self, files: Files, scale: float | None) -> Dictionary:
        """The dictionary, with every scale folded; `scale` multiplies rows before they are read."""
        raise DictionaryError(f"{type(self).__name__} does not say how its files are read; define read(files, scale)")

    def write(self, dictionary: Dictionary, folder: Path) -> None:
        """Writes files that the library itself reads."""
        raise DictionaryError(f"dictionaries are not written as {self.name}; formats that can be written: {names(_writable())}")


_FORMATS: dict[str, Format] = {}
F_ = TypeVar("F_", bound=Format)


def dictionary_format(cls: type[F_]) -> type[F_]:
    """Registers a format; the decorator of each file in `dictionaries/formats`."""
    _FORMATS[cls.name] = cls()
    return cls


def registered_formats() -> Mapping[str, Format]:
    """All formats of other libraries, by name.

    Example:
        >>> sorted(registered_formats())[:3]
        ['circuit_tracer', 'dictionary_learning', 'gemma_scope']
    """
    package = import_module("inscape.dictionaries.formats")
    for module in iter_modules(package.__path__):
        import_module(f"inscape.dictionaries.formats.{module.name}")
    return dict(sorted(_FORMATS.items()))


def _writable() -> list[str]:
    return [name for name, one in registered_formats().items() if one.writes]


def read(path: str | os.PathLike[str], scale: float | None = None) -> Dictionary:
    """Reads a dictionary that another library wrote.

    Raises:
        DictionaryError: there is none, or it is of no known format.
        StoreCorruptError: a file is damaged.
    """
    files = Files.at(Path(path))
    known = registered_formats()
    fitting = [one for one in known.values() if one.fits(files)]
    if not fitting:
        raise DictionaryError(
            f"this is a dictionary of no known format: {files}. Known are {names(known)}; with tensors of your own: "
            "ix.dictionaries.Dictionary(recipe, {'W_enc': …, 'W_dec': …, 'b_enc': …, 'b_dec': …})"
        )
    if scale is not None and fitting[0].stated:
        raise DictionaryError(f"scale={scale!r} was given, but {fitting[0].name} says in its files how rows are scaled; leave it out")
    return fitting[0].read(files, scale)


def write(dictionary: Dictionary, path: str | os.PathLike[str], name: str) -> Path:
    """Writes a dictionary in the format of another library.

    Raises:
        DictionaryError: there is no such format, or it cannot hold this kind.
    """
    known = registered_formats()
    if name not in known:
        raise DictionaryError(f"unknown format {name!r}; nearest: {nearest(name, _writable())}")
    chosen, kind = known[name], dictionary.recipe.kind
    if kind not in chosen.writes:
        able = [other for other, one in known.items() if kind in one.writes]
        holds = f"it holds {names(chosen.writes)}" if chosen.writes else "inscape reads it only"
        raise DictionaryError(
            f"{name} cannot hold a {kind}: {holds}. "
            + (f"{kind} can be written as {names(able)}" if able else "Leave format= out for inscape's own, which holds every kind")
        )
    if dictionary.per_row is not None:
        raise DictionaryError(f"this dictionary normalizes each row for itself ({dictionary.per_row}), which {name} is not written with")
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    chosen.write(dictionary, folder)
    return folder


def provenance(one: Format, files: Files, **told: Any) -> dict[str, Any]:
    """What is worth keeping of where a dictionary comes from; `told` may name system, site and sites."""
    found = {name: value for name, value in told.items() if value is not None}
    if "site" in found:
        found["site"] = to_canonical(str(found["site"]))
    sites = found.get("sites") or ([found["site"]] if "site" in found else None)
    if sites:
        found["sites"] = [to_canonical(str(site)) for site in sites]
    return {**found, "format": {"name": one.name, "file": files.weights.name, "config": dict(files.config)}}


def count_of(value: Any, files: Files, name: str = "k") -> int:
    """A whole number in a configuration.

    Raises:
        DictionaryError: it is missing, or no whole number.
    """
    try:
        found = int(value)
    except (TypeError, ValueError):
        found = -1
    if found < 1 or float(value) != found:
        raise DictionaryError(f"{name}={value!r}; expected a whole number of active features. {files}")
    return found


def site_of(dictionary: Dictionary) -> str:
    """The site that a dictionary was fitted on, for files that name it; empty where it is not known."""
    return str(dictionary.site or (dictionary.info.get("sites") or [""])[0])


__all__ = ["Format", "count_of", "dictionary_format", "provenance", "read", "registered_formats", "site_of", "write"]
