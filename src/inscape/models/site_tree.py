"""The sites of a model as a tree: blocks that are alike on one line, what is not available with its reason."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from inscape.models.names import CANONICAL_BLOCK

# A tower, a stage, or a stage in a tower may stand in front; `*` is said of all blocks at once.
_BLOCK = re.compile(r"^((?:[a-z]\w*\.(?:(?:\d+|\*)\.)?)*?)blocks\.(\d+|\*)\.(.+)$")
_ALL = 10**9
_ENDS = {"embed": 0, "final_norm": 2}
WIDTH = 120
_NARROWEST_NOTE = 28

# One line of the drawing: pieces of text, each with what it is: guide, branch, name, shape, where, note or missing.
Line = list[tuple[str, str]]


@dataclass
class Node:
    """One line of the tree and what hangs below it."""

    label: str
    shape: str = ""
    where: str = ""
    note: str = ""
    available: bool = True
    children: list[Node] = field(default_factory=lambda: list[Node]())

    def alike(self) -> tuple[Any, ...]:
        """What two branches must share to be drawn as one, apart from their own labels and places."""
        return self.shape, self.note, self.available, tuple((child.label, child.where, child.alike()) for child in self.children)


def canonical_tree(rows: Iterable[Any], *, every: bool = False) -> list[Node]:
    """The canonical rows of a `SiteTable`: towers, the embedding, blocks, and what follows them.

    Args:
        rows: `SiteInfo` rows; those by module path are passed over.
        every: draws each block; by default neighbors that differ only in their numbers are one branch.
    """
    towers: dict[str, dict[str | int, list[tuple[str, Any]]]] = {}
    for row in rows:
        if not row.canonical:
            continue
        match = _BLOCK.match(row.name)
        tower = match[1] if match else row.name.rpartition(".")[0] + "." if "." in row.name else ""
        number = match[2] if match else ""
        branch: str | int = int(number) if number.isdigit() else _ALL if number else row.name.removeprefix(tower)
        towers.setdefault(tower, {}).setdefault(branch, []).append((match[3] if match else row.name, row))
    found: list[Node] = []
    after: list[Node] = []
    for tower, branches in towers.items():
        blocks = [
            _block(f"{tower}blocks.{'*' if key == _ALL else key}", members) for key, members in sorted(_numbered(branches), key=_first)
        ]
        ends = [(_ENDS.get(key, 3), _site(*members[0], "")) for key, members in branches.items() if isinstance(key, str)]
        before = [node for place, node in ends if place == 0]
        behind = [node for place, node in sorted(ends, key=_first) if place > 0]
        inside = [*before, *(blocks if every else _together(blocks))]
        if not tower:  # what follows all towers or stages is drawn after them, unless these are the blocks that it follows
            found += inside
            found, after = (found + behind, []) if blocks else (found, behind)
        else:
            inside += behind
            found += [Node(tower.removesuffix("."), children=inside)] if len(inside) > 1 else inside
    return found + after


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _numbered(branches: dict[str | int, Any]) -> list[tuple[int, Any]]:
    return [(key, members) for key, members in branches.items() if isinstance(key, int)]


def _shape(row: Any) -> str:
    return "" if row.shape is None else "×".join(map(str, row.shape))


def _site(label: str, row: Any, base: str) -> Node:
    """A leaf; its place is told from the block's on, where there is one."""
    where = row.path
    if base and row.available:
        path = row.path if ":" in row.path else f"{row.path}:out" if row.path == base else row.path
        where = path.removeprefix(base) if path.startswith((f"{base}.", f"{base}:")) else path
    return Node(label, _shape(row), where, row.note, row.available)


def _block(name: str, members: list[tuple[str, Any]]) -> Node:
    paths = [row.path.partition(":")[0].split(".") for _, row in members if row.available]
    common: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    base = ".".join(common)
    members = sorted(members, key=lambda member: CANONICAL_BLOCK.index(member[0]) if member[0] in CANONICAL_BLOCK else len(CANONICAL_BLOCK))
    return Node(name, where=base, children=_shared_reasons([_site(label, row, base) for label, row in members]))


def _shared_reasons(sites: list[Node]) -> list[Node]:
    """Sites that are missing for one reason on one line, where the first of them stands."""
    drawn: list[Node] = []
    for node in sites:
        same = [] if node.available else [other for other in sites if not other.available and other.note == node.note]
        if len(same) > 1 and same[0] is not node:
            continue
        if len(same) > 1:
            names = ", ".join(other.label for other in same)
            node = Node(f"{node.label} …", note=f"{names}: {node.note}", available=False)
        drawn.append(node)
    return drawn


