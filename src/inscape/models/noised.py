"""Tiny inputs for diffusion models: noised images with their timesteps."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from inscape.models.wrappers import core

# What models call the time that they are told.
TIMES = ("timestep", "timesteps", "t", "time")
_SIZES = (8, 16, 28, 32, 64)


def noised_images(module: nn.Module, config: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Images at two timesteps, each with words that describe it; nothing for a module that is told no time or sees no images."""
    names = list(inspect.signature(core(module).forward).parameters)
    time = next((name for name in TIMES if name in names[1:]), None)
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    channels = getattr(config, "in_channels", None) or (None if first is None else first.in_channels)
    if time is None or not isinstance(channels, int):
        return
    size = getattr(config, "sample_size", None)
    generator = torch.Generator().manual_seed(0)
    for side in (size,) if isinstance(size, int) else _SIZES:
        shape = (2, channels, side, side)
        batch = {names[0]: torch.randn(*shape, generator=generator), time: torch.tensor([1, 2])}
        if "class_labels" in names:
            batch["class_labels"] = torch.zeros(2, dtype=torch.long)
        width = getattr(config, "cross_attention_dim", None)
        if "encoder_hidden_states" in names and isinstance(width, int):
            batch["encoder_hidden_states"] = torch.randn(2, 3, width, generator=generator)
        yield f"noised images of shape {shape}", batch
