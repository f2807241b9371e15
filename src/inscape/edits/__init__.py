"""Edits: change what a network computes at a site, and put everything back.

Kinds are found by name, so that a new one is one new file in `kinds/`: `ix.edits.add(vector)`, `ix.edits.ablate(heads=[1])`, ….
"""

from __future__ import annotations

from inscape.edits.apply import Edited, edit
from inscape.edits.base import Edit, EditKind, edit_kind, from_description, registered

__all__ = ["Edit", "EditKind", "Edited", "edit", "edit_kind", "from_description", "registered"]


def __getattr__(name: str) -> type[Edit]:
    kinds = {} if name.startswith("_") else registered()
    if name in kinds:
        return kinds[name].make
    raise AttributeError(f"module 'inscape.edits' has no attribute {name!r}; the kinds of edits are {', '.join(kinds)}")


def __dir__() -> list[str]:
    return sorted([*__all__, *registered()])
