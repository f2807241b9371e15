"""The stacks of blocks in a model: lists of equal blocks, and the lists of networks that work in stages."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from inscape.models.dryrun import Call, Record, block_lists
from inscape.models.layouts import layout_of
from inscape.models.values import same

_NUMBERED = re.compile(r"^(\D*)(\d+)$")


@dataclass(frozen=True)
class Stack:
    """Blocks that follow each other.

    Attributes:
        lists: paths of the lists that hold them: one, or one per stage.
        staged: the lists are stages, between which the stream changes its width.
        maps: the stream is a map of channels over places, not a sequence of tokens.
        ran: the dry run came through.
    """

    lists: tuple[str, ...]
    staged: bool = False
    maps: bool = False
    ran: bool = True

    @property
    def base(self) -> str:
        """The path that all its lists share."""
        if len(self.lists) == 1:
            return self.lists[0]
        return os.path.commonpath([path.replace(".", "/") for path in self.lists]).replace("/", ".")


def find_stacks(root: nn.Module, log: Record | None) -> tuple[list[Stack], str]:
    """The stacks of a model, the likeliest main one first, and why there are none if so.

    A stack of tokens keeps one shape `[b, t, d]` throughout each of its lists; a stack of maps adds to maps `[b, c, h, w]`. Lists
    inside the blocks of another stack are part of those blocks.
    """
    ranked = [path for path in block_lists(root) if path]
    outside: list[str] = []
    for path in sorted(ranked, key=lambda path: path.count(".")):
        if _free(path, outside) and _keeps_shape(root, path, log):
            outside.append(path)
    tokens = _grouped([path for path in ranked if path in outside])
    inside: list[str] = []
    for path in sorted(ranked, key=lambda path: -path.count(".")):  # the inmost sum is the block; a stage of blocks sums inside them
        holds = any(other.startswith(path + ".") for other in (*outside, *inside))
        if not holds and _free(path, outside) and _adds_maps(root, path, log):
            inside.append(path)
    maps = _grouped([path for path in ranked if path in inside])
    stacks = [Stack(lists, len(lists) > 1, ran=log is None or log.first(f"{lists[0]}.0") is not None) for lists in tokens]
    stacks += [Stack(lists, _numbers(lists[0]), maps=True) for lists in maps]
    unseen = [path for path in ranked if log is None and _numbers(path) and _free(path, outside) and attends(root, path)]
    if len(maps) > 1 or sum(stack.staged for stack in stacks) > 1 or unseen:
        places = ", ".join([*(stack.lists[0] for stack in stacks), *unseen][:4])
        return [], f"blocks stand in several places ({places}, …), none of which is the main stack"
    if stacks:
        return stacks, ""
    return [], "no list of equal blocks was found that add to one stream of tokens [b, t, d] or of maps [b, c, h, w]"


def _free(path: str, taken: Sequence[str]) -> bool:
    return not any(path.startswith(other + ".") for other in taken)


def attends(root: nn.Module, blocks: str) -> bool:
    """Whether the blocks of a list hold attention, by the names of their parts."""
    parts = root.get_submodule(f"{blocks}.0").named_modules()
    return any("att" in name.lower() or isinstance(part, nn.MultiheadAttention) for name, part in parts)


def _keeps_shape(root: nn.Module, path: str, log: Record | None) -> bool:
    """Whether every block of a list takes and gives `[b, t, d]` of one shape; unseen lists count where they hold attention."""
    first = log.first(f"{path}.0") if log is not None else None
    if log is None or first is None:
        runs = not isinstance(root.get_submodule(f"{path}.0"), (nn.ModuleList, nn.ModuleDict)) and not (log is None and _numbers(path))
        return runs and attends(root, path)
    shape = first.taken_raw
    other = log.resized.get(f"{path}.0")
    if shape is None or len(shape) != 3 or layout_of(root, f"{path}.0", shape, None if other is None else other[0]).channels_first:
        return False
    seen = [call for child, _ in root.get_submodule(path).named_children() if (call := log.first(f"{path}.{child}")) is not None]
    return all(call.taken_raw == shape and call.given_raw == shape for call in seen)


def _adds_maps(root: nn.Module, path: str, log: Record | None) -> bool:
    """Whether the first block of a list gives a map that is the sum of two, of which one may be its input."""
    first = log.first(f"{path}.0") if log is not None else None
    if log is None or first is None or first.given is None or first.given.ndim != 4:
        return False
    inside = [call for call in log.calls if call.path.startswith(f"{path}.0.") and first.began < call.began < first.ended]
    return activation_after_sum(first, inside) is not None


def activation_after_sum(block: Call, inside: Sequence[Call]) -> bool | None:
    """Whether a block's output is a sum that went through a ReLU (true) or the sum itself (false); `None` when it is no sum."""
    y = block.given
    if y is None:
        return None
    terms = [x for x in (block.taken, *(call.given for call in inside)) if isinstance(x, Tensor) and x.shape == y.shape]
    for i, a in enumerate(terms):
        for b in terms[i + 1 :]:
            if same(a + b, y):
                return False
            if same((a + b).relu(), y):
                return True
    return None


def _numbers(path: str) -> bool:
    return any(_NUMBERED.match(part) for part in path.split("."))


def _stage(path: str) -> tuple[tuple[str, ...], int]:
    """A path without its first number, and that number: `encoder.stages.2.layers` → `("encoder", "stages", "", "layers")`, 2."""
    parts = path.split(".")
    for i, part in enumerate(parts):
        match = _NUMBERED.match(part)
        if match:
            return (*parts[:i], match.group(1), *parts[i + 1 :]), int(match.group(2))
    return tuple(parts), 0


def _grouped(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """Lists whose paths differ only in one number, in its order."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for path in paths:
        groups.setdefault(_stage(path)[0], []).append(path)
    return [tuple(sorted(group, key=lambda path: _stage(path)[1])) for group in groups.values()]
