"""Maps on disk: `map.json` with the method and where it comes from, `map.safetensors` with the tensors."""

from __future__ import annotations

import json
import os
from pathlib import Path

from inscape.dictionaries.saving import read_tensors, write_tensors, write_text
from inscape.errors import MapError, StoreCorruptError
from inscape.maps.fitted import Map

FORMAT_VERSION = 1
DESCRIPTION, TENSORS = "map.json", "map.safetensors"


def save(fitted: Map, path: str | os.PathLike[str]) -> Path:
    """Writes a map into a folder; a crash leaves what was there before readable."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    told = {"format_version": FORMAT_VERSION, "method": fitted.method, "info": fitted.info}
    try:
        text = json.dumps(told, indent=2, sort_keys=True)
    except TypeError as error:
        raise MapError(f"where this map comes from (its info) cannot be written as JSON: {error}") from error
    write_tensors(folder / TENSORS, fitted.tensors)
    write_text(folder / DESCRIPTION, text + "\n")
    return folder


def load(path: str | os.PathLike[str]) -> Map:
    """Reads what `save` wrote."""
    folder = Path(path)
    described = folder / DESCRIPTION
    if not described.is_file():
        raise MapError(f"{folder} holds no map: there is no {DESCRIPTION}; give a folder that Map.save wrote")
    try:
        told = json.loads(described.read_text(encoding="utf-8"))
        version, method, info = told["format_version"], told["method"], told["info"]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorruptError(f"{described} cannot be read as the description of a map: {error}") from error
    if version > FORMAT_VERSION:
        raise MapError(f"{folder} is a map of format {version}, this inscape reads up to {FORMAT_VERSION}; upgrade inscape")
    return Map(method, read_tensors(folder / TENSORS), info)
