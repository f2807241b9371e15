"""What lies where another library wrote a dictionary: tensors and a configuration, read without running anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inscape.errors import DictionaryError, StoreCorruptError

_SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".bin")
_CONFIGURATIONS = ("cfg.json", "config.json", "hyperparams.json")
# What libraries put beside the weights: statistics and the state of a training.
_BESIDE = ("sparsity.safetensors", "activations_store_state.safetensors", "optimizer.pt", "trainer_state.pt", "lr_scheduler.pt")


@dataclass(frozen=True)
class Files:
    """A dictionary as it lies on disk.

    Attributes:
        weights: the file with the tensors.
        tensors: what it holds, by name.
        words: what it holds beside tensors: names, numbers.
        config: the JSON file beside it, or nothing.
    """

    weights: Path
    tensors: Mapping[str, Tensor]
    words: Mapping[str, Any]
    config: Mapping[str, Any]

    @staticmethod
    def at(path: Path) -> Files:
        """The one dictionary at a path: a file with weights, or a folder of any name with one.

        Raises:
            DictionaryError: there is none, or more than one.
            StoreCorruptError: a file is damaged.
        """
        weights = _weights(path)
        tensors, words = _contents(weights)
        return Files(weights, tensors, words, _configuration(weights))

    def has(self, *names: str) -> bool:
        """Whether there are tensors of all these names."""
        return all(name in self.tensors for name in names)

    def tensor(self, name: str) -> Tensor:
        """A tensor by name."""
        if name not in self.tensors:
            raise DictionaryError(f"{self.weights} has no tensor {name!r}; it has {', '.join(self.tensors)}")
        return self.tensors[name]

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in self.tensors.items())
        told = f"; its configuration has {', '.join(self.config)}" if self.config else "; no configuration lies beside it"
        return f"{self.weights} holds {shapes or 'no tensors'}{told}"


def _weights(path: Path) -> Path:
    if path.is_file():
        if path.suffix not in _SUFFIXES:
            raise DictionaryError(f"{path} is no file with weights; give a folder, or a file that ends in {', '.join(_SUFFIXES)}")
        return path
    if not path.is_dir():
        raise DictionaryError(f"there is no file or folder {path}")
    found = _candidates(path) or _candidates(path / "checkpoints")
    final = [file for file in found if file.stem == "final"]
    if len(found) == 1 or len(final) == 1:
        return (final or found)[0]
    if found:
        raise DictionaryError(f"{path} holds {len(found)} files with weights; give one of them: {_named(found)}")
    below = sorted({file.parent.relative_to(path) for file in path.rglob("*") if file.suffix in _SUFFIXES and file.name not in _BESIDE})
    if below:
        raise DictionaryError(f"{path} holds folders of dictionaries; give one of them: {_named(below)}")
    raise DictionaryError(
        f"{path} holds no dictionary: neither dictionary.json nor a file that ends in {', '.join(_SUFFIXES)}; give a folder that "
        "Dictionary.save or another library wrote"
    )


def _candidates(folder: Path) -> list[Path]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [file for file in files if file.suffix in _SUFFIXES and file.name not in _BESIDE]


def _named(paths: list[Path]) -> str:
    shown = [path.name if path.is_absolute() else str(path) for path in paths[:8]]
    return ", ".join(shown) + (", …" if len(paths) > len(shown) else "")


def _configuration(weights: Path) -> Mapping[str, Any]:
    folders = [weights.parent, *([weights.parent.parent] if weights.parent.name == "checkpoints" else [])]
    for file in (folder / name for folder in folders for name in _CONFIGURATIONS):
        if file.is_file():
            try:
                told = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise StoreCorruptError(f"{file} is no JSON: {error}") from error
            return told if isinstance(told, dict) else {}
    return {}


def _tensors(named: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in named.items() if isinstance(value, Tensor))


def _contents(weights: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and words of a file; nothing in it is run."""
    try:
        if weights.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(weights)
        elif weights.suffix == ".npz":
            with np.load(weights, allow_pickle=False) as file:
                found = {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}
        else:
            # The one place where a pickle is read. weights_only refuses whatever is no tensor, number, text or container of these.
            found = torch.load(weights, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:  # safetensors and pickle raise classes of their own
        raise StoreCorruptError(f"{weights} is damaged, or holds more than tensors: {error}") from error
    if not isinstance(found, dict):
        raise DictionaryError(f"{weights} holds a {type(found).__name__}; expected named tensors")
    named = {str(name): value for name, value in found.items()}
    # Half precision is read exactly, and scales are folded in full.
    tensors = {name: value.float() if value.is_floating_point() and value.itemsize < 4 else value for name, value in _tensors(named)}
    return tensors, {name: value for name, value in named.items() if name not in tensors}
