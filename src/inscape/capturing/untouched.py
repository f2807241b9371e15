"""What a capture must leave as it was, beside the model's hooks and modes: random numbers, and tensors that training can use."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def untouched(module: nn.Module) -> Generator[None]:
    """Puts every generator of random numbers back, and what the module has kept from passes in inference mode into ordinary tensors."""
    plain, arrays, numbers = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)
        torch.random.set_rng_state(numbers)
        if devices:
            torch.cuda.set_rng_state_all(devices)
        thaw(module)


def thaw(module: nn.Module) -> None:
    """Exchanges tensors that a module cached in inference mode (masks, rotary tables) for ordinary ones with the same numbers.

    Autograd refuses the former, so a model that was captured once could no longer be trained.
    """
    for part in module.modules():
        for held in (part._buffers, vars(part)):
            for name, value in held.items():
                if isinstance(value, Tensor) and value.is_inference():
                    held[name] = value.clone()
