"""Tiny inputs for the dry run, made from a model's configuration."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from inscape.models.dryrun import guesses
from inscape.models.placement import input_device
from inscape.models.wrappers import core

AUDIO_FRAMES = 8


def parameters_of(module: nn.Module) -> tuple[set[str], bool]:
    """Names of the arguments of a module's forward, and whether it takes any others."""
    try:
        signature = inspect.signature(core(module).forward)
    except (TypeError, ValueError):
        return set(), True
    kinds = signature.parameters.values()
    return {p.name for p in kinds}, any(p.kind is p.VAR_KEYWORD for p in kinds)


def examples(module: nn.Module, modality: str, config: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Inputs to try, each with words that describe it."""
    accepted, _ = parameters_of(module)
    device = input_device(module)
    generator = torch.Generator().manual_seed(0)

    def floats(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device, _float_dtype(module))

    if config is not None and modality == "image":
        size = getattr(config, "image_size", 32)
        height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        shape = (2, getattr(config, "num_channels", 3), height, width)
        yield f"random images of shape {shape}", {"pixel_values": floats(*shape)}
        return
    if config is not None and modality == "audio":
        if "input_features" in accepted:
            frames = 2 * getattr(config, "max_source_positions", 1500)
            shape = (2, getattr(config, "num_mel_bins", 80), frames)
            batch: dict[str, Any] = {"input_features": floats(*shape)}
            if "decoder_input_ids" in accepted:
                batch["decoder_input_ids"] = torch.zeros(2, 2, dtype=torch.long, device=device)
        else:
            shape = (2, samples_for(AUDIO_FRAMES, config))
            batch = {"input_values": floats(*shape)}
        yield f"random sound of shape {shape}", batch
        return
    if modality == "text" and "input_ids" in accepted:
        table = next((m for m in module.modules() if isinstance(m, nn.Embedding)), None)
        vocabulary = table.num_embeddings if table is not None else int(getattr(config, "vocab_size", 2))
        vocabulary = min(vocabulary, int(getattr(config, "vocab_size", None) or vocabulary))
        ids = torch.randint(0, vocabulary, (2, 6), generator=generator).to(device)
        batch = {"input_ids": ids}
        if "attention_mask" in accepted:
            batch["attention_mask"] = torch.ones_like(ids)
        if "decoder_input_ids" in accepted:
            batch["decoder_input_ids"] = ids[:, :2]
        yield f"token ids of shape {tuple(ids.shape)}", batch
        return
    for words, value in guesses(module):
        value = value.to(device)
        yield words, {"x": value.to(_float_dtype(module)) if value.is_floating_point() else value}


def samples_for(frames: int, config: Any) -> int:
    """Samples of sound that give about `frames` frames in a wav2vec2-like network of strided convolutions."""
    strides, kernels = list(getattr(config, "conv_stride", [320])), list(getattr(config, "conv_kernel", [400]))
    count = frames
    for stride, kernel in zip(reversed(strides), reversed(kernels), strict=False):
        count = (count - 1) * stride + kernel
    return max(count, frames * math.prod(strides))


def _float_dtype(module: nn.Module) -> torch.dtype:
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
