"""What a benchmark case is: subjects that are timed in turn, and figures that are read off each round."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Time:
    """One run of one subject. CPU seconds count every thread of the process."""

    cpu: float
    wall: float


Round = Mapping[str, Time]


@dataclass(frozen=True)
class Subject:
    """Something to be timed; `reset` runs before it, outside the clock."""

    run: Callable[[], object]
    reset: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Figure:
    """A number with a limit, computed from the times of one round, so that a slow minute hits both sides of a ratio alike.

    `peer` names the other library in it; such a figure exists only where that library ran.
    """

    text: str
    of: Callable[[Round], float]
    limit: float | None
    better: Literal["lower", "higher"] = "lower"
    unit: str = "×"
    peer: str | None = None


@dataclass
class Setup:
    """A case made ready to run: data loaded, models built.

    `single` holds what a process can tell only once, such as its peak memory: name → (text, value, limit, unit). `own` adds what needs no
    peer and takes long; it does not run again in a peer's environment.
    """

    subjects: dict[str, Subject]
    figures: dict[str, Figure]
    single: dict[str, tuple[str, float, float, str]] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)
    own: Callable[[Setup], None] | None = None
    material: dict[str, Any] = field(default_factory=dict)  # what a peer needs to build its subject; not recorded


Case = Callable[[bool], AbstractContextManager[Setup]]
# name of a peer → what turns a ready setup into one with the peer's subjects and figures; runs in the peer's environment.
Peers = dict[str, Callable[[Setup], None]]

CASES: dict[str, tuple[Case, Peers]] = {}


def case(name: str, peers: Peers | None = None) -> Callable[[Callable[[bool], Generator[Setup]]], Case]:
    """Registers a generator function `(tiny) -> Setup` as a case; what follows its yield cleans up."""

    def register(function: Callable[[bool], Generator[Setup]]) -> Case:
        made = contextmanager(function)
        CASES[name] = (made, peers or {})
        return made

    return register


def ratio(over: str, under: str, clock: Literal["cpu", "wall"] = "cpu") -> Callable[[Round], float]:
    """The time of one subject over that of another."""
    return lambda times: getattr(times[over], clock) / getattr(times[under], clock)
