"""Rows leave the device in one copy a batch, while the model goes on with the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class HostCopies:
    """Moves tensors to the host. From a CUDA device the copies run beside the model and are there after `wait`."""

    def __init__(self) -> None:
        self._streams: dict[torch.device, Any] = {}
        self._under_way: list[Any] = []

    def move(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors on the host, in order; those that are there already are handed back as they are."""
        moved = list(tensors)
        if all(tensor.device.type == "cpu" for tensor in moved):
            return moved
        for members in alike(moved):
            together = [tensors[i] for i in members]
            if together[0].device.type == "cpu":
                continue
            block = torch.stack(together) if len(together) > 1 else together[0][None]
            for i, tensor in zip(members, self._copy(block).unbind(), strict=True):
                moved[i] = tensor
        return moved

    def _copy(self, block: Tensor) -> Tensor:
        device = block.device
        if device.type != "cuda":
            return block.to("cpu")
        beside = self._streams.get(device)
        if beside is None:
            beside = self._streams[device] = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            host = torch.empty(block.shape, dtype=block.dtype, pin_memory=True)
            host.copy_(block, non_blocking=True)
            self._under_way.append(beside.record_event())
        block.record_stream(beside)  # its memory is used again only when the copy is done
        return host

    def wait(self) -> None:
        """Returns when every copy has arrived."""
        for event in self._under_way:
            event.synchronize()
        self._under_way.clear()


def alike(tensors: Sequence[Tensor]) -> list[list[int]]:
    """The numbers of tensors that can be stacked: one device, dtype and shape."""
    groups: dict[tuple[torch.device, torch.dtype, torch.Size], list[int]] = {}
    for i, tensor in enumerate(tensors):
        groups.setdefault((tensor.device, tensor.dtype, tensor.shape), []).append(i)
    return list(groups.values())
