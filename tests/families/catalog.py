"""Every family of models that capture is tested on: how to make a tiny one, what to show it, and which sites it must have.

Each module named in `MODULES` holds a list `FAMILIES`; a new family is one more entry there, and `test_families.py` and the page
docs/models.md take it up by themselves.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

import inscape as ix
from inscape.models import Model

MODULES = ("text", "encoder_decoder", "vision", "sound", "multimodal", "recurrent", "diffusion")

# Canonical names of one block that every plain transformer has; `{}` is the middle one of three blocks.
TRANSFORMER = tuple(f"blocks.1.{name}" for name in "resid_pre q k v z attn_out resid_mid mlp_act mlp_out resid_post".split())
# Sizes that most configurations call so.
SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 32}


@dataclass(frozen=True)
class Family:
    """One family of models, as small as it gets.

    Attributes:
        name: as people call it, unique.
        make: builds the module; its weights are made random, biases and norms included.
        stimuli: what it is shown: a list, an array or a table of at least three stimuli (texts: of 1 to 20 words).
        load: keyword arguments of `inscape.load`, such as the tokenizer.
        sites: canonical names that must exist.
        lacks: canonical names that must not, each with words of the reason.
        paths: module paths that are tested as sites are, for what has no canonical name.
        sides: padding sides that must work; () for what is not text.
        tolerance: how far a row from a batch may be from the row alone, as a part of the rms.
        by_hand: runs the module on the first stimulus without inscape, for the comparison with a hand-written hook; texts need none.
        note: a sentence for the page.
    """

    name: str
    make: Callable[[], nn.Module]
    stimuli: Callable[[], Any]
    load: Mapping[str, Any] = field(default_factory=dict)
    sites: tuple[str, ...] = ()
    lacks: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    sides: tuple[str, ...] = ("right", "left")
    tolerance: float = 1e-4
    by_hand: Callable[[nn.Module], Any] | None = None
    note: str = ""


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    """A module whose weights are all random, biases and norms included, so that no term vanishes by chance."""
    torch.manual_seed(0)
    module = make()
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module.eval()


def first_of(stimuli: Any) -> Any:
    """The first stimulus, in the form of all."""
    if isinstance(stimuli, Mapping):
        return {name: values[:1] for name, values in stimuli.items()}
    return stimuli[:1]


def images(count: int = 4, size: int = 8, channels: int = 3) -> np.ndarray:
    """Random images [n, c, h, w]."""
    return np.random.default_rng(0).normal(size=(count, channels, size, size)).astype(np.float32)


def waves(*lengths: int) -> list[np.ndarray]:
    """Random sounds of these lengths."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=length).astype(np.float32) for length in lengths]


def _collect() -> list[Family]:
    found: list[Family] = []
    for name in MODULES:
        if importlib.util.find_spec(f"tests.families.{name}") is not None:
            found += importlib.import_module(f"tests.families.{name}").FAMILIES
    names = [family.name for family in found]
    assert len(set(names)) == len(names), f"two families share a name: {names}"
    return found


@cache
def families() -> dict[str, Family]:
    """All families by name; read when asked for, since the modules import this one."""
    return {family.name: family for family in _collect()}


@cache
def model_of(name: str) -> Model:
    """The family's model, built once."""
    family = families()[name]
    return ix.load(seeded(family.make), **{"name": name, **family.load})
