"""The processes that train one model together: their sums are added, and the first of them writes."""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """The processes of `torch.distributed`, or this one alone.

    All of them must ask for the same things in the same order.
    """

    def __init__(self) -> None:
        self.rank, self.count = 0, 1
        self._device = torch.device("cpu")
        self.join()

    def join(self) -> bool:
        """Looks for the other processes, unless they are known; True where they have just been found.

        Trainers start `torch.distributed` when training begins, after this was made.
        """
        if self.count > 1 or not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return False
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        if dist.get_backend() == "nccl":
            self._device = torch.device("cuda", torch.cuda.current_device())
        return True

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def add(self, *tensors: Tensor) -> list[Tensor]:
        """The sums over all processes, in fp64, in one exchange."""
        if self.count == 1:
            return list(tensors)
        flat = torch.cat([tensor.double().flatten() for tensor in tensors]).to(self._device)
        dist.all_reduce(flat)
        parts = flat.cpu().split([tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def from_first(self, value: Any) -> Any:
        """What the first process holds: numbers, text, lists and dictionaries; the others' own is not looked at."""
        if self.count == 1:
            return value
        text = json.dumps(value).encode() if self.first else b""
        length = torch.tensor([len(text)], device=self._device)
        dist.broadcast(length, src=0)
        content = torch.zeros(int(length), dtype=torch.uint8, device=self._device)
        if self.first:
            content.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(content, src=0)
        return json.loads(bytes(content.cpu().tolist()).decode())
