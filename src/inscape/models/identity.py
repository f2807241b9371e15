"""Who a model is: enough to tell two captures apart, cheap unless its weights are asked for."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from inscape.models.placement import is_dispatched, parameter_count, tensors_of, value_of

_NOT_CONTENT = ("transformers_version", "dtype", "torch_dtype")
# Packages whose layers hold their weights in fewer bits.
_QUANTIZED = ("optimum.quanto.", "torch.ao.nn.", "torchao.", "bitsandbytes.", "transformers.integrations.", "gptqmodel.", "awq.", "hqq.")


def config_hash(config: Any) -> str | None:
    """SHA-256 of a configuration's JSON, without what says where or with which version it was stored."""
    if config is None or not hasattr(config, "to_dict"):
        return None
    fields = {k: v for k, v in config.to_dict().items() if not k.startswith("_") and k not in _NOT_CONTENT}
    return hashlib.sha256(json.dumps(fields, sort_keys=True, default=str).encode()).hexdigest()


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all parameters and buffers, offloaded and packed ones included."""
    digest = hashlib.sha256()
    for name, value in tensors_of(module):
        _add(digest, name, value)
    return digest.hexdigest()


def _add(digest: Any, name: str, value: Any) -> None:
    """One entry of a state dict; packed weights of quantized layers are tuples, or tensors made of tensors."""
    if isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            _add(digest, f"{name}[{i}]", item)
        return
    if not isinstance(value, Tensor):
        digest.update(
            f"{name}={value if isinstance(value, (torch.dtype, str, int, float, type(None))) else type(value).__name__};".encode()
        )
        return
    tensor = value.detach()
    digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
    if hasattr(tensor, "__tensor_flatten__"):
        flatten: Any = getattr(tensor, "__tensor_flatten__")  # noqa: B009  (only tensors that are made of tensors have it)
        parts, rest = flatten()
        digest.update(f"{rest};".encode())
        for part in parts:
            _add(digest, f"{name}.{part}", getattr(tensor, part))
    elif tensor.is_quantized:
        _add(digest, f"{name}.int", tensor.int_repr())
        if tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_affine_float_qparams):
            scales: tuple[Any, Any] = (tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points())
        else:
            scales = (tensor.q_scale(), tensor.q_zero_point())
        _add(digest, f"{name}.scales", scales)
    else:
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


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


def versions_of(module: nn.Module) -> int | None:
    """A count that grows when a parameter is written in place, as training does; None where weights come and go anyway."""
    if is_dispatched(module):
        return None
    return sum(tensor._version for tensor in module.parameters() if not tensor.is_inference())


def adapter_facts(module: nn.Module) -> dict[str, Any] | None:
    """Which adapters a model has, which of them act, and a hash of their weights; None for a model without any.

    Read off the adapted layers themselves, so that switching, disabling and merging show however they were done.
    """
    layers = [(path, part) for path, part in module.named_modules() if hasattr(part, "active_adapters") and hasattr(part, "base_layer")]
    configs: Any = getattr(module, "peft_config", None)
    if not layers:
        return None if not configs else {"names": sorted(str(name) for name in configs), "layers": 0}
    states: Counter[tuple[tuple[str, ...], tuple[str, ...], bool]] = Counter()
    digest = hashlib.sha256()
    for path, part in layers:
        layer: Any = part
        active, merged = tuple(map(str, layer.active_adapters)), tuple(map(str, layer.merged_adapters))
        state = (active, merged, not layer.disable_adapters)
        states[state] += 1
        scaling = sorted((str(k), float(v)) for k, v in getattr(layer, "scaling", {}).items() if isinstance(v, (int, float)))
        digest.update(f"{path}:{state}:{scaling};".encode())
        for name, tensor in sorted(part.named_parameters()):
            if not name.startswith("base_layer."):
                _add(digest, f"{path}.{name}", value_of(module, f"{path}.{name}", tensor))
    (active, merged, enabled), _ = states.most_common(1)[0]
    kinds = sorted({str(getattr(config, "peft_type", "")).rpartition(".")[2] for config in (configs or {}).values()})
    return {
        "names": sorted({str(name) for name in configs or active}),
        "kinds": kinds,
        "active": list(active),
        "merged": list(merged),
        "enabled": enabled,
        "layers": len(layers),
        "alike": len(states) == 1,
        "sha256": digest.hexdigest(),
    }


def quantization_facts(module: nn.Module, config: Any) -> dict[str, Any] | None:
    """How the weights were quantized: the configuration, where there is one, and the kinds of layers that hold them."""
    kinds = Counter(
        f"{type(part).__module__}.{type(part).__qualname__}"
        for part in module.modules()
        if type(part).__module__.startswith(_QUANTIZED) and any(word in type(part).__name__.lower() for word in ("linear", "conv", "embed"))
    )
    stated = getattr(config, "quantization_config", None)
    if not kinds and stated is None:
        return None
    facts: dict[str, Any] = {"layers": dict(sorted(kinds.items()))}
    types = {str(name) for part in module.modules() if (name := getattr(part, "weight_qtype", None)) is not None}
    if types:
        facts["weights"] = sorted(types)
    if stated is not None:
        fields = stated.to_dict() if hasattr(stated, "to_dict") else stated if isinstance(stated, dict) else {}
        method = fields.get("quant_method", getattr(stated, "quant_method", stated))
        facts["method"] = str(getattr(method, "value", method))
        facts["config"] = {str(key): _plain(value) for key, value in sorted(fields.items()) if key != "quant_method"}
    return facts


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(getattr(value, "value", value))


def identity_of(module: nn.Module, config: Any, *, name: str, folder: str | None, weights: bool) -> dict[str, Any]:
    """Class, configuration hash, dtype, parameter count, adapters, quantization, and commit, file or weight hashes where known."""
    cls = type(module)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    facts: dict[str, Any] = {
        "name": name,
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "config_sha256": config_hash(config),
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": parameter_count(module),
    }
    commit = getattr(config, "_commit_hash", None)
    if commit:
        facts["commit"] = commit
    files = known_file_hashes(folder) if folder else {}
    if files:
        facts["files_sha256"] = files
    for key, found in (("adapters", adapter_facts(module)), ("quantization", quantization_facts(module, config))):
        if found is not None:
            facts[key] = found
    describe = getattr(module, "describe", None)
    if callable(describe) and hasattr(module, "named_outputs"):
        facts["embedding"] = describe()
    if weights:
        facts["weights_sha256"] = weights_hash(module)
    return facts
