"""Features on disk: a table as Parquet, examples as safetensors, words and settings as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from inscape.dictionaries.reading.features import Features
from inscape.dictionaries.reading.rules import Rule
from inscape.dictionaries.saving import write_text
from inscape.errors import DictionaryError, StoreCorruptError

FORMAT_VERSION = 1
DESCRIPTION, TABLE, ARRAYS = "features.json", "features.parquet", "features.safetensors"


def save(features: Features, path: str | os.PathLike[str]) -> Path:
    """Writes features into a folder, beside a dictionary if one is there; the description comes last, so a crash leaves none half done."""
    import pyarrow.parquet as pq
    from safetensors.numpy import save_file

    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    told = {"format_version": FORMAT_VERSION, "settings": features.settings, "words": features.words, "stimuli": features.stimuli}
    told |= {"rules": {str(number): rule.describe() for number, rule in features.rules.items()}}
    text = json.dumps(told, sort_keys=True, ensure_ascii=False)
    pq.write_table(features.table, folder / f"{TABLE}.part")
    save_file({name: np.ascontiguousarray(array) for name, array in features.arrays.items()}, folder / f"{ARRAYS}.part")
    for name in (TABLE, ARRAYS):
        os.replace(folder / f"{name}.part", folder / name)
    write_text(folder / DESCRIPTION, text + "\n")
    return folder


def load(path: str | os.PathLike[str]) -> Features:
    """Reads what `save` wrote."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(path)
    described = folder / DESCRIPTION
    if not described.is_file():
        raise DictionaryError(f"{folder} holds no features: there is no {DESCRIPTION}; give a folder that Features.save wrote")
    try:
        told = json.loads(described.read_text(encoding="utf-8"))
        version, settings, words, stimuli, rules = (told[name] for name in ("format_version", "settings", "words", "stimuli", "rules"))
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorruptError(f"{described} cannot be read as the description of features: {error}") from error
    if version > FORMAT_VERSION:
        raise DictionaryError(f"{folder} holds features of format {version}, this inscape reads up to {FORMAT_VERSION}; upgrade inscape")
    try:
        table, arrays = pq.read_table(folder / TABLE), load_file(folder / ARRAYS)
    except (pa.ArrowException, OSError, ValueError, SafetensorError) as error:
        raise StoreCorruptError(f"a file of the features {folder} is missing or damaged: {error}") from error
    return Features(table, arrays, words, settings, stimuli, {int(number): Rule.of(rule) for number, rule in rules.items()})