def _together(nodes: list[Node]) -> list[Node]:
    """Neighbors that are alike as one branch, with the range of their numbers."""
    groups: list[list[Node]] = []
    for node in nodes:
        if groups and _numberless(groups[-1][0]) == _numberless(node) and groups[-1][0].alike() == node.alike():
            groups[-1].append(node)
        else:
            groups.append([node])
    return [
        Node(_range([n.label for n in group]), group[0].shape, _range([n.where for n in group]), group[0].note, True, group[0].children)
        if len(group) > 1
        else group[0]
        for group in groups
    ]


def _numberless(node: Node) -> tuple[str, str]:
    return re.sub(r"\d+$", "", node.label), re.sub(r"\d+", "", node.where)


def _range(names: list[str]) -> str:
    """`h.0`, `h.1`, `h.2` as `h.0 … 2`; where more than one number differs, as `*`."""
    first, last = names[0].split("."), names[-1].split(".")
    apart = [i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b]
    if not apart:
        return names[0]
    if apart == [len(first) - 1] and len(first) == len(last):
        return f"{names[0]} … {last[-1]}"
    return ".".join("*" if i in apart else part for i, part in enumerate(first))


def module_tree(rows: Iterable[Any], *, every: bool = False) -> list[Node]:
    """The rows by module path, as the modules lie inside one another; members of a list that are alike are one branch."""
    root = Node("")
    at: dict[str, Node] = {"": root}
    for row in rows:
        if row.canonical:
            continue
        parts = row.name.split(".")
        for i in range(1, len(parts) + 1):
            path = ".".join(parts[:i])
            if path not in at:
                at[path] = Node(parts[i - 1])
                at[".".join(parts[: i - 1])].children.append(at[path])
        node = at[row.name]
        node.shape, node.note = _shape(row), row.note.replace(row.name, parts[-1])
    _collapse(root, every)
    return root.children


def _collapse(node: Node, every: bool) -> None:
    for child in node.children:
        _collapse(child, every)
    if not every and all(re.fullmatch(r"\d+", child.label) and child.children for child in node.children):
        node.children = _together(node.children)  # parts without parts of their own may be of different classes
    for child in node.children:
        while len(child.children) == 1 and not child.shape and not child.note:  # a container of one thing
            only = child.children[0]
            child.label, child.shape, child.note, child.children = f"{child.label}.{only.label}", only.shape, only.note, only.children


def draw(nodes: Sequence[Node], *, width: int = WIDTH) -> list[Line]:
    """The lines of a drawing that is at most `width` columns wide; notes that need more go on below themselves."""
    flat: list[tuple[str, str, Node]] = []  # guide of the line, guide of what continues it, node

    def walk(level: Sequence[Node], guide: str, top: bool) -> None:
        for i, node in enumerate(level):
            last = i == len(level) - 1
            own, below = (guide, guide) if top else (guide + ("└── " if last else "├── "), guide + ("    " if last else "│   "))
            flat.append((own, below + ("│   " if node.children else ""), node))
            walk(node.children, below, False)

    walk(nodes, "", True)
    if not flat:
        return []
    name = max(len(own) + len(node.label) for own, _, node in flat) + 2
    shape = max(len(node.shape) for _, _, node in flat)
    shape += 2 if shape else 0
    where = max(len(node.where) for _, _, node in flat)
    where += 2 if where else 0
    if width - name - shape - where < _NARROWEST_NOTE:
        where = 0  # too narrow for both; the note is what a reader cannot do without
    room = max(_NARROWEST_NOTE, width - name - shape - where)
    return [line for own, below, node in flat for line in _lines(own, below, node, (name, shape, where, room))]


def _lines(own: str, below: str, node: Node, widths: tuple[int, int, int, int]) -> list[Line]:
    name, shape, where, room = widths
    style = "branch" if node.children else "name" if node.available else "missing"
    line: Line = [(own, "guide"), (node.label.ljust(name - len(own)), style), (node.shape.ljust(shape), "shape")]
    if node.available:
        line.append((node.where.ljust(where) if where else "", "where"))
        notes, indent = textwrap.wrap(node.note, room), name + shape + where
    else:  # the reason may take the columns of a shape and a place that do not exist
        line.pop()
        notes, indent = textwrap.wrap(f"not available: {node.note}", room + shape + where), name
    note = "note" if node.available else "missing"
    lines = [[*line, (notes[0] if notes else "", note)]]
    lines += [[(below.ljust(indent), "guide"), (text, note)] for text in notes[1:]]
    return [_trimmed(line) for line in lines]


def _trimmed(line: Line) -> Line:
    """Without blanks at the end."""
    kept = list(line)
    while kept and not kept[-1][0].strip():
        kept.pop()
    return [*kept[:-1], (kept[-1][0].rstrip(), kept[-1][1])] if kept else []


def plain(lines: Iterable[Line]) -> str:
    """The drawing as text."""
    return "\n".join("".join(text for text, _ in line) for line in lines)
