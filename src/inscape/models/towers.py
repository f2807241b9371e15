"""Models of several stacks: which is which."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from inscape.models.calling import is_dual
from inscape.models.sites import Kind
from inscape.models.stacks import Stack
from inscape.models.structure import Structure

Role = Literal["vision", "audio", "language", "text", "decoder", "encoder", ""]

# Words in the path of a stack that tell what it is; the first row that fits decides.
_WORDS: tuple[tuple[Role, tuple[str, ...]], ...] = (
    ("vision", ("vision", "visual", "image", "vit")),
    ("audio", ("audio", "speech", "sound")),
    ("language", ("language", "llm")),
    ("text", ("text",)),
    ("decoder", ("decoder",)),
    ("encoder", ("encoder",)),
)
_KINDS: dict[str, Kind] = {"vision": "patches", "audio": "frames", "language": "tokens", "text": "tokens", "decoder": "tokens"}


@dataclass
class Tower:
    """One stack of a model.

    Attributes:
        name: "encoder", "vision", …; "" for the main stack of a model whose other stacks only serve it, and for an only stack.
        prefix: what its canonical names begin with: "" for the main stack, else the name and a dot.
        path: of the topmost module that holds this stack and no other; "" for an only stack.
        kind: what its rows are.
        stack: its blocks.
        length: positions of its stream in the dry run, where it was seen.
    """

    name: str
    prefix: str
    path: str
    kind: Kind
    stack: Stack
    length: int | None = None


@dataclass
class Towers:
    """All stacks of a model and the names that they give.

    Attributes:
        towers: the stacks.
        structure: canonical sites of all of them.
        why: why there are no canonical names, if so.
    """

    towers: list[Tower] = field(default_factory=lambda: list[Tower]())
    structure: Structure = field(default_factory=Structure)
    why: str = ""

    @property
    def prefixes(self) -> list[str]:
        """What the names of the stacks begin with."""
        return [tower.prefix for tower in self.towers]

    def at(self, path: str, shape: tuple[int, ...] | None = None, read: str = "") -> Tower | None:
        """The tower whose positions the rows of a module are.

        Args:
            path: of the module.
            shape: of its tensor in the dry run: a decoder also holds projections of what the encoder gave.
            read: what the pass read in which it ran ("text", "image", "audio"), which decides for modules outside all towers.
        """
        found = next((t for t in self.towers if t.path == "" or path == t.path or path.startswith(t.path + ".")), None)
        if found is None and read:
            name = {"image": "vision"}.get(read, read)
            found = next((t for t in self.towers if t.name == name), None)
        if shape is not None and len(shape) == 3 and (found is None or found.length not in (None, shape[1])):
            fitting = [t for t in self.towers if t.length == shape[1]]
            found = fitting[0] if len(fitting) == 1 else found
        return found


def named_towers(root: nn.Module, stacks: Sequence[Stack], config: Any, kind: Kind) -> list[Tower]:
    """A tower for every stack: its role from the words in its path, the main one without a prefix."""
    if len(stacks) == 1 and not is_dual(root):
        return [Tower("", "", "", kind, stacks[0])]
    paths = [_top(stack, stacks) for stack in stacks]
    roles: list[Role] = [_role(path) for path in paths]
    encodes = bool(getattr(config, "is_encoder_decoder", False))
    main = None if is_dual(root) else _main(roles, encodes)
    found: list[Tower] = []
    used: set[str] = set()
    for i, (stack, path, role) in enumerate(zip(stacks, paths, roles, strict=True)):
        name = role or path.rsplit(".", 1)[-1]
        if i == main:
            name = name if encodes or role == "encoder" else ""
        elif name in used or (name == "language" and main is not None):
            name = f"{name}.{path.rsplit('.', 1)[-1]}"
        used.add(name)
        prefix = "" if i == main else f"{name}."
        found.append(Tower(name, prefix, path, _KINDS.get(role, kind), stack))
    return sorted(found, key=lambda tower: tower.prefix != "")


def _top(stack: Stack, stacks: Sequence[Stack]) -> str:
    """The topmost module that holds one stack and no other."""
    parts = stack.base.split(".")
    others = [other.base for other in stacks if other is not stack]
    for i in range(1, len(parts)):
        path = ".".join(parts[:i])
        if not any(other == path or other.startswith(path + ".") for other in others):
            return path
    return stack.base


def _role(path: str) -> Role:
    for part in reversed(path.lower().split(".")):
        spoken = set(re.split(r"[_\d]+", part))
        for role, words in _WORDS:
            if spoken.intersection(words):
                return role
    return ""


def _main(roles: Sequence[Role], encodes: bool) -> int:
    """Which stack carries the unprefixed names: an encoder before its decoder, else the language model."""
    first: tuple[Role, ...] = ("encoder", "text", "vision", "audio") if encodes else ("language", "text", "", "encoder", "decoder")
    for role in first:
        if role in roles:
            return roles.index(role)
    return 0
