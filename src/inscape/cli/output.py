"""How every command speaks: text whose last line is the next useful command, or one JSON object with the same content."""

from __future__ import annotations

import json
import math
import shlex
import sys
from typing import Annotated, Any

from cyclopts import Parameter

Json = Annotated[bool, Parameter(name="--json", negative=())]


class UsageError(Exception):
    """The command line asks for something that does not exist; the exit code is 2."""


def say(text: str, payload: dict[str, Any], *, following: str = "", as_json: bool = False) -> None:
    """Prints the text and then the next useful command, or everything as one JSON object."""
    if as_json:
        print(json.dumps(_finite({**payload, "next": following}), ensure_ascii=False, default=str))
        return
    print(text)
    if following:
        print(following)


def fail(message: str, *, kind: str, code: int, following: str, as_json: bool) -> None:
    """Prints an error on the error stream; with JSON also an object on the output."""
    print(f"inscape: {message}", file=sys.stderr)
    if following:
        print(following, file=sys.stderr)
    if as_json:
        print(json.dumps({"error": kind, "message": message, "exit_code": code, "next": following}, ensure_ascii=False))


def command_line(*words: Any, **options: Any) -> str:
    """The words as they are typed in a shell; options that are None or False are left out.

    Example:
        >>> command_line("inscape", "measure", "runs/my gpt", seed=1)
        "inscape measure 'runs/my gpt' --seed 1"
    """
    parts = [str(word) for word in words]
    if not parts or parts[0] != "inscape":
        parts.insert(0, "inscape")
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is None or value is False:
            continue
        parts += [flag] if value is True else [flag, str(value)]
    return shlex.join(parts)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
