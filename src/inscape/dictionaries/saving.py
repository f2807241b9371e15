"""Dictionaries on disk: `dictionary.json` with kind, options and provenance, `dictionary.safetensors` with the tensors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from inscape.dictionaries.base import from_description
from inscape.dictionaries.fitted import Dictionary
from inscape.errors import DictionaryError, StoreCorruptError

# Version 2 adds `per_row`, without which such a dictionary would be read wrongly; others are still written as version 1.
FORMAT_VERSION = 2
DESCRIPTION, TENSORS = "dictionary.json", "dictionary.safetensors"


def save(dictionary: Dictionary, path: str | os.PathLike[str]) -> Path:
    """Writes a dictionary into a folder; a crash leaves what was there before readable."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    told: dict[str, Any] = {"format_version": 1, "recipe": dictionary.recipe.describe(), "info": dictionary.info}
    if dictionary.per_row is not None:
        told |= {"format_version": 2, "per_row": dictionary.per_row}
    try:
        text = json.dumps(told, indent=2, sort_keys=True)
    except TypeError as error:
        raise DictionaryError(f"the provenance of this dictionary (its info) cannot be written as JSON: {error}") from error
    write_tensors(folder / TENSORS, dictionary.tensors)
    write_text(folder / DESCRIPTION, text + "\n")
    return folder


def load(path: str | os.PathLike[str], scale: float | None = None) -> Dictionary:
    """Reads what `save` wrote, or a dictionary of another library."""
    folder = Path(path)
    described = folder / DESCRIPTION
    if not described.is_file():
        from inscape.dictionaries.exchange import read

        return read(folder, scale)
    if scale is not None:
        raise DictionaryError(f"scale={scale!r} was given, but {folder} is inscape's own, with every scale folded; leave it out")
    try:
        told = json.loads(described.read_text(encoding="utf-8"))
        version, recipe, info = told["format_version"], told["recipe"], told["info"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorruptError(f"{described} cannot be read as the description of a dictionary: {error}") from error
    if version > FORMAT_VERSION:
        raise DictionaryError(f"{folder} is a dictionary of format {version}, this inscape reads up to {FORMAT_VERSION}; upgrade inscape")
    return Dictionary(from_description(recipe), read_tensors(folder / TENSORS), info, per_row=told.get("per_row"))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """A safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    part = path.with_name(path.name + ".part")
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, part, dict(about or {}))
    os.replace(part, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        StoreCorruptError: it is missing or damaged.
    """
    from safetensors.torch import load_file

    try:
        # Copies: memory of their own, aligned as everywhere else, so that products give the same bits.
        return {name: value.clone() for name, value in load_file(path).items()}
    except Exception as error:  # safetensors raises a class of its own that derives from nothing narrower
        raise StoreCorruptError(f"{path} is missing or damaged: {error}") from error


def read_about(path: Path) -> dict[str, Any]:
    """The text kept beside the tensors of a safetensors file."""
    from safetensors import safe_open

    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:
        raise StoreCorruptError(f"{path} is missing or damaged: {error}") from error


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
