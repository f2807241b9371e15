"""Prints the public surface of inscape, one line a name: `python tests/arch/api.py > tests/arch/api.txt` (or `make api`).

The snapshot beside it makes every change of a public name or signature a line in a diff, seen by whoever reviews it.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cached_property

import inscape


def rooms() -> list[str]:
    """The packages and modules directly under inscape that say what is public, and the one room inside a room that has its own page."""
    names = sorted(info.name for info in pkgutil.iter_modules(inscape.__path__) if not info.name.startswith("_"))
    return [name for name in [*names, "training.objectives"] if hasattr(importlib.import_module(f"inscape.{name}"), "__all__")]


def errors() -> dict[str, type]:
    """The errors and the warning: all classes of their module are public."""
    module = importlib.import_module("inscape.errors")
    return {
        f"inscape.errors.{name}": value
        for name, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and inspect.isclass(value)
    }


def public() -> dict[str, object]:
    """Every public name, written as a user reaches it: `inscape.capture`, `inscape.edits.add`.

    A name at the top level is listed there alone, though its room exports it too.
    """
    found: dict[str, object] = dict(errors())
    for name in inscape.__all__:
        value = getattr(inscape, name)
        if not inspect.ismodule(value) and name != "__version__":
            found[f"inscape.{name}"] = value
    top = {id(value) for value in found.values()}
    for room in rooms():
        module = importlib.import_module(f"inscape.{room}")
        for name in module.__all__:
            value = getattr(module, name)
            if not inspect.ismodule(value) and id(value) not in top:
                found[f"inscape.{room}.{name}"] = value
    return dict(sorted(found.items()))


def _hint(hint: object) -> str:
    """An annotation as it is written in the source; a quoted one loses its quotes."""
    if not isinstance(hint, str):
        return hint.__name__ if inspect.isclass(hint) else str(hint)
    return hint[1:-1] if hint[:1] == hint[-1:] and hint[:1] in "'\"" else hint


def _default(value: object) -> str:
    """A default value; addresses are dropped, since they change from run to run."""
    return value.__name__ if inspect.isclass(value) else re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def signature(value: object) -> str:
    """The signature as text, with annotations as in the source."""
    try:
        found = inspect.signature(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(...)"
    parts: list[str] = []
    starred = False
    for name, parameter in found.parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts.append("*")
        starred = starred or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        text = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "") + name
        annotated = parameter.annotation is not parameter.empty
        text += f": {_hint(parameter.annotation)}" if annotated else ""
        if parameter.default is not parameter.empty:
            text += (" = " if annotated else "=") + _default(parameter.default)
        parts.append(text)
    returns = "" if found.return_annotation is found.empty else f" -> {_hint(found.return_annotation)}"
    return f"({', '.join(parts)}){returns}"


def members(cls: type) -> Iterator[tuple[str, str]]:
    """Public methods and properties that the class or an inscape base of it defines."""
    seen: set[str] = set()
    for base in cls.__mro__:
        if not base.__module__.startswith("inscape"):
            continue
        for name, value in vars(base).items():
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            if isinstance(value, (property, cached_property)):
                yield name, ""
            elif isinstance(value, (staticmethod, classmethod)):
                yield name, signature(value.__func__)
            elif inspect.isfunction(value):
                yield name, signature(value)


def lines() -> list[str]:
    """The snapshot."""
    out: list[str] = []
    for path, value in public().items():
        if inspect.isclass(value) and issubclass(value, Exception):
            out.append(f"error {path}({', '.join(base.__name__ for base in value.__bases__)})")
        elif inspect.isclass(value):
            out.append(f"class {path}{signature(value)}")
            out += [f"    {path}.{name}{text}" for name, text in sorted(members(value))]
        elif callable(value):
            out.append(f"{path}{signature(value)}")
        else:
            out.append(f"{path}: {type(value).__name__}")
    return out


if __name__ == "__main__":
    print("\n".join(lines()))
