"""What a training run that can collapse consists of, and how its kinds are found by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from inscape.errors import nearest


@dataclass(frozen=True)
class TrainingRun:
    """A small training run, ready to be stepped, with what to watch in it.

    Attributes:
        model: the network in training.
        update: makes one update and returns the loss before it.
        steps: updates of the whole run.
        stimuli: held-out inputs of `model`.
        sites: where the collapse shows.
        measures: what shows it.
        metric: what the network is trained for, as a number that is better when higher.
        metric_name: its name.
        weights: the layers that measures read beside the rows, by site.
        pooled: whether the mean over the sites is to be followed.
    """

    model: nn.Module
    update: Callable[[], Tensor]
    steps: int
    stimuli: Any
    sites: tuple[str, ...]
    measures: tuple[str, ...]
    metric: Callable[[], float]
    metric_name: str
    weights: Mapping[str, nn.Module] | None = None
    pooled: bool = False


Maker = Callable[[bool, int], TrainingRun]
_RUNS: dict[str, Maker] = {}


def collapsing(name: str) -> Callable[[Maker], Maker]:
    """Registers a function of (healthy, seed) that makes a run; the decorator of each file beside this one."""

    def register(maker: Maker) -> Maker:
        _RUNS[name] = maker
        return maker

    return register


def collapse_names() -> list[str]:
    """The collapses that `collapse_run` knows."""
    from importlib import import_module
    from pkgutil import iter_modules

    package = import_module("inscape.zoo.collapses")
    for module in iter_modules(package.__path__):
        import_module(f"inscape.zoo.collapses.{module.name}")
    return sorted(_RUNS)


def collapse_run(name: str, *, healthy: bool = False, seed: int = 0) -> TrainingRun:
    """A training run that collapses, or its healthy twin, which differs in the cause alone.

    Args:
        name: one of `collapse_names()`.
        healthy: the twin that does not collapse.
        seed: of the start weights and of everything random on the way; the caller's random state is left as it was.

    Raises:
        ValueError: no run has that name.

    Example:
        >>> run = collapse_run("simsiam")
        >>> losses = [float(run.update()) for _ in range(run.steps)]    # doctest: +SKIP
    """
    if name not in collapse_names():
        raise ValueError(f"no collapse is called {name!r}; nearest: {nearest(name, _RUNS)}")
    return _RUNS[name](healthy, seed)
