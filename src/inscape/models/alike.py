"""Which blocks of a list are built alike, so that what is learned from one holds for the others."""

from __future__ import annotations

from torch import nn

# What numbers a block, or does not change what it runs.
_NUMBERS = ("idx", "index", "number", "layer_id", "training")


def _signature(block: nn.Module) -> tuple[object, ...]:
    """Parts, their classes, the shapes of their parameters, and the switches that a block may differ in (attention type, norm first, …)."""
    parts: list[object] = []
    for path, part in block.named_modules():
        shapes = tuple((name, tuple(parameter.shape)) for name, parameter in part.named_parameters(recurse=False))
        switches = tuple(
            (name, value)
            for name, value in sorted(vars(part).items())
            if isinstance(value, (bool, str, int, float)) and not name.startswith("_") and not any(word in name for word in _NUMBERS)
        )
        parts.append((path, type(part), shapes, switches))
    return tuple(parts)


def representatives(root: nn.Module, blocks: str) -> list[int]:
    """For each member of a list, the first member that is built like it."""
    first: dict[tuple[object, ...], int] = {}
    return [first.setdefault(_signature(block), i) for i, block in enumerate(root.get_submodule(blocks).children())]
