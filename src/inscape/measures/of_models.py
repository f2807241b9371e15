"""Comparison of models straight from what they do with stimuli: each runs once, then its sites are compared like those of a store."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inscape.capturing import Stimuli, capture
from inscape.errors import StimuliError
from inscape.models import Model, load


def is_model(data: Any) -> bool:
    """A loaded model, or a module that has not been loaded yet."""
    return isinstance(data, Model) or (hasattr(data, "forward") and hasattr(data, "state_dict"))


def holds_models(*systems: Any) -> bool:
    """Whether one of these is a model, or a list or dictionary with a model in it."""
    return any(is_model(one) for data in systems for one in _members(data))


@contextmanager
def captured(systems: Sequence[Any], *, stimuli: Any, sites: Any, tokens: Any) -> Generator[list[Any]]:
    """The same systems with a store in place of each model; the stores lie in a folder that goes when this ends.

    Models of one name are numbered, so that a result can tell them apart.

    Args:
        systems: what `compare` was given, one entry a side.
        stimuli: what `ix.capture` takes; every model reads the same.
        sites: sites or globs, the same for every model.
        tokens: positions that give rows.

    Raises:
        StimuliError: there are no stimuli.
    """
    if stimuli is None:
        raise StimuliError("ix.compare of models needs stimuli=, which every model reads; or capture a store of each with ix.capture")
    given = Stimuli.of(stimuli)
    models: dict[int, Model] = {}
    for data in systems:
        for one in _members(data):
            if is_model(one):
                models.setdefault(id(one), one if isinstance(one, Model) else load(one))
    names = [model.name for model in models.values()]
    stores: dict[int, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (key, model) in enumerate(models.items()):
            label = model.name if names.count(model.name) == 1 else f"{model.name} {names[: number + 1].count(model.name)}"
            stores[key] = capture(model, given, sites, tokens, str(Path(folder) / str(number)), label=label, progress=False)
        yield [_replaced(data, stores) for data in systems]


def without_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a comparison whose stores are gone."""
    return settings | {"systems": [{**system, "path": None} for system in settings.get("systems", [])]}


def _members(data: Any) -> list[Any]:
    if is_model(data):  # a ModuleList is a sequence too
        return [data]
    if isinstance(data, Mapping):
        return list(data.values())
    return list(data) if isinstance(data, (list, tuple)) else [data]


def _replaced(data: Any, stores: Mapping[int, Any]) -> Any:
    if id(data) in stores:
        return stores[id(data)]
    if isinstance(data, Mapping):
        return {name: stores.get(id(one), one) for name, one in data.items()}
    if isinstance(data, (list, tuple)) and any(id(one) in stores for one in data):
        return [stores.get(id(one), one) for one in data]
    return data
