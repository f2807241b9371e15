"""What stands around a network: compilers, data-parallel shells, adapters. Hooks belong on the parts inside."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from inscape.errors import ModelError

# Adapters whose own forward does more than the adapted layers, so that the network inside must not be called without it.
_ACTS_AROUND = {"XLORA", "CPT", "ADAPTION_PROMPT"}


def unwrapped(module: nn.Module) -> nn.Module:
    """The module itself, out of `torch.compile`, `DataParallel` and `DistributedDataParallel`, which only forward to it.

    Raises:
        ModelError: the module cannot be read at all, with the reason.
    """
    while True:
        kind = type(module).__name__
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = module.module
        if not isinstance(inner, nn.Module):
            break
        module = inner
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            f"{kind} is a TorchScript module, whose parts run where no hook sees them; load the nn.Module that it was made from"
        )
    if any(type(part).__name__ == "FullyShardedDataParallel" for part in module.modules()):
        raise ModelError(
            f"{kind} is sharded by FullyShardedDataParallel: every process holds a part of each weight only. "
            "Load the model unsharded (a full state dict gives one), or place it with device_map"
        )
    configs = getattr(module, "peft_config", None)
    for name, config in configs.items() if isinstance(configs, dict) else ():
        if getattr(config, "is_prompt_learning", False):
            raise ModelError(
                f"the adapter {name!r} ({type(config).__name__}) puts virtual tokens before the text, so that positions would not be "
                "those of the tokens; adapters inside the layers (LoRA and its kin) can be read"
            )
    return module


def core(module: nn.Module) -> nn.Module:
    """The adapted network inside a peft model; any other module is its own core."""
    if hasattr(module, "peft_config") and hasattr(module, "get_base_model"):
        inside: Any = module
        found = inside.get_base_model()
        return found if isinstance(found, nn.Module) else module
    return module


def trunk_of(module: nn.Module) -> nn.Module:
    """The part of a transformers model that runs without its head; the module itself where there is none."""
    inside = core(module)
    found = getattr(inside, "base_model", None)
    if not isinstance(found, nn.Module) or found is inside:
        return module
    configs = getattr(module, "peft_config", {}) if inside is not module else {}
    kinds = {str(getattr(config, "peft_type", "")).rpartition(".")[2].upper() for config in configs.values()}
    return module if kinds & _ACTS_AROUND else found


class Eagerly:
    """Code that `torch.compile` made runs as it was written while a block runs.

    A compiled function keeps calling what it was compiled from: a hook that came later would be passed over without a word. Blocks may
    overlap, so they are counted and the last one to end restores the compiler.
    """

    def __init__(self) -> None:
        self._open = 0
        self._stance: Any = None

    @contextmanager
    def __call__(self) -> Generator[None]:
        """Enters one more block."""
        # Nothing can be compiled before the compiler was imported, and importing it takes seconds.
        if self._open == 0 and "torch._dynamo" in sys.modules:
            self._stance = torch.compiler.set_stance("force_eager")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            if self._open == 0 and self._stance is not None:
                self._stance.__exit__(None, None, None)
                self._stance = None
