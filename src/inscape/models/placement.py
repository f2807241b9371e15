"""Where the weights of a model are: on one device, on several, or off the devices until a layer runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from inscape.errors import ModelError

META = torch.device("meta")


def _hooks(module: nn.Module) -> list[Any]:
    """The hooks by which accelerate moves a module's weights and inputs; several may be chained."""
    hook = getattr(module, "_hf_hook", None)
    return [] if hook is None else list(getattr(hook, "hooks", [hook]))


def is_dispatched(module: nn.Module) -> bool:
    """Whether accelerate moves weights or inputs of any part while the model runs."""
    return any(_hooks(part) for part in module.modules())


def _runs_on(module: nn.Module) -> torch.device | None:
    for hook in _hooks(module):
        device = getattr(hook, "execution_device", None)
        if device is not None:
            return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return None


def input_device(module: nn.Module) -> torch.device:
    """Where inputs go: the device on which the first part with weights runs, which for offloaded weights is not where they lie."""
    for path, part in module.named_modules():
        first = next(part.parameters(recurse=False), None)
        if first is None:
            continue
        if first.device != META:
            return first.device
        # The hook that fetches the weights may be that of a module around this one.
        for outer in _outward(path):
            device = _runs_on(module.get_submodule(outer))
            if device is not None and device != META:
                return device
        return META
    return torch.device("cpu")


def devices_of(module: nn.Module) -> list[str]:
    """The kinds of device that take part ("cpu", "cuda", …), in alphabetical order."""
    found = {tensor.device.type for tensor in module.parameters()} | {
        device.type for part in module.modules() if (device := _runs_on(part)) is not None
    }
    return sorted(found - {"meta"}) or ["cpu"]


def _outward(path: str) -> Iterator[str]:
    """A module's path and those of all modules around it, the nearest first, the model itself ("") last."""
    yield path
    while path:
        path = path.rpartition(".")[0]
        yield path


def parameter_count(module: nn.Module) -> int:
    """How many numbers the parameters hold, those that two parts share once: offloading makes two of them."""
    shared: set[str] = set()
    for path, part in module.named_modules():
        tied = getattr(part, "all_tied_weights_keys", None) or {}
        shared |= {f"{path}.{name}" if path else name for name in tied}
    return sum(p.numel() for name, p in module.named_parameters() if p.device != META or name not in shared)


def put_back(module: nn.Module) -> None:
    """Takes offloaded weights off the device again where a pass that was cut short has left them there."""
    for part in module.modules():
        for hook in _hooks(part):
            if getattr(hook, "offload", False) and hasattr(hook, "tied_pointers_to_remove"):
                deep = bool(getattr(hook, "place_submodules", False))
                if any(tensor.device != META for tensor in part.parameters(recurse=deep)):
                    hook.post_forward(part, None)


def check_weights(module: nn.Module) -> None:
    """Refuses a model whose weights are nowhere.

    Raises:
        ModelError: a parameter is on the meta device and nothing fetches it.
    """
    for name, tensor in module.named_parameters():
        if tensor.device == META and _source(module, name) is None:
            raise ModelError(
                f"parameter {name!r} {list(tensor.shape)} of {type(module).__name__} is on the meta device, so it has no values: "
                "load the weights first (from_pretrained, or load_state_dict(..., assign=True))"
            )


def _source(root: nn.Module, name: str) -> tuple[Any, str] | None:
    """The mapping that holds an offloaded tensor, and its key there."""
    path, _, own = name.rpartition(".")
    for outer in _outward(path):
        inside = name[len(outer) + 1 :] if outer else name
        for hook in _hooks(root.get_submodule(outer)):
            held = getattr(hook, "weights_map", None)
            if getattr(hook, "offload", False) and held is not None and (outer == path or getattr(hook, "place_submodules", False)):
                return held, inside if outer != path else own
    return None


def value_of(root: nn.Module, name: str, tensor: Tensor) -> Tensor:
    """A tensor of `root`'s state dict with its values, fetched where they are offloaded.

    Raises:
        ModelError: it has no values anywhere.
    """
    if tensor.device != META:
        return tensor
    source = _source(root, name)
    if source is None:
        raise ModelError(f"{name!r} {list(tensor.shape)} is on the meta device and nothing says where its values are")
    return source[0][source[1]]


def tensors_of(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """All entries of the state dict in the order of their names, offloaded ones fetched one at a time.

    Raises:
        ModelError: one has no values anywhere.
    """
    for name, value in sorted(module.state_dict().items(), key=lambda entry: entry[0]):
        yield name, value_of(module, name, value) if isinstance(value, Tensor) else value
