"""The state of a training on disk: one file, replaced whole, from which the same weights follow as without the interruption."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from inscape.dictionaries.saving import read_about, read_tensors, write_tensors
from inscape.dictionaries.training import Trainer
from inscape.errors import DictionaryError

STATE = "training.safetensors"


def keep(folder: Path, trainers: Sequence[Trainer], plan: Mapping[str, Any]) -> None:
    """Writes the state of all trainers of a run."""
    tensors: dict[str, Tensor] = {}
    for index, trainer in enumerate(trainers):
        for part, values in _state(trainer).items():
            tensors |= {f"{index}/{part}/{name}": value for name, value in values.items()}
    told = {
        "plan": plan,
        "step": trainers[0].step,
        "history": [trainer.history for trainer in trainers],
        "first": [trainer.first for trainer in trainers],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / STATE, tensors, {"inscape": json.dumps(told)})


def take_up(folder: Path, trainers: Sequence[Trainer], plan: Mapping[str, Any]) -> bool:
    """Puts trainers back to where the folder's state was kept; whether there was one.

    Raises:
        DictionaryError: the state belongs to another run.
        StoreCorruptError: the file is damaged.
    """
    path = folder / STATE
    if not path.is_file():
        return False
    told = json.loads(read_about(path)["inscape"])
    check_plan(folder, told["plan"], plan)
    tensors = read_tensors(path)
    for index, trainer in enumerate(trainers):
        prefix = f"{index}/kept/"
        trainer.kept.update({name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)})
        for part, values in _state(trainer).items():
            for name, value in values.items():
                value.copy_(tensors[f"{index}/{part}/{name}"])
        trainer.step, trainer.first, trainer.history = told["step"], told["first"][index], told["history"][index]
    return True


def check_plan(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises `DictionaryError` naming the first setting in which a folder's run differs from the one asked for."""
    name, here, asked = _difference("", found, json.loads(json.dumps(wanted)))
    if name.endswith("entries"):
        raise DictionaryError(f"{folder} holds a training on other rows than this call has; give another folder")
    if name:
        raise DictionaryError(
            f"{folder} holds a training with {name}={here!r}, this call has {name}={asked!r}; "
            "give the same settings to go on with it, or another folder"
        )


def _difference(name: str, found: Any, wanted: Any) -> tuple[str, Any, Any]:
    """The first setting that differs, by its path, and both values; "" where none does."""
    if name.endswith("entries") and found is not None and np.shape(found) == np.shape(wanted):
        # Rows that a model gave again, on other hardware or in other batches, differ in their last digits.
        same = np.allclose(found, wanted, rtol=0.02, atol=0.02 * float(np.abs(wanted).mean()) if np.size(wanted) else 0.0)
        return ("", None, None) if same else (name, found, wanted)
    if isinstance(found, dict) and isinstance(wanted, dict):
        # Folders of earlier versions do not say which rows they are of.
        known = [key for key in {**wanted, **found} if key in found or key not in ("system", "entries")]
        pairs = [(str(key), found.get(key), wanted.get(key)) for key in known]
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        pairs = [(str(index), *both) for index, both in enumerate(zip(found, wanted, strict=True))]
    else:
        return ("", None, None) if found == wanted else (name, found, wanted)
    parts = (_difference(f"{name}.{key}" if name else key, *both) for key, *both in pairs)
    return next((part for part in parts if part[0]), ("", None, None))


def _state(trainer: Trainer) -> dict[str, dict[str, Tensor]]:
    return {
        "p": trainer.p,
        "mean": trainer.mean,
        "square": trainer.square,
        "counts": {"silent": trainer.silent},
        "kept": trainer.kept,
    }
