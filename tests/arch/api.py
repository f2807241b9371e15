"""Prints the public surface of inscape, one line a name: `python tests/arch/api.py > tests/arch/api.txt` (or `make api`).

The snapshot beside it makes every change of a public name or signature a line in a diff, seen by whoever reviews it.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator

import inscape


def rooms() -> list[str]:
    """The packages and modules directly under inscape that say what is public."""
    names = sorted(info.name for info in pkgutil.iter_modules(inscape.__path__) if not info.name.startswith("_"))
    return [name for name in names if hasattr(importlib.import_module(f"inscape.{name}"), "__all__")]


def public() -> dict[str, object]:
    """Every public name, written as a user reaches it: `inscape.capture`, `inscape.edits.add`.

    A name at the top level is listed there alone, though its room exports it too.
    """
    found: dict[str, object] = {}
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


def signature(value: object) -> str:
    """The signature as text; addresses of default values are dropped, since they change from run to run."""
    try:
        text = str(inspect.signature(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(...)"
    return re.sub(r" at 0x[0-9a-f]+", "", text).replace("'", "")


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
            if isinstance(value, property):
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
