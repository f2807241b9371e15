"""Hooks that read sites while a model runs, and the early stop after the last of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from inscape.models.sites import Site

Reader = Callable[[str, Tensor], None]


class StopForward(BaseException):
    """Ends a forward pass once nothing further is needed.

    It derives from `BaseException` so that a model's own `except Exception` cannot swallow it.
    """


class Pass:
    """What the hooks of one model share about the forward pass that is running.

    Attributes:
        inside: a pass started by `Model.run` is under way, so `StopForward` will be caught.
        stop: that pass may end once every reading has fired.
        serial: number of the pass.
    """

    def __init__(self) -> None:
        self.inside = False
        self.stop = False
        self.serial = 0
        self.readings: list[_Reading] = []

    def begin(self) -> None:
        """Starts counting afresh."""
        self.serial += 1
        for reading in self.readings:
            reading.left = reading.total

    def stop_if_done(self) -> None:
        """Raises `StopForward` when every open reading has what it needs and wants no more."""
        if self.inside and all(reading.left <= 0 and (self.stop or reading.stop) for reading in self.readings):
            raise StopForward


class _Reading:
    """One open `hooked` context: how many of its sites have yet to fire in this pass."""

    def __init__(self, total: int, stop: bool) -> None:
        self.total = total
        self.left = total
        self.stop = stop


class _Tap:
    """A hook on one port of one module, serving all sites that are read there."""

    def __init__(self, sites: Sequence[Site], reader: Reader, running: Pass, reading: _Reading) -> None:
        self.sites = [(site.name, site.read, site.call) for site in sites]
        self.reader = reader
        self.running = running
        self.reading = reading
        self.seen = [-1] * len(sites)
        self.serial = -1
        self.call = -1

    def __call__(self, value: Any) -> None:
        running = self.running
        if self.serial != running.serial:
            self.serial, self.call = running.serial, -1
        self.call += 1
        for i, (name, read, call) in enumerate(self.sites):
            if call is not None and call != self.call:
                continue
            self.reader(name, read(value))
            if self.seen[i] != running.serial:
                self.seen[i] = running.serial
                self.reading.left -= 1
        if self.reading.left <= 0:
            running.stop_if_done()


def _on_output(tap: _Tap) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        tap(output)

    return hook


def _on_input(tap: _Tap) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        tap((args, kwargs))

    return hook


@contextmanager
def counting(module: nn.Module, running: Pass) -> Iterator[None]:
    """Starts a new pass whenever `module` is called from outside `Model.run`, so that call indices start at 0 again."""

    def begin(module: nn.Module, args: Any) -> None:
        if not running.inside:
            running.begin()

    handle = module.register_forward_pre_hook(begin, prepend=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def reading(root: nn.Module, sites: Sequence[Site], reader: Reader, running: Pass, stop: bool) -> Iterator[None]:
    """Keeps one hook per module and port open while the body runs; all are removed at the end, also after an error."""
    groups: dict[tuple[str, str], list[Site]] = {}
    for site in sites:
        groups.setdefault((site.path, site.port), []).append(site)
    opened = _Reading(len(sites), stop)
    with ExitStack() as stack:
        stack.enter_context(counting(root, running))
        running.readings.append(opened)
        stack.callback(running.readings.remove, opened)
        for (path, port), group in groups.items():
            tap = _Tap(group, reader, running, opened)
            module = root.get_submodule(path)
            if port == "out":
                handle = module.register_forward_hook(_on_output(tap))
            else:
                handle = module.register_forward_pre_hook(_on_input(tap), with_kwargs=True)
            stack.callback(handle.remove)
        yield
