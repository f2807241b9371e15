"""Who a model is: enough to tell two captures apart, cheap unless its weights are asked for."""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Any

import torch
from torch import nn


def config_hash(config: Any) -> str | None:
    """SHA-256 of a configuration's JSON, without what says where or with which version it was stored."""
    if config is None or not hasattr(config, "to_dict"):
        return None
    fields = {
        k: v for k, v in config.to_dict().items() if not k.startswith("_") and k not in ("transformers_version", "dtype", "torch_dtype")
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def known_file_hashes(folder: str) -> dict[str, str]:
    """Hashes of weight files that a download cache already names its files by; an ordinary folder has none."""
    found: dict[str, str] = {}
    if not os.path.isdir(folder):
        return found
    for name in sorted(os.listdir(folder)):
        full = os.path.join(folder, name)
        blob = os.path.basename(os.path.realpath(full))
        if os.path.islink(full) and re.fullmatch(r"[0-9a-f]{64}", blob):
            found[name] = blob
    return found


def identity_of(module: nn.Module, config: Any, *, name: str, folder: str | None, weights: bool) -> dict[str, Any]:
    """Class, configuration hash, dtype, parameter count, and commit, file or weight hashes where they are known."""
    cls = type(module)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    facts: dict[str, Any] = {
        "name": name,
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "config_sha256": config_hash(config),
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for p in module.parameters()),
    }
    commit = getattr(config, "_commit_hash", None)
    if commit:
        facts["commit"] = commit
    files = known_file_hashes(folder) if folder else {}
    if files:
        facts["files_sha256"] = files
    adapters = getattr(module, "peft_config", None)
    if adapters:
        facts["adapters"] = sorted(str(key) for key in adapters)
    quantized = getattr(config, "quantization_config", None)
    if quantized is not None:
        facts["quantization"] = str(getattr(quantized, "quant_method", quantized))
    if weights:
        facts["weights_sha256"] = weights_hash(module)
    return facts
