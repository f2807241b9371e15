"""Hooks that read sites while a model runs, and the early stop after the last of them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from inscape.models.lookout import Lookout, watching
from inscape.models.sites import PLAIN, Site
from inscape.models.values import get, locate

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
        lookouts: what watches attention for open readings.
        grids: by the path of a module, the first two axes of its last input, for sites that have both on one.
    """

    def __init__(self) -> None:
        self.inside = False
        self.stop = False
        self.serial = 0
        self.readings: list[_Reading] = []
        self.lookouts: list[Lookout] = []
        self.grids: dict[str, tuple[int, int]] = {}

    def begin(self) -> None:
        """Starts counting afresh."""
        self.release()
        self.serial += 1
        for reading in self.readings:
            reading.left = reading.total

    def release(self) -> None:
        """Takes off what a pass that ended early left watching."""
        for lookout in reversed(self.lookouts):
            lookout.release()

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


def _reads(site: Site, running: Pass) -> Callable[[Any], Tensor]:
    """How a site is read while a pass runs."""
    grid = site.grid
    return site.read if grid is None else lambda value: site.read(value, running.grids.get(grid))


@contextmanager
def _gridded(root: nn.Module, sites: Sequence[Site], running: Pass) -> Generator[None]:
    """Notes, in every pass, how many stimuli and positions there are where a site has both on one axis."""
    with ExitStack() as stack:
        for path in {site.grid for site in sites if site.grid is not None}:

            def note(module: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
                pick = locate((args, kwargs))
                given = get((args, kwargs), pick) if pick is not None else None
                if isinstance(given, Tensor) and given.ndim > 2:
                    running.grids[path] = (given.shape[0], given.shape[1])

            stack.callback(root.get_submodule(path).register_forward_pre_hook(note, with_kwargs=True, prepend=True).remove)
        yield


class _Tap:
    """A hook on one port of one module, serving all sites that are read there."""

    def __init__(self, sites: Sequence[Site], reader: Reader, running: Pass, reading: _Reading) -> None:
        self.sites = [(site.name, _reads(site, running), site.call) for site in sites]
        # What most hooks do, twelve times and more in every pass: one site, whose rows are the tensor as it is.
        only = sites[0] if len(sites) == 1 else None
        plain = only is not None and only.pick is None and only.layout == PLAIN and only.call is None and only.grid is None
        self.plain = only.name if only is not None and plain else None
        self.reader = reader
        self.running = running
        self.reading = reading
        self.seen = [-1] * len(sites)
        self.serial = -1
        self.call = -1

    def __call__(self, value: Any) -> None:
        running = self.running
        if self.plain is not None and type(value) is Tensor and value.ndim <= 3:
            self.reader(self.plain, value)
            if self.seen[0] != running.serial:
                self.seen[0] = running.serial
                self.reading.left -= 1
            if self.reading.left <= 0:
                running.stop_if_done()
            return
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
def counting(module: nn.Module, running: Pass) -> Generator[None]:
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
def reading(root: nn.Module, sites: Sequence[Site], reader: Reader, running: Pass, stop: bool) -> Generator[None]:
    """Keeps one hook per module and port open while the body runs; all are removed at the end, also after an error."""
    groups: dict[tuple[str, str], list[Site]] = {}
    for site in sites:
        groups.setdefault((site.path, site.port), []).append(site)
    opened = _Reading(len(sites), stop)
    with ExitStack() as stack:
        stack.enter_context(counting(root, running))
        stack.enter_context(_gridded(root, sites, running))
        running.readings.append(opened)
        stack.callback(running.readings.remove, opened)
        for (path, port), group in groups.items():
            tap = _Tap(group, reader, running, opened)
            module = root.get_submodule(path)
            if port == "pattern":
                stack.enter_context(watching(root, group[0], tap, running.lookouts))
                continue
            if port == "out":
                handle = module.register_forward_hook(_on_output(tap))
            else:
                handle = module.register_forward_pre_hook(_on_input(tap), with_kwargs=True)
            stack.callback(handle.remove)
        yield


# What models call the keys and values of the columns that they have read already: transformers renamed it in 5.24.
CACHES = ("cache", "past_key_values")


class Moment:
    """Where in a sequence the running pass is, for writers that act on some tokens only.

    Attributes:
        offset: columns that a key-value cache already holds; column 0 of this pass is column `offset` of the sequence.
        mask: the attention mask `[b, offset + t]` of this pass, or `None`.
        growing: the pass fills a cache, so the sequence may go on.
    """

    def __init__(self) -> None:
        self.offset = 0
        self.mask: Tensor | None = None
        self.growing = False

    def note(self, kwargs: Any) -> None:
        """Reads both from the keyword arguments of the model's forward."""
        mask = kwargs.get("attention_mask")
        self.mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
        cache = next((kwargs[name] for name in CACHES if kwargs.get(name) is not None), None)
        self.growing = cache is not None
        length = getattr(cache, "get_seq_length", None)
        self.offset = int(length()) if length is not None else 0


Writer = Callable[[Tensor, Moment], Tensor]


class Chain:
    """All writers on one port of one module, in the order in which they were opened, behind a single hook that runs before any reader."""

    def __init__(self, running: Pass) -> None:
        self.entries: list[tuple[object, Site, Callable[[Tensor], Tensor]]] = []
        self.running = running
        self.handle: Any = None
        self.serial = -1
        self.call = -1

    def apply(self, value: Any) -> tuple[Any, bool]:
        """The value after all writers, and whether it is a new container."""
        if self.serial != self.running.serial:
            self.serial, self.call = self.running.serial, -1
        self.call += 1
        changed = False
        for _, site, writer in self.entries:
            if site.call is None or site.call == self.call:
                grid = self.running.grids.get(site.grid) if site.grid is not None else None
                value = site.write(value, writer(site.read(value, grid)), grid)
                changed = changed or not site.in_place
        return value, changed


def _write_output(chain: Chain) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        value, changed = chain.apply(output)
        return value if changed else None

    return hook


def _write_input(chain: Chain) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:
        value, changed = chain.apply((args, kwargs))
        return value if changed else None

    return hook


def _note_moment(moment: Moment) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        moment.note(kwargs)

    return hook


@contextmanager
def writing(
    root: nn.Module,
    watched: Sequence[nn.Module],
    pairs: Sequence[tuple[Site, Writer]],
    running: Pass,
    chains: dict[tuple[str, str], Chain],
) -> Generator[None]:
    """Lets each writer change its site while the body runs; the hooks are removed with the last writer of a port, also after an error."""
    token = object()
    moment = Moment()
    with ExitStack() as stack:
        stack.enter_context(counting(root, running))
        stack.enter_context(_gridded(root, [site for site, _ in pairs], running))
        for part in {id(part): part for part in watched}.values():  # their arguments tell where in a sequence a pass is
            stack.callback(part.register_forward_pre_hook(_note_moment(moment), with_kwargs=True, prepend=True).remove)
        for site, writer in pairs:
            key = (site.path, site.port)
            module = root.get_submodule(site.path)
            if key not in chains:
                chain = chains[key] = Chain(running)
                if site.port == "out":
                    chain.handle = module.register_forward_hook(_write_output(chain), prepend=True)
                else:
                    chain.handle = module.register_forward_pre_hook(_write_input(chain), with_kwargs=True, prepend=True)
            stack.callback(_release, chains, key, token)
            chains[key].entries.append((token, site, lambda x, writer=writer: writer(x, moment)))
        yield


def _release(chains: dict[tuple[str, str], Chain], key: tuple[str, str], token: object) -> None:
    chain = chains.get(key)
    if chain is None:
        return
    chain.entries = [entry for entry in chain.entries if entry[0] is not token]
    if not chain.entries:
        chain.handle.remove()
        del chains[key]
