"""What looking at a model in the middle of its training must leave as it was."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from inscape.capturing.untouched import untouched


@contextmanager
def unchanged(module: nn.Module) -> Generator[None]:
    """Runs the block so that training goes on bit for bit as if it had not run.

    Random numbers, buffers and tensors that the module caches come back. Autocast is off inside: weights that it casts without gradients
    would stay in its cache, and the next training pass would take them from there and train nothing. Modes and gradients are the business
    of `Model.run`.
    """
    buffers = [
        (part, name, value, value.clone()) for part in module.modules() for name, value in part._buffers.items() if value is not None
    ]
    with ExitStack() as stack:
        stack.enter_context(untouched(module))
        for device in {"cpu", *(parameter.device.type for parameter in module.parameters())}:
            if torch.amp.is_autocast_available(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        try:
            yield
        finally:
            for part, name, value, before in buffers:
                if not _same(value, before):
                    with torch.no_grad():
                        value.copy_(before)
                part._buffers[name] = value


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
